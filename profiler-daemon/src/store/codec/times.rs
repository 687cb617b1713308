//! When the values of a window's rows came, in a value of its own: only questions that need it read it.

use std::time::SystemTime;

use super::rows::kind_number;
use super::{Damaged, Effort, Row, format, nanos, pack, time, unpack};
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
) -> Result<Vec<u8>, Damaged> {
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
    Ok(StoredTimes { origin: time(message.origin), left_out: message.left_out, lengths: message.spans, spans })
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
