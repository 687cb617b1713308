//! The heaviest stacks of a profile as texts, for tables that people read.

use std::cmp::Reverse;

use indexmap::IndexMap;
use rustc_hash::FxBuildHasher;

use super::name;
use crate::model::{Pid, Profile};

/// Wakers of a stack that are told.
const WAKERS: usize = 3;

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
    /// Who ended most of these waits, where that was recorded; heaviest first.
    pub wakers: Vec<HeavyWaker>,
}

/// Who ended the waits of a stack.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HeavyWaker {
    /// The thread's name, or that of what is no thread.
    pub comm: String,
    /// Its process; 0 for what is no thread.
    pub pid: Pid,
    /// Leaf first, texts as in a folded line.
    pub frames: Vec<String>,
    /// What of the stack's value is due to it.
    pub value: u64,
}

/// The `limit` heaviest stacks, whoever ended their waits.
#[must_use]
pub fn heaviest(profile: &Profile, limit: usize) -> Vec<HeavyStack> {
    let mut stacks: IndexMap<_, (u64, IndexMap<_, u64, FxBuildHasher>), FxBuildHasher> = IndexMap::default();
    for entry in profile.entries().filter(|entry| entry.shown > 0) {
        let (value, wakers) = stacks.entry((entry.labels, entry.stack, entry.activity)).or_default();
        *value += entry.shown;
        if let Some(waker) = entry.waker {
            *wakers.entry(waker).or_default() += entry.shown;
        }
    }
    let texts = |stack: &[u32]| stack.iter().map(|&frame| name::frame(profile.frame(frame))).collect();
    // Rows of equal value keep the order in which they were first seen.
    stacks.sort_by(|_, (a, _), _, (b, _)| b.cmp(a));
    let stacks = stacks.into_iter().take(limit).map(|((labels, stack, activity), (value, wakers))| {
        let mut wakers: Vec<_> = wakers.into_iter().collect();
        wakers.sort_by_key(|&(_, value)| Reverse(value));
        let wakers = wakers.into_iter().take(WAKERS).map(|(waker, value)| HeavyWaker {
            comm: if waker.labels.pid.0 == 0 {
                waker.labels.comm.to_string()
            } else {
                name::comm(waker.labels)
            },
            pid: waker.labels.pid,
            frames: texts(waker.stack),
            value,
        });
        HeavyStack {
            comm: name::comm(labels),
            pid: labels.pid,
            activity: activity.marker(),
            frames: texts(stack),
            value,
            wakers: wakers.collect(),
        }
    });
    stacks.collect()
}
