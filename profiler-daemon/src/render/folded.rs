//! Folded stacks: one line a stack, `comm;frame;frame;... VALUE`, root first.

use std::io::{self, Write};

use super::View;
use super::stacks::Stacks;
use crate::model::Profile;

/// Writes the lines; their values add up to [`Profile::total_shown`].
pub(super) fn write(profile: &Profile, view: View, out: &mut dyn Write) -> io::Result<()> {
    // One write a line, whatever `out` is: formatting writes every frame apart.
    let mut text = String::new();
    for line in Stacks::of_view(profile, view).lines() {
        text.clear();
        text.push_str(&line.to_string());
        text.push('\n');
        out.write_all(text.as_bytes())?;
    }
    Ok(())
}
