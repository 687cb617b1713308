//! Upkeep: old windows become coarser, the oldest go.

use std::collections::{BTreeMap, HashSet};
use std::time::{Duration, SystemTime};

use redb::{Database, ReadableDatabase as _};

use super::read::add;
use super::tables::{Failure, Key, SEGMENTS, cost, dictionary, headers};
use super::write::{self, HOUR_NS, Rows, Writer};
use super::{Disk, StoreError};
use crate::model::{KindLoss, ProfileKind, TimeRange};
use crate::store::codec::{Dictionary, Effort, Header, Interner, Part, Table, coalesce, nanos, pack};
use crate::store::windows::count_lost;

const MINUTE_NS: u64 = 60_000_000_000;
/// Windows that ended so long ago are rolled up to a minute,
const FINE: Duration = Duration::from_secs(3600);
/// and those of hours that ended so long ago to the hour.
const COARSE: Duration = Duration::from_secs(6 * 3600);
/// Windows that are removed in one transaction, which others wait for.
const BATCH: usize = 64;
/// Rows at which a rolled-up window is closed before its time.
const MAX_ROWS: usize = 500_000;
/// Share of the allowed bytes that values may take, in eighths; the rest is what the database needs
/// for itself and to write anew before it frees.
const EIGHTHS: u64 = 7;
/// Pieces of a dictionary above which they are put together.
const SCATTERED: u32 = 8;
/// Why a window's records are missing from later answers.
const EVICTED: &str = "store full, window removed early";

/// What is to be done, worked out in one look at all windows.
#[derive(Debug, Default)]
struct Plan {
    /// To go because of their age.
    expired: Vec<Key>,
    /// To go because of their size.
    evicted: Vec<(Key, Header)>,
    /// To become one window of that level each.
    rolled: Vec<(u32, Vec<(Key, Header)>)>,
    /// Dictionaries that no window uses.
    unused: Vec<u64>,
    /// Dictionaries of hours that are over, in so many pieces that reading them takes long.
    scattered: Vec<u64>,
}

impl Disk {
    /// Does all that is due, in short transactions, until `go_on` says no.
    pub(in crate::store) fn maintain(&self, go_on: impl Fn() -> bool) -> Result<(), StoreError> {
        let plan = self.read(|database| self.plan(database))?;
        let evicted = plan.evicted.iter().map(|(key, _)| *key);
        let gone: Vec<Key> = plan.expired.iter().copied().chain(evicted).collect();
        for keys in gone.chunks(BATCH) {
            if !go_on() {
                return Ok(());
            }
            self.write(|_, database| remove_all(database, keys))?;
        }
        let mut loss = KindLoss::default();
        for part in plan.evicted.iter().flat_map(|(_, header)| &header.parts) {
            count_lost(&mut loss, part.kind, EVICTED, part.records);
        }
        self.lock().loss.merge(&loss);
        for (level, windows) in &plan.rolled {
            if !go_on() {
                return Ok(());
            }
            match self.roll(*level, windows) {
                // They stay as they are.
                Ok(()) | Err(StoreError::Unwritable { .. }) => {}
                Err(error) => return Err(error),
            }
        }
        for &segment in &plan.scattered {
            if !go_on() {
                return Ok(());
            }
            self.gather(segment)?;
        }
        for &segment in &plan.unused {
            self.write(|writer, database| forget(writer, database, segment))?;
        }
        Ok(())
    }

    fn plan(&self, database: &Database) -> Result<Plan, Failure> {
        let transaction = database.begin_read()?;
        let mut windows = headers(&transaction)?;
        let (mut segments, mut scattered) = (BTreeMap::new(), Vec::new());
        for segment in transaction.open_table(SEGMENTS)?.range::<u64>(..)? {
            let (segment, size) = segment?;
            let (pieces, bytes) = size.value();
            segments.insert(segment.value(), bytes);
            if pieces > SCATTERED {
                scattered.push(segment.value());
            }
        }
        let mut plan = Plan::default();
        let newest = windows.iter().map(|(_, header)| header.range.to).max();
        // A clock that was wrong for a moment must not make everything old.
        let Some(now) = newest.map(|newest| newest.min(SystemTime::now())) else {
            plan.unused = segments.into_keys().collect();
            return Ok(plan);
        };
        let age = |header: &Header| now.duration_since(header.range.to).unwrap_or_default();
        windows.retain(|(key, header)| {
            let old = age(header) > self.options.max_age;
            if old {
                plan.expired.push(*key);
            }
            !old
        });
        let used: HashSet<u64> = windows.iter().map(|(_, header)| header.segment).collect();
        plan.unused = segments.keys().copied().filter(|segment| !used.contains(segment)).collect();
        segments.retain(|segment, _| used.contains(segment));
        let hour = nanos(now) / HOUR_NS;
        scattered.retain(|segment| write::hour_of(*segment) < hour && segments.contains_key(segment));
        plan.scattered = scattered;
        self.make_room(&mut plan, &mut windows, segments);
        plan.rolled = groups(windows, now);
        Ok(plan)
    }

    /// Plans which windows go for the sake of size: the oldest, and with the last of a segment its
    /// dictionary. The newest stays.
    fn make_room(&self, plan: &mut Plan, windows: &mut Vec<(Key, Header)>, mut segments: BTreeMap<u64, u64>) {
        let allowed = self.options.max_bytes / 8 * EIGHTHS;
        let mut left: BTreeMap<u64, usize> = BTreeMap::new();
        let mut total: u64 = segments.values().sum();
        for (_, header) in windows.iter() {
            *left.entry(header.segment).or_default() += 1;
            total += size(header);
        }
        let mut gone = 0;
        for (_, header) in windows.iter().take(windows.len().saturating_sub(1)) {
            if total <= allowed {
                break;
            }
            total -= size(header);
            gone += 1;
            if let Some(count) = left.get_mut(&header.segment) {
                *count -= 1;
                if *count == 0 {
                    total -= segments.remove(&header.segment).unwrap_or_default();
                    plan.unused.push(header.segment);
                }
            }
        }
        plan.evicted = windows.drain(..gone).collect();
    }

    /// Makes few pieces of a dictionary's many: each window of its hour has added one.
    fn gather(&self, segment: u64) -> Result<(), StoreError> {
        let gathered = self.read(|database| {
            let transaction = database.begin_read()?;
            let size = write::size(&transaction, segment)?;
            match dictionary(&transaction, segment) {
                Ok(dictionary) => Ok(Some((size, repacked(&dictionary)?))),
                // Queries say so.
                Err(Failure::Damaged(_)) => Ok(None),
                Err(other) => Err(other),
            }
        })?;
        let Some((size, pieces)) = gathered else { return Ok(()) };
        self.write(|writer, database| {
            // A window that came late may have added to it meanwhile.
            if writer.writes(segment) || write::size(&database.begin_read()?, segment)? != size {
                return Ok(());
            }
            let transaction = database.begin_write()?;
            write::replace(&transaction, segment, &pieces)?;
            transaction.commit()?;
            Ok(())
        })
    }

    /// Makes one window of several of the same segment. They are read and merged while others
    /// write; only the exchange is a transaction.
    fn roll(&self, level: u32, windows: &[(Key, Header)]) -> Result<(), StoreError> {
        let rolled = self.read(|database| merge(database, windows))?;
        let Some(Rolled { keys, range, segment, rows, pieces }) = rolled else { return Ok(()) };
        self.write(|writer, database| {
            let transaction = database.begin_write()?;
            let mut all_there = true;
            for key in &keys {
                all_there &= write::remove(&transaction, *key)?;
            }
            if !all_there {
                // The database is not the one that was read: it was replaced meanwhile.
                return Ok(());
            }
            if let Some(pieces) = pieces
                && level > 1
                && !writer.writes(segment)
            {
                write::replace(&transaction, segment, &pieces)?;
            }
            write::put(&transaction, range, level, segment, rows)?;
            transaction.commit()?;
            Ok(())
        })
    }
}

struct Rolled {
    keys: Vec<Key>,
    range: TimeRange,
    segment: u64,
    rows: Vec<Rows>,
    /// The whole dictionary in as few pieces as possible; `None` where it is damaged: it then stays
    /// as it is.
    pieces: Option<Vec<Vec<u8>>>,
}

fn merge(database: &Database, windows: &[(Key, Header)]) -> Result<Option<Rolled>, Failure> {
    let Some((_, first)) = windows.first() else { return Ok(None) };
    let segment = first.segment;
    let transaction = database.begin_read()?;
    let mut kinds: BTreeMap<ProfileKind, (Table, Part)> = BTreeMap::new();
    let (mut keys, mut range) = (Vec::new(), first.range);
    for (key, header) in windows {
        for part in &header.parts {
            let kind = part.kind;
            let (table, whole) = kinds.entry(kind).or_insert_with(|| {
                (Table::new(kind), Part { kind, records: 0, bytes: 0, times_bytes: 0, stretches: Vec::new() })
            });
            add(&transaction, *key, header, segment, table, |_| true)?;
            whole.records = whole.records.saturating_add(part.records);
            whole.stretches.extend(&part.stretches);
        }
        keys.push(*key);
        range.from = range.from.min(header.range.from);
        range.to = range.to.max(header.range.to);
        if kinds.values().any(|(table, _)| table.rows.len() > MAX_ROWS) {
            break;
        }
    }
    let mut rows = Vec::new();
    for (table, mut part) in kinds.into_values() {
        let value = table.write(segment, Effort::Thorough)?;
        part.bytes = value.len() as u64;
        part.stretches = coalesce(part.stretches);
        // When things happened within a minute is what rolling up forgets.
        rows.push(Rows { part, value, times: None });
    }
    let pieces = match dictionary(&transaction, segment) {
        Ok(dictionary) => Some(repacked(&dictionary)?),
        Err(Failure::Damaged(_)) => None,
        Err(other) => return Err(other),
    };
    Ok(Some(Rolled { keys, range, segment, rows, pieces }))
}

fn repacked(dictionary: &Dictionary) -> Result<Vec<Vec<u8>>, Failure> {
    let mut pieces = Vec::new();
    for piece in Interner::pieces_of(dictionary)? {
        pieces.push(pack(&piece, Effort::Thorough)?);
    }
    Ok(pieces)
}

/// The windows that are to become one, by level.
fn groups(windows: Vec<(Key, Header)>, now: SystemTime) -> Vec<(u32, Vec<(Key, Header)>)> {
    let now = nanos(now);
    let ended = |end_ns: u64, ago: Duration| end_ns <= now.saturating_sub(ago.as_nanos() as u64);
    let mut groups: BTreeMap<(u64, u32, u64), Vec<(Key, Header)>> = BTreeMap::new();
    for (key, header) in windows {
        let minute = nanos(header.range.from) / MINUTE_NS;
        let hour = nanos(header.range.from) / HOUR_NS;
        let done = nanos(header.range.to);
        if header.level < 2 && ended(((hour + 1) * HOUR_NS).max(done), COARSE) {
            groups.entry((header.segment, 2, hour)).or_default().push((key, header));
        } else if header.level < 1 && ended(((minute + 1) * MINUTE_NS).max(done), FINE) {
            groups.entry((header.segment, 1, minute)).or_default().push((key, header));
        }
    }
    let groups = groups.into_iter().map(|((_, level, _), windows)| (level, windows));
    // A single window is left alone until the hour is over: nothing would be won.
    groups.filter(|(level, windows)| *level > 1 || windows.len() > 1).collect()
}

fn size(header: &Header) -> u64 {
    cost(0) + header.parts.iter().map(|part| cost(part.bytes) + times_cost(part.times_bytes)).sum::<u64>()
}

fn times_cost(bytes: u64) -> u64 {
    if bytes > 0 { cost(bytes) } else { 0 }
}

fn remove_all(database: &Database, keys: &[Key]) -> Result<(), Failure> {
    let transaction = database.begin_write()?;
    for key in keys {
        write::remove(&transaction, *key)?;
    }
    transaction.commit()?;
    Ok(())
}

/// Removes a dictionary, unless a window has come to use it since the plan was made.
fn forget(writer: &mut Writer, database: &Database, segment: u64) -> Result<(), Failure> {
    let used = headers(&database.begin_read()?)?.iter().any(|(_, header)| header.segment == segment);
    if used || writer.writes(segment) {
        return Ok(());
    }
    let transaction = database.begin_write()?;
    write::forget(&transaction, segment)?;
    transaction.commit()?;
    Ok(())
}
