//! Getting both sides, and comparing them: in the daemon if it has both, else here.

use std::fs::File;
use std::io::Read as _;
use std::path::Path;
use std::time::Duration;

use tokio::time::Instant;

use crate::cli::{DiffArgs, Exit, Operand};
use crate::model::ProfileKind;
use crate::proto::diff_response::Part;
use crate::proto::query_response::Part as QueryPart;
use crate::proto::{self, DiffRequest, QueryRequest};
use crate::render::{Change, Diff, DiffFormat, Normalize, Share, Side, Verdict};

use super::super::connect::{Daemon, RENDER_DEADLINE, request};
use super::super::{Failure, summary};
use super::Compared;

/// Largest file that is read, bytes.
const MAX_FILE: u64 = 1 << 30;

/// Two merges in place of one.
const DEADLINE: Duration = RENDER_DEADLINE.saturating_mul(2);

/// Lets the daemon compare.
pub(super) async fn compare_there(
    args: &DiffArgs,
    base: &Operand,
    with: &Operand,
) -> Result<Compared, Failure> {
    let daemon = Daemon::connect(&args.reach.connect).await?;
    let until = Instant::now() + DEADLINE;
    let question = DiffRequest {
        base: Some(selection(args, base)),
        with: Some(selection(args, with)),
        normalize: normalize(args.normalize).into(),
        format: args.rendering().map_or(proto::DiffFormat::Unspecified, format).into(),
        limit: args.limit,
        gate: args.gate().map(|gate| proto::Gate { fail_over: gate.fail_over, min_share: gate.min_share }),
    };
    let mut profiles = daemon.profiles();
    let mut parts = daemon.answer(DEADLINE, profiles.diff(request(question, DEADLINE))).await?;
    let mut facts = None;
    let mut rendered = Vec::new();
    while let Some(message) =
        daemon.in_time(until.saturating_duration_since(Instant::now()), parts.message()).await?
    {
        match message.part {
            Some(Part::Summary(summary)) => facts = Some(*summary),
            Some(Part::Text(text)) => rendered.extend_from_slice(text.as_bytes()),
            None => {}
        }
    }
    let facts = facts.ok_or_else(|| Failure::malformed("no summary"))?;
    let side = |facts| Ok::<_, Failure>(summary::line(&summary::with_data(facts)?));
    let verdict = facts.verdict.map(|verdict| Verdict {
        gate: args.gate(),
        failed: verdict.failed.into_iter().map(change).collect(),
        undecided: verdict.undecided,
        tested: verdict.tested,
        bound: verdict.bound,
    });
    Ok(Compared {
        changes: facts.rows.into_iter().map(change).collect(),
        verdict,
        rendered,
        sides: [side(facts.base)?, side(facts.with)?],
    })
}

/// Compares here, since at least one side is a file.
pub(super) async fn compare_here(
    args: &DiffArgs,
    base: &Operand,
    with: &Operand,
) -> Result<Compared, Failure> {
    let (base, base_line) = side(args, base).await?;
    let (with, with_line) = side(args, with).await?;
    let refused = |error: &dyn std::fmt::Display| Failure::new(Exit::Usage, error.to_string());
    let diff = Diff::between(base, with, args.normalize).map_err(|error| refused(&error))?;
    let verdict = args.gate().map(|gate| diff.judge(gate)).transpose().map_err(|error| refused(&error))?;
    let mut rendered = Vec::new();
    if let Some(format) = args.rendering() {
        let judged = verdict.clone().unwrap_or_default();
        diff.render(format, &judged, &mut rendered)
            .map_err(|error| Failure::new(Exit::Failure, error.to_string()))?;
    }
    let changes = diff.top_changes(args.limit as usize);
    Ok(Compared { changes, verdict, rendered, sides: [base_line, with_line] })
}

/// One side, and a line about it.
async fn side(args: &DiffArgs, operand: &Operand) -> Result<(Side, String), Failure> {
    let (path, side) = match operand {
        Operand::Folded(path) => (path, Side::from_folded(&shown(path), &read(path)?)),
        Operand::Json(path) => (path, Side::from_json(&shown(path), &read(path)?)),
        Operand::Capture(..) | Operand::Stored(..) => return fetched(args, operand).await,
    };
    let side = side.map_err(|error| Failure::new(Exit::Failure, format!("{}: {error}", path.display())))?;
    Ok((side, shown(path)))
}

/// A side from the daemon.
async fn fetched(args: &DiffArgs, operand: &Operand) -> Result<(Side, String), Failure> {
    let daemon = Daemon::connect(&args.reach.connect).await?;
    let until = Instant::now() + RENDER_DEADLINE;
    let question = QueryRequest {
        selection: Some(selection(args, operand)),
        format: proto::Format::Json.into(),
        wakers: false,
    };
    let mut profiles = daemon.profiles();
    let mut parts =
        daemon.answer(RENDER_DEADLINE, profiles.query(request(question, RENDER_DEADLINE))).await?;
    let (mut facts, mut document) = (None, String::new());
    while let Some(message) =
        daemon.in_time(until.saturating_duration_since(Instant::now()), parts.message()).await?
    {
        match message.part {
            Some(QueryPart::Summary(summary)) => facts = Some(summary),
            Some(QueryPart::Text(text)) => document.push_str(&text),
            Some(QueryPart::Data(_)) | None => {}
        }
    }
    let line = summary::line(&summary::with_data(facts)?);
    let side = Side::from_json(&line, &document).map_err(|error| Failure::malformed(&error.to_string()))?;
    Ok((side, line))
}

fn shown(path: &Path) -> String {
    path.display().to_string()
}

fn read(path: &Path) -> Result<String, Failure> {
    let failed = |error: &dyn std::fmt::Display| {
        Failure::new(Exit::Failure, format!("cannot read {}: {error}", path.display()))
    };
    let mut bytes = Vec::new();
    let file = File::open(path).map_err(|error| failed(&error))?;
    file.take(MAX_FILE + 1).read_to_end(&mut bytes).map_err(|error| failed(&error))?;
    if bytes.len() as u64 > MAX_FILE {
        return Err(failed(&"it is larger than 1 GiB"));
    }
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

/// What the daemon is asked for; a file is nothing that it has.
fn selection(args: &DiffArgs, operand: &Operand) -> proto::Selection {
    let kind = summary::kind(args.kind.unwrap_or(ProfileKind::OnCpu)).into();
    let (range, capture_id, own) = match operand {
        Operand::Stored(range, own) => {
            let range =
                proto::TimeRange { since: None, from: Some(range.from.into()), to: Some(range.to.into()) };
            (Some(range), String::new(), own.as_deref())
        }
        Operand::Capture(id, own) => (None, id.clone(), own.as_deref()),
        Operand::Folded(_) | Operand::Json(_) => (None, String::new(), None),
    };
    let selectors = [own, args.selector.as_deref()];
    proto::Selection { kind, r#where: both(selectors), range, capture_id }
}

/// Joins selectors: all of them must match.
fn both(selectors: [Option<&str>; 2]) -> String {
    let inner = |selector: &str| -> String {
        let selector = selector.trim();
        let braced = selector.strip_prefix('{').and_then(|rest| rest.strip_suffix('}'));
        braced.unwrap_or(selector).trim().trim_end_matches(',').to_owned()
    };
    let parts: Vec<String> = selectors.into_iter().flatten().map(inner).collect();
    parts.iter().filter(|part| !part.is_empty()).map(String::as_str).collect::<Vec<_>>().join(",")
}

fn normalize(normalize: Normalize) -> proto::Normalize {
    match normalize {
        Normalize::Total => proto::Normalize::Total,
        Normalize::Time => proto::Normalize::Time,
        Normalize::Work => proto::Normalize::Work,
    }
}

fn format(format: DiffFormat) -> proto::DiffFormat {
    match format {
        DiffFormat::Folded => proto::DiffFormat::Folded,
        DiffFormat::Svg => proto::DiffFormat::Svg,
        DiffFormat::Json => proto::DiffFormat::Json,
    }
}

fn change(row: proto::DiffRow) -> Change {
    Change { frame: row.frame, own: share(row.self_), total: share(row.total) }
}

fn share(share: Option<proto::DiffShare>) -> Share {
    let share = share.unwrap_or_default();
    Share {
        base: share.base,
        with: share.with,
        base_share: share.base_share,
        with_share: share.with_share,
        growth: share.growth,
        error: share.error,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn selectors_join() {
        assert_eq!(both([None, None]), "");
        assert_eq!(both([Some("{comm=\"a}\"}"), None]), "comm=\"a}\"");
        assert_eq!(both([Some("{comm=\"a\",}"), Some(" pid=\"1\" ")]), "comm=\"a\",pid=\"1\"");
        assert_eq!(both([Some("{}"), Some("pid=\"1\"")]), "pid=\"1\"");
    }
}
