//! `profiler status`: what a daemon does, costs and lost.

use serde_json::json;

use crate::cli::{Layout, StatusArgs};
use crate::proto::{RecordingCost, StatusRequest, StatusResponse, UnwindingStatus};

use super::connect::{ANSWER_DEADLINE, Daemon, request};
use super::output::Output;
use super::table::facts;
use super::{Failure, summary, times};

/// `profiler status`.
///
/// # Errors
/// No daemon.
pub async fn status(args: &StatusArgs) -> Result<(), Failure> {
    let daemon = Daemon::connect(&args.reach.connect).await?;
    let mut agent = daemon.agent();
    let answer =
        daemon.answer(ANSWER_DEADLINE, agent.status(request(StatusRequest {}, ANSWER_DEADLINE))).await?;
    Output::stdout().text(&match args.output {
        Layout::Table => as_table(&answer),
        Layout::Json => as_json(&answer),
    })
}

fn as_table(status: &StatusResponse) -> String {
    let time = |time| times::system_time(time).map_or_else(|| "-".to_owned(), times::local);
    let mebibytes = |bytes: u64| format!("{:.1} MiB", bytes as f64 / f64::from(1 << 20));
    let on_cpu = match status.on_cpu_frequency_hz {
        hertz if hertz > 0.0 => format!("{hertz:.0} Hz, {} samples", status.on_cpu_samples),
        _ => format!("off, {} samples", status.on_cpu_samples),
    };
    let off_cpu = match &status.off_cpu_period {
        Some(period) if times::duration(Some(*period)).is_zero() => "every interval".to_owned(),
        Some(period) => {
            let threads = match status.off_cpu_one_thread_in {
                0 | 1 => String::new(),
                one_in => format!(" of 1 in {one_in} threads"),
            };
            format!("a sample every {}{threads}", times::short(times::duration(Some(*period))))
        }
        None if status.off_cpu_active => "on".to_owned(),
        None => "off".to_owned(),
    };
    let store = status.store.clone().unwrap_or_default();
    let place = if store.path.is_empty() { "in memory".to_owned() } else { store.path };
    let mut lines = vec![
        ("version", status.version.clone()),
        ("started", time(status.started)),
        ("on-CPU", on_cpu),
        ("off-CPU", format!("{off_cpu}, {} intervals", status.off_cpu_intervals)),
        ("captures", format!("{} running", status.captures_running)),
        ("lost", summary::losses(&status.losses)),
        ("cost", cost(&status.cost.unwrap_or_default())),
        ("CPU time", times::short(times::duration(status.cpu_time))),
        ("memory", format!("{}, at most {}", mebibytes(status.rss_bytes), mebibytes(status.rss_peak_bytes))),
        ("BPF maps", mebibytes(status.bpf_map_bytes)),
        ("unwinding", unwinding(&status.unwinding.unwrap_or_default())),
        ("store", format!("{} windows, {}", status.windows, mebibytes(status.store_bytes))),
        ("oldest", time(status.oldest)),
        ("newest", time(status.newest)),
        ("kept", place),
    ];
    if !store.problem.is_empty() {
        let pending = store.pending_windows;
        lines.push(("problem", format!("{}; {pending} windows wait in memory", store.problem)));
    }
    facts(&lines)
}

fn as_json(status: &StatusResponse) -> String {
    let store = status.store.clone().unwrap_or_default();
    let time = |time| times::system_time(time).and_then(times::rfc3339);
    let json = json!({
        "version": status.version,
        "started": time(status.started),
        "cpu_seconds": times::duration(status.cpu_time).as_secs_f64(),
        "rss_bytes": status.rss_bytes,
        "rss_peak_bytes": status.rss_peak_bytes,
        "bpf_map_bytes": status.bpf_map_bytes,
        "on_cpu_frequency_hz": status.on_cpu_frequency_hz,
        "off_cpu_active": status.off_cpu_active,
        "off_cpu_period_seconds": status.off_cpu_period.map(|period| times::duration(Some(period)).as_secs_f64()),
        "off_cpu_one_thread_in": status.off_cpu_one_thread_in,
        "cost": cost_json(&status.cost.unwrap_or_default()),
        "on_cpu_samples": status.on_cpu_samples,
        "off_cpu_intervals": status.off_cpu_intervals,
        "losses": summary::losses_json(&status.losses),
        "windows": status.windows,
        "store_bytes": status.store_bytes,
        "oldest": time(status.oldest),
        "newest": time(status.newest),
        "captures_running": status.captures_running,
        "unwinding": unwinding_json(&status.unwinding.unwrap_or_default()),
        "store": {
            "path": store.path,
            "pending_windows": store.pending_windows,
            "problem": store.problem,
        },
    });
    format!("{json:#}\n")
}

/// `daemon 0.31 %, programs 0.12 % of a CPU (1 % allowed), 120 of 500 samples/s, 2.1 of 64.0 KiB/s`
fn cost(cost: &RecordingCost) -> String {
    let percent = |cpus: f64| 100.0 * cpus;
    let kibibytes = |bytes: f64| bytes / 1024.0;
    let programs = cost.programs_cpus.map_or_else(
        || "programs not measured: of".to_owned(),
        |cpus| format!("programs {:.2} % of", percent(cpus)),
    );
    format!(
        "daemon {:.2} %, {programs} a CPU ({} % allowed), {:.0} of {:.0} off-CPU samples/s, {:.1} of {:.1} KiB/s stored",
        percent(cost.daemon_cpus),
        (1000.0 * cost.cpus_budget).round() / 10.0,
        cost.samples_per_second,
        cost.samples_per_second_budget,
        kibibytes(cost.store_bytes_per_second),
        kibibytes(cost.store_bytes_per_second_budget)
    )
}

fn cost_json(cost: &RecordingCost) -> serde_json::Value {
    json!({
        "daemon_cpus": cost.daemon_cpus,
        "programs_cpus": cost.programs_cpus,
        "cpus_budget": cost.cpus_budget,
        "samples_per_second": cost.samples_per_second,
        "samples_per_second_budget": cost.samples_per_second_budget,
        "store_bytes_per_second": cost.store_bytes_per_second,
        "store_bytes_per_second_budget": cost.store_bytes_per_second_budget,
    })
}

/// `33 tables, 3.4 M rows, 13.0 of 32.0 MiB, 36 processes, all after 640ms, 2 files being read`
fn unwinding(unwinding: &UnwindingStatus) -> String {
    // A row is four bytes.
    let mebibytes = |rows: u64| rows as f64 * 4.0 / f64::from(1 << 20);
    let mut text = format!(
        "{} tables, {:.1} M rows, {:.1} of {:.1} MiB, {} processes",
        unwinding.tables,
        unwinding.rows as f64 / 1e6,
        mebibytes(unwinding.rows),
        mebibytes(unwinding.rows_room),
        unwinding.processes
    );
    if let Some(after) = unwinding.covered_after {
        text.push_str(&format!(", all after {}", times::short(times::duration(Some(after)))));
    }
    for (count, what) in [
        (unwinding.building, "files being read"),
        (unwinding.without, "files without unwinding information"),
        (unwinding.no_room, "without room"),
    ] {
        if count > 0 {
            text.push_str(&format!(", {count} {what}"));
        }
    }
    text
}

fn unwinding_json(unwinding: &UnwindingStatus) -> serde_json::Value {
    json!({
        "tables": unwinding.tables,
        "rows": unwinding.rows,
        "rows_room": unwinding.rows_room,
        "processes": unwinding.processes,
        "building": unwinding.building,
        "without": unwinding.without,
        "no_room": unwinding.no_room,
        "covered_after_seconds":
            unwinding.covered_after.map(|after| times::duration(Some(after)).as_secs_f64()),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proto::Loss;

    #[test]
    fn losses_are_shown() {
        let loss = Loss { stage: "kernel".to_owned(), reason: "on-CPU ring full".to_owned(), count: 3 };
        let status = StatusResponse {
            version: "0.1.0".to_owned(),
            on_cpu_frequency_hz: 99.0,
            rss_bytes: 3 << 19,
            rss_peak_bytes: 1 << 21,
            unwinding: Some(UnwindingStatus {
                tables: 3,
                rows: 1 << 20,
                rows_room: 1 << 23,
                processes: 5,
                building: 1,
                covered_after: Some(prost_types::Duration { seconds: 0, nanos: 640_000_000 }),
                ..UnwindingStatus::default()
            }),
            losses: vec![loss],
            ..StatusResponse::default()
        };
        let text = as_table(&status);
        for line in
            ["version    0.1.0", "on-CPU     99 Hz, 0 samples", "lost       3 (kernel: on-CPU ring full)"]
        {
            assert!(text.lines().any(|shown| shown == line), "{line} in {text}");
        }
        assert!(text.contains("memory     1.5 MiB, at most 2.0 MiB\n"), "{text}");
        let tables = "unwinding  3 tables, 1.0 M rows, 4.0 of 32.0 MiB, 5 processes, all after 640ms, 1 files being read\n";
        assert!(text.contains(tables), "{text}");
        let json: serde_json::Value = serde_json::from_str(&as_json(&status)).expect("JSON");
        assert_eq!(json["losses"][0]["count"], 3);
        assert_eq!(json["oldest"], serde_json::Value::Null);
    }
}
