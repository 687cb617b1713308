//! The results of captures in memory, bounded in number and bytes.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use super::Summary;
use crate::model::{Allowance, Pid, Profile, TimeRange};

/// What a capture brought.
#[derive(Clone, Debug)]
pub struct CaptureResult {
    /// The capture's id.
    pub id: String,
    /// From its start to its end.
    pub range: TimeRange,
    /// What was recorded.
    pub profile: Arc<Profile>,
    /// What the profile is worth, worked out once.
    pub summary: Summary,
    /// What was asked for.
    pub about: CaptureAbout,
}

/// What a capture was asked for, and how it ended.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CaptureAbout {
    /// Processes it was limited to.
    pub pids: Vec<Pid>,
    /// Cgroup it was limited to.
    pub cgroup: Option<String>,
    /// How long it was to record.
    pub duration: Duration,
    /// Shortest interval that was recorded.
    pub min_block: Duration,
    /// Whether it recorded who ended the waits.
    pub wakers: bool,
    /// What it was allowed to take.
    pub allowance: Allowance,
    /// Why it ended early; empty otherwise.
    pub reason: String,
    /// Why it was started, for people.
    pub cause: String,
    /// The labels that came with that.
    pub labels: Vec<(String, String)>,
}

/// A capture whose result is stored, without the profile.
#[derive(Clone, Debug, PartialEq)]
pub struct StoredCapture {
    /// The capture's id.
    pub id: String,
    /// From its start to its end.
    pub range: TimeRange,
    /// What the profile is worth.
    pub summary: Summary,
    /// What was asked for.
    pub about: CaptureAbout,
}

/// Results, oldest first.
#[derive(Debug)]
pub(super) struct Results {
    max_count: usize,
    max_bytes: u64,
    kept: VecDeque<Arc<CaptureResult>>,
    bytes: u64,
}

impl Results {
    pub(super) fn new(max_count: usize, max_bytes: u64) -> Self {
        Self { max_count, max_bytes, kept: VecDeque::new(), bytes: 0 }
    }

    /// Adds a result and hands out those that had to go.
    pub(super) fn insert(&mut self, result: CaptureResult) -> Vec<Arc<CaptureResult>> {
        self.bytes += bytes(&result);
        self.kept.push_back(Arc::new(result));
        let mut evicted = Vec::new();
        while self.kept.len() > 1 && (self.kept.len() > self.max_count || self.bytes > self.max_bytes) {
            let Some(oldest) = self.kept.pop_front() else { break };
            self.bytes -= bytes(&oldest);
            evicted.push(oldest);
        }
        evicted
    }

    pub(super) fn get(&self, id: &str) -> Option<Arc<CaptureResult>> {
        self.kept.iter().find(|result| result.id == id).map(Arc::clone)
    }

    /// The oldest.
    pub(super) fn first(&self) -> Option<Arc<CaptureResult>> {
        self.kept.front().map(Arc::clone)
    }

    pub(super) fn remove(&mut self, id: &str) {
        if let Some(place) = self.kept.iter().position(|result| result.id == id)
            && let Some(gone) = self.kept.remove(place)
        {
            self.bytes -= bytes(&gone);
        }
    }

    pub(super) fn bytes(&self) -> u64 {
        self.bytes
    }
}

fn bytes(result: &CaptureResult) -> u64 {
    result.profile.memory_bytes() as u64
}
