//! `profiler record` of on-CPU time: formats agree, stacks are whole, counts fit the CPU clock.

use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::{Context as _, Result};
use profiler_tests::privilege::skip;
use profiler_tests::require_root;
use profiler_tests::workload::Workload;

use crate::recording::{Recording, Stolen, ratio, within};

const CHAIN: [&str; 10] = ["f1", "f2", "f3", "f4", "f5", "f6", "f7", "f8", "f9", "f10"];

/// Longer than any workload here runs: the end of the command ends the recording.
const LONG: &str = "-d 100s";

#[test]
fn the_formats_agree_and_show_the_busy_function() -> Result<()> {
    let _exclusive = require_root!();
    let recording = Recording::new()?;
    let workload = Workload::new("spin", 3.0)?;
    let files = ["a.svg", "a.folded", "a.pb.gz", "a.speedscope.json", "a.firefox.json"];
    recording.record_workload("-d 100s -F 99", &files, &workload)?.expect_code(0)?;

    let (folded, svg, pprof) =
        (recording.folded("a.folded")?, recording.svg("a.svg")?, recording.pprof("a.pb.gz")?);
    assert!(folded.total() > 0);
    assert_eq!(svg.total, folded.total(), "SVG and folded");
    assert_eq!(u64::try_from(pprof.total("samples")?)?, folded.total(), "pprof and folded");
    assert_eq!(
        speedscope_total(&recording.text("a.speedscope.json")?)?,
        folded.total(),
        "speedscope and folded"
    );
    let firefox: serde_json::Value = serde_json::from_str(&recording.text("a.firefox.json")?)?;
    let threads = firefox["threads"].as_array().context("no threads")?;
    let weights = threads.iter().filter_map(|thread| thread["samples"]["weight"].as_array()).flatten();
    assert_eq!(
        weights.filter_map(serde_json::Value::as_u64).sum::<u64>(),
        folded.total(),
        "Firefox and folded"
    );

    let (leaf, value) = folded.heaviest_leaf().context("an empty profile")?;
    assert_eq!(leaf, "hot_function");
    assert_eq!(svg.value_of("hot_function"), folded.value_where(|row| row.holds(&["hot_function"])));
    let truth = workload.truth()?;
    let expected = ratio(truth.number("hot_ns")?, truth.number("cpu_ns")?);
    let seen = ratio(value as f64, folded.total() as f64);
    assert!(within(0.1, seen, expected), "{seen} of the samples, {expected} of the CPU time");
    for sample in &pprof.sample {
        let stack = pprof.stack(sample)?;
        assert!(!stack.is_empty(), "a pprof sample without a function");
    }
    Ok(())
}

/// Sum of all weights in a speedscope file, in its unit.
/// Source: speedscope.app/file-format-schema.json.
fn speedscope_total(text: &str) -> Result<u64> {
    let file: serde_json::Value = serde_json::from_str(text)?;
    let frames = file["shared"]["frames"].as_array().context("no frames")?.len() as u64;
    let mut total = 0.0;
    for profile in file["profiles"].as_array().context("no profiles")? {
        let samples = profile["samples"].as_array().context("no samples")?;
        let weights = profile["weights"].as_array().context("no weights")?;
        assert_eq!(samples.len(), weights.len(), "a weight for each sample");
        for frame in samples.iter().flat_map(|stack| stack.as_array().into_iter().flatten()) {
            assert!(frame.as_u64().is_some_and(|frame| frame < frames), "no frame {frame}");
        }
        total += weights.iter().filter_map(serde_json::Value::as_f64).sum::<f64>();
    }
    Ok(total as u64)
}

#[test]
fn a_known_chain_is_whole_and_its_samples_fit_the_cpu_clock() -> Result<()> {
    const FREQUENCY_HZ: f64 = 999.0;
    let _exclusive = require_root!();
    // The plain bound says something only while next to no time is stolen: look for such a run.
    for _ in 0..4 {
        let recording = Recording::new()?;
        let workload = Workload::new("chain", 4.0)?;
        let stolen = Stolen::since_now()?;
        recording
            .record_workload(&format!("{LONG} -F {FREQUENCY_HZ}"), &["a.folded"], &workload)?
            .expect_code(0)?;
        let stolen = stolen.seconds()? * FREQUENCY_HZ;

        let folded = recording.folded("a.folded")?;
        let of_chain = folded.under("chain");
        let whole = ratio(of_chain.value_where(|row| row.holds(&CHAIN)) as f64, of_chain.total() as f64);
        assert!(whole >= 0.99, "{whole} of {} samples hold the chain:\n{of_chain:#?}", of_chain.total());

        let expected = workload.truth()?.cpu_seconds()? * FREQUENCY_HZ;
        let seen = folded.total() as f64;
        let what =
            format!("{seen} samples, {expected} by the program's own CPU clock, {stolen} of stolen time");
        assert!(seen >= 0.95 * expected && seen <= 1.05 * (expected + stolen), "{what}");
        if stolen <= 0.02 * expected {
            assert!(within(0.05, seen, expected), "{what}");
            return Ok(());
        }
    }
    skip("samples against the CPU clock to 5 %: the hypervisor takes too much of this machine");
    Ok(())
}

#[test]
fn a_process_that_runs_already_is_recorded() -> Result<()> {
    const FREQUENCY_HZ: f64 = 499.0;
    let _exclusive = require_root!();
    let recording = Recording::new()?;
    let (workload, other) = (Workload::new("chain", 60.0)?, Workload::new("spin", 60.0)?);
    let (running, _other) = (workload.start()?, other.start()?);
    let (before, stolen) = (cpu_seconds(running.pid())?, Stolen::since_now()?);
    let options = format!("-d 3s -F {FREQUENCY_HZ} -p {}", running.pid());
    recording.record(&options, &["a.folded"])?.expect_code(0)?;
    let most = (cpu_seconds(running.pid())? - before + stolen.seconds()?) * FREQUENCY_HZ;

    let folded = recording.folded("a.folded")?;
    assert_eq!(folded.roots().into_iter().collect::<Vec<_>>(), ["chain"], "only the process asked for");
    let whole = ratio(folded.value_where(|row| row.holds(&CHAIN)) as f64, folded.total() as f64);
    assert!(whole >= 0.99, "{whole} of the samples hold the chain");
    // The process runs on while the profiler starts and ends: a bound from above only.
    assert!(folded.total() as f64 <= most * 1.05, "{} samples of at most {most}", folded.total());
    Ok(())
}

/// CPU time of a process so far: user and system time in `/proc/PID/stat`, in ticks of 10 ms.
fn cpu_seconds(pid: u32) -> Result<f64> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat"))?;
    // The name in brackets may hold blanks; the fields after it do not. They start at the third.
    let (_, fields) = stat.rsplit_once(')').context("no name in brackets")?;
    let ticks: Vec<f64> = fields.split_whitespace().skip(11).take(2).flat_map(str::parse).collect();
    Ok(ticks.iter().sum::<f64>() / 100.0)
}

#[test]
fn children_of_the_command_are_recorded_too() -> Result<()> {
    children_are_recorded(&Workload::new("fork", 1.0)?)
}

/// The filter has room for 16 384 processes at a time, for however many in turn.
#[test]
fn children_are_recorded_after_any_number_of_others() -> Result<()> {
    children_are_recorded(&Workload::new("fork", 0.5)?.arg("17000"))
}

fn children_are_recorded(workload: &Workload) -> Result<()> {
    const FREQUENCY_HZ: f64 = 499.0;
    let _exclusive = require_root!();
    let recording = Recording::new()?;
    let stolen = Stolen::since_now()?;
    recording
        .record_workload(&format!("{LONG} -F {FREQUENCY_HZ}"), &["a.folded"], workload)?
        .expect_code(0)?;
    let stolen = stolen.seconds()? * FREQUENCY_HZ;

    let folded = recording.folded("a.folded")?;
    let expected = workload.truth()?.cpu_seconds()? * FREQUENCY_HZ;
    for (comm, function) in [("fk-child", "child_work"), ("fk-grandchild", "grandchild_work")] {
        let seen = folded.under(comm).value_where(|row| row.holds(&[function])) as f64;
        let fits = seen >= 0.9 * expected / 2.0 && seen <= 1.1 * (expected / 2.0 + stolen);
        assert!(fits, "{comm}: {seen} samples of {}, {stolen} of stolen time", expected / 2.0);
    }
    Ok(())
}

#[test]
fn the_whole_host_is_recorded_while_processes_come_and_go() -> Result<()> {
    let _exclusive = require_root!();
    let recording = Recording::new()?;
    let workload = Workload::new("spin", 60.0)?;
    let _running = workload.start()?;
    let over = AtomicBool::new(false);
    let outcome = std::thread::scope(|scope| {
        let churn = scope.spawn(|| churn(&over));
        let outcome = recording.record("-d 4s -F 199", &["a.folded", "a.svg", "a.pb.gz"]);
        over.store(true, Ordering::Relaxed);
        (outcome, churn.join())
    });
    let processes = outcome.1.ok().context("the churn ended badly")??;
    outcome.0?.expect_code(0)?;
    assert!(processes > 20, "only {processes} processes came and went");

    let folded = recording.folded("a.folded")?;
    assert_eq!(folded.total(), recording.svg("a.svg")?.total);
    assert_eq!(folded.total(), u64::try_from(recording.pprof("a.pb.gz")?.total("samples")?)?);
    let of_spin = folded.under("spin");
    assert_eq!(of_spin.heaviest_leaf().map(|(leaf, _)| leaf), Some("hot_function"));
    let hot = ratio(of_spin.value_where(|row| row.leaf() == "hot_function") as f64, of_spin.total() as f64);
    assert!(hot > 0.6, "{hot} of the samples of `spin` are in its hot function");
    Ok(())
}

/// Starts short-lived processes, one after the other, until it is over; gives back how many.
fn churn(over: &AtomicBool) -> Result<u64> {
    let mut count = 0;
    while !over.load(Ordering::Relaxed) {
        let mut child = Command::new("sh").args(["-c", "exec true"]).stdin(Stdio::null()).spawn()?;
        child.wait()?;
        count += 1;
        std::thread::sleep(Duration::from_millis(2));
    }
    Ok(count)
}
