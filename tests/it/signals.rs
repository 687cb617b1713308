//! A recording that is cut short, by a signal or by the end of what is recorded, still writes.

use std::path::Path;
use std::time::Duration;

use anyhow::Result;
use profiler_tests::bpf::wait_for_programs;
use profiler_tests::require_root;
use profiler_tests::run::Running;
use profiler_tests::workload::Workload;
use rustix::process::Signal;

use crate::recording::Recording;

#[test]
fn a_signal_ends_the_recording_early_and_what_was_seen_is_written() -> Result<()> {
    let _exclusive = require_root!();
    let workload = Workload::new("spin", 100.0)?;
    let running = workload.start()?;
    for signal in [Signal::TERM, Signal::INT] {
        let recording = Recording::new()?;
        let options = format!("-d 100s -F 199 -p {}", running.pid());
        let profiler = recording.start(&options, &["a.folded", "a.svg"])?;
        let held = wait_for_programs(profiler.pid())?;
        std::thread::sleep(Duration::from_secs(2));
        profiler.signal(signal)?;
        let outcome = profiler.wait_at_most(Duration::from_secs(30))?.expect_code(0)?;
        assert!(outcome.took < Duration::from_secs(60), "{signal:?} was ignored");
        let folded = recording.folded("a.folded")?;
        assert_eq!(folded.heaviest_leaf().map(|(leaf, _)| leaf), Some("hot_function"));
        assert_eq!(recording.svg("a.svg")?.total, folded.total());
        held.wait_until_gone()?;
    }
    Ok(())
}

#[test]
fn a_process_that_ends_ends_its_recording_and_what_was_seen_is_written() -> Result<()> {
    let _exclusive = require_root!();
    let recording = Recording::new()?;
    let workload = Workload::new("spin", 100.0)?;
    let running = workload.start()?;
    let profiler = recording.start(&format!("-d 100s -F 199 -p {}", running.pid()), &["a.folded"])?;
    wait_for_programs(profiler.pid())?;
    std::thread::sleep(Duration::from_secs(2));
    running.signal(Signal::KILL)?;
    running.wait()?;
    let outcome = profiler.wait_at_most(Duration::from_secs(30))?.expect_code(0)?;
    assert!(outcome.took < Duration::from_secs(60), "it went on recording a process that is gone");
    assert_eq!(recording.folded("a.folded")?.heaviest_leaf().map(|(leaf, _)| leaf), Some("hot_function"));
    Ok(())
}

#[test]
fn a_command_that_fails_is_reported_and_its_profile_is_written() -> Result<()> {
    let _exclusive = require_root!();
    let recording = Recording::new()?;
    let workload = Workload::new("spin", 1.0)?.arg("").arg("37");
    let outcome = recording.record_workload("-d 100s -F 199", &["a.folded"], &workload)?.expect_code(0)?;
    assert!(outcome.stderr.contains("37"), "the command's exit code is not reported: {outcome}");
    assert!(recording.folded("a.folded")?.total() > 0);
    Ok(())
}

#[test]
fn the_command_keeps_our_stdout_and_stderr() -> Result<()> {
    let _exclusive = require_root!();
    let recording = Recording::new()?;
    let file = recording.path("a.folded").display().to_string();
    let script = "echo to-stdout; echo to-stderr >&2; i=0; while [ $i -lt 300000 ]; do i=$((i+1)); done";
    let line = ["record", "-d", "100s", "-F", "499", "-o", &file, "--", "sh", "-c", script];
    let outcome = profiler_tests::run::run(line)?.expect_code(0)?;
    assert_eq!(outcome.stdout, "to-stdout\n", "stdout holds more or less than the command's: {outcome}");
    assert!(outcome.stderr.contains("to-stderr\n"), "{outcome}");
    Ok(())
}

#[test]
fn a_killed_recording_leaves_no_file_and_nothing_in_the_kernel() -> Result<()> {
    let _exclusive = require_root!();
    let recording = Recording::new()?;
    let workload = Workload::new("spin", 100.0)?;
    let running = workload.start()?;
    let profiler: Running = recording.start(&format!("-d 100s -p {}", running.pid()), &["a.folded"])?;
    let held = wait_for_programs(profiler.pid())?;
    profiler.signal(Signal::KILL)?;
    profiler.wait()?;
    held.wait_until_gone()?;
    let whole = recording.folded("a.folded").map(|folded| folded.total()).unwrap_or_default();
    assert_eq!(whole, 0, "a killed recording wrote a profile");
    assert!(Path::new(&format!("/proc/{}", running.pid())).exists(), "the recorded process was harmed");
    Ok(())
}
