//! Cost of off-CPU time by switches a second and CPU, against no profiler and against peers.
//!
//! Each run of a tool has a run with nothing right before and right after it, so that a machine that
//! drifts changes both alike; a row shows the median of all rounds, and is printed with the last of them.

mod idle;
mod programs;
mod ring;
mod table;
mod tools;

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use clap::Args;

use self::programs::Stats;
use self::ring::{Counted, Ring, Shape, WARM_UP};
use self::table::{Row, Run};
use self::tools::{Tool, Tools};
use crate::packages;
use crate::run::{cargo, is_root, run, workspace};

/// Rates that leave no time for work are those of the highest rate.
const HIGHEST: u64 = 0;
/// How long programs are timed.
const TIMED: Duration = Duration::from_secs(1);

/// What is measured, and how long.
#[derive(Debug, Args)]
pub(crate) struct Arguments {
    /// Rounds; every figure is the median of all of them, and each takes ten minutes or more
    #[arg(long, default_value_t = 1)]
    rounds: usize,
    /// Seconds counted in each run
    #[arg(long, default_value_t = 1.0)]
    seconds: f64,
    /// Seconds that the daemon has before anything is counted, so that it has set its rates
    #[arg(long, default_value_t = 4.0)]
    settle: f64,
    /// Switches a second and CPU; 0 is as many as there can be
    #[arg(long, value_delimiter = ',', default_values_t = [1_000, 10_000, 20_000, 50_000, 100_000, HIGHEST])]
    rates: Vec<u64>,
    /// Threads of all CPUs and what they wait on: KIND-THREADS with pipe or futex; 2 is a pair a CPU
    #[arg(long, value_delimiter = ',', value_parser = shape,
          default_values = ["pipe-2", "futex-2", "futex-200", "futex-1000"])]
    shapes: Vec<Shape>,
    /// What is run beside the workload
    #[arg(long, value_enum, value_delimiter = ',', default_values_t =
          [Tool::Empty, Tool::Continuous, Tool::Capture, Tool::PerfSched, Tool::Bpftrace])]
    with: Vec<Tool>,
    /// Seconds to look at an idle host for in place of all this: what recording causes by itself
    #[arg(long)]
    idle: Option<f64>,
    /// Measure this binary instead of building one
    #[arg(long)]
    profiler: Option<PathBuf>,
}

/// Measures and prints a table.
///
/// # Errors
///
/// Without root or a compiler; when the workload fails. A tool that fails has a row that says so.
pub(super) fn off_cpu(arguments: &Arguments) -> Result<()> {
    ensure!(is_root(), "the bench loads eBPF programs: run it as root");
    let directory = workspace()?.join("target").join("bench").join("off-cpu");
    std::fs::create_dir_all(&directory).with_context(|| format!("cannot make {}", directory.display()))?;
    let profiler = match &arguments.profiler {
        Some(profiler) => profiler.canonicalize()?,
        None => build_profiler()?,
    };
    let tools = Tools { profiler, directory: directory.clone() };
    let done = match arguments.idle {
        Some(seconds) => idle::idle(&tools, Duration::from_secs_f64(seconds)),
        None => measure(arguments, &tools, &directory),
    };
    tools::clean(&directory);
    done
}

fn measure(arguments: &Arguments, tools: &Tools, directory: &Path) -> Result<()> {
    packages::install(&["gcc", "libc6-dev"])?;
    let wanted: BTreeSet<Tool> = arguments.with.iter().copied().collect();
    // In their order the empty program comes first: the others' rows need its figure.
    let absent: BTreeMap<Tool, String> = wanted
        .iter()
        .filter_map(|tool| Some((*tool, packages::install(&[tool.package()?]).err()?)))
        .map(|(tool, error)| {
            (tool, format!("{} cannot be installed: {error:#}", tool.package().unwrap_or("it")))
        })
        .collect();
    let ring = Ring::build(directory)?;
    let bench = Bench {
        ring: &ring,
        tools,
        length: Duration::from_secs_f64(arguments.seconds),
        settle: Duration::from_secs_f64(arguments.settle),
        rounds: arguments.rounds.max(1),
        wanted,
        absent,
    };
    let cases = arguments.shapes.len() * arguments.rates.len();
    eprintln!("about {:.1} min for {cases} cases", (bench.case_time() * cases as u32).as_secs_f64() / 60.0);
    table::head(ring.cpus());
    for &shape in &arguments.shapes {
        let speed = ring.speed(shape)?;
        for &rate in &arguments.rates {
            let work = if rate == HIGHEST { Some(0) } else { speed.work(rate as f64) };
            let Some(work) = work else {
                eprintln!("{}: {rate} switches/s are more than there can be", shape.name(ring.cpus()));
                continue;
            };
            bench.case(shape, work)?;
        }
    }
    table::foot();
    Ok(())
}

struct Bench<'a> {
    ring: &'a Ring,
    tools: &'a Tools,
    length: Duration,
    settle: Duration,
    rounds: usize,
    wanted: BTreeSet<Tool>,
    /// Tools that this machine does not have, and why.
    absent: BTreeMap<Tool, String>,
}

impl Bench<'_> {
    /// What a case takes, all rounds: starts and ends included, as they were seen.
    fn case_time(&self) -> Duration {
        const AROUND: Duration = Duration::from_secs(3);
        let of = |tool: &Tool| 2 * self.length + AROUND + if tool.is_ours() { self.settle } else { WARM_UP };
        let tools = self.wanted.iter().filter(|tool| !self.absent.contains_key(tool));
        tools.map(of).sum::<Duration>() * self.rounds as u32
    }

    /// All rounds of all tools at one rate; prints each row when its last run is done.
    fn case(&self, shape: Shape, work: u64) -> Result<()> {
        let mut rows: BTreeMap<Tool, Row> = BTreeMap::new();
        for round in 1..=self.rounds {
            let mut before = self.ring.alone(shape, work, self.length)?;
            for &tool in &self.wanted {
                let row = rows.entry(tool).or_default();
                if row.failed.is_none() {
                    let run = match self.absent.get(&tool) {
                        Some(why) => Err(why.clone()),
                        None => self.with(tool, shape, work).map_err(|error| format!("{error:#}")),
                    };
                    let after = self.ring.alone(shape, work, self.length)?;
                    let passes = f64::midpoint(before.passes, after.passes);
                    let nothing = Counted { passes, switches: after.switches };
                    before = after;
                    match run {
                        Ok(run) => row.runs.push(Run { nothing, ..run }),
                        Err(why) => row.failed = Some(why),
                    }
                }
                if round == self.rounds {
                    let floor_ns = rows.get(&Tool::Empty).and_then(Row::floor_ns);
                    println!("{}", rows[&tool].line(&shape.name(self.ring.cpus()), tool.name(), floor_ns));
                }
            }
        }
        Ok(())
    }

    /// One run with a tool beside it, then a shorter one in which its programs are timed.
    fn with(&self, tool: Tool, shape: Shape, work: u64) -> Result<Run> {
        let running = self.tools.start(tool)?;
        let warm_up = if tool.is_ours() { self.settle.max(WARM_UP) } else { WARM_UP };
        let child = self.ring.start(shape, work, warm_up, self.length)?;
        if tool == Tool::Capture {
            self.tools.capture(&running, child.id())?;
        }
        std::thread::sleep(warm_up);
        let cpu_before = programs::cpu_time(running.pid());
        let counted = self.ring.finish(child)?;
        let cpu = programs::cpu_time(running.pid()).saturating_sub(cpu_before);
        let mut run = Run { counted, cpus: cpu.as_secs_f64() / self.length.as_secs_f64(), ..Run::default() };
        if tool != Tool::PerfSched {
            let child = self.ring.start(shape, work, WARM_UP, TIMED)?;
            if tool == Tool::Capture {
                self.tools.capture(&running, child.id())?;
            }
            std::thread::sleep(WARM_UP);
            let stats = Stats::on()?;
            let before = programs::of(running.pid())?;
            // Not to the end of it: the threads' end is no part of this.
            std::thread::sleep(TIMED / 2);
            run.programs = programs::between(&before, &programs::of(running.pid())?);
            drop(stats);
            self.ring.finish(child)?;
        }
        Ok(run)
    }
}

fn build_profiler() -> Result<PathBuf> {
    run(cargo().args(["build", "--release", "--package", "profiler-daemon", "--bin", "profiler"]))?;
    let target = std::env::var_os("CARGO_TARGET_DIR").map_or(workspace()?.join("target"), PathBuf::from);
    Ok(target.join("release").join("profiler"))
}

fn shape(text: &str) -> Result<Shape, String> {
    let wrong = || format!("{text:?} is not pipe-THREADS or futex-THREADS");
    let (kind, threads) = text.split_once('-').ok_or_else(wrong)?;
    let kind = ["pipe", "futex"].into_iter().find(|known| *known == kind).ok_or_else(wrong)?;
    Ok(Shape { kind, threads: threads.parse().map_err(|_| wrong())? })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shapes_are_a_kind_and_a_number() {
        assert_eq!(shape("futex-200"), Ok(Shape { kind: "futex", threads: 200 }));
        assert!(shape("futex").is_err() && shape("disk-2").is_err() && shape("pipe-x").is_err());
        assert_eq!(Shape { kind: "pipe", threads: 2 }.name(2), "pipe pair a CPU");
        assert_eq!(Shape { kind: "futex", threads: 1000 }.name(2), "1000 threads, futex");
    }
}
