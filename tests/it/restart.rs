//! A daemon that is killed and started again over the same state directory.

use std::time::{Duration, SystemTime};

use anyhow::{Context as _, Result, ensure};
use profiler_tests::daemon::Site;
use profiler_tests::folded::Folded;
use profiler_tests::require_root;
use profiler_tests::run::wait_for;
use profiler_tests::workload::Workload;
use rustix::process::Signal;
use serde_json::Value;

const LIMIT: Duration = Duration::from_secs(60);

/// Windows of a second, so that several are sealed soon; and samples enough on a busy machine, too.
const ARGUMENTS: [&str; 6] = ["--window", "1s", "--on-cpu-frequency", "199", "--budget-millicpus", "1000"];

fn now() -> Result<u64> {
    Ok(SystemTime::now().duration_since(SystemTime::UNIX_EPOCH)?.as_secs())
}

/// A second since 1970 as `--from` takes it.
fn time(second: u64) -> String {
    humantime::format_rfc3339(SystemTime::UNIX_EPOCH + Duration::from_secs(second)).to_string()
}

fn folded(site: &Site, selector: &str, from: u64, to: u64) -> Result<Folded> {
    let (from, to) = (time(from), time(to));
    let query = ["flamegraph", "--from", &from, "--until", &to, "--where", selector];
    Folded::parse(&site.cli(&query)?.expect_code(0)?.stdout)
}

fn listed(site: &Site, from: u64) -> Result<Value> {
    let from = time(from);
    let outcome = site.cli(&["list", "--from", &from, "--output", "json"])?.expect_code(0)?;
    Ok(serde_json::from_str(&outcome.stdout)?)
}

#[test]
fn windows_from_before_a_kill_are_there_afterwards_and_the_gap_is_told() -> Result<()> {
    let _exclusive = require_root!();
    let site = Site::new()?;
    let mut daemon = site.start_with(&ARGUMENTS)?;
    let workload = Workload::new("spin", 100.0)?;
    let running = workload.start()?;
    let selector = format!("pid=\"{}\"", running.pid());
    let start = now()? + 2;
    // What ended two seconds ago is sealed and on disk.
    wait_for("six seconds of windows", LIMIT, || Ok((now()? > start + 8).then_some(())))?;
    let before = folded(&site, &selector, start, start + 6)?;
    ensure!(before.total() > 100, "{before:#?}");
    daemon.running.signal(Signal::KILL)?;
    wait_for("the daemon's end", LIMIT, || Ok((!daemon.running.is_running()?).then_some(())))?;
    let killed = now()?;
    drop(daemon);

    // So long that the gap is seen whatever a start takes.
    std::thread::sleep(Duration::from_secs(4));
    let _daemon = site.start_with(&ARGUMENTS)?;
    let restarted = now()?;
    let after = folded(&site, &selector, start, start + 6)?;
    ensure!(after.total() == before.total(), "{} samples were {} before", after.total(), before.total());
    ensure!(after.heaviest_leaf() == before.heaviest_leaf(), "{after:#?}");

    wait_for("windows of the new daemon", LIMIT, || Ok((now()? > restarted + 4).then_some(())))?;
    let json = listed(&site, start)?;
    let gaps = json["gaps"].as_array().context("no gaps")?;
    let told: f64 = gaps.iter().filter_map(|gap| gap["seconds"].as_f64()).sum();
    let covered = json["summary"]["covered_seconds"].as_f64().context("no coverage")?;
    let asked = (now()? - start) as f64;
    let down = (restarted - killed) as f64;
    ensure!(told >= down - 1.5, "down for {down} s, told of {told}: {json:#}");
    ensure!(covered <= asked - told + 2.5, "{covered} s covered of {asked}, {told} s missing: {json:#}");
    Ok(())
}
