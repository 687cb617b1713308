//! When the values of a window's rows came, in a value of its own: only questions that need it read it.

use std::time::SystemTime;

use super::rows::kind_number;
use super::{Damaged, Effort, Row, Unwritable, format, nanos, pack, time, unpack};
use crate::model::{ProfileKind, Span, Times};

/// Most spans of one window.
const MAX_SPANS: usize = 1 << 20;
/// Most that a span can be worth, so that sums of spans cannot overflow.
const MAX_AMOUNT: u64 = 1 << 43;

/// The spans of a stored window.
#[derive(Debug)]
pub(in crate::store) struct StoredTimes {
    /// What spans are counted from.
    pub(in crate::store) origin: SystemTime,
    /// Records whose time was not kept.
    pub(in crate::store) left_out: u64,
    /// How many of the spans belong to each row, in the order of the stored rows.
    lengths: Vec<u32>,
    spans: Vec<Span>,
}

/// The times of a profile as a value; `order` has the rows as ids of the dictionary, in the order of
/// the profile.
pub(in crate::store) fn write_times(
    times: &Times,
    order: &[Row],
    kind: ProfileKind,
    segment: u64,
) -> Result<Vec<u8>, Unwritable> {
    let mut rows: Vec<(&Row, &[Span])> =
        order.iter().enumerate().map(|(number, row)| (row, times.of_row(number))).collect();
    // As rows are stored.
    rows.sort_unstable_by_key(|(row, _)| **row);
    let mut message = format::Times {
        kind: kind_number(kind),
        segment,
        origin: nanos(times.origin()),
        left_out: times.left_out(),
        ..format::Times::default()
    };
    for (_, spans) in rows {
        message.spans.push(spans.len() as u32);
        let mut spans = spans.to_vec();
        spans.sort_unstable();
        let mut before = 0_i32;
        for span in spans {
            message.start.push(span.start_ms.wrapping_sub(before));
            message.length.push(span.length_ms);
            message.amount.push(span.amount.min(MAX_AMOUNT));
            before = span.start_ms;
        }
    }
    pack(&message, Effort::Quick)
}

/// Reads the times of a window that has so many rows.
pub(in crate::store) fn read_times(
    bytes: &[u8],
    kind: ProfileKind,
    segment: u64,
    rows: usize,
) -> Result<StoredTimes, Damaged> {
    let message: format::Times = unpack(bytes)?;
    if message.kind != kind_number(kind) || message.segment != segment || message.spans.len() != rows {
        return Err(Damaged::new("times are not those of this window"));
    }
    let count = message.start.len();
    let told = message.spans.iter().fold(0_usize, |sum, &spans| sum.saturating_add(spans as usize));
    if [message.length.len(), message.amount.len(), told].iter().any(|&other| other != count) {
        return Err(Damaged::new("columns of times differ in length"));
    }
    if count > MAX_SPANS || message.amount.iter().any(|&amount| amount > MAX_AMOUNT) {
        return Err(Damaged::new("times are too many or too large"));
    }
    let mut spans = Vec::with_capacity(count);
    let columns = message.start.iter().zip(&message.length).zip(&message.amount);
    for ((&start, &length_ms), &amount) in columns {
        spans.push(Span { start_ms: start, length_ms, amount });
    }
    // Starts are steps within a row.
    let mut rest = spans.as_mut_slice();
    for &length in &message.spans {
        let (row, after) = rest.split_at_mut_checked(length as usize).unwrap_or_default();
        let mut start = 0_i32;
        for span in row {
            start = start.wrapping_add(span.start_ms);
            span.start_ms = start;
        }
        rest = after;
    }
    Ok(StoredTimes {
        origin: time(message.origin),
        left_out: message.left_out,
        lengths: message.spans,
        spans,
    })
}

impl StoredTimes {
    /// The spans of each row, in the order of the stored rows.
    pub(in crate::store) fn rows(&self) -> impl Iterator<Item = &[Span]> {
        let mut rest = self.spans.as_slice();
        self.lengths.iter().map(move |&length| {
            // The lengths were added up when the value was read.
            let (row, after) = rest.split_at_checked(length as usize).unwrap_or_default();
            rest = after;
            row
        })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn any_message_is_read_or_refused(
            spans in proptest::collection::vec(any::<u32>(), 0..4),
            start in proptest::collection::vec(any::<i32>(), 0..6),
            length in proptest::collection::vec(any::<u32>(), 0..6),
            amount in proptest::collection::vec(any::<u64>(), 0..6),
            origin in any::<u64>(),
            rows in 0..4_usize,
        ) {
            let message =
                format::Times { kind: 1, segment: 7, origin, left_out: 1, spans, start, length, amount };
            let bytes = pack(&message, Effort::Quick).expect("small");
            if let Ok(times) = read_times(&bytes, ProfileKind::OnCpu, 7, rows) {
                prop_assert_eq!(times.rows().count(), rows);
                for span in times.rows().flatten() {
                    let _total = span.within(i64::MIN, i64::MAX);
                }
            }
        }

        #[test]
        fn what_is_consistent_is_read_as_written(
            rows in proptest::collection::vec(
                proptest::collection::vec((any::<i32>(), any::<u32>(), 0..MAX_AMOUNT), 0..5), 0..5),
        ) {
            let mut message = format::Times { kind: 2, segment: 7, ..format::Times::default() };
            for row in &rows {
                message.spans.push(row.len() as u32);
                let mut before = 0_i32;
                for &(start, length, amount) in row {
                    message.start.push(start.wrapping_sub(before));
                    message.length.push(length);
                    message.amount.push(amount);
                    before = start;
                }
            }
            let bytes = pack(&message, Effort::Quick).expect("small");
            let times = read_times(&bytes, ProfileKind::OffCpu, 7, rows.len()).expect("consistent");
            let span = |&(start_ms, length_ms, amount)| Span { start_ms, length_ms, amount };
            let written: Vec<Vec<Span>> = rows.iter().map(|row| row.iter().map(span).collect()).collect();
            let read: Vec<Vec<Span>> = times.rows().map(<[Span]>::to_vec).collect();
            prop_assert_eq!(read, written);
            // A value in a wrong place does not pass.
            prop_assert!(read_times(&bytes, ProfileKind::OnCpu, 7, rows.len()).is_err());
            prop_assert!(read_times(&bytes, ProfileKind::OffCpu, 8, rows.len()).is_err());
            prop_assert!(read_times(&bytes, ProfileKind::OffCpu, 7, rows.len() + 1).is_err());
        }
    }
}
