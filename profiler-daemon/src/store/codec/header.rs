//! The header of a stored window: which time, which kinds, how much.

use std::time::Duration;

use prost::Message as _;

use super::{Damaged, format, nanos, rows, time};
use crate::model::{ProfileKind, TimeRange};

/// Most stretches of time in one part; a window of an hour has 3600 windows of a second at most.
const MAX_STRETCHES: usize = 4096;
/// Stretches that are no further apart than this are one: windows are cut by a clock that is not
/// the one their ends are written in.
const SAME: Duration = Duration::from_millis(10);

/// A stored window without its rows.
#[derive(Clone, Debug, PartialEq)]
pub(in crate::store) struct Header {
    /// From its first to its last instant.
    pub(in crate::store) range: TimeRange,
    /// 0 as sealed, 1 a minute, 2 an hour.
    pub(in crate::store) level: u32,
    /// The dictionary that its rows point into.
    pub(in crate::store) segment: u64,
    /// By kind.
    pub(in crate::store) parts: Vec<Part>,
}

/// One kind of profile in a window.
#[derive(Clone, Debug, PartialEq)]
pub(in crate::store) struct Part {
    pub(in crate::store) kind: ProfileKind,
    /// Records behind it.
    pub(in crate::store) records: u64,
    /// Size of its rows on disk.
    pub(in crate::store) bytes: u64,
    /// Size of its times on disk; 0: it has none.
    pub(in crate::store) times_bytes: u64,
    /// Which time, in order and without overlap.
    pub(in crate::store) stretches: Vec<TimeRange>,
}

impl Header {
    pub(in crate::store) fn encode(&self) -> Vec<u8> {
        let parts = self.parts.iter().map(|part| format::Part {
            kind: rows::kind_number(part.kind),
            records: part.records,
            bytes: part.bytes,
            times_bytes: part.times_bytes,
            from: part.stretches.iter().map(|range| nanos(range.from)).collect(),
            to: part.stretches.iter().map(|range| nanos(range.to)).collect(),
        });
        let window = format::Window {
            from: nanos(self.range.from),
            to: nanos(self.range.to),
            level: self.level,
            segment: self.segment,
            parts: parts.collect(),
        };
        let message = window.encode_to_vec();
        let mut value = crc32fast::hash(&message).to_le_bytes().to_vec();
        value.extend(message);
        value
    }

    pub(in crate::store) fn decode(bytes: &[u8]) -> Result<Self, Damaged> {
        // Not compressed, since headers are small and read often; so the checksum is ours.
        let (checksum, message) =
            bytes.split_first_chunk::<4>().ok_or_else(|| Damaged::new("a window has no header"))?;
        if crc32fast::hash(message) != u32::from_le_bytes(*checksum) {
            return Err(Damaged::new("the checksum of a window's header is wrong"));
        }
        let window = format::Window::decode(message)
            .map_err(|error| Damaged::new(format!("is not a window's header: {error}")))?;
        let mut parts = Vec::new();
        for part in window.parts {
            if part.from.len() != part.to.len() || part.from.len() > MAX_STRETCHES {
                return Err(Damaged::new("a window's header has stretches without an end, or too many"));
            }
            let stretches = part.from.into_iter().zip(part.to);
            parts.push(Part {
                kind: rows::kind_of(part.kind)?,
                records: part.records,
                bytes: part.bytes,
                times_bytes: part.times_bytes,
                stretches: stretches.map(|(from, to)| TimeRange { from: time(from), to: time(to) }).collect(),
            });
        }
        Ok(Self {
            range: TimeRange { from: time(window.from), to: time(window.to) },
            level: window.level,
            segment: window.segment,
            parts,
        })
    }

    /// Whether it keeps when the values of this kind came.
    pub(in crate::store) fn has_times(&self, kind: ProfileKind) -> bool {
        self.parts.iter().any(|part| part.kind == kind && part.times_bytes > 0)
    }

    /// Whether it has a profile of this kind.
    pub(in crate::store) fn has(&self, kind: ProfileKind) -> bool {
        self.parts.iter().any(|part| part.kind == kind)
    }
}

/// Whether the middle of a window lies in a range. Of ranges that tile a time exactly one takes it.
pub(in crate::store) fn belongs(window: &TimeRange, range: &TimeRange) -> bool {
    let middle = window.from + window.length() / 2;
    range.from <= middle && middle < range.to
}

/// The same time in as few stretches as possible, in order.
pub(in crate::store) fn coalesce(mut stretches: Vec<TimeRange>) -> Vec<TimeRange> {
    stretches.sort_by_key(|range| range.from);
    let mut joined: Vec<TimeRange> = Vec::new();
    for range in stretches {
        // Beyond the most that a header may have, gaps are filled rather than time forgotten.
        let full = joined.len() >= MAX_STRETCHES;
        match joined.last_mut() {
            Some(last) if full || range.from <= last.to + SAME => last.to = last.to.max(range.to),
            _ => joined.push(range),
        }
    }
    joined
}
