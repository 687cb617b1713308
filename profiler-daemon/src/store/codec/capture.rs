//! The results of captures: what is known of one, and its profile with a dictionary of its own.

use std::sync::Arc;
use std::time::Duration;

use super::{Damaged, Dictionary, Effort, Interner, format, nanos, pack, rows, time, unpack};
use crate::model::{Allowance, Pid, Profile, TimeRange};
use crate::store::merge::Merger;
use crate::store::{CaptureAbout, CaptureResult, StoredCapture, Summary};

/// The segment that a profile's own dictionary is called by.
const OWN: u64 = 0;

pub(in crate::store) fn write_capture(result: &CaptureResult) -> Result<Vec<u8>, Damaged> {
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
        quality: Some(rows::write_quality(quality)),
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
            quality: rows::read_quality(message.quality)?,
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

/// A profile with its own dictionary, as a value.
pub(in crate::store) fn bundle(profile: &Profile) -> Result<Vec<u8>, Damaged> {
    let mut interner = Interner::default();
    let table = interner.table(profile);
    let message = format::Bundle { dictionary: interner.take_pieces(), rows: Some(table.message(OWN)) };
    pack(&message, Effort::Thorough)
}

pub(in crate::store) fn read_bundle(bytes: &[u8]) -> Result<Profile, Damaged> {
    let message: format::Bundle = unpack(bytes)?;
    let mut dictionary = Dictionary::default();
    for piece in message.dictionary {
        dictionary.append_message(piece)?;
    }
    let rows = message.rows.ok_or_else(|| Damaged::new("a profile has no rows"))?;
    let mut merger = Merger::new(rows::kind_of(rows.kind)?);
    let mut table = super::Table::new(rows::kind_of(rows.kind)?);
    let rows::Beside { distributions, quality, loss } = rows::read_message(rows, |row, value| {
        table.rows.insert(row, value);
        Ok(())
    })?;
    (table.distributions, table.quality, table.loss) = (distributions, quality, loss);
    merger.add(&Arc::new(dictionary), &table)?;
    Ok(merger.finish())
}

fn length(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}
