//! Sealed windows in memory, bounded by age and by bytes.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use crate::model::{KindLoss, Profile, ProfileKind, Stage, TimeRange, Window};

/// The sealed windows in the order in which they came. That is the order of time, except
/// where the wall clock was set back.
#[derive(Debug)]
pub(super) struct Windows {
    max_age: Duration,
    max_bytes: u64,
    /// Why a window's records are missing from later answers.
    evicted: &'static str,
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
    pub(super) fn new(max_age: Duration, max_bytes: u64, evicted: &'static str) -> Self {
        Self { max_age, max_bytes, evicted, stored: VecDeque::new(), bytes: 0, loss: KindLoss::default() }
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
                for profile in &oldest.window.profiles {
                    count_lost(&mut self.loss, profile.kind(), self.evicted, profile.quality.records);
                }
            }
            evicted.push(oldest);
        }
        evicted
    }

    /// The oldest, which stays.
    pub(super) fn first(&self) -> Option<Window> {
        self.stored.front().map(|stored| stored.window.clone())
    }

    /// Removes the oldest.
    pub(super) fn remove_first(&mut self) {
        if let Some(oldest) = self.stored.pop_front() {
            self.bytes -= oldest.bytes;
        }
    }

    pub(super) fn len(&self) -> usize {
        self.stored.len()
    }

    /// All profiles of one kind, with their windows' ranges.
    pub(super) fn of_kind(&self, kind: ProfileKind) -> Vec<(TimeRange, Arc<Profile>)> {
        let windows = self.stored.iter().flat_map(|stored| {
            let of_kind = stored.window.profiles.iter().filter(|profile| profile.kind() == kind);
            of_kind.map(|profile| (stored.window.range, Arc::clone(profile)))
        });
        windows.collect()
    }

    /// Estimate of the memory held, bytes.
    pub(super) fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Start of the oldest window.
    pub(super) fn oldest(&self) -> Option<SystemTime> {
        self.stored.iter().map(|stored| stored.window.range.from).min()
    }

    /// End of the newest window.
    pub(super) fn newest(&self) -> Option<SystemTime> {
        self.stored.iter().map(|stored| stored.window.range.to).max()
    }

    /// Records of windows that had to go before their time.
    pub(super) fn loss(&self) -> &KindLoss {
        &self.loss
    }
}

/// Counts records of a window that is gone.
pub(super) fn count_lost(loss: &mut KindLoss, kind: ProfileKind, reason: &'static str, records: u64) {
    let loss = match kind {
        ProfileKind::OnCpu => &mut loss.on_cpu,
        ProfileKind::OffCpu | ProfileKind::Wall => &mut loss.off_cpu,
    };
    loss.add(Stage::Store, reason, records);
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
