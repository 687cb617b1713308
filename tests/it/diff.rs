//! `profiler diff` as a gate for CI: a planted regression is caught, equal runs pass.

use anyhow::{Context as _, Result, ensure};
use profiler_tests::privilege::long_or_skip;
use profiler_tests::require_root;
use profiler_tests::run::{Outcome, run_in};
use profiler_tests::workload::Workload;
use serde_json::Value;

use crate::recording::Recording;

/// Many samples in little time: what counts is their number.
const RATE: &str = "-d 100s -F 9999";

fn record(recording: &Recording, slower: u32, files: &[&str]) -> Result<()> {
    let workload = Workload::new("functions", 6.0)?.arg(slower.to_string());
    recording.record_workload(RATE, files, &workload)?.expect_code(0)?;
    Ok(())
}

fn diff(recording: &Recording, args: &[&str]) -> Result<Outcome> {
    run_in(&recording.path("."), ["diff"].iter().chain(args))
}

/// Starts of the program in one recording.
const STARTS: usize = 12;

const RUNS: usize = 10;

#[test]
fn ten_percent_in_one_function_of_a_real_program_fail_the_gate_every_time() -> Result<()> {
    if !long_or_skip() {
        return Ok(());
    }
    let _exclusive = require_root!();
    for run in 1..=RUNS {
        let recording = Recording::new()?;
        for (file, slower) in [("base.json", 0), ("same.json", 0), ("slow.json", 10)] {
            // Several starts a recording: where a program lies in memory can make one of its functions
            // a tenth slower from its start to its end, and that is no change of the program.
            let workload = |_| Ok(Workload::new("work", 0.5)?.arg(slower.to_string()));
            let starts = (0..STARTS).map(workload).collect::<Result<Vec<_>>>()?;
            recording.record_in_turn(RATE, &[file], &starts)?.expect_code(0)?;
        }
        let passed = diff(&recording, &["base.json", "same.json", "--fail-over", "5%"])?;
        passed.expect_code(0).with_context(|| format!("run {run}: equal programs"))?;
        let failed = diff(&recording, &["base.json", "slow.json", "--fail-over", "5%"])?;
        let failed = failed.expect_code(1).with_context(|| format!("run {run}: one is slower"))?;
        let error = failed.stderr.lines().last().context("an error")?;
        // Others may be named beside it: what shares the machine slows some functions more than others.
        ensure!(
            error.contains("grew by more than 5%") && error.contains("hash_words"),
            "run {run}: {failed}"
        );
    }
    Ok(())
}

#[test]
fn a_function_that_became_slower_fails_the_gate_and_equal_runs_pass() -> Result<()> {
    let _exclusive = require_root!();
    let recording = Recording::new()?;
    record(&recording, 0, &["base.json", "base.folded"])?;
    record(&recording, 0, &["same.json", "same.folded"])?;
    record(&recording, 15, &["slow.json", "slow.folded"])?;
    for extension in ["json", "folded"] {
        let [base, same, slow] = ["base", "same", "slow"].map(|name| format!("{name}.{extension}"));
        let passed = diff(&recording, &[&base, &same, "--fail-over", "5%"])?.expect_code(0)?;
        ensure!(passed.stderr.contains("passed"), "{passed}");
        let failed = diff(&recording, &[&base, &slow, "--fail-over", "5%"])?.expect_code(1)?;
        let error = failed.stderr.lines().last().context("an error")?;
        ensure!(error.contains("grew by more than 5%: hash"), "{failed}");
        for innocent in ["parse", "sort", "copy", "emit"] {
            ensure!(!error.contains(innocent), "{failed}");
        }
    }

    diff(&recording, &["base.json", "slow.json", "-o", "diff.json"])?.expect_code(0)?;
    let json: Value = serde_json::from_str(&recording.text("diff.json")?)?;
    let hash = &json["frames"][0];
    ensure!(hash["frame"] == "hash", "{hash}");
    let (growth, error) = (hash["self"]["growth"].as_f64(), hash["self"]["error"].as_f64());
    let (growth, error) = growth.zip(error).context("numbers")?;
    // Six standard errors: the test is to fail for a wrong rule, not for bad luck.
    ensure!((growth.ln_1p() - 0.15_f64.ln_1p()).abs() < 6.0 * error, "{hash}");
    diff(&recording, &["base.json", "slow.json", "-o", "diff.svg"])?.expect_code(0)?;
    ensure!(recording.text("diff.svg")?.contains("hash"), "the SVG does not show the function");
    Ok(())
}
