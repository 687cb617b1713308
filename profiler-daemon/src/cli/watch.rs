//! `profiler watch`: windows as they are sealed.

use super::exit::exit_codes;
use super::{Layout, ReachArgs, values};
use crate::model::ProfileKind;

const AFTER_HELP: &str = concat!(
    "\
Goes on until it is interrupted or has seen --windows. With --output json each window is one line.

Examples:
  profiler watch
  profiler watch --where 'comm=\"nginx\"' --windows 6 --output json

",
    exit_codes!()
);

/// `profiler watch`.
#[derive(Clone, Debug, clap::Args)]
#[command(after_help = AFTER_HELP)]
pub struct WatchArgs {
    /// Most rows of a window, 1 to 100
    #[arg(long, value_name = "N", default_value = "10", value_parser = clap::value_parser!(u32).range(1..=100))]
    pub limit: u32,
    /// End after so many windows
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    pub windows: Option<u64>,
    /// How windows are shown: table or json
    #[arg(long, value_name = "LAYOUT", default_value = "table")]
    pub output: Layout,
    /// Where the daemon is.
    #[command(flatten)]
    pub reach: ReachArgs,
    /// What was measured: on-cpu or off-cpu [default: on-cpu]
    #[arg(long, value_name = "KIND", help_heading = "Query")]
    pub kind: Option<ProfileKind>,
    /// Whose: see `profiler top --help`
    #[arg(long = "where", value_name = "SELECTOR", value_parser = values::selector, help_heading = "Query")]
    pub selector: Option<String>,
}
