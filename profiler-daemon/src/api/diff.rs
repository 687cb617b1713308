//! `ProfileService.Diff`: two queries against each other.

use tonic::Status;

use super::error::ApiError;
use super::profiles::{Pieces, question, rows, text};
use super::query::{Need, Queries, Turn, blocking, bounded};
use crate::proto::diff_response::Part;
use crate::proto::{self, DiffRequest, DiffResponse, DiffRow, DiffShare, DiffSummary};
use crate::render::{Change, Diff, DiffFormat, Gate, Normalize, Share, Side, Verdict};

const DEFAULT_ROWS: u32 = 30;

/// Merges both sides, one after the other, and compares them.
pub(super) async fn answer(queries: &Queries, request: DiffRequest) -> Result<(DiffChunks, Turn), ApiError> {
    let limit = rows(request.limit, DEFAULT_ROWS)?;
    let normalize = normalize(request.normalize)?;
    let format = format(request.format)?;
    let gate = request.gate.map(gate).transpose()?;
    let (base, with) = (request.base, request.with);
    let (base, with) = blocking(move || Ok((question("base", base)?, question("with", with)?))).await?;
    let compare = move |queries: &Queries| {
        let base = queries.merge(&base)?;
        let with = queries.merge(&with)?;
        let [left, right] = [&base, &with].map(|answer| Side::of(&answer.profile, &answer.about()));
        let diff = Diff::between(left, right, normalize)?;
        let verdict = gate.map(|gate| diff.judge(gate)).transpose()?;
        let summary = DiffSummary {
            base: Some(base.told()),
            with: Some(with.told()),
            rows: diff.top_changes(limit).iter().map(row).collect(),
            verdict: verdict.as_ref().map(|verdict| judged(verdict, limit)),
        };
        drop((base, with));
        let verdict = verdict.unwrap_or_default();
        let rendered = match format {
            Some(format) => bounded(|out| diff.render(format, &verdict, out))?,
            None => Vec::new(),
        };
        Ok(DiffChunks { summary: Some(summary), pieces: Pieces::of(rendered, true) })
    };
    let (chunks, turn) = queries.work(Need::TWO_RENDERED, compare).await?;
    let turn = turn.keep(chunks.pieces.len());
    Ok((chunks, turn))
}

/// The messages of an answer: the summary, then the rendered difference in pieces.
pub(super) struct DiffChunks {
    summary: Option<DiffSummary>,
    pieces: Pieces,
}

impl Iterator for DiffChunks {
    type Item = Result<DiffResponse, Status>;

    fn next(&mut self) -> Option<Self::Item> {
        let part = match self.summary.take() {
            Some(summary) => Part::Summary(Box::new(summary)),
            None => Part::Text(text(&self.pieces.next()?)),
        };
        Some(Ok(DiffResponse { part: Some(part) }))
    }
}

fn normalize(normalize: i32) -> Result<Normalize, ApiError> {
    match proto::Normalize::try_from(normalize) {
        Ok(proto::Normalize::Unspecified | proto::Normalize::Total) => Ok(Normalize::Total),
        Ok(proto::Normalize::Time) => Ok(Normalize::Time),
        Ok(proto::Normalize::Work) => Ok(Normalize::Work),
        Err(_) => {
            let problem = format!("{normalize} is nothing to normalize by");
            Err(ApiError::Invalid { field: "normalize", problem })
        }
    }
}

fn format(format: i32) -> Result<Option<DiffFormat>, ApiError> {
    match proto::DiffFormat::try_from(format) {
        Ok(proto::DiffFormat::Unspecified) => Ok(None),
        Ok(proto::DiffFormat::Folded) => Ok(Some(DiffFormat::Folded)),
        Ok(proto::DiffFormat::Svg) => Ok(Some(DiffFormat::Svg)),
        Ok(proto::DiffFormat::Json) => Ok(Some(DiffFormat::Json)),
        Err(_) => Err(ApiError::Invalid { field: "format", problem: format!("{format} is not a format") }),
    }
}

fn gate(gate: proto::Gate) -> Result<Gate, ApiError> {
    let proto::Gate { fail_over, min_share } = gate;
    if !(0.0..=1e6).contains(&fail_over) {
        let problem = format!("{fail_over} is no growth: 0.05 is 5 %");
        return Err(ApiError::Invalid { field: "gate.fail_over", problem });
    }
    if !(0.0..=1.0).contains(&min_share) {
        let problem = format!("{min_share} is no share: from 0 to 1");
        return Err(ApiError::Invalid { field: "gate.min_share", problem });
    }
    Ok(Gate { fail_over, min_share })
}

fn judged(verdict: &Verdict, limit: usize) -> proto::Verdict {
    proto::Verdict {
        failed: verdict.failed.iter().take(limit).map(row).collect(),
        undecided: verdict.undecided,
        tested: verdict.tested,
        bound: verdict.bound,
    }
}

fn row(change: &Change) -> DiffRow {
    DiffRow {
        frame: change.frame.clone(),
        self_: Some(share(&change.own)),
        total: Some(share(&change.total)),
    }
}

fn share(share: &Share) -> DiffShare {
    DiffShare {
        base: share.base,
        with: share.with,
        base_share: share.base_share,
        with_share: share.with_share,
        growth: share.growth,
        error: share.error,
    }
}
