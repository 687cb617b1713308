//! Kernel time, wall-clock time and ranges of it.

use std::time::{Duration, SystemTime};

/// Nanoseconds of CLOCK_MONOTONIC, the clock of `bpf_ktime_get_ns`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct MonoNs(pub u64);

/// One instant read from both clocks, to translate kernel time into wall-clock time.
#[derive(Clone, Copy, Debug)]
pub struct ClockAnchor {
    /// The instant on the kernel's clock.
    pub mono: MonoNs,
    /// The same instant on the wall clock.
    pub wall: SystemTime,
}

impl ClockAnchor {
    /// The wall-clock time of a kernel time stamp.
    #[must_use]
    pub fn wall(&self, at: MonoNs) -> SystemTime {
        if at >= self.mono {
            self.wall + Duration::from_nanos(at.0 - self.mono.0)
        } else {
            self.wall - Duration::from_nanos(self.mono.0 - at.0)
        }
    }
}

/// A half-open range of wall-clock time: `from <= t < to`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TimeRange {
    /// First instant inside.
    pub from: SystemTime,
    /// First instant after.
    pub to: SystemTime,
}

impl TimeRange {
    /// The `length` that ends at `to`.
    #[must_use]
    pub fn ending(to: SystemTime, length: Duration) -> Self {
        Self { from: to.checked_sub(length).unwrap_or(SystemTime::UNIX_EPOCH), to }
    }

    /// How long the range is; zero where `to` is before `from`.
    #[must_use]
    pub fn length(&self) -> Duration {
        self.to.duration_since(self.from).unwrap_or_default()
    }

    /// Whether any instant lies in both ranges.
    #[must_use]
    pub fn overlaps(&self, other: &Self) -> bool {
        self.from < other.to && other.from < self.to
    }

    /// The part that lies in both ranges.
    #[must_use]
    pub fn intersection(&self, other: &Self) -> Option<Self> {
        self.overlaps(other).then(|| Self { from: self.from.max(other.from), to: self.to.min(other.to) })
    }

    /// The parts of this range that none of `covered` holds, in the order of time.
    #[must_use]
    pub fn gaps(&self, mut covered: Vec<Self>) -> Vec<Self> {
        covered.sort_by_key(|range| range.from);
        let end = Self { from: self.to, to: self.to };
        let mut gaps = Vec::new();
        let mut at = self.from;
        for range in covered.into_iter().chain([end]) {
            let gap = Self { from: at, to: range.from.min(self.to) };
            if gap.from < gap.to {
                gaps.push(gap);
            }
            at = at.max(range.to);
        }
        gaps
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gaps_are_what_is_left_over() {
        let at = |seconds| SystemTime::UNIX_EPOCH + Duration::from_secs(seconds);
        let range = |from, to| TimeRange { from: at(from), to: at(to) };
        let gaps = |covered: &[(u64, u64)]| {
            range(10, 100).gaps(covered.iter().map(|&(from, to)| range(from, to)).collect())
        };
        assert_eq!(gaps(&[]), [range(10, 100)]);
        assert_eq!(gaps(&[(0, 100)]), []);
        assert_eq!(gaps(&[(50, 60), (5, 20), (20, 30), (25, 28)]), [range(30, 50), range(60, 100)]);
        assert_eq!(gaps(&[(200, 300)]), [range(10, 100)]);
        assert_eq!(gaps(&[(90, 200)]), [range(10, 90)]);
    }
}
