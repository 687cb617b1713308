//! The difference of two profiles: what grew, by how much, and whether that is more than noise.

mod changes;
mod folded;
mod gate;
mod json;
mod operand;
mod svg;

use std::fmt;
use std::io::{self, Write};
use std::path::Path;
use std::str::FromStr;

use indexmap::IndexSet;
use rustc_hash::FxBuildHasher;

pub use changes::{Change, Share};
pub use gate::{Gate, Verdict};
pub use operand::{OperandError, Side};

use super::stacks::{Cost, Row, Stacks, ranked};
use super::{RenderError, UnknownFormat};
use crate::model::ProfileKind;

/// What the two sides are made comparable by.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Normalize {
    /// Each side's own total: compares shares. Right where the load differs.
    #[default]
    Total,
    /// The time that was recorded: compares CPUs kept busy, or threads kept waiting.
    Time,
    /// Nothing: right where both sides did the same work, such as a benchmark run to its end.
    Work,
}

/// Ways to write a difference.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DiffFormat {
    /// Red where it grew, blue where it shrank; as wide as the second side.
    Svg,
    /// `stack BASE WITH` lines, the base scaled to the other side.
    Folded,
    /// Rows of [`Change`] and the [`Verdict`].
    Json,
}

/// Two profiles, stack by stack.
#[derive(Clone, Debug)]
pub struct Diff {
    normalize: Normalize,
    sides: [Facts; 2],
    texts: Vec<String>,
    rows: Vec<Pair>,
}

/// What is known of a side beside its stacks.
#[derive(Clone, Debug)]
struct Facts {
    title: String,
    /// `None` where a file does not say.
    kind: Option<ProfileKind>,
    total: Cost,
    /// What [`Normalize::Time`] divides by: the value that one CPU, or one waiting thread, has
    /// in the time that was recorded.
    whole_time: Option<f64>,
}

#[derive(Clone, Debug)]
struct Pair {
    frames: Box<[u32]>,
    cost: [Cost; 2],
}

/// Why two profiles cannot be compared.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DiffError {
    /// Samples and microseconds.
    #[error("{base} and {with} cannot be compared: {base_kind} and {with_kind}")]
    Kinds {
        /// Title of the base.
        base: String,
        /// What it measured.
        base_kind: ProfileKind,
        /// Title of the other side.
        with: String,
        /// What that measured.
        with_kind: ProfileKind,
    },
    /// A side without a value.
    #[error("{side} is empty")]
    Empty {
        /// Its title.
        side: String,
    },
    /// A folded file holds no time.
    #[error("{side} does not say how long it was recorded: compare by total, or record to a .json file")]
    NoTime {
        /// Its title.
        side: String,
    },
    /// A folded file of times holds no counts.
    #[error("{side} does not say how many records it has, so noise cannot be judged: record to a .json file")]
    NoCounts {
        /// Its title.
        side: String,
    },
}

impl Diff {
    /// Compares two sides.
    ///
    /// # Errors
    /// They are of different kinds, one is empty, or one holds no time to compare by.
    pub fn between(base: Side, with: Side, normalize: Normalize) -> Result<Self, DiffError> {
        let sides = [base, with].map(|side| (side.facts, side.stacks));
        let [(base, left), (with, right)] = sides;
        if let (Some(base_kind), Some(with_kind)) = (base.kind, with.kind)
            && base_kind != with_kind
        {
            return Err(DiffError::Kinds { base: base.title, base_kind, with: with.title, with_kind });
        }
        for facts in [&base, &with] {
            let side = || facts.title.clone();
            if facts.total.value == 0 {
                return Err(DiffError::Empty { side: side() });
            }
            if normalize == Normalize::Time && facts.whole_time.is_none() {
                return Err(DiffError::NoTime { side: side() });
            }
        }
        let (texts, rows) = join(left, right);
        Ok(Self { normalize, sides: [base, with], texts, rows })
    }

    /// What each side's values are divided by to become shares.
    fn wholes(&self) -> [f64; 2] {
        let [base, with] = &self.sides;
        match self.normalize {
            Normalize::Total => [base, with].map(|side| side.total.value as f64),
            Normalize::Time => [base, with].map(|side| side.whole_time.unwrap_or(1.0).max(f64::MIN_POSITIVE)),
            Normalize::Work => [base.total.value as f64; 2],
        }
    }

    /// The stacks as lines without an end, in an order that keeps equal frames together:
    /// `stack BASE WITH`, where the base is scaled so that both can be compared.
    fn lines(&self) -> impl DoubleEndedIterator<Item = String> {
        let [base, with] = self.wholes();
        let scale = with / base;
        self.rows.iter().map(move |row| {
            let stack: Vec<&str> =
                row.frames.iter().map(|&text| self.texts[text as usize].as_str()).collect();
            let scaled = (row.cost[0].value as f64 * scale).round() as u64;
            format!("{} {scaled} {}", stack.join(";"), row.cost[1].value)
        })
    }

    /// Writes the stacks or the changes.
    ///
    /// # Errors
    /// [`RenderError::Write`] where `out` fails.
    pub fn render(
        &self,
        format: DiffFormat,
        verdict: &Verdict,
        out: &mut dyn Write,
    ) -> Result<(), RenderError> {
        match format {
            DiffFormat::Svg => svg::write(self, out)?,
            DiffFormat::Folded => folded::write(self, out)?,
            DiffFormat::Json => json::write(self, verdict, out)?,
        }
        Ok(())
    }

    fn kind(&self) -> Option<ProfileKind> {
        self.sides.iter().find_map(|side| side.kind)
    }

    fn unit(&self) -> &'static str {
        self.kind().unwrap_or(ProfileKind::OnCpu).unit()
    }
}

/// Joins the sorted rows of two sides over one sorted table of texts.
fn join(left: Stacks, right: Stacks) -> (Vec<String>, Vec<Pair>) {
    let mut texts: IndexSet<String, FxBuildHasher> = IndexSet::default();
    let mut pairs = Vec::new();
    for (side, stacks) in [left, right].into_iter().enumerate() {
        let (own, rows) = stacks.into_parts();
        let ids: Vec<u32> = own.into_iter().map(|text| texts.insert_full(text).0 as u32).collect();
        pairs.extend(rows.into_iter().map(|Row { mut frames, cost }| {
            frames.iter_mut().for_each(|frame| *frame = ids[*frame as usize]);
            let mut costs = [Cost::default(); 2];
            costs[side] = cost;
            Pair { frames, cost: costs }
        }));
    }
    let (texts, rank) = ranked(texts);
    for pair in &mut pairs {
        pair.frames.iter_mut().for_each(|frame| *frame = rank[*frame as usize]);
    }
    pairs.sort_by(|a, b| a.frames.cmp(&b.frames));
    pairs.dedup_by(|next, kept| {
        let equal = next.frames == kept.frames;
        if equal {
            kept.cost.iter_mut().zip(next.cost).for_each(|(cost, more)| *cost += more);
        }
        equal
    });
    (texts, pairs)
}

impl DiffFormat {
    /// The format that a file's extension asks for.
    ///
    /// # Errors
    /// The extension is none of .svg, .folded, .json.
    pub fn from_path(path: &Path) -> Result<Self, String> {
        let name = path.to_string_lossy();
        let table = [(".svg", Self::Svg), (".folded", Self::Folded), (".json", Self::Json)];
        let known = table.iter().find(|(extension, _)| name.ends_with(extension));
        known
            .map(|&(_, format)| format)
            .ok_or_else(|| "unknown extension: use .svg, .folded or .json".to_owned())
    }
}

impl FromStr for DiffFormat {
    type Err = UnknownFormat;

    fn from_str(text: &str) -> Result<Self, UnknownFormat> {
        match text {
            "svg" => Ok(Self::Svg),
            "folded" => Ok(Self::Folded),
            "json" => Ok(Self::Json),
            _ => Err(UnknownFormat { name: text.to_owned() }),
        }
    }
}

impl FromStr for Normalize {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "total" => Ok(Self::Total),
            "time" => Ok(Self::Time),
            "work" => Ok(Self::Work),
            _ => Err("use total, time or work".to_owned()),
        }
    }
}

impl fmt::Display for Normalize {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Total => "total",
            Self::Time => "time",
            Self::Work => "work",
        })
    }
}

/// Where one line of text is written at a time.
fn write_lines(lines: impl Iterator<Item = String>, out: &mut dyn Write) -> io::Result<()> {
    for mut line in lines {
        line.push('\n');
        out.write_all(line.as_bytes())?;
    }
    Ok(())
}

#[cfg(test)]
mod tests;
