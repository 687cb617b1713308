//! Simulated threads: how often is the truth within two standard errors of the estimate?

use super::*;

/// splitmix64.
struct Dice(u64);

impl Dice {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let bits = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let bits = (bits ^ (bits >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        bits ^ (bits >> 31)
    }

    fn unit(&mut self) -> f64 {
        (self.next() >> 11) as f64 / (1_u64 << 53) as f64
    }

    /// Exponentially distributed.
    fn wait(&mut self, mean_ns: f64) -> u64 {
        (-(1.0 - self.unit()).ln() * mean_ns) as u64 + 1
    }
}

const MS: f64 = 1e6;
const T: u64 = 10_000_000;
const WINDOW: u64 = 2_000_000_000;
const RUNS: usize = 200;

/// The ticks of a clock in so much time, as the programs count them.
fn tick(left_ns: &mut u64, ns: u64) -> u64 {
    if ns < *left_ns {
        *left_ns -= ns;
        return 0;
    }
    let more = (ns - *left_ns) / T;
    *left_ns = T - (ns - *left_ns - more * T);
    more + 1
}

/// One window of a thread: what each of its two places had in truth, what was estimated, and the
/// variances. `waits` says where the next wait is and how long.
struct Window {
    truth: [f64; 2],
    value: [f64; 2],
    variance: [f64; 2],
    sum_variance: f64,
}

fn window(dice: &mut Dice, waits: &mut impl FnMut(&mut Dice) -> (usize, u64)) -> Window {
    let mut left = dice.next() % T + 1;
    let mut draws = ThreadDraws::default();
    let mut window = Window { truth: [0.0; 2], value: [0.0; 2], variance: [0.0; 2], sum_variance: 0.0 };
    let mut now = 0;
    while now < WINDOW {
        let (place, length_ns) = waits(dice);
        now += length_ns + dice.wait(0.02 * MS);
        let ticks = tick(&mut left, length_ns);
        window.truth[place] += length_ns as f64;
        window.value[place] += (ticks * T) as f64;
        if ticks > 0 {
            draws.add(place, &Draw { length_ns, ticks, period_ns: T }, 0);
        }
    }
    let (sum, places) = draws.settle();
    window.sum_variance = sum;
    places.for_each(|(place, variance)| window.variance[place] = variance);
    window
}

/// Share of runs within two standard errors, and the mean variance over the one that was seen, for
/// each place and for the sum of `threads`.
fn coverage(threads: usize, mut waits: impl FnMut(&mut Dice) -> (usize, u64)) -> [(f64, f64); 3] {
    let mut dice = Dice(4711);
    let mut within = [0.0; 3];
    let (mut stated, mut seen) = ([0.0; 3], [0.0; 3]);
    for _ in 0..RUNS {
        let (mut error, mut variance) = ([0.0; 3], [0.0; 3]);
        for _ in 0..threads {
            let window = window(&mut dice, &mut waits);
            for place in [0, 1] {
                error[place] += window.value[place] - window.truth[place];
                variance[place] += window.variance[place];
            }
            variance[2] += window.sum_variance;
        }
        error[2] = error[0] + error[1];
        for what in 0..3 {
            within[what] += f64::from(u8::from(error[what].abs() <= 2.0 * variance[what].sqrt() + 1e-9));
            stated[what] += variance[what];
            seen[what] += error[what] * error[what];
        }
    }
    [0, 1, 2].map(|what| (within[what] / RUNS as f64, (stated[what] / seen[what].max(1.0)).sqrt()))
}

/// A fair estimate is within two standard errors 19 times of 20, give or take what chance does to so
/// few runs, and states about the error that is seen.
fn check(name: &str, threads: usize, waits: impl FnMut(&mut Dice) -> (usize, u64)) {
    for (what, (within, ratio)) in ["a", "b", "sum"].into_iter().zip(coverage(threads, waits)) {
        println!("{name}, {threads} threads, {what}: {within:.3} within 2 SE, stated over seen {ratio:.2}");
        assert!(within >= 0.91, "{name}, {what}: only {within} within two standard errors");
        assert!((0.8..1.4).contains(&ratio), "{name}, {what}: {ratio} times the error that was seen");
    }
}

fn pick(dice: &mut Dice, share: f64) -> usize {
    usize::from(dice.unit() < share)
}

#[test]
fn many_short_waits() {
    for threads in [1, 8] {
        check("short", threads, |dice| (pick(dice, 0.3), dice.wait(0.1 * MS)));
    }
}

#[test]
fn a_few_long_waits() {
    for threads in [1, 8] {
        check("long", threads, |dice| (pick(dice, 0.5), dice.wait(400.0 * MS)));
    }
}

#[test]
fn short_waits_here_and_long_ones_there() {
    for threads in [1, 8] {
        check("mixed", threads, |dice| match pick(dice, 0.01) {
            0 => (0, dice.wait(0.1 * MS)),
            _ => (1, dice.wait(25.0 * MS)),
        });
    }
}

#[test]
fn waits_of_all_lengths_at_either_place() {
    for threads in [1, 8] {
        check("of all lengths", threads, |dice| {
            let mean = [0.02, 1.0, 9.0, 40.0][(dice.next() % 4) as usize];
            (pick(dice, 0.2), dice.wait(mean * MS))
        });
    }
}

#[test]
fn nothing_is_left_to_chance_where_every_interval_is_taken() {
    let draw = Draw { length_ns: 5, ticks: 0, period_ns: 0 };
    assert_eq!(draw.variance_ns2(), 0.0);
}

#[test]
fn one_thread_of_four_that_are_alike_says_little() {
    // 400 threads of one second each, a quarter of them taken.
    let mut within = 0;
    let mut dice = Dice(1);
    for _ in 0..RUNS {
        let (mut value, mut variance) = (0.0, 0.0);
        for _ in 0..400 {
            if pick(&mut dice, 0.25) == 0 {
                continue;
            }
            let mut draws = ThreadDraws::default();
            draws.add(0, &Draw { length_ns: 100 * T, ticks: 100, period_ns: T }, 2);
            value += 4.0 * (100 * T) as f64;
            variance += draws.settle().0;
        }
        within += usize::from((value - (400 * 100 * T) as f64).abs() <= 2.0 * f64::sqrt(variance));
    }
    let within = within as f64 / RUNS as f64;
    assert!((0.92..0.985).contains(&within), "{within}");
}
