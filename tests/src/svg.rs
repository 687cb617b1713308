//! Reads the frames of a flame graph as the browser shows them: the title of each box.

use anyhow::{Context as _, Result, ensure};

/// A flame graph's boxes.
#[derive(Clone, Debug)]
pub struct Svg {
    /// All boxes but the one for "all".
    pub frames: Vec<SvgFrame>,
    /// The value of the box for "all".
    pub total: u64,
}

/// One box.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SvgFrame {
    /// The frame's name.
    pub name: String,
    /// Its value.
    pub value: u64,
    /// Vertical position; the larger, the nearer to the root.
    pub y: u64,
}

impl Svg {
    /// Reads what inferno writes: `<g><title>NAME (VALUE UNIT, SHARE%)</title><rect .../>...</g>`.
    ///
    /// # Errors
    /// When it is no complete SVG document, or a title is not of that form.
    pub fn parse(text: &str) -> Result<Self> {
        let (begun, ended) = (text.matches("<svg ").count(), text.matches("</svg>").count());
        ensure!(begun > 0 && begun == ended, "not a whole SVG document: {begun} <svg>, {ended} </svg>");
        let (_, boxes) = text.split_once("id=\"frames\"").context("no element with the id `frames`")?;
        let mut frames = Vec::new();
        for part in boxes.split("<title>").skip(1) {
            let (title, rest) = part.split_once("</title>").context("a title without end")?;
            let (name, value) = title_parts(&unescape(title)).with_context(|| format!("title {title:?}"))?;
            let y = attribute(rest, "y").and_then(|y| y.parse().ok()).context("a box without y")?;
            frames.push(SvgFrame { name, value, y });
        }
        let all = frames.iter().position(|frame| frame.name == "all").context("no box for all")?;
        let total = frames.remove(all).value;
        Ok(Self { frames, total })
    }

    /// The boxes that stand directly on the one for "all".
    #[must_use]
    pub fn roots(&self) -> Vec<&SvgFrame> {
        let bottom = self.frames.iter().map(|frame| frame.y).max();
        self.frames.iter().filter(|frame| Some(frame.y) == bottom).collect()
    }

    /// Sum over the boxes of this name.
    #[must_use]
    pub fn value_of(&self, name: &str) -> u64 {
        self.frames.iter().filter(|frame| frame.name == name).map(|frame| frame.value).sum()
    }
}

/// `main (1,234 samples, 12.5%)` -> (`main`, 1234). The name itself may hold anything.
fn title_parts(title: &str) -> Result<(String, u64)> {
    let (name, rest) = title.rsplit_once(" (").context("no value in brackets")?;
    let value = rest.split(' ').next().unwrap_or_default().replace(',', "");
    Ok((name.to_owned(), value.parse().context("the value is not a whole number")?))
}

fn attribute<'a>(text: &'a str, name: &str) -> Option<&'a str> {
    let (_, rest) = text.split_once(&format!(" {name}=\""))?;
    rest.split_once('"').map(|(value, _)| value)
}

fn unescape(text: &str) -> String {
    let pairs =
        [("&lt;", "<"), ("&gt;", ">"), ("&quot;", "\""), ("&apos;", "'"), ("&#39;", "'"), ("&amp;", "&")];
    pairs.iter().fold(text.to_owned(), |text, (from, to)| text.replace(from, to))
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = r#"<?xml version="1.0"?><svg version="1.1"><title>not a box (x)</title><svg id="frames" x="10">
<g><title>all (1,240 samples, 100%)</title><rect x="0%" y="85" width="100%"/></g>
<g><title>a&lt;b&gt; (c) (1,234 samples, 99.5%)</title><rect x="0%" y="69" width="9%"/></g>
<g><title>f (6 samples, 0.5%)</title><rect x="0%" y="53" width="9%"/></g></svg></svg>"#;

    #[test]
    fn boxes_and_totals() -> Result<()> {
        let svg = Svg::parse(TEXT)?;
        assert_eq!(svg.total, 1240);
        assert_eq!(svg.value_of("f"), 6);
        let roots: Vec<_> = svg.roots().iter().map(|frame| (&*frame.name, frame.value)).collect();
        assert_eq!(roots, [("a<b> (c)", 1234)]);
        Ok(())
    }

    #[test]
    fn half_a_document_is_refused() {
        assert!(Svg::parse(&TEXT[..TEXT.len() - 6]).is_err());
        assert!(Svg::parse("").is_err());
    }
}
