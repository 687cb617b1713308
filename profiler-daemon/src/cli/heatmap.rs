//! `profiler heatmap`: sub-second activity over a range, as a picture.

use std::path::PathBuf;

use super::exit::exit_codes;
use super::{QueryArgs, ReachArgs, values};
use crate::render::HeatmapFormat;

const AFTER_HELP: &str = concat!(
    "\
A column is a second, a cell a fraction of it: bursts, stalls and what comes periodically become
visible. Times within seconds are kept for about an hour, and the range can be an hour long.
To see what ran in some of the cells, ask for their time:

Examples:
  profiler heatmap --since 2m -o activity.svg
  profiler heatmap --kind off-cpu --where 'comm=\"nginx\"' --range 'today 14:05..14:07' -o nginx.svg
  profiler flamegraph --from 2026-01-31T14:05:03.2Z --until 2026-01-31T14:05:03.4Z -o burst.svg

",
    exit_codes!()
);

/// `profiler heatmap`.
#[derive(Clone, Debug, clap::Args)]
#[command(after_help = AFTER_HELP)]
pub struct HeatmapArgs {
    /// Write to FILE; its extension says the format: .svg or .json
    #[arg(short, long, value_name = "FILE", value_parser = values::heatmap_file, required_unless_present = "format")]
    pub output: Option<(PathBuf, HeatmapFormat)>,
    /// Write to stdout in this format: svg or json
    #[arg(long, value_name = "FORMAT", conflicts_with = "output")]
    pub format: Option<HeatmapFormat>,
    /// Cells a second: a divisor of 1000, at most 100
    #[arg(long, value_name = "N", default_value = "50", value_parser = values::heatmap_rows)]
    pub rows: u32,
    /// Where the daemon is.
    #[command(flatten)]
    pub reach: ReachArgs,
    /// What and when.
    #[command(flatten)]
    pub query: QueryArgs,
}
