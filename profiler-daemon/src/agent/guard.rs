//! Holds the budget: fewer samples where recording costs more than it may, more again once it does not.

use std::time::Duration;

use tokio::time::{Instant, MissedTickBehavior, interval};
use tracing::{info, warn};

use super::kernel_task::{Clock, KernelHandle};
use super::own_cost;

/// How often the cost is looked at.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// CPU time is judged by its mean over about so long: reading a large program's symbols once is no
/// reason to sample less.
const MEMORY: Duration = Duration::from_secs(30);
/// Longest period of the off-CPU clocks that the budget leads to.
const MAX_PERIOD: Duration = Duration::from_secs(1);
/// Lowest on-CPU frequency that the budget leads to, Hz.
const MIN_FREQUENCY_HZ: u32 = 19;
/// Most by which the period grows in one step, and the part by which it shrinks.
const GROW: f64 = 64.0;
const SHRINK: f64 = 0.9;
/// Below this part of the budget there is room for more samples.
const ROOM: f64 = 0.6;
/// Looks between two changes of the on-CPU frequency.
const FREQUENCY_EVERY: u32 = 10;

/// What recording may cost.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Budget {
    /// Off-CPU samples a second.
    pub(super) samples_per_second: f64,
    /// CPU time of the daemon, in CPUs.
    pub(super) cpus: f64,
}

/// How much is recorded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Rates {
    /// Period of the off-CPU clocks; `None` without them, zero for every interval.
    pub(super) period: Option<Duration>,
    /// On-CPU sampling frequency, Hz.
    pub(super) frequency_hz: u32,
}

/// What recording has cost since the last look.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Cost {
    pub(super) elapsed: Duration,
    /// Off-CPU samples.
    pub(super) samples: u64,
    /// CPU time of the daemon; `None` while it does more than its everyday work.
    pub(super) cpu: Option<Duration>,
}

/// Decides how much is recorded.
#[derive(Debug)]
pub(super) struct Guard {
    budget: Budget,
    /// What is recorded where the budget allows it.
    wanted: Rates,
    now: Rates,
    /// Mean of the daemon's CPU time, in CPUs, and how much of [`MEMORY`] it stands on.
    cpus: f64,
    known: Duration,
    /// Looks since the frequency was changed.
    rested: u32,
    /// The period has just grown: the next look still counts samples of before.
    settling: bool,
}

impl Guard {
    pub(super) fn new(budget: Budget, wanted: Rates) -> Self {
        Self { budget, wanted, now: wanted, cpus: 0.0, known: Duration::ZERO, rested: 0, settling: false }
    }

    /// The rates that the cost calls for.
    pub(super) fn decide(&mut self, cost: Cost) -> Rates {
        let seconds = cost.elapsed.as_secs_f64().max(1e-3);
        if let Some(cpu) = cost.cpu {
            let weight = (seconds / MEMORY.as_secs_f64()).min(1.0);
            self.known = (self.known + cost.elapsed).min(MEMORY);
            // A plain mean at first, one that forgets later.
            let weight = weight.max(seconds / self.known.as_secs_f64().max(seconds));
            self.cpus += (cpu.as_secs_f64() / seconds - self.cpus) * weight;
        }
        let cpu_load = if self.known < MEMORY { 0.0 } else { self.cpus / self.budget.cpus };
        let sample_load = cost.samples as f64 / seconds / self.budget.samples_per_second;
        self.rested = self.rested.saturating_add(1);
        self.move_period(sample_load, cpu_load);
        self.move_frequency(cpu_load);
        self.now
    }

    /// Up fast, down slowly. A period of zero was asked for whatever it costs.
    fn move_period(&mut self, sample_load: f64, cpu_load: f64) {
        let (Some(wanted), Some(period)) = (self.wanted.period, self.now.period) else { return };
        if wanted.is_zero() {
            return;
        }
        if std::mem::take(&mut self.settling) {
            return;
        }
        let factor = if sample_load > 1.0 {
            (sample_load * 1.1).min(GROW)
        } else if cpu_load > 1.0 {
            1.1
        } else if sample_load < ROOM && cpu_load < ROOM {
            SHRINK
        } else {
            return;
        };
        self.settling = factor > 1.0;
        self.now.period = Some(period.mul_f64(factor).clamp(wanted, MAX_PERIOD.max(wanted)));
    }

    /// Only once longer periods have not helped; back before they are.
    fn move_frequency(&mut self, cpu_load: f64) {
        if self.rested < FREQUENCY_EVERY {
            return;
        }
        let at_longest = self.now.period.is_none_or(|period| period >= MAX_PERIOD || period.is_zero());
        let (now, wanted) = (self.now.frequency_hz, self.wanted.frequency_hz);
        let next = if cpu_load > 1.0 && at_longest {
            (now * 3 / 4).max(MIN_FREQUENCY_HZ.min(wanted))
        } else if cpu_load < ROOM {
            (now * 9 / 8 + 1).min(wanted)
        } else {
            now
        };
        if next != now {
            self.now.frequency_hz = next;
            self.rested = 0;
        }
    }
}

/// Looks at the cost for ever and sets what the guard decides. `busy` says whether more goes on
/// than everyday work.
pub(super) async fn run(mut guard: Guard, window: Duration, kernel: KernelHandle, busy: impl Fn() -> bool) {
    let mut look = interval(LOOK_EVERY);
    look.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut at = Instant::now();
    let mut cpu = own_cost::cpu_time();
    let mut samples = kernel.snapshot().counters.off_cpu_ticked;
    loop {
        look.tick().await;
        let (now, cpu_now) = (Instant::now(), own_cost::cpu_time());
        let samples_now = kernel.snapshot().counters.off_cpu_ticked;
        let spent = cpu_now.saturating_sub(cpu);
        let cost = Cost {
            elapsed: now - at,
            samples: samples_now.saturating_sub(samples),
            cpu: (!busy()).then_some(spent),
        };
        (at, cpu, samples) = (now, cpu_now, samples_now);
        let before = guard.now;
        let rates = guard.decide(cost);
        if rates.period != before.period {
            let clock = rates.period.map(|period| Clock { period, window });
            if let Err(error) = kernel.set_clock(clock).await {
                let Some(error) = error else { return };
                guard.now.period = before.period;
                warn!(%error, "cannot change the period of the off-CPU clocks");
            }
        }
        if rates.frequency_hz != before.frequency_hz {
            info!(frequency_hz = rates.frequency_hz, "the on-CPU frequency follows the budget");
            if let Err(error) = kernel.set_frequency(rates.frequency_hz).await {
                let Some(error) = error else { return };
                guard.now.frequency_hz = before.frequency_hz;
                warn!(%error, "cannot change the on-CPU frequency");
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const WANTED: Rates = Rates { period: Some(Duration::from_millis(10)), frequency_hz: 99 };
    const SECOND: Duration = Duration::from_secs(1);

    fn guard() -> Guard {
        Guard::new(Budget { samples_per_second: 500.0, cpus: 0.01 }, WANTED)
    }

    /// A host on which so many threads are busy: each makes a sample a period.
    fn look(guard: &mut Guard, threads: f64, cpus: f64) -> (f64, Rates) {
        let period = guard.now.period.expect("clocks").as_secs_f64();
        let samples = threads / period;
        let cost = Cost { elapsed: SECOND, samples: samples as u64, cpu: Some(SECOND.mul_f64(cpus)) };
        (samples, guard.decide(cost))
    }

    #[test]
    fn samples_hold_their_budget_whatever_the_threads_do() {
        let mut guard = guard();
        for threads in [3.0, 200.0, 5.0, 400.0, 1.0] {
            let mut samples = 0.0;
            for _ in 0..60 {
                (samples, _) = look(&mut guard, threads, 0.001);
            }
            assert!(samples <= 500.0, "{samples} a second with {threads} threads");
            let longer = guard.now.period > WANTED.period;
            assert!(!longer || samples >= 0.4 * 500.0, "{samples} a second with {threads} threads");
        }
        assert_eq!(guard.now, WANTED, "all is as it was once the load is gone");
    }

    #[test]
    fn a_burst_is_met_within_two_looks() {
        let mut guard = guard();
        look(&mut guard, 200.0, 0.001);
        look(&mut guard, 200.0, 0.001);
        let (samples, _) = look(&mut guard, 200.0, 0.001);
        assert!(samples <= 500.0, "{samples}");
    }

    #[test]
    fn cpu_time_counts_in_the_long_run_and_moves_the_frequency_last() {
        let mut guard = guard();
        for _ in 0..10 {
            assert_eq!(look(&mut guard, 1.0, 0.5).1, WANTED, "a start may cost what it will");
        }
        let mut rates = WANTED;
        while rates.frequency_hz == 99 {
            rates = look(&mut guard, 1.0, 0.05).1;
        }
        assert_eq!(rates.period, Some(MAX_PERIOD));
        for _ in 0..500 {
            rates = look(&mut guard, 1.0, 0.05).1;
        }
        assert_eq!(rates.frequency_hz, MIN_FREQUENCY_HZ);
        for _ in 0..500 {
            rates = look(&mut guard, 1.0, 0.001).1;
        }
        assert_eq!(rates, WANTED);
    }

    #[test]
    fn what_was_asked_for_without_regard_to_cost_stays() {
        let wanted = Rates { period: Some(Duration::ZERO), frequency_hz: 99 };
        let mut guard = Guard::new(Budget { samples_per_second: 1.0, cpus: 0.01 }, wanted);
        let cost = Cost { elapsed: SECOND, samples: 100_000, cpu: None };
        assert_eq!(guard.decide(cost), wanted);
    }
}
