//! The difference as a flame graph: as wide as the second side, red where a frame's own value
//! grew, blue where it shrank.

use std::io::{self, BufWriter, Write};

use inferno::flamegraph::color::BackgroundColor;
use inferno::flamegraph::{self, Options, TextTruncateDirection};

use super::super::name;
use super::{Diff, Normalize};
use crate::model::ProfileKind;

/// Writes the flame graph of the lines that [`super::folded`] writes.
pub(super) fn write(diff: &Diff, out: &mut dyn Write) -> io::Result<()> {
    let [base, with] = &diff.sides;
    let mut options = Options::default();
    options.title = format!("{} compared with {}", name::clean(&with.title), name::clean(&base.title));
    let by = match diff.normalize {
        Normalize::Total => "scaled to equal totals",
        Normalize::Time => "scaled to equal time",
        Normalize::Work => "not scaled",
    };
    let unit = if diff.kind() == Some(ProfileKind::OffCpu) { "µs" } else { "samples" };
    options.subtitle = Some(format!(
        "red grew, blue shrank; {} {unit} against {} {unit}, {by}; what is gone is not drawn: swap the sides",
        with.total.value, base.total.value
    ));
    options.bgcolors = Some(BackgroundColor::Grey);
    options.name_type = "Frame:".to_owned();
    options.count_name = unit.to_owned();
    options.min_width = 0.01;
    options.text_truncate_direction = TextTruncateDirection::Right;
    // As in `super::super::flamegraph`: takes the lines as they come, the last one first.
    options.flame_chart = true;
    let lines: Vec<String> = diff.lines().rev().collect();
    let mut out = BufWriter::new(out);
    flamegraph::from_lines(&mut options, lines.iter().map(String::as_str), &mut out)?;
    out.flush()
}
