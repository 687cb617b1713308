//! A bench, run on request: what continuous off-CPU time costs a program that does nothing but switch.
//!
//! `cargo test -p profiler-tests --test it -- --ignored --nocapture off_cpu_cost`

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Context as _, Result};
use aya::programs::loaded_programs;
use profiler_tests::bpf::Held;
use profiler_tests::daemon::Site;
use profiler_tests::require_root;
use profiler_tests::workload::Workload;

const STATS: &str = "/proc/sys/kernel/bpf_stats_enabled";
const ROUNDS: usize = 5;
const SECONDS: f64 = 0.5;
/// Time for the daemon to have read what runs already.
const SETTLE: Duration = Duration::from_secs(5);

/// Flags of the daemon, by what is compared; the first is what the others are compared with.
const VARIANTS: [(&str, &[&str]); 4] = [
    ("no off-CPU", &["--off-cpu-enabled", "false"]),
    ("default budget", &[]),
    ("T = 10 ms, no budget", &["--budget-off-cpu-samples", "1000000"]),
    ("every interval", &["--off-cpu-period", "0s"]),
];

/// Switches of the pair.
#[derive(Clone, Copy, Debug, Default)]
struct Pair {
    per_second: f64,
    cpu_ns: f64,
}

#[test]
#[ignore = "a bench: prints figures and takes a minute"]
fn off_cpu_cost() -> Result<()> {
    let _exclusive = require_root!();
    let mut all: BTreeMap<&str, Vec<Pair>> = BTreeMap::new();
    // There and back, so that whatever drifts hits all the same.
    for (name, flags) in VARIANTS.iter().chain(VARIANTS.iter().rev()) {
        let site = Site::new()?;
        let daemon = site.start_with(flags)?;
        std::thread::sleep(SETTLE);
        for _ in 0..ROUNDS {
            all.entry(name).or_default().push(pair()?);
        }
        let _stats = Stats::on()?;
        let before = programs(daemon.running.pid())?;
        pair()?;
        for (program, (ns, runs)) in programs(daemon.running.pid())? {
            let (ns_before, runs_before) = before.get(&program).copied().unwrap_or_default();
            if runs > runs_before + 10_000 {
                let each = (ns - ns_before) as f64 / (runs - runs_before) as f64;
                println!("{name}: program {program} ran {} times, {each:.0} ns each", runs - runs_before);
            }
        }
    }
    let median = |name: &str| -> Option<Pair> {
        let pairs = all.get(name)?;
        Some(Pair {
            per_second: middle(pairs, |pair| pair.per_second),
            cpu_ns: middle(pairs, |pair| pair.cpu_ns),
        })
    };
    let base = median(VARIANTS[0].0).context("no figures")?;
    for (name, _) in VARIANTS {
        let pair = median(name).context("no figures")?;
        println!(
            "{name}: {:.0} switches/s (ratio {:.3}), {:.0} ns of CPU a switch (+{:.0} ns)",
            pair.per_second,
            pair.per_second / base.per_second,
            pair.cpu_ns,
            pair.cpu_ns - base.cpu_ns,
        );
    }
    Ok(())
}

fn pair() -> Result<Pair> {
    let workload = Workload::new("pingpong", SECONDS)?;
    workload.start()?.wait()?.expect_code(0)?;
    let truth = workload.truth()?;
    let switches = truth.number("switches")?;
    Ok(Pair {
        per_second: switches / truth.number("wall_ns")? * 1e9,
        cpu_ns: truth.number("cpu_ns")? / switches,
    })
}

fn middle(pairs: &[Pair], of: impl Fn(&Pair) -> f64) -> f64 {
    let mut values: Vec<f64> = pairs.iter().map(of).collect();
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

/// Run time, ns, and runs of a process's eBPF programs, by their names.
fn programs(pid: u32) -> Result<BTreeMap<String, (u64, u64)>> {
    let held = Held::by(pid)?;
    let mut programs = BTreeMap::new();
    for program in loaded_programs() {
        let program = program?;
        if held.programs.contains(&program.id()) {
            let name = program.name_as_str().unwrap_or_default().to_owned();
            programs.insert(name, (program.run_time().as_nanos() as u64, program.run_count()));
        }
    }
    Ok(programs)
}

/// The kernel times programs while this lives.
struct Stats;

impl Stats {
    fn on() -> Result<Self> {
        std::fs::write(STATS, "1")?;
        Ok(Self)
    }
}

impl Drop for Stats {
    fn drop(&mut self) {
        // Nothing to do about it if it fails: it only costs a little.
        _ = std::fs::write(STATS, "0");
    }
}
