//! What happens to processes, from two sources: our own programs and perf's side-band records.

use aya::Ebpf;
use tracing::warn;

use super::load;
use super::on_cpu::online_cpus;
use super::side_band::SideBand;
use super::types::Types;
use crate::model::ProcessEvent;

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
}

/// What happened since the last time.
#[derive(Debug, Default)]
pub struct Watched {
    /// In the order of time.
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

    pub(super) fn read(&mut self, control: Vec<ProcessEvent>) -> Watched {
        let mut watched = Watched { events: control, lost: 0 };
        if let Some(side_band) = &mut self.side_band {
            let read = side_band.read();
            watched.events.extend(read.events);
            watched.lost = read.lost;
        }
        watched.events.sort_by_key(|event| event.time);
        watched
    }
}
