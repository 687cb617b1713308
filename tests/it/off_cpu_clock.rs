//! Continuous off-CPU time, sampled by the threads' clocks, against what each thread measured itself.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use profiler_tests::daemon::{Daemon, Site};
use profiler_tests::folded::Folded;
use profiler_tests::require_root;
use profiler_tests::run::wait_for;
use profiler_tests::workload::Workload;
use serde_json::json;

use crate::off_cpu::differs;

/// A window has to end before it can be asked for.
const WINDOW_LIMIT: Duration = Duration::from_secs(60);

pub(crate) fn off_cpu_of(daemon: &Daemon<'_>, pid: u32) -> Result<Folded> {
    let selector = format!("pid=\"{pid}\"");
    let arguments =
        ["flamegraph", "--kind", "off-cpu", "--since", "5m", "--where", &selector, "--format", "folded"];
    let outcome = daemon.site.cli(&arguments)?;
    // Nothing yet is an answer, too.
    if outcome.code == Some(4) {
        Ok(Folded::default())
    } else {
        Folded::parse(&outcome.expect_code(0)?.stdout)
    }
}

/// Runs the workload under a daemon whose clocks have this period; all that is stored of it.
fn sampled(period: &str, seconds: f64) -> Result<(Folded, Workload, f64)> {
    let site = Site::new()?;
    // No budget: the period stays as it is.
    let flags = [
        "--off-cpu-period",
        period,
        "--window",
        "1s",
        "--budget-off-cpu-samples",
        "1000000",
        "--budget-millicpus",
        "1000000",
    ];
    let daemon = site.start_with(&flags)?;
    let workload = Workload::new("offcpu", seconds)?;
    let since = Instant::now();
    let running = workload.start()?;
    let pid = running.pid();
    running.wait()?.expect_code(0)?;
    let took_us = since.elapsed().as_secs_f64() * 1e6;
    Ok((settled(&daemon, pid)?, workload, took_us))
}

/// All that is stored of a process that has ended, once nothing more comes.
pub(crate) fn settled(daemon: &Daemon<'_>, pid: u32) -> Result<Folded> {
    let (mut last, mut settled) = (0, 0);
    wait_for("the last window", WINDOW_LIMIT, || {
        std::thread::sleep(Duration::from_millis(1500));
        let folded = off_cpu_of(daemon, pid)?;
        let same = folded.total() > 0 && folded.total() == std::mem::replace(&mut last, folded.total());
        settled = if same { settled + 1 } else { 0 };
        Ok((settled >= 2).then_some(folded))
    })
}

#[test]
fn totals_are_true_for_every_thread_at_any_period() -> Result<()> {
    let _exclusive = require_root!();
    for (period, period_us, seconds) in [("10ms", 1e4, 6.0), ("100ms", 1e5, 12.0)] {
        let (folded, workload, took_us) = sampled(period, seconds)?;
        let mut wrong = Vec::new();
        for role in workload.truth()?.roles()? {
            let seen = folded.off_cpu(&role.comm);
            eprintln!(
                "{period} {}: {seen:?}, truth {:.0} to {:.0} us",
                role.comm, role.least_us, role.wait_us
            );
            let off = (seen.blocked + seen.run_queue + seen.preempted) as f64;
            // A tick is worth its period; the split into parts is drawn by lot, the sum is not.
            let share = if role.reason == "preempted" { 0.05 } else { 0.03 };
            let little = off < (1.0 - share) * role.least_us;
            let much = (seen.blocked + seen.run_queue) as f64 > (1.0 + share) * role.wait_us
                || off > took_us + period_us;
            if little || much {
                wrong.push(format!("{period} {}: {seen:?}, truth {role:?}", role.comm));
            }
        }
        assert!(wrong.is_empty(), "{wrong:#?}");
    }
    Ok(())
}

#[test]
fn every_interval_is_taken_at_period_zero_and_has_its_reason() -> Result<()> {
    let _exclusive = require_root!();
    let (folded, workload, took_us) = sampled("0s", 4.0)?;
    let roles = workload.truth()?.roles()?;
    let wrong: Vec<String> = roles
        .iter()
        .filter_map(|role| {
            Some(format!("{}: {role:?} {:?}", differs(&folded, role, 0.02)?, folded.off_cpu(&role.comm)))
        })
        .collect();
    assert!(wrong.is_empty(), "{wrong:#?}");
    for role in &roles {
        let seen = folded.off_cpu(&role.comm);
        assert!(((seen.blocked + seen.run_queue + seen.preempted) as f64) <= took_us, "{role:?} {seen:?}");
    }
    Ok(())
}

#[test]
fn a_hanging_thread_is_in_every_window_and_counted_once() -> Result<()> {
    let _exclusive = require_root!();
    let workload = Workload::new("offcpu", 100.0)?;
    let running = workload.start()?;
    std::thread::sleep(Duration::from_millis(300));
    let site = Site::new()?;
    let since = Instant::now();
    let daemon = site.start_with(&["--window", "1s", "--off-cpu-period", "10ms"])?;
    std::thread::sleep(Duration::from_secs(5));
    let folded = wait_for("three seconds of it", WINDOW_LIMIT, || {
        let folded = off_cpu_of(&daemon, running.pid())?;
        Ok((folded.off_cpu("oc-stuck").blocked > 3_000_000).then_some(folded))
    })?;
    let took_us = since.elapsed().as_secs_f64() * 1e6;
    let seen = folded.off_cpu("oc-stuck");
    assert!(seen.blocked as f64 <= took_us, "{seen:?} in {took_us} us");
    assert_eq!((seen.run_queue, seen.preempted), (0, 0));
    assert_eq!(folded.under("oc-stuck").heaviest_leaf().map(|(leaf, _)| leaf), Some("[blocked: pipe]"));
    // What waits a little and often has its user stack all the same.
    let own = folded.under("oc-sleeper").value_where(|row| row.holds(&["run_sleeper", "sleep_ns"]));
    assert!(own * 100 >= folded.under("oc-sleeper").total() * 95, "{:#?}", folded.under("oc-sleeper"));
    Ok(())
}

#[test]
fn nothing_is_fabricated_by_processes_that_come_and_go() -> Result<()> {
    let _exclusive = require_root!();
    let site = Site::new()?;
    let daemon = site.start_with(&["--window", "1s", "--off-cpu-period", "0s"])?;
    let since = Instant::now();
    // A name that nobody else on this host has; and one after the other, so that no two of them ever
    // wait at a time.
    let dir = tempfile::TempDir::new()?;
    let (name, program) = ("oc-brief-sleep", dir.path().join("oc-brief-sleep"));
    std::fs::copy("/bin/sleep", &program)?;
    let script = "i=0; while [ $i -lt 300 ]; do \"$0\" 0.002; i=$((i+1)); done";
    let status = std::process::Command::new("sh").args(["-c", script]).arg(&program).status()?;
    assert!(status.success());
    let took_us = since.elapsed().as_secs_f64() * 1e6;
    let selector = format!("comm=\"{name}\"");
    let arguments =
        ["flamegraph", "--kind", "off-cpu", "--since", "5m", "--where", &selector, "--format", "folded"];
    let folded = wait_for("all of them", WINDOW_LIMIT, || {
        let outcome = daemon.site.cli(&arguments)?;
        if outcome.code == Some(4) {
            return Ok(None);
        }
        let folded = Folded::parse(&outcome.expect_code(0)?.stdout)?;
        Ok((folded.total() as f64 >= 300.0 * 2000.0).then_some(folded))
    })?;
    assert!(folded.total() as f64 <= took_us, "{} us in {took_us} us", folded.total());
    let list = daemon.client()?.call(
        "profiler.v1.ProfileService/List",
        json!({"selection": {"kind": "PROFILE_KIND_OFF_CPU", "range": {"since": {"seconds": 300}}}}),
    )?;
    let processes = list[0]["processes"].as_array().context("no processes")?;
    assert!(processes.iter().all(|row| row["pid"].as_u64().is_some_and(|pid| pid > 0)), "{processes:#?}");
    Ok(())
}
