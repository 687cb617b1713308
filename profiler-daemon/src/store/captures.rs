//! The results of captures, bounded in number and memory.

use std::collections::VecDeque;
use std::sync::Arc;

use super::Summary;
use crate::model::{Profile, TimeRange};

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

    pub(super) fn bytes(&self) -> u64 {
        self.bytes
    }
}

fn bytes(result: &CaptureResult) -> u64 {
    result.profile.memory_bytes() as u64
}
