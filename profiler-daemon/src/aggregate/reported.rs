//! What windows were told of intervals that had not ended: it is taken off what comes next.

use std::collections::HashMap;
use std::time::{Duration, SystemTime};

use crate::model::{Measure, ProcessId, Sample, Tid};

/// Most open intervals that are remembered. What does not fit is told whole when it ends.
const MAX_OPEN: usize = 1 << 18;

/// Blocked, run-queue and preempted time, ns.
type Parts = [u64; 3];

/// By thread and number of the interval: what was told, and when.
#[derive(Debug, Default)]
pub(super) struct Reported(HashMap<(ProcessId, Tid, u32), (Parts, SystemTime)>);

impl Reported {
    /// What the interval stands for by its thread's clock, beyond what was told of it before;
    /// `None` where that is nothing.
    pub(super) fn news(&mut self, sample: &Sample, at: SystemTime) -> Option<Measure> {
        let parts = sample.measure.by_clock()?;
        let Measure::OffCpu { sequence, open, .. } = sample.measure else { return None };
        let key = (sample.process, sample.tid, sequence);
        let told = if open {
            if self.0.len() >= MAX_OPEN && !self.0.contains_key(&key) {
                return None;
            }
            self.0.insert(key, (parts, at))
        } else {
            self.0.remove(&key)
        };
        let news = told.map_or(parts, |(told, _)| beyond(parts, told));
        (news != [0; 3]).then(|| sample.measure.with_parts(news))
    }

    /// Forgets intervals that no sweep has seen since: their end was lost.
    pub(super) fn forget(&mut self, now: SystemTime, after: Duration) {
        self.0.retain(|_, (_, at)| now.duration_since(*at).is_ok_and(|age| age < after));
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
    use super::*;

    #[test]
    fn no_time_is_told_twice() {
        assert_eq!(beyond([100, 7, 0], [60, 0, 0]), [40, 7, 0]);
        assert_eq!(beyond([100, 7, 0], [100, 7, 0]), [0; 3]);
        // Told as blocked, and then it was said to have been preempted all along.
        assert_eq!(beyond([0, 0, 100], [60, 0, 0]), [0, 0, 40]);
        assert_eq!(beyond([0, 0, 50], [60, 0, 0]), [0; 3]);
    }
}
