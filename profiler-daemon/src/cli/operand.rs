//! OPERAND: one side of a comparison: a file, a capture, or a range of stored time.

use std::path::{Path, PathBuf};
use std::str::FromStr;

use super::range::Range;
use super::values;
use crate::model::{Labels, TimeRange};
use crate::render::Format;

/// One side of a comparison.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Operand {
    /// A file of folded lines.
    Folded(PathBuf),
    /// A file that `--format json` wrote.
    Json(PathBuf),
    /// What a capture recorded, of whom.
    Capture(String, Option<String>),
    /// A range of stored time, of whom.
    Stored(TimeRange, Option<String>),
}

impl Operand {
    /// Whether the daemon has it.
    #[must_use]
    pub fn is_remote(&self) -> bool {
        matches!(self, Self::Capture(..) | Self::Stored(..))
    }
}

impl FromStr for Operand {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (what, selector) = split(text);
        if selector.is_none() {
            match Format::from_path(Path::new(text)) {
                Ok(Format::Folded) => return Ok(Self::Folded(text.into())),
                Ok(Format::Json) => return Ok(Self::Json(text.into())),
                Ok(_) => return Err("of files, only .folded and .json can be compared".to_owned()),
                Err(_) => {}
            }
        }
        let selector = selector.map(values::selector).transpose()?;
        if let Some(id) = what.strip_prefix("capture:") {
            return Ok(Self::Capture(values::capture_id(id.trim())?, selector));
        }
        let range: Range = what.parse().map_err(|error| {
            format!("{error}; write RANGE [SELECTOR], capture:ID, or a file that ends in .folded or .json")
        })?;
        Ok(Self::Stored(range.0, selector))
    }
}

/// Parts the range from the selector, which begins with `{` or with a label and its operator.
fn split(text: &str) -> (&str, Option<&str>) {
    let begins = |at: &usize| {
        let rest = text.get(*at..).unwrap_or_default();
        let free = text.get(..*at).is_some_and(|before| before.is_empty() || before.ends_with(' '));
        let label = Labels::NAMES.iter().find_map(|label| rest.strip_prefix(label));
        rest.starts_with('{') || (free && label.is_some_and(|rest| rest.trim_start().starts_with(['=', '!'])))
    };
    match (0..text.len()).filter(|at| text.is_char_boundary(*at)).find(begins) {
        Some(at) => (text[..at].trim_end(), Some(&text[at..])),
        None => (text, None),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_and_selectors_are_told_apart() {
        assert_eq!(split("-2h..-1h"), ("-2h..-1h", None));
        assert_eq!(split("15m comm=\"a b\""), ("15m", Some("comm=\"a b\"")));
        assert_eq!(split("today 14:05..14:10 {pod=~\"x\"}"), ("today 14:05..14:10", Some("{pod=~\"x\"}")));
        assert_eq!(split("15m pod !~ \"comm=\""), ("15m", Some("pod !~ \"comm=\"")));
        assert_eq!(split("größe"), ("größe", None));
    }

    #[test]
    fn operands() {
        let parse = |text: &str| text.parse::<Operand>();
        assert_eq!(parse("a b.folded"), Ok(Operand::Folded("a b.folded".into())));
        assert_eq!(parse("/x/a.json"), Ok(Operand::Json("/x/a.json".into())));
        assert_eq!(parse("capture:c-1"), Ok(Operand::Capture("c-1".to_owned(), None)));
        let stored = parse("-2h..-1h exe=\"/bin/a.json\"");
        assert!(
            matches!(&stored, Ok(Operand::Stored(_, Some(selector))) if selector == "exe=\"/bin/a.json\""),
            "{stored:?}"
        );
        for file in ["a.svg", "a.pb.gz", "a.speedscope.json", "a.firefox.json"] {
            assert!(parse(file).is_err_and(|error| error.contains("only .folded and .json")), "{file}");
        }
        assert!(parse("15m host=\"a\"").is_err_and(|error| error.contains("not a duration")));
        assert!(parse("15m comm=a").is_err_and(|error| error.contains("character 6")));
        assert!(parse("capture:../x").is_err_and(|error| error.contains("not a capture id")));
    }
}
