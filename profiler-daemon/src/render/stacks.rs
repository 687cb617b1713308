//! The rows of a profile as sorted stacks of texts, root first: what folded lines are made of.

use indexmap::IndexSet;
use rustc_hash::FxBuildHasher;

use super::{View, name};
use crate::model::{Blocks, Profile};

/// The rows of a profile, each a stack of texts; rows with equal texts are one.
///
/// Rows are sorted frame by frame and not as lines: as lines, `f 1`, `f(int) 1`, `f;g 1` would
/// come in this order, and a flame graph drawn from them would show `f` twice.
#[derive(Clone, Debug, Default)]
pub(super) struct Stacks {
    /// Sorted, so that rows can be compared by their indices.
    texts: Vec<String>,
    rows: Vec<Row>,
}

/// A stack, root first, and what it is worth.
#[derive(Clone, Debug)]
pub(super) struct Row {
    /// Indices into the texts.
    pub(super) frames: Box<[u32]>,
    pub(super) cost: Cost,
}

/// A sum of records, and how sure it is.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct Cost {
    /// The sum, in [`crate::model::ProfileKind::unit`].
    pub(super) value: u64,
    /// Sum of the squares of the records behind it: the variance of the sum, where records come
    /// independently of each other (compound Poisson). Equal to `value` for samples.
    pub(super) squares: f64,
    /// The sum by stretches of the recording, in any unit; all 0 where that is not known.
    pub(super) blocks: Blocks,
}

impl std::ops::AddAssign for Cost {
    fn add_assign(&mut self, other: Self) {
        self.value += other.value;
        self.squares += other.squares;
        self.blocks.iter_mut().zip(other.blocks).for_each(|(sum, more)| *sum = sum.saturating_add(more));
    }
}

impl Stacks {
    /// Takes the rows whose shown value is not zero.
    pub(super) fn of(profile: &Profile) -> Self {
        Self::of_view(profile, View::Waits)
    }

    /// The same, with what the view has on top.
    pub(super) fn of_view(profile: &Profile, view: View) -> Self {
        let mut texts: IndexSet<String, FxBuildHasher> = IndexSet::default();
        let mut intern = |text| texts.insert_full(text).0 as u32;
        let frames: Vec<u32> = profile.frames().map(|frame| intern(name::frame(frame))).collect();
        let blocks = profile.blocks().unwrap_or_default();
        let rows: Vec<Row> = profile
            .entries()
            .enumerate()
            .filter(|(_, entry)| entry.shown > 0)
            .map(|(number, entry)| {
                let comm = intern(name::comm(entry.labels));
                let stack = entry.stack.iter().rev().map(|&frame| frames[frame as usize]);
                let marker = entry.activity.marker().map(|marker| intern(marker.to_owned()));
                let mut frames: Vec<u32> = std::iter::once(comm).chain(stack).chain(marker).collect();
                if let Some(waker) = entry.waker.filter(|_| view == View::Wakers) {
                    frames.push(intern(name::WOKEN_BY.to_owned()));
                    let stack = waker.stack.iter();
                    frames.extend(stack.map(|&id| intern(name::waker_frame(profile.frame(id)))));
                    frames.push(intern(name::waker(waker.labels)));
                }
                // The records of a row are taken to be equally long.
                let squares = (entry.shown as f64).powi(2) / entry.value.count.max(1) as f64;
                let blocks = blocks.get(number).copied().unwrap_or_default();
                Row { frames: frames.into(), cost: Cost { value: entry.shown, squares, blocks } }
            })
            .collect();
        Self::sorted(texts, rows)
    }

    /// Sorts texts and rows; equal rows become one.
    pub(super) fn sorted(texts: IndexSet<String, FxBuildHasher>, mut rows: Vec<Row>) -> Self {
        let (texts, rank) = ranked(texts);
        for row in &mut rows {
            row.frames.iter_mut().for_each(|frame| *frame = rank[*frame as usize]);
        }
        rows.sort_unstable_by(|a, b| a.frames.cmp(&b.frames));
        rows.dedup_by(|next, kept| {
            let equal = next.frames == kept.frames;
            if equal {
                kept.cost += next.cost;
            }
            equal
        });
        Self { texts, rows }
    }

    /// Texts and rows; the rows are sorted.
    pub(super) fn into_parts(self) -> (Vec<String>, Vec<Row>) {
        (self.texts, self.rows)
    }

    /// Sum of all rows.
    pub(super) fn total(&self) -> Cost {
        let mut total = Cost::default();
        self.rows.iter().for_each(|row| total += row.cost);
        total
    }

    /// All texts: of frames, of threads' names and of activities.
    pub(super) fn texts(&self) -> impl Iterator<Item = &str> {
        self.texts.iter().map(String::as_str)
    }

    /// The rows as lines without an end: `comm;frame;frame;... VALUE`.
    pub(super) fn lines(&self) -> impl DoubleEndedIterator<Item = Line<'_>> {
        self.rows.iter().map(|row| Line { stacks: self, row })
    }
}

/// The texts in their order, and the place in it of each by its old one.
pub(super) fn ranked(texts: impl IntoIterator<Item = String>) -> (Vec<String>, Vec<u32>) {
    let mut order: Vec<(String, u32)> = texts.into_iter().zip(0..).collect();
    order.sort_unstable();
    let mut rank = vec![0; order.len()];
    for (new, (_, old)) in (0..).zip(&order) {
        rank[*old as usize] = new;
    }
    (order.into_iter().map(|(text, _)| text).collect(), rank)
}

/// One row; displays as a folded line.
pub(super) struct Line<'a> {
    stacks: &'a Stacks,
    row: &'a Row,
}

impl std::fmt::Display for Line<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        for (depth, &frame) in self.row.frames.iter().enumerate() {
            if depth > 0 {
                f.write_str(";")?;
            }
            f.write_str(&self.stacks.texts[frame as usize])?;
        }
        write!(f, " {}", self.row.cost.value)
    }
}
