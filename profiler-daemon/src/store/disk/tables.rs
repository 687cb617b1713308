//! The tables of the database, and what its errors mean.

use std::io;

use redb::{ReadTransaction, ReadableTable as _, TableDefinition, WriteTransaction};

use crate::store::codec::{Damaged, Dictionary, Header, Unwritable};

/// Version of everything below and of `window.proto`.
pub(super) const FORMAT: u64 = 1;
pub(super) const FORMAT_KEY: &str = "format";

pub(super) const META: TableDefinition<'static, &str, u64> = TableDefinition::new("meta");
/// A window's start in ns since 1970 and its number -> `Window`.
pub(super) const WINDOWS: TableDefinition<'static, Key, &[u8]> = TableDefinition::new("windows");
/// A window's number and the place of the kind in its header -> `Rows`.
pub(super) const ROWS: TableDefinition<'static, (u64, u8), &[u8]> = TableDefinition::new("rows");
/// A segment and the number of the piece -> `Dictionary`.
pub(super) const DICTIONARY: TableDefinition<'static, (u64, u32), &[u8]> = TableDefinition::new("dictionary");
/// A segment -> its number of pieces, and their size on disk.
pub(super) const SEGMENTS: TableDefinition<'static, u64, (u32, u64)> = TableDefinition::new("segments");
/// A capture's id -> `Capture`.
pub(super) const CAPTURES: TableDefinition<'static, &str, &[u8]> = TableDefinition::new("captures");
/// A capture's id, and further names made from it, -> `Bundle`, which is a piece of the result.
pub(super) const RESULTS: TableDefinition<'static, &str, &[u8]> = TableDefinition::new("results");

/// Start and number of a window.
pub(super) type Key = (u64, u64);

/// What went wrong below.
#[derive(Debug)]
pub(super) enum Failure {
    /// The database does not hold what was written.
    Damaged(String),
    /// What is to be written cannot become a value; the database is as good as before.
    Unwritable(String),
    /// Another process has it open.
    InUse,
    /// Its format is a newer one.
    Newer(u64),
    /// Its format is an older one, which nobody reads any more.
    Older(u64),
    /// Reading or writing failed.
    Io(io::Error),
}

impl From<Damaged> for Failure {
    fn from(error: Damaged) -> Self {
        Self::Damaged(error.0)
    }
}

impl From<Unwritable> for Failure {
    fn from(error: Unwritable) -> Self {
        Self::Unwritable(error.0)
    }
}

impl From<redb::Error> for Failure {
    fn from(error: redb::Error) -> Self {
        match error {
            redb::Error::DatabaseAlreadyOpen => Self::InUse,
            redb::Error::UpgradeRequired(version) => Self::Older(u64::from(version)),
            // A file that is no database, or that ends early, is as good as a damaged one.
            redb::Error::Io(error)
                if matches!(error.kind(), io::ErrorKind::InvalidData | io::ErrorKind::UnexpectedEof) =>
            {
                Self::Damaged(error.to_string())
            }
            redb::Error::Io(error) => Self::Io(error),
            redb::Error::PreviousIo | redb::Error::DatabaseClosed => Self::Io(io::Error::other(error)),
            other => Self::Damaged(other.to_string()),
        }
    }
}

macro_rules! failures {
    ($($error:ty),*) => {
        $(impl From<$error> for Failure {
            fn from(error: $error) -> Self {
                redb::Error::from(error).into()
            }
        })*
    };
}
failures!(
    redb::StorageError,
    redb::TableError,
    redb::TransactionError,
    redb::CommitError,
    redb::DatabaseError
);

/// Makes every table, so that readers find them.
pub(super) fn create(transaction: &WriteTransaction) -> Result<(), Failure> {
    transaction.open_table(META)?;
    transaction.open_table(WINDOWS)?;
    transaction.open_table(ROWS)?;
    transaction.open_table(DICTIONARY)?;
    transaction.open_table(SEGMENTS)?;
    transaction.open_table(CAPTURES)?;
    transaction.open_table(RESULTS)?;
    Ok(())
}

/// All windows, in the order of their start.
pub(super) fn headers(transaction: &ReadTransaction) -> Result<Vec<(Key, Header)>, Failure> {
    let windows = transaction.open_table(WINDOWS)?;
    let mut headers = Vec::new();
    for entry in windows.iter()? {
        let (key, value) = entry?;
        headers.push((key.value(), Header::decode(value.value())?));
    }
    Ok(headers)
}

/// A segment's dictionary.
pub(super) fn dictionary(transaction: &ReadTransaction, segment: u64) -> Result<Dictionary, Failure> {
    let mut dictionary = Dictionary::default();
    for piece in transaction.open_table(DICTIONARY)?.range((segment, 0)..=(segment, u32::MAX))? {
        dictionary.append(piece?.1.value())?;
    }
    Ok(dictionary)
}

/// About what a value takes on disk. redb gives a value of more than half a page pages of its own,
/// a power of two of them; smaller ones share pages that are two thirds full.
pub(super) fn cost(bytes: u64) -> u64 {
    const PAGE: u64 = 4096;
    if bytes > PAGE / 2 { (bytes + 64).next_power_of_two().max(PAGE) } else { (bytes + 64) * 3 / 2 }
}
