//! What happens to processes, from two sources: our own programs and perf's side-band records.

use aya::Ebpf;
use tracing::warn;

use super::load;
use super::on_cpu::online_cpus;
use super::rings::Rings;
use super::side_band::SideBand;
use super::types::Types;
use crate::model::{MonoNs, ProcessEvent};

/// Program and tracepoint of each hook.
const HOOKS: [(&str, &str); 3] = [
    ("process_fork", "sched_process_fork"),
    ("process_exec", "sched_process_exec"),
    ("process_exit", "sched_process_exit"),
];

/// The sources of events.
#[derive(Default)]
pub(super) struct Watch {
    side_band: Option<SideBand>,
    /// What was read and is not to be told yet.
    held: Vec<ProcessEvent>,
}

/// What happened since the last time.
#[derive(Debug, Default)]
pub struct Watched {
    /// In the order of time, also from one call to the next.
    pub events: Vec<ProcessEvent>,
    /// Events that were lost: what processes map must be looked for in `/proc`.
    pub lost: u64,
}

impl Watch {
    pub(super) fn attach(&mut self, ebpf: &mut Ebpf, types: &mut Types) {
        for (program, tracepoint) in HOOKS {
            if let Err(error) = load::attach_tracepoint(ebpf, types, program, tracepoint) {
                warn!(tracepoint, %error, "new processes are found in /proc only, later");
            }
        }
        let mut side_band = SideBand::default();
        side_band.follow_cpus(&online_cpus());
        self.side_band = Some(side_band);
    }

    pub(super) fn follow_cpus(&mut self) {
        if let Some(side_band) = &mut self.side_band {
            side_band.follow_cpus(&online_cpus());
        }
    }

    /// Reads both sources, one after the other, so that the second has more: what happened since the
    /// first was begun is held back until its neighbours are known. A process whose fork or mappings came
    /// after its end would be nobody.
    pub(super) fn read(
        &mut self,
        rings: &mut Rings,
        mut decode: impl FnMut(&[u8]) -> Option<ProcessEvent>,
    ) -> Watched {
        let begun = super::now();
        let mut watched = Watched { events: std::mem::take(&mut self.held), lost: 0 };
        if let Some(side_band) = &mut self.side_band {
            let read = side_band.read();
            watched.events.extend(read.events);
            watched.lost = read.lost;
        }
        rings.drain_control(|bytes| watched.events.extend(decode(bytes)));
        self.held = hold_back(&mut watched.events, begun);
        watched
    }
}

/// Puts events into the order of time, and takes away those from an instant on.
fn hold_back(events: &mut Vec<ProcessEvent>, from: MonoNs) -> Vec<ProcessEvent> {
    events.sort_by_key(|event| event.time);
    events.split_off(events.partition_point(|event| event.time < from))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{Pid, ProcessChange, ProcessId};

    #[test]
    fn what_happened_meanwhile_is_told_the_next_time_in_the_order_of_time() {
        let exit = |time, pid| ProcessEvent {
            time: MonoNs(time),
            change: ProcessChange::Exit(ProcessId { pid: Pid(pid), start_ticks: 1 }),
        };
        let times = |events: &[ProcessEvent]| events.iter().map(|event| event.time.0).collect::<Vec<_>>();
        let mut events = vec![exit(12, 1), exit(3, 2), exit(10, 3), exit(9, 4)];
        let mut held = hold_back(&mut events, MonoNs(10));
        assert_eq!((times(&events), times(&held)), (vec![3, 9], vec![10, 12]));
        held.push(exit(11, 5));
        assert!(hold_back(&mut held, MonoNs(20)).is_empty());
        assert_eq!(times(&held), [10, 11, 12]);
    }
}
