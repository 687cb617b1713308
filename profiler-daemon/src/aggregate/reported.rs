//! What windows were told of intervals that had not ended: it is taken off what comes next.

use std::collections::HashMap;
use std::time::{Duration, SystemTime};

use crate::model::{Draw, Measure, ProcessId, Sample, Tid};

/// Most open intervals that are remembered. What does not fit is told whole when it ends.
const MAX_OPEN: usize = 1 << 18;

/// A sweep takes less than this.
const SWEEP: Duration = Duration::from_millis(500);

/// Blocked, run-queue and preempted time, ns.
type Parts = [u64; 3];

#[derive(Debug)]
pub(super) struct Reported {
    /// By thread and number of the interval.
    open: HashMap<(ProcessId, Tid, u32), Told>,
    /// When the last sweeps began of which something has arrived, oldest first.
    sweeps: [SystemTime; 4],
}

/// What was told of an interval that had not ended.
#[derive(Debug)]
struct Told {
    /// What it stood for by its clock.
    parts: Parts,
    /// How long it was.
    lengths: Parts,
    /// When the sweep was that saw it.
    at: SystemTime,
    /// The interval as the sweep saw it.
    sample: Sample,
}

/// What an interval is worth beyond what was told of it before.
#[derive(Debug)]
pub(super) struct News {
    /// Parts as they count: by the clock, and for all threads that this one stands for.
    pub(super) measure: Measure,
    /// How each part was drawn.
    pub(super) draws: [Draw; 3],
    /// See [`crate::model::Clock::thread_share`].
    pub(super) thread_share: u8,
    /// When the interval was last told of; `None` where it never was.
    pub(super) told_at: Option<SystemTime>,
    /// It has not ended.
    pub(super) open: bool,
}

impl Default for Reported {
    fn default() -> Self {
        Self { open: HashMap::new(), sweeps: [SystemTime::UNIX_EPOCH; 4] }
    }
}

impl Reported {
    /// What the interval stands for by its thread's clock, beyond what was told of it before;
    /// `None` where that is nothing.
    pub(super) fn news(&mut self, sample: &Sample, at: SystemTime) -> Option<News> {
        let parts = sample.measure.by_clock()?;
        let Measure::OffCpu { blocked_ns, run_queue_ns, preempted_ns, sequence, open, sampled, .. } =
            sample.measure
        else {
            return None;
        };
        let clock = sampled.by_clock?;
        let lengths = [blocked_ns, run_queue_ns, preempted_ns];
        let key = (sample.process, sample.tid, sequence);
        let told = if open {
            if self.open.len() >= MAX_OPEN && !self.open.contains_key(&key) {
                return None;
            }
            self.note_sweep(at);
            self.open.insert(key, Told { parts, lengths, at, sample: sample.clone() })
        } else {
            self.open.remove(&key)
        };
        let (news, lengths) = match &told {
            Some(told) => (beyond(parts, told.parts), beyond(lengths, told.lengths)),
            None => (parts, lengths),
        };
        let draw = |part: usize| Draw {
            length_ns: lengths[part],
            ticks: news[part].checked_div(clock.period_ns).unwrap_or_default(),
            period_ns: clock.period_ns,
        };
        (news != [0; 3]).then(|| News {
            measure: sample.measure.with_parts(news.map(|ns| ns.saturating_mul(clock.stands_for()))),
            draws: [draw(0), draw(1), draw(2)],
            thread_share: clock.thread_share,
            told_at: told.map(|told| told.at),
            open,
        })
    }

    /// Forgets intervals that the last sweeps did not see any more: their end was lost. Sweeps are
    /// counted, since records may arrive late, all of them; and the last one may not be whole yet.
    pub(super) fn forget(&mut self) {
        let oldest = self.sweeps[0];
        self.open.retain(|_, told| told.at >= oldest);
    }

    /// The intervals that the last sweep saw and that have not ended since.
    pub(super) fn still_open(&self) -> impl Iterator<Item = &Sample> {
        let [.., last] = self.sweeps;
        self.open.values().filter(move |told| told.at + SWEEP >= last).map(|told| &told.sample)
    }

    fn note_sweep(&mut self, at: SystemTime) {
        let [.., last] = self.sweeps;
        if at.duration_since(last).is_ok_and(|since| since > SWEEP) {
            self.sweeps.rotate_left(1);
            self.sweeps[3] = at;
        }
    }
}

/// What is new in each part. A part cannot shrink; should one seem to, the others make up for it,
/// so that no time is told twice.
fn beyond(parts: Parts, told: Parts) -> Parts {
    let mut excess: u64 = told.iter().zip(parts).map(|(told, part)| told.saturating_sub(part)).sum();
    let mut news = [0, 1, 2].map(|at: usize| parts[at].saturating_sub(told[at]));
    for part in &mut news {
        let taken = excess.min(*part);
        *part -= taken;
        excess -= taken;
    }
    news
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::model::{CgroupId, Clock, MonoNs, Pid, Sampled, StackFlags, TaskState, Wait};

    fn interval(length_ns: u64, open: bool) -> Sample {
        let by_clock = Some(Clock::default());
        Sample {
            time: MonoNs(0),
            process: ProcessId { pid: Pid(1), start_ticks: 1 },
            tid: Tid(1),
            cgroup: CgroupId(1),
            labels: Arc::default(),
            stack: Arc::new([]),
            flags: StackFlags::default(),
            measure: Measure::OffCpu {
                blocked_ns: length_ns,
                run_queue_ns: 0,
                preempted_ns: 0,
                state: TaskState::Interruptible,
                wait: Wait::Other,
                sequence: 1,
                open,
                sampled: Sampled { by_session: false, by_clock },
            },
            waker: None,
        }
    }

    #[test]
    fn an_open_interval_is_told_in_pieces_however_late_they_come() {
        let at = |seconds: u64| SystemTime::UNIX_EPOCH + Duration::from_secs(1000 + seconds);
        let mut reported = Reported::default();
        let mut news = |length, open, seconds| {
            let news =
                reported.news(&interval(length, open), at(seconds)).and_then(|news| news.measure.by_clock());
            reported.forget();
            news.map(|parts| parts[0])
        };
        assert_eq!(news(10, true, 0), Some(10));
        // However long the next sweep was in coming.
        assert_eq!(news(30, true, 60), Some(20));
        assert_eq!(news(30, true, 61), None, "nothing new");
        assert_eq!(news(35, false, 62), Some(5));
        assert_eq!(news(35, false, 63), Some(35), "another interval by now");
    }

    #[test]
    fn an_interval_whose_end_was_lost_is_forgotten() {
        let at = |seconds: u64| SystemTime::UNIX_EPOCH + Duration::from_secs(1000 + seconds);
        let mut reported = Reported::default();
        reported.news(&interval(10, true), at(0));
        let other = Sample { tid: Tid(2), ..interval(10, true) };
        for sweep in 1..=4 {
            assert_eq!(reported.open.len(), if sweep == 1 { 1 } else { 2 });
            reported.news(&other, at(sweep));
            reported.forget();
        }
        assert_eq!(reported.open.len(), 1);
    }

    #[test]
    fn no_time_is_told_twice() {
        assert_eq!(beyond([100, 7, 0], [60, 0, 0]), [40, 7, 0]);
        assert_eq!(beyond([100, 7, 0], [100, 7, 0]), [0; 3]);
        // Told as blocked, and then it was said to have been preempted all along.
        assert_eq!(beyond([0, 0, 100], [60, 0, 0]), [0, 0, 40]);
        assert_eq!(beyond([0, 0, 50], [60, 0, 0]), [0; 3]);
    }
}
