//! What the on-CPU sampler counts: reference cycles where the CPU has a counter for them, else the CPU clock.

use std::time::Duration;

use aya::programs::perf_event::{HardwareEvent, PerfEventConfig, SamplePolicy, SoftwareEvent};
use perf_event::Builder;
use perf_event::events::{Event as Counted, Hardware};
use rustix::time::{ClockId, clock_gettime};
use tracing::info;

/// CPU time that one measurement of the rate takes.
const MEASURED: Duration = Duration::from_millis(4);
/// Measurements, of which the middle one is taken: a CPU that a hypervisor took away meanwhile and a counter
/// shared with others make some of them wrong.
const MEASUREMENTS: usize = 5;
/// Rates that a processor's reference clock may have, Hz.
const PLAUSIBLE: std::ops::RangeInclusive<f64> = 1e7..=1e11;

/// An event that comes once in a fixed amount of CPU time.
///
/// Reference cycles come at one rate whatever the CPU's frequency (`PERF_COUNT_HW_REF_CPU_CYCLES`,
/// perf_event_open(2)), and only while the CPU is not halted. So a fixed number of them is a fixed time,
/// and every hit is worth its period. Plain cycles have no such period: by number they are worth less
/// the faster the CPU runs, and by frequency (`perf_calculate_period`, kernel/events/core.c) a CPU that is
/// busy one tick in five has as many hits a second as one that always is. Beyond the CPU clock they see
/// code that has interrupts disabled, since their interrupt is no maskable one.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Event {
    /// Reference cycles, and how many come in a second of CPU time.
    ReferenceCycles { hz: f64 },
    /// The kernel's timer (`PERF_COUNT_SW_CPU_CLOCK`).
    CpuClock,
}

impl Event {
    /// The best that this host has. Takes some 20 ms of CPU time where there is a counter.
    pub(super) fn of_host() -> Self {
        match rate_hz(Hardware::REF_CPU_CYCLES) {
            Ok(hz) if PLAUSIBLE.contains(&hz) => Self::ReferenceCycles { hz },
            Ok(hz) => {
                info!(hz, "the reference cycles make no sense: sampling by the CPU clock");
                Self::CpuClock
            }
            // No PMU, or one without this counter, as in most virtual machines.
            Err(error) => {
                info!(%error, "no reference cycles here: sampling by the CPU clock");
                Self::CpuClock
            }
        }
    }

    /// What to open for hits at `frequency_hz`, at least 1.
    pub(super) fn open(self, frequency_hz: u32) -> (PerfEventConfig, SamplePolicy) {
        let frequency_hz = frequency_hz.max(1);
        match self {
            Self::ReferenceCycles { hz } => (
                PerfEventConfig::Hardware(HardwareEvent::RefCpuCycles),
                SamplePolicy::Period((hz / f64::from(frequency_hz)) as u64),
            ),
            Self::CpuClock => (
                PerfEventConfig::Software(SoftwareEvent::CpuClock),
                SamplePolicy::Period(1_000_000_000 / u64::from(frequency_hz)),
            ),
        }
    }

    /// Its name in `perf list`.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::ReferenceCycles { .. } => "ref-cycles",
            Self::CpuClock => "cpu-clock",
        }
    }
}

/// How often an event comes in a second of this thread's CPU time.
fn rate_hz(event: impl Counted) -> std::io::Result<f64> {
    let mut builder = Builder::new(event);
    builder.observe_self().any_cpu().include_kernel();
    let mut counter = builder.build()?;
    counter.enable()?;
    let mut rates = [0.0; MEASUREMENTS];
    for rate in &mut rates {
        let (clock, count) = (thread_clock(), counter.read()?);
        let took = loop {
            let took = thread_clock().saturating_sub(clock);
            if took >= MEASURED {
                break took;
            }
        };
        *rate = counter.read()?.saturating_sub(count) as f64 / took.as_secs_f64();
    }
    rates.sort_by(f64::total_cmp);
    Ok(rates[MEASUREMENTS / 2])
}

fn thread_clock() -> Duration {
    let now = clock_gettime(ClockId::ThreadCPUTime);
    Duration::new(now.tv_sec.cast_unsigned(), now.tv_nsec.cast_unsigned() as u32)
}

#[cfg(test)]
mod tests {
    use perf_event::events::Software;

    use super::*;

    #[test]
    fn the_rate_of_an_event_is_measured() {
        // This event counts nanoseconds of the thread, with those that the hypervisor took.
        let hz = rate_hz(Software::TASK_CLOCK).expect("perf events");
        assert!((0.9e9..2e9).contains(&hz), "{hz} Hz");
    }

    #[test]
    fn a_hit_is_worth_its_period_by_either_event() {
        let cycles = Event::ReferenceCycles { hz: 2.4e9 }.open(100);
        assert!(matches!(
            cycles,
            (PerfEventConfig::Hardware(HardwareEvent::RefCpuCycles), SamplePolicy::Period(24_000_000))
        ));
        let clock = Event::CpuClock.open(100);
        assert!(matches!(
            clock,
            (PerfEventConfig::Software(SoftwareEvent::CpuClock), SamplePolicy::Period(10_000_000))
        ));
    }
}
