//! The sealed windows, bounded by age and by memory.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use super::Stats;
use crate::model::{KindLoss, Profile, ProfileKind, Stage, TimeRange, Window};

/// Why a window's records are missing from later answers.
const EVICTED: &str = "store full, window removed early";

/// The sealed windows in the order in which they came. That is the order of time, except
/// where the wall clock was set back.
#[derive(Debug)]
pub(super) struct Windows {
    max_age: Duration,
    max_bytes: u64,
    stored: VecDeque<Stored>,
    bytes: u64,
    loss: KindLoss,
}

#[derive(Debug)]
pub(super) struct Stored {
    window: Window,
    bytes: u64,
}

impl Windows {
    pub(super) fn new(max_age: Duration, max_bytes: u64) -> Self {
        Self { max_age, max_bytes, stored: VecDeque::new(), bytes: 0, loss: KindLoss::default() }
    }

    /// Adds a window and hands out those that had to go.
    pub(super) fn insert(&mut self, window: Window) -> Vec<Stored> {
        let now = window.range.to;
        let bytes = window.profiles.iter().map(|profile| profile.memory_bytes() as u64).sum();
        self.bytes += bytes;
        self.stored.push_back(Stored { window, bytes });
        let mut evicted = Vec::new();
        while self.stored.len() > 1 {
            let Some(oldest) = self.stored.front() else { break };
            let age = now.duration_since(oldest.window.range.to).unwrap_or_default();
            let early = age <= self.max_age;
            if early && self.bytes <= self.max_bytes {
                break;
            }
            let Some(oldest) = self.stored.pop_front() else { break };
            self.bytes -= oldest.bytes;
            if early {
                self.count_lost(&oldest.window);
            }
            evicted.push(oldest);
        }
        evicted
    }

    fn count_lost(&mut self, window: &Window) {
        for profile in &window.profiles {
            let loss = match profile.kind() {
                ProfileKind::OnCpu => &mut self.loss.on_cpu,
                ProfileKind::OffCpu | ProfileKind::Wall => &mut self.loss.off_cpu,
            };
            loss.add(Stage::Store, EVICTED, profile.quality.records);
        }
    }

    /// The profiles of one kind whose windows overlap the range, with the windows' ranges.
    pub(super) fn overlapping(&self, kind: ProfileKind, range: TimeRange) -> Vec<(TimeRange, Arc<Profile>)> {
        self.of_kind(kind).filter(|(window, _)| window.overlaps(&range)).collect()
    }

    /// From the start of the first to the end of the last window of a kind.
    pub(super) fn stored(&self, kind: ProfileKind) -> Option<TimeRange> {
        cover(self.of_kind(kind).map(|(range, _)| range).collect()).1
    }

    fn of_kind(&self, kind: ProfileKind) -> impl Iterator<Item = (TimeRange, Arc<Profile>)> {
        self.stored.iter().flat_map(move |stored| {
            let of_kind = stored.window.profiles.iter().filter(move |profile| profile.kind() == kind);
            of_kind.map(|profile| (stored.window.range, Arc::clone(profile)))
        })
    }

    pub(super) fn stats(&self) -> Stats {
        Stats {
            windows: self.stored.len() as u64,
            bytes: self.bytes,
            oldest: self.stored.iter().map(|stored| stored.window.range.from).min(),
            newest: self.stored.iter().map(|stored| stored.window.range.to).max(),
            loss: self.loss.clone(),
        }
    }
}

/// How much time the ranges cover together, and from where to where they reach.
pub(super) fn cover(mut ranges: Vec<TimeRange>) -> (Duration, Option<TimeRange>) {
    ranges.sort_by_key(|range| range.from);
    let mut covered = Duration::ZERO;
    let mut hull: Option<TimeRange> = None;
    for range in ranges {
        let fresh = match hull {
            Some(hull) => TimeRange { from: range.from.max(hull.to), to: range.to },
            None => range,
        };
        covered += fresh.length();
        hull = Some(hull.map_or(range, |hull| TimeRange { from: hull.from, to: hull.to.max(range.to) }));
    }
    (covered, hull)
}
