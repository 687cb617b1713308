//! The metrics page: a snapshot of the agent in the OpenMetrics text format, which Prometheus reads.

use prometheus_client::encoding::{EncodeLabelSet, text};
use prometheus_client::metrics::counter::{ConstCounter, Counter};
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::metrics::info::Info;
use prometheus_client::registry::{Registry, Unit};

use crate::model::{ProfileKind, Status};

/// The `Content-Type` of [`encode`]'s text.
pub const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct KindLabel {
    kind: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct LossLabels {
    kind: &'static str,
    stage: &'static str,
    reason: &'static str,
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
    cost(ours, status);
    stored(ours, status);

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

/// What the agent costs.
fn cost(ours: &mut Registry, status: &Status) {
    ours.register_with_unit(
        "rss",
        "Resident memory of the daemon",
        Unit::Bytes,
        ConstGauge::new(status.rss_bytes),
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
}

/// What is kept and what is going on.
fn stored(ours: &mut Registry, status: &Status) {
    ours.register("store_windows", "Sealed windows in the store", ConstGauge::new(status.windows));
    ours.register_with_unit(
        "store",
        "Memory of the store, an upper bound",
        Unit::Bytes,
        ConstGauge::new(status.store_bytes),
    );
    ours.register("captures_running", "Captures that run now", ConstGauge::new(status.captures_running));
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{KindLoss, Stage};
    use std::time::{Duration, SystemTime};

    #[test]
    fn the_page() {
        let mut loss = KindLoss::default();
        loss.on_cpu.add(Stage::Kernel, "on-CPU ring full", 7);
        let status = Status {
            started: SystemTime::UNIX_EPOCH,
            cpu_time: Duration::from_millis(1500),
            bpf_run_time: Some(Duration::from_millis(250)),
            rss_bytes: 1 << 20,
            bpf_map_bytes: 4096,
            on_cpu_frequency_hz: 99.0,
            off_cpu_active: true,
            off_cpu_period: None,
            on_cpu_samples: 12,
            off_cpu_intervals: 0,
            loss,
            windows: 3,
            store_bytes: 2048,
            oldest: None,
            newest: None,
            captures_running: 1,
        };
        let page = encode(&status, "0.1.0");
        // A family's rows come in any order: compare as sets where there are several.
        let mut lines: Vec<&str> = page.lines().collect();
        let samples =
            lines.iter().position(|line| line.starts_with("profiler_samples_total")).expect("samples");
        lines[samples..samples + 2].sort_unstable();
        assert_eq!(lines.join("\n") + "\n", include_str!("metrics.golden.txt"));
        assert!(page.ends_with("# EOF\n"));
    }

    #[test]
    fn no_figure_is_better_than_a_wrong_one() {
        let status = Status {
            started: SystemTime::UNIX_EPOCH,
            cpu_time: Duration::ZERO,
            bpf_run_time: None,
            rss_bytes: 0,
            bpf_map_bytes: 0,
            on_cpu_frequency_hz: 0.0,
            off_cpu_active: false,
            off_cpu_period: None,
            on_cpu_samples: 0,
            off_cpu_intervals: 0,
            loss: KindLoss::default(),
            windows: 0,
            store_bytes: 0,
            oldest: None,
            newest: None,
            captures_running: 0,
        };
        let page = encode(&status, "0.1.0");
        assert!(!page.contains("bpf_run"), "{page}");
        assert!(page.contains("profiler_samples_total{kind=\"off-cpu\"} 0\n"), "{page}");
    }
}
