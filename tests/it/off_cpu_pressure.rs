//! Pressure of the whole host, really raised: one capture a burst, whose bundle names who did it.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, Result};
use profiler_tests::daemon::Site;
use profiler_tests::privilege::{long_or_skip, skip};
use profiler_tests::require_root;
use profiler_tests::run::{Running, wait_for};
use profiler_tests::workload::Workload;

use crate::triggers::{captures, first_row, report};

/// How long a host may take to calm down.
const CALM_LIMIT: Duration = Duration::from_secs(60);
const BURST_LIMIT: Duration = Duration::from_secs(40);
/// Less than each burst makes (all of the time, of memory half), more than the start of a daemon does, which
/// wants a CPU and reads its files: 200 ms of the one and 70 of the other on two CPUs, a debug build.
const CPU_STALLED: &str = "1s/2s";
const IO_STALLED: &str = "800ms/2s";
const MEMORY_STALLED: &str = "300ms/2s";
/// Room that the workload's file does not fit in by far, bytes.
const MEMORY_BYTES: &str = "50331648";

/// Part of the last 10 s in which some were stalled, percent.
fn stalled(resource: &str) -> Result<f64> {
    let text = fs::read_to_string(format!("/proc/pressure/{resource}"))?;
    let average = text.lines().next().and_then(|line| line.split_once("avg10=")?.1.split(' ').next());
    Ok(average.context("no avg10")?.parse()?)
}

/// Whether nobody else raises this pressure now, after some waiting.
fn is_calm(resource: &str) -> bool {
    wait_for("a calm host", CALM_LIMIT, || Ok((stalled(resource)? < 10.0).then_some(()))).is_ok()
}

/// How the daemon gets to know of pressure.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum By {
    Kernel,
    /// The kernel's triggers cannot be written: only reading is left.
    Reading,
}

/// A daemon that cannot write to the pressure files, in a mount namespace of its own.
fn without_triggers(command: &Command) -> Command {
    let script = "for file in /proc/pressure/*; do \
                  mount --bind $file $file && mount -o remount,bind,ro $file || exit 9; done; exec \"$0\" \"$@\"";
    let mut wrapped = Command::new("unshare");
    wrapped.args(["--mount", "sh", "-c", script]).arg(command.get_program()).args(command.get_args());
    // The caller's own settings for the profiler stay out of this one, too.
    for (name, _) in command.get_envs().filter(|(_, value)| value.is_none()) {
        wrapped.env_remove(name);
    }
    wrapped
}

/// Runs the burst under a daemon that watches the host for it, and checks the one bundle.
fn one_burst(
    by: By,
    (resource, stalled): (&str, &str),
    first_heading: &str,
    comm: &str,
    burst: impl Fn() -> Result<Vec<Running>>,
) -> Result<()> {
    if !long_or_skip() {
        return Ok(());
    }
    if fs::read_to_string(format!("/proc/pressure/{resource}")).is_err() {
        skip("needs pressure stall information (psi=1)");
        return Ok(());
    }
    if !is_calm(resource) {
        skip(&format!("others keep the host under {resource} pressure"));
        return Ok(());
    }
    let site = Site::new()?;
    let rule = format!("host {resource} some {stalled}");
    let mut command = site.command()?;
    command.args(["--pressure-rules", &rule, "--trigger-duration", "6s", "--window", "2s"]);
    let daemon = site.start_by(if by == By::Reading { without_triggers(&command) } else { command })?;
    let reads = daemon.running.stderr().contains("reading totals");
    assert_eq!(reads, by == By::Reading, "{}", daemon.running.stderr());
    let idler = Workload::new("sleepers", 100.0)?.arg("2").arg("20");
    let _idler = idler.start()?;
    std::thread::sleep(Duration::from_secs(6));
    assert!(captures(&daemon)?.is_empty(), "nothing is wrong yet");

    let culprits = burst()?;
    let id = wait_for("a capture", BURST_LIMIT, || {
        Ok(captures(&daemon)?.first().and_then(|capture| capture["id"].as_str().map(str::to_owned)))
    })?;
    let report = report(&site, &id)?;
    assert!(report.contains(&format!("pressure: {rule}")), "{report}");
    let first = report.find("\n## ").and_then(|at| report.get(at + 1..)).unwrap_or_default();
    assert!(first.starts_with(first_heading), "{report}");
    let row = first_row(&report, first_heading).context("no table")?;
    assert!(row.contains(&format!("| {comm} |")), "{row} in {report}");
    assert!(report.contains("## Before the capture: off-cpu\n\n`before-off-cpu.svg`"), "{report}");
    assert_eq!(captures(&daemon)?.len(), 1, "the burst still goes on");
    drop(culprits);
    std::thread::sleep(Duration::from_secs(5));
    assert_eq!(captures(&daemon)?.len(), 1);
    assert_eq!(fs::read_dir(site.state().join("bundles"))?.count(), 1);
    Ok(())
}

#[test]
fn cpu_pressure_of_the_host_starts_one_capture() -> Result<()> {
    let _exclusive = require_root!();
    cpu_burst(By::Kernel)
}

#[test]
fn pressure_that_can_only_be_read_starts_one_capture() -> Result<()> {
    let _exclusive = require_root!();
    cpu_burst(By::Reading)
}

fn cpu_burst(by: By) -> Result<()> {
    let cpus = std::thread::available_parallelism()?.get();
    let hogs: Vec<Workload> =
        (0..2 * cpus).map(|_| Ok(Workload::new("spin", 100.0)?.arg("hog"))).collect::<Result<_>>()?;
    one_burst(by, ("cpu", CPU_STALLED), "## On the CPU during the capture", "hog", || {
        hogs.iter().map(Workload::start).collect()
    })
}

#[test]
fn io_pressure_of_the_host_starts_one_capture() -> Result<()> {
    let _exclusive = require_root!();
    let press = Workload::new("press", 100.0)?.arg("io");
    one_burst(By::Kernel, ("io", IO_STALLED), "## Waiting for I/O or memory", "press", || {
        Ok(vec![press.start()?])
    })
}

/// A cgroup with little memory; removed when dropped, after what is in it.
struct LittleMemory(PathBuf);

impl LittleMemory {
    /// `None` where no memory controller is mounted that would give us one.
    fn new() -> Result<Option<Self>> {
        let name = format!("profiler-tests-memory-{}", std::process::id());
        for (parent, limit) in
            [("/sys/fs/cgroup/memory", "memory.limit_in_bytes"), ("/sys/fs/cgroup", "memory.max")]
        {
            let cgroup = Self(Path::new(parent).join(&name));
            if fs::create_dir(&cgroup.0).is_ok() && fs::write(cgroup.0.join(limit), MEMORY_BYTES).is_ok() {
                return Ok(Some(cgroup));
            }
        }
        Ok(None)
    }
}

impl Drop for LittleMemory {
    fn drop(&mut self) {
        // Killed processes leave a cgroup a moment after they were waited for.
        for _ in 0..100 {
            if fs::remove_dir(&self.0).is_ok() || !self.0.exists() {
                return;
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

#[test]
fn memory_pressure_of_the_host_starts_one_capture() -> Result<()> {
    let _exclusive = require_root!();
    let Some(cgroup) = LittleMemory::new()? else {
        skip("needs a memory controller");
        return Ok(());
    };
    let press = Workload::new("press", 100.0)?.arg("memory").arg(cgroup.0.join("cgroup.procs"));
    one_burst(By::Kernel, ("memory", MEMORY_STALLED), "## Waiting for I/O or memory", "press", || {
        Ok(vec![press.start()?])
    })
}
