//! `profiler list`: what a daemon has stored.

use super::exit::exit_codes;
use super::{QueryArgs, ReachArgs};

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
    /// Where the daemon is.
    #[command(flatten)]
    pub reach: ReachArgs,
    /// What and when.
    #[command(flatten)]
    pub query: QueryArgs,
}
