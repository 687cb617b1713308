//! Every walk with cache and window equals a plain table walk, whatever processes do meanwhile.

use anyhow::Result;
use profiler_tests::require_root;
use profiler_tests::run::Running;
use profiler_tests::workload::Workload;

use crate::native_churn::{host_and_plugins, short};
use crate::native_stacks::native;
use crate::recording::{Recording, checked_walks};

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
