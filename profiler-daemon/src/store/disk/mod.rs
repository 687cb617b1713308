//! Windows and the results of captures in a database file.

mod captures;
mod compact;
mod fine;
mod open;
mod read;
mod tables;
mod write;

#[cfg(test)]
mod tests;

use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};
use std::time::SystemTime;

use redb::{Database, ReadableDatabase as _};

pub(super) use self::read::Snapshot;
use self::tables::{Failure, headers};
use self::write::Writer;
use super::windows::count_lost;
use super::{StoreError, StoreOptions};
use crate::model::{Finding, KindLoss, ProfileKind, Window};

/// Room that must be left on the file system for anything to be written: below it, a write could
/// fail half-way and leave a database that has no room for its own repair.
const RESERVE: u64 = 8 << 20;
/// Why records of a window or a capture are not in the history.
const UNWRITABLE: &str = "too large to store";
/// Most findings that are kept.
const MAX_FINDINGS: usize = 8;

/// The database. Reading never waits for writing; writers wait for each other, shortly.
#[derive(Debug)]
pub(super) struct Disk {
    directory: PathBuf,
    options: StoreOptions,
    /// `None` after a failure, until it could be opened again.
    database: RwLock<Option<Handle>>,
    writer: Mutex<Writer>,
    state: Mutex<State>,
    opened: AtomicU64,
}

/// The open database, and the how manieth it is: what fails late must not be held against its
/// successor.
#[derive(Clone, Debug)]
struct Handle {
    number: u64,
    database: Arc<Database>,
}

/// What is known without reading the database.
#[derive(Clone, Debug, Default)]
pub(super) struct State {
    pub(super) windows: u64,
    pub(super) oldest: Option<SystemTime>,
    pub(super) newest: Option<SystemTime>,
    /// Bytes that the file takes.
    pub(super) bytes: u64,
    /// Windows that had to go early, or could not be written at all.
    pub(super) loss: KindLoss,
    /// Why nothing can be written, or even read, now.
    pub(super) problem: Option<String>,
    pub(super) findings: Vec<Finding>,
}

impl Disk {
    /// Opens the history in this directory, or begins one. With no room at all it opens later.
    pub(super) fn open(directory: &Path, options: StoreOptions) -> Result<Self, StoreError> {
        open::directory(directory)?;
        let disk = Self {
            directory: directory.to_owned(),
            options,
            database: RwLock::new(None),
            writer: Mutex::default(),
            state: Mutex::default(),
            opened: AtomicU64::new(0),
        };
        match disk.reopen() {
            Ok(()) => {}
            Err(error @ (StoreError::Io { .. } | StoreError::Full { .. })) => disk.report(&error),
            Err(error) => return Err(error),
        }
        Ok(disk)
    }

    /// Whether the database is open.
    pub(super) fn is_open(&self) -> bool {
        self.database.read().unwrap_or_else(PoisonError::into_inner).is_some()
    }

    /// Opens the database, which nothing must have open any more.
    pub(super) fn reopen(&self) -> Result<(), StoreError> {
        // Opening may repair, which writes.
        self.room(0)?;
        let (database, finding) = open::open(&self.directory)?;
        if let Some(finding) = finding {
            self.found(finding);
        }
        let number = self.opened.fetch_add(1, Ordering::Relaxed);
        let handle = Handle { number, database: Arc::new(database) };
        *self.database.write().unwrap_or_else(PoisonError::into_inner) = Some(handle);
        self.refresh()
    }

    /// Writes a window; when this returns, it survives a crash. One that no database could take is
    /// counted as lost. Returns the bytes that it takes.
    pub(super) fn insert(&self, window: &Window) -> Result<u64, StoreError> {
        let written = self.write(|writer, database| writer.window(database, window));
        if let Err(StoreError::Unwritable { .. }) = written {
            let records = |profile: &crate::model::Profile| profile.quality.records;
            self.lost(window.profiles.iter().map(|profile| (profile.kind(), records(profile))));
        }
        written
    }

    /// Counts records that are not stored since their value is too large.
    fn lost(&self, records: impl IntoIterator<Item = (ProfileKind, u64)>) {
        let mut state = self.lock();
        for (kind, records) in records {
            count_lost(&mut state.loss, kind, UNWRITABLE, records);
        }
    }

    /// What there is at this moment; what is written later is not in it.
    pub(super) fn snapshot(&self) -> Result<Snapshot, StoreError> {
        let Handle { number, database } = self.database()?;
        let taken = open::guarded(|| Snapshot::take(&database, number));
        taken.map_err(|failure| self.failed(failure, number))
    }

    /// A copy of what is known.
    pub(super) fn state(&self) -> State {
        let mut state = self.lock().clone();
        let file = self.directory.join(open::FILE);
        // Blocks and not length: the file has holes.
        state.bytes = file.metadata().map_or(0, |file| file.blocks() * 512);
        state
    }

    /// The database's file.
    pub(super) fn path(&self) -> PathBuf {
        self.directory.join(open::FILE)
    }

    /// Reads, and deals with what goes wrong.
    fn read<T>(&self, work: impl FnOnce(&Database) -> Result<T, Failure>) -> Result<T, StoreError> {
        let Handle { number, database } = self.database()?;
        open::guarded(|| work(&database)).map_err(|failure| self.failed(failure, number))
    }

    /// Writes if there is room, and deals with what goes wrong.
    fn write<T>(
        &self,
        work: impl FnOnce(&mut Writer, &Database) -> Result<T, Failure>,
    ) -> Result<T, StoreError> {
        let mut writer = self.writer.lock().unwrap_or_else(PoisonError::into_inner);
        let Handle { number, database } = self.database()?;
        self.room(0).inspect_err(|error| self.report(error))?;
        let result = open::guarded(|| work(&mut writer, &database));
        drop(database);
        match result {
            Ok(value) => {
                self.lock().problem = None;
                match self.refresh() {
                    // The file was set aside, and with it what was just written.
                    Err(error @ StoreError::Damaged { .. }) => Err(error),
                    // It is written, whatever is known of it.
                    Ok(()) | Err(_) => Ok(value),
                }
            }
            Err(failure) => {
                // It may be ahead of what was written.
                *writer = Writer::default();
                Err(self.failed(failure, number))
            }
        }
    }

    /// Refuses where the file system is so full that a write could fail half-way.
    fn room(&self, bytes: u64) -> Result<(), StoreError> {
        let wanted = RESERVE + bytes;
        match rustix::fs::statvfs(&self.directory) {
            Ok(stat) if stat.f_bavail.saturating_mul(stat.f_frsize) < wanted => Err(StoreError::Full {
                path: self.directory.clone(),
                free: stat.f_bavail.saturating_mul(stat.f_frsize),
                wanted,
            }),
            Ok(_) => Ok(()),
            Err(error) => Err(StoreError::Io { path: self.directory.clone(), what: error.to_string() }),
        }
    }

    fn database(&self) -> Result<Handle, StoreError> {
        let database = self.database.read().unwrap_or_else(PoisonError::into_inner);
        database.clone().ok_or_else(|| StoreError::Io {
            path: self.path(),
            what: self.lock().problem.clone().unwrap_or_else(|| "is not open".to_owned()),
        })
    }

    /// After a failure the database is closed: redb refuses to go on after an error of the system,
    /// and nothing good comes of a damaged one. [`Self::reopen`] brings the same or a new one.
    fn failed(&self, failure: Failure, number: u64) -> StoreError {
        let damaged = matches!(failure, Failure::Damaged(_));
        let unwritable = matches!(failure, Failure::Unwritable(_));
        let error = open::error(&self.path(), failure);
        if unwritable {
            // Nothing is wrong with the database, and everything else can still be written.
            tracing::warn!(%error, "a part of the history is left out");
            return error;
        }
        let mut open = self.database.write().unwrap_or_else(PoisonError::into_inner);
        let failed = open.take_if(|handle| handle.number == number);
        drop(open);
        if let Some(Handle { database, .. }) = failed {
            if damaged {
                match open::set_aside(&self.path(), "corrupt", error.to_string()) {
                    Ok(finding) => self.found(finding),
                    Err(error) => tracing::warn!(%error, "a damaged history cannot be set aside"),
                }
            }
            // Closing writes, too, and may find the same damage.
            let _closed = open::guarded(|| {
                drop(database);
                Ok(())
            });
        }
        self.report(&error);
        error
    }

    pub(super) fn report(&self, error: &StoreError) {
        let mut state = self.lock();
        if state.problem.is_none() {
            tracing::warn!(%error, "history is not being written");
        }
        state.problem = Some(error.to_string());
    }

    fn found(&self, finding: Finding) {
        let mut state = self.lock();
        state.findings.push(finding);
        let surplus = state.findings.len().saturating_sub(MAX_FINDINGS);
        state.findings.drain(..surplus);
    }

    /// Brings what is known up to date.
    fn refresh(&self) -> Result<(), StoreError> {
        let headers = self.read(|database| headers(&database.begin_read()?))?;
        let mut state = self.lock();
        state.windows = headers.len() as u64;
        state.oldest = headers.iter().map(|(_, header)| header.range.from).min();
        state.newest = headers.iter().map(|(_, header)| header.range.to).max();
        Ok(())
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
