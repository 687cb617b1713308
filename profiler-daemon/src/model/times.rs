//! When the values of a profile's rows came: spans of milliseconds, for as long as windows are fine.

use std::time::{Duration, SystemTime};

use super::{Measure, TimeRange};

/// Most spans of one profile, 16 bytes each. What comes beyond keeps its value and loses its time.
const MAX_SPANS: usize = 1 << 17;

/// How many stretches [`Times::blocks`] cuts a recording into: enough to see how much a share sways.
pub const BLOCKS: usize = 12;

/// Amounts by stretches of equal length.
pub type Blocks = [u64; BLOCKS];

/// Some of a row's value, spread evenly over a stretch of time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Span {
    /// First millisecond after [`Times::origin`]; negative where it began before it.
    pub start_ms: i32,
    /// Milliseconds it covers, at least 1.
    pub length_ms: u32,
    /// How much: on-CPU records, off-CPU nanoseconds.
    pub amount: u64,
}

/// The spans of all rows of a profile.
#[derive(Clone, Debug)]
pub struct Times {
    origin: SystemTime,
    /// Spans begin and end at multiples of so many milliseconds.
    grain_ms: i64,
    /// By row, in the order of the rows.
    rows: Vec<Vec<Span>>,
    count: usize,
    left_out: u64,
}

/// When a record's parts were: they lie one behind the other, and the last ends with the record.
#[derive(Clone, Copy, Debug)]
pub struct Extent {
    end: SystemTime,
    /// Lengths of the blocked, run-queue and preempted part, ns.
    parts_ns: [u64; 3],
}

impl Extent {
    /// A record's: a hit is an instant, an interval is as long as it says.
    #[must_use]
    pub fn of(measure: Measure, end: SystemTime) -> Self {
        let parts_ns = match measure {
            Measure::OnCpu { .. } => [0; 3],
            Measure::OffCpu { blocked_ns, run_queue_ns, preempted_ns, .. } => {
                [blocked_ns, run_queue_ns, preempted_ns]
            }
        };
        Self { end, parts_ns }
    }

    /// That of a piece of an interval, from when it was last told of: its parts share the time as
    /// they share the value.
    #[must_use]
    pub fn piece(measure: Measure, from: SystemTime, end: SystemTime) -> Self {
        let Self { parts_ns, .. } = Self::of(measure, end);
        let length = end.duration_since(from).unwrap_or_default().as_nanos();
        let whole = parts_ns.iter().map(|&part| u128::from(part)).sum::<u128>().max(1);
        Self { end, parts_ns: parts_ns.map(|part| (u128::from(part) * length / whole) as u64) }
    }

    /// How long all parts are together.
    #[must_use]
    pub fn length(&self) -> Duration {
        Duration::from_nanos(self.parts_ns.iter().fold(0, |sum, &part| sum.saturating_add(part)))
    }

    /// From when to when one part was; an instant for hits.
    fn part(&self, number: usize) -> (SystemTime, SystemTime) {
        let after = |from: usize| {
            let rest = self.parts_ns.iter().skip(from).fold(0_u64, |sum, &part| sum.saturating_add(part));
            self.end.checked_sub(Duration::from_nanos(rest)).unwrap_or(SystemTime::UNIX_EPOCH)
        };
        (after(number), after(number + 1))
    }
}

impl Span {
    /// How much of it lies in a stretch of milliseconds after the origin, `from` before `to`.
    /// Stretches that tile a time add up to all of it.
    #[must_use]
    pub fn within(&self, from_ms: i64, to_ms: i64) -> u64 {
        let length = i64::from(self.length_ms.max(1));
        // What lies before a point; both ends are inside the span, so the product is in range.
        let before = |at: i64| {
            let done = at.saturating_sub(i64::from(self.start_ms)).clamp(0, length);
            (u128::from(self.amount) * done.unsigned_abs() as u128 / length.unsigned_abs() as u128) as u64
        };
        before(to_ms).saturating_sub(before(from_ms))
    }

    /// First millisecond after it.
    #[must_use]
    pub fn end_ms(&self) -> i64 {
        i64::from(self.start_ms) + i64::from(self.length_ms.max(1))
    }
}

impl Times {
    /// No spans yet.
    #[must_use]
    pub fn new(origin: SystemTime) -> Self {
        Self::coarse(origin, Duration::from_millis(1))
    }

    /// No spans yet; those that come are widened to multiples of `grain`, so that there are fewer.
    #[must_use]
    pub fn coarse(origin: SystemTime, grain: Duration) -> Self {
        let grain_ms = i64::try_from(grain.as_millis()).unwrap_or(i64::MAX).max(1);
        Self { origin, grain_ms, rows: Vec::new(), count: 0, left_out: 0 }
    }

    /// The amounts of each row in [`BLOCKS`] stretches of equal length, from the first to the last
    /// instant of all; `None` where some are not known or the time is too short.
    #[must_use]
    pub fn blocks(&self, rows: usize) -> Option<Vec<Blocks>> {
        let all = || self.rows.iter().flatten();
        let from = all().map(|span| i64::from(span.start_ms)).min()?;
        let to = all().map(Span::end_ms).max()?;
        if self.left_out > 0 || to - from < BLOCKS as i64 * self.grain_ms {
            return None;
        }
        let border = |block: usize| from + (to - from) * block as i64 / BLOCKS as i64;
        let blocks = |row| {
            let mut blocks = Blocks::default();
            for span in self.of_row(row) {
                for (block, sum) in blocks.iter_mut().enumerate() {
                    *sum = sum.saturating_add(span.within(border(block), border(block + 1)));
                }
            }
            blocks
        };
        Some((0..rows).map(blocks).collect())
    }

    /// What spans are counted from.
    #[must_use]
    pub fn origin(&self) -> SystemTime {
        self.origin
    }

    /// The spans of a row, in the order in which their records came.
    #[must_use]
    pub fn of_row(&self, row: usize) -> &[Span] {
        self.rows.get(row).map_or(&[], Vec::as_slice)
    }

    /// Records whose time was not kept, for want of room.
    #[must_use]
    pub fn left_out(&self) -> u64 {
        self.left_out
    }

    /// Memory held, bytes.
    #[must_use]
    pub fn memory_bytes(&self) -> usize {
        self.count * size_of::<Span>() + self.rows.len() * size_of::<Vec<Span>>()
    }

    /// Adds some of a row's value: part `number` of a record.
    pub(super) fn add(&mut self, row: usize, extent: &Extent, number: usize, amount: u64) {
        let (from, to) = extent.part(number);
        let start_ms = self.millis(from).div_euclid(self.grain_ms) * self.grain_ms;
        // The millisecond that holds the last instant; an instant takes the one it lies in.
        let last_ms = self.millis(to.max(from + Duration::from_nanos(1)) - Duration::from_nanos(1));
        let end_ms = last_ms.div_euclid(self.grain_ms) * self.grain_ms + self.grain_ms;
        let span = Span {
            start_ms: start_ms.clamp(i64::from(i32::MIN), i64::from(i32::MAX)) as i32,
            length_ms: (end_ms - start_ms).clamp(1, i64::from(i32::MAX)) as u32,
            amount,
        };
        self.push(row, span);
    }

    /// Adds a span to a row.
    pub(super) fn push(&mut self, row: usize, span: Span) {
        if self.rows.len() <= row {
            self.rows.resize_with(row + 1, Vec::new);
        }
        let Some(spans) = self.rows.get_mut(row) else { return };
        match spans.last_mut() {
            Some(last) if (last.start_ms, last.length_ms) == (span.start_ms, span.length_ms) => {
                last.amount = last.amount.saturating_add(span.amount);
            }
            _ if self.count < MAX_SPANS => {
                spans.push(span);
                self.count += 1;
            }
            _ => self.left_out += 1,
        }
    }

    fn millis(&self, at: SystemTime) -> i64 {
        offset_ms(self.origin, at)
    }
}

/// Whole milliseconds from `origin` to `at`, rounded down.
fn offset_ms(origin: SystemTime, at: SystemTime) -> i64 {
    match at.duration_since(origin) {
        Ok(after) => i64::try_from(after.as_millis()).unwrap_or(i64::MAX),
        Err(before) => {
            let before = before.duration().as_nanos().div_ceil(1_000_000);
            i64::try_from(before).map_or(i64::MIN, |before| -before)
        }
    }
}

/// A range in milliseconds after `origin`. Like ends of ranges give like milliseconds, so that what
/// ranges that tile a time hold adds up.
#[must_use]
pub fn range_ms(origin: SystemTime, range: TimeRange) -> (i64, i64) {
    (offset_ms(origin, range.from), offset_ms(origin, range.to))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(ms: u64) -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_millis(10_000 + ms)
    }

    #[test]
    fn stretches_that_tile_a_span_add_up_to_it() {
        let span = Span { start_ms: -3, length_ms: 7, amount: 1_000_003 };
        let pieces: Vec<u64> = (-10..10).map(|from| span.within(from, from + 1)).collect();
        assert_eq!(pieces.iter().sum::<u64>(), span.amount);
        assert_eq!(pieces.iter().filter(|piece| **piece > 0).count(), 7);
        assert_eq!(span.within(-3, 4), span.amount);
        assert_eq!((span.within(-4, -3), span.within(4, 5)), (0, 0));
    }

    #[test]
    fn parts_lie_one_behind_the_other() {
        let mut times = Times::new(at(0));
        let extent = Extent { end: at(100), parts_ns: [30_000_000, 20_000_000, 0] };
        times.add(0, &extent, 0, 30);
        times.add(1, &extent, 1, 20);
        assert_eq!(times.of_row(0), [Span { start_ms: 50, length_ms: 30, amount: 30 }]);
        assert_eq!(times.of_row(1), [Span { start_ms: 80, length_ms: 20, amount: 20 }]);
        // A hit, twice in the same millisecond.
        let hit = Extent { end: at(7), parts_ns: [0; 3] };
        times.add(2, &hit, 0, 1);
        times.add(2, &hit, 0, 1);
        assert_eq!(times.of_row(2), [Span { start_ms: 7, length_ms: 1, amount: 2 }]);
    }

    #[test]
    fn blocks_are_stretches_of_equal_length() {
        let mut times = Times::coarse(at(0), Duration::from_millis(250));
        let hit = |ms| Extent { end: at(ms), parts_ns: [0; 3] };
        for ms in (0..6000).step_by(10) {
            times.add(0, &hit(ms), 0, 1);
        }
        times.add(1, &hit(5999), 0, 7);
        assert_eq!(times.of_row(0).len(), 24, "one a grain");
        let blocks = times.blocks(2).expect("long enough");
        assert_eq!(blocks[0], [50; BLOCKS]);
        assert_eq!((blocks[1][BLOCKS - 1], blocks[1].iter().sum::<u64>()), (7, 7));
        let mut short = Times::coarse(at(0), Duration::from_millis(250));
        short.add(0, &hit(10), 0, 1);
        assert_eq!(short.blocks(1), None);
    }

    #[test]
    fn what_has_no_room_is_counted() {
        let mut times = Times::new(at(0));
        for ms in 0..=MAX_SPANS as u64 {
            times.add(0, &Extent { end: at(ms), parts_ns: [0; 3] }, 0, 1);
        }
        assert_eq!((times.of_row(0).len(), times.left_out()), (MAX_SPANS, 1));
    }
}
