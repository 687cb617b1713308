//! What chance had to do with a sampled value: its variance, estimated from what was sampled.

/// What the clock of a thread said of one part of an interval.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Draw {
    /// Length of the part, ns.
    pub length_ns: u64,
    /// Ticks in it.
    pub ticks: u64,
    /// Period of the clock, ns; 0: every interval is taken, nothing is left to chance.
    pub period_ns: u64,
}

impl Draw {
    /// Estimate of the variance of the part's value, ns². A part of length `d` shorter than the
    /// period `T` has a tick with the probability `d/T`; its variance `(d/T)(1-d/T)T²`, over that
    /// probability for those that were not seen (Horvitz and Thompson). A longer one always has
    /// some; whether it has one more depends on the rest `f` of `d/T`: `f(1-f)T²`.
    #[must_use]
    pub fn variance_ns2(&self) -> f64 {
        if self.ticks == 0 || self.period_ns == 0 {
            return 0.0;
        }
        let (periods, period) = (self.length_ns as f64 / self.period_ns as f64, self.period_ns as f64);
        let share = if periods < 1.0 { 1.0 - periods } else { periods.fract() * (1.0 - periods.fract()) };
        share * period * period
    }
}

/// What chance had to do with the off-CPU time of one thread, by what it was spent on.
///
/// A clock ticks evenly, so the sum of all of a thread's time is nearly certain, and what one thing
/// has too much another has too little: the variance of one thing is less than the sum of the
/// variances of its waits.
#[derive(Clone, Debug, Default)]
pub(crate) struct ThreadDraws {
    /// By what: value in ns and sum of variances, ns².
    things: Vec<(usize, f64, f64)>,
    ticks: u64,
    /// Longest period, ns.
    period_ns: f64,
    /// One thread in so many is looked at.
    share: f64,
}

impl ThreadDraws {
    /// Adds a part of an interval of a thread that is one in `1 << thread_share`.
    pub(crate) fn add(&mut self, thing: usize, draw: &Draw, thread_share: u8) {
        let value = draw.ticks as f64 * draw.period_ns as f64;
        match self.things.iter_mut().find(|(known, ..)| *known == thing) {
            Some((_, sum, variance)) => {
                *sum += value;
                *variance += draw.variance_ns2();
            }
            None => self.things.push((thing, value, draw.variance_ns2())),
        }
        self.ticks += draw.ticks;
        self.period_ns = self.period_ns.max(draw.period_ns as f64);
        self.share = self.share.max(f64::from(1_u32 << thread_share.min(31)));
    }

    /// Number of things.
    pub(crate) fn len(&self) -> usize {
        self.things.len()
    }

    /// Variance of the sum of all of the thread's time and of the time of each thing, ns². Where one
    /// thread stands for others, that is by far the larger part of it: `y²(1-p)/p²` of a thread's
    /// value `y` that is taken with the probability `p`.
    pub(crate) fn settle(&self) -> (f64, impl Iterator<Item = (usize, f64)>) {
        let whole: f64 = self.things.iter().map(|(.., variance)| variance).sum();
        let value: f64 = self.things.iter().map(|(_, value, _)| value).sum();
        // The sum is off by the part of a period at its end: evenly spread, that is T²/6. Of a single
        // tick nobody knows whether it was a matter of course.
        let end = self.period_ns * self.period_ns / 6.0;
        let sum = if self.ticks < 2 { whole } else { whole.min(end) };
        let share = self.share.max(1.0);
        let scaled =
            move |variance: f64, value: f64| share * variance + value * value * share * (share - 1.0);
        let things = self.things.iter().map(move |&(thing, own, variance)| {
            // Of independent values whose sum is given, each has v - v²/V.
            let among = if whole > 0.0 { variance - variance * variance / whole } else { 0.0 };
            let part = if value > 0.0 { own / value } else { 0.0 };
            (thing, scaled(among + sum * part * part, own))
        });
        (scaled(sum, value), things)
    }
}

#[cfg(test)]
mod tests;
