//! `profiler report`: utilisation, saturation and errors in one answer.

use std::str::FromStr;

use super::exit::exit_codes;
use super::{QueryArgs, ReachArgs};

const AFTER_HELP: &str = concat!(
    "\
Utilisation: CPUs kept busy, threads blocked, memory. Saturation: threads that waited for a CPU,
and the kernel's pressure (PSI). Errors: CPU quota, OOM kills, what the profiler lost. Each with the
stacks behind it. Figures of the kernel's are those of now; they are of the cgroup in which all that
--where selects ran, if that is one cgroup, and else of the host. Both kinds are asked for; --kind
does nothing here.

Examples:
  profiler report
  profiler report --range 'today 14:05..14:10' --where 'unit=\"nginx.service\"' --output markdown

",
    exit_codes!()
);

/// `profiler report`.
#[derive(Clone, Debug, clap::Args)]
#[command(after_help = AFTER_HELP)]
pub struct ReportArgs {
    /// How it is shown: text, json or markdown
    #[arg(long, value_name = "LAYOUT", default_value = "text")]
    pub output: ReportLayout,
    /// Most stacks behind each line, 1 to 100
    #[arg(long, value_name = "N", default_value = "3", value_parser = clap::value_parser!(u32).range(1..=100))]
    pub stacks: u32,
    /// Where the daemon is.
    #[command(flatten)]
    pub reach: ReachArgs,
    /// What and when.
    #[command(flatten)]
    pub query: QueryArgs,
}

/// Ways to show a report.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ReportLayout {
    /// For a terminal.
    #[default]
    Text,
    /// One JSON document.
    Json,
    /// For a ticket or a chat.
    Markdown,
}

impl FromStr for ReportLayout {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "text" => Ok(Self::Text),
            "json" => Ok(Self::Json),
            "markdown" => Ok(Self::Markdown),
            _ => Err("use text, json or markdown".to_owned()),
        }
    }
}
