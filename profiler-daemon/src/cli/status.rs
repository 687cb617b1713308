//! `profiler status`: what a daemon does, costs and lost.

use super::exit::exit_codes;
use super::{Layout, ReachArgs};

const AFTER_HELP: &str = concat!(
    "\
Examples:
  profiler status
  profiler status --connect http://127.0.0.1:9191 --output json

",
    exit_codes!()
);

/// `profiler status`.
#[derive(Clone, Debug, clap::Args)]
#[command(after_help = AFTER_HELP)]
pub struct StatusArgs {
    /// How the figures are shown: table or json
    #[arg(long, value_name = "LAYOUT", default_value = "table")]
    pub output: Layout,
    /// Where the daemon is.
    #[command(flatten)]
    pub reach: ReachArgs,
}
