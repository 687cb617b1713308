//! The one place that writes to stdout and stderr: what a terminal gets, what a pipe gets.

use std::io::{self, IsTerminal as _, Write};

use crate::cli::Exit;

use super::{Failure, fit};

/// Columns of a table on a terminal.
const TERMINAL_COLUMNS: usize = 80;

/// Standard output. A reader that went away (`| head`) has enough: later writes do nothing.
#[derive(Debug)]
pub(super) struct Output {
    terminal: bool,
    closed: bool,
}

impl Output {
    pub(super) fn stdout() -> Self {
        Self { terminal: io::stdout().is_terminal(), closed: false }
    }

    /// Columns a table may have; `None`: as many as it needs.
    pub(super) fn columns(&self) -> Option<usize> {
        self.terminal.then_some(TERMINAL_COLUMNS)
    }

    pub(super) fn is_terminal(&self) -> bool {
        self.terminal
    }

    /// Whether nobody reads any more.
    pub(super) fn is_closed(&self) -> bool {
        self.closed
    }

    /// Writes text; for a terminal, without anything that would steer it.
    pub(super) fn text(&mut self, text: &str) -> Result<(), Failure> {
        if self.terminal { self.bytes(clean_text(text).as_bytes()) } else { self.bytes(text.as_bytes()) }
    }

    /// Writes bytes as they are.
    pub(super) fn bytes(&mut self, bytes: &[u8]) -> Result<(), Failure> {
        self.write_to(&mut io::stdout().lock(), bytes)
    }

    fn write_to(&mut self, stdout: &mut impl Write, bytes: &[u8]) -> Result<(), Failure> {
        if self.closed {
            return Ok(());
        }
        match stdout.write_all(bytes).and_then(|()| stdout.flush()) {
            Ok(()) => Ok(()),
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => {
                self.closed = true;
                Ok(())
            }
            Err(error) => Err(Failure::new(Exit::Failure, format!("cannot write to stdout: {error}"))),
        }
    }
}

/// Says a line to the person, on stderr. Nobody listening is no failure.
pub(super) fn say(line: &str) {
    let _ = writeln!(io::stderr().lock(), "{}", fit::wrap("", &clean(line), 2, stderr_columns()));
}

/// Says on stderr why a command failed.
pub fn complain(failure: &Failure, colored: bool) {
    let text = complaint(failure, stderr_columns());
    let text = if colored { text.replacen(ERROR, "\x1b[1;31merror:\x1b[0m", 1) } else { text };
    let _ = writeln!(io::stderr().lock(), "{text}");
}

/// What a complaint begins with.
const ERROR: &str = "error:";

/// The message, and what to do about it on lines of its own.
fn complaint(failure: &Failure, columns: Option<usize>) -> String {
    let text = format!("{ERROR} {failure}");
    let lines = text.lines().map(|line| {
        let indented = line.starts_with("  ");
        fit::wrap(if indented { "  " } else { "" }, line.trim_start_matches("  "), 2, columns)
    });
    lines.collect::<Vec<_>>().join("\n")
}

fn stderr_columns() -> Option<usize> {
    io::stderr().is_terminal().then_some(TERMINAL_COLUMNS)
}

/// A line on stderr that replaces itself; silent where stderr is not a terminal.
#[derive(Debug)]
pub(super) struct Progress {
    terminal: bool,
    shown: bool,
}

impl Progress {
    pub(super) fn new() -> Self {
        Self { terminal: io::stderr().is_terminal(), shown: false }
    }

    pub(super) fn show(&mut self, line: &str) {
        if self.terminal {
            // ECMA-48: EL clears the rest of an earlier, longer line.
            // A line that wraps would leave its first part behind.
            let line = fit::cut(&clean(line), Some(TERMINAL_COLUMNS - 1));
            let _ = write!(io::stderr().lock(), "\r{line}\x1b[K");
            self.shown = true;
        }
    }

    pub(super) fn clear(&mut self) {
        if self.shown {
            let _ = write!(io::stderr().lock(), "\r\x1b[K");
            self.shown = false;
        }
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        self.clear();
    }
}

/// One line: control characters and invisible direction marks become U+FFFD.
pub(super) fn clean(text: &str) -> String {
    text.chars().map(|c| if steers(c) { char::REPLACEMENT_CHARACTER } else { c }).collect()
}

/// As [`clean`], but lines and tabs stay.
fn clean_text(text: &str) -> String {
    let keep = |c| !steers(c) || c == '\n' || c == '\t';
    text.chars().map(|c| if keep(c) { c } else { char::REPLACEMENT_CHARACTER }).collect()
}

/// Whether a character would act on a terminal or reorder the line instead of being seen.
fn steers(c: char) -> bool {
    c.is_control()
        || matches!(c, '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}')
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Closed;

    impl Write for Closed {
        fn write(&mut self, _: &[u8]) -> io::Result<usize> {
            Err(io::ErrorKind::BrokenPipe.into())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn names_cannot_steer_a_terminal() {
        assert_eq!(clean("a\x1b[2Jb\nc\u{9b}d\u{202e}e"), "a\u{fffd}[2Jb\u{fffd}c\u{fffd}d\u{fffd}e");
        assert_eq!(clean_text("a\tb\n\x07"), "a\tb\n\u{fffd}");
        assert_eq!(clean("größe →"), "größe →");
    }

    #[test]
    fn a_reader_that_left_is_no_failure() {
        let mut output = Output { terminal: false, closed: false };
        assert_eq!(output.write_to(&mut Closed, b"x"), Ok(()));
        assert!(output.is_closed());
        let mut later = Vec::new();
        assert_eq!(output.write_to(&mut later, b"x"), Ok(()));
        assert!(later.is_empty());
    }

    #[test]
    fn a_complaint_fits_the_terminal() {
        let failure = Failure::new(Exit::Failure, "frame ".repeat(30)).hint("word ".repeat(30));
        let text = complaint(&failure, Some(TERMINAL_COLUMNS));
        assert!(text.lines().all(|line| fit::width(line) <= TERMINAL_COLUMNS), "{text}");
        assert!(text.starts_with("error: frame") && text.contains("\n  word"), "{text}");
        assert_eq!(complaint(&failure, None), format!("error: {failure}"));
    }

    #[test]
    fn a_full_disk_is_a_failure() {
        let mut output = Output { terminal: false, closed: false };
        let mut full: &mut [u8] = &mut [0; 1];
        let failure = output.write_to(&mut full, b"xy").expect_err("must fail");
        assert_eq!(failure.exit, Exit::Failure);
    }
}
