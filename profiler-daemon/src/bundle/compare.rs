//! What grew since a day earlier: frames by time per second, so that ranges of different length and
//! profiles of different frequency compare.

use std::collections::HashMap;
use std::time::Duration;

use super::evidence::Part;
use crate::render;

/// One frame now and then, in seconds of threads' time per second of the clock.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Growth {
    pub(super) frame: String,
    pub(super) then: f64,
    pub(super) now: f64,
}

/// The frames that grew most, biggest growth first; by total, so that callers come with callees.
pub(super) fn grown(now: &Part, then: &Part, limit: usize) -> Vec<Growth> {
    let earlier = per_second(then);
    let mut rows: Vec<Growth> = per_second(now)
        .into_iter()
        .map(|(frame, now)| {
            let then = earlier.get(&frame).copied().unwrap_or_default();
            Growth { frame, then, now }
        })
        .filter(|row| row.now > row.then)
        .collect();
    rows.sort_by(|a, b| (b.now - b.then).total_cmp(&(a.now - a.then)).then_with(|| a.frame.cmp(&b.frame)));
    rows.truncate(limit);
    rows
}

/// Time of the whole profile per second of the clock, in seconds.
pub(super) fn load(part: &Part) -> f64 {
    Duration::from_nanos(part.profile.total().ns).as_secs_f64() / seconds(part)
}

fn per_second(part: &Part) -> HashMap<String, f64> {
    let shown = part.profile.total_shown().max(1) as f64;
    let factor = load(part) / shown;
    let rows = render::top(&part.profile, usize::MAX).into_iter();
    rows.map(|row| (row.frame, row.total_value as f64 * factor)).collect()
}

fn seconds(part: &Part) -> f64 {
    // A window is at least a second; nothing divides by zero.
    part.about.covered.as_secs_f64().max(1e-3)
}
