//! The mapped files we hold open, shared between processes, so that names outlive them.

use std::collections::hash_map::Entry;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustc_hash::FxHashMap;
use rustix::fs;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use super::elf::ElfInfo;
use crate::model::FileKey;

/// A mapped file, held open read-only.
#[derive(Debug)]
pub struct ObjectFile {
    fd: OwnedFd,
    serial: u64,
    path: Arc<str>,
    version: Version,
    elf: Option<ElfInfo>,
}

/// Tells whether a file is still the one that was opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Version {
    size: i64,
    modified: (i64, i64),
}

impl ObjectFile {
    /// Takes over an open regular file. `path` is what people see. The serial must be unique.
    pub(crate) fn new(fd: OwnedFd, path: Arc<str>, serial: u64) -> std::io::Result<Self> {
        let version = version(&fd)?;
        let elf = ElfInfo::read(&fd);
        Ok(Self { fd, serial, path, version, elf })
    }

    /// A number that no other file had or will have: the key for caches.
    #[must_use]
    pub fn serial(&self) -> u64 {
        self.serial
    }

    /// Path as the first process that was seen with it had it.
    #[must_use]
    pub fn path(&self) -> &Arc<str> {
        &self.path
    }

    /// What its headers say; `None` if it is not an ELF file.
    #[must_use]
    pub fn elf(&self) -> Option<&ElfInfo> {
        self.elf.as_ref()
    }

    /// Whether size and modification time are still those of when it was opened. A file written
    /// over in place no longer says what the process has mapped.
    #[must_use]
    pub fn is_unchanged(&self) -> bool {
        version(&self.fd).is_ok_and(|now| now == self.version)
    }

    /// Bytes it had when it was opened.
    #[must_use]
    pub fn size(&self) -> u64 {
        self.version.size.try_into().unwrap_or_default()
    }

    /// A path that opens this very file while `self` lives, also after it was deleted.
    #[must_use]
    pub fn proc_path(&self) -> PathBuf {
        PathBuf::from(format!("/proc/self/fd/{}", self.fd.as_raw_fd()))
    }
}

impl AsFd for ObjectFile {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

fn version(fd: &OwnedFd) -> std::io::Result<Version> {
    let stat = fs::fstat(fd)?;
    let nanoseconds = i64::try_from(stat.st_mtime_nsec).unwrap_or_default();
    Ok(Version { size: stat.st_size, modified: (stat.st_mtime, nanoseconds) })
}

/// All open files by (device, inode).
#[derive(Debug)]
pub(super) struct FileTable {
    files: FxHashMap<(u64, u64), Held>,
    build_ids: FxHashMap<Arc<str>, (u64, u64)>,
    limit: usize,
    next_serial: u64,
}

#[derive(Debug)]
struct Held {
    file: Arc<ObjectFile>,
    used: Instant,
}

impl FileTable {
    /// A table of at most `limit` files, fewer where the process may not open that many.
    pub(super) fn new(limit: usize) -> Self {
        // Half of what may be open: the symbolizer opens each file that it reads once more.
        let open = usize::try_from(raise_open_files()).unwrap_or(usize::MAX);
        let limit = limit.min(open / 2).max(16);
        Self { files: FxHashMap::default(), build_ids: FxHashMap::default(), limit, next_serial: 1 }
    }

    /// The shared entry of an open file; `None` when the table is full of files in use.
    pub(super) fn keep(&mut self, fd: OwnedFd, path: &Arc<str>, now: Instant) -> Option<Arc<ObjectFile>> {
        let stat = fs::fstat(&fd).ok()?;
        let key = (stat.st_dev, stat.st_ino);
        let known = self.files.get(&key).is_some_and(|held| held.file.is_unchanged());
        if !known && self.files.len() >= self.limit {
            self.drop_unused(Duration::ZERO, now);
            if self.files.len() >= self.limit {
                return None;
            }
        }
        let serial = self.next_serial;
        match self.files.entry(key) {
            Entry::Occupied(mut entry) if known => {
                entry.get_mut().used = now;
                Some(Arc::clone(&entry.get().file))
            }
            entry => {
                let file = Arc::new(ObjectFile::new(fd, Arc::clone(path), serial).ok()?);
                self.next_serial += 1;
                entry.insert_entry(Held { file: Arc::clone(&file), used: now });
                if let Some(id) = build_id(&file)
                    && self.of_build_id(id).is_none()
                {
                    self.build_ids.insert(Arc::clone(id), key);
                }
                Some(file)
            }
        }
    }

    /// A file that is held open, by what the kernel says of it. Anybody can give a file the build id
    /// of another one: ask by it only where the process cannot be asked any more.
    pub(super) fn find(&mut self, key: &FileKey, now: Instant) -> Option<Arc<ObjectFile>> {
        let key = match key {
            FileKey::BuildId(id) => self.of_build_id(id)?,
            FileKey::Inode { device: (major, minor), inode } => (fs::makedev(*major, *minor), *inode),
        };
        self.find_inode(key, now)
    }

    /// A file that is held open, by device and inode.
    pub(super) fn find_inode(&mut self, key: (u64, u64), now: Instant) -> Option<Arc<ObjectFile>> {
        let held = self.files.get_mut(&key).filter(|held| held.file.is_unchanged())?;
        held.used = now;
        Some(Arc::clone(&held.file))
    }

    /// The first file that was seen with a build id and still has it: later ones may be forged.
    fn of_build_id(&self, id: &Arc<str>) -> Option<(u64, u64)> {
        let key = *self.build_ids.get(id)?;
        let file = &self.files.get(&key)?.file;
        (build_id(file) == Some(id) && file.is_unchanged()).then_some(key)
    }

    /// Forgets files that no process maps and that were last looked at longer than `age` ago.
    pub(super) fn drop_unused(&mut self, age: Duration, now: Instant) {
        self.files.retain(|_, held| Arc::strong_count(&held.file) > 1 || now.duration_since(held.used) < age);
        self.build_ids.retain(|_, key| self.files.contains_key(key));
    }

    /// Whether there is room for more files.
    pub(super) fn is_full(&self) -> bool {
        self.files.len() >= self.limit
    }

    /// Number of files held open.
    pub(super) fn len(&self) -> usize {
        self.files.len()
    }
}

fn build_id(file: &ObjectFile) -> Option<&Arc<str>> {
    file.elf()?.build_id.as_ref()
}

/// Raises the soft limit of open files to the hard one; returns what now holds.
fn raise_open_files() -> u64 {
    let limit = getrlimit(Resource::Nofile);
    let wanted = Rlimit { current: limit.maximum, maximum: limit.maximum };
    let now = if setrlimit(Resource::Nofile, wanted).is_ok() { limit.maximum } else { limit.current };
    now.unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::io::Write;

    use super::*;

    #[test]
    fn equal_files_are_shared_and_rewritten_ones_are_not() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a");
        let open = || OwnedFd::from(File::open(&path).unwrap());
        let name: Arc<str> = "a".into();
        let now = Instant::now();
        std::fs::write(&path, "one").unwrap();

        let mut table = FileTable::new(64);
        let first = table.keep(open(), &name, now).unwrap();
        let second = table.keep(open(), &name, now).unwrap();
        assert_eq!(first.serial(), second.serial());
        assert!(first.is_unchanged());

        File::options().append(true).open(&path).unwrap().write_all(b"more").unwrap();
        assert!(!first.is_unchanged());
        let third = table.keep(open(), &name, now).unwrap();
        assert_ne!(third.serial(), first.serial());
        assert_eq!(table.len(), 1);
    }

    #[test]
    fn a_forged_build_id_does_not_take_the_place_of_the_file_that_had_it() {
        let dir = tempfile::tempdir().unwrap();
        let copy = |name: &str, tail: &[u8]| {
            let path = dir.path().join(name);
            std::fs::write(&path, [std::fs::read("/bin/cat").unwrap(), tail.to_vec()].concat()).unwrap();
            OwnedFd::from(File::open(&path).unwrap())
        };
        let (name, now): (Arc<str>, _) = ("a".into(), Instant::now());
        let mut table = FileTable::new(64);
        let genuine = table.keep(copy("genuine", b""), &name, now).unwrap();
        let forged = table.keep(copy("forged", b"more"), &name, now).unwrap();
        let key = FileKey::BuildId(build_id(&genuine).cloned().unwrap());
        assert_eq!(build_id(&forged), build_id(&genuine));
        assert_eq!(table.find(&key, now).unwrap().serial(), genuine.serial());
        // It has the place once the other one is gone.
        drop(genuine);
        table.files.retain(|_, held| held.file.serial() == forged.serial());
        let again = table.keep(copy("third", b"again"), &name, now).unwrap();
        assert_eq!(table.find(&key, now).unwrap().serial(), again.serial());
    }

    #[test]
    fn the_limit_holds_and_unused_files_make_room() {
        let name: Arc<str> = "a".into();
        let now = Instant::now();
        let mut table = FileTable::new(16);
        let file = || OwnedFd::from(tempfile::tempfile().unwrap());
        let mut held: Vec<_> = (0..16).map(|_| table.keep(file(), &name, now).unwrap()).collect();
        assert!(table.keep(file(), &name, now).is_none());
        held.pop();
        assert!(table.keep(file(), &name, now).is_some());
        assert_eq!(table.len(), 16);
    }
}
