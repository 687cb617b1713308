//! The workloads' own truth is sane: what the other tests compare with must itself be right.

use std::time::Duration;

use anyhow::Result;
use profiler_tests::privilege::Exclusive;
use profiler_tests::run::LIMIT;
use profiler_tests::workload::{Truth, Workload};

use crate::recording::{ratio, within};

fn run(workload: &Workload) -> Result<(Truth, Duration)> {
    let _exclusive = Exclusive::wait()?;
    let outcome = workload.start()?.wait_at_most(LIMIT)?.expect_code(0)?;
    Ok((workload.truth()?, outcome.took))
}

#[test]
fn chain_uses_the_cpu_time_it_was_told_to() -> Result<()> {
    let (truth, took) = run(&Workload::new("chain", 0.5)?)?;
    let cpu_seconds = truth.cpu_seconds()?;
    assert!((0.5..0.7).contains(&cpu_seconds), "{cpu_seconds}");
    assert!(cpu_seconds <= took.as_secs_f64(), "{cpu_seconds} s of CPU time in {took:?}");
    Ok(())
}

#[test]
fn spin_spends_four_fifths_in_the_hot_function() -> Result<()> {
    let (truth, _) = run(&Workload::new("spin", 0.5)?)?;
    let hot = ratio(truth.number("hot_ns")?, truth.number("cpu_ns")?);
    assert!((0.7..0.9).contains(&hot), "{hot}");
    Ok(())
}

#[test]
fn spin_ends_with_the_code_it_was_told_to() -> Result<()> {
    let workload = Workload::new("spin", 0.01)?.arg("").arg("7");
    workload.start()?.wait()?.expect_code(7)?;
    Ok(())
}

#[test]
fn fork_counts_children_and_grandchildren() -> Result<()> {
    let (truth, _) = run(&Workload::new("fork", 0.1)?)?;
    let each = ratio(truth.cpu_seconds()?, truth.number("processes")?);
    assert!(within(0.2, each, 0.1), "{each} s of CPU time a process instead of 0.1 s");
    Ok(())
}

#[test]
fn sleepers_sleep_all_the_time() -> Result<()> {
    let (truth, took) = run(&Workload::new("sleepers", 0.5)?.arg("3").arg("20"))?;
    let roles = truth.roles()?;
    assert_eq!(roles.len(), 3);
    for role in roles {
        assert!(role.wait_us / role.waits as f64 >= 20_000.0, "naps below 20 ms: {role:?}");
        let asleep = ratio(role.wait_us / 1e6, took.as_secs_f64());
        assert!((0.8..=1.0).contains(&asleep), "{asleep}: {role:?}");
    }
    Ok(())
}

#[test]
fn off_cpu_roles_wait_long_and_on_both_cpus() -> Result<()> {
    let (truth, took) = run(&Workload::new("offcpu", 1.0)?)?;
    let roles = truth.roles()?;
    let names: Vec<&str> = roles.iter().map(|role| role.comm.as_str()).collect();
    assert_eq!(
        names,
        [
            "oc-sleeper",
            "oc-napper",
            "oc-mutex",
            "oc-pipe",
            "oc-fsync",
            "oc-migrator",
            "oc-spin-a",
            "oc-spin-b",
            "oc-stuck"
        ]
    );
    // Of the others the truth is a range, or lies in the kernel's account.
    for role in roles.iter().filter(|role| role.least_us == role.wait_us && role.reason != "preempted") {
        assert!(role.short_waits_us / role.wait_us < 0.01, "waits below 1 ms matter: {role:?}");
        let waiting = ratio(role.wait_us / 1e6, took.as_secs_f64());
        assert!((0.8..=1.0).contains(&waiting), "{waiting}: {role:?}");
        let expected_waits = if role.comm == "oc-stuck" { 1..=1 } else { 20..=1000 };
        assert!(expected_waits.contains(&role.waits), "{role:?}");
    }
    if truth.number("cpus")? >= 2.0 {
        let migrator = roles.iter().find(|role| role.comm == "oc-migrator").map_or(0, |role| role.waits);
        let migrated = ratio(truth.number("migrations")?, migrator as f64);
        assert!(migrated > 0.9, "only {migrated} of the waits ended on another CPU");
    }
    Ok(())
}
