//! The difference as folded lines with two columns: `comm;frame;... BASE WITH`.

use std::io::{self, Write};

use super::{Diff, write_lines};

/// Writes what `inferno-flamegraph` and `flamegraph.pl` draw as a differential flame graph. Lines
/// that the scaling left without any value are left out.
pub(super) fn write(diff: &Diff, out: &mut dyn Write) -> io::Result<()> {
    write_lines(diff.lines().filter(|line| !line.ends_with(" 0 0")), out)
}
