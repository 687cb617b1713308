//! Holds the budget: fewer samples where recording costs more than it may, more again once it does not.

use std::time::Duration;

use profiler_common::clock::MAX_THREAD_SHARE;
use tokio::time::{Instant, MissedTickBehavior, interval};
use tracing::{info, warn};

use super::kernel_task::{Clock, KernelHandle};
use super::own_cost;
use crate::model::RecordingCost;

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
/// Looks between two changes of the share of threads: the programs' cost must have been measured anew,
/// and the mean of the daemon's must have followed.
const SHARE_EVERY: u32 = 30;

/// What recording may cost.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Budget {
    /// Off-CPU samples a second.
    pub(super) samples_per_second: f64,
    /// CPU time of the daemon and its programs, in CPUs.
    pub(super) cpus: f64,
    /// Bytes a second that windows take in the store.
    pub(super) store_bytes_per_second: f64,
}

/// How much is recorded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Rates {
    /// Period of the off-CPU clocks; `None` without them, zero for every interval.
    pub(super) period: Option<Duration>,
    /// On-CPU sampling frequency, Hz.
    pub(super) frequency_hz: u32,
    /// The off-CPU clocks look at one thread in `1 << thread_share`.
    pub(super) thread_share: u32,
}

/// What recording has cost since the last look.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Cost {
    pub(super) elapsed: Duration,
    /// Off-CPU samples.
    pub(super) samples: u64,
    /// CPU time of the daemon; `None` while it does more than its everyday work.
    pub(super) cpu: Option<Duration>,
    /// CPUs that the programs keep busy, as last measured; `None` where that is not known.
    pub(super) programs: Option<f64>,
    /// Bytes that went into the store.
    pub(super) stored_bytes: u64,
}

/// A mean that forgets what is older than about [`MEMORY`].
#[derive(Clone, Copy, Debug, Default)]
struct Mean {
    value: f64,
    /// How much time it stands on.
    known: Duration,
}

impl Mean {
    /// Adds what was so much a second.
    fn add(&mut self, per_second: f64, elapsed: Duration) {
        let seconds = elapsed.as_secs_f64();
        let weight = (seconds / MEMORY.as_secs_f64()).min(1.0);
        self.known = (self.known + elapsed).min(MEMORY);
        // A plain mean at first, one that forgets later.
        let weight = weight.max(seconds / self.known.as_secs_f64().max(seconds));
        self.value += (per_second - self.value) * weight;
    }

    /// The mean, once it stands on enough: a start may cost what it will.
    fn settled(&self) -> f64 {
        if self.known < MEMORY { 0.0 } else { self.value }
    }
}

/// Decides how much is recorded.
#[derive(Debug)]
pub(super) struct Guard {
    budget: Budget,
    /// What is recorded where the budget allows it.
    wanted: Rates,
    now: Rates,
    /// Means of the daemon's CPU time, in CPUs, and of the bytes a second that went into the store.
    cpus: Mean,
    stored: Mean,
    programs: Option<f64>,
    samples: f64,
    /// Looks since the frequency or the share of threads was changed.
    rested: u32,
    /// The period has just grown: the next look still counts samples of before.
    settling: bool,
}

impl Guard {
    pub(super) fn new(budget: Budget, wanted: Rates) -> Self {
        let (cpus, stored) = (Mean::default(), Mean::default());
        Self {
            budget,
            wanted,
            now: wanted,
            cpus,
            stored,
            programs: None,
            samples: 0.0,
            rested: 0,
            settling: false,
        }
    }

    /// The rates that the cost calls for.
    pub(super) fn decide(&mut self, cost: Cost) -> Rates {
        let seconds = cost.elapsed.as_secs_f64().max(1e-3);
        if let Some(cpu) = cost.cpu {
            self.cpus.add(cpu.as_secs_f64() / seconds, cost.elapsed);
            self.stored.add(cost.stored_bytes as f64 / seconds, cost.elapsed);
            self.programs = cost.programs;
        }
        self.samples = cost.samples as f64 / seconds;
        let cpus = if self.cpus.known < MEMORY { 0.0 } else { self.programs.unwrap_or_default() };
        let cpu_load = (self.cpus.settled() + cpus) / self.budget.cpus;
        let slow_load = cpu_load.max(self.stored.settled() / self.budget.store_bytes_per_second);
        let sample_load = self.samples / self.budget.samples_per_second;
        self.rested = self.rested.saturating_add(1);
        let settling = std::mem::take(&mut self.settling);
        if !settling {
            self.move_share(sample_load, slow_load);
            self.move_period(sample_load, slow_load);
        }
        self.move_frequency(slow_load);
        self.now
    }

    /// What recording costs.
    pub(super) fn cost(&self) -> RecordingCost {
        let Budget { samples_per_second, cpus, store_bytes_per_second } = self.budget;
        RecordingCost {
            daemon_cpus: self.cpus.value,
            programs_cpus: self.programs,
            samples_per_second: self.samples,
            store_bytes_per_second: self.stored.value,
            budget: [cpus, samples_per_second, store_bytes_per_second],
        }
    }

    /// The last thing to give, and the first to be had again: a thread that is not looked at is not
    /// in the picture at all.
    fn move_share(&mut self, sample_load: f64, slow_load: f64) {
        let share = self.now.thread_share;
        let longest = self.at_longest() && self.now.period.is_some_and(|period| !period.is_zero());
        let lowest = self.now.frequency_hz <= MIN_FREQUENCY_HZ.min(self.wanted.frequency_hz);
        let next = if longest && sample_load > 1.0 {
            share + (sample_load.log2().ceil() as u32).max(1)
        } else if longest && lowest && slow_load > 1.0 && self.rested >= SHARE_EVERY {
            share + 1
        } else if sample_load < ROOM / 2.0 && slow_load < ROOM / 2.0 && self.rested >= SHARE_EVERY {
            // Twice as many threads cost twice as much.
            share.saturating_sub(1)
        } else {
            share
        };
        let next = next.min(MAX_THREAD_SHARE);
        if next != share {
            self.settling = true;
            self.rested = 0;
            self.now.thread_share = next;
        }
    }

    fn at_longest(&self) -> bool {
        self.now.period.is_none_or(|period| period.is_zero() || period >= MAX_PERIOD)
    }

    /// Up fast, down slowly. A period of zero was asked for whatever it costs.
    fn move_period(&mut self, sample_load: f64, slow_load: f64) {
        let (Some(wanted), Some(period)) = (self.wanted.period, self.now.period) else { return };
        if wanted.is_zero() {
            return;
        }
        if self.settling {
            return;
        }
        let factor = if sample_load > 1.0 {
            (sample_load * 1.1).min(GROW)
        } else if slow_load > 1.0 {
            1.1
        } else if sample_load < ROOM && slow_load < ROOM && self.now.thread_share == 0 {
            SHRINK
        } else {
            return;
        };
        self.settling = factor > 1.0;
        self.now.period = Some(period.mul_f64(factor).clamp(wanted, MAX_PERIOD.max(wanted)));
    }

    /// Only once longer periods have not helped; back before they are.
    fn move_frequency(&mut self, slow_load: f64) {
        if self.rested < FREQUENCY_EVERY {
            return;
        }
        let (now, wanted) = (self.now.frequency_hz, self.wanted.frequency_hz);
        let next = if slow_load > 1.0 && self.at_longest() {
            (now * 3 / 4).max(MIN_FREQUENCY_HZ.min(wanted))
        } else if slow_load < ROOM && self.now.thread_share == 0 {
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

/// What the guard looks at beside the kernel.
pub(super) struct Surroundings {
    /// Whether more goes on than everyday work.
    pub(super) busy: Box<dyn Fn() -> bool + Send + Sync>,
    /// Bytes that have gone into the store.
    pub(super) stored_bytes: Box<dyn Fn() -> u64 + Send + Sync>,
    /// Takes what recording costs.
    pub(super) tell: Box<dyn Fn(RecordingCost) + Send + Sync>,
}

/// Looks at the cost for ever and sets what the guard decides.
pub(super) async fn run(mut guard: Guard, window: Duration, kernel: KernelHandle, around: Surroundings) {
    let mut look = interval(LOOK_EVERY);
    look.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut at = Instant::now();
    let mut cpu = own_cost::cpu_time();
    let mut samples = kernel.snapshot().counters.off_cpu_ticked;
    let mut stored = (around.stored_bytes)();
    loop {
        look.tick().await;
        let (now, cpu_now, stored_now) = (Instant::now(), own_cost::cpu_time(), (around.stored_bytes)());
        let snapshot = kernel.snapshot();
        let samples_now = snapshot.counters.off_cpu_ticked;
        let spent = cpu_now.saturating_sub(cpu);
        let cost = Cost {
            elapsed: now - at,
            samples: samples_now.saturating_sub(samples),
            cpu: (!(around.busy)()).then_some(spent),
            programs: snapshot.programs.map(|programs| programs.cpus),
            stored_bytes: stored_now.saturating_sub(stored),
        };
        (at, cpu, samples, stored) = (now, cpu_now, samples_now, stored_now);
        let before = guard.now;
        let rates = guard.decide(cost);
        (around.tell)(guard.cost());
        if rates.thread_share != before.thread_share {
            let share = 1 << rates.thread_share;
            info!(one_in = share, "off-CPU time is taken of a share of the threads, as the budget has it");
        }
        if (rates.period, rates.thread_share) != (before.period, before.thread_share) {
            let thread_share = rates.thread_share;
            let clock = rates.period.map(|period| Clock { period, window, thread_share });
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
mod tests;
