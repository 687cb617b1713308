//! Fits text into the columns of a terminal, counted as it shows them: wide characters take two.
//!
//! Where `columns` is `None` nobody looks at columns (a pipe, a file), and text stays whole.

use unicode_width::{UnicodeWidthChar as _, UnicodeWidthStr as _};

/// What stands for the rest of a text.
const REST: &str = "...";

/// Columns that a text takes.
pub(super) fn width(text: &str) -> usize {
    text.width()
}

/// The text, or its beginning and dots.
pub(super) fn cut(text: &str, columns: Option<usize>) -> String {
    let Some(columns) = columns.filter(|columns| width(text) > *columns) else { return text.to_owned() };
    let mut left = columns.saturating_sub(REST.len());
    let fits = |c: &char| {
        let fits = shown(*c) <= left;
        left = if fits { left - shown(*c) } else { 0 };
        fits
    };
    let kept: String = text.chars().take_while(fits).collect();
    kept + REST.get(..columns.min(REST.len())).unwrap_or_default()
}

/// The text behind a label, broken between words, and within those that are longer than a line. Its
/// later lines are indented so far.
pub(super) fn wrap(label: &str, text: &str, indent: usize, columns: Option<usize>) -> String {
    let Some(columns) = columns else { return format!("{label}{text}") };
    let new_line = format!("\n{:indent$}", "");
    let mut out = label.to_owned();
    let (mut used, mut first) = (width(label), true);
    for word in text.split(' ') {
        let space = usize::from(!first);
        if !first && used + space + width(word) > columns {
            out.push_str(&new_line);
            used = indent;
        } else if !first {
            out.push(' ');
            used += 1;
        }
        first = false;
        for c in word.chars() {
            // A line takes one character at least, however narrow it is.
            if used + shown(c) > columns && used > indent {
                out.push_str(&new_line);
                used = indent;
            }
            out.push(c);
            used += shown(c);
        }
    }
    out
}

fn shown(c: char) -> usize {
    c.width().unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn what_does_not_fit_becomes_dots() {
        assert_eq!(cut("short", Some(5)), "short");
        assert_eq!(cut("longer", Some(5)), "lo...");
        assert_eq!(cut("longer", None), "longer");
        assert_eq!(cut("漢字漢字", Some(6)), "漢...", "the next one would need two columns of the one left");
        assert_eq!(cut("longer", Some(2)), "..");
    }

    #[test]
    fn lines_break_between_words_and_within_long_ones() {
        assert_eq!(wrap("a: ", "one two three", 2, Some(10)), "a: one two\n  three");
        assert_eq!(wrap("", "x abcdefghijkl y", 1, Some(6)), "x\n abcde\n fghij\n kl y");
        assert_eq!(wrap("a: ", "one two three", 2, None), "a: one two three");
    }

    proptest! {
        #[test]
        fn no_line_is_wider_than_asked(text in "[a-c 漢\u{301}]{0,60}", columns in 8_usize..30) {
            for line in wrap("ab: ", &text, 4, Some(columns)).lines().chain([&*cut(&text, Some(columns))]) {
                prop_assert!(width(line) <= columns, "{line:?}");
            }
            let letters = |text: &str| text.chars().filter(|c| !c.is_whitespace()).collect::<String>();
            prop_assert_eq!(letters(&wrap("", &text, 4, Some(columns))), letters(&text), "nothing is lost");
        }
    }
}
