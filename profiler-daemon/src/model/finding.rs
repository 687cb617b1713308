//! What `check` found out about a host: each finding has a cause and a fix.

use std::fmt;

/// One finding about the host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// Stable name, for example `bpf-capability`.
    pub check: &'static str,
    /// How bad it is.
    pub severity: Severity,
    /// What was found and what follows from it.
    pub message: String,
    /// What to do; empty where nothing needs doing.
    pub fix: String,
}

/// How bad a finding is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Severity {
    /// As it should be.
    Ok,
    /// Something works less well.
    Warning,
    /// The profiler cannot run.
    Error,
}

impl Severity {
    /// The word shown to people.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Warning => "warning",
            Self::Error => "error",
        }
    }
}

impl fmt::Display for Severity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}
