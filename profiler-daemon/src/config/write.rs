//! A configuration as TOML text, with or without comments.

use super::Config;
use super::keys::KEYS;

/// Whether each key is preceded by what it means.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Comments {
    Yes,
    No,
}

/// The configuration as TOML; keys without a value are left out, or commented out.
pub(super) fn toml(config: &Config, comments: Comments) -> String {
    let mut text = String::new();
    if comments == Comments::Yes {
        text.push_str(
            "# Configuration of `profiler daemon`; every value here is the default.\n\
             # Environment variables (PROFILER_ON_CPU_FREQUENCY=49) and flags (--on-cpu-frequency 49)\n\
             # override this file. Unknown keys are errors.\n",
        );
    }
    let mut section = "";
    for key in KEYS {
        let (this_section, name) = key.name.split_once('.').unwrap_or(("", key.name));
        if this_section != section {
            section = this_section;
            text.push_str(&format!("\n[{section}]\n"));
        } else if comments == Comments::Yes {
            text.push('\n');
        }
        if comments == Comments::Yes {
            for line in key.help.lines() {
                text.push_str(&format!("# {line}\n"));
            }
        }
        match (key.show)(config) {
            Some(value) => text.push_str(&format!("{name} = {value}\n")),
            None if comments == Comments::Yes => text.push_str(&format!("# {name} = \"...\"\n")),
            None => {}
        }
    }
    text
}
