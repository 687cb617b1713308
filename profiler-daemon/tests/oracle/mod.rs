//! What others make of a file's unwinding information, and how that compares with our tables.

mod numbers;
mod readelf;

use std::collections::BTreeMap;
use std::fmt;

use profiler_common::unwind::{Rule, bp, cfa};
use profiler_daemon::unwind::Table;

pub(crate) use numbers::check_numbers;
pub(crate) use readelf::readelf_rows;

/// What an oracle says of some addresses.
pub(crate) struct Row {
    pub(crate) start: u64,
    pub(crate) end: u64,
    pub(crate) says: Says,
}

/// The oracle's rule, as far as it tells.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Says {
    /// This rule, or the table is wrong.
    Exactly(Rule),
    /// This rule, but the frame pointer must be said to be lost: it is on the list.
    BpLost(Rule),
    /// No rule, for a reason that is on the list.
    NotExpressed(&'static str),
    /// Some expression; this oracle does not print which.
    SomeExpression,
    /// A rule whose frame pointer comes from some expression.
    SomeBp(Rule),
}

/// The comparison of one file.
#[derive(Default)]
pub(crate) struct Tally {
    pub(crate) rows: u64,
    addresses: u64,
    not_expressed: BTreeMap<&'static str, u64>,
    unchecked: u64,
    pub(crate) wrong: Vec<String>,
}

impl Tally {
    /// Compares at the first address, the second and the last.
    pub(crate) fn check(&mut self, table: &Table, row: &Row) {
        self.rows += 1;
        let mut addresses = vec![row.start, row.start + 1, row.end - 1];
        addresses.retain(|&address| address < row.end);
        addresses.dedup();
        for &address in &addresses {
            self.addresses += 1;
            let found = table.lookup(address);
            let right = match row.says {
                Says::Exactly(rule) => found == rule,
                Says::BpLost(rule) => found == Rule { bp: bp::LOST, bp_offset: 0, ..rule },
                Says::NotExpressed(_) => found == Rule::NONE,
                Says::SomeExpression => {
                    matches!(
                        found.cfa,
                        cfa::NONE | cfa::PLT | cfa::SIGNAL | cfa::DEREF_SP | cfa::DEREF_BP | cfa::INDEXED
                            ..=cfa::LAST_INDEXED
                    )
                }
                Says::SomeBp(rule) => {
                    (found.cfa, found.cfa_offset) == (rule.cfa, rule.cfa_offset)
                        && matches!(found.bp, bp::LOST | bp::AT_BP | bp::AT_CFA)
                }
            };
            if !right && self.wrong.len() < 20 {
                self.wrong.push(format!("{address:#x}: {:?}, but the table has {found:?}", row.says));
            }
        }
        match row.says {
            Says::NotExpressed(why) => *self.not_expressed.entry(why).or_default() += 1,
            Says::BpLost(_) => *self.not_expressed.entry("frame pointer lost").or_default() += 1,
            Says::SomeExpression | Says::SomeBp(_) => self.unchecked += 1,
            Says::Exactly(_) => {}
        }
    }

    /// Checks that between functions no rule of theirs is in force: none, or the one that holds
    /// where any function starts, in less than 16 bytes before an aligned one.
    pub(crate) fn check_gaps(&mut self, table: &Table, rows: &[Row]) {
        let at_entry = Rule { cfa: cfa::SP, bp: bp::SAME, bp_offset: 0, cfa_offset: 8 };
        let mut spans: Vec<(u64, u64)> = rows.iter().map(|row| (row.start, row.end)).collect();
        spans.sort_unstable();
        for pair in spans.windows(2) {
            let (end, next) = (pair[0].1, pair[1].0);
            let padding = next.is_multiple_of(16) && next.saturating_sub(end) < 16;
            for address in [end, next.wrapping_sub(1)] {
                let found = table.lookup(address);
                if end < next && found != Rule::NONE && !(padding && found == at_entry) {
                    self.wrong.push(format!("{address:#x} lies between functions, but has {found:?}"));
                }
            }
        }
    }

    /// Share of rows that cannot be expressed, or not wholly.
    pub(crate) fn share(&self) -> f64 {
        self.not_expressed.values().sum::<u64>() as f64 / self.rows.max(1) as f64
    }
}

impl fmt::Display for Tally {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} rows, {} addresses, {} wrong, {:.3} % not expressed {:?}, {} this oracle does not tell",
            self.rows,
            self.addresses,
            self.wrong.len(),
            100.0 * self.share(),
            self.not_expressed,
            self.unchecked
        )
    }
}

/// A rule from what `readelf` and gimli have in common: registers, offsets.
pub(crate) fn plain(cfa_register: u16, cfa_offset: i64, bp_at: Option<i64>) -> Says {
    let kind = match cfa_register {
        7 => cfa::SP,
        6 => cfa::BP,
        0..16 => cfa::REGISTER + cfa_register as u8,
        _ => return Says::NotExpressed("CFA in another register"),
    };
    let Ok(cfa_offset) = i32::try_from(cfa_offset) else { return Says::NotExpressed("offset too large") };
    let rule = Rule { cfa: kind, bp: bp::SAME, bp_offset: 0, cfa_offset };
    match bp_at.map(i16::try_from) {
        None => Says::Exactly(rule),
        Some(Ok(bp_offset)) => Says::Exactly(Rule { bp: bp::AT_CFA, bp_offset, ..rule }),
        Some(Err(_)) => Says::BpLost(rule),
    }
}
