//! The results of captures on disk.

use std::cmp::Reverse;

use redb::{Database, ReadableDatabase as _, ReadableTable as _};

use super::tables::{CAPTURES, Failure, RESULTS, cost};
use super::{Disk, StoreError, StoreOptions};
use crate::model::Profile;
use crate::store::codec::{bundle, read_bundle, read_capture, write_capture};
use crate::store::{CaptureResult, StoredCapture};

impl Disk {
    /// Keeps the result of a capture; older ones go as the options say.
    pub(in crate::store) fn put_capture(&self, result: &CaptureResult) -> Result<(), StoreError> {
        self.write(|_, database| put(database, result, &self.options))
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
    let (capture, profile) = (write_capture(result)?, bundle(&result.profile)?);
    let mut stored = list(database)?;
    let transaction = database.begin_write()?;
    {
        let mut captures = transaction.open_table(CAPTURES)?;
        let mut results = transaction.open_table(RESULTS)?;
        captures.insert(result.id.as_str(), capture.as_slice())?;
        results.insert(result.id.as_str(), profile.as_slice())?;
        let mut bytes = cost(profile.len() as u64);
        let mut count = 1;
        stored.retain(|capture| capture.id != result.id);
        stored.sort_by_key(|capture| Reverse(capture.range.from));
        for old in stored {
            let size = results.get(old.id.as_str())?.map_or(0, |value| value.value().len() as u64);
            bytes += cost(size);
            count += 1;
            if count > options.max_captures || bytes > options.max_capture_bytes {
                captures.remove(old.id.as_str())?;
                results.remove(old.id.as_str())?;
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
    let Some(profile) = transaction.open_table(RESULTS)?.get(id)? else { return Ok(None) };
    // A value has its own checksum: one that is damaged says nothing about the others.
    match (read_capture(capture.value()), read_bundle(profile.value())) {
        (Ok(capture), Ok(profile)) => Ok(Some((capture, profile))),
        (Err(damaged), _) | (_, Err(damaged)) => {
            tracing::warn!(%damaged, id, "a stored capture cannot be read");
            Ok(None)
        }
    }
}
