//! Aligned columns of text.

use super::fit::{cut, width};
use super::output::clean;

/// Columns that the last column of a table keeps where others can be narrower instead.
const LAST: usize = 24;
/// Columns that any other column of texts keeps.
const NARROWEST: usize = 12;

/// How a column is aligned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Align {
    /// A text, which may be cut.
    Left,
    /// A number.
    Right,
}

/// A table whose texts are cut to fit `columns`, where that is given; numbers stay whole.
pub(super) fn table(header: &[(&str, Align)], rows: &[Vec<String>], columns: Option<usize>) -> String {
    let titles: Vec<String> = header.iter().map(|(title, _)| (*title).to_owned()).collect();
    let cleaned = rows.iter().map(|row| row.iter().map(|cell| clean(cell)).collect());
    let lines: Vec<Vec<String>> = std::iter::once(titles).chain(cleaned).collect();
    let widest = |column: usize| {
        lines.iter().filter_map(|line| line.get(column)).map(|cell| width(cell)).max().unwrap_or(0)
    };
    let mut widths: Vec<usize> = (0..header.len()).map(widest).collect();
    if let Some(columns) = columns {
        narrow(header, &mut widths, columns);
    }

    let mut text = String::new();
    for line in &lines {
        let mut out = String::new();
        for (column, ((cell, (_, align)), &room)) in line.iter().zip(header).zip(&widths).enumerate() {
            if column > 0 {
                out.push_str("  ");
            }
            // The last one is cut with its line: it takes what the others leave.
            let last = column + 1 == header.len();
            let cell = cut(cell, columns.filter(|_| !last && *align == Align::Left).map(|_| room));
            let space = " ".repeat(room.saturating_sub(width(&cell)));
            match align {
                Align::Left => out.extend([cell, space]),
                Align::Right => out.extend([space, cell]),
            }
        }
        text.push_str(&cut(out.trim_end(), columns));
        text.push('\n');
    }
    text
}

/// Takes room from the widest texts until the last column has some.
fn narrow(header: &[(&str, Align)], widths: &mut [usize], columns: usize) {
    let Some((last, others)) = widths.split_last_mut() else { return };
    let wanted = (*last).min(LAST);
    let needed = |others: &[usize]| others.iter().map(|width| width + 2).sum::<usize>() + wanted;
    while needed(others) > columns {
        let texts = others.iter_mut().zip(header).filter(|(_, (_, align))| *align == Align::Left);
        let widest = texts.map(|(width, _)| width).max_by_key(|width| **width);
        match widest.filter(|width| **width > NARROWEST) {
            Some(width) => *width -= 1,
            None => return,
        }
    }
}

/// Lines of `name  value`.
pub(super) fn facts(rows: &[(&str, String)]) -> String {
    let width = rows.iter().map(|(name, _)| name.len()).max().unwrap_or(0);
    rows.iter().map(|(name, value)| format!("{name:<width$}  {}\n", clean(value))).collect()
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
    fn a_long_text_leaves_room_for_the_last_column() {
        let header =
            [("VALUE", Align::Right), ("POD", Align::Left), ("IN", Align::Left), ("NAME", Align::Left)];
        let row = vec!["1".to_owned(), "p".repeat(99), "漢字".to_owned(), "n".repeat(99)];
        let text = table(&header, &[row], Some(60));
        let last = text.lines().last().expect("a row");
        assert_eq!(width(last), 60);
        assert_eq!(last, format!("    1  {}...  漢字  {}...", "p".repeat(18), "n".repeat(21)));
    }

    #[test]
    fn facts_align() {
        assert_eq!(
            facts(&[("id", "x\x1b".to_owned()), ("state", "done".to_owned())]),
            "id     x\u{fffd}\nstate  done\n"
        );
    }
}
