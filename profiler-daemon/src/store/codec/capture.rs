//! The results of captures: what is known of one, and its profile with a dictionary of its own.

use std::time::Duration;

use super::{
    Damaged, Dictionary, Effort, Interner, Table, Unwritable, format, nanos, pack, quality, rows, time,
    unpack,
};
use crate::model::{Allowance, Pid, Profile, TimeRange};
use crate::store::merge::Merger;
use crate::store::{CaptureAbout, CaptureResult, StoredCapture, Summary};

/// The segment that a profile's own dictionary is called by.
const OWN: u64 = 0;
/// Most rows of one value: at most 64 bytes each, so that no value comes near its limit.
const MAX_ROWS: usize = 100_000;

pub(in crate::store) fn write_capture(result: &CaptureResult) -> Result<Vec<u8>, Unwritable> {
    let CaptureResult { id, range, profile: _, summary, about } = result;
    let Summary { kind, total, total_error, records, range: _, covered, frequency_hz, loss, quality } =
        summary;
    let CaptureAbout { pids, cgroup, duration, min_block, wakers, allowance, reason, cause, labels } = about;
    let Allowance { events_per_second, bytes, millicpus } = *allowance;
    let message = format::Capture {
        id: id.clone(),
        from: nanos(range.from),
        to: nanos(range.to),
        kind: rows::kind_number(*kind),
        pids: pids.iter().map(|pid| pid.0).collect(),
        cgroup: cgroup.clone().unwrap_or_default(),
        duration_ns: length(*duration),
        min_block_ns: length(*min_block),
        reason: reason.clone(),
        total: *total,
        total_error: *total_error,
        records: *records,
        covered_ns: length(*covered),
        frequency_hz: *frequency_hz,
        quality: Some(quality::write(quality)),
        loss: rows::write_loss(loss),
        cause: cause.clone(),
        wakers: *wakers,
        limit_events_per_second: events_per_second,
        limit_bytes: bytes,
        limit_millicpus: millicpus,
        labels: labels.iter().flat_map(|(name, value)| [name.clone(), value.clone()]).collect(),
    };
    pack(&message, Effort::Quick)
}

pub(in crate::store) fn read_capture(bytes: &[u8]) -> Result<StoredCapture, Damaged> {
    let message: format::Capture = unpack(bytes)?;
    let range = TimeRange { from: time(message.from), to: time(message.to) };
    Ok(StoredCapture {
        id: message.id,
        range,
        summary: Summary {
            kind: rows::kind_of(message.kind)?,
            total: message.total,
            total_error: if message.total_error.is_finite() { message.total_error } else { 0.0 },
            records: message.records,
            range,
            covered: Duration::from_nanos(message.covered_ns),
            frequency_hz: if message.frequency_hz.is_finite() { message.frequency_hz } else { 0.0 },
            loss: rows::read_loss(&message.loss)?,
            quality: quality::read(message.quality)?,
        },
        about: CaptureAbout {
            pids: message.pids.into_iter().map(Pid).collect(),
            cgroup: (!message.cgroup.is_empty()).then_some(message.cgroup),
            duration: Duration::from_nanos(message.duration_ns),
            min_block: Duration::from_nanos(message.min_block_ns),
            wakers: message.wakers,
            allowance: Allowance {
                events_per_second: message.limit_events_per_second,
                bytes: message.limit_bytes,
                millicpus: message.limit_millicpus,
            },
            reason: message.reason,
            cause: message.cause,
            labels: message
                .labels
                .as_chunks::<2>()
                .0
                .iter()
                .map(|[name, value]| (name.clone(), value.clone()))
                .collect(),
        },
    })
}

/// A profile with its own dictionary, as values of bounded size, at least one: pieces of the
/// dictionary, then pieces of the rows.
pub(in crate::store) fn bundle(profile: &Profile) -> Result<Vec<Vec<u8>>, Unwritable> {
    let mut interner = Interner::default();
    let table = interner.table(profile);
    let mut values = Vec::new();
    for piece in interner.take_pieces() {
        let message = format::Bundle { dictionary: vec![piece], rows: None };
        values.push(pack(&message, Effort::Thorough)?);
    }
    drop(interner);
    let rows = table.sorted();
    let mut chunks = rows.chunks(MAX_ROWS);
    // The first also says what is known of the stacks and of what was lost, once.
    let first = table.message(OWN, chunks.next().unwrap_or_default());
    values.push(pack(&format::Bundle { dictionary: Vec::new(), rows: Some(first) }, Effort::Thorough)?);
    let bare = Table::new(table.kind);
    for chunk in chunks {
        let rows = bare.message(OWN, chunk);
        values.push(pack(&format::Bundle { dictionary: Vec::new(), rows: Some(rows) }, Effort::Thorough)?);
    }
    Ok(values)
}

/// Reads the values of a [`bundle`], one after the other.
#[derive(Debug, Default)]
pub(in crate::store) struct Bundle {
    dictionary: Dictionary,
    table: Option<Table>,
}

impl Bundle {
    /// Adds the next value. After an error the bundle must not be used.
    pub(in crate::store) fn append(&mut self, bytes: &[u8]) -> Result<(), Damaged> {
        let message: format::Bundle = unpack(bytes)?;
        for piece in message.dictionary {
            self.dictionary.append_message(piece)?;
        }
        let Some(rows) = message.rows else { return Ok(()) };
        let kind = rows::kind_of(rows.kind)?;
        let is_first = self.table.is_none();
        let table = self.table.get_or_insert_with(|| Table::new(kind));
        if table.kind != kind {
            return Err(Damaged::new("a profile is of two kinds"));
        }
        let rows::Beside { distributions, quality, quality_by_labels, loss } =
            rows::read_message(rows, |row, value| {
                table.add(row, value);
                Ok(())
            })?;
        if is_first {
            (table.distributions, table.loss) = (distributions, loss);
            (table.quality, table.quality_by_labels) = (quality, quality_by_labels);
        }
        rows::check_total(table.rows.values())
    }

    /// The profile, once all values were added.
    pub(in crate::store) fn finish(self) -> Result<Profile, Damaged> {
        let table = self.table.ok_or_else(|| Damaged::new("a profile has no rows"))?;
        let mut merger = Merger::new(table.kind);
        merger.add(&self.dictionary, &table)?;
        Ok(merger.finish())
    }
}

fn length(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}
