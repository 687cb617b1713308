//! What a result is worth, in a line: how much, of which time, what is missing.

use std::time::{Duration, SystemTime};

use serde_json::{Value, json};

use crate::cli::{Exit, QueryArgs};
use crate::model::ProfileKind;
use crate::proto;

use super::{Failure, times};

/// The query as the daemon wants it.
pub(super) fn selection(query: &QueryArgs, capture: Option<&str>) -> proto::Selection {
    let (from, to) = query.range(SystemTime::now());
    let range = proto::TimeRange { since: None, from: Some(from.into()), to: Some(to.into()) };
    proto::Selection {
        kind: kind(query.kind.unwrap_or(ProfileKind::OnCpu)).into(),
        r#where: query.selector.clone().unwrap_or_default(),
        range: capture.is_none().then_some(range),
        capture_id: capture.unwrap_or_default().to_owned(),
    }
}

/// The kind as the daemon wants it; it stores no [`ProfileKind::Wall`].
pub(super) fn kind(kind: ProfileKind) -> proto::ProfileKind {
    match kind {
        ProfileKind::OffCpu => proto::ProfileKind::OffCpu,
        ProfileKind::OnCpu | ProfileKind::Wall => proto::ProfileKind::OnCpu,
    }
}

/// The kind's name.
pub(super) fn kind_name(kind: i32) -> &'static str {
    match proto::ProfileKind::try_from(kind) {
        Ok(proto::ProfileKind::OffCpu) => ProfileKind::OffCpu.name(),
        Ok(_) => ProfileKind::OnCpu.name(),
        Err(_) => "unknown kind",
    }
}

/// `1200 samples at 99 Hz, 2026-01-31 14:00:00 to 14:05:00 (5m covered), lost nothing`.
pub(super) fn line(summary: &proto::ProfileSummary) -> String {
    let mut text = format!("{} {} {}", kind_name(summary.kind), summary.total, summary.unit);
    if summary.frequency_hz > 0.0 {
        text.push_str(&format!(" at {:.0} Hz", summary.frequency_hz));
    }
    let period_ns = summary.stacks.as_ref().map_or(0, |stacks| stacks.clock_period_ns);
    if period_ns > 0 {
        text.push_str(&format!(", a sample every {}", times::short(Duration::from_nanos(period_ns))));
    }
    if let (Some(from), Some(to)) = (times::system_time(summary.from), times::system_time(summary.to)) {
        text.push_str(&format!(", {} to {}", times::local(from), times::local(to)));
    }
    text.push_str(&format!(" ({} covered)", times::short(times::duration(summary.covered))));
    text.push_str(&format!(", lost {}", losses(&summary.losses)));
    text
}

/// `12 (kernel: on-CPU ring full), ...`, or `nothing`.
pub(super) fn losses(losses: &[proto::Loss]) -> String {
    if losses.is_empty() {
        return "nothing".to_owned();
    }
    let texts = losses.iter().map(|loss| format!("{} ({}: {})", loss.count, loss.stage, loss.reason));
    texts.collect::<Vec<_>>().join(", ")
}

/// The summary for programs.
pub(super) fn to_json(summary: &proto::ProfileSummary) -> Value {
    json!({
        "kind": kind_name(summary.kind),
        "unit": summary.unit,
        "total": summary.total,
        "records": summary.records,
        "from": times::system_time(summary.from).and_then(times::rfc3339),
        "to": times::system_time(summary.to).and_then(times::rfc3339),
        "covered_seconds": times::duration(summary.covered).as_secs_f64(),
        "frequency_hz": summary.frequency_hz,
        "losses": losses_json(&summary.losses),
    })
}

/// Losses for programs.
pub(super) fn losses_json(losses: &[proto::Loss]) -> Value {
    let rows =
        losses.iter().map(|loss| json!({"stage": loss.stage, "reason": loss.reason, "count": loss.count}));
    Value::Array(rows.collect())
}

/// The summary, if there is anything in it.
pub(super) fn with_data(summary: Option<proto::ProfileSummary>) -> Result<proto::ProfileSummary, Failure> {
    let summary = summary.ok_or_else(|| Failure::malformed("no summary"))?;
    if summary.total > 0 {
        return Ok(summary);
    }
    let kind = kind_name(summary.kind);
    Err(Failure::new(Exit::NoData, format!("no {kind} data in the range matches ({})", line(&summary)))
        .hint("ask for a longer range with --since, or see `profiler list` for what is stored"))
}

/// A part of a whole in percent: `12.3%`.
pub(super) fn percent(part: u64, whole: u64) -> String {
    if whole == 0 { "-".to_owned() } else { format!("{:.1}%", part as f64 * 100.0 / whole as f64) }
}
