//! Reads folded stacks: `comm;frame;frame;... VALUE`, root first.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Context as _, Result, ensure};

/// Folded stacks.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Folded {
    /// One row a line.
    pub rows: Vec<Row>,
}

/// One line: a stack and its value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Row {
    /// Root first; the first one is the thread's name.
    pub frames: Vec<String>,
    /// Samples or microseconds.
    pub value: u64,
}

/// What a thread spent off the CPU, by the pseudo frame on top of its stacks, microseconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct OffCpu {
    /// `[blocked]` in all its forms.
    pub blocked: u64,
    /// `[run-queue]`.
    pub run_queue: u64,
    /// `[preempted]`.
    pub preempted: u64,
}

impl Folded {
    /// Reads folded text, strictly: every line is a stack, a space and a whole number.
    ///
    /// # Errors
    /// Names the first line that is anything else.
    pub fn parse(text: &str) -> Result<Self> {
        let rows = text
            .lines()
            .enumerate()
            .map(|(index, line)| Row::parse(line).with_context(|| format!("line {}: {line:?}", index + 1)));
        Ok(Self { rows: rows.collect::<Result<_>>()? })
    }

    /// Sum of all values.
    #[must_use]
    pub fn total(&self) -> u64 {
        self.rows.iter().map(|row| row.value).sum()
    }

    /// All root frames.
    #[must_use]
    pub fn roots(&self) -> BTreeSet<&str> {
        self.rows.iter().map(Row::root).collect()
    }

    /// The stacks of one root frame.
    #[must_use]
    pub fn under(&self, root: &str) -> Self {
        Self { rows: self.rows.iter().filter(|row| row.root() == root).cloned().collect() }
    }

    /// Sum over the stacks for which `wanted` holds.
    #[must_use]
    pub fn value_where(&self, wanted: impl Fn(&Row) -> bool) -> u64 {
        self.rows.iter().filter(|row| wanted(row)).map(|row| row.value).sum()
    }

    /// The frame with the most value on top of the stack, and that value.
    #[must_use]
    pub fn heaviest_leaf(&self) -> Option<(&str, u64)> {
        let mut by_leaf: BTreeMap<&str, u64> = BTreeMap::new();
        for row in &self.rows {
            *by_leaf.entry(row.leaf()).or_default() += row.value;
        }
        by_leaf.into_iter().max_by_key(|&(_, value)| value)
    }

    /// What the threads of this name spent off the CPU.
    #[must_use]
    pub fn off_cpu(&self, comm: &str) -> OffCpu {
        let mut sums = OffCpu::default();
        for row in self.rows.iter().filter(|row| row.root() == comm) {
            match row.leaf() {
                "[blocked]" => sums.blocked += row.value,
                leaf if leaf.starts_with("[blocked: ") => sums.blocked += row.value,
                "[run-queue]" => sums.run_queue += row.value,
                "[preempted]" => sums.preempted += row.value,
                _ => {}
            }
        }
        sums
    }
}

impl Row {
    fn parse(line: &str) -> Result<Self> {
        let (stack, value) = line.rsplit_once(' ').context("no value")?;
        let value = value.parse().context("the value is not a whole number")?;
        let frames: Vec<String> = stack.split(';').map(str::to_owned).collect();
        ensure!(frames.iter().all(|frame| !frame.is_empty()), "an empty frame");
        ensure!(!stack.chars().any(char::is_control), "a control character");
        Ok(Self { frames, value })
    }

    /// The first frame.
    #[must_use]
    pub fn root(&self) -> &str {
        self.frames.first().map_or("", String::as_str)
    }

    /// The last frame.
    #[must_use]
    pub fn leaf(&self) -> &str {
        self.frames.last().map_or("", String::as_str)
    }

    /// Whether these frames are in the stack, in this order and next to each other.
    #[must_use]
    pub fn holds(&self, chain: &[&str]) -> bool {
        chain.is_empty() || self.frames.windows(chain.len()).any(|window| window == chain)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "a b;main;f;g 3\na b;main;f 1\nc;read;[blocked] 40\nc;[run-queue] 2\n\
                        c;io;[blocked: uninterruptible] 10\nc;[preempted] 5\n";

    #[test]
    fn sums_by_root_leaf_and_marker() -> Result<()> {
        let folded = Folded::parse(TEXT)?;
        assert_eq!(folded.total(), 61);
        assert_eq!(folded.roots(), BTreeSet::from(["a b", "c"]));
        assert_eq!(folded.under("a b").total(), 4);
        assert_eq!(folded.under("a b").heaviest_leaf(), Some(("g", 3)));
        assert_eq!(folded.off_cpu("c"), OffCpu { blocked: 50, run_queue: 2, preempted: 5 });
        Ok(())
    }

    #[test]
    fn a_chain_is_held_only_in_order_and_without_gaps() -> Result<()> {
        let folded = Folded::parse("a;f1;f2;f3 1")?;
        let row = &folded.rows[0];
        assert!(row.holds(&["f1", "f2"]) && row.holds(&["f2", "f3"]));
        assert!(!row.holds(&["f1", "f3"]) && !row.holds(&["f2", "f1"]) && !row.holds(&["f3", "f4"]));
        Ok(())
    }

    #[test]
    fn what_is_not_folded_is_refused() {
        for text in ["a;b", "a;b x", "a;;b 1", "a;b 1\n\nc 1", "a\u{1b};b 1", "a 1.5"] {
            assert!(Folded::parse(text).is_err(), "{text:?}");
        }
    }
}
