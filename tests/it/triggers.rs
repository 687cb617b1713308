//! Captures that start by themselves: an alert posted over HTTP, and real pressure in a cgroup.

use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context as _, Result};
use profiler_tests::daemon::{Daemon, Site};
use profiler_tests::privilege::skip;
use profiler_tests::require_root;
use profiler_tests::run::wait_for;
use profiler_tests::workload::Workload;
use serde_json::{Value, json};
use tempfile::TempDir;

const TOKEN: &str = "a-token-of-the-tests";
const PATH: &str = "/webhook/alertmanager";
/// A capture, the window after it, and the rendering, on a busy machine.
const BUNDLE_LIMIT: Duration = Duration::from_secs(90);

pub(crate) fn captures(daemon: &Daemon<'_>) -> Result<Vec<Value>> {
    let list = daemon.client()?.call("profiler.v1.CaptureService/List", json!({}))?;
    Ok(list[0]["captures"].as_array().cloned().unwrap_or_default())
}

/// The report of a bundle, once it is there.
pub(crate) fn report(site: &Site, id: &str) -> Result<String> {
    let path = site.state().join("bundles").join(id).join("report.md");
    wait_for("the bundle", BUNDLE_LIMIT, || Ok(fs::read_to_string(&path).ok()))
}

/// The first row of the first table below a heading.
pub(crate) fn first_row<'a>(report: &'a str, heading: &str) -> Option<&'a str> {
    let section = report.split_once(heading)?.1;
    section.lines().filter(|line| line.starts_with("| ")).nth(2)
}

#[test]
fn an_alert_starts_one_capture_of_its_process() -> Result<()> {
    let _exclusive = require_root!();
    let workload = Workload::new("sleepers", 100.0)?.arg("3").arg("20");
    let sleeper = workload.start()?;
    let secrets = TempDir::new()?;
    let file = secrets.path().join("token");
    fs::write(&file, format!("{TOKEN}\n"))?;
    let site = Site::new()?;
    let daemon = site.start_with(&[
        "--webhook-token-file",
        file.to_str().context("a path")?,
        "--trigger-duration",
        "3s",
    ])?;
    let payload = include_str!("../../profiler-daemon/testdata/alertmanager.json");
    let payload = payload.replace("\"pid\": \"42\"", &format!("\"pid\": \"{}\"", sleeper.pid()));

    assert_eq!(site.post(PATH, "a-token-of-nobody", payload.as_bytes())?.0, 401);
    assert_eq!(site.post(PATH, TOKEN, &vec![b'x'; 10_000_000])?.0, 413);
    let (code, answer) = site.post(PATH, TOKEN, b"{\"version\":\"4\",\"alerts\":7}")?;
    assert!(code == 400 && answer.contains("\"alerts\""), "{code} {answer}");
    assert!(captures(&daemon)?.is_empty());

    let mut outcomes = Vec::new();
    for _ in 0..10 {
        let (code, answer) = site.post(PATH, TOKEN, payload.as_bytes())?;
        assert_eq!(code, 200, "{answer}");
        let answer: Value = serde_json::from_str(&answer)?;
        outcomes.push(answer["alerts"][0]["outcome"].as_str().unwrap_or_default().to_owned());
    }
    assert_eq!(outcomes[0], "started");
    assert!(outcomes[1..].iter().all(|outcome| outcome == "duplicate"), "{outcomes:?}");
    let started = captures(&daemon)?;
    assert_eq!(started.len(), 1, "{started:?}");
    assert_eq!(started[0]["target"]["pids"], json!([sleeper.pid()]));
    let id = started[0]["id"].as_str().context("an id")?;

    let watched = site.cli(&["capture", "watch", id])?.expect_code(0)?;
    assert!(watched.stdout.trim_end().lines().last().is_some_and(|line| line.contains(" done")), "{watched}");
    let report = report(&site, id)?;
    assert!(report.contains("alert ServiceSlow") && report.contains("**label severity**: page"), "{report}");
    let row = first_row(&report, "## Off the CPU").context("no table")?;
    assert!(row.contains("| sl-") || row.contains("| sleepers"), "{row} in {report}");
    let fetched = secrets.path().join("fetched");
    let fetch = ["capture", "bundle", id, "-o", fetched.to_str().context("a path")?];
    site.cli(&fetch)?.expect_code(0)?;
    assert_eq!(fs::read_to_string(fetched.join("report.md"))?, report);
    assert!(fs::read_to_string(fetched.join("capture-off-cpu.svg"))?.contains("<svg"));
    Ok(())
}

/// A cgroup of our own; removed when dropped, after what is in it.
struct Cgroup(PathBuf);

impl Cgroup {
    /// `None` where there is no cgroup v2 hierarchy that measures pressure.
    fn new(name: &str) -> Result<Option<Self>> {
        let mounts = fs::read_to_string("/proc/self/mountinfo")?;
        let mount = mounts.lines().filter_map(|line| line.split_once(" - ")).find_map(|(place, kind)| {
            kind.starts_with("cgroup2 ").then(|| place.split(' ').nth(4)).flatten()
        });
        let Some(mount) = mount else { return Ok(None) };
        let cgroup = Self(PathBuf::from(mount).join(name));
        fs::create_dir(&cgroup.0).with_context(|| format!("{}", cgroup.0.display()))?;
        Ok(fs::read_to_string(cgroup.0.join("cpu.pressure")).is_ok().then_some(cgroup))
    }

    fn add(&self, pid: u32) -> Result<()> {
        Ok(fs::write(self.0.join("cgroup.procs"), pid.to_string())?)
    }
}

impl Drop for Cgroup {
    fn drop(&mut self) {
        // Killed processes leave a cgroup a moment after they were waited for.
        for _ in 0..100 {
            if fs::remove_dir(&self.0).is_ok() {
                return;
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

#[test]
fn a_burst_of_pressure_starts_one_capture_that_names_the_culprit() -> Result<()> {
    let _exclusive = require_root!();
    let name = format!("profiler-tests-{}", std::process::id());
    let Some(cgroup) = Cgroup::new(&name)? else {
        skip("needs pressure stall information in a cgroup v2 hierarchy (psi=1)");
        return Ok(());
    };
    let site = Site::new()?;
    let rule = format!("{name} cpu some 500ms/2s");
    let daemon =
        site.start_with(&["--pressure-rules", &rule, "--trigger-duration", "6s", "--window", "2s"])?;
    // Somebody who does little, and who is not to be blamed.
    let idler = Workload::new("sleepers", 100.0)?.arg("2").arg("20");
    let idler = idler.start()?;
    cgroup.add(idler.pid())?;
    std::thread::sleep(Duration::from_secs(5));
    assert!(captures(&daemon)?.is_empty(), "nothing is wrong yet");

    // Twice as many as can run at a time: half of them wait for a CPU.
    let cpus = std::thread::available_parallelism()?.get();
    let hog = || Workload::new("spin", 100.0).map(|workload| workload.arg("hog"));
    let workloads: Vec<Workload> = (0..2 * cpus).map(|_| hog()).collect::<Result<_>>()?;
    let mut hogs = Vec::new();
    for workload in &workloads {
        let running = workload.start()?;
        cgroup.add(running.pid())?;
        hogs.push(running);
    }
    let id = wait_for("a capture", Duration::from_secs(30), || {
        Ok(captures(&daemon)?.first().and_then(|capture| capture["id"].as_str().map(str::to_owned)))
    })?;
    let report = report(&site, &id)?;
    assert!(report.contains(&format!("pressure: {rule}")), "{report}");
    let first = report.find("\n## ").and_then(|at| report.get(at + 1..)).unwrap_or_default();
    assert!(first.starts_with("## On the CPU during the capture"), "{report}");
    let row = first_row(&report, "## On the CPU").context("no table")?;
    assert!(row.contains("| hog |"), "{row} in {report}");
    // Who sleeps nearly all the time may never be seen on the CPU, but is always seen off it.
    assert!(report.contains("## Before the capture: off-cpu\n\n`before-off-cpu.svg`"), "{report}");
    assert!(!report.contains("No comparison: now"), "{report}");
    assert_eq!(captures(&daemon)?.len(), 1, "the burst still goes on");
    drop(hogs);
    std::thread::sleep(Duration::from_secs(3));
    assert_eq!(captures(&daemon)?.len(), 1);
    let bundles = fs::read_dir(site.state().join("bundles"))?.count();
    assert_eq!(bundles, 1);
    Ok(())
}
