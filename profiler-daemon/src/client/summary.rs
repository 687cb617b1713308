//! What a result is worth, in a line: how much, of which time, what is missing.

use std::time::{Duration, SystemTime};

use serde_json::{Value, json};

use crate::cli::{Exit, QueryArgs};
use crate::model::ProfileKind;
use crate::proto;
use crate::render::{Certainty, StackShares};

use super::output::say;
use super::{Failure, times};

/// Of ranges so short, milliseconds matter.
const SHORT: Duration = Duration::from_secs(10);

/// Windows so long are worth a word: the result begins and ends with whole ones.
const COARSE: Duration = Duration::from_secs(60);

/// The query as the daemon wants it.
pub(super) fn selection(query: &QueryArgs, capture: Option<&str>) -> proto::Selection {
    let (from, to) = query.bounds(SystemTime::now());
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
    let certainty = certainty(summary);
    let mut text = format!("{} {} {}", kind_name(summary.kind), summary.total, summary.unit);
    let error = certainty.error();
    if !error.is_empty() {
        text.push_str(&format!(" {error}"));
    }
    if summary.frequency_hz > 0.0 {
        text.push_str(&format!(" at {:.0} Hz", summary.frequency_hz));
    }
    let sampled = certainty.sampled();
    if !sampled.is_empty() {
        text.push_str(&format!(", {sampled}"));
    }
    if let (Some(from), Some(to)) = (times::system_time(summary.from), times::system_time(summary.to)) {
        let short = to.duration_since(from).is_ok_and(|length| length < SHORT);
        let shown = if short { times::local_exact } else { times::local };
        text.push_str(&format!(", {} to {}", shown(from), shown(to)));
    }
    text.push_str(&format!(" ({} covered)", times::short(times::duration(summary.covered))));
    if let (Some(open), Some(to)) = (times::system_time(summary.open_from), times::system_time(summary.to)) {
        let length = to.duration_since(open).unwrap_or_default();
        text.push_str(&format!(", the last {} still being recorded", times::short(length)));
    }
    let resolution = times::duration(summary.resolution);
    if resolution >= COARSE {
        text.push_str(&format!(", in windows of up to {}", times::short(resolution)));
    }
    text.push_str(&format!(", lost {}", losses(&summary.losses)));
    text
}

/// Says on stderr what a result is worth, and its stacks.
pub(super) fn tell(summary: &proto::ProfileSummary) {
    say(&line(summary));
    if let Some(stacks) = &summary.stacks {
        say(&shares(stacks).long());
    }
    let user_stacks = certainty(summary).user_stacks();
    if !user_stacks.is_empty() {
        say(&user_stacks);
    }
}

/// How sure a result is.
fn certainty(summary: &proto::ProfileSummary) -> Certainty {
    let stacks = summary.stacks.clone().unwrap_or_default();
    Certainty {
        total: summary.total as f64,
        total_error: summary.total_error,
        periods_ns: [stacks.clock_period_min_ns, stacks.clock_period_ns],
        one_thread_in: stacks.one_thread_in,
        off_cpu_ns: stacks.off_cpu_ns,
        borrowed_ns: stacks.borrowed_ns,
        missing_ns: stacks.missing_ns,
    }
}

/// What the stacks of a result are worth.
pub(super) fn shares(stacks: &proto::StackQuality) -> StackShares<'_> {
    StackShares {
        records: stacks.records,
        user_stacks: stacks.user_stacks,
        complete: stacks.complete,
        truncated: stacks.truncated,
        user_truncated: stacks.user_truncated,
        stopped: stacks.stopped,
        stopped_reasons: stacks.stopped_reasons.iter().map(|stop| (&*stop.reason, stop.count)).collect(),
        guessed: stacks.guessed,
        kernel_missing: stacks.kernel_missing,
        frames: stacks.frames,
        frames_unnamed: stacks.frames_unnamed,
        frames_unnamed_despite_symbols: stacks.frames_unnamed_despite_symbols,
    }
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
        "total_error": summary.total_error,
        "records": summary.records,
        "from": times::system_time(summary.from).and_then(times::rfc3339),
        "to": times::system_time(summary.to).and_then(times::rfc3339),
        "open_from": times::system_time(summary.open_from).and_then(times::rfc3339),
        "resolution_seconds": summary.resolution.map(|_| times::duration(summary.resolution).as_secs_f64()),
        "covered_seconds": times::duration(summary.covered).as_secs_f64(),
        "frequency_hz": summary.frequency_hz,
        "losses": losses_json(&summary.losses),
        "stacks": summary.stacks.as_ref().map(stacks_json),
    })
}

/// Counts of stacks for programs; names as in the profile's own JSON.
fn stacks_json(stacks: &proto::StackQuality) -> Value {
    let reasons = stacks.stopped_reasons.iter();
    let reasons: Vec<_> = reasons.map(|stop| json!({"reason": stop.reason, "count": stop.count})).collect();
    json!({
        "records": stacks.records,
        "user_stacks": stacks.user_stacks,
        "complete": stacks.complete,
        "truncated": stacks.truncated,
        "user_truncated": stacks.user_truncated,
        "stopped": stacks.stopped,
        "stopped_reasons": reasons,
        "guessed": stacks.guessed,
        "user_missing": stacks.user_missing,
        "kernel_missing": stacks.kernel_missing,
        "frames": stacks.frames,
        "frames_unnamed": stacks.frames_unnamed,
        "frames_unnamed_despite_symbols": stacks.frames_unnamed_despite_symbols,
        "clock_period_ns": stacks.clock_period_ns,
        "clock_period_min_ns": stacks.clock_period_min_ns,
        "one_thread_in": stacks.one_thread_in,
        "off_cpu_ns": stacks.off_cpu_ns,
        "borrowed_ns": stacks.borrowed_ns,
        "missing_ns": stacks.missing_ns,
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_summary_for_programs_holds_the_stacks() {
        let stop = |reason: &str, count| proto::StopCount { reason: reason.to_owned(), count };
        let stacks = proto::StackQuality {
            records: 10,
            user_stacks: 10,
            complete: 7,
            stopped: 3,
            // Newer daemons may know reasons that we do not.
            stopped_reasons: vec![stop("no registers", 2), stop("a reason of tomorrow", 1)],
            guessed: 4,
            frames: 100,
            frames_unnamed: 1,
            ..proto::StackQuality::default()
        };
        let summary = proto::ProfileSummary { stacks: Some(stacks), ..proto::ProfileSummary::default() };
        assert_eq!(
            summary.stacks.as_ref().map(|stacks| shares(stacks).long()).as_deref(),
            Some(
                "stacks: 70.0 % complete, 30.0 % stopped early (no registers 20.0 %, a reason of tomorrow \
                 10.0 %); 40.0 % hold a guessed frame; frames without a name: 1.0 %"
            )
        );
        let json = to_json(&summary);
        assert_eq!((&json["stacks"]["complete"], &json["stacks"]["guessed"]), (&json!(7), &json!(4)));
        assert_eq!(json["stacks"]["stopped_reasons"][1]["reason"], "a reason of tomorrow");
        assert_eq!(to_json(&proto::ProfileSummary::default())["stacks"], Value::Null);
    }
}
