//! Names of code whose file the profiler cannot simply open: deleted, exited, in other roots and mounts.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use profiler_tests::binary::profiler;
use profiler_tests::folded::Folded;
use profiler_tests::require_root;
use profiler_tests::run::{Running, wait_for};
use profiler_tests::workload::Workload;
use tempfile::TempDir;

use crate::recording::{Recording, ratio};

const CHAIN: [&str; 10] = ["f1", "f2", "f3", "f4", "f5", "f6", "f7", "f8", "f9", "f10"];

/// A copy of the workload `chain` in a directory of its own, that nothing else maps.
fn copy(dir: &Path) -> Result<PathBuf> {
    let workload = Workload::new("chain", 1.0)?;
    let program = workload.line().first().context("a workload has a program")?;
    let copy = dir.join("chain");
    std::fs::copy(program, &copy)?;
    Ok(copy)
}

/// The workload without shared libraries, for roots that have none.
fn copy_static(dir: &Path) -> Result<PathBuf> {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("workloads/chain.c");
    let program = dir.join("chain");
    let mut gcc = Command::new("gcc");
    gcc.args(["-std=gnu11", "-g", "-O2", "-fno-omit-frame-pointer", "-fno-optimize-sibling-calls"]);
    gcc.args(["-fno-inline", "-static", "-pthread", "-o"]).arg(&program).arg(source);
    Running::start(gcc)?.wait()?.expect_code(0)?;
    Ok(program)
}

/// Starts a command that becomes `chain`, and waits until it is.
fn start(command: Command) -> Result<Running> {
    // Building it could take longer than the workload runs.
    profiler()?;
    let running = Running::start(command)?;
    let comm = format!("/proc/{}/comm", running.pid());
    wait_for("the workload", Duration::from_secs(20), || {
        Ok((std::fs::read_to_string(&comm)? == "chain\n").then_some(()))
    })?;
    Ok(running)
}

/// Records a running process for three seconds.
fn record(running: &Running) -> Result<Folded> {
    let recording = Recording::new()?;
    recording.record(&format!("-d 3s -F 199 -p {}", running.pid()), &["a.folded"])?.expect_code(0)?;
    recording.folded("a.folded")
}

fn is_named(folded: &Folded) -> Result<()> {
    let of_chain = folded.under("chain");
    let named = ratio(of_chain.value_where(|row| row.holds(&CHAIN)) as f64, of_chain.total() as f64);
    ensure!(named >= 0.99, "{named} of {} samples hold the chain:\n{of_chain:#?}", of_chain.total());
    Ok(())
}

#[test]
fn a_binary_that_was_deleted_has_names() -> Result<()> {
    let _exclusive = require_root!();
    let dir = TempDir::new()?;
    let program = copy(dir.path())?;
    let mut command = Command::new(&program);
    command.arg(dir.path().join("truth")).arg("60");
    let running = start(command)?;
    std::fs::remove_file(program)?;
    is_named(&record(&running)?)
}

#[test]
fn a_process_that_exited_and_took_its_binary_along_has_names() -> Result<()> {
    let _exclusive = require_root!();
    let dir = TempDir::new()?;
    copy(dir.path())?;
    let recording = Recording::new()?;
    let recorder = recording.start("-d 5s -F 199", &["a.folded"])?;
    // Long enough for the recorder to begin; the process is over before that ends.
    let mut command = Command::new("sh");
    command.current_dir(&dir).args(["-c", "sleep 2; ./chain truth 1; rm chain"]);
    Running::start(command)?.wait()?.expect_code(0)?;
    recorder.wait()?.expect_code(0)?;
    let folded = recording.folded("a.folded")?;
    ensure!(folded.under("chain").total() > 20, "{folded:#?}");
    is_named(&folded)
}

#[test]
fn a_process_in_another_root_has_names() -> Result<()> {
    let _exclusive = require_root!();
    let dir = TempDir::new()?;
    copy_static(dir.path())?;
    let mut command = Command::new("chroot");
    command.arg(dir.path()).args(["/chain", "/truth", "60"]);
    is_named(&record(&start(command)?)?)
}

#[test]
fn a_process_in_another_mount_namespace_has_names() -> Result<()> {
    let _exclusive = require_root!();
    let dir = TempDir::new()?;
    let program = copy(dir.path())?;
    let place = TempDir::new()?;
    // Only this process sees the file system that its binary lies on. What others see under the
    // same path is another file, which must not lend its names.
    std::fs::copy("/bin/true", place.path().join("chain"))?;
    let mut command = Command::new("unshare");
    command
        .args(["--mount", "--propagation", "private", "sh", "-e", "-c"])
        .arg("mount -t tmpfs none \"$1\"; cp \"$2\" \"$1/chain\"; exec \"$1/chain\" \"$1/truth\" 60")
        .arg("sh")
        .arg(place.path())
        .arg(program);
    is_named(&record(&start(command)?)?)
}

#[test]
fn a_container_that_is_gone_had_names() -> Result<()> {
    let _exclusive = require_root!();
    let dir = TempDir::new()?;
    let program = copy_static(dir.path())?;
    let recording = Recording::new()?;
    let recorder = recording.start("-d 5s -F 199", &["a.folded"])?;
    // Mounts and pids of its own, another root, all of which go with it.
    let mut command = Command::new("unshare");
    command
        .args(["--mount", "--propagation", "private", "--pid", "--fork", "sh", "-e", "-c"])
        .arg(
            "sleep 2; mount -t tmpfs none \"$1\"; cp \"$2\" \"$1/chain\"; exec chroot \"$1\" /chain /truth 1",
        )
        .arg("sh")
        .arg(TempDir::new_in(&dir)?.keep())
        .arg(program);
    Running::start(command)?.wait()?.expect_code(0)?;
    recorder.wait()?.expect_code(0)?;
    let folded = recording.folded("a.folded")?;
    ensure!(folded.under("chain").total() > 20, "{folded:#?}");
    is_named(&folded)
}
