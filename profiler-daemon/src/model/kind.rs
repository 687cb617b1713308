//! What a profile measures, and in which unit its values are shown.

use std::fmt;
use std::str::FromStr;

/// What a profile measures.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum ProfileKind {
    /// Time on a CPU, in samples.
    OnCpu,
    /// Time off the CPU: blocked, waiting in the run queue, preempted.
    OffCpu,
    /// Both in one picture and one unit; made by `record --wall`, never stored.
    Wall,
}

impl ProfileKind {
    /// The unit of the values that renderers write.
    #[must_use]
    pub fn unit(self) -> &'static str {
        match self {
            Self::OnCpu => "samples",
            Self::OffCpu | Self::Wall => "microseconds",
        }
    }

    /// The name used on the command line and in URLs.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::OnCpu => "on-cpu",
            Self::OffCpu => "off-cpu",
            Self::Wall => "wall",
        }
    }
}

impl fmt::Display for ProfileKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for ProfileKind {
    type Err = String;

    /// Accepts the kinds a daemon stores: `on-cpu` and `off-cpu`.
    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "on-cpu" => Ok(Self::OnCpu),
            "off-cpu" => Ok(Self::OffCpu),
            _ => Err(format!("unknown kind {text:?}: use on-cpu or off-cpu")),
        }
    }
}
