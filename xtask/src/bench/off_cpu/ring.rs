//! The workload: rings of threads that hand a token round, with a piece of work at each hand.

use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};

use crate::run::{run, workspace};

const FLAGS: [&str; 6] = [
    "-std=gnu11",
    "-O2",
    "-fno-omit-frame-pointer",
    "-fno-optimize-sibling-calls",
    "-fno-inline",
    "-pthread",
];
/// Pieces of work by which the length of one is found out, and for how long.
const PROBE_WORK: u64 = 20_000;
const PROBE: Duration = Duration::from_millis(500);
/// Before anything is counted: all threads have started and found their CPU.
pub(super) const WARM_UP: Duration = Duration::from_millis(300);

/// How the threads wait for each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Shape {
    /// `pipe` or `futex`.
    pub(super) kind: &'static str,
    /// Threads of all rings; two a ring at least.
    pub(super) threads: usize,
}

impl Shape {
    /// For people.
    pub(super) fn name(self, cpus: usize) -> String {
        if self.threads <= 2 * cpus {
            format!("{} pair a CPU", self.kind)
        } else {
            format!("{} threads, {}", self.threads, self.kind)
        }
    }
}

/// What a run counted.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct Counted {
    /// Hands over a second, of all rings.
    pub(super) passes: f64,
    /// Switches a second and CPU.
    pub(super) switches: f64,
}

/// The program, and what its pieces of work take in one shape.
pub(super) struct Ring {
    program: PathBuf,
    truth: PathBuf,
    cpus: usize,
}

/// How long a hand over takes without work, and a round of work, ns.
#[derive(Clone, Copy, Debug)]
pub(super) struct Speed {
    pass_ns: f64,
    work_ns: f64,
}

impl Speed {
    /// Work for so many switches a second and CPU; `None` if that is more than there can be.
    pub(super) fn work(self, rate: f64) -> Option<u64> {
        let left = 1e9 / rate - self.pass_ns;
        (left > 0.0).then_some((left / self.work_ns) as u64)
    }
}

impl Ring {
    pub(super) fn build(directory: &Path) -> Result<Self> {
        let (source, program) = (workspace()?.join("tests/workloads/ring.c"), directory.join("ring"));
        run(Command::new("gcc").args(FLAGS).arg("-o").arg(&program).arg(source))?;
        let cpus = std::thread::available_parallelism()?.get();
        Ok(Self { program, truth: directory.join("ring.truth"), cpus })
    }

    pub(super) fn cpus(&self) -> usize {
        self.cpus
    }

    /// Starts it. It counts for so long after the warm-up.
    pub(super) fn start(
        &self,
        shape: Shape,
        work: u64,
        warm_up: Duration,
        length: Duration,
    ) -> Result<Child> {
        let threads = (shape.threads / self.cpus).max(2);
        Command::new(&self.program)
            .arg(&self.truth)
            .arg(length.as_secs_f64().to_string())
            .args([shape.kind, &threads.to_string(), &work.to_string(), &self.cpus.to_string()])
            .arg(warm_up.as_secs_f64().to_string())
            .spawn()
            .with_context(|| format!("cannot run {}", self.program.display()))
    }

    /// What one that was started has counted.
    pub(super) fn finish(&self, mut child: Child) -> Result<Counted> {
        let status = child.wait()?;
        ensure!(status.success(), "the workload failed: {status}");
        let truth = std::fs::read_to_string(&self.truth).context("the workload said nothing")?;
        let number = |name| field(&truth, name).with_context(|| format!("no {name} in {truth}"));
        let seconds = number("wall_ns")? / 1e9;
        Ok(Counted {
            passes: number("passes")? / seconds,
            switches: number("switches")? / seconds / self.cpus as f64,
        })
    }

    /// One run with nothing beside it.
    pub(super) fn alone(&self, shape: Shape, work: u64, length: Duration) -> Result<Counted> {
        self.finish(self.start(shape, work, WARM_UP, length)?)
    }

    /// How fast this machine hands over and works now.
    pub(super) fn speed(&self, shape: Shape) -> Result<Speed> {
        let pass_ns =
            |work| anyhow::Ok(self.cpus as f64 * 1e9 / self.alone(shape, work, PROBE)?.passes.max(1.0));
        let (without, with) = (pass_ns(0)?, pass_ns(PROBE_WORK)?);
        Ok(Speed { pass_ns: without, work_ns: ((with - without) / PROBE_WORK as f64).max(1e-3) })
    }
}

/// A number in an object of numbers.
fn field(json: &str, name: &str) -> Option<f64> {
    let (_, rest) = json.split_once(&format!("\"{name}\":"))?;
    rest.split([',', '}']).next()?.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_truth_is_read() {
        let truth = "{\"passes\":12,\"switches\":13,\"wall_ns\":1000}\n";
        assert_eq!(field(truth, "switches"), Some(13.0));
        assert_eq!(field(truth, "wall_ns"), Some(1000.0));
        assert_eq!(field(truth, "cpu_ns"), None);
    }

    #[test]
    fn work_fills_the_time_between_switches() {
        let speed = Speed { pass_ns: 2_000.0, work_ns: 0.5 };
        assert_eq!(speed.work(100_000.0), Some(16_000));
        assert_eq!(speed.work(600_000.0), None);
    }
}
