//! The bytes of a cached table: a header, the table, what it was made from, and a digest over all.

use profiler_common::unwind::{MAX_ROWS_PER_PAGE, MAX_RULES, Rule, bp, cfa, row_rule};
use sha2::{Digest, Sha256};

use super::Key;
use crate::unwind::evidence::{Evidence, Place};
use crate::unwind::report::Report;
use crate::unwind::table::{PAGE_BYTES, PageRows, Table};

/// Starts every file.
const MAGIC: [u8; 8] = *b"unwindtb";
/// Names the sources of layout and builder: what others made of the same file may be another table.
/// Fuzz targets, which keep no tables, are built without it.
const BUILDER: &str = match option_env!("TABLE_BUILDER") {
    Some(hash) => hash,
    None => "",
};
/// Bytes of the digest at the end.
const DIGEST: usize = 32;

/// Most bytes of a file that is looked at: more than the largest table that can be built.
pub(super) const MAX_BYTES: u64 = 64 << 20;

/// The bytes of a table.
pub(super) fn encode(key: &Key, table: &Table, evidence: &Evidence) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(table.memory_bytes() + 24 * evidence.places.len() + 512);
    bytes.extend(MAGIC);
    bytes.extend(BUILDER.as_bytes());
    let places = evidence.places.len();
    let counts = [table.pages.len(), table.rows.len(), table.rules.len(), places, key.build_id.len()];
    let head = [table.base, key.size].into_iter().chain(counts.map(|count| count as u64));
    for number in head.chain(table.report.to_array()) {
        bytes.extend(number.to_le_bytes());
    }
    bytes.extend(key.build_id.as_bytes());
    for page in &table.pages {
        bytes.extend(page.first_row.to_le_bytes());
        bytes.extend(page.rows.to_le_bytes());
    }
    for row in &table.rows {
        bytes.extend(row.to_le_bytes());
    }
    for rule in &table.rules {
        bytes.extend(rule.pack().to_le_bytes());
    }
    for place in &evidence.places {
        for number in [place.offset, place.size, u64::from(place.there)] {
            bytes.extend(number.to_le_bytes());
        }
    }
    bytes.extend(evidence.digest);
    let digest = Sha256::digest(&bytes);
    bytes.extend(digest);
    bytes
}

/// The table and what it was made from, if the bytes are whole, of this builder, of this key, and
/// sound.
pub(super) fn decode(key: &Key, bytes: &[u8]) -> Option<(Table, Evidence)> {
    let (bytes, digest) = bytes.split_at_checked(bytes.len().checked_sub(DIGEST)?)?;
    let mut rest = Reader(bytes.strip_prefix(&MAGIC)?.strip_prefix(BUILDER.as_bytes())?);
    if *Sha256::digest(bytes) != *digest {
        return None;
    }
    let (base, size) = (rest.number()?, rest.number()?);
    let [pages, rows, rules] = [rest.count()?, rest.count()?, rest.count()?];
    let [places, id] = [rest.count()?, rest.count()?];
    let mut report = [0; Report::FIELDS];
    for field in &mut report {
        *field = rest.number()?;
    }
    if size != key.size || rest.take(id)? != key.build_id.as_bytes() {
        return None;
    }
    let pages = rest.array::<4>(pages.checked_mul(2)?)?;
    let rows = rest.array::<4>(rows)?;
    let rules = rest.array::<8>(rules)?;
    let places = rest.array::<8>(places.checked_mul(3)?)?;
    let digest = *rest.take(DIGEST)?.first_chunk()?;
    if !rest.0.is_empty() {
        return None;
    }
    let (pages, _) = pages.as_chunks::<2>();
    let table = Table {
        base,
        pages: pages
            .iter()
            .map(|&[first, rows]| PageRows {
                first_row: u32::from_le_bytes(first),
                rows: u32::from_le_bytes(rows),
            })
            .collect(),
        rows: rows.iter().map(|&bytes| u32::from_le_bytes(bytes)).collect(),
        rules: rules.iter().map(|&bytes| Rule::unpack(u64::from_le_bytes(bytes))).collect(),
        report: Report::from_array(report),
    };
    let (places, _) = places.as_chunks::<3>();
    let places = places.iter().map(|place| place.map(u64::from_le_bytes));
    let places = places.map(|[offset, size, there]| Place { offset, size, there: there != 0 }).collect();
    is_sound(&table).then_some((table, Evidence { places, digest }))
}

/// Whether the kernel half can walk it: the digest proves that we wrote it, not that we were right.
fn is_sound(table: &Table) -> bool {
    let rules = table.rules.len();
    let pages = table.pages.iter().all(|page| {
        let end = page.first_row as usize + page.rows as usize;
        page.rows <= MAX_ROWS_PER_PAGE && end <= table.rows.len()
    });
    table.base.is_multiple_of(PAGE_BYTES)
        && pages
        && table.rows.iter().all(|&row| usize::from(row_rule(row)) < rules)
        && rules <= MAX_RULES as usize
        && table.rules.first() == Some(&Rule::NONE)
        && table.rules.iter().all(|rule| {
            let known = matches!(rule.cfa, cfa::NONE..=cfa::DEREF_BP | cfa::REGISTER..=cfa::LAST_INDEXED);
            known && rule.bp <= bp::LOST
        })
}

/// What has not been read yet.
struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn take(&mut self, count: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(count)?;
        self.0 = rest;
        Some(taken)
    }

    fn number(&mut self) -> Option<u64> {
        self.take(8)?.first_chunk().map(|bytes| u64::from_le_bytes(*bytes))
    }

    fn count(&mut self) -> Option<usize> {
        usize::try_from(self.number()?).ok()
    }

    fn array<const N: usize>(&mut self, count: usize) -> Option<&'a [[u8; N]]> {
        Some(self.take(count.checked_mul(N)?)?.as_chunks::<N>().0)
    }
}
