//! Opening the database: its directory, its version, and what to do with one that is damaged.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io;
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use redb::backends::FileBackend;
use redb::{Builder, Database, ReadableDatabase as _};

use super::tables::{self, FORMAT, FORMAT_KEY, Failure, META};
use crate::model::{Finding, Severity};
use crate::store::StoreError;

/// The database's name in the state directory.
pub(super) const FILE: &str = "profiles.redb";
/// Memory for pages of the database.
const CACHE: usize = 16 << 20;
/// Up to this size the whole file is verified when it is opened; beyond it that would take long,
/// and values are verified as they are read.
const VERIFIED: u64 = 2 << 30;
/// Most names that are tried for a file that is set aside.
const MAX_NAMES: u32 = 1000;

/// Creates the directory if need be.
pub(super) fn directory(directory: &Path) -> Result<(), StoreError> {
    DirBuilder::new()
        .recursive(true)
        .mode(0o750)
        .create(directory)
        .map_err(|source| StoreError::Unusable { path: directory.to_owned(), source })
}

/// Opens the database or makes one. A damaged or outdated one is set aside, which is a finding.
pub(super) fn open(directory: &Path) -> Result<(Database, Option<Finding>), StoreError> {
    let path = directory.join(FILE);
    let failure = match guarded(|| attempt(&path)) {
        Ok(database) => return Ok((database, None)),
        Err(failure) => failure,
    };
    let finding = match failure {
        Failure::Damaged(what) => {
            let message = format!("{} was damaged ({what}) and has been set aside", path.display());
            set_aside(&path, "corrupt", message)?
        }
        Failure::Older(version) => {
            let message =
                format!("{} has format {version}, too old to read, and has been set aside", path.display());
            set_aside(&path, "old", message)?
        }
        other => return Err(error(&path, other)),
    };
    match guarded(|| attempt(&path)) {
        Ok(database) => Ok((database, Some(finding))),
        Err(failure) => Err(error(&path, failure)),
    }
}

fn attempt(path: &Path) -> Result<Database, Failure> {
    // The mode is that of a new file; one that exists keeps what its owner gave it.
    let file: File = OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o640)
        .open(path)
        .map_err(Failure::Io)?;
    let length = file.metadata().map_err(Failure::Io)?.len();
    let backend = FileBackend::new(file)?;
    let database = Builder::new()
        .set_cache_size(CACHE)
        .set_check_integrity_on_open(length > 0 && length <= VERIFIED)
        .create_with_backend(backend)?;
    let found = version(&database)?;
    match found {
        None => {
            let transaction = database.begin_write()?;
            tables::create(&transaction)?;
            transaction.open_table(META)?.insert(FORMAT_KEY, FORMAT)?;
            transaction.commit()?;
        }
        Some(FORMAT) => {}
        Some(newer) if newer > FORMAT => return Err(Failure::Newer(newer)),
        Some(older) => return Err(Failure::Older(older)),
    }
    Ok(database)
}

/// The format of the database; `None` where nothing was ever written.
fn version(database: &Database) -> Result<Option<u64>, Failure> {
    match database.begin_read()?.open_table(META) {
        Ok(meta) => Ok(meta.get(FORMAT_KEY)?.map(|version| version.value())),
        Err(redb::TableError::TableDoesNotExist(_)) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

/// Moves the file out of the way, under a name of its own that says when.
pub(super) fn set_aside(path: &Path, why: &str, message: String) -> Result<Finding, StoreError> {
    let unusable = |source| StoreError::Unusable { path: path.to_owned(), source };
    let now = jiff::Timestamp::try_from(SystemTime::now()).unwrap_or_default();
    let aside = format!("{}.{why}-{}", path.display(), now.strftime("%Y%m%dT%H%M%SZ"));
    let names = (1..MAX_NAMES).map(|number| PathBuf::from(format!("{aside}-{number}")));
    // A second is long: what was set aside in the same one must not be written over.
    let mut names = std::iter::once(PathBuf::from(&aside)).chain(names);
    let aside = names.find(|name| name.symlink_metadata().is_err());
    let aside = aside.ok_or_else(|| unusable(io::ErrorKind::AlreadyExists.into()))?;
    fs::rename(path, &aside).map_err(unusable)?;
    forget_older(path, &aside).map_err(unusable)?;
    tracing::warn!(file = %aside.display(), "{message}");
    Ok(Finding {
        check: "history",
        severity: Severity::Warning,
        message: format!("{message}; a new history was begun"),
        fix: format!("keep {} for a bug report, or delete it", aside.display()),
    })
}

/// Deletes what was set aside but for the last file and the largest: a disk that damages one may
/// damage many, and the first of them is the one that holds a history.
fn forget_older(path: &Path, last: &Path) -> io::Result<()> {
    let (Some(directory), Some(name)) = (path.parent(), path.file_name()) else { return Ok(()) };
    let prefix = format!("{}.", name.display());
    let mut older = Vec::new();
    for entry in fs::read_dir(directory)? {
        let entry = entry?;
        if entry.file_name().to_string_lossy().starts_with(&prefix) && entry.path() != last {
            older.push((entry.metadata()?.len(), entry.path()));
        }
    }
    older.sort();
    let largest = older.last().map_or(0, |(length, _)| *length);
    if largest > last.metadata()?.len() {
        older.pop();
    }
    older.into_iter().try_for_each(|(_, path)| fs::remove_file(path))
}

/// What a failure means to whoever runs the daemon.
pub(super) fn error(path: &Path, failure: Failure) -> StoreError {
    let path = path.to_owned();
    match failure {
        Failure::Damaged(what) => StoreError::Damaged { path, what },
        Failure::Unwritable(what) => StoreError::Unwritable { path, what },
        Failure::InUse => StoreError::InUse { path },
        Failure::Newer(found) => StoreError::Newer { path, found, known: FORMAT },
        Failure::Older(version) => {
            StoreError::Damaged { path, what: format!("format {version} is too old to read") }
        }
        Failure::Io(error) if error.kind() == io::ErrorKind::StorageFull => {
            StoreError::Io { path, what: error.to_string() }
        }
        Failure::Io(source) => StoreError::Unusable { path, source },
    }
}

/// Runs what touches the database. It may panic on pages that hold nonsense; that must end neither
/// the thread nor the daemon.
pub(super) fn guarded<T>(work: impl FnOnce() -> Result<T, Failure>) -> Result<T, Failure> {
    catch_unwind(AssertUnwindSafe(work)).unwrap_or_else(|panic| {
        let what = panic.downcast_ref::<String>().map(String::as_str);
        let what = what.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("no message");
        Err(Failure::Damaged(format!("the database panicked: {what}")))
    })
}
