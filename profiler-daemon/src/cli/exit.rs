//! The exit codes, and the help text that lists them.

use std::process::ExitCode;

/// How the program ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exit {
    /// All went well.
    Ok,
    /// Something failed that is not one of the below.
    Failure,
    /// The command line, the environment or the configuration is wrong.
    Usage,
    /// No daemon answers.
    Unreachable,
    /// The question was right, but there is no data for it.
    NoData,
    /// Refused, or a precondition is missing: privileges, kernel features, limits.
    Refused,
}

impl Exit {
    /// The code.
    #[must_use]
    pub fn code(self) -> u8 {
        match self {
            Self::Ok => 0,
            Self::Failure => 1,
            Self::Usage => 2,
            Self::Unreachable => 3,
            Self::NoData => 4,
            Self::Refused => 5,
        }
    }
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        exit.code().into()
    }
}

/// The exit codes as a section of help; a macro, so that it joins with examples at compile time.
macro_rules! exit_codes {
    () => {
        "\
Exit codes:
  0  ok
  1  failure
  2  usage: the command line, environment or configuration is wrong
  3  the daemon is unreachable
  4  no data in the range
  5  refused, or a precondition is missing (privileges, kernel features, limits)"
    };
}
pub(super) use exit_codes;

/// Below the help of the program itself.
pub(super) const AFTER_HELP: &str = concat!(
    "\
`record` takes one profile without a daemon. `daemon` profiles the host all the time; the commands
below `check` ask it.

Examples:
  profiler record -o host.svg                        # flame graph of the host, 10 s
  profiler record --off-cpu -p 1234 -o waits.svg     # where does 1234 wait?
  profiler daemon --config /etc/profiler/profiler.toml
  profiler flamegraph --since 5m --where 'comm=\"nginx\"' -o nginx.svg

",
    exit_codes!()
);
