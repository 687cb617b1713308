//! What a key of the configuration is: its name in file, environment and flags, and how it is set and shown.

use super::Config;

/// One key.
pub(super) struct Key {
    /// Name in the file, its section before a dot.
    pub name: &'static str,
    /// Comment in the default file; lines of at most 96 characters.
    pub help: &'static str,
    /// What the file must hold.
    pub shape: Shape,
    /// Checks the texts and takes them over.
    pub set: fn(&mut Config, &[String]) -> Result<(), String>,
    /// The value as TOML; `None` where nothing is set.
    pub show: fn(&Config) -> Option<toml::Value>,
}

/// The TOML type of a key's value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Shape {
    Text,
    Integer,
    Boolean,
    /// A list of strings.
    List,
}

impl Shape {
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Text => "a string",
            Self::Integer => "a decimal integer",
            Self::Boolean => "true or false",
            Self::List => "a list of strings",
        }
    }

    /// Takes the text of a variable or flag apart: lists at commas.
    pub(super) fn split(self, text: &str) -> Vec<String> {
        match self {
            Self::List => {
                text.split(',').map(str::trim).filter(|item| !item.is_empty()).map(str::to_owned).collect()
            }
            _ => vec![text.to_owned()],
        }
    }
}

impl Key {
    /// The environment variable: `PROFILER_ON_CPU_FREQUENCY`.
    pub(super) fn variable(&self) -> String {
        format!("PROFILER_{}", self.name.replace('.', "_").to_uppercase())
    }

    /// The flag of `profiler daemon`: `--on-cpu-frequency`.
    pub(super) fn flag(&self) -> String {
        format!("--{}", self.name.replace(['.', '_'], "-"))
    }
}

/// The known name that a wrong one was probably meant to be.
pub(super) fn nearest(name: &str, known: impl Iterator<Item = String>) -> Option<String> {
    let similarity = |candidate: &String| {
        // A key written without its section is as good as a typing error.
        let bare = candidate.rsplit('.').next().unwrap_or(candidate);
        strsim::jaro_winkler(name, candidate).max(strsim::jaro_winkler(name, bare))
    };
    known
        .map(|candidate| (similarity(&candidate), candidate))
        .filter(|(similarity, _)| *similarity > 0.75)
        .max_by(|a, b| a.0.total_cmp(&b.0))
        .map(|(_, candidate)| candidate)
}
