//! How activity is spread over a range of time: cells of a fraction of a second.

use std::time::{Duration, SystemTime};

use crate::model::{Loss, ProfileKind, Span, StackQuality, TimeRange};

/// Activity by cells of time.
#[derive(Clone, Debug)]
pub struct Heat {
    /// What was measured.
    pub kind: ProfileKind,
    /// From the start of the first to the end of the last cell.
    pub range: TimeRange,
    /// Length of a cell.
    pub cell: Duration,
    /// Time that is covered by windows that keep when things happened.
    pub covered: Vec<TimeRange>,
    /// Parts of the range of which only coarser windows are stored.
    pub coarse: Vec<TimeRange>,
    /// Parts of the range without data of the kind.
    pub gaps: Vec<TimeRange>,
    /// What is missing.
    pub loss: Loss,
    /// What is known of the stacks of the windows.
    pub quality: StackQuality,
    /// Value of each cell: what lies in it alone, and what is spread over all from it on.
    own: Vec<f64>,
    rate: Vec<f64>,
    /// Variance of the sum of all cells, where waits were sampled, us².
    variance_us2: f64,
}

impl Heat {
    /// All cells empty. The range begins with a cell and is a whole number of cells long.
    pub(super) fn new(kind: ProfileKind, range: TimeRange, cell: Duration) -> Self {
        let cells = (range.length().as_nanos() / cell.as_nanos().max(1)) as usize;
        Self {
            kind,
            range,
            cell,
            covered: Vec::new(),
            coarse: Vec::new(),
            gaps: Vec::new(),
            loss: Loss::default(),
            quality: StackQuality::default(),
            own: vec![0.0; cells],
            rate: vec![0.0; cells + 1],
            variance_us2: 0.0,
        }
    }

    /// Adds spans that are counted from `origin`; returns how much of their amounts is in the range.
    pub(super) fn add(&mut self, origin: SystemTime, spans: &[Span]) -> f64 {
        let cell_ms = self.cell.as_secs_f64() * 1e3;
        let offset_ms = match origin.duration_since(self.range.from) {
            Ok(after) => after.as_secs_f64() * 1e3,
            Err(before) => -before.duration().as_secs_f64() * 1e3,
        };
        let mut within = 0.0;
        for span in spans {
            let start = (offset_ms + f64::from(span.start_ms)) / cell_ms;
            let length = f64::from(span.length_ms.max(1)) / cell_ms;
            // A hit is an instant, and never torn by a border that lies within its millisecond.
            let end = if span.length_ms <= 1 { start } else { start + length };
            within += self.spread(start, end, span.amount as f64);
        }
        within
    }

    /// Adds the variance of all time of a window, us², of which so much (from 0 to 1) is in the range.
    pub(super) fn add_variance(&mut self, us2: u64, share: f64) {
        self.variance_us2 += us2 as f64 * share.clamp(0.0, 1.0);
    }

    /// Spreads an amount evenly from one point to another, in cells; returns what of it is in the range.
    fn spread(&mut self, start: f64, end: f64, amount: f64) -> f64 {
        let cells = self.own.len() as f64;
        if end < 0.0 || start >= cells {
            return 0.0;
        }
        if start.floor() == end.floor() {
            if let Some(own) = self.own.get_mut(start.max(0.0) as usize) {
                *own += amount;
            }
            return amount;
        }
        let rate = amount / (end - start);
        let (from, to) = (start.max(0.0), end.min(cells));
        let (first, last) = (from.floor(), to.floor());
        if first == last {
            self.add_own(first, (to - from) * rate);
            return (to - from) * rate;
        }
        self.add_own(first, (first + 1.0 - from) * rate);
        self.add_own(last, (to - last) * rate);
        for (at, change) in [(first + 1.0, rate), (last, -rate)] {
            if let Some(cell) = self.rate.get_mut(at as usize) {
                *cell += change;
            }
        }
        (to - from) * rate
    }

    fn add_own(&mut self, cell: f64, amount: f64) {
        if let Some(own) = self.own.get_mut(cell as usize) {
            *own += amount;
        }
    }

    /// Standard error of the sum of all cells, in [`ProfileKind::unit`].
    #[must_use]
    pub fn total_error(&self) -> f64 {
        match self.kind {
            ProfileKind::OnCpu => (self.values().iter().sum::<u64>() as f64).sqrt(),
            _ => self.variance_us2.sqrt(),
        }
    }

    /// The value of each cell in [`ProfileKind::unit`], in the order of time.
    #[must_use]
    pub fn values(&self) -> Vec<u64> {
        // Amounts of off-CPU time are nanoseconds, and shown in microseconds.
        let divisor = if self.kind == ProfileKind::OnCpu { 1.0 } else { 1000.0 };
        let mut rate = 0.0;
        let cells = self.own.iter().zip(&self.rate).map(|(own, change)| {
            rate += change;
            ((own + rate) / divisor).round().max(0.0) as u64
        });
        cells.collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_span_is_spread_over_the_cells_it_covers() {
        let from = SystemTime::UNIX_EPOCH + Duration::from_secs(100);
        let range = TimeRange { from, to: from + Duration::from_millis(100) };
        let mut heat = Heat::new(ProfileKind::OffCpu, range, Duration::from_millis(20));
        // From 10 ms to 70 ms, a microsecond of value each.
        let within = heat.add(from, &[Span { start_ms: 10, length_ms: 60, amount: 60_000 }]);
        assert_eq!((heat.values(), within), (vec![10, 20, 20, 10, 0], 60_000.0));
        // What lies before and behind the range is left out.
        heat.add(from, &[Span { start_ms: -40, length_ms: 60, amount: 60_000 }]);
        heat.add(from, &[Span { start_ms: 90, length_ms: 60, amount: 60_000 }]);
        heat.add(from, &[Span { start_ms: -1000, length_ms: 60, amount: 60_000 }]);
        assert_eq!(heat.values(), [30, 20, 20, 10, 10]);
        let within = heat.add(from, &[Span { start_ms: -100, length_ms: 300, amount: 300_000 }]);
        assert_eq!((heat.values(), within), (vec![50, 40, 40, 30, 30], 100_000.0));
        // What is not in the range has no part in how sure it is.
        heat.add_variance(900, within / 300_000.0 + 1.0 / 9.0);
        assert!((heat.total_error() - 20.0).abs() < 1e-6, "{}", heat.total_error());
    }

    #[test]
    fn a_hit_is_in_one_cell_whatever_the_border() {
        let from = SystemTime::UNIX_EPOCH + Duration::from_secs(100);
        let range = TimeRange { from, to: from + Duration::from_millis(60) };
        let mut heat = Heat::new(ProfileKind::OnCpu, range, Duration::from_millis(20));
        let hit = [Span { start_ms: 19, length_ms: 1, amount: 3 }];
        heat.add(from + Duration::from_micros(500), &hit);
        heat.add(from, &[Span { start_ms: 40, length_ms: 1, amount: 2 }]);
        assert_eq!(heat.values(), [3, 0, 2]);
    }
}
