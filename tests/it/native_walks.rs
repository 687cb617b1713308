//! Every walk with cache and window equals a plain table walk, whatever processes do meanwhile.

use anyhow::{Context as _, Result};
use profiler_tests::require_root;
use profiler_tests::run::Running;
use profiler_tests::workload::Workload;

use crate::native_churn::{host_and_plugins, short};
use crate::native_stacks::native;
use crate::recording::{Recording, checked_walks, ratio};

/// Programs that load and unload, exec, come and go, and never have the same stack twice.
fn restless(dir: &std::path::Path) -> Result<Vec<Workload>> {
    const SECONDS: f64 = 300.0;
    let (host, plugins) = host_and_plugins(dir, 3)?;
    let load = plugins.iter().fold(Workload::of(host, SECONDS)?.arg("again"), Workload::arg);
    // Three programs after one another in one process; times are CPU time since its start.
    let third = native("nat-third", &["-static"], SECONDS, "alternate")?;
    let second =
        third.line().iter().fold(native("nat-second", &["-fno-pie", "-no-pie"], 0.6, "spin")?, Workload::arg);
    let first = second.line().iter().fold(native("nat-first", &[], 0.3, "random")?, Workload::arg);
    let mut all = vec![
        load,
        first,
        short(SECONDS, 60, "churn")?,
        native("nat-random", &[], SECONDS, "random")?,
        native("nat-signal", &[], SECONDS, "altstack")?,
        native("nat-syscall", &[], SECONDS, "syscall")?,
        native("nat-recursion", &[], SECONDS, "recursion")?,
    ];
    // Kept for their directories, in which the truth would be written.
    all.extend([second, third]);
    Ok(all)
}

fn assert_equal(options: &str) -> Result<()> {
    let dir = tempfile::TempDir::new()?;
    let recording = Recording::new()?;
    let workloads = restless(dir.path())?;
    let _running: Vec<Running> = workloads[..7].iter().map(Workload::start).collect::<Result<_>>()?;
    let options = format!("-d 12s -F 997 --walks check {options}");
    let outcome = recording.record(&options, &["a.json"])?.expect_code(0)?;
    let checked = checked_walks(&outcome)?;
    let stacks = recording.stacks("a.json")?;
    for comm in ["host", "churn", "nat-random", "nat-syscall", "nat-third"] {
        assert!(!stacks.of(comm).is_empty(), "no record of {comm}");
    }
    println!("{checked} walks of {} records", stacks.quality.records);
    assert!(checked > 1000, "only {checked} walks were compared");
    Ok(())
}

#[test]
fn native_walks_equal_plain_ones() -> Result<()> {
    let _exclusive = require_root!();
    assert_equal("")
}

#[test]
fn native_walks_of_waits_equal_plain_ones() -> Result<()> {
    let _exclusive = require_root!();
    assert_equal("--wall --min-block 0ms")
}

/// Frames that walks of this kind found by table, and that the kernel found along frame pointers.
fn timed_frames(stderr: &str, kind: &str) -> Option<(f64, f64)> {
    let line = stderr.lines().find_map(|line| line.strip_prefix(&format!("profiler: {kind}: ")))?;
    let frames = |part: &str| part.split_once(" frames)")?.0.rsplit_once('(')?.1.parse().ok();
    let (table, pointer) = line.split_once(" by frame pointer ")?;
    Some((frames(table)?, frames(pointer)?))
}

#[test]
fn native_walks_on_and_off_the_cpu_are_timed_apart() -> Result<()> {
    let _exclusive = require_root!();
    let flags = ["-fno-omit-frame-pointer", "-mno-omit-leaf-frame-pointer", "-DWITHOUT_QSORT"];
    let workload = native("nat-nap", &flags, 3.0, "nap")?;
    let recording = Recording::new()?;
    let options = "-d 230s --off-cpu --walks time --walks check";
    let outcome = recording.record_workload(options, &["a.json"], &workload)?.expect_code(0)?;
    let walks = checked_walks(&outcome)? as f64;
    let (table, pointer) =
        timed_frames(&outcome.stderr, "off-CPU walks").context("no off-CPU walk was timed")?;
    assert!(timed_frames(&outcome.stderr, "walks").is_none(), "nothing samples the CPU: {outcome}");
    println!("{table} frames by table, {pointer} by frame pointer, {walks} walks");
    // The chain has 40 links. The C library's frames below it have no frame pointer.
    assert!(walks > 1000.0 && table > 40.0 * walks, "{table} frames of {walks} walks");
    assert!(
        (0.9..=1.0).contains(&ratio(pointer, table)),
        "{pointer} frames by frame pointer, {table} by table"
    );
    Ok(())
}
