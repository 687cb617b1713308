//! Conversion between the model and the messages of `profiler.v1`.

use std::time::{Duration, SystemTime};

use regex::Regex;

use super::error::ApiError;
use crate::capture::{self, CaptureState};
use crate::model::{self, ProfileKind};
use crate::proto;
use crate::render::{self, Format, GroupBy};
use crate::store::{self, Summary};

/// A kind that can be asked for; unspecified means on-CPU.
pub(super) fn stored_kind(field: &'static str, kind: i32) -> Result<ProfileKind, ApiError> {
    match proto::ProfileKind::try_from(kind) {
        Ok(proto::ProfileKind::Unspecified | proto::ProfileKind::OnCpu) => Ok(ProfileKind::OnCpu),
        Ok(proto::ProfileKind::OffCpu) => Ok(ProfileKind::OffCpu),
        Err(_) => Err(ApiError::Invalid { field, problem: format!("{kind} is not a kind of profile") }),
    }
}

/// A format; unspecified means folded.
pub(super) fn format(format: i32) -> Result<Format, ApiError> {
    Ok(match proto::Format::try_from(format) {
        Ok(proto::Format::Unspecified | proto::Format::Folded) => Format::Folded,
        Ok(proto::Format::Svg) => Format::Svg,
        Ok(proto::Format::Pprof) => Format::Pprof,
        Ok(proto::Format::Speedscope) => Format::Speedscope,
        Ok(proto::Format::Json) => Format::Json,
        Ok(proto::Format::Firefox) => Format::Firefox,
        Err(_) => {
            let problem = format!("{format} is not a format");
            return Err(ApiError::Invalid { field: "format", problem });
        }
    })
}

/// A length of time that is not negative.
pub(super) fn duration(
    field: &'static str,
    duration: Option<prost_types::Duration>,
) -> Result<Option<Duration>, ApiError> {
    let duration = duration.map(|duration| {
        Duration::try_from(duration).map_err(|_| ApiError::Invalid {
            field,
            problem: format!("{duration} is not a length of time: it must not be negative"),
        })
    });
    duration.transpose()
}

/// An instant that the system's clock can hold.
pub(super) fn time(
    field: &'static str,
    time: Option<prost_types::Timestamp>,
) -> Result<Option<SystemTime>, ApiError> {
    let time = time.map(|time| {
        SystemTime::try_from(time).map_err(|_| ApiError::Invalid {
            field,
            problem: format!("{} s {} ns is not an instant", time.seconds, time.nanos),
        })
    });
    time.transpose()
}

fn kind(kind: ProfileKind) -> i32 {
    let kind = match kind {
        ProfileKind::OnCpu => proto::ProfileKind::OnCpu,
        ProfileKind::OffCpu => proto::ProfileKind::OffCpu,
        // Made by `record --wall` only, never stored.
        ProfileKind::Wall => proto::ProfileKind::Unspecified,
    };
    kind.into()
}

/// What does not fit (315 576 million years) is cut.
pub(super) fn length(duration: Duration) -> prost_types::Duration {
    prost_types::Duration::try_from(duration)
        .unwrap_or(prost_types::Duration { seconds: i64::MAX, nanos: 999_999_999 })
}

fn losses(loss: &model::Loss) -> Vec<proto::Loss> {
    let lines = loss.iter().map(|line| proto::Loss {
        stage: line.stage.name().to_owned(),
        reason: line.reason.to_owned(),
        count: line.count,
    });
    lines.collect()
}

pub(super) fn summary(summary: &Summary) -> proto::ProfileSummary {
    proto::ProfileSummary {
        kind: kind(summary.kind),
        unit: summary.kind.unit().to_owned(),
        total: summary.total,
        records: summary.records,
        from: Some(summary.range.from.into()),
        to: Some(summary.range.to.into()),
        covered: Some(length(summary.covered)),
        frequency_hz: summary.frequency_hz,
        losses: losses(&summary.loss),
        stacks: Some(stacks(&summary.quality)),
        total_error: summary.total_error,
        open_from: None,
        resolution: None,
    }
}

fn stacks(quality: &model::StackQuality) -> proto::StackQuality {
    let stop = |(reason, count): (model::StopReason, u64)| proto::StopCount {
        reason: reason.text().to_owned(),
        count,
    };
    proto::StackQuality {
        records: quality.records,
        user_stacks: quality.user_stacks,
        complete: quality.complete,
        truncated: quality.truncated,
        user_truncated: quality.user_truncated,
        stopped: quality.stopped_early(),
        stopped_reasons: quality.stop_counts().into_iter().map(stop).collect(),
        guessed: quality.guessed,
        user_missing: quality.user_missing,
        kernel_missing: quality.kernel_missing,
        frames: quality.frames,
        frames_unnamed: quality.frames_unnamed,
        frames_unnamed_despite_symbols: quality.frames_unnamed_despite_symbols,
        user_borrowed: quality.user_borrowed,
        clock_period_ns: quality.clock_period_ns,
        clock_period_min_ns: quality.clock_period_min_ns,
        one_thread_in: 1 << quality.thread_share.min(31),
        off_cpu_ns: quality.off_cpu_ns,
        borrowed_ns: quality.borrowed_ns,
        missing_ns: quality.missing_ns,
    }
}

pub(super) fn top_row(row: render::TopRow) -> proto::TopRow {
    // Buckets of every row would be more than a message holds.
    let waits =
        row.waits.into_iter().map(|waits| wait_times(render::WaitTimes { buckets: Vec::new(), ..waits }));
    proto::TopRow {
        frame: row.frame,
        self_: row.self_value,
        total: row.total_value,
        self_error: row.self_error,
        total_error: row.total_error,
        waits: waits.collect(),
    }
}

pub(super) fn wait_times(waits: render::WaitTimes) -> proto::WaitTimes {
    let bucket = |(from_ns, to_ns, count)| proto::WaitBucket { from_ns, to_ns, count };
    proto::WaitTimes {
        what: waits.what.to_owned(),
        count: waits.count,
        records: waits.records,
        p50_ns: waits.p50_ns,
        p90_ns: waits.p90_ns,
        p99_ns: waits.p99_ns,
        max_ns: waits.max_ns,
        still: waits.still,
        longest_still_ns: waits.longest_still_ns,
        buckets: waits.buckets.into_iter().map(bucket).collect(),
    }
}

pub(super) fn process_row(row: store::ProcessRow) -> proto::ProcessRow {
    let labels = &row.labels;
    proto::ProcessRow {
        pid: labels.pid.0,
        comm: labels.process_name().to_string(),
        exe: labels.exe.to_string(),
        value: row.value,
        container: labels.container.to_string(),
        pod: labels.pod.to_string(),
        unit: labels.unit.to_string(),
    }
}

pub(super) fn container_row(row: store::ContainerRow) -> proto::ContainerRow {
    proto::ContainerRow {
        container: row.container.to_string(),
        pod: row.pod.to_string(),
        namespace: row.namespace.to_string(),
        value: row.value,
    }
}

pub(super) fn stored(kind_: ProfileKind, range: model::TimeRange) -> proto::StoredKind {
    proto::StoredKind { kind: kind(kind_), from: Some(range.from.into()), to: Some(range.to.into()) }
}

pub(super) fn range(range: model::TimeRange) -> proto::TimeRange {
    proto::TimeRange { since: None, from: Some(range.from.into()), to: Some(range.to.into()) }
}

/// What a row of a table is; unspecified means a frame.
pub(super) fn group_by(by: i32) -> Result<GroupBy, ApiError> {
    Ok(match proto::GroupBy::try_from(by) {
        Ok(proto::GroupBy::Unspecified | proto::GroupBy::Frame) => GroupBy::Frame,
        Ok(proto::GroupBy::Process) => GroupBy::Process,
        Ok(proto::GroupBy::Thread) => GroupBy::Thread,
        Ok(proto::GroupBy::Container) => GroupBy::Container,
        Ok(proto::GroupBy::Pod) => GroupBy::Pod,
        Ok(proto::GroupBy::Unit) => GroupBy::Unit,
        Ok(proto::GroupBy::Reason) => GroupBy::Reason,
        Err(_) => {
            return Err(ApiError::Invalid { field: "by", problem: format!("{by} is nothing to group by") });
        }
    })
}

/// A regular expression; empty means none.
pub(super) fn regex(field: &'static str, text: &str) -> Result<Option<Regex>, ApiError> {
    if text.is_empty() {
        return Ok(None);
    }
    Regex::new(text).map(Some).map_err(|error| ApiError::Invalid { field, problem: error.to_string() })
}

pub(super) fn capture(capture: &capture::Capture) -> proto::Capture {
    let state = match capture.state {
        CaptureState::Pending => proto::CaptureState::Pending,
        CaptureState::Running => proto::CaptureState::Running,
        CaptureState::Done => proto::CaptureState::Done,
        CaptureState::Failed => proto::CaptureState::Failed,
    };
    proto::Capture {
        id: capture.id.clone(),
        kind: kind(capture.kind),
        target: Some(proto::Target {
            pids: capture.target.pids.iter().map(|pid| pid.0).collect(),
            cgroup: capture.target.cgroup.clone().unwrap_or_default(),
        }),
        state: state.into(),
        started: Some(capture.started.into()),
        ended: capture.ended.map(Into::into),
        duration: Some(length(capture.duration)),
        min_block: Some(length(capture.min_block)),
        reason: capture.reason.clone(),
        summary: capture.summary.as_ref().map(summary),
        cause: capture.cause.to_string(),
        labels: capture.cause.labels().iter().cloned().collect(),
        wakers: capture.wakers,
        limits: Some(proto::CaptureLimits {
            events_per_second: capture.allowance.events_per_second,
            bytes: capture.allowance.bytes,
            millicpus: capture.allowance.millicpus,
        }),
    }
}

pub(super) fn status(status: &model::Status) -> proto::StatusResponse {
    proto::StatusResponse {
        version: env!("CARGO_PKG_VERSION").to_owned(),
        started: Some(status.started.into()),
        cpu_time: Some(length(status.cpu_time)),
        rss_bytes: status.rss_bytes,
        rss_peak_bytes: status.rss_peak_bytes,
        bpf_map_bytes: status.bpf_map_bytes,
        unwinding: Some(unwinding(&status.unwinding)),
        on_cpu_frequency_hz: status.on_cpu_frequency_hz,
        off_cpu_active: status.off_cpu_active,
        on_cpu_samples: status.on_cpu_samples,
        off_cpu_intervals: status.off_cpu_intervals,
        losses: losses(&status.loss.of(ProfileKind::Wall)),
        windows: status.windows,
        store_bytes: status.store_bytes,
        oldest: status.oldest.map(Into::into),
        newest: status.newest.map(Into::into),
        captures_running: status.captures_running,
        store: Some(proto::Store {
            path: status.store.path.clone(),
            pending_windows: status.store.pending,
            problem: status.store.problem.clone(),
        }),
        off_cpu_period: status.off_cpu_period.map(length),
        cost: Some(cost(&status.cost)),
        off_cpu_one_thread_in: 1 << status.thread_share.min(31),
    }
}

fn cost(cost: &model::RecordingCost) -> proto::RecordingCost {
    let [cpus_budget, samples_per_second_budget, store_bytes_per_second_budget] = cost.budget;
    proto::RecordingCost {
        daemon_cpus: cost.daemon_cpus,
        programs_cpus: cost.programs_cpus,
        cpus_budget,
        samples_per_second: cost.samples_per_second,
        samples_per_second_budget,
        store_bytes_per_second: cost.store_bytes_per_second,
        store_bytes_per_second_budget,
    }
}

fn unwinding(unwinding: &model::Unwinding) -> proto::UnwindingStatus {
    let &model::Unwinding { tables, rows, rows_room, processes, building, without, no_room, covered_after } =
        unwinding;
    let covered_after = covered_after.map(length);
    proto::UnwindingStatus { tables, rows, rows_room, processes, building, without, no_room, covered_after }
}

pub(super) fn finding(finding: &model::Finding) -> proto::Finding {
    let severity = match finding.severity {
        model::Severity::Ok => proto::Severity::Ok,
        model::Severity::Warning => proto::Severity::Warning,
        model::Severity::Error => proto::Severity::Error,
    };
    proto::Finding {
        check: finding.check.to_owned(),
        severity: severity.into(),
        message: finding.message.clone(),
        fix: finding.fix.clone(),
    }
}
