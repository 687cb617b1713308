//! A profile: distinct stacks with their labels and values, with every table interned.

use std::hash::Hash;
use std::sync::Arc;

use indexmap::{IndexMap, IndexSet};
use rustc_hash::FxBuildHasher;

use super::{
    Frame, Labels, Loss, Measure, ProfileKind, Sample, Selector, StackFlags, StopReason, Wait, WalkEnd,
};

type Set<T> = IndexSet<T, FxBuildHasher>;

/// Distinct stacks with their labels and values.
#[derive(Clone, Debug)]
pub struct Profile {
    kind: ProfileKind,
    frames: Set<Arc<Frame>>,
    stacks: Set<Box<[u32]>>,
    labels: Set<Arc<Labels>>,
    values: IndexMap<Key, Value, FxBuildHasher>,
    /// What is known of the stacks.
    pub quality: StackQuality,
    /// What is missing.
    pub loss: Loss,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Key {
    labels: u32,
    stack: u32,
    activity: Activity,
}

/// What a thread was doing with its time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Activity {
    /// Running.
    OnCpu,
    /// Waiting for this.
    Blocked(Wait),
    /// Woken, waiting for a CPU.
    RunQueue,
    /// Runnable all along, waiting for a CPU.
    Preempted,
}

impl Activity {
    /// The pseudo frame that renderers put on top of the stack; none for running code.
    #[must_use]
    pub fn marker(self) -> Option<&'static str> {
        match self {
            Self::OnCpu => None,
            Self::Blocked(wait) => Some(wait.marker()),
            Self::RunQueue => Some("[run-queue]"),
            Self::Preempted => Some("[preempted]"),
        }
    }
}

/// What a stack is worth.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Value {
    /// Records: sampler hits, or (parts of) intervals.
    pub count: u64,
    /// Time, ns: hits times their period, or the intervals' length.
    pub ns: u64,
}

impl std::ops::AddAssign for Value {
    fn add_assign(&mut self, other: Self) {
        self.count += other.count;
        self.ns += other.ns;
    }
}

/// How many records have which flaw.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct StackQuality {
    /// All records.
    pub records: u64,
    /// User stacks walked to the outermost frame.
    pub complete: u64,
    /// User or kernel stacks cut at the depth limit.
    pub truncated: u64,
    /// User stacks that ended early, by reason: see [`StopReason::ALL`].
    pub stopped: [u64; StopReason::ALL.len()],
    /// Stacks with frames found by following the frame pointer, for want of unwinding tables.
    pub guessed: u64,
    /// No user stack although the thread has one.
    pub user_missing: u64,
    /// User stacks borrowed from an earlier wait at the same place.
    pub user_borrowed: u64,
    /// The kernel stack could not be read.
    pub kernel_missing: u64,
    /// Longest period of the off-CPU clocks, ns; 0 where none had a part in it.
    pub clock_period_ns: u64,
    /// Frames of all records.
    pub frames: u64,
    /// Frames without a name.
    pub frames_unnamed: u64,
}

impl StackQuality {
    fn add(&mut self, flags: StackFlags, stack: &[Arc<Frame>]) {
        self.records += 1;
        self.complete += u64::from(flags.walk == WalkEnd::Complete);
        self.truncated += u64::from(flags.kernel_truncated || flags.walk == WalkEnd::Truncated);
        for (count, reason) in self.stopped.iter_mut().zip(StopReason::ALL) {
            *count += u64::from(flags.walk == WalkEnd::Stopped(reason));
        }
        self.guessed += u64::from(flags.guessed);
        self.user_missing += u64::from(flags.user_missing);
        self.user_borrowed += u64::from(flags.borrowed);
        self.kernel_missing += u64::from(flags.kernel_missing);
        self.frames += stack.len() as u64;
        self.frames_unnamed += stack.iter().filter(|frame| !frame.named).count() as u64;
    }

    /// User stacks that ended early, for whatever reason.
    #[must_use]
    pub fn stopped_early(&self) -> u64 {
        self.stopped.iter().sum()
    }

    /// Adds another profile's counts.
    pub fn merge(&mut self, other: &Self) {
        self.records += other.records;
        self.complete += other.complete;
        self.truncated += other.truncated;
        for (count, more) in self.stopped.iter_mut().zip(other.stopped) {
            *count += more;
        }
        self.guessed += other.guessed;
        self.user_missing += other.user_missing;
        self.user_borrowed += other.user_borrowed;
        self.clock_period_ns = self.clock_period_ns.max(other.clock_period_ns);
        self.kernel_missing += other.kernel_missing;
        self.frames += other.frames;
        self.frames_unnamed += other.frames_unnamed;
    }
}

/// One row of a profile.
#[derive(Clone, Copy, Debug)]
pub struct Entry<'a> {
    /// Who.
    pub labels: &'a Arc<Labels>,
    /// Doing what.
    pub activity: Activity,
    /// Indices into [`Profile::frames`], leaf first.
    pub stack: &'a [u32],
    /// How much.
    pub value: Value,
    /// How much in [`ProfileKind::unit`]. Microseconds are rounded so that the rows of a profile
    /// add up to its total.
    pub shown: u64,
}

impl Profile {
    /// An empty profile.
    #[must_use]
    pub fn new(kind: ProfileKind) -> Self {
        Self {
            kind,
            frames: Set::default(),
            stacks: Set::default(),
            labels: Set::default(),
            values: IndexMap::default(),
            quality: StackQuality::default(),
            loss: Loss::default(),
        }
    }

    /// Adds one record. An off-CPU interval adds a row for each of its parts that is not empty.
    pub fn add(&mut self, sample: &Sample) {
        self.quality.add(sample.flags, &sample.stack);
        let mut row = |activity, ns| {
            if ns > 0 {
                self.add_row(&sample.labels, activity, &sample.stack, Value { count: 1, ns });
            }
        };
        match sample.measure {
            Measure::OnCpu { period_ns } => row(Activity::OnCpu, period_ns),
            Measure::OffCpu { blocked_ns, run_queue_ns, preempted_ns, wait, sampled, .. } => {
                row(Activity::Blocked(wait), blocked_ns);
                row(Activity::RunQueue, run_queue_ns);
                row(Activity::Preempted, preempted_ns);
                let period_ns = sampled.by_clock.map_or(0, |clock| clock.period_ns);
                self.quality.clock_period_ns = self.quality.clock_period_ns.max(period_ns);
            }
        }
    }

    /// Adds one record as [`Self::add`] does, unless that could take the profile past `max_rows`
    /// rows; says whether it was added. Records of known rows always are.
    #[must_use]
    pub fn add_within(&mut self, sample: &Sample, max_rows: usize) -> bool {
        // One record makes at most three rows.
        let fits = self.values.len() + 3 <= max_rows || self.knows(sample);
        if fits {
            self.add(sample);
        }
        fits
    }

    /// Whether the record's stack already has a row for every activity it carries.
    fn knows(&self, sample: &Sample) -> bool {
        let stack: Option<Vec<u32>> =
            sample.stack.iter().map(|frame| Some(self.frames.get_index_of(frame)? as u32)).collect();
        let stack = stack.and_then(|stack| self.stacks.get_index_of(stack.as_slice()));
        let (Some(stack), Some(labels)) = (stack, self.labels.get_index_of(&sample.labels)) else {
            return false;
        };
        let known = |activity| {
            self.values.contains_key(&Key { labels: labels as u32, stack: stack as u32, activity })
        };
        match sample.measure {
            Measure::OnCpu { .. } => known(Activity::OnCpu),
            Measure::OffCpu { blocked_ns, run_queue_ns, preempted_ns, wait, .. } => {
                (blocked_ns == 0 || known(Activity::Blocked(wait)))
                    && (run_queue_ns == 0 || known(Activity::RunQueue))
                    && (preempted_ns == 0 || known(Activity::Preempted))
            }
        }
    }

    /// Adds a value to the row of these labels, activity and stack (leaf first).
    pub fn add_row(&mut self, labels: &Arc<Labels>, activity: Activity, stack: &[Arc<Frame>], value: Value) {
        let stack: Box<[u32]> = stack.iter().map(|frame| intern(&mut self.frames, frame)).collect();
        let stack = match self.stacks.get_index_of(&stack) {
            Some(index) => index as u32,
            None => self.stacks.insert_full(stack).0 as u32,
        };
        let labels = intern(&mut self.labels, labels);
        *self.values.entry(Key { labels, stack, activity }).or_default() += value;
    }

    /// Adds all rows, counts and losses of another profile.
    pub fn merge(&mut self, other: &Self) {
        self.merge_rows(other, |_| true);
        self.quality.merge(&other.quality);
        self.loss.merge(&other.loss);
    }

    /// Adds the rows of another profile that a selector wants. Its loss is added whole, since
    /// nobody knows whose records were lost; so is what is known of the stacks.
    pub fn merge_selected(&mut self, other: &Self, selector: &Selector) {
        if selector.is_empty() {
            return self.merge(other);
        }
        self.merge_rows(other, |labels| selector.matches(labels));
        self.quality.merge(&other.quality);
        self.loss.merge(&other.loss);
    }

    fn merge_rows(&mut self, other: &Self, wanted: impl Fn(&Labels) -> bool) {
        let wanted: Vec<bool> = other.labels.iter().map(|labels| wanted(labels)).collect();
        for (key, value) in &other.values {
            if !wanted[key.labels as usize] {
                continue;
            }
            let (labels, stack) = (&other.labels[key.labels as usize], &other.stacks[key.stack as usize]);
            let stack: Vec<Arc<Frame>> =
                stack.iter().map(|&id| Arc::clone(&other.frames[id as usize])).collect();
            self.add_row(labels, key.activity, &stack, *value);
        }
    }

    /// What it measures.
    #[must_use]
    pub fn kind(&self) -> ProfileKind {
        self.kind
    }

    /// The frame table that [`Entry::stack`] points into.
    #[must_use]
    pub fn frame(&self, index: u32) -> &Frame {
        &self.frames[index as usize]
    }

    /// All frames, in the order of their indices.
    pub fn frames(&self) -> impl ExactSizeIterator<Item = &Arc<Frame>> {
        self.frames.iter()
    }

    /// All rows, in the order in which they were first seen.
    pub fn entries(&self) -> impl Iterator<Item = Entry<'_>> {
        // The remainder of each division goes on to the next row, so that the sum is exact.
        let mut remainder_ns = 0;
        self.values.iter().map(move |(key, &value)| {
            let shown = if self.kind == ProfileKind::OnCpu {
                value.count
            } else {
                remainder_ns += value.ns;
                let us = remainder_ns / 1000;
                remainder_ns %= 1000;
                us
            };
            Entry {
                labels: &self.labels[key.labels as usize],
                activity: key.activity,
                stack: &self.stacks[key.stack as usize],
                value,
                shown,
            }
        })
    }

    /// Sum of all rows.
    #[must_use]
    pub fn total(&self) -> Value {
        let mut total = Value::default();
        self.values.values().for_each(|&value| total += value);
        total
    }

    /// Sum of all rows in [`ProfileKind::unit`].
    #[must_use]
    pub fn total_shown(&self) -> u64 {
        let total = self.total();
        if self.kind == ProfileKind::OnCpu { total.count } else { total.ns / 1000 }
    }

    /// Whether it has no row.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.values.is_empty()
    }

    /// Estimate of the memory held, in bytes. Frames are shared between profiles and count once
    /// for each, so sums over profiles are upper bounds.
    #[must_use]
    pub fn memory_bytes(&self) -> usize {
        let stacks: usize = self.stacks.iter().map(|stack| 24 + 4 * stack.len()).sum();
        stacks + self.frames.len() * 24 + self.labels.len() * 24 + self.values.len() * (size_of::<Key>() + 40)
    }

    /// On-CPU and off-CPU time in one profile: on + off is the threads' life.
    #[must_use]
    pub fn wall(on_cpu: &Self, off_cpu: &Self) -> Self {
        let mut wall = Self::new(ProfileKind::Wall);
        wall.merge(on_cpu);
        wall.merge(off_cpu);
        wall
    }
}

fn intern<T: Eq + Hash>(set: &mut Set<Arc<T>>, value: &Arc<T>) -> u32 {
    match set.get_index_of(value) {
        Some(index) => index as u32,
        None => set.insert_full(Arc::clone(value)).0 as u32,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::FrameKind;

    fn frame(name: &str) -> Arc<Frame> {
        Arc::new(Frame {
            name: name.into(),
            kind: FrameKind::User,
            module: None,
            address: 0,
            source: None,
            named: true,
        })
    }

    fn profile(kind: ProfileKind, rows: &[(&str, u64)]) -> Profile {
        let mut profile = Profile::new(kind);
        let labels = Arc::new(Labels { comm: "demo".into(), ..Labels::default() });
        for (name, ns) in rows {
            profile.add_row(&labels, Activity::OnCpu, &[frame(name)], Value { count: 1, ns: *ns });
        }
        profile
    }

    #[test]
    fn microseconds_add_up_although_each_row_is_rounded() {
        let profile = profile(ProfileKind::OffCpu, &[("a", 600), ("b", 600), ("c", 900)]);
        assert_eq!(profile.entries().map(|entry| entry.shown).sum::<u64>(), 2);
        assert_eq!(profile.total_shown(), 2);
    }

    #[test]
    fn merging_joins_equal_rows() {
        let mut all = profile(ProfileKind::OnCpu, &[("a", 10), ("b", 10)]);
        all.merge(&profile(ProfileKind::OnCpu, &[("b", 10), ("c", 10)]));
        assert_eq!(all.entries().count(), 3);
        assert_eq!(all.total(), Value { count: 4, ns: 40 });
        let b = all.entries().find(|entry| &*all.frame(entry.stack[0]).name == "b");
        assert_eq!(b.map(|entry| entry.shown), Some(2));
    }
}
