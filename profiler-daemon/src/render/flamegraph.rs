//! The flame graph: an SVG by inferno that zooms and searches in a browser.

use std::io::{self, BufWriter, Write};

use inferno::flamegraph::color::{BackgroundColor, Color, PaletteMap};
use inferno::flamegraph::{self, Options, TextTruncateDirection};

use super::stacks::Stacks;
use super::summary::short_line;
use super::{About, View, name, summary_line};
use crate::model::{Profile, ProfileKind};

/// Longest subtitle, in characters: what fits the 1200 pixels that viewers without JavaScript show.
const SUBTITLE_CHARS: usize = 160;

/// Narrowest frame that is drawn, in percent of the whole: an eighth of a pixel, and at most
/// 10 000 frames a level.
const MIN_WIDTH_PERCENT: f64 = 0.01;

/// The colour of what says nothing about the code.
const GREY: Color = Color { r: 190, g: 190, b: 190 };

/// Writes the flame graph of the lines that [`super::folded`] writes.
pub(super) fn write(profile: &Profile, about: &About, view: View, out: &mut dyn Write) -> io::Result<()> {
    let stacks = Stacks::of_view(profile, view);
    let summary = summary_line(profile, about);

    let mut palette = PaletteMap::default();
    // The nameless box of all stacks; inferno would roll dice for what is not in the map.
    palette.insert("", GREY);
    for text in stacks.texts() {
        palette.insert(text, color(text));
    }
    let mut options = Options::default();
    options.title = name::clean(&about.title).into_owned();
    options.subtitle = Some(shortened(&short_line(profile, about)));
    options.bgcolors = Some(match profile.kind() {
        ProfileKind::OnCpu => BackgroundColor::Yellow,
        ProfileKind::OffCpu => BackgroundColor::Blue,
        ProfileKind::Wall => BackgroundColor::Grey,
    });
    options.palette_map = Some(&mut palette);
    options.name_type = "Frame:".to_owned();
    options.count_name = match profile.kind() {
        ProfileKind::OnCpu => "samples",
        ProfileKind::OffCpu | ProfileKind::Wall => "µs",
    }
    .to_owned();
    options.min_width = MIN_WIDTH_PERCENT;
    options.text_truncate_direction = TextTruncateDirection::Right;
    options.notes = format!("frames below {MIN_WIDTH_PERCENT} % of the whole are not drawn");
    // inferno sorts lines as text, which would draw some frames twice (see `Stacks`). Only as a
    // "flame chart" it takes them as they come, and draws the last one first.
    options.flame_chart = true;
    let mut lines = String::new();
    for line in stacks.lines().rev() {
        lines.push_str(&line.to_string());
        lines.push('\n');
    }

    let mut description = summary;
    if let Some(command) = &about.command {
        description = format!("{description}\n{}", name::clean(command));
    }
    let mut out = Describing { out: BufWriter::new(out), description: Some(description) };
    flamegraph::from_lines(&mut options, lines.lines(), &mut out)?;
    out.flush()
}

/// What does not fit becomes dots; the whole is in the description.
fn shortened(text: &str) -> String {
    match text.char_indices().nth(SUBTITLE_CHARS) {
        Some((cut, _)) => format!("{}...", text.get(..cut).unwrap_or(text)),
        None => text.to_owned(),
    }
}

/// The colour of a frame: the hue says what kind of code it is, the shade is the name's own.
/// inferno's palettes know the annotations too, but take C functions such as `PyEval_Vector` for
/// Java, that is for JIT code.
fn color(text: &str) -> Color {
    // FNV-1a, so that a name looks the same in each picture.
    let hash = text.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    });
    let shade = (hash >> 32) as u8 % 56;
    let (r, g, b) = if text.ends_with("_[k]") {
        (190 + shade, 90 + shade, 0)
    } else if text.ends_with("_[i]") {
        (50 + shade, 165 + shade, 165 + shade)
    } else if text.ends_with("_[w]") {
        // Whose stack is upside down: paler than code that stands on its feet.
        (175 + shade, 205 + shade / 2, 195 + shade / 2)
    } else if text.ends_with("_[j]") {
        (50 + shade, 200 + shade, 50 + shade)
    } else if name::is_marker(text) {
        return marker_color(text);
    } else if text.starts_with('[') {
        // No name: `[binary+0xoffset]`.
        return GREY;
    } else if text.contains("::") {
        (175 + shade, 175 + shade, 50 + shade)
    } else {
        (200 + shade, 50 + shade, 50 + shade)
    };
    Color { r, g, b }
}

/// The colour of a pseudo frame: fixed, so that a reason is known by it in every picture.
fn marker_color(text: &str) -> Color {
    let (r, g, b) = match text {
        name::WOKEN_BY => (250, 235, 140),
        "[run-queue]" => (240, 120, 200),
        "[preempted]" => (200, 80, 160),
        "[blocked: io]" => (70, 90, 190),
        "[blocked: lock]" => (150, 90, 220),
        "[blocked: network]" => (60, 150, 230),
        "[blocked: pipe]" => (110, 180, 235),
        "[blocked: poll]" => (150, 200, 235),
        "[blocked: sleep]" => (170, 185, 215),
        "[blocked: page fault]" => (100, 60, 150),
        "[blocked: stopped]" => (140, 140, 160),
        "[blocked: uninterruptible]" => (90, 110, 210),
        _ => (130, 145, 225),
    };
    Color { r, g, b }
}

/// Puts a `<desc>` element behind the `<svg ...>` tag. inferno only has a comment for notes, and
/// a comment cannot hold `--`, that is no command line.
struct Describing<'a> {
    out: BufWriter<&'a mut dyn Write>,
    description: Option<String>,
}

impl Write for Describing<'_> {
    /// Relies on the XML writer to pass each piece of markup on by itself: `<!--` begins the
    /// comment that follows the opening tag.
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if bytes.starts_with(b"<!--")
            && let Some(description) = self.description.take()
        {
            write!(self.out, "<desc>{}</desc>", escaped(&description))?;
        }
        self.out.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_hue_says_what_kind_of_code_it_is() {
        let dominant = |text| {
            let Color { r, g, b } = color(text);
            (r > g, g > b, g == b)
        };
        assert_eq!(dominant("do_idle_[k]"), (true, true, false), "orange");
        assert_eq!(dominant("core::cmp::max_[i]"), (false, false, true), "aqua");
        assert_eq!(dominant("fib_[j]"), (false, true, false), "green");
        assert_eq!(dominant("PyEval_Vector"), (true, false, true), "red");
        assert_eq!(dominant("[blocked: io]"), (false, false, false), "blue");
        assert_eq!(dominant("[run-queue]"), (true, false, false), "pink");
        assert_eq!(color("[demo+0x1f]"), GREY);
    }

    #[test]
    fn a_long_subtitle_is_cut_between_characters() {
        let text = "µ".repeat(SUBTITLE_CHARS + 1);
        assert_eq!(shortened(&text), format!("{}...", "µ".repeat(SUBTITLE_CHARS)));
        assert_eq!(shortened("short"), "short");
    }
}
