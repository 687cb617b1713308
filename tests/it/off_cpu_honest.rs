//! No off-CPU time is made up: pids used again, tasks killed while they wait, restarts, window borders.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use anyhow::{Context as _, Result, ensure};
use profiler_tests::daemon::{Daemon, Site};
use profiler_tests::folded::Folded;
use profiler_tests::privilege::skip;
use profiler_tests::require_root;
use profiler_tests::run::{Running, wait_for};
use profiler_tests::workload::Workload;
use rustix::process::Signal;
use serde_json::{Value, json};
use tempfile::TempDir;

/// A window has to end before it can be asked for.
const WINDOW_LIMIT: Duration = Duration::from_secs(60);
/// What one window of 2 s may hold of a second of one thread, microseconds: the sweeps that cut a long
/// wait come with the timer that reads the rings, 50 ms early or late.
const SWAY: (f64, f64) = (0.95e6, 1.05e6);
const LAST_PID: &str = "/proc/sys/kernel/ns_last_pid";
/// Others start processes, too.
const TRIES: usize = 500;

/// `sleep` under a name that nobody else on this host has.
struct Sleep(PathBuf);

impl Sleep {
    fn new(dir: &Path, name: &str) -> Result<Self> {
        let program = dir.join(name);
        fs::copy("/bin/sleep", &program)?;
        Ok(Self(program))
    }

    fn start(&self, seconds: &str) -> Result<Running> {
        let mut command = Command::new(&self.0);
        command.arg(seconds);
        Running::start(command)
    }

    /// Starts it as this pid, which nobody has.
    fn start_as(&self, pid: u32) -> Result<Option<Running>> {
        for _ in 0..TRIES {
            if fs::write(LAST_PID, (pid - 1).to_string()).is_err() {
                return Ok(None);
            }
            let running = self.start("1")?;
            if running.pid() == pid {
                return Ok(Some(running));
            }
        }
        Ok(None)
    }
}

/// Off-CPU time in a range, folded, and the seconds that windows cover in it.
fn query(daemon: &Daemon<'_>, selector: &str, range: &Value) -> Result<(Folded, f64)> {
    let selection = json!({"kind": "PROFILE_KIND_OFF_CPU", "where": selector, "range": range});
    let request = json!({"selection": selection, "format": "FORMAT_FOLDED"});
    let parts = match daemon.client()?.call("profiler.v1.ProfileService/Query", request) {
        Ok(parts) => parts,
        // Nothing yet is an answer, too.
        Err(status) if status.code() == tonic::Code::NotFound => return Ok((Folded::default(), 0.0)),
        Err(status) => return Err(status.into()),
    };
    let text: String = parts.iter().filter_map(|part| part["text"].as_str()).collect();
    let covered = parts.iter().map(|part| &part["summary"]["covered"]).find(|covered| !covered.is_null());
    let number = |name: &str| covered.and_then(|covered| covered[name].as_f64()).unwrap_or(0.0);
    Ok((Folded::parse(&text)?, number("seconds") + number("nanos") / 1e9))
}

fn lately() -> Value {
    json!({"since": {"seconds": 300}})
}

/// Microseconds stored of this selector, once they are as many as these and no more come.
fn at_least(daemon: &Daemon<'_>, selector: &str, least_us: f64) -> Result<f64> {
    let (mut last, mut same) = (0, 0);
    wait_for(&format!("{least_us} us of {selector}"), WINDOW_LIMIT, || {
        std::thread::sleep(Duration::from_millis(1200));
        let total = query(daemon, selector, &lately())?.0.total();
        same = if total == std::mem::replace(&mut last, total) { same + 1 } else { 0 };
        Ok((total as f64 >= least_us && same >= 2).then_some(total as f64))
    })
}

#[test]
fn a_pid_used_again_inherits_nothing_from_a_task_killed_while_it_waited() -> Result<()> {
    let _exclusive = require_root!();
    for (period, tick_us) in [("0s", 0.0), ("10ms", 10_000.0)] {
        let dir = TempDir::new()?;
        let (first, second) = (Sleep::new(dir.path(), "oc-first")?, Sleep::new(dir.path(), "oc-second")?);
        let site = Site::new()?;
        let flags = ["--window", "1s", "--off-cpu-period", period, "--budget-off-cpu-samples", "1000000"];
        let daemon = site.start_with(&flags)?;
        let since = Instant::now();
        let running = first.start("1000")?;
        let pid = running.pid();
        std::thread::sleep(Duration::from_secs(4));
        // Killed, and waited for.
        drop(running);
        let first_us = since.elapsed().as_secs_f64() * 1e6;
        let since = Instant::now();
        let Some(running) = second.start_as(pid)? else {
            skip("needs a pid to be used again (ns_last_pid)");
            return Ok(());
        };
        running.wait()?.expect_code(0)?;
        let second_us = since.elapsed().as_secs_f64() * 1e6;

        let seen = at_least(&daemon, &format!("pid=\"{pid}\",comm=\"oc-second\""), 0.95e6)?;
        // A clock's sum is true within one tick.
        assert!(
            seen <= second_us + tick_us,
            "{period}: {seen} us of a process that lived for {second_us} us"
        );
        let seen = at_least(&daemon, &format!("pid=\"{pid}\",comm=\"oc-first\""), 0.95 * 4e6)?;
        assert!(seen <= first_us + tick_us, "{period}: {seen} us of a process that lived for {first_us} us");
    }
    Ok(())
}

#[test]
fn the_time_without_a_daemon_is_in_no_profile() -> Result<()> {
    let _exclusive = require_root!();
    let dir = TempDir::new()?;
    let sleep = Sleep::new(dir.path(), "oc-restart")?;
    let running = sleep.start("1000")?;
    let selector = format!("pid=\"{}\"", running.pid());
    let site = Site::new()?;
    let mut daemons_us = 0.0;
    for _ in 0..2 {
        let since = Instant::now();
        let daemon = site.start_with(&["--window", "1s", "--off-cpu-period", "0s"])?;
        std::thread::sleep(Duration::from_secs(3));
        let seen = query(&daemon, &selector, &lately())?.0.total() as f64;
        daemons_us += since.elapsed().as_secs_f64() * 1e6;
        assert!(seen <= daemons_us, "{seen} us while daemons ran for {daemons_us} us");
        daemon.running.signal(Signal::TERM)?;
        daemon.running.wait()?.expect_code(0)?;
        // What goes on meanwhile is nobody's.
        std::thread::sleep(Duration::from_secs(4));
    }
    let since = Instant::now();
    let daemon = site.start_with(&["--window", "1s", "--off-cpu-period", "0s"])?;
    let seen = query(&daemon, &selector, &lately())?.0.total() as f64;
    daemons_us += since.elapsed().as_secs_f64() * 1e6;
    assert!(seen >= 4e6 && seen <= daemons_us + 2e6, "{seen} us, daemons ran for {daemons_us} us");
    Ok(())
}

#[test]
fn no_window_holds_more_of_a_thread_than_it_is_long() -> Result<()> {
    let _exclusive = require_root!();
    let workload = Workload::new("offcpu", 100.0)?;
    let running = workload.start()?;
    std::thread::sleep(Duration::from_millis(300));
    let site = Site::new()?;
    let daemon = site.start_with(&["--window", "2s", "--off-cpu-period", "0s"])?;
    let selector = format!("pid=\"{}\"", running.pid());
    // Windows begin at even seconds; the first one may be a part of one.
    let begin = SystemTime::now().duration_since(UNIX_EPOCH)?.as_secs().next_multiple_of(2);
    std::thread::sleep(Duration::from_secs(14));
    let (mut windows, mut stuck_us, mut all_seconds) = (0, 0, 0.0);
    let to = begin + 8;
    for from in (begin + 2..to).step_by(2) {
        let (folded, seconds) = query(&daemon, &selector, &range(from, from + 2))?;
        ensure!(seconds > 0.0, "no window from {from} on");
        for comm in ["oc-stuck", "oc-sleeper", "oc-napper", "oc-mutex", "oc-pipe", "oc-spin-a"] {
            let us = folded.under(comm).total() as f64;
            assert!(us <= seconds * SWAY.1, "{comm}: {us} us in windows of {seconds} s");
        }
        let stuck = folded.under("oc-stuck").total();
        assert!(stuck as f64 >= seconds * SWAY.0, "oc-stuck: but {stuck} us in windows of {seconds} s");
        (windows, stuck_us, all_seconds) = (windows + 1, stuck_us + stuck, all_seconds + seconds);
    }
    assert_eq!(windows, 3);
    // One long wait over all of them is their sum; each line of each answer is rounded to a microsecond.
    let (folded, seconds) = query(&daemon, &selector, &range(begin + 2, to))?;
    let stuck = folded.under("oc-stuck");
    let rounded = stuck.rows.len() as u64 * (windows + 1);
    assert!(stuck.total().abs_diff(stuck_us) <= rounded, "{} us, one by one {stuck_us} us", stuck.total());
    assert!((seconds - all_seconds).abs() < 0.01, "{seconds} s, one by one {all_seconds} s");
    Ok(())
}

fn range(from: u64, to: u64) -> Value {
    json!({"from": {"seconds": from}, "to": {"seconds": to}})
}

#[test]
fn no_thread_of_the_host_waits_longer_than_it_is_looked_at() -> Result<()> {
    let _exclusive = require_root!();
    let site = Site::new()?;
    let since = Instant::now();
    let daemon = site.start_with(&["--window", "1s", "--off-cpu-period", "0s"])?;
    // Something to see: CPUs that are idle now and then, tasks that come and go.
    let script = "i=0; while [ $i -lt 200 ]; do /bin/true; i=$((i+1)); done; sleep 2";
    let mut command = Command::new("sh");
    command.args(["-c", script]).stdin(Stdio::null());
    Running::start(command)?.wait()?.expect_code(0)?;
    let (folded, _) = wait_for("a profile of the host", WINDOW_LIMIT, || {
        std::thread::sleep(Duration::from_secs(1));
        let answer = query(&daemon, "", &lately())?;
        Ok((answer.0.total() > 0).then_some(answer))
    })?;
    let took_us = since.elapsed().as_secs_f64() * 1e6;
    let mut threads: std::collections::BTreeMap<&str, u64> = std::collections::BTreeMap::new();
    for row in &folded.rows {
        *threads.entry(row.root()).or_default() += row.value;
        assert!(!row.root().starts_with("swapper"), "{row:?}");
    }
    let alive = fs::read_dir("/proc")?.flatten().map(|entry| entry.path().join("task"));
    let alive: usize = alive.filter_map(|task| Some(fs::read_dir(task).ok()?.count())).sum();
    // Threads may share a name; some have gone.
    let most_us = took_us * (alive + 400) as f64;
    for (comm, us) in threads {
        assert!((us as f64) <= most_us, "{comm}: {us} us in {took_us} us");
    }
    assert_eq!(query(&daemon, "pid=\"0\"", &lately())?.0.rows, [], "the idle task has no off-CPU time");
    let list = daemon.client()?.call(
        "profiler.v1.ProfileService/List",
        json!({"selection": {"kind": "PROFILE_KIND_OFF_CPU", "range": lately()}, "limit": 5000}),
    )?;
    let processes = list[0]["processes"].as_array().context("no processes")?;
    assert!(processes.iter().all(|row| row["pid"].as_u64().is_some_and(|pid| pid > 0)), "{processes:#?}");
    Ok(())
}
