//! Aligned columns of text.

use super::output::clean;

/// How a column is aligned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Align {
    Left,
    Right,
}

/// A table whose last column is cut to fit `columns`, where that is given.
pub(super) fn table(header: &[(&str, Align)], rows: &[Vec<String>], columns: Option<usize>) -> String {
    let titles: Vec<String> = header.iter().map(|(title, _)| (*title).to_owned()).collect();
    let cleaned = rows.iter().map(|row| row.iter().map(|cell| clean(cell)).collect());
    let lines: Vec<Vec<String>> = std::iter::once(titles).chain(cleaned).collect();
    let width = |column: usize| {
        lines.iter().filter_map(|line| line.get(column)).map(|cell| cell.chars().count()).max().unwrap_or(0)
    };
    let widths: Vec<usize> = (0..header.len()).map(width).collect();

    let mut text = String::new();
    for line in &lines {
        let mut out = String::new();
        for ((cell, (_, align)), width) in line.iter().zip(header).zip(&widths) {
            if !out.is_empty() {
                out.push_str("  ");
            }
            match align {
                Align::Left => out.push_str(&format!("{cell:<width$}")),
                Align::Right => out.push_str(&format!("{cell:>width$}")),
            }
        }
        text.push_str(&cut(out.trim_end(), columns));
        text.push('\n');
    }
    text
}

/// Lines of `name  value`.
pub(super) fn facts(rows: &[(&str, String)]) -> String {
    let width = rows.iter().map(|(name, _)| name.len()).max().unwrap_or(0);
    rows.iter().map(|(name, value)| format!("{name:<width$}  {}\n", clean(value))).collect()
}

fn cut(line: &str, columns: Option<usize>) -> String {
    match columns {
        Some(columns) if line.chars().count() > columns => {
            let kept: String = line.chars().take(columns.saturating_sub(3)).collect();
            format!("{kept}...")
        }
        _ => line.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_align_and_the_last_is_cut() {
        let header = [("SELF", Align::Right), ("COMM", Align::Left), ("FRAME", Align::Left)];
        let rows = [
            vec!["5".to_owned(), "a\nb".to_owned(), "short".to_owned()],
            vec!["12345".to_owned(), "nginx".to_owned(), "a_long_name".to_owned()],
        ];
        assert_eq!(
            table(&header, &rows, Some(20)),
            " SELF  COMM   FRAME\n    5  a\u{fffd}b    short\n12345  nginx  a_l...\n"
        );
        assert!(table(&header, &rows, None).ends_with("a_long_name\n"));
    }

    #[test]
    fn facts_align() {
        assert_eq!(
            facts(&[("id", "x\x1b".to_owned()), ("state", "done".to_owned())]),
            "id     x\u{fffd}\nstate  done\n"
        );
    }
}
