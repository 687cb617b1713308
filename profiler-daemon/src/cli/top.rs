//! `profiler top`: the heaviest functions.

use super::exit::exit_codes;
use super::{Layout, QueryArgs, ReachArgs, values};
use crate::render::GroupBy;

const AFTER_HELP: &str = concat!(
    "\
Examples:
  profiler top --since 1m
  profiler top --cumulative --focus '^alloc::' --ignore 'do_idle'
  profiler top --by container --range 'today 14:05..14:10'
  profiler top --kind off-cpu --by reason --where 'pid=\"1234\"' --output json

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
    /// What a row is: frame, process, thread, container, pod, unit or reason (of waiting)
    #[arg(long, value_name = "WHAT", default_value = "frame")]
    pub by: GroupBy,
    /// Sort by total, that is with everything the frame calls
    #[arg(long)]
    pub cumulative: bool,
    /// Only stacks with a frame that matches
    #[arg(long, value_name = "REGEX", value_parser = values::regex)]
    pub focus: Option<String>,
    /// No stacks with a frame that matches
    #[arg(long, value_name = "REGEX", value_parser = values::regex)]
    pub ignore: Option<String>,
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
