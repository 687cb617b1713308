//! The results of captures on disk.

use std::cmp::Reverse;

use redb::{Database, ReadableDatabase as _, ReadableTable, Table};

use super::tables::{CAPTURES, Failure, RESULTS, cost};
use super::{Disk, StoreError, StoreOptions};
use crate::model::Profile;
use crate::store::codec::{Bundle, Damaged, bundle, read_capture, write_capture};
use crate::store::{CaptureResult, StoredCapture};

impl Disk {
    /// Keeps the result of a capture; older ones go as the options say. One that no database could
    /// take is counted as lost.
    pub(in crate::store) fn put_capture(&self, result: &CaptureResult) -> Result<(), StoreError> {
        let written = self.write(|_, database| put(database, result, &self.options));
        if let Err(StoreError::Unwritable { .. }) = written {
            self.lost([(result.profile.kind(), result.summary.records)]);
        }
        written
    }

    /// The captures whose results are stored, oldest first.
    pub(in crate::store) fn captures(&self) -> Result<Vec<StoredCapture>, StoreError> {
        self.read(list)
    }

    /// The result of a capture.
    pub(in crate::store) fn capture(&self, id: &str) -> Result<Option<(StoredCapture, Profile)>, StoreError> {
        self.read(|database| get(database, id))
    }
}

fn put(database: &Database, result: &CaptureResult, options: &StoreOptions) -> Result<(), Failure> {
    let (capture, values) = (write_capture(result)?, bundle(&result.profile)?);
    let mut stored = list(database)?;
    let transaction = database.begin_write()?;
    {
        let mut captures = transaction.open_table(CAPTURES)?;
        let mut results = transaction.open_table(RESULTS)?;
        captures.insert(result.id.as_str(), capture.as_slice())?;
        remove(&mut results, &result.id)?;
        let mut bytes = 0;
        for (number, value) in values.iter().enumerate() {
            results.insert(key(&result.id, number).as_str(), value.as_slice())?;
            bytes += cost(value.len() as u64);
        }
        let mut count = 1;
        stored.retain(|capture| capture.id != result.id);
        stored.sort_by_key(|capture| Reverse(capture.range.from));
        for old in stored {
            bytes += values_of(&results, &old.id, |value| Ok(cost(value.len() as u64)))?.iter().sum::<u64>();
            count += 1;
            if count > options.max_captures || bytes > options.max_capture_bytes {
                captures.remove(old.id.as_str())?;
                remove(&mut results, &old.id)?;
            }
        }
    }
    transaction.commit()?;
    Ok(())
}

fn list(database: &Database) -> Result<Vec<StoredCapture>, Failure> {
    let mut stored = Vec::new();
    for entry in database.begin_read()?.open_table(CAPTURES)?.iter()? {
        match read_capture(entry?.1.value()) {
            Ok(capture) => stored.push(capture),
            Err(damaged) => tracing::warn!(%damaged, "a stored capture cannot be read"),
        }
    }
    stored.sort_by_key(|capture| capture.range.from);
    Ok(stored)
}

fn get(database: &Database, id: &str) -> Result<Option<(StoredCapture, Profile)>, Failure> {
    let transaction = database.begin_read()?;
    let Some(capture) = transaction.open_table(CAPTURES)?.get(id)? else { return Ok(None) };
    let mut bundle = Bundle::default();
    let mut appended: Result<(), Damaged> = Ok(());
    let values = values_of(&transaction.open_table(RESULTS)?, id, |value| {
        if appended.is_ok() {
            appended = bundle.append(value);
        }
        Ok(())
    })?;
    if values.is_empty() {
        return Ok(None);
    }
    // A value has its own checksum: one that is damaged says nothing about the others.
    match (read_capture(capture.value()), appended.and_then(|()| bundle.finish())) {
        (Ok(capture), Ok(profile)) => Ok(Some((capture, profile))),
        (Err(damaged), _) | (_, Err(damaged)) => {
            tracing::warn!(%damaged, id, "a stored capture cannot be read");
            Ok(None)
        }
    }
}

/// Where the values of a result are: the first under the capture's id, which has no slash.
fn key(id: &str, number: usize) -> String {
    if number == 0 { id.to_owned() } else { format!("{id}/{number:08}") }
}

/// The values of a result, in their order.
fn values_of<T>(
    results: &impl ReadableTable<&'static str, &'static [u8]>,
    id: &str,
    mut each: impl FnMut(&[u8]) -> Result<T, Failure>,
) -> Result<Vec<T>, Failure> {
    let mut all = Vec::new();
    for number in 0.. {
        let Some(value) = results.get(key(id, number).as_str())? else { break };
        all.push(each(value.value())?);
    }
    Ok(all)
}

fn remove(results: &mut Table<'_, &'static str, &'static [u8]>, id: &str) -> Result<(), Failure> {
    for number in 0.. {
        if results.remove(key(id, number).as_str())?.is_none() {
            break;
        }
    }
    Ok(())
}
