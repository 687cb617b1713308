//! How long our programs run, as the kernel counts it while it is asked to.

use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

use aya::Ebpf;
use aya::programs::Program;
use aya::sys::{Stats, enable_stats};

use super::KernelError;

/// A measurement that is under way. Counting costs two readings of the clock for each run, so it
/// should be short; it ends when this is dropped, unless others count too.
#[derive(Debug)]
pub struct RunTimes {
    _counting: OwnedFd,
    began: Instant,
    before: Total,
    /// What counting adds to a run.
    reading: Duration,
}

/// Run time and number of runs.
#[derive(Clone, Copy, Debug, Default)]
struct Total {
    time: Duration,
    runs: u64,
}

/// Readings of the clock that are timed.
const READINGS: u32 = 1000;

impl RunTimes {
    pub(super) fn begin(ebpf: &Ebpf) -> Result<Self, KernelError> {
        let counting = enable_stats(Stats::RunTime)
            .map_err(|error| KernelError::RunTime(std::io::Error::other(error)))?;
        Ok(Self { _counting: counting, reading: reading(), began: Instant::now(), before: total(ebpf) })
    }

    /// CPUs that the programs kept busy since the measurement began. A run is timed from one reading
    /// of the clock to another: the length of about one such reading is taken off.
    #[must_use]
    pub fn read(&self, kernel: &super::Kernel) -> f64 {
        let elapsed = self.began.elapsed().as_secs_f64().max(1e-6);
        let now = total(&kernel.ebpf);
        let runs = now.runs.saturating_sub(self.before.runs);
        let counting = self.reading.as_secs_f64() * runs as f64;
        (now.time.saturating_sub(self.before.time).as_secs_f64() - counting).max(0.0) / elapsed
    }
}

/// How long it takes to read the clock here.
fn reading() -> Duration {
    let began = Instant::now();
    for _ in 0..READINGS {
        std::hint::black_box(Instant::now());
    }
    began.elapsed() / READINGS
}

/// Run time of all programs that are loaded now.
fn total(ebpf: &Ebpf) -> Total {
    let infos = ebpf.programs().filter_map(|(_, program)| match program {
        Program::BtfTracePoint(program) => program.info().ok(),
        Program::PerfEvent(program) => program.info().ok(),
        Program::Iter(program) => program.info().ok(),
        _ => None,
    });
    infos.fold(Total::default(), |total, info| Total {
        time: total.time + info.run_time(),
        runs: total.runs.saturating_add(info.run_count()),
    })
}
