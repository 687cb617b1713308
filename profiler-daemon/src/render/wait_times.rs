//! How long waits were: percentiles by what was waited for.

use super::name;
use crate::model::{Activity, Distribution, Profile};

/// The waits for one thing.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct WaitTimes {
    /// What for: `blocked: io`, `run-queue`, `preempted`...
    pub what: &'static str,
    /// How many have ended, estimated where a clock sampled them.
    pub count: f64,
    /// Intervals that were recorded of them.
    pub records: u64,
    /// Half of them were no longer than this, ns.
    pub p50_ns: u64,
    /// Nine of ten were no longer, ns.
    pub p90_ns: u64,
    /// 99 of 100 were no longer, ns.
    pub p99_ns: u64,
    /// The longest that was recorded, ns.
    pub max_ns: u64,
    /// How many had not ended when it was last looked for them.
    pub still: f64,
    /// The longest of those so far, ns.
    pub longest_still_ns: u64,
    /// Bounds of the buckets, ns, and how many were between them: from the first to less than the
    /// second.
    pub buckets: Vec<(u64, u64, f64)>,
}

impl WaitTimes {
    /// What a distribution says.
    pub(super) fn of(activity: Activity, waits: &Distribution) -> Self {
        let ended = &waits.ended;
        Self {
            what: name::activity(activity),
            count: ended.count(),
            records: ended.records,
            p50_ns: ended.percentile_ns(0.5),
            p90_ns: ended.percentile_ns(0.9),
            p99_ns: ended.percentile_ns(0.99),
            max_ns: ended.max_ns,
            still: waits.open.count(),
            longest_still_ns: waits.open.longest_ns,
            buckets: ended.bounds().collect(),
        }
    }
}

/// All waits of a profile by what they were for.
#[must_use]
pub fn wait_times(profile: &Profile) -> Vec<WaitTimes> {
    profile.waits_by_activity().iter().map(|(activity, waits)| WaitTimes::of(*activity, waits)).collect()
}

/// A length of time with three digits: `1.25 ms`.
#[must_use]
pub fn short_time(ns: u64) -> String {
    let (value, unit) = match ns as f64 {
        ns if ns < 1e3 => return format!("{ns:.0} ns"),
        ns if ns < 1e6 => (ns / 1e3, "us"),
        ns if ns < 1e9 => (ns / 1e6, "ms"),
        ns => (ns / 1e9, "s"),
    };
    match value {
        v if v < 10.0 => format!("{v:.2} {unit}"),
        v if v < 100.0 => format!("{v:.1} {unit}"),
        v => format!("{v:.0} {unit}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_have_three_digits() {
        let texts = [999, 1_000, 45_600, 999_400, 1_250_000, 12_000_000_000].map(short_time);
        assert_eq!(texts, ["999 ns", "1.00 us", "45.6 us", "999 us", "1.25 ms", "12.0 s"]);
    }
}
