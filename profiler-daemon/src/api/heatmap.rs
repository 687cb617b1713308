//! `ProfileService.Heatmap`: activity by cells of a fraction of a second.

use std::time::{Duration, SystemTime};

use super::convert;
use super::error::ApiError;
use super::profiles::{Chunks, Pieces, question};
use super::query::{Need, Queries, Question, Source, Turn, blocking, bounded, time};
use crate::model::{Profile, TimeRange};
use crate::proto::{self, HeatmapRequest};
use crate::render::{self, About, Cells, HeatmapFormat};
use crate::store::{Heat, Summary};

/// Cells a second where the request does not say.
const DEFAULT_ROWS: u32 = 50;
/// Most cells a second: they are 10 ms long then.
const MAX_ROWS: u32 = 100;
/// Longest range: a picture of more seconds is too wide to be looked at.
const MAX_RANGE: Duration = Duration::from_secs(3600);

/// Spreads what is selected over cells and renders them.
pub(super) async fn answer(queries: &Queries, request: HeatmapRequest) -> Result<(Chunks, Turn), ApiError> {
    let HeatmapRequest { selection, rows, format } = request;
    let format = match proto::HeatmapFormat::try_from(format) {
        Ok(proto::HeatmapFormat::Unspecified | proto::HeatmapFormat::Svg) => HeatmapFormat::Svg,
        Ok(proto::HeatmapFormat::Json) => HeatmapFormat::Json,
        Err(_) => {
            return Err(ApiError::Invalid { field: "format", problem: format!("{format} is no format") });
        }
    };
    let rows = if rows == 0 { DEFAULT_ROWS } else { rows };
    // Cells must tile a second in whole milliseconds: that is how fine time is kept.
    if rows > MAX_ROWS || 1000 % rows != 0 {
        let problem = format!("{rows} cells a second do not work: use a divisor of 1000 up to {MAX_ROWS}");
        return Err(ApiError::Invalid { field: "rows", problem });
    }
    let Question { source, selector } = blocking(move || question("selection", selection)).await?;
    let Source::Windows { kind, range } = source else {
        let problem = "captures keep no times: ask for a range".to_owned();
        return Err(ApiError::Invalid { field: "selection.capture_id", problem });
    };
    if range.length() > MAX_RANGE {
        let problem =
            format!("longer than {} min: a heat map has a column a second", MAX_RANGE.as_secs() / 60);
        return Err(ApiError::Invalid { field: "selection.range", problem });
    }
    let range = whole_seconds(range);
    let cell = Duration::from_secs(1) / rows;
    let work = move |queries: &Queries| {
        let heat = queries.store().heat(kind, &selector, range, cell);
        let values = heat.values();
        let total = values.iter().sum();
        if total == 0 {
            return Err(empty(queries, &heat, range));
        }
        let summary = told(&heat, total);
        let about = About {
            title: format!("{kind}, {} to {}", time(range.from), time(range.to)),
            range,
            covered: summary.covered,
            command: None,
        };
        let cells = Cells { kind, rows, values, coarse: heat.coarse, gaps: heat.gaps };
        let rendered = bounded(|out| render::heatmap(&cells, &about, format, out))?;
        Ok(Chunks::new(convert::summary(&summary), Pieces::of(rendered, true)))
    };
    queries.work(Need::RENDERED, work).await
}

/// The seconds that the range touches: columns begin with one.
fn whole_seconds(range: TimeRange) -> TimeRange {
    let whole = |at: SystemTime, up: bool| {
        let since = at.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        let up = u64::from(up && since.subsec_nanos() > 0);
        SystemTime::UNIX_EPOCH + Duration::from_secs(since.as_secs().saturating_add(up))
    };
    TimeRange { from: whole(range.from, false), to: whole(range.to, true) }
}

fn told(heat: &Heat, total: u64) -> Summary {
    let covered = heat.covered.iter().map(TimeRange::length).sum();
    let mut summary = Summary::of(&Profile::new(heat.kind), heat.range, covered);
    (summary.total, summary.total_error) = (total, heat.total_error());
    summary.records = heat.quality.records;
    (summary.loss, summary.quality) = (heat.loss.clone(), heat.quality);
    summary
}

fn empty(queries: &Queries, heat: &Heat, range: TimeRange) -> ApiError {
    let kind = heat.kind.name();
    let between = format!("between {} and {}", time(range.from), time(range.to));
    let message = if heat.covered.is_empty() && !heat.coarse.is_empty() {
        format!(
            "{kind} data {between} is only kept by the minute or coarser: within seconds it is known for \
             about an hour; profiles of that time are still to be had"
        )
    } else if heat.covered.is_empty() {
        format!("no {kind} data {between}{}", queries.stored_text(heat.kind))
    } else {
        format!("nothing {kind} {between} matches")
    };
    ApiError::NoData { kind, message }
}
