//! `profiler check`: whether the profiler can run here.

use super::Layout;
use super::exit::exit_codes;

const AFTER_HELP: &str = concat!(
    "\
Exits with 5 if the profiler cannot run here.

Examples:
  profiler check
  profiler check --output json

",
    exit_codes!()
);

/// `profiler check`.
#[derive(Clone, Debug, Default, clap::Args)]
#[command(after_help = AFTER_HELP)]
pub struct CheckArgs {
    /// How the findings are shown: table or json
    #[arg(long, value_name = "LAYOUT", default_value = "table")]
    pub output: Layout,
}
