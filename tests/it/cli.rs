//! The commands that talk to a daemon.

use std::time::Duration;

use anyhow::Result;
use profiler_tests::daemon::Site;
use profiler_tests::folded::Folded;
use profiler_tests::require_root;
use profiler_tests::run::{run, wait_for};
use profiler_tests::svg::Svg;
use profiler_tests::workload::Workload;
use tempfile::TempDir;

const ENOUGH: u64 = 100;

#[test]
fn flame_graphs_tables_and_captures_come_over_the_command_line() -> Result<()> {
    let _exclusive = require_root!();
    let workload = Workload::new("spin", 100.0)?;
    let running = workload.start()?;
    let pid = running.pid().to_string();
    let selector = format!("pid=\"{pid}\"");
    let site = Site::new()?;
    let _daemon = site.start()?;

    let folded = wait_for("a window", Duration::from_secs(60), || {
        let query = ["flamegraph", "--format", "folded", "--since", "1m", "--where", &selector];
        let outcome = site.cli(&query)?;
        // Enough for the hottest function to be the hottest in them.
        let enough = outcome.code == Some(0) && Folded::parse(&outcome.stdout)?.total() >= ENOUGH;
        Ok(enough.then_some(outcome.stdout))
    })?;
    assert_eq!(Folded::parse(&folded)?.heaviest_leaf().map(|(leaf, _)| leaf), Some("hot_function"));

    let dir = TempDir::new()?;
    let svg = dir.path().join("graph.svg").display().to_string();
    let said =
        site.cli(&["flamegraph", "--since", "1m", "--where", &selector, "-o", &svg])?.expect_code(0)?;
    assert_eq!(said.stdout, "", "data went to the file, so stdout stays empty");
    assert!(Svg::parse(&std::fs::read_to_string(&svg)?)?.value_of("hot_function") > 0);

    let top = site.cli(&["top", "--since", "1m", "--where", &selector])?.expect_code(0)?;
    assert!(top.stdout.contains("hot_function"), "{top}");
    let status = site.cli(&["status"])?.expect_code(0)?;
    assert!(!status.stdout.is_empty(), "{status}");
    // Nothing that matches: a code of its own, and no file.
    let none = dir.path().join("none.svg").display().to_string();
    site.cli(&["flamegraph", "--since", "1m", "--where", "comm=\"no-such\"", "-o", &none])?.expect_code(4)?;
    assert!(!std::path::Path::new(&none).exists());
    site.cli(&["flamegraph", "--where", "comm"])?.expect_code(2)?;

    let started = site.cli(&["capture", "start", "off-cpu", "-d", "100s", "-p", &pid])?.expect_code(0)?;
    let id = started.stdout.split_whitespace().next().unwrap_or_default().to_owned();
    assert!(!id.is_empty(), "the capture's id goes to stdout: {started}");
    let list = site.cli(&["capture", "list"])?.expect_code(0)?;
    assert!(list.stdout.contains(&id), "{list}");
    site.cli(&["capture", "stop", &id])?.expect_code(0)?;
    let shown = site.cli(&["capture", "show", &id])?.expect_code(0)?;
    assert!(shown.stdout.contains(&id), "{shown}");
    let waited =
        site.cli(&["capture", "start", "off-cpu", "-d", "1s", "-p", &pid, "--wait"])?.expect_code(0)?;
    site.cli(&["capture", "start", "off-cpu", "-p", "4194304"])?.expect_code(5)?;
    assert!(waited.took >= Duration::from_secs(1), "--wait came back before the capture's end: {waited}");
    Ok(())
}

#[test]
fn check_tells_what_it_found_as_a_table_and_as_json() -> Result<()> {
    let _exclusive = require_root!();
    let table = run(["check"])?.expect_code(0)?;
    assert!(table.stdout.lines().count() > 1, "{table}");
    let json = run(["check", "--output", "json"])?.expect_code(0)?;
    let document: serde_json::Value = serde_json::from_str(&json.stdout)?;
    assert!(document.is_array() || document.is_object(), "{document}");
    Ok(())
}

#[test]
fn help_states_the_exit_codes() -> Result<()> {
    let help = run(["--help"])?.expect_code(0)?;
    for word in ["record", "daemon", "check", "flamegraph", "top", "status", "capture"] {
        assert!(help.stdout.contains(word), "--help does not mention {word}");
    }
    for code in ["0", "1", "2", "3", "4", "5"] {
        let stated = help.stdout.lines().any(|line| line.split_whitespace().any(|word| word == code));
        assert!(stated, "--help does not state exit code {code}:\n{}", help.stdout);
    }
    Ok(())
}
