//! The heaviest frames of a profile.

use indexmap::IndexMap;
use rustc_hash::FxBuildHasher;

use super::name;
use crate::model::Profile;

/// One frame's share, in the unit of the profile's kind.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TopRow {
    /// The frame's text, as in a folded line.
    pub frame: String,
    /// Value with the frame on top of the stack.
    pub self_value: u64,
    /// Value with the frame anywhere in the stack, counted once a stack.
    pub total_value: u64,
}

/// The `limit` heaviest frames by their own value, then by total. Records without a stack are
/// one row, so that the own values of all rows add up to the profile's total.
#[must_use]
pub fn top(profile: &Profile, limit: usize) -> Vec<TopRow> {
    let mut texts: IndexMap<String, Weight, FxBuildHasher> = IndexMap::default();
    let ids: Vec<usize> = profile
        .frames()
        .map(|frame| name::frame(frame))
        .chain([name::NO_STACK.to_owned()])
        .map(|text| texts.insert_full(text, Weight::default()).0)
        .collect();
    let no_stack = [profile.frames().len() as u32];
    for (row, entry) in (1..).zip(profile.entries()) {
        let stack = if entry.stack.is_empty() { &no_stack } else { entry.stack };
        for (depth, &frame) in stack.iter().enumerate() {
            let weight = &mut texts[ids[frame as usize]];
            if depth == 0 {
                weight.own += entry.shown;
            }
            if weight.last_row != row {
                weight.last_row = row;
                weight.total += entry.shown;
            }
        }
    }
    let mut rows: Vec<TopRow> = texts
        .into_iter()
        .filter(|(_, weight)| weight.total > 0)
        .map(|(frame, weight)| TopRow { frame, self_value: weight.own, total_value: weight.total })
        .collect();
    let heaviest_first = |a: &TopRow, b: &TopRow| {
        (b.self_value, b.total_value, &a.frame).cmp(&(a.self_value, a.total_value, &b.frame))
    };
    rows.sort_unstable_by(heaviest_first);
    rows.truncate(limit);
    rows
}

#[derive(Default)]
struct Weight {
    own: u64,
    total: u64,
    /// The row that was counted last, from 1: a recursive frame counts once a row.
    last_row: usize,
}
