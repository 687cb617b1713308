//! The windows that are still open: which sample goes where, and when a window is sealed.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use super::distributions;
use super::precision::Precision;
use super::reported::{News, Reported};
use crate::model::{
    Batch, ClockAnchor, Extent, Measure, Profile, ProfileKind, Sample, Stage, TimeRange, Window,
};

/// How long a window stays open for what the stages before have not passed on yet, for want of CPU
/// or because they read large files.
const PATIENCE: Duration = Duration::from_secs(30);

/// The open windows, oldest first and without gaps between them.
///
/// Their ends are multiples of the window length on the wall clock. The first begins when
/// recording did; one that follows a stall of the daemon begins where the one before it ended.
#[derive(Debug)]
pub(super) struct Windows {
    length: Duration,
    grace: Duration,
    kinds: Vec<ProfileKind>,
    max_rows: usize,
    open: VecDeque<Open>,
    reported: Reported,
}

#[derive(Debug)]
struct Open {
    range: TimeRange,
    profiles: BTreeMap<ProfileKind, Profile>,
    precision: Precision,
}

impl Open {
    fn new(range: TimeRange, kinds: &[ProfileKind]) -> Self {
        let profiles = kinds.iter().map(|&kind| (kind, Profile::with_times(kind, range.from)));
        Self { range, profiles: profiles.collect(), precision: Precision::default() }
    }

    fn profile(&mut self, kind: ProfileKind) -> &mut Profile {
        self.profiles.entry(kind).or_insert_with(|| Profile::with_times(kind, self.range.from))
    }

    fn seal(mut self, reported: &Reported) -> Window {
        if let Some(off_cpu) = self.profiles.get_mut(&ProfileKind::OffCpu) {
            settle(off_cpu, &self.precision, reported, self.range.to);
        }
        Window { range: self.range, profiles: self.profiles.into_values().map(Arc::new).collect() }
    }

    /// What it holds at `now`.
    fn so_far(&self, now: SystemTime, reported: &Reported) -> Window {
        let range = TimeRange { from: self.range.from, to: self.range.to.min(now).max(self.range.from) };
        let profiles = self.profiles.iter().map(|(kind, profile)| {
            let mut profile = profile.clone();
            if *kind == ProfileKind::OffCpu {
                settle(&mut profile, &self.precision, reported, range.to);
            }
            Arc::new(profile)
        });
        Window { range, profiles: profiles.collect() }
    }
}

/// Adds what is only known at the end of a window: how sure its values are, and what has not ended.
fn settle(off_cpu: &mut Profile, precision: &Precision, reported: &Reported, end: SystemTime) {
    precision.settle(off_cpu);
    let since_epoch = end.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    let at_ns = u64::try_from(since_epoch.as_nanos()).unwrap_or(u64::MAX);
    distributions::add_all_open(off_cpu, reported, at_ns);
}

impl Windows {
    pub(super) fn new(length: Duration, grace: Duration, kinds: Vec<ProfileKind>, max_rows: usize) -> Self {
        // A window of no length would never end.
        let length = length.max(Duration::from_millis(1));
        Self { length, grace, kinds, max_rows, open: VecDeque::new(), reported: Reported::default() }
    }

    /// Opens the window that `now` belongs to and hands out those whose grace was over at `complete`:
    /// what was recorded before then has been inserted. Nothing is waited for longer than
    /// [`PATIENCE`].
    pub(super) fn advance(&mut self, now: SystemTime, complete: SystemTime) -> Vec<Window> {
        let newest_end = self.open.back().map(|open| open.range.to);
        let from = newest_end.unwrap_or(now);
        if from <= now {
            let range = TimeRange { from, to: self.end_of_slot(now) };
            self.open.push_back(Open::new(range, &self.kinds));
        }
        let mut sealed = Vec::new();
        let over = |end: SystemTime| end + self.grace <= complete.min(now) || end + PATIENCE <= now;
        // The newest ends after `now`, so it always stays.
        while self.open.front().is_some_and(|open| over(open.range.to)) {
            sealed.extend(self.open.pop_front().map(|open| open.seal(&self.reported)));
        }
        if !sealed.is_empty() {
            self.reported.forget();
        }
        sealed
    }

    /// First multiple of the window length after `at`.
    fn end_of_slot(&self, at: SystemTime) -> SystemTime {
        let since_epoch = at.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_nanos();
        let length = self.length.as_nanos();
        let rest = length - since_epoch % length;
        at + Duration::from_nanos(u64::try_from(rest).unwrap_or(u64::MAX))
    }

    /// Adds a batch: each sample to the window of its time, the loss to the newest. Off-CPU intervals
    /// count what their threads' clocks say; of those that are still open, what no window had yet.
    pub(super) fn insert(&mut self, batch: &Batch, anchor: &ClockAnchor) {
        for sample in &batch.samples {
            let at = anchor.wall(sample.time);
            let whole = Extent::of(sample.measure, at);
            if matches!(sample.measure, Measure::OnCpu { .. }) {
                self.insert_sample(sample, at, &whole, None);
                continue;
            }
            if sample.measure.by_clock().is_some()
                && let Some(open) = self.window_of(at)
            {
                distributions::add_ended(open.profile(ProfileKind::OffCpu), sample);
            }
            if let Some(news) = self.reported.news(sample, at) {
                // Wakers are the detail of sessions; here they would make many rows of one.
                let sample = Sample { measure: news.measure, waker: None, ..sample.clone() };
                let extent = news.told_at.map_or(whole, |from| Extent::piece(news.measure, from, at));
                // A sweep may come when the window that it is for has just ended.
                let at = if news.open { at - extent.length().min(self.length) / 2 } else { at };
                self.insert_sample(&sample, at, &extent, Some(&news));
            }
        }
        let Some(newest) = self.open.back_mut() else { return };
        for kind in [ProfileKind::OnCpu, ProfileKind::OffCpu] {
            let loss = batch.loss.of(kind);
            if !loss.is_empty() {
                newest.profile(kind).loss.merge(&loss);
            }
        }
    }

    fn window_of(&mut self, at: SystemTime) -> Option<&mut Open> {
        // The first window that ends after it: the oldest for those that come too late, and the
        // newest for those from beyond the present.
        let index = self.open.partition_point(|open| open.range.to <= at);
        let index = index.min(self.open.len().saturating_sub(1));
        self.open.get_mut(index)
    }

    fn insert_sample(&mut self, sample: &Sample, at: SystemTime, extent: &Extent, news: Option<&News>) {
        let max_rows = self.max_rows;
        let Some(open) = self.window_of(at) else { return };
        let from = open.range.from;
        let profile = open
            .profiles
            .entry(kind_of(sample.measure))
            .or_insert_with_key(|&kind| Profile::with_times(kind, from));
        match (profile.add_when(sample, Some(extent), max_rows), news) {
            (Some(rows), Some(news)) => open.precision.add(profile, sample, news, rows),
            (Some(_), None) => {}
            (None, _) => profile.loss.add(Stage::Pipeline, "window full", 1),
        }
    }

    /// What the open windows hold at `now`, oldest first.
    pub(super) fn so_far(&self, now: SystemTime) -> impl Iterator<Item = Window> {
        self.open
            .iter()
            .map(move |open| open.so_far(now, &self.reported))
            .filter(|window| window.range.from < window.range.to)
    }

    /// Seals what is open; the newest window then ends at `now`.
    pub(super) fn seal_all(&mut self, now: SystemTime) -> Vec<Window> {
        if let Some(newest) = self.open.back_mut() {
            // Never empty: what has no length overlaps no query.
            newest.range.to = newest.range.to.min(now).max(newest.range.from + Duration::from_millis(1));
        }
        self.open.drain(..).map(|open| open.seal(&self.reported)).collect()
    }
}

/// The kind of profile a measure belongs to.
pub(super) fn kind_of(measure: Measure) -> ProfileKind {
    match measure {
        Measure::OnCpu { .. } => ProfileKind::OnCpu,
        Measure::OffCpu { .. } => ProfileKind::OffCpu,
    }
}
