//! Writes a [`Profile`] in a format that a person or another tool reads: pure, no I/O of its own.
//!
//! A format is one file here with one `write` function, one variant of [`Format`] and one line in
//! [`render`]. All of them agree in their total.

mod certainty;
mod diff;
mod firefox;
mod flamegraph;
mod folded;
mod heatmap;
mod heaviest;
mod json;
mod name;
mod pprof;
mod read;
mod report;
mod speedscope;
mod stack_shares;
mod stacks;
mod summary;
mod top;
mod wait_times;

use std::fmt;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::Duration;

pub use certainty::Certainty;
pub use diff::{Change, Diff, DiffError, DiffFormat, Gate, Normalize, OperandError, Share, Side, Verdict};
pub use heatmap::{Cells, HeatmapFormat, heatmap};
pub use heaviest::{HeavyStack, HeavyWaker, heaviest};
pub use report::{Aspect, HotStack, Observed, ReportLine, report};
pub use stack_shares::StackShares;
pub use summary::{frequency_hz, summary_line};
pub use top::{GroupBy, Top, TopOptions, TopRow, top, top_by};
pub use wait_times::{WaitTimes, short_time, wait_times};

use crate::model::{Profile, TimeRange};

/// Writes a profile as [`View::Waits`].
///
/// # Errors
/// As [`render_view`].
pub fn render(
    profile: &Profile,
    about: &About,
    format: Format,
    out: &mut dyn Write,
) -> Result<(), RenderError> {
    render_view(profile, about, format, View::Waits, out)
}

/// What is on top of a blocked stack.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum View {
    /// What was waited for.
    #[default]
    Waits,
    /// That, and then the stack of who ended the wait, upside down: a wake-up graph.
    Wakers,
}

/// Writes a profile.
///
/// # Errors
/// [`RenderError::Empty`] where there is nothing to show, [`RenderError::NoWakers`] where wakers are
/// asked for and none is known: nothing is written then. [`RenderError::Write`] where `out` fails.
pub fn render_view(
    profile: &Profile,
    about: &About,
    format: Format,
    view: View,
    out: &mut dyn Write,
) -> Result<(), RenderError> {
    // Rows shorter than a microsecond can leave a total of nothing although there are rows.
    if profile.total_shown() == 0 {
        return Err(RenderError::Empty);
    }
    if view == View::Wakers && !profile.has_wakers() {
        return Err(RenderError::NoWakers);
    }
    match format {
        Format::Folded => folded::write(profile, view, out)?,
        Format::Svg => flamegraph::write(profile, about, view, out)?,
        Format::Pprof => pprof::write(profile, about, view, out)?,
        Format::Speedscope => speedscope::write(profile, about, view, out)?,
        Format::Firefox => firefox::write(profile, about, view, out)?,
        Format::Json => json::write(profile, about, out)?,
    }
    Ok(())
}

/// What a profile is about, beside its rows.
#[derive(Clone, Debug)]
pub struct About {
    /// What is shown, in a few words.
    pub title: String,
    /// Which time was asked for.
    pub range: TimeRange,
    /// How much of that time has data.
    pub covered: Duration,
    /// The command line that makes the same picture again.
    pub command: Option<String>,
}

/// A way to write a profile.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Format {
    /// Lines of `comm;frame;frame;... VALUE`, root first.
    Folded,
    /// An interactive flame graph.
    Svg,
    /// gzip-compressed `perftools.profiles.Profile`.
    Pprof,
    /// speedscope's file format.
    Speedscope,
    /// Firefox Profiler's processed profile format.
    Firefox,
    /// The whole profile as one JSON document.
    Json,
}

impl Format {
    /// All formats, with the name and the file extension of each. An extension that ends in
    /// another one comes before it.
    const TABLE: [(Self, &'static str, &'static str); 6] = [
        (Self::Svg, "svg", ".svg"),
        (Self::Folded, "folded", ".folded"),
        (Self::Pprof, "pprof", ".pb.gz"),
        (Self::Speedscope, "speedscope", ".speedscope.json"),
        (Self::Firefox, "firefox", ".firefox.json"),
        (Self::Json, "json", ".json"),
    ];

    /// The format that a file's extension asks for.
    ///
    /// # Errors
    /// When the extension is none of ours.
    pub fn from_path(path: &Path) -> Result<Self, UnknownExtension> {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        Self::TABLE
            .iter()
            .find(|(_, _, extension)| name.ends_with(extension))
            .map(|&(format, ..)| format)
            .ok_or_else(|| UnknownExtension { path: path.to_owned() })
    }

    /// Whether the output is UTF-8 text.
    #[must_use]
    pub fn is_text(self) -> bool {
        self != Self::Pprof
    }
}

impl fmt::Display for Format {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = Self::TABLE.iter().find(|(format, ..)| format == self).map(|&(_, name, _)| name);
        f.pad(name.unwrap_or_default())
    }
}

impl FromStr for Format {
    type Err = UnknownFormat;

    fn from_str(text: &str) -> Result<Self, UnknownFormat> {
        Self::TABLE
            .iter()
            .find(|(_, name, _)| *name == text)
            .map(|&(format, ..)| format)
            .ok_or_else(|| UnknownFormat { name: text.to_owned() })
    }
}

/// Why a profile could not be written.
#[derive(Debug, thiserror::Error)]
pub enum RenderError {
    /// There is nothing to show.
    #[error("no data: the profile is empty")]
    Empty,
    /// Nobody knows who ended the waits.
    #[error("no wakers were recorded: they are part of captures and recordings started with --wakers")]
    NoWakers,
    /// The output failed.
    #[error("cannot write the profile: {0}")]
    Write(#[from] io::Error),
}

/// A file name whose extension names no format.
#[derive(Debug, thiserror::Error)]
#[error("{path:?}: unknown extension: use .svg, .folded, .pb.gz, .speedscope.json, .firefox.json or .json")]
pub struct UnknownExtension {
    /// The file name.
    pub path: PathBuf,
}

/// A name that is no format's.
#[derive(Debug, thiserror::Error)]
#[error("unknown format {name:?}: use svg, folded, pprof, speedscope, firefox or json")]
pub struct UnknownFormat {
    /// The name.
    pub name: String,
}

#[cfg(test)]
mod tests;
