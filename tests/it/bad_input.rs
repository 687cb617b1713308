//! Bad input gets one clear line and its exit code, and leaves nothing behind.

use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use profiler_tests::binary::profiler;
use profiler_tests::require_root;
use profiler_tests::run::{Outcome, Running, run_in};
use profiler_tests::workload::Workload;
use tempfile::TempDir;

/// A command line, split at blanks and run in an empty directory; the exit code; words of which
/// one must be in what it says, in lower case.
type Row<'a> = (&'a str, i32, &'a [&'a str]);

fn check(rows: &[Row<'_>]) -> Result<()> {
    let mut wrong = Vec::new();
    for &(line, code, words) in rows {
        let dir = TempDir::new()?;
        let outcome = run_in(dir.path(), line.split_whitespace())?;
        if let Err(error) = judge(&outcome, dir.path(), code, words) {
            wrong.push(format!("profiler {line}\n{error:#}\n{outcome}"));
        }
    }
    assert!(wrong.is_empty(), "{} of {} are wrong:\n\n{}", wrong.len(), rows.len(), wrong.join("\n\n"));
    Ok(())
}

fn judge(outcome: &Outcome, dir: &Path, code: i32, words: &[&str]) -> Result<()> {
    ensure!(outcome.code == Some(code), "expected exit code {code}");
    let said = outcome.stderr.to_lowercase();
    ensure!(words.iter().any(|word| said.contains(word)), "expected one of {words:?} on stderr");
    ensure!(!said.contains("panicked"), "it panicked");
    // Usage errors come with a usage line or two; everything else is said in one or two lines.
    ensure!(said.trim().lines().count() <= if code == 2 { 8 } else { 3 }, "too many lines");
    ensure!(outcome.stdout.is_empty(), "stdout is for data");
    ensure!(outcome.took < Duration::from_secs(30), "that took too long");
    let left: Vec<_> = std::fs::read_dir(dir)?.flatten().map(|entry| entry.file_name()).collect();
    ensure!(left.is_empty(), "it left {left:?} behind");
    Ok(())
}

#[test]
fn wrong_usage_exits_with_2() -> Result<()> {
    check(&[
        ("record -F 0 -o a.svg -- true", 2, &["frequency", "-f"]),
        ("record -F 100000000 -o a.svg -- true", 2, &["frequency", "-f"]),
        ("record -F much -o a.svg -- true", 2, &["much"]),
        ("record -d 0s -o a.svg -- true", 2, &["duration", "-d"]),
        ("record -d soon -o a.svg -- true", 2, &["soon"]),
        ("record -o a.txt -- true", 2, &["a.txt", ".txt", "extension"]),
        ("record -o a -- true", 2, &["extension", ".svg"]),
        ("record -p x -o a.svg", 2, &["-p", "pid"]),
        ("record --off-cpu --wall -o a.svg -- true", 2, &["--wall", "--off-cpu"]),
        ("no-such-command", 2, &["no-such-command"]),
        ("flamegraph --format gif", 2, &["gif"]),
        ("flamegraph --where comm", 2, &["where", "selector", "position", "expected"]),
        ("flamegraph --connect ftp://x", 2, &["ftp", "connect", "unix://"]),
        ("flamegraph -o a.txt", 2, &["a.txt", ".txt", "extension"]),
        ("capture start on-cpu", 2, &["on-cpu"]),
    ])
}

#[test]
fn an_unreachable_daemon_exits_with_3() -> Result<()> {
    let words = &["no-such.sock"];
    check(&[
        ("flamegraph --connect unix:///tmp/no-such.sock", 3, words),
        ("flamegraph -o a.svg --connect unix:///tmp/no-such.sock", 3, words),
        ("top --connect unix:///tmp/no-such.sock", 3, words),
        ("status --connect unix:///tmp/no-such.sock", 3, words),
        ("capture list --connect unix:///tmp/no-such.sock", 3, words),
        ("status --connect http://127.0.0.1:1", 3, &["127.0.0.1:1"]),
    ])
}

#[test]
fn what_cannot_be_recorded_or_written_is_refused() -> Result<()> {
    let _exclusive = require_root!();
    let workload = Workload::new("sleepers", 100.0)?.arg("1").arg("90000");
    let running = workload.start()?;
    let asleep = format!("record -d 1s -o a.svg -p {}", running.pid());
    // A pid that was given out a moment ago will not be given out again soon.
    let gone = Workload::new("spin", 0.01)?.start()?;
    let gone_pid = gone.pid().to_string();
    gone.wait()?;
    let no_such_process = format!("record -d 30s -o a.svg -p {gone_pid}");
    check(&[
        (&no_such_process, 5, &[&gone_pid]),
        ("record -d 30s -o a.svg --cgroup /no/such/cgroup", 5, &["/no/such/cgroup"]),
        ("record -d 30s -o no/such/dir/a.svg", 1, &["no/such/dir"]),
        ("record -d 30s -o /proc/a.svg", 1, &["/proc/a.svg"]),
        ("record -d 30s -o a.svg -- ./no-such-command", 1, &["no-such-command"]),
        ("record -d 30s -o a.svg -- /dev/null", 1, &["/dev/null"]),
        // Sampled once a second, these have nothing to show: no file, and a reason.
        ("record -F 1 -o a.svg -o a.folded -o a.pb.gz -- true", 4, &["no sample", "nothing", "no data"]),
        (&asleep, 4, &["no sample", "nothing", "no data"]),
    ])
}

#[test]
fn a_wrong_configuration_is_refused_with_file_and_line() -> Result<()> {
    let dir = TempDir::new()?;
    let files = [
        ("unknown.toml", "# a comment\n\nno_such_key = 1\n", "3"),
        ("syntax.toml", "# a comment\nhttp = = 1\n", "2"),
        ("type.toml", "\n\n\nhttp = 5\n", "4"),
    ];
    for (name, text, line) in files {
        let path = dir.path().join(name);
        std::fs::write(&path, text)?;
        let arguments = ["daemon", "--config", name];
        let outcome = run_in(dir.path(), arguments)?.expect_code(2)?;
        assert!(outcome.stderr.contains(name), "the file is not named: {outcome}");
        let named = outcome.stderr.contains(&format!("line {line}"))
            || outcome.stderr.contains(&format!("{name}:{line}"));
        assert!(named, "line {line} is not named: {outcome}");
    }
    let outcome = run_in(dir.path(), ["daemon", "--config", "no-such.toml"])?;
    assert!(matches!(outcome.code, Some(1 | 2)) && outcome.stderr.contains("no-such.toml"), "{outcome}");
    Ok(())
}

#[test]
fn without_privileges_the_missing_capability_is_named() -> Result<()> {
    // As root, to be able to become nobody; anybody else is unprivileged already.
    let _exclusive = require_root!();
    let dir = TempDir::new()?;
    // The build's directory need not be readable for others.
    std::fs::set_permissions(dir.path(), PermissionsExt::from_mode(0o777))?;
    let binary = dir.path().join("profiler");
    std::fs::copy(profiler()?, &binary).context("cannot copy the profiler")?;
    std::fs::set_permissions(&binary, PermissionsExt::from_mode(0o755))?;
    let listen = format!("unix://{}/p.sock", dir.path().display());
    let state = dir.path().join("state").display().to_string();
    for arguments in [
        vec!["record", "-d", "30s", "-o", "a.svg"],
        vec!["record", "-d", "30s", "--off-cpu", "-o", "a.svg", "--", "true"],
        vec!["daemon", "--listen", &listen, "--http", "127.0.0.1:0", "--state-dir", &state],
    ] {
        let mut command = Command::new(&binary);
        // nobody and nogroup on Debian; any ids without rights would do.
        command.args(&arguments).current_dir(dir.path()).uid(65_534).gid(65_534);
        let outcome = Running::start(command)?.wait()?;
        assert_eq!(outcome.code, Some(5), "{arguments:?}: {outcome}");
        let said = &outcome.stderr;
        let named = ["CAP_BPF", "CAP_PERFMON", "CAP_SYS_ADMIN"].iter().any(|name| said.contains(name));
        assert!(named, "{arguments:?}: no capability is named: {outcome}");
        assert!(!dir.path().join("a.svg").exists() && !dir.path().join("p.sock").exists(), "{arguments:?}");
    }
    Ok(())
}
