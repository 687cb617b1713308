//! The command line: a tree of plain data, checked while it is parsed.

mod capture;
mod check;
mod daemon;
mod diff;
mod exit;
mod flamegraph;
mod heatmap;
mod list;
mod operand;
mod output;
mod query;
mod range;
mod record;
mod report;
mod status;
mod top;
mod values;
mod watch;

#[cfg(test)]
mod tests;

use std::ffi::OsString;
use std::str::FromStr;

use clap::{ColorChoice, CommandFactory as _, FromArgMatches as _, Parser, Subcommand};

pub use capture::{
    CaptureArgs, CaptureBundleArgs, CaptureCommand, CaptureIdArgs, CaptureShowArgs, CaptureStart, OffCpuArgs,
};
pub use check::CheckArgs;
pub use daemon::DaemonArgs;
pub use diff::DiffArgs;
pub use exit::Exit;
pub use flamegraph::FlamegraphArgs;
pub use heatmap::HeatmapArgs;
pub use list::ListArgs;
pub use operand::Operand;
pub use output::{Destination, OutputFile, PendingFile, Rendering, WriteError};
pub use query::QueryArgs;
pub use range::{Range, When};
pub use record::{RecordArgs, RecordTarget, WalkRun};
pub use report::{ReportArgs, ReportLayout};
pub use status::StatusArgs;
pub use top::TopArgs;
pub use values::Endpoint;
pub use watch::WatchArgs;

/// The whole command line.
#[derive(Clone, Debug, Parser)]
#[command(
    name = "profiler",
    version,
    about = "Continuous CPU and off-CPU profiler for Linux",
    after_help = exit::AFTER_HELP,
    disable_help_subcommand = true,
    max_term_width = 100
)]
pub struct Cli {
    /// What holds for every command.
    #[command(flatten)]
    pub global: GlobalArgs,
    /// The command.
    #[command(subcommand)]
    pub command: Command,
}

/// What holds for every command.
#[derive(Clone, Debug, clap::Args)]
#[command(next_help_heading = "Global options")]
pub struct GlobalArgs {
    /// Colours on the terminal; auto honours NO_COLOR
    #[arg(long, global = true, value_name = "WHEN", default_value = "auto")]
    pub color: ColorChoice,
    /// Say more on stderr (-vv: still more)
    #[arg(short, long, global = true, action = clap::ArgAction::Count)]
    pub verbose: u8,
}

/// The commands.
#[derive(Clone, Debug, Subcommand)]
pub enum Command {
    /// Take one profile now, without a daemon
    Record(RecordArgs),
    /// Profile the host all the time and serve the profiles
    Daemon(Box<DaemonArgs>),
    /// Say whether the profiler can run here, and what to do if not
    Check(CheckArgs),
    /// Fetch a flame graph from a daemon
    Flamegraph(FlamegraphArgs),
    /// Draw sub-second activity over a range of time
    Heatmap(HeatmapArgs),
    /// Show the heaviest functions
    Top(TopArgs),
    /// Show what a daemon has stored: processes and containers by weight, kinds, gaps
    List(ListArgs),
    /// Show what grew between two profiles; a gate for CI
    Diff(Box<DiffArgs>),
    /// Show utilisation, saturation and errors, with the stacks behind them
    Report(ReportArgs),
    /// Show the heaviest functions every time a window is sealed
    Watch(WatchArgs),
    /// Show what a daemon does, costs and lost
    Status(StatusArgs),
    /// Start, list, show and stop captures
    Capture(CaptureArgs),
}

/// Where the daemon is.
#[derive(Clone, Debug, clap::Args)]
pub struct ReachArgs {
    /// Where the daemon is: unix:///PATH or http://HOST:PORT
    #[arg(
        long,
        value_name = "URL",
        env = "PROFILER_CONNECT",
        hide_env_values = true,
        default_value = "unix:///run/profiler/profiler.sock"
    )]
    pub connect: Endpoint,
}

/// Tables for people or JSON for programs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Layout {
    /// Aligned columns.
    #[default]
    Table,
    /// One JSON document.
    Json,
}

impl FromStr for Layout {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "table" => Ok(Self::Table),
            "json" => Ok(Self::Json),
            _ => Err("use table or json".to_owned()),
        }
    }
}

impl Cli {
    /// Parses a command line with the program's name first.
    ///
    /// # Errors
    /// What clap wants to print: help and version, or what is wrong. Its exit code is 0 or 2.
    pub fn parse_line(line: impl IntoIterator<Item = OsString>) -> Result<Self, clap::Error> {
        Self::parse_by(Self::command(), line)
    }

    fn parse_by(
        command: clap::Command,
        line: impl IntoIterator<Item = OsString>,
    ) -> Result<Self, clap::Error> {
        let line: Vec<OsString> = line.into_iter().collect();
        let mut command = command.color(color_of(&line));
        let matches = command.try_get_matches_from_mut(line)?;
        let cli = Self::from_arg_matches(&matches).map_err(|error| error.format(&mut command))?;
        match cli.inconsistency() {
            Some(message) => Err(command.error(clap::error::ErrorKind::ArgumentConflict, message)),
            None => Ok(cli),
        }
    }

    /// What is wrong although each argument alone is right.
    fn inconsistency(&self) -> Option<String> {
        match &self.command {
            Command::Flamegraph(args) => args.query.inconsistency(),
            Command::Heatmap(args) => args.query.inconsistency(),
            Command::Top(args) => args.query.inconsistency(),
            Command::List(args) => args.query.inconsistency(),
            Command::Report(args) => args.query.inconsistency(),
            _ => None,
        }
    }
}

/// The `--color` of a line that is not parsed yet, so that the parser's own messages obey it.
fn color_of(line: &[OsString]) -> ColorChoice {
    let ours: Vec<&str> = line
        .iter()
        .map(|argument| argument.to_str().unwrap_or(""))
        .take_while(|text| *text != "--")
        .collect();
    let separate = ours.iter().zip(ours.iter().skip(1)).filter(|(name, _)| **name == "--color");
    let joined = ours.iter().filter_map(|text| text.strip_prefix("--color="));
    let value = separate.map(|(_, value)| *value).chain(joined).last();
    value.and_then(|value| value.parse().ok()).unwrap_or_default()
}
