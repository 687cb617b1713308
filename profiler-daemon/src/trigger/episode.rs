//! When a burst of pressure begins and when it is over: one start for each, however long it lasts.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

/// For how long pressure must stay low before the next burst is another one, at least.
const MIN_CALM: Duration = Duration::from_secs(10);
/// The same in windows of the rule.
const CALM_WINDOWS: u32 = 3;

/// The state of one rule.
#[derive(Debug)]
pub(super) struct Episode {
    /// Share of time that is too much, 0 to 1.
    limit: f64,
    calm_after: Duration,
    high: Option<High>,
    /// Bursts so far.
    count: u64,
}

#[derive(Debug)]
struct High {
    /// When pressure was last above half the limit.
    last: Instant,
    /// Whether this burst was dealt with.
    handled: bool,
}

impl Episode {
    pub(super) fn new(threshold: Duration, window: Duration) -> Self {
        Self {
            limit: threshold.as_secs_f64() / window.as_secs_f64(),
            calm_after: (CALM_WINDOWS * window).max(MIN_CALM),
            high: None,
            count: 0,
        }
    }

    /// The kernel says that the threshold was passed.
    pub(super) fn hit(&mut self, now: Instant) {
        match &mut self.high {
            Some(high) => high.last = now,
            None => {
                self.count += 1;
                self.high = Some(High { last: now, handled: false });
            }
        }
    }

    /// The share of time that tasks were stalled for lately, 0 to 1. A burst begins at the limit,
    /// but ends only below half of it: pressure that sways around the limit is one burst.
    pub(super) fn measured(&mut self, share: f64, now: Instant) {
        if share >= self.limit {
            self.hit(now);
        } else if let Some(high) = &mut self.high {
            if share >= self.limit / 2.0 {
                high.last = now;
            } else if now.saturating_duration_since(high.last) >= self.calm_after {
                self.high = None;
            }
        }
    }

    /// Whether there is a burst, and its number: it has to be measured until it is over.
    pub(super) fn is_high(&self) -> bool {
        self.high.is_some()
    }

    /// The number of a burst that nobody has dealt with yet.
    pub(super) fn unhandled(&self) -> Option<u64> {
        self.high.as_ref().filter(|high| !high.handled).map(|_| self.count)
    }

    /// This burst has been dealt with.
    pub(super) fn handled(&mut self) {
        if let Some(high) = &mut self.high {
            high.handled = true;
        }
    }
}

/// Share of time that tasks were stalled for, from readings of the kernel's running total.
#[derive(Debug)]
pub(super) struct Meter {
    window: Duration,
    /// Readings, oldest first: when, and the total then.
    readings: VecDeque<(Instant, Duration)>,
}

impl Meter {
    pub(super) fn new(window: Duration) -> Self {
        Self { window, readings: VecDeque::new() }
    }

    /// Takes a reading; gives the share over the window, or over the time between two readings
    /// where those are farther apart. `None` for the first.
    pub(super) fn read(&mut self, total: Duration, now: Instant) -> Option<f64> {
        // The newest reading that is a window old is the one to compare with.
        while self.readings.get(1).is_some_and(|(at, _)| now.saturating_duration_since(*at) >= self.window) {
            self.readings.pop_front();
        }
        let share = self.readings.front().and_then(|&(at, before)| {
            let elapsed = now.saturating_duration_since(at).as_secs_f64();
            (elapsed > 0.0).then(|| (total.saturating_sub(before).as_secs_f64() / elapsed).min(1.0))
        });
        self.readings.push_back((now, total));
        share
    }
}

/// The running total of a pressure file's line: `some avg10=0.00 avg60=0.00 avg300=0.00 total=1234`.
pub(super) fn total(text: &str, extent: &str) -> Option<Duration> {
    let line = text.lines().find(|line| line.split(' ').next() == Some(extent))?;
    let total = line.split(' ').find_map(|word| word.strip_prefix("total="))?;
    total.parse().ok().map(Duration::from_micros)
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn pressure_that_sways_is_one_burst() {
        let mut episode = Episode::new(SECOND, 2 * SECOND);
        let start = Instant::now();
        let mut bursts = Vec::new();
        // 50 % is the limit: up, below it, up again; then calm for 9 s, up; then calm for 12 s, up.
        let shares = [0.1, 0.6, 0.3, 0.9].into_iter();
        let shares = shares.chain([0.1; 9]).chain([0.5, 0.26]).chain([0.1; 12]).chain([0.7, 0.8]);
        for (second, share) in (0..).zip(shares) {
            episode.measured(share, start + second * SECOND);
            if let Some(number) = episode.unhandled() {
                bursts.push((second, number));
                episode.handled();
            }
        }
        assert_eq!(bursts, [(1, 1), (27, 2)]);
        assert!(episode.is_high());
    }

    #[test]
    fn a_burst_nobody_dealt_with_stays_to_be_dealt_with() {
        let mut episode = Episode::new(SECOND, 2 * SECOND);
        let start = Instant::now();
        episode.hit(start);
        assert_eq!((episode.unhandled(), episode.unhandled()), (Some(1), Some(1)));
        episode.measured(0.0, start + 9 * SECOND);
        assert_eq!(episode.unhandled(), Some(1));
        episode.measured(0.0, start + 10 * SECOND);
        assert_eq!((episode.unhandled(), episode.is_high()), (None, false));
    }

    #[test]
    fn the_share_is_that_of_the_window() {
        let mut meter = Meter::new(4 * SECOND);
        let start = Instant::now();
        let mut shares = Vec::new();
        // Stalled all the time from second 2 on.
        for second in 0..8_u32 {
            let total = second.saturating_sub(2) * SECOND;
            shares.push(meter.read(total, start + second * SECOND));
        }
        let expected =
            [None, Some(0.0), Some(0.0), Some(1.0 / 3.0), Some(0.5), Some(0.75), Some(1.0), Some(1.0)];
        for (share, expected) in shares.iter().zip(expected) {
            assert!((share.unwrap_or(-1.0) - expected.unwrap_or(-1.0)).abs() < 1e-9, "{shares:?}");
        }
        assert!(meter.readings.len() <= 6);
    }

    #[test]
    fn totals() {
        let text = "some avg10=5.93 avg60=8.61 avg300=23.41 total=290486912\n\
                    full avg10=0.00 avg60=0.00 avg300=0.00 total=7\n";
        assert_eq!(total(text, "some"), Some(Duration::from_micros(290_486_912)));
        assert_eq!(total(text, "full"), Some(Duration::from_micros(7)));
        assert_eq!(total("some avg10=0.00\n", "some"), None);
        assert_eq!(total("", "full"), None);
    }
}
