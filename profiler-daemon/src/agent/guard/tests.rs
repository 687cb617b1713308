//! The guard on simulated hosts.

use super::*;

const WANTED: Rates = Rates { period: Some(Duration::from_millis(10)), frequency_hz: 99, thread_share: 0 };
const BUDGET: Budget = Budget { samples_per_second: 500.0, cpus: 0.01, store_bytes_per_second: 65_536.0 };
const SECOND: Duration = Duration::from_secs(1);

fn guard() -> Guard {
    Guard::new(BUDGET, WANTED)
}

fn cost(cpus: f64) -> Cost {
    Cost { elapsed: SECOND, samples: 0, cpu: Some(SECOND.mul_f64(cpus)), programs: None, stored_bytes: 0 }
}

/// A host on which so many threads are busy: each makes a sample a period.
fn look(guard: &mut Guard, threads: f64, cpus: f64) -> (f64, Rates) {
    let period = guard.now.period.expect("clocks").as_secs_f64();
    let samples = threads / period;
    (samples, guard.decide(Cost { samples: samples as u64, ..cost(cpus) }))
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
        assert_eq!(rates.thread_share, 0, "threads are left out last");
    }
    assert_eq!(rates.period, Some(MAX_PERIOD));
    for _ in 0..500 {
        rates = look(&mut guard, 1.0, 0.05).1;
    }
    assert_eq!((rates.frequency_hz, rates.thread_share), (MIN_FREQUENCY_HZ, MAX_THREAD_SHARE));
    for _ in 0..500 {
        rates = look(&mut guard, 1.0, 0.001).1;
    }
    assert_eq!(rates, WANTED);
}

#[test]
fn what_was_asked_for_without_regard_to_cost_stays() {
    let wanted = Rates { period: Some(Duration::ZERO), frequency_hz: 99, thread_share: 0 };
    let mut guard = Guard::new(Budget { samples_per_second: 1.0, ..BUDGET }, wanted);
    let cost = Cost { samples: 100_000, cpu: None, ..cost(0.0) };
    assert_eq!(guard.decide(cost), wanted);
}

/// A host with so many busy threads that switch so often in all, and what recording costs on it: a
/// microsecond for each switch that is followed, a tenth of one for each that is not, 20 us for each
/// sample. Threads that wait for less than a period share the samples among them.
#[derive(Clone, Copy, Debug)]
struct Host {
    threads: f64,
    switches: f64,
}

/// Lets a guard run on a host for so many looks; the load of the last one, and its rates.
fn run(guard: &mut Guard, host: Host, looks: u32) -> (f64, Rates) {
    let mut load = 0.0;
    for at in 0..looks {
        let rates = guard.now;
        let share = f64::from(1_u32 << rates.thread_share);
        let samples = (host.threads / rates.period.expect("clocks").as_secs_f64()).min(host.switches) / share;
        let on_cpu = f64::from(rates.frequency_hz) * 2.0;
        let daemon = (samples + on_cpu) * 20e-6 + 0.0005;
        // Measured every ten seconds only.
        let programs = host.switches * (0.1e-6 + 0.9e-6 / share);
        let measured = if at % 10 == 0 || guard.programs.is_none() { Some(programs) } else { guard.programs };
        let cpu = Some(SECOND.mul_f64(daemon));
        let stored_bytes = (samples * 40.0) as u64;
        let cost = Cost { elapsed: SECOND, samples: samples as u64, cpu, programs: measured, stored_bytes };
        guard.decide(cost);
        load = ((daemon + programs) / BUDGET.cpus)
            .max(samples / BUDGET.samples_per_second)
            .max(stored_bytes as f64 / BUDGET.store_bytes_per_second);
    }
    (load, guard.now)
}

#[test]
fn the_budget_holds_at_any_switch_rate_and_thread_count() {
    for threads in [1.0, 10.0, 200.0, 5_000.0] {
        for switches in [10.0, 1_000.0, 6_000.0, 20_000.0, 50_000.0] {
            let host = Host { threads, switches };
            let mut guard = guard();
            // Three minutes for the period, one for the frequency, half a one for each share.
            let (_, rates) = run(&mut guard, host, 500);
            // From then on it holds, whatever the guard tries.
            for _ in 0..300 {
                let (load, rates) = run(&mut guard, host, 1);
                assert!(load <= 1.15, "{host:?}: {load} at {rates:?}");
            }
            if switches <= 1_000.0 && threads <= 200.0 {
                assert_eq!(rates.thread_share, 0, "{host:?}: {rates:?}");
            }
            // And when the load goes, all comes back.
            let (_, rates) = run(&mut guard, Host { threads: 1.0, switches: 100.0 }, 600);
            assert_eq!(rates, WANTED, "after {host:?}");
        }
    }
}

#[test]
fn more_threads_than_the_longest_period_allows_are_thinned_at_once() {
    let mut guard = guard();
    let host = Host { threads: 5_000.0, switches: 5_000.0 };
    let (_, rates) = run(&mut guard, host, 8);
    let samples = host.threads / f64::from(1_u32 << rates.thread_share);
    assert!(samples <= BUDGET.samples_per_second && rates.period == Some(MAX_PERIOD), "{rates:?}");
}

#[test]
fn bytes_count_like_cpu_time() {
    let mut guard = guard();
    for _ in 0..60 {
        guard.decide(Cost { stored_bytes: 200_000, ..cost(0.001) });
    }
    assert!(guard.now.period > WANTED.period, "{:?}", guard.now);
    assert!((guard.cost().store_bytes_per_second - 200_000.0).abs() < 1.0);
}

#[test]
fn what_captures_cost_thins_nothing() {
    let mut guard = guard();
    for _ in 0..200 {
        guard.decide(Cost { cpu: None, programs: Some(1.0), stored_bytes: 1 << 30, ..cost(0.0) });
    }
    assert_eq!(guard.now, WANTED);
}
