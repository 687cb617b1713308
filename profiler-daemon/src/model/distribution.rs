//! How long waits were, by who waited and for what: sparse histograms that add up.

use std::hash::Hash;

use indexmap::IndexMap;
use rustc_hash::FxBuildHasher;

use super::Activity;

/// Most histograms of one profile: those of further threads are not kept, and counted.
const MAX_DISTRIBUTIONS: usize = 50_000;
/// Waits are counted in so many parts: a sampled one stands for a number that is not whole.
pub(crate) const PARTS: u64 = 16;

/// Lengths of waits in log-linear buckets, four an octave: a bucket is at most a quarter of its
/// lower bound wide. A library of HDR histograms keeps every bucket of its range; of the thousands
/// that a window has, most have a few.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Histogram {
    /// Bucket and waits in it in [`PARTS`], by bucket.
    buckets: Vec<(u8, u64)>,
    /// Intervals that were recorded: what the estimate stands on.
    pub records: u64,
    /// The longest that was recorded, ns. Nothing longer than a period of the clock is missed.
    pub max_ns: u64,
}

/// The bucket of a length in ns: 0 to 3 are their own.
fn bucket(ns: u64) -> u8 {
    if ns < 4 {
        return ns as u8;
    }
    let octave = 63 - ns.leading_zeros();
    (4 * (octave - 1) + ((ns >> (octave - 2)) & 3) as u32) as u8
}

/// The first length of a bucket, ns.
fn lower_ns(bucket: u8) -> u64 {
    if bucket < 4 {
        return bucket.into();
    }
    let (octave, quarter) = (u32::from(bucket / 4) + 1, u64::from(bucket % 4));
    if octave > 63 { u64::MAX } else { (1 << octave) | quarter << (octave - 2) }
}

impl Histogram {
    /// Adds a recorded wait that stands for `parts` / [`PARTS`] waits.
    pub(crate) fn add(&mut self, ns: u64, parts: u64) {
        self.add_bucket(bucket(ns), parts);
        self.records = self.records.saturating_add(1);
        self.max_ns = self.max_ns.max(ns);
    }

    /// Adds to a bucket only; for what is read back.
    pub(crate) fn add_bucket(&mut self, bucket: u8, parts: u64) {
        match self.buckets.binary_search_by_key(&bucket, |&(known, _)| known) {
            // What comes from a file may be anything.
            Ok(at) => self.buckets[at].1 = self.buckets[at].1.saturating_add(parts),
            Err(at) => self.buckets.insert(at, (bucket, parts)),
        }
    }

    /// Adds all waits of another one.
    pub fn merge(&mut self, other: &Self) {
        other.buckets.iter().for_each(|&(bucket, parts)| self.add_bucket(bucket, parts));
        self.records = self.records.saturating_add(other.records);
        self.max_ns = self.max_ns.max(other.max_ns);
    }

    /// Buckets and waits in them in [`PARTS`], shortest first.
    pub(crate) fn buckets(&self) -> &[(u8, u64)] {
        &self.buckets
    }

    /// The bounds of each bucket that is not empty, ns, and how many waits are estimated in it.
    pub fn bounds(&self) -> impl Iterator<Item = (u64, u64, f64)> + '_ {
        self.buckets.iter().map(|&(bucket, parts)| {
            (lower_ns(bucket), lower_ns(bucket.saturating_add(1)), parts as f64 / PARTS as f64)
        })
    }

    /// How many waits there were, estimated where the clock sampled them.
    #[must_use]
    pub fn count(&self) -> f64 {
        self.buckets.iter().map(|&(_, parts)| parts as f64).sum::<f64>() / PARTS as f64
    }

    /// The length that a part of all waits (from 0 to 1) does not exceed, ns, evenly interpolated
    /// within its bucket; 0 where there was none.
    #[must_use]
    pub fn percentile_ns(&self, part: f64) -> u64 {
        let wanted = self.count() * part.clamp(0.0, 1.0);
        let mut below = 0.0;
        for (lower, upper, count) in self.bounds() {
            if below + count >= wanted {
                let inside = if count > 0.0 { (wanted - below) / count } else { 1.0 };
                let ns = lower as f64 + (upper - lower) as f64 * inside;
                return (ns as u64).min(self.max_ns);
            }
            below += count;
        }
        self.max_ns
    }
}

/// Waits that had not ended when somebody last looked.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct StillOpen {
    /// When that was, ns since 1970; 0 where nobody has.
    pub at_ns: u64,
    /// How many, in sixteenths.
    pub parts: u64,
    /// The longest so far, ns.
    pub longest_ns: u64,
}

impl StillOpen {
    /// Takes the later look of two; looks at one instant add up.
    fn merge(&mut self, other: &Self) {
        match self.at_ns.cmp(&other.at_ns) {
            std::cmp::Ordering::Less => *self = *other,
            std::cmp::Ordering::Greater => {}
            std::cmp::Ordering::Equal => {
                self.parts = self.parts.saturating_add(other.parts);
                self.longest_ns = self.longest_ns.max(other.longest_ns);
            }
        }
    }

    /// How many.
    #[must_use]
    pub fn count(&self) -> f64 {
        self.parts as f64 / PARTS as f64
    }
}

/// The waits of somebody for one thing.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Distribution {
    /// Those that have ended.
    pub ended: Histogram,
    /// Those that had not.
    pub open: StillOpen,
}

impl Distribution {
    /// Adds another one's.
    pub fn merge(&mut self, other: &Self) {
        self.ended.merge(&other.ended);
        self.open.merge(&other.open);
    }
}

/// The distributions of a profile by an index of its labels, and how sure sums over whole threads
/// are.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Distributions {
    waits: IndexMap<(u32, Activity), Distribution, FxBuildHasher>,
    /// Variance of all off-CPU time of these labels, us².
    variances: IndexMap<u32, u64, FxBuildHasher>,
    /// When it was last looked for waits that had not ended, ns since 1970.
    swept_ns: u64,
}

impl Distributions {
    /// The waits of these labels for this; `None` where there is no room for more.
    pub(crate) fn entry(&mut self, labels: u32, activity: Activity) -> Option<&mut Distribution> {
        let key = (labels, activity);
        if self.waits.len() >= MAX_DISTRIBUTIONS && !self.waits.contains_key(&key) {
            return None;
        }
        Some(self.waits.entry(key).or_default())
    }

    /// Adds to the variance of all off-CPU time of these labels, us².
    pub(crate) fn add_variance(&mut self, labels: u32, us2: u64) {
        let sum = self.variances.entry(labels).or_default();
        *sum = sum.saturating_add(us2);
    }

    /// Notes when it was looked for waits that had not ended.
    pub(crate) fn swept(&mut self, at_ns: u64) {
        self.swept_ns = self.swept_ns.max(at_ns);
    }

    /// When it was last looked for waits that had not ended, ns since 1970; 0 where nobody has.
    pub(crate) fn swept_ns(&self) -> u64 {
        self.swept_ns
    }

    /// All waits, by an index of labels.
    pub(crate) fn waits(&self) -> impl ExactSizeIterator<Item = (u32, Activity, &Distribution)> {
        self.waits.iter().map(|(&(labels, activity), waits)| (labels, activity, waits))
    }

    /// The variances of all off-CPU time by an index of labels, us².
    pub(crate) fn variances(&self) -> impl ExactSizeIterator<Item = (u32, u64)> {
        self.variances.iter().map(|(&labels, &us2)| (labels, us2))
    }

    /// Adds those of another profile, whose labels `here` finds; `None` leaves them out. Returns the
    /// records for which there was no room.
    pub(crate) fn merge(&mut self, other: &Self, mut here: impl FnMut(u32) -> Option<u32>) -> u64 {
        let mut left_out = 0;
        self.swept(other.swept_ns);
        for (&(labels, activity), waits) in &other.waits {
            let Some(labels) = here(labels) else { continue };
            match self.entry(labels, activity) {
                Some(known) => known.merge(waits),
                None => left_out += waits.ended.records,
            }
        }
        for (&labels, &us2) in &other.variances {
            if let Some(labels) = here(labels) {
                self.add_variance(labels, us2);
            }
        }
        left_out
    }

    /// The waits by what `group` makes of labels and activity, in the order in which they come.
    /// Waits that have ended since are not among those that have not.
    pub fn grouped<K: Eq + Hash>(
        &self,
        group: impl Fn(u32, Activity) -> Option<K>,
    ) -> IndexMap<K, Distribution, FxBuildHasher> {
        let mut groups: IndexMap<K, Distribution, FxBuildHasher> = IndexMap::default();
        for (labels, activity, waits) in self.waits() {
            let Some(key) = group(labels, activity) else { continue };
            let known = groups.entry(key).or_default();
            known.ended.merge(&waits.ended);
            if waits.open.at_ns == self.swept_ns {
                known.open.merge(&waits.open);
            }
        }
        groups
    }

    /// Estimate of the memory held, bytes.
    pub(crate) fn memory_bytes(&self) -> usize {
        let buckets: usize = self.waits.values().map(|waits| 16 * waits.ended.buckets.capacity()).sum();
        buckets + self.waits.len() * (size_of::<Distribution>() + 40) + self.variances.len() * 40
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Wait;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn buckets_hold_what_they_say(ns in any::<u64>()) {
            let at = bucket(ns);
            prop_assert!(lower_ns(at) <= ns && (ns < lower_ns(at + 1) || lower_ns(at + 1) == u64::MAX));
            prop_assert!(lower_ns(at + 1) - lower_ns(at) <= (lower_ns(at) / 4).max(1) + 1 || at + 1 > 251);
        }
    }

    #[test]
    fn percentiles_are_within_a_bucket_of_the_truth() {
        let mut histogram = Histogram::default();
        (1..=10_000).for_each(|us| histogram.add(us * 1000, PARTS));
        for part in [0.5, 0.9, 0.99] {
            let ratio = histogram.percentile_ns(part) as f64 / (part * 1e7);
            assert!((0.97..1.03).contains(&ratio), "{part}: {ratio}");
        }
        assert_eq!(histogram.percentile_ns(1.0), 10_000_000);
        assert_eq!(Histogram::default().percentile_ns(0.5), 0);
    }

    #[test]
    fn merging_takes_the_last_look_at_what_is_open() {
        let activity = Activity::Blocked(Wait::ALL[0]);
        let window = |at_ns, open| {
            let mut all = Distributions::default();
            all.swept(at_ns);
            let waits = all.entry(3, activity).expect("room");
            waits.ended.add(1000, 2 * PARTS);
            if open {
                waits.open = StillOpen { at_ns, parts: PARTS, longest_ns: at_ns };
            }
            all.add_variance(3, 5);
            all
        };
        for (last_open, expected) in [(true, 1.0), (false, 0.0)] {
            let mut forth = window(10, true);
            assert_eq!(forth.merge(&window(20, last_open), Some), 0);
            let mut back = window(20, last_open);
            back.merge(&window(10, true), Some);
            for merged in [forth, back] {
                let groups = merged.grouped(|_, activity| Some(activity));
                assert_eq!(groups[&activity].open.count(), expected);
                assert_eq!((groups[&activity].ended.count(), groups[&activity].ended.records), (4.0, 2));
                assert_eq!(merged.variances().next(), Some((3, 10)));
            }
        }
    }
}
