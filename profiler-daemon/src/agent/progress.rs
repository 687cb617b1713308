//! The progress line of a recording, on a terminal only, and what is said on stderr otherwise.

use std::io::{IsTerminal as _, Write as _};
use std::time::Duration;

/// Talks to the person on stderr.
pub(super) struct Talk {
    quiet: bool,
    terminal: bool,
    line_open: bool,
}

impl Talk {
    pub(super) fn new(quiet: bool) -> Self {
        Self { quiet, terminal: std::io::stderr().is_terminal(), line_open: false }
    }

    /// Replaces the progress line.
    pub(super) fn progress(&mut self, elapsed: Duration, length: Option<Duration>, records: u64) {
        if self.quiet || !self.terminal {
            return;
        }
        let of = length.map(|length| format!(" of {} s", length.as_secs())).unwrap_or_default();
        write(&format!("\r\x1b[Krecording {:.0} s{of}, {records} records", elapsed.as_secs_f64()));
        self.line_open = true;
    }

    /// A line of its own.
    pub(super) fn say(&mut self, text: &str) {
        if self.quiet {
            return;
        }
        let start = if std::mem::take(&mut self.line_open) { "\r\x1b[K" } else { "" };
        write(&format!("{start}profiler: {text}\n"));
    }
}

fn write(text: &str) {
    // Talk that cannot be delivered is no reason to lose a recording.
    let _ = std::io::stderr().write_all(text.as_bytes());
}
