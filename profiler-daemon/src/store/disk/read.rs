//! Reading windows: what there is at one moment, merged one window at a time.

use std::collections::BTreeMap;

use redb::{Database, ReadTransaction, ReadableDatabase as _};

use super::tables::{Failure, Key, ROWS, dictionary, headers};
use super::{Disk, StoreError, open};
use crate::model::{NO_ROOM, ProfileKind, Selector, Stage, TimeRange};
use crate::store::codec::{Dictionary, Header, Table, read_rows};
use crate::store::merge::Merger;

/// Why records of a window that is there are not in an answer.
pub(super) const DAMAGED: &str = "stored window damaged";

/// The windows at one moment, whatever is written meanwhile.
pub(in crate::store) struct Snapshot {
    transaction: ReadTransaction,
    headers: Vec<(Key, Header)>,
    number: u64,
}

impl Snapshot {
    pub(super) fn take(database: &Database, number: u64) -> Result<Self, Failure> {
        let transaction = database.begin_read()?;
        let headers = headers(&transaction)?;
        Ok(Self { transaction, headers, number })
    }

    pub(super) fn windows(&self) -> &[(Key, Header)] {
        &self.headers
    }

    pub(super) fn transaction(&self) -> &ReadTransaction {
        &self.transaction
    }

    /// Of which database it is.
    pub(super) fn number(&self) -> u64 {
        self.number
    }

    /// The windows.
    pub(in crate::store) fn headers(&self) -> impl Iterator<Item = &Header> {
        self.headers.iter().map(|(_, header)| header)
    }

    /// Adds those rows of the wanted windows that a selector wants, and returns which time they
    /// are about.
    fn merge(
        &self,
        kind: ProfileKind,
        selector: &Selector,
        wanted: impl Fn(&Header) -> bool,
        merger: &mut Merger,
    ) -> Result<Vec<TimeRange>, Failure> {
        // A segment at a time: its dictionary is read once, and forgotten before the next.
        let mut segments: BTreeMap<u64, Vec<&(Key, Header)>> = BTreeMap::new();
        for window in self.headers.iter().filter(|(_, header)| wanted(header)) {
            segments.entry(window.1.segment).or_default().push(window);
        }
        let mut stretches = Vec::new();
        for (segment, windows) in segments {
            let parts = || windows.iter().flat_map(|(_, header)| &header.parts);
            stretches.extend(
                parts().filter(|part| part.kind == kind).flat_map(|part| part.stretches.iter().copied()),
            );
            let merged = dictionary(&self.transaction, segment).and_then(|dictionary| {
                let table = self.table(kind, selector, segment, &windows, &dictionary)?;
                merger.add(&dictionary, &table).map_err(Failure::from)
            });
            match merged {
                Ok(()) => {}
                // Values carry checksums, so it is known which windows are lost: these and no more.
                Err(Failure::Damaged(what)) => {
                    tracing::warn!(segment, what, "a part of the history cannot be read");
                    let records = parts().filter(|part| part.kind == kind).map(|part| part.records);
                    merger.lost(DAMAGED, records.fold(0, u64::saturating_add));
                }
                Err(other) => return Err(other),
            }
        }
        Ok(stretches)
    }

    fn table(
        &self,
        kind: ProfileKind,
        selector: &Selector,
        segment: u64,
        windows: &[&(Key, Header)],
        dictionary: &Dictionary,
    ) -> Result<Table, Failure> {
        let mut wanted = Vec::with_capacity(dictionary.labels_len());
        for id in 0..dictionary.labels_len() {
            wanted.push(selector.is_empty() || selector.matches(dictionary.labels(id as u32)?));
        }
        let mut table = Table::new(kind);
        for (key, header) in windows {
            add(&self.transaction, *key, header, segment, &mut table, |labels| {
                // One that does not exist is found when the rows meet the dictionary.
                wanted.get(labels as usize).copied().unwrap_or(true)
            })?;
        }
        Ok(table)
    }
}

/// Adds the rows of a window whose labels are wanted. A damaged value counts as lost.
pub(super) fn add(
    transaction: &ReadTransaction,
    key: Key,
    header: &Header,
    segment: u64,
    table: &mut Table,
    wanted: impl Fn(u32) -> bool,
) -> Result<(), Failure> {
    let rows = transaction.open_table(ROWS)?;
    for (place, part) in (0_u8..=u8::MAX).zip(&header.parts) {
        if part.kind != table.kind {
            continue;
        }
        let value = rows.get((key.1, place))?;
        let bytes = value.as_ref().map_or([].as_slice(), |value| value.value());
        // Into a table of its own first: a value that turns out damaged must leave nothing behind.
        let mut read = Vec::new();
        let known = read_rows(bytes, table.kind, segment, |row, value| {
            if wanted(row.labels) {
                read.push((row, value));
            }
            Ok(())
        });
        match known {
            Ok(beside) => {
                read.into_iter().for_each(|(row, value)| table.add(row, value));
                let here = |labels| wanted(labels).then_some(labels);
                let left_out = table.distributions.merge(&beside.distributions, here);
                table.loss.add(Stage::Pipeline, NO_ROOM, left_out);
                table.quality.merge(&beside.quality_by_labels.wanted(&beside.quality, &wanted));
                table.quality_by_labels.merge(&beside.quality_by_labels, here);
                table.loss.merge(&beside.loss);
            }
            Err(damaged) => {
                tracing::warn!(%damaged, "a window cannot be read");
                table.loss.add(Stage::Store, DAMAGED, part.records);
            }
        }
    }
    Ok(())
}

impl Disk {
    /// Merges windows of a snapshot, see [`Snapshot::merge`].
    pub(in crate::store) fn merge(
        &self,
        snapshot: &Snapshot,
        kind: ProfileKind,
        selector: &Selector,
        wanted: impl Fn(&Header) -> bool,
        merger: &mut Merger,
    ) -> Result<Vec<TimeRange>, StoreError> {
        open::guarded(|| snapshot.merge(kind, selector, wanted, merger))
            .map_err(|failure| self.failed(failure, snapshot.number))
    }
}
