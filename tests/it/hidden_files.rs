//! Hosts that lack or hide some kernel files: without BTF there is a reason, without the rest it works.

use std::process::Command;

use anyhow::Result;
use profiler_tests::binary::profiler;
use profiler_tests::require_root;
use profiler_tests::run::{Outcome, Running};
use profiler_tests::workload::Workload;

use crate::recording::Recording;

/// Records a workload in a mount namespace of its own, after this shell script has hidden things.
fn record_after(script: &str, recording: &Recording, workload: &Workload) -> Result<Outcome> {
    let mut command = Command::new("unshare");
    command
        .args(["--mount", "--propagation", "private", "sh", "-e", "-c"])
        .arg(format!("{script}\nexec \"$@\""))
        .arg("sh")
        .arg(profiler()?)
        .args(["record", "-d", "100s", "-F", "199", "-o"])
        .arg(recording.path("a.folded"))
        .arg("--")
        .args(workload.line());
    Running::start(command)?.wait()
}

#[test]
fn without_btf_there_is_a_reason_and_no_file() -> Result<()> {
    let _exclusive = require_root!();
    let recording = Recording::new()?;
    let workload = Workload::new("spin", 1.0)?;
    let outcome =
        record_after("mount -t tmpfs none /sys/kernel/btf", &recording, &workload)?.expect_code(5)?;
    assert!(outcome.stderr.contains("BTF"), "{outcome}");
    assert!(!recording.path("a.folded").exists());
    assert!(workload.truth().is_err(), "the command was run although nothing could be recorded");
    Ok(())
}

#[test]
fn without_tracefs_modules_and_kcore_it_works() -> Result<()> {
    // Hidden as containers hide them: an empty directory, or /dev/null on top.
    const HIDE: &str = "
        for dir in /sys/kernel/tracing /sys/kernel/debug; do
            if [ -d $dir ]; then mount -t tmpfs none $dir; fi
        done
        for file in /proc/modules /proc/kcore; do
            if [ -e $file ]; then mount --bind /dev/null $file; fi
        done";
    let _exclusive = require_root!();
    let recording = Recording::new()?;
    let workload = Workload::new("spin", 1.0)?;
    record_after(HIDE, &recording, &workload)?.expect_code(0)?;
    let folded = recording.folded("a.folded")?;
    assert_eq!(folded.heaviest_leaf().map(|(leaf, _)| leaf), Some("hot_function"));
    Ok(())
}

#[test]
fn tracefs_may_be_mounted_at_either_place() -> Result<()> {
    let _exclusive = require_root!();
    let recording = Recording::new()?;
    for (kind, place) in [("tracefs", "/sys/kernel/tracing"), ("debugfs", "/sys/kernel/debug")] {
        // Other programs on the host may have mounted it already.
        let script = format!("mountpoint -q {place} || mount -t {kind} none {place}");
        let workload = Workload::new("spin", 1.0)?;
        record_after(&script, &recording, &workload)?.expect_code(0)?;
        assert!(recording.folded("a.folded")?.total() > 0, "{script}");
    }
    Ok(())
}
