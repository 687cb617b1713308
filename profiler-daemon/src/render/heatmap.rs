//! The heat map: seconds from left to right, fractions of a second from bottom to top.
//!
//! As JSON:
//!
//! ```text
//! {
//!   "kind": "on-cpu", "unit": "samples",
//!   "from": "2026-01-31T14:05:00Z", "to": "2026-01-31T14:07:00Z",
//!   "cell_ms": 20, "rows": 50,    // cells of a second
//!   "total": 1234, "max": 17,     // of all cells, and of the hottest
//!   "columns": [[0, 3, ...]],     // by second, then by fraction of it, from its beginning
//!   "coarse": [{ "from": "...", "to": "..." }],  // kept by the minute or coarser: cells are empty
//!   "gaps": [{ "from": "...", "to": "..." }]     // nothing was recorded
//! }
//! ```

use std::io::{self, BufWriter, Write};
use std::path::Path;
use std::str::FromStr;
use std::time::{Duration, SystemTime};

use serde_json::{Value, json};

use super::{About, RenderError, UnknownFormat, name};
use crate::model::{ProfileKind, TimeRange};

/// Ways to write a heat map.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HeatmapFormat {
    /// A picture.
    Svg,
    /// The document described above.
    Json,
}

/// Activity by cells; the range that it is about is a whole number of seconds.
#[derive(Clone, Debug)]
pub struct Cells {
    /// What was measured.
    pub kind: ProfileKind,
    /// Cells a second.
    pub rows: u32,
    /// Value of each cell in [`ProfileKind::unit`], in the order of time.
    pub values: Vec<u64>,
    /// Parts that are only stored by the minute or coarser.
    pub coarse: Vec<TimeRange>,
    /// Parts without data.
    pub gaps: Vec<TimeRange>,
}

/// Size of the picture beside its cells.
const LEFT: u64 = 60;
const RIGHT: u64 = 20;
const TOP: u64 = 62;
const BOTTOM: u64 = 82;
/// Widest that the cells together are made, and the bounds of one.
const WIDTH: u64 = 1200;
const CELL: (u64, u64) = (2, 14);
/// Height of all cells of a second.
const HEIGHT: u64 = 400;
/// Steps of the colour scale.
const STEPS: u64 = 8;

/// Writes a heat map.
///
/// # Errors
/// [`RenderError::Empty`] where all cells are; [`RenderError::Write`] where `out` fails.
pub fn heatmap(
    cells: &Cells,
    about: &About,
    format: HeatmapFormat,
    out: &mut dyn Write,
) -> Result<(), RenderError> {
    if cells.values.iter().all(|&value| value == 0) {
        return Err(RenderError::Empty);
    }
    match format {
        HeatmapFormat::Svg => svg(cells, about, out)?,
        HeatmapFormat::Json => json(cells, about, out)?,
    }
    Ok(())
}

impl Cells {
    fn rows(&self) -> usize {
        self.rows.max(1) as usize
    }

    fn cell(&self) -> Duration {
        Duration::from_secs(1) / self.rows.max(1)
    }

    fn max(&self) -> u64 {
        self.values.iter().copied().max().unwrap_or_default()
    }

    fn unit(&self) -> &'static str {
        if self.kind == ProfileKind::OnCpu { "samples" } else { "µs" }
    }
}

fn json(cells: &Cells, about: &About, out: &mut dyn Write) -> io::Result<()> {
    let ranges = |ranges: &[TimeRange]| -> Vec<Value> {
        ranges.iter().map(|range| json!({"from": rfc3339(range.from), "to": rfc3339(range.to)})).collect()
    };
    let document = json!({
        "kind": cells.kind.name(),
        "unit": cells.kind.unit(),
        "from": rfc3339(about.range.from),
        "to": rfc3339(about.range.to),
        "cell_ms": cells.cell().as_millis() as u64,
        "rows": cells.rows,
        "total": cells.values.iter().sum::<u64>(),
        "max": cells.max(),
        "columns": cells.values.chunks(cells.rows()).collect::<Vec<_>>(),
        "coarse": ranges(&cells.coarse),
        "gaps": ranges(&cells.gaps),
    });
    let mut out = BufWriter::new(out);
    serde_json::to_writer(&mut out, &document)?;
    out.write_all(b"\n")?;
    out.flush()
}

fn svg(cells: &Cells, about: &About, out: &mut dyn Write) -> io::Result<()> {
    let mut out = BufWriter::new(out);
    let columns = cells.values.len().div_ceil(cells.rows()) as u64;
    let cell_width = (WIDTH / columns.max(1)).clamp(CELL.0, CELL.1);
    let width = (columns * cell_width).max(700);
    let bottom = TOP + HEIGHT;
    let (whole_width, whole_height) = (LEFT + width + RIGHT, bottom + BOTTOM);
    writeln!(
        out,
        r#"<svg version="1.1" xmlns="http://www.w3.org/2000/svg" width="{whole_width}" height="{whole_height}" viewBox="0 0 {whole_width} {whole_height}" font-family="Verdana, sans-serif" font-size="12">"#
    )?;
    writeln!(out, "<title>{}</title>", escaped(&about.title))?;
    writeln!(out, r#"<rect width="100%" height="100%" fill="white"/>"#)?;
    writeln!(out, r#"<text x="{LEFT}" y="22" font-size="16">{}</text>"#, escaped(&about.title))?;
    let about_cells = format!(
        "A column is a second, a cell {} ms of it. Those of a burst: flamegraph --from TIME --until TIME",
        cells.cell().as_millis(),
    );
    writeln!(out, r##"<text x="{LEFT}" y="42" fill="#555">{}</text>"##, escaped(&about_cells))?;
    let place = Place { from: about.range.from, cell_width, bottom, seconds: columns };
    writeln!(
        out,
        r##"<rect x="{LEFT}" y="{TOP}" width="{}" height="{HEIGHT}" fill="#f4f4f4"/>"##,
        columns * cell_width
    )?;
    place.blank(&mut out, &cells.gaps, "#d8d8d8", "no data")?;
    place.blank(&mut out, &cells.coarse, "#c8d4e0", "kept by the minute or coarser")?;
    let max = cells.max();
    let rows = cells.rows() as u64;
    // Each border is rounded by itself, so that cells meet.
    let y_of = |row: u64| bottom - HEIGHT * row / rows;
    for (index, &value) in (0_u64..).zip(&cells.values).filter(|(_, value)| **value > 0) {
        let (column, row) = (index / rows, index % rows);
        let from = about.range.from + cells.cell() * u32::try_from(index).unwrap_or(u32::MAX);
        writeln!(
            out,
            r#"<rect x="{}" y="{}" width="{cell_width}" height="{}" fill="{}"><title>{} to +{} ms: {value} {}</title></rect>"#,
            LEFT + column * cell_width,
            y_of(row + 1),
            y_of(row) - y_of(row + 1),
            color(value, max),
            rfc3339(from),
            cells.cell().as_millis(),
            cells.unit(),
        )?;
    }
    axes(&mut out, &place)?;
    legend(&mut out, cells, bottom + 46)?;
    writeln!(out, "</svg>")?;
    out.flush()
}

/// Where seconds are drawn.
struct Place {
    from: SystemTime,
    cell_width: u64,
    bottom: u64,
    seconds: u64,
}

impl Place {
    /// Paints stretches that have no cells.
    fn blank(&self, out: &mut dyn Write, ranges: &[TimeRange], color: &str, why: &str) -> io::Result<()> {
        for range in ranges {
            let at = |time: SystemTime| {
                let seconds = time.duration_since(self.from).unwrap_or_default().as_secs_f64();
                seconds.min(self.seconds as f64) * self.cell_width as f64
            };
            let (from, to) = (at(range.from), at(range.to));
            writeln!(
                out,
                r#"<rect x="{:.1}" y="{TOP}" width="{:.1}" height="{HEIGHT}" fill="{color}"><title>{why}: {} to {}</title></rect>"#,
                LEFT as f64 + from,
                to - from,
                rfc3339(range.from),
                rfc3339(range.to),
            )?;
        }
        Ok(())
    }
}

/// Fractions of a second at the left, clock times below.
fn axes(out: &mut dyn Write, place: &Place) -> io::Result<()> {
    for quarter in 0..=4_u64 {
        let y = place.bottom - HEIGHT * quarter / 4;
        writeln!(
            out,
            r#"<text x="{}" y="{}" text-anchor="end">{} ms</text>"#,
            LEFT - 6,
            y + 4,
            quarter * 250
        )?;
    }
    // A label needs about 70 pixels.
    let steps = [1, 2, 5, 10, 15, 30, 60, 120, 300, 600];
    let step = steps.into_iter().find(|step| step * place.cell_width >= 70).unwrap_or(900);
    let first = place.from.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_secs();
    for second in (0..place.seconds).filter(|second| (first + second).is_multiple_of(step)) {
        let x = LEFT + second * place.cell_width;
        let clock = rfc3339(place.from + Duration::from_secs(second));
        let clock = clock.get(11..19).unwrap_or_default();
        writeln!(
            out,
            r##"<line x1="{x}" x2="{x}" y1="{}" y2="{}" stroke="#555"/>"##,
            place.bottom,
            place.bottom + 5
        )?;
        writeln!(out, r#"<text x="{x}" y="{}">{clock}</text>"#, place.bottom + 18)?;
    }
    writeln!(
        out,
        r##"<text x="{}" y="{}" text-anchor="end" fill="#555">UTC</text>"##,
        LEFT - 6,
        place.bottom + 18
    )
}

fn legend(out: &mut dyn Write, cells: &Cells, y: u64) -> io::Result<()> {
    let max = cells.max();
    writeln!(out, r#"<text x="{LEFT}" y="{}">{} in a cell:</text>"#, y + 11, cells.unit())?;
    // As many steps as there are values.
    let steps = STEPS.min(max);
    for step in 1..=steps {
        let value = max * step / steps;
        let x = LEFT + 110 + (step - 1) * 46;
        writeln!(out, r#"<rect x="{x}" y="{y}" width="46" height="14" fill="{}"/>"#, color(value, max))?;
        writeln!(out, r#"<text x="{x}" y="{}" font-size="9">{value}</text>"#, y + 25)?;
    }
    Ok(())
}

/// From yellow to dark red, darker throughout: readable without colours, too.
fn color(value: u64, max: u64) -> String {
    let part = value as f64 / max.max(1) as f64;
    let mix = |from: f64, to: f64, at: f64| (from + (to - from) * at).round() as u8;
    let (r, g, b) = if part < 0.5 {
        let at = part * 2.0;
        (mix(255.0, 252.0, at), mix(237.0, 141.0, at), mix(160.0, 60.0, at))
    } else {
        let at = part * 2.0 - 1.0;
        (mix(252.0, 128.0, at), mix(141.0, 0.0, at), mix(60.0, 38.0, at))
    };
    format!("#{r:02x}{g:02x}{b:02x}")
}

fn rfc3339(at: SystemTime) -> String {
    match jiff::Timestamp::try_from(at) {
        Ok(at) if at.subsec_nanosecond() == 0 => at.strftime("%Y-%m-%dT%H:%M:%SZ").to_string(),
        Ok(at) => at.strftime("%Y-%m-%dT%H:%M:%S.%3fZ").to_string(),
        Err(_) => "?".to_owned(),
    }
}

fn escaped(text: &str) -> String {
    let text = name::clean(text);
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

impl HeatmapFormat {
    /// The format that a file's extension asks for.
    ///
    /// # Errors
    /// The extension is neither .svg nor .json.
    pub fn from_path(path: &Path) -> Result<Self, String> {
        match path.extension().and_then(|extension| extension.to_str()) {
            Some("svg") => Ok(Self::Svg),
            Some("json") => Ok(Self::Json),
            _ => Err("unknown extension: use .svg or .json".to_owned()),
        }
    }
}

impl FromStr for HeatmapFormat {
    type Err = UnknownFormat;

    fn from_str(text: &str) -> Result<Self, UnknownFormat> {
        match text {
            "svg" => Ok(Self::Svg),
            "json" => Ok(Self::Json),
            _ => Err(UnknownFormat { name: text.to_owned() }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn drawn(format: HeatmapFormat) -> String {
        let from = SystemTime::UNIX_EPOCH + Duration::from_secs(1_767_225_600);
        let at = |seconds| from + Duration::from_secs(seconds);
        let mut values = vec![0; 8];
        (values[1], values[6]) = (3, 9);
        let cells = Cells {
            kind: ProfileKind::OnCpu,
            rows: 2,
            values,
            coarse: vec![TimeRange { from: at(1), to: at(2) }],
            gaps: vec![TimeRange { from: at(2), to: at(3) }],
        };
        let range = TimeRange { from, to: at(4) };
        let about = About { title: "a <b> & \"c\"".into(), range, covered: range.length(), command: None };
        let mut out = Vec::new();
        heatmap(&cells, &about, format, &mut out).expect("written");
        String::from_utf8(out).expect("text")
    }

    #[test]
    fn json_is_as_documented() {
        let golden = concat!(
            r#"{"cell_ms":500,"coarse":[{"from":"2026-01-01T00:00:01Z","to":"2026-01-01T00:00:02Z"}],"#,
            r#""columns":[[0,3],[0,0],[0,0],[9,0]],"from":"2026-01-01T00:00:00Z","#,
            r#""gaps":[{"from":"2026-01-01T00:00:02Z","to":"2026-01-01T00:00:03Z"}],"kind":"on-cpu","#,
            r#""max":9,"rows":2,"to":"2026-01-01T00:00:04Z","total":12,"unit":"samples"}"#,
            "\n"
        );
        assert_eq!(drawn(HeatmapFormat::Json), golden);
    }

    #[test]
    fn the_picture_has_a_titled_cell_for_each_value_and_nothing_unescaped() {
        let svg = drawn(HeatmapFormat::Svg);
        assert!(svg.contains("<title>2026-01-01T00:00:00.500Z to +500 ms: 3 samples</title>"), "{svg}");
        assert!(svg.contains("<title>2026-01-01T00:00:03Z to +500 ms: 9 samples</title>"), "{svg}");
        assert_eq!(svg.matches(" samples</title>").count(), 2, "{svg}");
        assert!(svg.contains("no data: 2026-01-01T00:00:02Z to 2026-01-01T00:00:03Z"), "{svg}");
        assert!(svg.contains("kept by the minute or coarser: 2026-01-01T00:00:01Z"), "{svg}");
        assert!(svg.contains("a &lt;b&gt; &amp; &quot;c&quot;") && !svg.contains("<b>"), "{svg}");
        // The second half of a second is above the first.
        assert!(svg.contains(r##"<rect x="60" y="62" width="14" height="200" fill="#fd"##), "{svg}");
    }
}
