//! What was lost, where and why: a count for everything that can be.

use std::collections::BTreeMap;
use std::fmt;

/// The stage that lost something.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Stage {
    /// The eBPF programs and their ring buffers.
    Kernel,
    /// Bytes that were not a valid record.
    Decode,
    /// A full channel between two stages.
    Pipeline,
    /// Names that could not be found.
    Symbolize,
    /// Windows that had to go before their time.
    Store,
}

impl Stage {
    /// The name used in metrics and answers.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Kernel => "kernel",
            Self::Decode => "decode",
            Self::Pipeline => "pipeline",
            Self::Symbolize => "symbolize",
            Self::Store => "store",
        }
    }
}

impl fmt::Display for Stage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// Counts of lost things by stage and reason. Reasons are short fixed texts, so that they can be
/// metric labels.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Loss(BTreeMap<(Stage, &'static str), u64>);

/// One line of a [`Loss`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LossCount {
    /// Where.
    pub stage: Stage,
    /// Why.
    pub reason: &'static str,
    /// How many.
    pub count: u64,
}

impl Loss {
    /// Adds `count` to a reason; zero leaves no trace.
    pub fn add(&mut self, stage: Stage, reason: &'static str, count: u64) {
        if count > 0 {
            *self.0.entry((stage, reason)).or_default() += count;
        }
    }

    /// Adds all of another loss.
    pub fn merge(&mut self, other: &Self) {
        for line in other.iter() {
            self.add(line.stage, line.reason, line.count);
        }
    }

    /// What came on top of an earlier reading of the same counters.
    #[must_use]
    pub fn since(&self, earlier: &Self) -> Self {
        let mut difference = Self::default();
        for (&(stage, reason), &count) in &self.0 {
            let before = earlier.0.get(&(stage, reason)).copied().unwrap_or_default();
            difference.add(stage, reason, count.saturating_sub(before));
        }
        difference
    }

    /// All lines with a count above zero.
    pub fn iter(&self) -> impl Iterator<Item = LossCount> + '_ {
        self.0.iter().map(|(&(stage, reason), &count)| LossCount { stage, reason, count })
    }

    /// Sum over all reasons.
    #[must_use]
    pub fn total(&self) -> u64 {
        self.0.values().sum()
    }

    /// Whether nothing was lost.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl fmt::Display for Loss {
    /// `12 (kernel: on-CPU ring full), 3 (...)`, or `nothing`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.is_empty() {
            return f.write_str("nothing");
        }
        for (index, line) in self.iter().enumerate() {
            let comma = if index == 0 { "" } else { ", " };
            write!(f, "{comma}{} ({}: {})", line.count, line.stage, line.reason)?;
        }
        Ok(())
    }
}
