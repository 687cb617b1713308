//! Writing a window: its rows, and what its segment's dictionary lacks.

use redb::{Database, ReadTransaction, ReadableDatabase as _, ReadableTable as _, WriteTransaction};

use super::fine::TIMES;
use super::tables::{DICTIONARY, Failure, Key, ROWS, SEGMENTS, WINDOWS, cost, dictionary};
use crate::model::{Profile, TimeRange, Window};
use crate::store::codec::{Effort, Header, Interner, Part, nanos, pack, write_times};

/// Time that shares a dictionary. Windows are rolled up within it.
pub(super) const HOUR_NS: u64 = 3_600_000_000_000;
/// A segment's number is its hour since 1970, then its number in the hour in so many bits.
const NUMBER_BITS: u32 = 16;

/// What writing goes on from.
#[derive(Debug, Default)]
pub(super) struct Writer {
    /// The dictionary that windows are written with; read from the database where there is none.
    open: Option<(u64, Interner)>,
}

/// Rows of one part, ready to be written.
pub(super) struct Rows {
    pub(super) part: Part,
    pub(super) value: Vec<u8>,
    /// When the values came, where that is kept.
    pub(super) times: Option<Vec<u8>>,
}

impl Writer {
    /// Writes a sealed window; returns how many bytes it took.
    pub(super) fn window(&mut self, database: &Database, window: &Window) -> Result<u64, Failure> {
        let (segment, interner) = self.segment(database, hour(window.range))?;
        let mut rows = Vec::new();
        for profile in &window.profiles {
            rows.push(part(interner, segment, window.range, profile)?);
        }
        let mut pieces = Vec::new();
        for piece in interner.take_pieces() {
            pieces.push(pack(&piece, Effort::Quick)?);
        }
        let values = rows.iter().flat_map(|rows| std::iter::once(&rows.value).chain(&rows.times));
        let values = values.chain(&pieces).map(Vec::len);
        let bytes = values.map(|bytes| bytes as u64).sum();
        let transaction = database.begin_write()?;
        append(&transaction, segment, &pieces)?;
        put(&transaction, window.range, 0, segment, rows)?;
        transaction.commit()?;
        Ok(bytes)
    }

    /// Whether windows are written with this segment's dictionary now.
    pub(super) fn writes(&self, segment: u64) -> bool {
        self.open.as_ref().is_some_and(|(open, _)| *open == segment)
    }

    /// The segment of an hour that is written to now, and its dictionary.
    fn segment(&mut self, database: &Database, hour: u64) -> Result<(u64, &mut Interner), Failure> {
        let current = self.open.take();
        let current =
            current.filter(|(segment, interner)| segment >> NUMBER_BITS == hour && !interner.is_full());
        let (segment, interner) = match current {
            Some(current) => current,
            None => read(database, hour)?,
        };
        let (segment, interner) = self.open.insert((segment, interner));
        Ok((*segment, interner))
    }
}

/// The last segment of an hour, or the next one if that is full or damaged.
fn read(database: &Database, hour: u64) -> Result<(u64, Interner), Failure> {
    let transaction = database.begin_read()?;
    let (first, last) = (hour << NUMBER_BITS, ((hour + 1) << NUMBER_BITS) - 1);
    let mut known = transaction.open_table(SEGMENTS)?.range(first..=last)?;
    let Some(segment) = known.next_back().transpose()?.map(|(segment, _)| segment.value()) else {
        return Ok((first, Interner::default()));
    };
    let interner = match dictionary(&transaction, segment) {
        Ok(dictionary) => Interner::of(&dictionary).ok(),
        Err(Failure::Damaged(_)) => None,
        Err(other) => return Err(other),
    };
    match interner {
        Some(interner) if !interner.is_full() || segment == last => Ok((segment, interner)),
        // Beyond 65 536 in an hour the last is written over; that is one every 55 ms.
        _ => Ok(((segment + 1).min(last), Interner::default())),
    }
}

fn part(interner: &mut Interner, segment: u64, range: TimeRange, profile: &Profile) -> Result<Rows, Failure> {
    let table = interner.table(profile);
    let value = table.write(segment, Effort::Quick)?;
    let times = profile.times().map(|times| write_times(times, &table.order, profile.kind(), segment));
    let times = times.transpose()?;
    let part = Part {
        kind: profile.kind(),
        records: profile.quality.records,
        bytes: value.len() as u64,
        times_bytes: times.as_ref().map_or(0, |times| times.len() as u64),
        stretches: vec![range],
    };
    Ok(Rows { part, value, times })
}

/// Adds pieces to a segment's dictionary; a segment without pieces is made known, too.
fn append(transaction: &WriteTransaction, segment: u64, pieces: &[Vec<u8>]) -> Result<(), Failure> {
    let mut segments = transaction.open_table(SEGMENTS)?;
    let (mut count, mut bytes) = segments.get(segment)?.map_or((0, 0), |known| known.value());
    let mut table = transaction.open_table(DICTIONARY)?;
    for piece in pieces {
        table.insert((segment, count), piece.as_slice())?;
        count += 1;
        bytes += cost(piece.len() as u64);
    }
    segments.insert(segment, (count, bytes))?;
    Ok(())
}

/// Replaces a segment's dictionary.
pub(super) fn replace(
    transaction: &WriteTransaction,
    segment: u64,
    pieces: &[Vec<u8>],
) -> Result<(), Failure> {
    forget(transaction, segment)?;
    append(transaction, segment, pieces)
}

/// Removes a segment's dictionary.
pub(super) fn forget(transaction: &WriteTransaction, segment: u64) -> Result<(), Failure> {
    let mut table = transaction.open_table(DICTIONARY)?;
    table.retain_in((segment, 0)..=(segment, u32::MAX), |_, _| false)?;
    transaction.open_table(SEGMENTS)?.remove(segment)?;
    Ok(())
}

/// Adds a window under a number of its own.
pub(super) fn put(
    transaction: &WriteTransaction,
    range: TimeRange,
    level: u32,
    segment: u64,
    rows: Vec<Rows>,
) -> Result<(), Failure> {
    let mut table = transaction.open_table(ROWS)?;
    let number = table.last()?.map_or(0, |(key, _)| key.value().0 + 1);
    let mut parts = Vec::new();
    for (place, rows) in (0_u8..TIMES).zip(rows) {
        table.insert((number, place), rows.value.as_slice())?;
        if let Some(times) = &rows.times {
            table.insert((number, place | TIMES), times.as_slice())?;
        }
        parts.push(rows.part);
    }
    if parts.is_empty() {
        // So that its number is taken.
        table.insert((number, 0), [].as_slice())?;
    }
    let header = Header { range, level, segment, parts };
    transaction.open_table(WINDOWS)?.insert((nanos(range.from), number), header.encode().as_slice())?;
    Ok(())
}

/// Removes a window; false where it is not there.
pub(super) fn remove(transaction: &WriteTransaction, key: Key) -> Result<bool, Failure> {
    let known = transaction.open_table(WINDOWS)?.remove(key)?.is_some();
    let mut rows = transaction.open_table(ROWS)?;
    rows.retain_in((key.1, 0)..=(key.1, u8::MAX), |_, _| false)?;
    Ok(known)
}

/// The hour since 1970 that a segment belongs to.
pub(super) fn hour_of(segment: u64) -> u64 {
    segment >> NUMBER_BITS
}

/// Number of a dictionary's pieces and their size; nothing where it is not there.
pub(super) fn size(transaction: &ReadTransaction, segment: u64) -> Result<(u32, u64), Failure> {
    Ok(transaction.open_table(SEGMENTS)?.get(segment)?.map_or((0, 0), |known| known.value()))
}

fn hour(range: TimeRange) -> u64 {
    nanos(range.from) / HOUR_NS
}
