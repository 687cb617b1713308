//! A program whose debug information takes down who reads it costs itself its details, and nobody else.

use std::process::Command;
use std::time::Duration;

use anyhow::{Result, ensure};
use profiler_tests::binary::profiler;
use profiler_tests::daemon::Site;
use profiler_tests::folded::Folded;
use profiler_tests::require_root;
use profiler_tests::run::{Running, wait_for};
use profiler_tests::workload::{Recipe, Workload};
use serde_json::json;

use crate::recording::{Recording, ratio};

/// As `record` and the daemon count it.
const REASON: &str = "debug information given up";

/// Starts the program that is hostile, for a minute.
fn start_hostile() -> Result<Running> {
    let flags = ["-std=gnu11", "-O2", "-fno-omit-frame-pointer"];
    let program = Recipe { name: "hostile", source: "hostile.c", flags: &flags }.build()?;
    // Building the profiler could take longer than the program runs.
    profiler()?;
    let mut command = Command::new(program);
    command.arg("60");
    Running::start(command)
}

/// `spin` spends four fifths of its time in its hot function, `hostile` all of it in its only one.
fn are_named(folded: &Folded) -> Result<()> {
    let good = share(folded, "spin", "hot_function")?;
    let hostile = share(folded, "hostile", "hostile_spin")?;
    ensure!(good >= 0.7 && hostile >= 0.9, "{good} of spin and {hostile} of hostile are named");
    Ok(())
}

/// The share of a program's samples in a function.
fn share(folded: &Folded, program: &str, function: &str) -> Result<f64> {
    let of_program = folded.under(program);
    ensure!(of_program.total() > 20, "{program} was sampled {} times", of_program.total());
    let held = of_program.value_where(|row| row.holds(&[function]));
    Ok(ratio(held as f64, of_program.total() as f64))
}

#[test]
fn a_recording_names_others_and_what_the_symbol_table_has() -> Result<()> {
    let _exclusive = require_root!();
    let _hostile = start_hostile()?;
    let _good = Workload::new("spin", 60.0)?.start()?;
    let recording = Recording::new()?;
    let outcome = recording.record("-d 4s -F 199", &["a.folded"])?.expect_code(0)?;
    let folded = recording.folded("a.folded")?;
    are_named(&folded)?;
    ensure!(outcome.stderr.contains(REASON), "it is not said: {outcome}");
    Ok(())
}

#[test]
fn a_daemon_lives_on_and_says_what_it_gave_up() -> Result<()> {
    let _exclusive = require_root!();
    let site = Site::new()?;
    let mut daemon = site.start()?;
    let client = daemon.client()?;
    let _hostile = start_hostile()?;
    let _good = Workload::new("spin", 60.0)?.start()?;
    let selection = json!({"kind": "PROFILE_KIND_ON_CPU", "range": {"since": {"seconds": 60}}});
    let folded = wait_for("samples of both programs", Duration::from_secs(50), || {
        let query = json!({"selection": selection, "format": "FORMAT_FOLDED"});
        let parts = client.call("profiler.v1.ProfileService/Query", query)?;
        let text: String = parts.iter().filter_map(|part| part["text"].as_str()).collect();
        let folded = Folded::parse(&text)?;
        let both = folded.under("spin").total() > 400 && folded.under("hostile").total() > 400;
        Ok(both.then_some(folded))
    })?;
    are_named(&folded)?;
    ensure!(daemon.running.is_running()?, "the daemon is gone: {}", daemon.running.stderr());
    let line = wait_for("a count of what was given up", Duration::from_secs(50), || {
        let (_, metrics) = site.get("/metrics")?;
        Ok(metrics.lines().find(|line| line.contains(REASON)).map(str::to_owned))
    })?;
    ensure!(line.ends_with(" 1"), "the file was given up once: {line}");
    Ok(())
}
