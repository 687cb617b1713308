//! What a recording session has taken so far, and what it may take.

use std::sync::atomic::{AtomicU64, Ordering};

/// What a session has taken so far; shared between who records and who watches.
#[derive(Debug, Default)]
pub struct Usage {
    events: AtomicU64,
    bytes: AtomicU64,
}

impl Usage {
    /// Counts records of the session.
    pub fn add_events(&self, events: u64) {
        self.events.fetch_add(events, Ordering::Relaxed);
    }

    /// Says how much memory its profile takes, bytes.
    pub fn set_bytes(&self, bytes: u64) {
        self.bytes.store(bytes, Ordering::Relaxed);
    }

    /// Records of the session so far.
    #[must_use]
    pub fn events(&self) -> u64 {
        self.events.load(Ordering::Relaxed)
    }

    /// Memory of its profile, bytes; brought up to date now and then.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.bytes.load(Ordering::Relaxed)
    }
}

/// What a session may take before it is ended.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Allowance {
    /// Records a second.
    pub events_per_second: u64,
    /// Memory of its profile, bytes.
    pub bytes: u64,
    /// CPU time of the daemon while it runs, in thousandths of a CPU.
    pub millicpus: u64,
}

/// How much of its intervals an off-CPU session wants to know.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Detail {
    /// Shortest interval that is recorded, ns.
    pub min_block_ns: u64,
    /// Whether to record who ended the waits.
    pub wakers: bool,
}
