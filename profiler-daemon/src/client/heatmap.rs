//! `profiler heatmap`: fetches a rendered heat map, chunk by chunk.

use crate::cli::HeatmapArgs;
use crate::proto::{self, HeatmapRequest};
use crate::render::HeatmapFormat;

use super::connect::{Daemon, RENDER_DEADLINE, request};
use super::flamegraph::{Sink, receive};
use super::output::say;
use super::{Failure, summary};

/// `profiler heatmap`.
///
/// # Errors
/// No daemon, no data, a refused query, an output that cannot be written.
pub async fn heatmap(args: &HeatmapArgs) -> Result<(), Failure> {
    // An output that cannot be written is known before the daemon has worked for it.
    let (sink, format) = match &args.output {
        Some((path, format)) => (Sink::file(path)?, *format),
        None => (Sink::stdout(), args.format.unwrap_or(HeatmapFormat::Svg)),
    };
    let format = match format {
        HeatmapFormat::Svg => proto::HeatmapFormat::Svg,
        HeatmapFormat::Json => proto::HeatmapFormat::Json,
    };
    let daemon = Daemon::connect(&args.reach.connect).await?;
    let question = HeatmapRequest {
        selection: Some(summary::selection(&args.query, None)),
        rows: args.rows,
        format: format.into(),
    };
    let mut profiles = daemon.profiles();
    let parts = daemon.answer(RENDER_DEADLINE, profiles.heatmap(request(question, RENDER_DEADLINE))).await?;
    let Some(facts) = receive(&daemon, parts, sink).await? else { return Ok(()) };
    say(&summary::line(&facts));
    if let Some((path, _)) = &args.output {
        say(&format!("wrote {}", path.display()));
    }
    Ok(())
}
