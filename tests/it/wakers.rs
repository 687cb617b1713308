//! Who ended the waits of a lock convoy: the thread that gave the lock back, and no innocent one.

use std::fs;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, Result};
use profiler_tests::daemon::Site;
use profiler_tests::folded::Folded;
use profiler_tests::require_root;
use profiler_tests::run::wait_for;
use profiler_tests::stacks::{Stack, Stacks};
use profiler_tests::workload::Workload;
use serde_json::{Value, json};

use crate::recording::{Recording, within};

const BUNDLE_LIMIT: Duration = Duration::from_secs(90);

/// Time of the stacks for which something holds, microseconds.
fn time(stacks: &[&Stack], holds: impl Fn(&Stack) -> bool) -> f64 {
    stacks.iter().filter(|stack| holds(stack)).map(|stack| stack.value).sum::<u64>() as f64
}

fn of_convoy(text: &str) -> Result<Stacks> {
    let mut stacks = Stacks::parse(text)?;
    stacks.stacks.retain(|stack| stack.comm.starts_with("cv-worker-"));
    Ok(stacks)
}

/// What is wrong with the wakers of a convoy's waits for its lock.
fn wrong(stacks: &Stacks) -> Option<String> {
    let waits: Vec<&Stack> = stacks
        .stacks
        .iter()
        .filter(|stack| stack.holds("take") && stack.activity == "blocked: lock")
        .collect();
    let all = time(&waits, |_| true);
    let by_holder = time(&waits, |stack| {
        stack.waker.as_ref().is_some_and(|waker| {
            waker.holds("give_back")
                && waker.pid == stack.pid
                && waker.comm.starts_with("cv-worker-")
                && waker.comm != stack.comm
        })
    });
    (all == 0.0 || by_holder < 0.95 * all)
        .then(|| format!("{by_holder} us of {all} ended by the holder: {waits:#?}"))
}

#[test]
fn a_convoy_is_woken_by_whoever_gave_the_lock_back() -> Result<()> {
    let _exclusive = require_root!();
    for how in ["sleep", "cpu", "disk"] {
        let recording = Recording::new()?;
        let workload = Workload::new("convoy", 3.0)?.arg(how);
        let files = ["a.json", "a.folded", "a.svg", "a.pb.gz"];
        recording.record_workload("-d 100s --off-cpu --wakers", &files, &workload)?.expect_code(0)?;
        let stacks = of_convoy(&fs::read_to_string(recording.path("a.json"))?)?;
        assert_eq!(wrong(&stacks), None, "{how}");

        let all: Vec<&Stack> = stacks.stacks.iter().collect();
        let waited = time(&all, |stack| stack.holds("take"));
        let truth = workload.truth()?.number("wait_ns")? / 1e3;
        // Where every CPU is wanted, the first waits may be over before the profiler has the tables by which
        // their stacks are unwound.
        let share = if how == "sleep" { 0.03 } else { 0.10 };
        assert!(within(share, waited, truth), "{how}: {waited} us for the lock, {truth} by its own clock");
        // Time that has passed wakes by an interrupt, whoever it hits: mostly a busy worker here.
        let asleep = time(&all, |stack| stack.activity == "blocked: sleep");
        let by_timer = time(&all, |stack| {
            let waker = stack.waker.as_ref().filter(|waker| waker.comm == "[interrupt]" && waker.pid == 0);
            stack.activity == "blocked: sleep"
                && waker.is_some_and(|waker| waker.frames.iter().all(|f| f.is_kernel()))
        });
        // Whoever is named is the timer's interrupt; of some waits nobody is.
        let known = time(&all, |stack| stack.activity == "blocked: sleep" && stack.waker.is_some());
        assert!(by_timer >= 0.99 * known, "{how}: {by_timer} us of {known} asleep ended by a timer");
        assert!(known >= 0.95 * asleep, "{how}: but {known} us of {asleep} asleep have a waker");

        // All forms agree, and the holder's function is in the top frames of the picture.
        let folded = recording.folded("a.folded")?;
        let shown = folded.value_where(|row| {
            let woken = row.frames.iter().position(|frame| frame == "[woken by]");
            woken.is_some_and(|at| {
                row.frames[at - 1] == "[blocked: lock]"
                    && row.frames[at..].iter().any(|frame| frame == "give_back_[w]")
                    && row.leaf().starts_with("cv-worker-")
            })
        }) as f64;
        assert!(shown >= 0.95 * time(&all, |stack| stack.holds("take") && stack.activity == "blocked: lock"));
        let svg = recording.svg("a.svg")?;
        assert!(svg.value_of("give_back") as f64 >= 0.99 * shown, "{how}");
        assert_eq!(svg.total, folded.total());
        recording.pprof("a.pb.gz")?;
    }
    Ok(())
}

fn captures(site: &Site, arguments: &[&str]) -> Result<String> {
    Ok(site.cli(arguments)?.expect_code(0)?.stdout.trim().to_owned())
}

#[test]
fn captures_at_once_keep_apart_and_within_their_limits() -> Result<()> {
    let _exclusive = require_root!();
    let (convoy, sleepers) =
        (Workload::new("convoy", 100.0)?, Workload::new("sleepers", 100.0)?.arg("20").arg("1"));
    let (convoy, sleepers) = (convoy.start()?, sleepers.start()?);
    let (convoy, sleepers) = (convoy.pid().to_string(), sleepers.pid().to_string());
    let site = Site::new()?;
    let daemon = site.start()?;
    let start = ["capture", "start", "off-cpu"];
    let begin = |more: &[&str]| captures(&site, &[&start, more].concat());
    let with = begin(&["-d", "4s", "-p", &convoy, "--bundle"])?;
    let without = begin(&["-d", "4s", "-p", &sleepers, "--no-wakers"])?;
    let bounded = begin(&["-d", "60s", "-p", &sleepers, "--max-events", "100"])?;
    let refused = site.cli(&[&start[..], &["--max-bytes", "1TiB"]].concat())?;
    assert!(refused.code != Some(0) && refused.stderr.contains("limits.bytes"), "{refused}");

    let client = daemon.client()?;
    let get = |id: &str| -> Result<Value> {
        let answer = client.call("profiler.v1.CaptureService/Get", json!({"id": id}))?;
        answer.into_iter().next().context("no answer")
    };
    let ended = |id: &str| {
        wait_for("the capture to end", Duration::from_secs(60), || {
            let capture = get(id)?;
            Ok((capture["state"] == "CAPTURE_STATE_DONE").then_some(capture))
        })
    };
    let reason =
        |id: &str| -> Result<String> { Ok(ended(id)?["reason"].as_str().unwrap_or_default().to_owned()) };
    let told = reason(&bounded)?;
    assert!(told.contains("events a second, 100 allowed"), "{told}");
    assert_eq!((reason(&without)?, reason(&with)?), (String::new(), String::new()));

    let json = |id: &str| captures(&site, &["flamegraph", "--capture", id, "--format", "json"]);
    let (convoy_stacks, sleeper_stacks) = (Stacks::parse(&json(&with)?)?, Stacks::parse(&json(&without)?)?);
    let only = |stacks: &Stacks, pid: &str| {
        !stacks.stacks.is_empty() && stacks.stacks.iter().all(|stack| stack.pid.to_string() == pid)
    };
    assert!(only(&convoy_stacks, &convoy) && only(&sleeper_stacks, &sleepers), "mixed");
    assert_eq!(wrong(&convoy_stacks), None);
    assert!(sleeper_stacks.stacks.iter().all(|stack| stack.waker.is_none()), "not asked for");

    // Each wake-up is told once, however many captures ask for it.
    let told = get(&with)?;
    let losses = &told["summary"]["losses"];
    let lost: u64 = losses
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(|loss| {
            let waker = loss["reason"].as_str().is_some_and(|reason| reason.contains("waker"));
            let count = &loss["count"];
            waker.then(|| count.as_u64().or_else(|| count.as_str()?.parse().ok())).flatten()
        })
        .sum();
    assert!(lost < 1000, "{losses}");

    // One capture, both views.
    let folded = |more: &[&str]| -> Result<Folded> {
        Folded::parse(&captures(&site, &[&["capture", "show", &with, "--format", "folded"], more].concat())?)
    };
    let (waits, wakers) = (folded(&[])?, folded(&["--wakers"])?);
    assert_eq!(waits.total(), wakers.total());
    let woken = |folded: &Folded| folded.value_where(|row| row.holds(&["[woken by]"]));
    assert!(woken(&waits) == 0 && woken(&wakers) as f64 > 0.8 * wakers.total() as f64);
    let none = site.cli(&["capture", "show", &without, "--wakers", "--format", "folded"])?;
    assert!(none.code != Some(0) && none.stderr.contains("no wakers were recorded"), "{none}");

    let bundle = site.state().join("bundles").join(&with);
    let read = |path: &Path| fs::read_to_string(path).ok();
    let report = wait_for("the bundle", BUNDLE_LIMIT, || Ok(read(&bundle.join("report.md"))))?;
    let line = report.lines().find(|line| line.contains("woken by cv-worker-")).context("no waker")?;
    assert!(line.contains("give_back"), "{line}");
    assert!(read(&bundle.join("capture-off-cpu-wakers.svg")).is_some_and(|svg| svg.contains("give_back ")));

    let (_, metrics) = site.get("/metrics")?;
    for line in [
        "profiler_captures_started_total{cause=\"request\"} 3",
        "profiler_captures_refused_total{reason=\"invalid\"} 1",
        "profiler_captures_running 0",
        "profiler_alerts_total{outcome=\"duplicate\"} 0",
    ] {
        assert!(metrics.lines().any(|known| known == line), "{line} is not in {metrics}");
    }
    Ok(())
}
