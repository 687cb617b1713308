//! Reading windows to the millisecond: rows with when their values came.

use std::collections::BTreeMap;

use redb::ReadTransaction;

use super::read::{DAMAGED, Snapshot};
use super::tables::{Failure, Key, ROWS, dictionary};
use super::{Disk, StoreError, open};
use crate::model::{Loss, ProfileKind, Selector, Span, Stage, TimeRange, Value};
use crate::store::codec::{
    Beside, Damaged, Dictionary, Header, Row, StoredTimes, Table, read_rows, read_times,
};
use crate::store::fine::{NO_TIME, Shares, within};
use crate::store::heat::Heat;
use crate::store::merge::Merger;

/// Where a window's times are, beside the place of its rows.
pub(super) const TIMES: u8 = 0x80;

/// A window's rows with their times.
struct Timed {
    range: TimeRange,
    rows: Vec<(Row, Value)>,
    beside: Beside,
    times: StoredTimes,
}

impl Timed {
    fn read(
        transaction: &ReadTransaction,
        (number, header): (u64, &Header),
        place: u8,
        kind: ProfileKind,
    ) -> Result<Self, Failure> {
        let (range, segment) = (header.range, header.segment);
        let table = transaction.open_table(ROWS)?;
        let value = table.get((number, place))?;
        let mut rows = Vec::new();
        let bytes = value.as_ref().map_or([].as_slice(), |value| value.value());
        let beside = read_rows(bytes, kind, segment, |row, value| {
            rows.push((row, value));
            Ok(())
        })?;
        let value = table.get((number, place | TIMES))?;
        let bytes = value.as_ref().map_or([].as_slice(), |value| value.value());
        let times = read_times(bytes, kind, segment, rows.len())?;
        Ok(Self { range, rows, beside, times })
    }

    fn rows(&self) -> impl Iterator<Item = (Row, Value, &[Span])> {
        self.rows.iter().zip(self.times.rows()).map(|(&(row, value), spans)| (row, value, spans))
    }
}

impl Snapshot {
    /// Hands the windows that are wanted to `each`, segment by segment; what is damaged is counted.
    fn timed(
        &self,
        kind: ProfileKind,
        wanted: impl Fn(&Header) -> bool,
        loss: &mut Loss,
        mut each: impl FnMut(&Dictionary, &mut dyn Iterator<Item = Timed>) -> Result<(), Damaged>,
    ) -> Result<(), Failure> {
        let mut segments: BTreeMap<u64, Vec<&(Key, Header)>> = BTreeMap::new();
        for window in self.windows().iter().filter(|(_, header)| header.has_times(kind) && wanted(header)) {
            segments.entry(window.1.segment).or_default().push(window);
        }
        for (segment, windows) in segments {
            let parts = || {
                windows.iter().flat_map(|((_, number), header)| {
                    let places = (0_u8..TIMES).zip(&header.parts);
                    let window = (*number, header);
                    places
                        .filter(|(_, part)| part.kind == kind)
                        .map(move |(place, part)| (window, place, part))
                })
            };
            let mut lost = 0_u64;
            let mut failed = None;
            let read = dictionary(self.transaction(), segment).and_then(|dictionary| {
                let mut windows = parts().filter_map(|(window, place, part)| {
                    match Timed::read(self.transaction(), window, place, kind) {
                        Ok(timed) => Some(timed),
                        Err(Failure::Damaged(what)) => {
                            tracing::warn!(what, "a window cannot be read");
                            lost = lost.saturating_add(part.records);
                            None
                        }
                        Err(other) => {
                            failed = Some(other);
                            None
                        }
                    }
                });
                Ok(each(&dictionary, &mut windows)?)
            });
            match read {
                Ok(()) => {}
                Err(Failure::Damaged(what)) => {
                    tracing::warn!(segment, what, "a part of the history cannot be read");
                    lost = parts().map(|(.., part)| part.records).fold(0, u64::saturating_add);
                }
                Err(other) => return Err(other),
            }
            if let Some(failed) = failed {
                return Err(failed);
            }
            loss.add(Stage::Store, DAMAGED, lost);
        }
        Ok(())
    }

    fn merge_within(
        &self,
        kind: ProfileKind,
        selector: &Selector,
        range: TimeRange,
        wanted: impl Fn(&Header) -> bool,
        merger: &mut Merger,
    ) -> Result<(), Failure> {
        let mut loss = Loss::default();
        self.timed(kind, wanted, &mut loss, |dictionary, windows| {
            let labels = wanted_labels(dictionary, selector)?;
            let wanted = |id: u32| labels.get(id as usize).copied().unwrap_or(true);
            let mut table = Table::new(kind);
            for timed in windows {
                let mut shares = Shares::default();
                for (row, value, spans) in timed.rows() {
                    if !wanted(row.labels) {
                        continue;
                    }
                    let worth = within(kind, value, spans, timed.times.origin, range);
                    shares.add(row.labels, value.ns, worth);
                    if let Some(worth) = worth {
                        table.add(row, worth);
                    }
                }
                for (labels, us2) in shares.variances(&timed.beside.distributions) {
                    table.distributions.add_variance(labels, us2);
                }
                if timed.range.overlaps(&range) {
                    let known = &timed.beside.quality_by_labels;
                    table.quality.merge(&known.wanted(&timed.beside.quality, wanted));
                    table.quality_by_labels.merge(known, |id| wanted(id).then_some(id));
                    table.loss.merge(&timed.beside.loss);
                }
                table.loss.add(Stage::Store, NO_TIME, timed.times.left_out);
            }
            merger.add(dictionary, &table)
        })?;
        loss.iter().for_each(|line| merger.lost(line.reason, line.count));
        Ok(())
    }

    fn heat(
        &self,
        selector: &Selector,
        wanted: impl Fn(&Header) -> bool,
        heat: &mut Heat,
    ) -> Result<(), Failure> {
        let mut loss = Loss::default();
        self.timed(heat.kind, wanted, &mut loss, |dictionary, windows| {
            let labels = wanted_labels(dictionary, selector)?;
            let wanted = |id: u32| labels.get(id as usize).copied().unwrap_or(true);
            for timed in windows {
                let (mut whole, mut part) = (0_u64, 0.0);
                for (_, value, spans) in timed.rows().filter(|(row, ..)| wanted(row.labels)) {
                    whole = whole.saturating_add(value.ns);
                    part += heat.add(timed.times.origin, spans);
                }
                let variances = timed.beside.distributions.variances().filter(|(id, _)| wanted(*id));
                let us2 = variances.fold(0_u64, |sum, (_, us2)| sum.saturating_add(us2));
                heat.add_variance(us2, part / whole.max(1) as f64);
                if timed.range.overlaps(&heat.range) {
                    let known = &timed.beside.quality_by_labels;
                    heat.quality.merge(&known.wanted(&timed.beside.quality, wanted));
                    heat.loss.merge(&timed.beside.loss);
                }
                heat.loss.add(Stage::Store, NO_TIME, timed.times.left_out);
            }
            Ok(())
        })?;
        heat.loss.merge(&loss);
        Ok(())
    }
}

fn wanted_labels(dictionary: &Dictionary, selector: &Selector) -> Result<Vec<bool>, Damaged> {
    let wanted = |id| Ok(selector.is_empty() || selector.matches(dictionary.labels(id as u32)?));
    (0..dictionary.labels_len()).map(wanted).collect()
}

impl Disk {
    /// Adds what rows of the wanted windows hold within a range.
    pub(in crate::store) fn merge_within(
        &self,
        snapshot: &Snapshot,
        kind: ProfileKind,
        selector: &Selector,
        range: TimeRange,
        wanted: impl Fn(&Header) -> bool,
        merger: &mut Merger,
    ) -> Result<(), StoreError> {
        open::guarded(|| snapshot.merge_within(kind, selector, range, wanted, merger))
            .map_err(|failure| self.failed(failure, snapshot.number()))
    }

    /// Adds the wanted windows to a heat map.
    pub(in crate::store) fn heat(
        &self,
        snapshot: &Snapshot,
        selector: &Selector,
        wanted: impl Fn(&Header) -> bool,
        heat: &mut Heat,
    ) -> Result<(), StoreError> {
        open::guarded(|| snapshot.heat(selector, wanted, heat))
            .map_err(|failure| self.failed(failure, snapshot.number()))
    }
}
