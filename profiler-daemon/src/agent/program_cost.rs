//! What our eBPF programs cost: measured for a moment now and then, since measuring costs as well.

use std::time::{Duration, Instant};

use tracing::info;

use crate::kernel::{Kernel, RunTimes};

/// How often, and for how long. Counting adds some tens of nanoseconds to each run.
const EVERY: Duration = Duration::from_secs(10);
const SLICE: Duration = Duration::from_millis(200);

/// What is known of the programs' cost.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct ProgramTime {
    /// CPUs they kept busy when that was last measured.
    pub(super) cpus: f64,
    /// Run time since the start, extrapolated.
    pub(super) run_time: Duration,
}

/// Measures.
#[derive(Debug)]
pub(super) struct ProgramCost {
    measuring: Option<RunTimes>,
    since: Instant,
    known: Option<ProgramTime>,
    refused: bool,
}

impl Default for ProgramCost {
    fn default() -> Self {
        Self { measuring: None, since: Instant::now(), known: None, refused: false }
    }
}

impl ProgramCost {
    /// Begins or ends a measurement if it is time; what is known by now, if anything.
    pub(super) fn step(&mut self, kernel: &Kernel) -> Option<ProgramTime> {
        let elapsed = self.since.elapsed();
        if let Some(measuring) = self.measuring.take_if(|_| elapsed >= SLICE) {
            let cpus = measuring.read(kernel);
            let before = self.known.unwrap_or_default();
            // What the last figure says of the time until now.
            let run_time = before.run_time + (EVERY + elapsed).mul_f64(cpus);
            self.known = Some(ProgramTime { cpus, run_time });
            self.since = Instant::now();
        } else if self.measuring.is_none() && !self.refused && elapsed >= EVERY {
            self.since = Instant::now();
            match kernel.measure_run_time() {
                Ok(measuring) => self.measuring = Some(measuring),
                Err(error) => {
                    self.refused = true;
                    info!(%error, "the programs' run time is not in the cost");
                }
            }
        }
        self.known
    }
}
