//! The arithmetic of the off-CPU clock and of drawing threads: both sides of the kernel line use it.

/// Largest [`crate::record::Header::thread_share`]: one thread in 128.
pub const MAX_THREAD_SHARE: u32 = 7;
/// How many levels threads have: see [`level`].
pub const LEVELS: usize = MAX_THREAD_SHARE as usize + 1;

/// What is random about a thread: its clock's phase and its level are drawn from it. The same for
/// all that ask within a trace, and another one in each trace.
#[inline(always)]
#[must_use]
pub const fn draw(start_time_ns: u64, tid: u32, opened_ns: u64) -> u64 {
    let seed = start_time_ns ^ opened_ns.rotate_left(32) ^ (tid as u64) << 40;
    // The finalizer of splitmix64.
    let bits = seed.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let bits = (bits ^ (bits >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let bits = (bits ^ (bits >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    bits ^ (bits >> 31)
}

/// A thread's level, 0 to [`MAX_THREAD_SHARE`]: half of all threads have at least 1, a quarter at
/// least 2, and so on. A share of `1 / 2^k` is taken as the threads of level `k` and above, so that
/// smaller shares are part of larger ones.
#[inline(always)]
#[must_use]
pub const fn level(drawn: u64) -> u32 {
    // Not the bits that the phase depends on. The lowest bit that is set, at most bit 7.
    let bits = (drawn >> 48) as u32 | 1 << MAX_THREAD_SHARE;
    let lowest = bits & bits.wrapping_neg();
    ((lowest & 0xaa != 0) as u32) | ((lowest & 0xcc != 0) as u32) << 1 | ((lowest & 0xf0 != 0) as u32) << 2
}

/// Where a thread's clock stands when it is first seen: off-CPU time until it ticks, ns, from 1 to
/// the period; 0 where it takes every interval.
#[inline(always)]
#[must_use]
pub const fn phase(drawn: u64, period_ns: u64) -> u64 {
    if period_ns == 0 { 0 } else { drawn % period_ns + 1 }
}

/// The ticks in `ns` of off-CPU time; moves the clock on.
#[inline(always)]
pub const fn tick(left_ns: &mut u64, ns: u64, period_ns: u64) -> u32 {
    if period_ns == 0 {
        return 0;
    }
    if ns < *left_ns {
        *left_ns -= ns;
        return 0;
    }
    let over = ns - *left_ns;
    let more = over / period_ns;
    *left_ns = period_ns - (over - more * period_ns);
    more as u32 + 1
}

/// What is left until the next tick once the period changes: scaled, so that the phases of all
/// threads stay evenly spread. Neither period is 0, and both are at most
/// [`crate::settings::MAX_CLOCK_PERIOD_NS`].
#[inline(always)]
#[must_use]
pub const fn rescale(left_ns: u64, old_ns: u64, new_ns: u64) -> u64 {
    // Both are below 2^36, so that this fits 64 bits. Programs cannot divide by what may be 0.
    let old = if old_ns >> 8 == 0 { 1 } else { old_ns >> 8 };
    let scaled = left_ns * (new_ns >> 8) / old;
    if scaled > new_ns {
        new_ns
    } else if scaled == 0 {
        1
    } else {
        scaled
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// How far values in 0..1 are from evenly spread: the largest distance between their
    /// distribution and the even one (Kolmogorov-Smirnov).
    fn unevenness(mut values: Vec<f64>) -> f64 {
        values.sort_by(f64::total_cmp);
        let count = values.len() as f64;
        let distances = values.iter().enumerate().map(|(at, value)| {
            let at = at as f64;
            (value - at / count).abs().max(((at + 1.0) / count - value).abs())
        });
        distances.fold(0.0, f64::max)
    }

    #[test]
    fn phases_stay_even_through_many_changes_of_the_period() {
        const THREADS: u32 = 20_000;
        // Beyond this, one even sample in a thousand lies.
        let bound = 1.95 / f64::from(THREADS).sqrt();
        let drawn: Vec<u64> = (0..THREADS).map(|tid| draw(u64::from(tid) * 977, tid, 12_345)).collect();
        let mut period = 10_000_000_u64;
        let mut lefts: Vec<u64> = drawn.iter().map(|&drawn| phase(drawn, period)).collect();
        let spread = |lefts: &[u64], period: u64| {
            assert!(lefts.iter().all(|&left| (1..=period).contains(&left)), "{period}");
            unevenness(lefts.iter().map(|&left| left as f64 / period as f64).collect())
        };
        assert!(spread(&lefts, period) < bound);
        // As the guard moves it: up by much, down by a tenth at a time; and the shortest there is.
        let mut change = 1_u64;
        for _ in 0..300 {
            change = draw(change, 1, 1);
            let next = match change % 8 {
                0 => period * 37 / 10,
                1 => 100_000,
                _ => period * 9 / 10,
            };
            let next = next.clamp(100_000, 1_000_000_000);
            for (left, drawn) in lefts.iter_mut().zip(&drawn) {
                *left = rescale(*left, period, next);
                // Between changes each thread waits for as long as it likes.
                tick(left, draw(change, *drawn as u32, 7) % (3 * next), next);
            }
            period = next;
            let uneven = spread(&lefts, period);
            assert!(uneven < 1.5 * bound, "{uneven} at a period of {period} ns");
        }
    }

    #[test]
    fn without_waits_between_them_changes_add_up_to_little() {
        let mut lefts: Vec<u64> = (1..=10_000).map(|part| part * 1_000).collect();
        let mut period = 10_000_000;
        for step in 0..200 {
            let next = if step % 20 == 0 { period * 7 } else { period * 9 / 10 };
            let next = next.clamp(10_000_000, 1_000_000_000);
            lefts.iter_mut().for_each(|left| *left = rescale(*left, period, next));
            period = next;
        }
        let uneven = unevenness(lefts.iter().map(|&left| left as f64 / period as f64).collect());
        assert!(uneven < 0.01, "{uneven}");
    }

    #[test]
    fn ticks_are_what_fits_into_the_time() {
        let mut left = 4;
        assert_eq!((tick(&mut left, 3, 10), left), (0, 1));
        assert_eq!((tick(&mut left, 1, 10), left), (1, 10));
        assert_eq!((tick(&mut left, 35, 10), left), (3, 5));
        assert_eq!(tick(&mut left, 1_000, 0), 0, "every interval is taken anyway");
    }

    #[test]
    fn each_level_has_half_of_those_below() {
        let mut counts = [0_u32; LEVELS];
        for tid in 0..128_000 {
            counts[level(draw(5_000_000_000, tid, 77)) as usize] += 1;
        }
        for share in 0..LEVELS {
            let taken = f64::from(counts[share..].iter().sum::<u32>());
            let expected = 128_000.0 / f64::from(1 << share);
            assert!(
                (taken - expected).abs() < 4.0 * expected.sqrt(),
                "1 in 2^{share}: {taken} of {expected}"
            );
        }
    }
}
