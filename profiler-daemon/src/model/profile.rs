//! A profile: distinct stacks with their labels and values, with every table interned.

use std::hash::Hash;
use std::sync::Arc;

use indexmap::{IndexMap, IndexSet};
use rustc_hash::FxBuildHasher;

use super::{Frame, Labels, Loss, Measure, ProfileKind, Sample, Selector, StackQuality, Wait};

// Processes choose names, paths and stacks, so their hash must not be one that collisions can be
// made for.
type Set<T> = IndexSet<T, ahash::RandomState>;

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
        let stack: Vec<u32> = stack.iter().map(|frame| self.frame_id(frame)).collect();
        let stack = self.stack_id(&stack);
        let labels = self.labels_id(labels);
        self.add_known(labels, activity, stack, value);
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
        // Each frame, stack and label is looked up once, not once a row: frames hash by content.
        let mut frames: Vec<Option<u32>> = vec![None; other.frames.len()];
        let mut stacks: Vec<Option<u32>> = vec![None; other.stacks.len()];
        let mut labels: Vec<Option<u32>> = vec![None; other.labels.len()];
        let mut ids = Vec::new();
        for (key, value) in &other.values {
            if !wanted[key.labels as usize] {
                continue;
            }
            let who = *labels[key.labels as usize]
                .get_or_insert_with(|| self.labels_id(&other.labels[key.labels as usize]));
            let stack = *stacks[key.stack as usize].get_or_insert_with(|| {
                ids.clear();
                ids.extend(other.stacks[key.stack as usize].iter().map(|&id| {
                    *frames[id as usize].get_or_insert_with(|| self.frame_id(&other.frames[id as usize]))
                }));
                self.stack_id(&ids)
            });
            self.add_known(who, key.activity, stack, *value);
        }
    }

    /// The index of a frame in this profile, which may be new.
    pub(crate) fn frame_id(&mut self, frame: &Arc<Frame>) -> u32 {
        intern(&mut self.frames, frame)
    }

    /// The index of labels in this profile, which may be new.
    pub(crate) fn labels_id(&mut self, labels: &Arc<Labels>) -> u32 {
        intern(&mut self.labels, labels)
    }

    /// The index of a stack of [`Self::frame_id`]s, leaf first, in this profile, which may be new.
    pub(crate) fn stack_id(&mut self, frames: &[u32]) -> u32 {
        match self.stacks.get_index_of(frames) {
            Some(index) => index as u32,
            None => self.stacks.insert_full(frames.into()).0 as u32,
        }
    }

    /// The row of these labels, activity and stack (leaf first), by its labels and its stack, if
    /// there is one. Nothing is added for it.
    pub(crate) fn known_row<'a>(
        &self,
        labels: &Arc<Labels>,
        activity: Activity,
        stack: impl Iterator<Item = &'a Arc<Frame>>,
    ) -> Option<(u32, u32)> {
        let labels = self.labels.get_index_of(labels)? as u32;
        let frames = stack.map(|frame| Some(self.frames.get_index_of(frame)? as u32));
        let frames: Option<Vec<u32>> = frames.collect();
        let stack = self.stacks.get_index_of(frames?.as_slice())? as u32;
        self.values.contains_key(&Key { labels, stack, activity }).then_some((labels, stack))
    }

    /// [`Self::add_row`] by the indices that the three functions above gave.
    pub(crate) fn add_known(&mut self, labels: u32, activity: Activity, stack: u32, value: Value) {
        *self.values.entry(Key { labels, stack, activity }).or_default() += value;
    }

    /// All labels, in the order of their indices.
    pub(crate) fn label_table(&self) -> impl ExactSizeIterator<Item = &Arc<Labels>> {
        self.labels.iter()
    }

    /// All stacks, in the order of their indices; each holds indices of frames, leaf first.
    pub(crate) fn stack_table(&self) -> impl ExactSizeIterator<Item = &[u32]> {
        self.stacks.iter().map(|stack| &**stack)
    }

    /// All rows by the indices of their labels and stack.
    pub(crate) fn rows(&self) -> impl ExactSizeIterator<Item = (u32, u32, Activity, Value)> {
        self.values.iter().map(|(key, &value)| (key.labels, key.stack, key.activity, value))
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

    /// Number of rows.
    #[must_use]
    pub fn row_count(&self) -> usize {
        self.values.len()
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
    fn nobody_can_foresee_how_names_hash() {
        let hash = || Set::<&str>::default().hasher().hash_one("main");
        assert_ne!(hash(), hash());
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
