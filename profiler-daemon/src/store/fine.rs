//! Questions about less time than a window, answered to the millisecond; and the heat map.

use std::time::{Duration, SystemTime};

use rustc_hash::FxHashMap;

use super::heat::Heat;
use super::merge::Merger;
use super::{Queried, Shared, View, codec, windows};
use crate::model::{Distributions, Profile, ProfileKind, Selector, Span, Stage, TimeRange, Value, range_ms};

/// Why records are not in an answer although their windows are.
pub(super) const NO_TIME: &str = "time within the window not kept";
/// How fine an answer is that was put together from spans.
const RESOLUTION: Duration = Duration::from_millis(1);
/// How long after a range windows may begin that hold something of it: an interval belongs to the
/// window in which it ended, or was told of.
const REACH: Duration = Duration::from_secs(20);

/// What a row is worth within a range.
pub(super) fn within(
    kind: ProfileKind,
    value: Value,
    spans: &[Span],
    origin: SystemTime,
    range: TimeRange,
) -> Option<Value> {
    let (from, to) = range_ms(origin, range);
    let amount = spans.iter().fold(0_u64, |sum, span| sum.saturating_add(span.within(from, to)));
    let share = |of: u64, whole: u64| (u128::from(of) * u128::from(amount) / u128::from(whole.max(1))) as u64;
    (amount > 0).then(|| match kind {
        ProfileKind::OnCpu => Value {
            count: amount,
            ns: share(value.ns, value.count),
            variance_us2: share(value.variance_us2, value.count),
        },
        ProfileKind::OffCpu | ProfileKind::Wall => Value {
            count: share(value.count, value.ns).max(1),
            ns: amount,
            variance_us2: share(value.variance_us2, value.ns),
        },
    })
}

impl Shared {
    /// Answers a range that is shorter than the windows it touches; `None` where it is not, or
    /// where they do not keep when things happened.
    pub(super) fn query_within(
        &self,
        view: &View<'_>,
        kind: ProfileKind,
        selector: &Selector,
        range: TimeRange,
    ) -> Option<Queried> {
        let touched: Vec<(TimeRange, bool)> =
            view.windows(kind).filter(|(window, _)| window.overlaps(&range)).collect();
        let longest = touched.iter().map(|(window, _)| window.length()).max()?;
        if range.length() >= longest || touched.iter().any(|(_, timed)| !timed) {
            return None;
        }
        let reach = TimeRange { from: range.from, to: range.to + REACH };
        let mut merger = Merger::new(kind);
        let mut stretches = Vec::new();
        if let Some((disk, snapshot)) = &view.snapshot {
            let wanted = |header: &codec::Header| header.range.overlaps(&reach);
            let merged = disk.merge_within(snapshot, kind, selector, range, wanted, &mut merger);
            if merged.is_ok() {
                let headers = snapshot.headers().filter(|header| header.has(kind));
                stretches.extend(headers.filter_map(|header| header.range.intersection(&range)));
            }
        }
        for (window, profile) in &view.in_memory {
            if window.overlaps(&reach) {
                let slice = slice(profile, selector, range, window.overlaps(&range));
                merger.add_profile(&slice, &Selector::default());
            }
            stretches.extend(window.intersection(&range));
        }
        let gaps = range.gaps(stretches.clone());
        let (covered, range) = windows::cover(stretches);
        let open_from = view.open_in(range);
        Some(Queried { profile: merger.finish(), covered, range, gaps, open_from, resolution: RESOLUTION })
    }

    /// How activity is spread over a range.
    pub(super) fn heat(
        &self,
        kind: ProfileKind,
        selector: &Selector,
        range: TimeRange,
        cell: Duration,
    ) -> Heat {
        let view = self.view(kind, range);
        let reach = TimeRange { from: range.from, to: range.to + REACH };
        let mut heat = Heat::new(kind, range, cell);
        let mut known = Vec::new();
        for (window, timed) in view.windows(kind) {
            if let Some(part) = window.intersection(&range) {
                known.push(part);
                let list = if timed { &mut heat.covered } else { &mut heat.coarse };
                list.push(part);
            }
        }
        heat.gaps = range.gaps(known);
        heat.covered = codec::coalesce(std::mem::take(&mut heat.covered));
        heat.coarse = codec::coalesce(std::mem::take(&mut heat.coarse));
        if let Some((disk, snapshot)) = &view.snapshot {
            let wanted = |header: &codec::Header| header.range.overlaps(&reach);
            if disk.heat(snapshot, selector, wanted, &mut heat).is_err() {
                // The status says why; nothing of it is in the answer.
                heat.covered.clear();
            }
        }
        for (window, profile) in view.in_memory.iter().filter(|(window, _)| window.overlaps(&reach)) {
            let Some(times) = profile.times() else { continue };
            let matches = |labels| selector.is_empty() || selector.matches(labels);
            let (mut whole, mut part) = (0, 0.0);
            for (row, entry) in profile.entries().enumerate().filter(|(_, entry)| matches(entry.labels)) {
                whole += entry.value.ns;
                part += heat.add(times.origin(), times.of_row(row));
            }
            let variances = profile.distributions().variances();
            let us2 = variances
                .filter(|(labels, _)| profile.labels_at(*labels).is_some_and(|labels| matches(labels)))
                .fold(0_u64, |sum, (_, us2)| sum.saturating_add(us2));
            heat.add_variance(us2, part / whole.max(1) as f64);
            if window.overlaps(&range) {
                heat.quality.merge(&profile.quality_where(selector));
                heat.loss.merge(&profile.loss);
            }
            heat.loss.add(Stage::Store, NO_TIME, times.left_out());
        }
        heat
    }
}

/// How much of the time of labels, by their index, an answer has: variances shrink alike.
#[derive(Debug, Default)]
pub(super) struct Shares(FxHashMap<u32, (u64, u64)>);

impl Shares {
    /// Counts a row that is worth `ns` as a whole, and so much in the answer.
    pub(super) fn add(&mut self, labels: u32, ns: u64, within: Option<Value>) {
        let (whole, part) = self.0.entry(labels).or_default();
        *whole = whole.saturating_add(ns);
        *part = part.saturating_add(within.map_or(0, |value| value.ns));
    }

    /// The variances of all time of these labels in the answer, us².
    pub(super) fn variances(&self, whole: &Distributions) -> impl Iterator<Item = (u32, u64)> {
        whole.variances().filter_map(|(labels, us2)| {
            let (whole, part) = self.0.get(&labels)?;
            let us2 = u128::from(us2) * u128::from(*part) / u128::from((*whole).max(1));
            (us2 > 0).then_some((labels, us2 as u64))
        })
    }
}

/// What a profile holds within a range. What is known of the stacks and of losses is that of its whole
/// window; nothing unless that `overlaps` the range. Lengths of waits are left out: nobody knows which
/// of them were within.
fn slice(profile: &Profile, selector: &Selector, range: TimeRange, overlaps: bool) -> Profile {
    let kind = profile.kind();
    let mut slice = Profile::new(kind);
    let Some(times) = profile.times() else { return slice };
    let mut shares = Shares::default();
    slice.merge_worth(profile, selector, |row, key, value| {
        let worth = within(kind, value, times.of_row(row), times.origin(), range);
        shares.add(key.labels, value.ns, worth);
        worth
    });
    for (labels, us2) in shares.variances(profile.distributions()) {
        let Some(labels) = profile.labels_at(labels) else { continue };
        let labels = slice.labels_id(labels);
        slice.distributions_mut().add_variance(labels, us2);
    }
    if overlaps {
        slice.merge_quality(profile, selector);
        slice.loss = profile.loss.clone();
    }
    slice.loss.add(Stage::Store, NO_TIME, times.left_out());
    slice
}

#[cfg(test)]
mod tests;
