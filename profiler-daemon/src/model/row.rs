//! A row of a profile: what it is about, and what it is worth.

use std::sync::Arc;

use super::{Labels, Wait};

/// What a row is about, by the indices of a profile.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Key {
    pub(crate) labels: u32,
    pub(crate) stack: u32,
    pub(crate) activity: Activity,
    /// Who ended the wait.
    pub(crate) waker: Option<WakerIds>,
}

/// A waker by the indices of a profile.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct WakerIds {
    pub(crate) labels: u32,
    pub(crate) stack: u32,
}

/// What a thread was doing with its time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Activity {
    /// Running.
    OnCpu,
    /// Waiting for this.
    Blocked(Wait),
    /// Woken, waiting for a CPU.
    RunQueue,
    /// Runnable all along, waiting for a CPU.
    Preempted,
}

impl Activity {
    /// The pseudo frame that renderers put on top of the stack; none for running code.
    #[must_use]
    pub fn marker(self) -> Option<&'static str> {
        match self {
            Self::OnCpu => None,
            Self::Blocked(wait) => Some(wait.marker()),
            Self::RunQueue => Some("[run-queue]"),
            Self::Preempted => Some("[preempted]"),
        }
    }
}

/// What a stack is worth.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Value {
    /// Records: sampler hits, or (parts of) intervals.
    pub count: u64,
    /// Time, ns: hits times their period, or the intervals' length.
    pub ns: u64,
    /// Off-CPU: variance that sampling gave the time, us²; 0 where every interval was taken.
    pub variance_us2: u64,
}

impl Value {
    /// A value that chance has no part in.
    #[must_use]
    pub fn exact(count: u64, ns: u64) -> Self {
        Self { count, ns, variance_us2: 0 }
    }

    /// Standard error in ns: `n` hits of the sampler are uncertain by the square root of `n`.
    #[must_use]
    pub fn error_ns(&self, activity: Activity) -> f64 {
        match activity {
            Activity::OnCpu if self.count > 0 => self.ns as f64 / (self.count as f64).sqrt(),
            _ => (self.variance_us2 as f64).sqrt() * 1000.0,
        }
    }
}

impl std::ops::AddAssign for Value {
    fn add_assign(&mut self, other: Self) {
        self.count += other.count;
        self.ns += other.ns;
        self.variance_us2 = self.variance_us2.saturating_add(other.variance_us2);
    }
}

/// One row of a profile.
#[derive(Clone, Copy, Debug)]
pub struct Entry<'a> {
    /// Who.
    pub labels: &'a Arc<Labels>,
    /// Doing what.
    pub activity: Activity,
    /// Indices into [`super::Profile::frames`], leaf first.
    pub stack: &'a [u32],
    /// Who ended the wait, where that was recorded. Rows that differ in nothing else are several.
    pub waker: Option<EntryWaker<'a>>,
    /// How much.
    pub value: Value,
    /// How much in [`super::ProfileKind::unit`]. Microseconds are rounded so that the rows of a profile
    /// add up to its total.
    pub shown: u64,
    /// Standard error of the value, in the same unit.
    pub error: f64,
}

/// Who ended the waits of a row.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct EntryWaker<'a> {
    /// Who.
    pub labels: &'a Arc<Labels>,
    /// Indices into [`super::Profile::frames`], leaf first.
    pub stack: &'a [u32],
}
