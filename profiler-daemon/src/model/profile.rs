//! A profile: distinct stacks with their labels and values, with every table interned.

mod merge;
#[cfg(test)]
mod tests;

use std::hash::Hash;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use indexmap::{IndexMap, IndexSet};
use rustc_hash::FxBuildHasher;

use super::{
    Activity, Blocks, Distribution, Distributions, Entry, EntryWaker, Extent, Frame, Key, Labels, Loss,
    Measure, ProfileKind, QualityByLabels, Sample, Span, StackQuality, Times, Value, Waker, WakerIds,
};

// Processes choose names, paths and stacks, so their hash must not be one that collisions can be
// made for.
type Set<T> = IndexSet<T, ahash::RandomState>;

/// The rows of the parts of a record, by their index; none for a part that is empty.
pub type PartRows = [Option<usize>; 3];

/// Why a wait is missing from distributions.
pub(crate) const NO_ROOM: &str = "too many names for distributions, lengths of waits left out";

/// Distinct stacks with their labels and values.
#[derive(Clone, Debug)]
pub struct Profile {
    kind: ProfileKind,
    frames: Set<Arc<Frame>>,
    stacks: Set<Box<[u32]>>,
    labels: Set<Arc<Labels>>,
    values: IndexMap<Key, Value, FxBuildHasher>,
    distributions: Distributions,
    /// When the values came, where that is kept.
    times: Option<Box<Times>>,
    /// What is known of the stacks of all records.
    pub quality: StackQuality,
    /// The same by the indices of their labels.
    quality_by_labels: QualityByLabels,
    /// What is missing.
    pub loss: Loss,
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
            distributions: Distributions::default(),
            times: None,
            quality: StackQuality::default(),
            quality_by_labels: QualityByLabels::default(),
            loss: Loss::default(),
        }
    }

    /// An empty profile that also keeps when its values came, counted from `origin`.
    #[must_use]
    pub fn with_times(kind: ProfileKind, origin: SystemTime) -> Self {
        Self { times: Some(Box::new(Times::new(origin))), ..Self::new(kind) }
    }

    /// An empty profile that keeps about when its values came: see [`Times::coarse`].
    #[must_use]
    pub fn with_coarse_times(kind: ProfileKind, origin: SystemTime, grain: Duration) -> Self {
        Self { times: Some(Box::new(Times::coarse(origin, grain))), ..Self::new(kind) }
    }

    /// The rows' amounts by stretches of time, in the order of the rows: see [`Times::blocks`].
    #[must_use]
    pub fn blocks(&self) -> Option<Vec<Blocks>> {
        self.times.as_ref()?.blocks(self.values.len())
    }

    /// Says when some of a row's value came, where that is kept.
    pub fn add_span(&mut self, row: usize, span: Span) {
        if let Some(times) = &mut self.times {
            times.push(row, span);
        }
    }

    /// When the values came; `None` where that was not kept.
    #[must_use]
    pub fn times(&self) -> Option<&Times> {
        self.times.as_deref()
    }

    /// Adds one record. An off-CPU interval adds a row for each of its parts that is not empty.
    /// Returns the indices of these rows: of what ran, or of what was blocked, woken and preempted.
    pub fn add(&mut self, sample: &Sample) -> PartRows {
        self.add_timed(sample, None)
    }

    fn add_timed(&mut self, sample: &Sample, extent: Option<&Extent>) -> PartRows {
        let mut quality = StackQuality::default();
        quality.add(sample.flags, &sample.stack);
        let mut row = |part, activity, waker, ns| {
            if ns == 0 {
                return None;
            }
            let row = self.add_woken(&sample.labels, activity, &sample.stack, waker, Value::exact(1, ns));
            if let (Some(times), Some(extent)) = (&mut self.times, extent) {
                times.add(row, extent, part, if activity == Activity::OnCpu { 1 } else { ns });
            }
            Some(row)
        };
        let rows = match sample.measure {
            Measure::OnCpu { period_ns } => [row(0, Activity::OnCpu, None, period_ns), None, None],
            Measure::OffCpu { blocked_ns, run_queue_ns, preempted_ns, wait, sampled, .. } => {
                let rows = [
                    row(0, Activity::Blocked(wait), sample.waker.as_deref(), blocked_ns),
                    row(1, Activity::RunQueue, None, run_queue_ns),
                    row(2, Activity::Preempted, None, preempted_ns),
                ];
                let ns = blocked_ns.saturating_add(run_queue_ns).saturating_add(preempted_ns);
                quality.add_off_cpu(sample.flags, ns, sampled.by_clock);
                rows
            }
        };
        self.quality.merge(&quality);
        let labels = self.labels_id(&sample.labels);
        self.quality_by_labels.add(labels, &quality);
        rows
    }

    /// Adds to the variance of a row, us².
    pub(crate) fn add_variance(&mut self, row: usize, us2: u64) {
        if let Some((_, value)) = self.values.get_index_mut(row) {
            value.variance_us2 = value.variance_us2.saturating_add(us2);
        }
    }

    /// Adds one record as [`Self::add`] does, unless that could take the profile past `max_rows`
    /// rows: then it returns `None`. Records of known rows always are added.
    #[must_use]
    pub fn add_within(&mut self, sample: &Sample, max_rows: usize) -> Option<PartRows> {
        self.add_when(sample, None, max_rows)
    }

    /// As [`Self::add_within`], of a record of which it is known when it was.
    #[must_use]
    pub fn add_when(
        &mut self,
        sample: &Sample,
        extent: Option<&Extent>,
        max_rows: usize,
    ) -> Option<PartRows> {
        // One record makes at most three rows.
        let fits = self.values.len() + 3 <= max_rows || self.knows(sample);
        fits.then(|| self.add_timed(sample, extent))
    }

    /// Whether the record's stack already has a row for every activity it carries.
    fn knows(&self, sample: &Sample) -> bool {
        let ids = |labels: &Arc<Labels>, stack: &[Arc<Frame>]| {
            let stack: Option<Vec<u32>> =
                stack.iter().map(|frame| Some(self.frames.get_index_of(frame)? as u32)).collect();
            let stack = self.stacks.get_index_of(stack?.as_slice())? as u32;
            Some(WakerIds { labels: self.labels.get_index_of(labels)? as u32, stack })
        };
        let Some(WakerIds { labels, stack }) = ids(&sample.labels, &sample.stack) else { return false };
        let known = |activity, waker| self.values.contains_key(&Key { labels, stack, activity, waker });
        match sample.measure {
            Measure::OnCpu { .. } => known(Activity::OnCpu, None),
            Measure::OffCpu { blocked_ns, run_queue_ns, preempted_ns, wait, .. } => {
                let waker = sample.waker.as_deref().map(|waker| ids(&waker.labels, &waker.stack));
                let woken = match waker {
                    Some(None) => false,
                    waker => known(Activity::Blocked(wait), waker.flatten()),
                };
                (blocked_ns == 0 || woken)
                    && (run_queue_ns == 0 || known(Activity::RunQueue, None))
                    && (preempted_ns == 0 || known(Activity::Preempted, None))
            }
        }
    }

    /// Adds a value to the row of these labels, activity and stack (leaf first); returns its index.
    pub fn add_row(
        &mut self,
        labels: &Arc<Labels>,
        activity: Activity,
        stack: &[Arc<Frame>],
        value: Value,
    ) -> usize {
        self.add_woken(labels, activity, stack, None, value)
    }

    /// [`Self::add_row`] for a wait that this waker has ended.
    pub fn add_woken(
        &mut self,
        labels: &Arc<Labels>,
        activity: Activity,
        stack: &[Arc<Frame>],
        waker: Option<&Waker>,
        value: Value,
    ) -> usize {
        let waker = waker.map(|waker| self.ids(&waker.labels, &waker.stack));
        let WakerIds { labels, stack } = self.ids(labels, stack);
        self.add_known(Key { labels, stack, activity, waker }, value)
    }

    fn ids(&mut self, labels: &Arc<Labels>, stack: &[Arc<Frame>]) -> WakerIds {
        let stack: Vec<u32> = stack.iter().map(|frame| self.frame_id(frame)).collect();
        let stack = self.stack_id(&stack);
        WakerIds { labels: self.labels_id(labels), stack }
    }

    /// The waits by the indices of their labels.
    pub(crate) fn distributions(&self) -> &Distributions {
        &self.distributions
    }

    /// The same, to add to.
    pub(crate) fn distributions_mut(&mut self) -> &mut Distributions {
        &mut self.distributions
    }

    /// What is known of the stacks, by the indices of their labels.
    pub(crate) fn quality_by_labels(&self) -> &QualityByLabels {
        &self.quality_by_labels
    }

    /// The labels of an index.
    pub(crate) fn labels_at(&self, index: u32) -> Option<&Arc<Labels>> {
        self.labels.get_index(index as usize)
    }

    /// How long all waits for each thing were, whoever waited.
    #[must_use]
    pub fn waits_by_activity(&self) -> Vec<(Activity, Distribution)> {
        let groups = self.distributions.grouped(|_, activity| Some(activity));
        let mut groups: Vec<(Activity, Distribution)> = groups.into_iter().collect();
        groups.sort_by_key(|&(activity, _)| activity);
        groups
    }

    /// Standard error of the sum of all rows, in [`ProfileKind::unit`]. It is less than that of rows
    /// that are added up: what one row has too much, another of the same thread has too little.
    #[must_use]
    pub fn total_error(&self) -> f64 {
        let on_cpu = self.values.iter().filter(|(key, _)| key.activity == Activity::OnCpu);
        let mut hits = Value::default();
        on_cpu.for_each(|(_, value)| hits += *value);
        let whole_us2: f64 = self.distributions.variances().map(|(_, us2)| us2 as f64).sum();
        match self.kind {
            ProfileKind::OnCpu => (hits.count as f64).sqrt(),
            _ => (whole_us2 + (hits.error_ns(Activity::OnCpu) / 1000.0).powi(2)).sqrt(),
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

    /// The row of these labels, activity and stack (leaf first), of no waker, if there is one. Nothing
    /// is added for it.
    pub(crate) fn known_row<'a>(
        &self,
        labels: &Arc<Labels>,
        activity: Activity,
        stack: impl Iterator<Item = &'a Arc<Frame>>,
    ) -> Option<Key> {
        let labels = self.labels.get_index_of(labels)? as u32;
        let frames = stack.map(|frame| Some(self.frames.get_index_of(frame)? as u32));
        let frames: Option<Vec<u32>> = frames.collect();
        let stack = self.stacks.get_index_of(frames?.as_slice())? as u32;
        let key = Key { labels, stack, activity, waker: None };
        self.values.contains_key(&key).then_some(key)
    }

    /// [`Self::add_row`] by the indices that the three functions above gave.
    pub(crate) fn add_known(&mut self, key: Key, value: Value) -> usize {
        let entry = self.values.entry(key);
        let index = entry.index();
        *entry.or_default() += value;
        index
    }

    /// All labels, in the order of their indices.
    pub(crate) fn label_table(&self) -> impl ExactSizeIterator<Item = &Arc<Labels>> {
        self.labels.iter()
    }

    /// All stacks, in the order of their indices; each holds indices of frames, leaf first.
    pub(crate) fn stack_table(&self) -> impl ExactSizeIterator<Item = &[u32]> {
        self.stacks.iter().map(|stack| &**stack)
    }

    /// All rows by the indices of their labels and stacks.
    pub(crate) fn rows(&self) -> impl ExactSizeIterator<Item = (Key, Value)> {
        self.values.iter().map(|(&key, &value)| (key, value))
    }

    /// Whether it is known of any wait who ended it.
    #[must_use]
    pub fn has_wakers(&self) -> bool {
        self.values.keys().any(|key| key.waker.is_some())
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
            let error = match self.kind {
                ProfileKind::OnCpu => (value.count as f64).sqrt(),
                _ => value.error_ns(key.activity) / 1000.0,
            };
            Entry {
                error,
                labels: &self.labels[key.labels as usize],
                activity: key.activity,
                stack: &self.stacks[key.stack as usize],
                waker: key.waker.map(|waker| EntryWaker {
                    labels: &self.labels[waker.labels as usize],
                    stack: &self.stacks[waker.stack as usize],
                }),
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
        let times = self.times.as_ref().map_or(0, |times| times.memory_bytes());
        stacks
            + self.frames.len() * 24
            + self.labels.len() * 24
            + self.values.len() * (size_of::<Key>() + size_of::<Value>() + 24)
            + self.distributions.memory_bytes()
            + self.quality_by_labels.memory_bytes()
            + times
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
