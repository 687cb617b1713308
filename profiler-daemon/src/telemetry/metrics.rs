//! The metrics page: a snapshot of the agent in the OpenMetrics text format, which Prometheus reads.

use std::sync::atomic::AtomicU64;

use prometheus_client::encoding::{EncodeLabelSet, text};
use prometheus_client::metrics::counter::{ConstCounter, Counter};
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::{ConstGauge, Gauge};
use prometheus_client::metrics::info::Info;
use prometheus_client::registry::{Registry, Unit};

use crate::model::{CaptureCounts, ProfileKind, StackQuality, Status, Unwinding};

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct PartLabel {
    part: &'static str,
}

/// The `Content-Type` of [`encode`]'s text.
pub const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct KindLabel {
    kind: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct CauseLabel {
    cause: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ReasonLabel {
    reason: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OutcomeLabel {
    outcome: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct LossLabels {
    kind: &'static str,
    stage: &'static str,
    reason: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct StackLabels {
    kind: &'static str,
    end: &'static str,
}

/// The page. Counters count since the daemon started.
#[must_use]
pub fn encode(status: &Status, version: &str) -> String {
    let mut registry = Registry::default();
    let process = registry.sub_registry_with_prefix("process");
    process.register_with_unit(
        "cpu",
        "CPU time of the daemon, user and system",
        Unit::Seconds,
        ConstCounter::new(status.cpu_time.as_secs_f64()),
    );

    let ours = registry.sub_registry_with_prefix("profiler");
    ours.register("build", "Version of the daemon", Info::new([("version", version.to_owned())]));
    recorded(ours, status);
    stacks(ours, status);
    cost(ours, status);
    stored(ours, status);
    captures(ours, &status.captures);
    unwinding(ours, &status.unwinding);

    let mut page = String::new();
    // Writing into a String cannot fail; a page cut short would lack its `# EOF` and be refused.
    let _ = text::encode(&mut page, &registry);
    page
}

/// What was recorded, and what is missing.
fn recorded(ours: &mut Registry, status: &Status) {
    let samples = Family::<KindLabel, Counter>::default();
    for (kind, count) in
        [(ProfileKind::OnCpu, status.on_cpu_samples), (ProfileKind::OffCpu, status.off_cpu_intervals)]
    {
        samples.get_or_create(&KindLabel { kind: kind.name() }).inc_by(count);
    }
    ours.register("samples", "Records received from the kernel: on-CPU hits, off-CPU intervals", samples);

    let lost = Family::<LossLabels, Counter>::default();
    for kind in [ProfileKind::OnCpu, ProfileKind::OffCpu] {
        for line in status.loss.of(kind).iter() {
            let labels = LossLabels { kind: kind.name(), stage: line.stage.name(), reason: line.reason };
            lost.get_or_create(&labels).inc_by(line.count);
        }
    }
    ours.register("lost", "What is missing from profiles, by where and why it was lost", lost);
    ours.register_with_unit(
        "on_cpu_frequency",
        "On-CPU sampling frequency now, per CPU; 0 while not sampling",
        Unit::Other("hertz".to_owned()),
        ConstGauge::new(status.on_cpu_frequency_hz),
    );
    ours.register(
        "off_cpu_active",
        "1 while the scheduler hooks are attached",
        ConstGauge::new(u64::from(status.off_cpu_active)),
    );
}

/// How the stacks of the records ended, and how many of their frames have names.
fn stacks(ours: &mut Registry, status: &Status) {
    let ends = Family::<StackLabels, Counter>::default();
    let guessed = Family::<KindLabel, Counter>::default();
    let frames = Family::<KindLabel, Counter>::default();
    let unnamed = Family::<KindLabel, Counter>::default();
    for (kind, quality) in
        [(ProfileKind::OnCpu, &status.stacks.on_cpu), (ProfileKind::OffCpu, &status.stacks.off_cpu)]
    {
        for (end, count) in stack_ends(quality) {
            ends.get_or_create(&StackLabels { kind: kind.name(), end }).inc_by(count);
        }
        let kind = KindLabel { kind: kind.name() };
        guessed.get_or_create(&kind).inc_by(quality.guessed);
        frames.get_or_create(&kind).inc_by(quality.frames);
        unnamed.get_or_create(&kind).inc_by(quality.frames_unnamed);
    }
    ours.register("user_stacks", "User stacks, by how their walk ended", ends);
    ours.register("guessed_stacks", "Stacks with frames found by the frame pointer alone", guessed);
    ours.register("frames", "Frames of all records", frames);
    ours.register("frames_unnamed", "Frames without a name", unnamed);
}

/// Every end a user stack can have; together they are all user stacks.
fn stack_ends(quality: &StackQuality) -> Vec<(&'static str, u64)> {
    let mut ends = vec![("complete", quality.complete), ("truncated", quality.user_truncated)];
    ends.extend(quality.stop_counts().into_iter().map(|(reason, count)| (reason.text(), count)));
    let known: u64 = ends.iter().map(|(_, count)| count).sum();
    ends.push(("not readable", quality.user_stacks.saturating_sub(known)));
    ends
}

/// What the agent costs.
fn cost(ours: &mut Registry, status: &Status) {
    ours.register_with_unit(
        "rss",
        "Resident memory of the daemon",
        Unit::Bytes,
        ConstGauge::new(status.rss_bytes),
    );
    ours.register_with_unit(
        "rss_peak",
        "The most resident memory that the daemon ever had",
        Unit::Bytes,
        ConstGauge::new(status.rss_peak_bytes),
    );
    ours.register_with_unit(
        "bpf_map",
        "Memory of the BPF maps, as the kernel charges it",
        Unit::Bytes,
        ConstGauge::new(status.bpf_map_bytes),
    );
    if let Some(time) = status.bpf_run_time {
        ours.register_with_unit(
            "bpf_run",
            "Time spent in the eBPF programs",
            Unit::Seconds,
            ConstCounter::new(time.as_secs_f64()),
        );
    }
    let recording = &status.cost;
    let cpus = Family::<PartLabel, Gauge<f64, AtomicU64>>::default();
    let mut parts = vec![("daemon", recording.daemon_cpus), ("budget", recording.budget[0])];
    parts.extend(recording.programs_cpus.map(|cpus| ("programs", cpus)));
    for (part, value) in parts {
        cpus.get_or_create(&PartLabel { part }).set(value);
    }
    ours.register("recording_cpus", "CPUs that recording keeps busy of late, and may", cpus);
    for (name, help, value) in [
        ("off_cpu_samples_per_second", "Off-CPU samples a second now", recording.samples_per_second),
        ("off_cpu_samples_budget", "Off-CPU samples a second that there may be", recording.budget[1]),
        ("store_bytes_per_second", "Bytes a second that go into the store", recording.store_bytes_per_second),
        ("store_bytes_budget", "Bytes a second that may go into the store", recording.budget[2]),
    ] {
        ours.register(name, help, ConstGauge::new(value));
    }
    ours.register(
        "off_cpu_one_thread_in",
        "The off-CPU clocks look at one thread in so many",
        ConstGauge::new(1_u64 << status.thread_share.min(63)),
    );
    if let Some(period) = status.off_cpu_period {
        ours.register_with_unit(
            "off_cpu_period",
            "Off-CPU time of a thread between two samples; 0 takes every interval",
            Unit::Seconds,
            ConstGauge::new(period.as_secs_f64()),
        );
    }
}

/// The unwinding tables.
fn unwinding(ours: &mut Registry, unwinding: &Unwinding) {
    for (name, help, value) in [
        ("unwinding_tables", "Files with an unwinding table in the kernel", unwinding.tables),
        ("unwinding_rows", "Rows of all unwinding tables", unwinding.rows),
        ("unwinding_rows_room", "Rows that there is room for", unwinding.rows_room),
        ("unwinding_processes", "Processes whose mappings are known in the kernel", unwinding.processes),
        ("unwinding_building", "Files whose unwinding table is being built", unwinding.building),
        ("unwinding_without", "Files without usable unwinding information", unwinding.without),
    ] {
        ours.register(name, help, ConstGauge::new(value));
    }
    ours.register(
        "unwinding_no_room",
        "Times that an unwinding table or a process found no room",
        ConstCounter::new(unwinding.no_room),
    );
    if let Some(after) = unwinding.covered_after {
        ours.register_with_unit(
            "unwinding_covered_after",
            "From the start until every process that ran then could be unwound",
            Unit::Seconds,
            ConstGauge::new(after.as_secs_f64()),
        );
    }
}

/// What is kept and what is going on.
fn stored(ours: &mut Registry, status: &Status) {
    ours.register("store_windows", "Sealed windows in the store", ConstGauge::new(status.windows));
    ours.register_with_unit(
        "store",
        "Disk space of the store; its memory while it has no file",
        Unit::Bytes,
        ConstGauge::new(status.store_bytes),
    );
    ours.register(
        "store_pending_windows",
        "Windows that wait in memory because the disk does not take them now",
        ConstGauge::new(status.store.pending),
    );
    ours.register(
        "store_failing",
        "1 while nothing can be written to disk",
        ConstGauge::new(u64::from(!status.store.problem.is_empty())),
    );
    ours.register("captures_running", "Captures that run now", ConstGauge::new(status.captures_running));
}

/// What came of requests for captures.
fn captures(ours: &mut Registry, counts: &CaptureCounts) {
    let started = Family::<CauseLabel, Counter>::default();
    for &(cause, count) in &counts.started {
        started.get_or_create(&CauseLabel { cause }).inc_by(count);
    }
    ours.register("captures_started", "Captures that were started, by cause", started);
    let refused = Family::<ReasonLabel, Counter>::default();
    for &(reason, count) in &counts.refused {
        refused.get_or_create(&ReasonLabel { reason }).inc_by(count);
    }
    ours.register("captures_refused", "Captures that were asked for and not started, by why", refused);
    let alerts = Family::<OutcomeLabel, Counter>::default();
    for &(outcome, count) in &counts.alerts {
        alerts.get_or_create(&OutcomeLabel { outcome }).inc_by(count);
    }
    ours.register("alerts", "Alerts that came in, by what became of them", alerts);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{KindLoss, KindQuality, RecordingCost, Stage};
    use std::time::{Duration, SystemTime};

    /// A family's rows come in any order: the page with those of each sorted.
    fn sorted(page: &str) -> String {
        let mut lines: Vec<&str> = page.lines().collect();
        for rows in lines.chunk_by_mut(|a, b| a.starts_with('#') == b.starts_with('#')) {
            if !rows[0].starts_with('#') {
                rows.sort_unstable();
            }
        }
        lines.join("\n") + "\n"
    }

    #[test]
    fn the_page() {
        let mut loss = KindLoss::default();
        loss.on_cpu.add(Stage::Kernel, "on-CPU ring full", 7);
        let on_cpu = StackQuality {
            records: 12,
            user_stacks: 11,
            complete: 7,
            user_truncated: 1,
            stopped: [0, 2, 0, 0, 0, 0],
            guessed: 3,
            frames: 90,
            frames_unnamed: 4,
            ..StackQuality::default()
        };
        let stacks = KindQuality { on_cpu, ..KindQuality::default() };
        let status = Status {
            started: SystemTime::UNIX_EPOCH,
            cpu_time: Duration::from_millis(1500),
            bpf_run_time: Some(Duration::from_millis(250)),
            rss_bytes: 1 << 20,
            rss_peak_bytes: 1 << 21,
            bpf_map_bytes: 4096,
            on_cpu_frequency_hz: 99.0,
            off_cpu_active: true,
            off_cpu_period: None,
            on_cpu_samples: 12,
            off_cpu_intervals: 0,
            loss,
            stacks,
            windows: 3,
            store_bytes: 2048,
            store: crate::model::StoreStatus::default(),
            oldest: None,
            newest: None,
            captures_running: 1,
            unwinding: Unwinding { covered_after: Some(Duration::from_millis(640)), ..Unwinding::default() },
            captures: CaptureCounts {
                started: vec![("alert", 2)],
                refused: vec![("busy", 1)],
                alerts: vec![("duplicate", 9)],
            },
            cost: RecordingCost {
                daemon_cpus: 0.004,
                programs_cpus: Some(0.001),
                samples_per_second: 120.0,
                store_bytes_per_second: 2000.0,
                budget: [0.01, 500.0, 65536.0],
            },
            thread_share: 2,
        };
        let page = encode(&status, "0.1.0");
        assert_eq!(sorted(&page), include_str!("metrics.golden.txt"));
        assert!(page.ends_with("# EOF\n"));
    }

    #[test]
    fn no_figure_is_better_than_a_wrong_one() {
        let status = Status {
            started: SystemTime::UNIX_EPOCH,
            cpu_time: Duration::ZERO,
            bpf_run_time: None,
            rss_bytes: 0,
            rss_peak_bytes: 0,
            bpf_map_bytes: 0,
            on_cpu_frequency_hz: 0.0,
            off_cpu_active: false,
            off_cpu_period: None,
            on_cpu_samples: 0,
            off_cpu_intervals: 0,
            loss: KindLoss::default(),
            stacks: KindQuality::default(),
            windows: 0,
            store_bytes: 0,
            store: crate::model::StoreStatus::default(),
            oldest: None,
            newest: None,
            captures_running: 0,
            captures: CaptureCounts::default(),
            unwinding: Unwinding::default(),
            cost: RecordingCost::default(),
            thread_share: 0,
        };
        let page = encode(&status, "0.1.0");
        assert!(!page.contains("bpf_run"), "{page}");
        assert!(page.contains("profiler_samples_total{kind=\"off-cpu\"} 0\n"), "{page}");
    }
}
