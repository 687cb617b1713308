//! How sure a profile is, in words: standard error, period and share of threads, user stacks that are
//! not the interval's own.

use std::fmt::Write;

use super::wait_times::short_time;
use crate::model::{Profile, ProfileKind};

/// How a profile was sampled, as an answer carries it.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Certainty {
    /// Sum of all values.
    pub total: f64,
    /// Its standard error, in the same unit.
    pub total_error: f64,
    /// Shortest and longest period of the off-CPU clocks, ns; 0 where every interval was taken.
    pub periods_ns: [u64; 2],
    /// The clocks looked at one thread in so many, at the least; 0 or 1: at all.
    pub one_thread_in: u64,
    /// Off-CPU time, and how much of it has a user stack that was borrowed from another wait at the
    /// same place, or none although the thread has one, ns.
    pub off_cpu_ns: u64,
    /// See above.
    pub borrowed_ns: u64,
    /// See above.
    pub missing_ns: u64,
}

impl From<&Profile> for Certainty {
    fn from(profile: &Profile) -> Self {
        let quality = &profile.quality;
        let total = profile.total();
        Self {
            total: if profile.kind() == ProfileKind::OnCpu {
                total.count as f64
            } else {
                total.ns as f64 / 1e3
            },
            total_error: profile.total_error(),
            periods_ns: [quality.clock_period_min_ns, quality.clock_period_ns],
            one_thread_in: 1 << quality.thread_share.min(31),
            off_cpu_ns: quality.off_cpu_ns,
            borrowed_ns: quality.borrowed_ns,
            missing_ns: quality.missing_ns,
        }
    }
}

impl Certainty {
    /// `±0.4 %`: the standard error as a part of the total; empty where nothing was left to chance.
    #[must_use]
    pub fn error(&self) -> String {
        if self.total_error <= 0.0 || self.total <= 0.0 {
            return String::new();
        }
        match 100.0 * self.total_error / self.total {
            percent if percent < 0.1 => "±<0.1 %".to_owned(),
            percent if percent < 10.0 => format!("±{percent:.1} %"),
            percent => format!("±{percent:.0} %"),
        }
    }

    /// `a sample every 10.0 ms to 80.0 ms of 1 in 4 threads`; empty where every interval was taken.
    #[must_use]
    pub fn sampled(&self) -> String {
        let [shortest, longest] = self.periods_ns;
        let mut text = match longest {
            0 => String::new(),
            _ if shortest == 0 || shortest == longest => format!("a sample every {}", short_time(longest)),
            _ => format!("a sample every {} to {}", short_time(shortest), short_time(longest)),
        };
        if self.one_thread_in > 1 {
            // Writing to a string cannot fail.
            let _ = write!(text, " of 1 in {} threads", self.one_thread_in);
        }
        text.trim_start().to_owned()
    }

    /// `user stacks of 2.1 % of the off-CPU time borrowed, of 0.3 % missing`; empty without any.
    #[must_use]
    pub fn user_stacks(&self) -> String {
        if self.off_cpu_ns == 0 {
            return String::new();
        }
        let share = |ns: u64| match 100.0 * ns as f64 / self.off_cpu_ns as f64 {
            percent if ns > 0 && percent < 0.1 => "<0.1 %".to_owned(),
            percent => format!("{percent:.1} %"),
        };
        let [borrowed, missing] = [self.borrowed_ns, self.missing_ns].map(share);
        format!("user stacks of {borrowed} of the off-CPU time borrowed, of {missing} missing")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words() {
        let mut certainty = Certainty::default();
        assert_eq!((certainty.error(), certainty.sampled(), certainty.user_stacks()), Default::default());
        certainty = Certainty {
            total: 1000.0,
            total_error: 4.0,
            periods_ns: [10_000_000, 80_000_000],
            one_thread_in: 4,
            off_cpu_ns: 1000,
            borrowed_ns: 21,
            missing_ns: 0,
        };
        assert_eq!(certainty.error(), "±0.4 %");
        assert_eq!(certainty.sampled(), "a sample every 10.0 ms to 80.0 ms of 1 in 4 threads");
        assert_eq!(
            certainty.user_stacks(),
            "user stacks of 2.1 % of the off-CPU time borrowed, of 0.0 % missing"
        );
        let one = Certainty { periods_ns: [10_000_000; 2], one_thread_in: 1, ..certainty };
        assert_eq!(one.sampled(), "a sample every 10.0 ms");
    }
}
