//! `profiler flamegraph`: a rendered profile from a daemon.

use super::exit::exit_codes;
use super::{QueryArgs, ReachArgs, Rendering, values};

const AFTER_HELP: &str = concat!(
    "\
Without -o and --format, folded stacks go to stdout.

Examples:
  profiler flamegraph --since 5m -o host.svg
  profiler flamegraph --range 'today 14:05..14:10' --where 'comm=\"nginx\"' -o nginx.pb.gz
  profiler flamegraph --kind off-cpu --where 'cgroup=~\".*web.*\"' --format folded | sort -k2 -rn

",
    exit_codes!()
);

/// `profiler flamegraph`.
#[derive(Clone, Debug, clap::Args)]
#[command(after_help = AFTER_HELP)]
pub struct FlamegraphArgs {
    /// Where it goes.
    #[command(flatten)]
    pub rendering: Rendering,
    /// Where the daemon is.
    #[command(flatten)]
    pub reach: ReachArgs,
    /// What and when.
    #[command(flatten)]
    pub query: QueryArgs,
    /// Only what this capture recorded
    #[arg(
        long,
        value_name = "ID",
        value_parser = values::capture_id,
        conflicts_with_all = ["kind", "since", "from", "until", "range"],
        help_heading = "Query"
    )]
    pub capture: Option<String>,
}
