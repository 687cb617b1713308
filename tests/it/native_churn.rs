//! Stacks stay whole while processes come and go, exec, and load libraries; short lives are seen.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use profiler_tests::chain::{Chain, Judged, Root};
use profiler_tests::daemon::Site;
use profiler_tests::require_root;
use profiler_tests::run::wait_for;
use profiler_tests::stacks::{Stack, Stacks};
use profiler_tests::workload::{Recipe, Workload};

use crate::native_stacks::{C, deep_chain, native};
use crate::recording::{Recording, checked_walks, ratio};

/// Runs the churn for ten minutes instead of less than one.
const LONG: &str = "PROFILER_TESTS_LONG";

/// `short.c`: this many processes a second, of 5 ms each, under this name.
pub(crate) fn short(seconds: f64, a_second: u32, comm: &str) -> Result<Workload> {
    let program = Recipe { name: "short", source: "short.c", flags: &C }.build()?;
    Ok(Workload::of(program, seconds)?.arg(a_second.to_string()).arg("5").arg(comm))
}

/// A program that loads libraries, and this many copies of a library, each a file of its own.
pub(crate) fn host_and_plugins(dir: &Path, count: usize) -> Result<(PathBuf, Vec<PathBuf>)> {
    let flags: Vec<&str> = C.iter().copied().chain(["-shared", "-fPIC"]).collect();
    let plugin = Recipe { name: "plugin.so", source: "plugin.c", flags: &flags }.build()?;
    let copies = (0..count).map(|number| {
        let copy = dir.join(format!("plugin-{number}.so"));
        std::fs::copy(&plugin, &copy).with_context(|| format!("cannot make {}", copy.display()))?;
        Ok(copy)
    });
    Ok((Recipe { name: "host", source: "host.c", flags: &C }.build()?, copies.collect::<Result<_>>()?))
}

#[test]
fn native_stacks_stay_whole_while_processes_come_and_go() -> Result<()> {
    let _exclusive = require_root!();
    let length = Duration::from_secs(if std::env::var_os(LONG).is_some() { 600 } else { 48 });
    let quarter = length / 4;
    // They end when they are dropped.
    let forever = 2.0 * length.as_secs_f64() + 200.0;
    let chain = native("nat-steady", &[], forever, "spin")?;
    let churn = short(forever, 150, "churn")?;
    let _chain = chain.start()?;
    let site = Site::new()?;
    // A budget that a daemon built for debugging does not come near: at the usual one it would sample
    // less and less beside the churn, as it should.
    let budget = ["--budget-millicpus", "1000"];
    let flags = ["--on-cpu-frequency", "199", "--window", "2s"];
    let _daemon = site.start_with(&[flags.as_slice(), budget.as_slice()].concat())?;
    let ask = |from: Duration, to: Duration| -> Result<Judged> {
        let (from, to) = (format!("-{}ms", from.as_millis()), format!("-{}ms", to.as_millis()));
        let query = ["flamegraph", "--format", "json", "--from", &from, "--to", &to];
        let outcome =
            site.cli(&[&query[..], &["--where", "comm=\"nat-steady\""]].concat())?.expect_code(0)?;
        Ok(deep_chain(&["spin_leaf"]).judge(&Stacks::parse(&outcome.stdout)?.stacks))
    };
    wait_for("the chain to be seen", Duration::from_secs(60), || {
        Ok((ask(Duration::from_secs(12), Duration::from_secs(1))?.total() > 0).then_some(()))
    })?;

    let begin = Instant::now();
    let _churn = churn.start()?;
    std::thread::sleep(length);
    // Until the last window is sealed.
    std::thread::sleep(Duration::from_secs(4));
    let ago = begin.elapsed();
    let first = ask(ago, ago - quarter)?;
    let last = ask(ago - 3 * quarter, ago - length)?;
    let processes = "nat-steady beside the churn";
    let complaints = [
        first.complaint(&format!("{processes}, first quarter"), 0.99, 0.9),
        last.complaint(&format!("{processes}, last quarter"), 0.99, 0.9),
    ];
    assert!(complaints.iter().all(Option::is_none), "{complaints:#?}");
    assert!(last.right() >= first.right() - 0.005, "{} at first, {} at last", first.right(), last.right());
    // A profile of next to nothing proves nothing: a CPU's tenth is little on any machine.
    let least = 0.1 * 199.0 * quarter.as_secs_f64();
    assert!(first.total() as f64 > least && last.total() as f64 > least, "{first:?} {last:?}");
    Ok(())
}

#[test]
fn native_stacks_of_a_program_are_whole_at_once_after_exec() -> Result<()> {
    let _exclusive = require_root!();
    let recording = Recording::new()?;
    let second = native("nat-second", &["-fno-pie", "-no-pie"], 4.0, "spin")?;
    // CPU time goes on counting across exec: the second one has two seconds of its own.
    let first = second.line().iter().fold(native("nat-first", &[], 2.0, "spin")?, Workload::arg);
    let outcome =
        recording.record_workload("-d 230s -F 997 --walks check", &["a.json"], &first)?.expect_code(0)?;
    let stacks = recording.stacks("a.json")?;
    let chain = deep_chain(&["spin_leaf"]);
    let judged = chain.judge(stacks.of("nat-second"));
    assert!(judged.total() > 1000, "{judged:?}");
    let complaints = [
        chain.judge(stacks.of("nat-first")).complaint("before exec", 0.97, 0.9),
        judged.complaint("after exec", 0.97, 0.9),
    ];
    assert!(complaints.iter().all(Option::is_none), "{complaints:#?}");
    checked_walks(&outcome)?;
    Ok(())
}

#[test]
fn native_a_library_loaded_later_is_named_and_its_stacks_are_whole() -> Result<()> {
    let _exclusive = require_root!();
    let recording = Recording::new()?;
    let dir = tempfile::TempDir::new()?;
    let (host, plugins) = host_and_plugins(dir.path(), 1)?;
    let workload = Workload::of(host, 3.0)?.arg("once").arg(&plugins[0]);
    let outcome =
        recording.record_workload("-d 230s -F 997 --walks check", &["a.json"], &workload)?.expect_code(0)?;
    let stacks = recording.stacks("a.json")?;
    let (alone, in_library): (Vec<&Stack>, Vec<&Stack>) = stacks
        .of("host")
        .into_iter()
        .partition(|stack| stack.frames.iter().any(|frame| frame.name == "host_alone"));
    let before = Chain::new(["host_alone"], Root::Start).judge(alone);
    let names = ["in_library", "plugin_1", "plugin_2", "plugin_3", "host_leaf"];
    let after = Chain::new(names, Root::Start).judge(in_library.iter().copied());
    assert!(after.total() > 2000, "{after:?}");
    // Three seconds of samples: within one second of the first is more than two thirds.
    let complaints =
        [before.complaint("before dlopen", 0.97, 0.9), after.complaint("after dlopen", 0.8, 0.8)];
    assert!(complaints.iter().all(Option::is_none), "{complaints:#?}");
    let unnamed: u64 = in_library
        .iter()
        .filter(|stack| stack.frames.iter().any(|frame| frame.is_unnamed() && frame.name.contains("plugin")))
        .map(|stack| stack.count)
        .sum();
    println!("{unnamed} of {} records with a function of the library that has no name", after.total());
    assert!(ratio(unnamed as f64, after.total() as f64) < 0.2, "{unnamed} of {}", after.total());
    checked_walks(&outcome)?;
    Ok(())
}

#[test]
fn native_short_lives_are_seen_under_their_own_name() -> Result<()> {
    const FREQUENCY_HZ: f64 = 1999.0;
    const COMM: &str = "short-child";
    let _exclusive = require_root!();
    let recording = Recording::new()?;
    let workload = short(12.0, 200, COMM)?;
    let options = format!("-d 230s -F {FREQUENCY_HZ} --walks check");
    let outcome = recording.record_workload(&options, &["a.json"], &workload)?.expect_code(0)?;
    let truth = workload.truth()?;
    let stacks = recording.stacks("a.json")?;
    let own = stacks.of(COMM);
    let sum = |wanted: &dyn Fn(&Stack) -> bool| -> f64 {
        own.iter().filter(|stack| wanted(stack)).map(|stack| stack.count).sum::<u64>() as f64
    };
    let all = sum(&|_| true);
    let expected = truth.cpu_seconds()? * FREQUENCY_HZ;
    let in_kernel = sum(&|stack| stack.user().is_empty());
    let named = sum(&|stack| {
        let user = stack.user();
        !user.is_empty() && user.iter().all(|frame| !frame.is_unnamed())
    });
    let chain = Chain::new(["short_life", "short_spin"], Root::Start).judge(own.iter().copied());
    println!(
        "{} processes, {} a second, at most {} at a time; {all} records of {expected} by their own accounting \
         ({:.1} %); {:.1} % of them with user frames that all have names, {:.1} % in the kernel only",
        truth.number("processes")?,
        truth.number("a_second")?,
        truth.number("most_running")?,
        100.0 * ratio(all, expected),
        100.0 * ratio(named, all),
        100.0 * ratio(in_kernel, all),
    );
    // Before the daemon has heard of a program there are no tables for it: a matter of a millisecond
    // or two, of which these have five.
    let complaint = chain.complaint("short lives", 0.5, 0.0);
    assert!(ratio(all, expected) >= 0.95, "{all} records of {expected}");
    assert!(ratio(named, all) >= 0.9, "{named} of {all} records have user frames that all have names");
    assert!(complaint.is_none(), "{complaint:?}");
    checked_walks(&outcome)?;
    Ok(())
}
