//! One side of a difference: a profile, or a file that one was written to.

use indexmap::IndexSet;
use rustc_hash::FxBuildHasher;

use super::super::stacks::{Cost, Row, Stacks};
use super::super::{About, frequency_hz, name, read};
use super::Facts;
use crate::model::{Profile, ProfileKind};

/// One side of a difference.
#[derive(Clone, Debug)]
pub struct Side {
    pub(super) facts: Facts,
    pub(super) stacks: Stacks,
}

/// A file that holds no profile.
#[derive(Debug, thiserror::Error)]
pub enum OperandError {
    /// A line that is not `stack VALUE`.
    #[error("line {line}: expected `frame;frame VALUE`")]
    Folded {
        /// Its number, from 1.
        line: usize,
    },
    /// No document of [`super::super::Format::Json`].
    #[error(transparent)]
    Json(#[from] read::ReadError),
}

impl Side {
    /// A profile.
    #[must_use]
    pub fn of(profile: &Profile, about: &About) -> Self {
        let covered = about.covered.as_secs_f64();
        let per_second = match profile.kind() {
            ProfileKind::OnCpu => frequency_hz(profile),
            ProfileKind::OffCpu | ProfileKind::Wall => 1e6,
        };
        let whole_time = Some(covered * per_second).filter(|whole| *whole > 0.0);
        Self::new(about.title.clone(), Some(profile.kind()), whole_time, Stacks::of(profile))
    }

    /// A document as [`super::super::Format::Json`] writes it.
    ///
    /// # Errors
    /// The text is something else.
    pub fn from_json(title: &str, text: &str) -> Result<Self, OperandError> {
        let (profile, about) = read::profile(text)?;
        Ok(Self::of(&profile, &About { title: title.to_owned(), ..about }))
    }

    /// Folded lines, of ours or of another tool: `frame;frame VALUE`, root first. Values are taken
    /// for samples unless the stacks say what threads waited for.
    ///
    /// # Errors
    /// A line is not of that form.
    pub fn from_folded(title: &str, text: &str) -> Result<Self, OperandError> {
        let mut texts: IndexSet<String, FxBuildHasher> = IndexSet::default();
        let mut rows = Vec::new();
        let mut waits = false;
        for (number, line) in (1..).zip(text.lines()) {
            let line = line.trim();
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            let row =
                line.rsplit_once(' ').and_then(|(stack, value)| Some((stack, value.parse::<u64>().ok()?)));
            let (stack, value) = row.ok_or(OperandError::Folded { line: number })?;
            waits |= stack.rsplit_once(';').is_some_and(|(_, leaf)| name::is_marker(leaf));
            let frames =
                stack.split(';').map(|text| texts.insert_full(name::clean(text).into_owned()).0 as u32);
            let cost = Cost { value, squares: value as f64, ..Cost::default() };
            rows.push(Row { frames: frames.collect(), cost });
        }
        let kind = waits.then_some(ProfileKind::OffCpu);
        let mut stacks = Self::new(title.to_owned(), kind, None, Stacks::sorted(texts, rows));
        if waits {
            // Microseconds without counts of records: nothing is known of their noise.
            stacks.facts.total.squares = f64::INFINITY;
        }
        Ok(stacks)
    }

    fn new(title: String, kind: Option<ProfileKind>, whole_time: Option<f64>, stacks: Stacks) -> Self {
        Self { facts: Facts { title, kind, total: stacks.total(), whole_time }, stacks }
    }
}
