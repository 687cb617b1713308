//! Tables on disk, so that a restarted daemon need not build them again.
//!
//! A file is one table, named by build id and size of what it was built from; whether another file
//! with that name has the same table, only its content tells ([`Evidence`]). The directory must be
//! ours alone: a table that somebody else wrote would make every stack a lie. A file that is cut,
//! changed, of another version or of another program is removed and counted, and never fatal.

mod format;

use std::fs::{self, DirBuilder, File, Metadata};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime};

use super::{Evidence, Table};

/// What names of finished files end in.
const SUFFIX: &str = ".unwind";
/// What names of files being written end in.
const TEMPORARY: &str = ".tmp";
/// Age at which a file that is still being written belongs to a daemon that died.
const ABANDONED: Duration = Duration::from_secs(3600);
/// Most files in the directory; the rest is evicted as if it were too large.
const MAX_FILES: usize = 1 << 14;

/// Why a cache cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum CacheError {
    /// The directory can be neither opened nor made.
    #[error("cannot use {path} for unwinding tables: {source}")]
    Directory {
        /// The directory.
        path: PathBuf,
        /// What the kernel said.
        source: io::Error,
    },
    /// Somebody else could write into the directory.
    #[error(
        "{path} belongs to user {owner} with mode {mode:o}: it must be ours (user {user}) and writable by \
         nobody else; remove it, or name another directory"
    )]
    Untrusted {
        /// The directory.
        path: PathBuf,
        /// Its owner.
        owner: u32,
        /// Its permissions.
        mode: u32,
        /// Who we are.
        user: u32,
    },
}

/// What a file says of itself: two with the same build id and size are likely to have the same
/// table, but not certain to: either can be forged.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Key {
    build_id: String,
    size: u64,
}

impl Key {
    /// A key; `None` unless the build id is 8 to 64 bytes in lower-case hex. A shorter one is no
    /// hash, and could be that of another program.
    #[must_use]
    pub fn new(build_id: &str, size: u64) -> Option<Self> {
        let hex = build_id.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
        (hex && build_id.len().is_multiple_of(2) && (16..=128).contains(&build_id.len()))
            .then(|| Self { build_id: build_id.to_owned(), size })
    }

    fn file_name(&self) -> String {
        format!("{}-{:x}{SUFFIX}", self.build_id, self.size)
    }
}

/// What a cache did since it was opened.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CacheCounts {
    /// Tables found.
    pub hits: u64,
    /// Tables not found.
    pub misses: u64,
    /// Tables found that were another file's, with the same build id and size.
    pub foreign: u64,
    /// Files that were cut, changed, of another version or another program's, and removed.
    pub rejected: u64,
    /// Tables removed to keep the limit.
    pub evicted: u64,
    /// Tables that could not be written.
    pub failed: u64,
}

/// A directory of tables. Several threads and several daemons may use one.
#[derive(Debug)]
pub struct Cache {
    directory: PathBuf,
    limit: u64,
    next_temporary: AtomicU64,
    hits: AtomicU64,
    misses: AtomicU64,
    foreign: AtomicU64,
    rejected: AtomicU64,
    evicted: AtomicU64,
    failed: AtomicU64,
}

impl Cache {
    /// Opens the directory, or makes it (mode 0750; its parents must be there). Its files are kept
    /// to `limit` bytes.
    ///
    /// # Errors
    ///
    /// When it cannot be made, belongs to another user, is a link, or others can write into it.
    pub fn open(directory: &Path, limit: u64) -> Result<Self, CacheError> {
        let failed = |source| CacheError::Directory { path: directory.to_owned(), source };
        match DirBuilder::new().mode(0o750).create(directory) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(failed(error)),
            _ => {}
        }
        // Of the name itself: a link could be turned to another directory at any time.
        let found = fs::symlink_metadata(directory).map_err(failed)?;
        if !found.is_dir() {
            return Err(failed(io::Error::from(io::ErrorKind::NotADirectory)));
        }
        let user = rustix::process::geteuid().as_raw();
        let mode = found.mode() & 0o7777;
        if found.uid() != user || mode & 0o022 != 0 {
            return Err(CacheError::Untrusted { path: directory.to_owned(), owner: found.uid(), mode, user });
        }
        let cache = Self {
            directory: directory.to_owned(),
            limit,
            next_temporary: AtomicU64::new(0),
            hits: AtomicU64::new(0),
            misses: AtomicU64::new(0),
            foreign: AtomicU64::new(0),
            rejected: AtomicU64::new(0),
            evicted: AtomicU64::new(0),
            failed: AtomicU64::new(0),
        };
        cache.evict();
        Ok(cache)
    }

    /// The table of a file and what it was made from, if it is there, whole, and `is_same` says of
    /// the latter that it holds of the file.
    #[must_use]
    pub fn get(&self, key: &Key, is_same: impl FnOnce(&Evidence) -> bool) -> Option<(Table, Evidence)> {
        let path = self.directory.join(key.file_name());
        match read(&path, key) {
            Ok((table, evidence)) if is_same(&evidence) => {
                self.hits.fetch_add(1, Ordering::Relaxed);
                Some((table, evidence))
            }
            // It stays: the other file may be the honest one.
            Ok(_) => {
                self.misses.fetch_add(1, Ordering::Relaxed);
                self.foreign.fetch_add(1, Ordering::Relaxed);
                None
            }
            Err(NotRead::Absent) => {
                self.misses.fetch_add(1, Ordering::Relaxed);
                None
            }
            Err(NotRead::Bad) => {
                self.misses.fetch_add(1, Ordering::Relaxed);
                self.rejected.fetch_add(1, Ordering::Relaxed);
                // If it cannot be removed, the next look-up rejects it again.
                let _ = fs::remove_file(&path);
                None
            }
        }
    }

    /// Keeps the table of a file. A table that cannot be written is counted, and built again.
    pub fn put(&self, key: &Key, table: &Table, evidence: &Evidence) {
        if self.write(key, table, evidence).is_err() {
            self.failed.fetch_add(1, Ordering::Relaxed);
        }
        self.evict();
    }

    /// What happened so far.
    #[must_use]
    pub fn counts(&self) -> CacheCounts {
        let count = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        CacheCounts {
            hits: count(&self.hits),
            misses: count(&self.misses),
            foreign: count(&self.foreign),
            rejected: count(&self.rejected),
            evicted: count(&self.evicted),
            failed: count(&self.failed),
        }
    }

    fn write(&self, key: &Key, table: &Table, evidence: &Evidence) -> io::Result<()> {
        let bytes = format::encode(key, table, evidence);
        if bytes.len() as u64 > self.limit {
            return Err(io::ErrorKind::FileTooLarge.into());
        }
        let number = self.next_temporary.fetch_add(1, Ordering::Relaxed);
        let temporary = format!("{}.{}.{number}{TEMPORARY}", key.file_name(), std::process::id());
        let temporary = self.directory.join(temporary);
        // `create_new` follows no link and takes over nobody's file.
        let mut file = File::options().write(true).create_new(true).mode(0o600).open(&temporary)?;
        // Not synced: what a crash leaves of it does not pass the digest.
        let written = file
            .write_all(&bytes)
            .and_then(|()| fs::rename(&temporary, self.directory.join(key.file_name())));
        if written.is_err() {
            let _ = fs::remove_file(&temporary);
        }
        written
    }

    /// Removes the tables that were not used for longest, until the rest is within the limit.
    fn evict(&self) {
        let Ok(entries) = fs::read_dir(&self.directory) else { return };
        let now = SystemTime::now();
        let mut files = Vec::new();
        for entry in entries.flatten() {
            let name = entry.file_name();
            let Some(name) = name.to_str() else { continue };
            let Ok(found) = entry.metadata() else { continue };
            if !found.is_file() {
                continue;
            }
            if name.ends_with(TEMPORARY) {
                if age(&found, now) > ABANDONED {
                    let _ = fs::remove_file(entry.path());
                }
            } else if name.ends_with(SUFFIX) {
                files.push((age(&found, now), found.len(), entry.path()));
            }
        }
        files.sort_unstable();
        let mut total: u64 = 0;
        for (at, (_, size, path)) in files.iter().enumerate() {
            total = total.saturating_add(*size);
            if (total > self.limit || at >= MAX_FILES) && fs::remove_file(path).is_ok() {
                self.evicted.fetch_add(1, Ordering::Relaxed);
            }
        }
    }
}

/// Why there is no table.
enum NotRead {
    Absent,
    Bad,
}

fn read(path: &Path, key: &Key) -> Result<(Table, Evidence), NotRead> {
    let mut options = File::options();
    options.read(true).custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK);
    let file = match options.open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Err(NotRead::Absent),
        Err(_) => return Err(NotRead::Bad),
    };
    let metadata = file.metadata().map_err(|_| NotRead::Bad)?;
    if !metadata.is_file() || metadata.len() > format::MAX_BYTES {
        return Err(NotRead::Bad);
    }
    let mut bytes = Vec::new();
    (&file).take(format::MAX_BYTES).read_to_end(&mut bytes).map_err(|_| NotRead::Bad)?;
    let found = format::decode(key, &bytes).ok_or(NotRead::Bad)?;
    // Time of last use, for eviction; where it cannot be set, the time of writing serves.
    let _ = file.set_modified(SystemTime::now());
    Ok(found)
}

fn age(found: &Metadata, now: SystemTime) -> Duration {
    found.modified().ok().and_then(|modified| now.duration_since(modified).ok()).unwrap_or_default()
}

#[cfg(test)]
mod tests;
