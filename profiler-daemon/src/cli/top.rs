//! `profiler top`: the heaviest functions.

use super::exit::exit_codes;
use super::{Layout, QueryArgs, ReachArgs};

const AFTER_HELP: &str = concat!(
    "\
Examples:
  profiler top --since 1m
  profiler top --kind off-cpu --where 'pid=\"1234\"' --limit 10 --output json

",
    exit_codes!()
);

/// `profiler top`.
#[derive(Clone, Debug, clap::Args)]
#[command(after_help = AFTER_HELP)]
pub struct TopArgs {
    /// Most rows that are shown, 1 to 1000
    #[arg(long, value_name = "N", default_value = "30", value_parser = clap::value_parser!(u32).range(1..=1000))]
    pub limit: u32,
    /// How the rows are shown: table or json
    #[arg(long, value_name = "LAYOUT", default_value = "table")]
    pub output: Layout,
    /// Where the daemon is.
    #[command(flatten)]
    pub reach: ReachArgs,
    /// What and when.
    #[command(flatten)]
    pub query: QueryArgs,
}
