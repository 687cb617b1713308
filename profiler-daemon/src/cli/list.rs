//! `profiler list`: what a daemon has stored.

use super::exit::exit_codes;
use super::{Layout, QueryArgs, ReachArgs};

const AFTER_HELP: &str = concat!(
    "\
Examples:
  profiler list
  profiler list --kind off-cpu --since 1h --where 'exe=~\"/usr/.*\"'

",
    exit_codes!()
);

/// `profiler list`.
#[derive(Clone, Debug, clap::Args)]
#[command(after_help = AFTER_HELP)]
pub struct ListArgs {
    /// Most processes and containers that are shown, 1 to 1000
    #[arg(long, value_name = "N", default_value = "30", value_parser = clap::value_parser!(u32).range(1..=1000))]
    pub limit: u32,
    /// How it is shown: table or json
    #[arg(long, value_name = "LAYOUT", default_value = "table")]
    pub output: Layout,
    /// Where the daemon is.
    #[command(flatten)]
    pub reach: ReachArgs,
    /// What and when.
    #[command(flatten)]
    pub query: QueryArgs,
}
