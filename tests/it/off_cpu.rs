//! Off-CPU time by role against what each role measured itself.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use profiler_tests::folded::Folded;
use profiler_tests::require_root;
use profiler_tests::workload::{Role, Workload};

use crate::recording::{Recording, Stolen, ratio};

#[test]
fn each_role_waited_as_long_as_it_says() -> Result<()> {
    let _exclusive = require_root!();
    let recording = Recording::new()?;
    let workload = Workload::new("offcpu", 4.0)?;
    let files = ["a.folded", "a.svg", "a.pb.gz"];
    recording.record_workload("-d 100s --off-cpu", &files, &workload)?.expect_code(0)?;

    let folded = recording.folded("a.folded")?;
    assert_eq!(recording.svg("a.svg")?.total, folded.total(), "SVG and folded");
    recording.pprof("a.pb.gz")?;
    let roles = workload.truth()?.roles()?;
    assert_eq!(roles.len(), 9);
    let wrong: Vec<String> = roles.iter().filter_map(|role| mismatch(&folded, role)).collect();
    assert!(wrong.is_empty(), "{wrong:#?}");
    Ok(())
}

/// What is wrong with a role, if it is not within 2 % of the truth.
fn mismatch(folded: &Folded, role: &Role) -> Option<String> {
    let problem = differs(folded, role, 0.02)?;
    Some(format!("{problem}; its own clock: {role:?}; recorded: {:?}", folded.off_cpu(&role.comm)))
}

/// What is wrong with a role, if it is further than this share from the truth.
pub(crate) fn differs(folded: &Folded, role: &Role, share: f64) -> Option<&'static str> {
    let seen = folded.off_cpu(&role.comm);
    // Interrupts, and a host that takes the CPU away, are in nobody's account: what a busy thread
    // says of its own CPU time is not as exact as what an idle one says of its waits.
    let share = if role.reason == "preempted" { share.max(0.05) } else { share };
    let off = (seen.blocked + seen.run_queue + seen.preempted) as f64;
    if off < role.least_us * (1.0 - share) {
        return Some("too little");
    }
    // A thread that was woken, ran and lost its CPU before it could look at the clock counts that as
    // part of its wait: where the CPU is wanted, the truth holds some preemption.
    let least = if role.reason == "preempted" { off } else { (seen.blocked + seen.run_queue) as f64 };
    if least > role.wait_us * (1.0 + share) {
        return Some("too much");
    }
    let marker = match &*role.reason {
        "preempted" => "[preempted]".to_owned(),
        reason => format!("[blocked: {reason}]"),
    };
    let named =
        folded.under(&role.comm).value_where(|row| row.leaf() == marker || row.leaf() == "[run-queue]");
    (named as f64 + (seen.preempted as f64) < 0.95 * off).then_some("not for this reason")
}

#[test]
fn a_thread_that_is_blocked_from_before_until_after_is_there() -> Result<()> {
    const LENGTH: Duration = Duration::from_secs(3);
    let _exclusive = require_root!();
    let recording = Recording::new()?;
    let workload = Workload::new("offcpu", 60.0)?;
    let running = workload.start()?;
    // Until its threads have their names and wait.
    std::thread::sleep(Duration::from_millis(300));
    let since = Instant::now();
    let options = format!("--off-cpu -d {}s -p {}", LENGTH.as_secs(), running.pid());
    recording.record(&options, &["a.folded"])?.expect_code(0)?;
    let took = since.elapsed();

    let folded = recording.folded("a.folded")?;
    let length_us = LENGTH.as_secs_f64() * 1e6;
    for comm in ["oc-stuck", "oc-sleeper", "oc-pipe", "oc-mutex", "oc-migrator"] {
        let seen = folded.off_cpu(comm);
        let waited = (seen.blocked + seen.run_queue) as f64;
        // Threads of these roles do next to nothing else than wait.
        assert!(waited >= 0.95 * length_us, "{comm}: {seen:?} in a recording of {LENGTH:?}");
        assert!(waited <= took.as_secs_f64() * 1e6, "{comm}: {seen:?} although it took but {took:?}");
    }
    let stuck = folded.under("oc-stuck");
    assert_eq!(stuck.rows.len(), 1, "one wait, one stack: {stuck:#?}");
    assert_eq!(stuck.heaviest_leaf().map(|(leaf, _)| leaf), Some("[blocked: pipe]"));
    Ok(())
}

#[test]
fn wall_time_is_on_and_off_cpu_time_together() -> Result<()> {
    let _exclusive = require_root!();
    let recording = Recording::new()?;
    let workload = Workload::new("spin", 2.0)?;
    let (since, stolen) = (Instant::now(), Stolen::since_now()?);
    recording.record_workload("-d 100s -F 499 --wall", &["a.folded"], &workload)?.expect_code(0)?;
    let took_us = since.elapsed().as_secs_f64() * 1e6;
    let stolen_us = stolen.seconds()? * 1e6;

    let of_spin = recording.folded("a.folded")?.under("spin");
    let on_cpu_us = of_spin.value_where(|row| !is_marker(row.leaf())) as f64;
    let truth_us = workload.truth()?.cpu_seconds()? * 1e6;
    let what = format!("{on_cpu_us} us on the CPU, {truth_us} us by its own clock, {stolen_us} us stolen");
    assert!(on_cpu_us >= 0.95 * truth_us && on_cpu_us <= 1.05 * (truth_us + stolen_us), "{what}");
    let (leaf, _) = of_spin.heaviest_leaf().context("an empty profile")?;
    assert!(leaf == "hot_function" || is_marker(leaf), "{leaf}");
    assert!(ratio(of_spin.total() as f64, took_us) <= 1.05, "{} us of at most {took_us}", of_spin.total());
    Ok(())
}

fn is_marker(leaf: &str) -> bool {
    leaf.starts_with("[blocked") || leaf == "[run-queue]" || leaf == "[preempted]"
}
