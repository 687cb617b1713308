//! The heaviest stacks of a profile as texts, for tables that people read.

use super::name;
use crate::model::{Pid, Profile};

/// One stack of one thread name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HeavyStack {
    /// The thread's name.
    pub comm: String,
    /// Its process.
    pub pid: Pid,
    /// What it was doing, as in a folded line; `None` for running code.
    pub activity: Option<&'static str>,
    /// Leaf first, texts as in a folded line.
    pub frames: Vec<String>,
    /// In the unit of the profile's kind.
    pub value: u64,
}

/// The `limit` heaviest rows.
#[must_use]
pub fn heaviest(profile: &Profile, limit: usize) -> Vec<HeavyStack> {
    let mut rows: Vec<_> = profile.entries().filter(|entry| entry.shown > 0).collect();
    // Rows of equal value keep the order in which they were first seen.
    rows.sort_by_key(|entry| std::cmp::Reverse(entry.shown));
    let rows = rows.into_iter().take(limit).map(|entry| HeavyStack {
        comm: name::comm(entry.labels),
        pid: entry.labels.pid,
        activity: entry.activity.marker(),
        frames: entry.stack.iter().map(|&frame| name::frame(profile.frame(frame))).collect(),
        value: entry.shown,
    });
    rows.collect()
}
