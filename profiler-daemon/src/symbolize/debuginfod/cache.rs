//! The files that came from servers, on disk: written atomically, bounded in bytes.

use std::fs::{DirBuilder, File, FileTimes, OpenOptions};
use std::io::{self, Write};
use std::os::fd::OwnedFd;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::SystemTime;

use crate::procs::ObjectFile;
use crate::symbolize::debug_files::open_regular;

const KEPT: &str = "debug";
const DRAFT: &str = "part";

/// A directory of files named after their build ids.
pub(super) struct Cache {
    dir: PathBuf,
    max_bytes: u64,
}

impl Cache {
    /// Opens the directory, made where it is missing, and clears drafts that a crash left.
    pub(super) fn open(dir: PathBuf, max_bytes: u64) -> io::Result<Self> {
        DirBuilder::new().recursive(true).mode(0o700).create(&dir)?;
        let cache = Self { dir, max_bytes };
        for path in cache.files(DRAFT)? {
            std::fs::remove_file(path)?;
        }
        Ok(cache)
    }

    /// What a single file may take.
    pub(super) fn max_file_bytes(&self) -> u64 {
        self.max_bytes / 2
    }

    /// The file of a build id, if it is kept.
    pub(super) fn get(&self, build_id: &str) -> Option<OwnedFd> {
        let fd = open_regular(&self.path(build_id, KEPT))?;
        // For `evict`. A file that cannot be marked goes earlier, no more.
        let file = File::from(fd);
        let _unmarked = file.set_times(FileTimes::new().set_accessed(SystemTime::now()));
        Some(file.into())
    }

    /// A file to write.
    pub(super) fn draft(&self, build_id: &str) -> io::Result<Draft<'_>> {
        let path = self.path(build_id, DRAFT);
        let file =
            OpenOptions::new().read(true).write(true).create(true).truncate(true).mode(0o600).open(&path)?;
        Ok(Draft { cache: self, file, path, kept: self.path(build_id, KEPT) })
    }

    /// Removes the files that were not asked for longest, until the rest fits.
    fn evict(&self) -> io::Result<()> {
        let mut files = Vec::new();
        for path in self.files(KEPT)? {
            let about = path.metadata()?;
            files.push((about.accessed()?, about.len(), path));
        }
        files.sort();
        let mut total: u64 = files.iter().map(|(_, bytes, _)| bytes).sum();
        for (_, bytes, path) in files {
            if total <= self.max_bytes {
                break;
            }
            std::fs::remove_file(path)?;
            total -= bytes;
        }
        Ok(())
    }

    fn files(&self, extension: &str) -> io::Result<Vec<PathBuf>> {
        let entries = std::fs::read_dir(&self.dir)?;
        let paths: io::Result<Vec<PathBuf>> = entries.map(|entry| Ok(entry?.path())).collect();
        Ok(paths?.into_iter().filter(|path| path.extension().is_some_and(|end| end == extension)).collect())
    }

    fn path(&self, build_id: &str, extension: &str) -> PathBuf {
        self.dir.join(format!("{build_id}.{extension}"))
    }
}

/// A file that is not whole yet; it goes with this value unless it is kept.
pub(super) struct Draft<'a> {
    cache: &'a Cache,
    file: File,
    path: PathBuf,
    kept: PathBuf,
}

impl Draft<'_> {
    pub(super) fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.file.write_all(bytes)
    }

    /// The build id in what was written.
    pub(super) fn build_id(&self) -> Option<Arc<str>> {
        let fd = self.file.try_clone().ok()?.into();
        ObjectFile::new(fd, "".into(), 0).ok()?.elf()?.build_id.clone()
    }

    /// Gives the file its place. After a crash it is there whole or not at all.
    pub(super) fn keep(self) -> io::Result<()> {
        self.file.sync_all()?;
        std::fs::rename(&self.path, &self.kept)?;
        self.cache.evict()
    }
}

impl Drop for Draft<'_> {
    fn drop(&mut self) {
        // Renamed already, or a leftover that the next start removes.
        let _gone = std::fs::remove_file(&self.path);
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;
    use std::time::Duration;

    use super::*;

    fn keep(cache: &Cache, build_id: &str, bytes: usize) {
        let mut draft = cache.draft(build_id).unwrap();
        draft.write(&vec![1; bytes]).unwrap();
        draft.keep().unwrap();
    }

    fn names(dir: &Path) -> Vec<String> {
        let mut names: Vec<String> = std::fs::read_dir(dir)
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        names
    }

    #[test]
    fn the_bytes_are_bounded_and_the_least_asked_for_go_first() {
        let dir = tempfile::tempdir().unwrap();
        let cache = Cache::open(dir.path().join("a/b"), 1000).unwrap();
        let dir = dir.path().join("a/b");
        keep(&cache, "aa", 400);
        keep(&cache, "bb", 400);
        let long_ago = FileTimes::new().set_accessed(SystemTime::now() - Duration::from_secs(60));
        for name in ["aa", "bb"] {
            File::open(dir.join(format!("{name}.debug"))).unwrap().set_times(long_ago).unwrap();
        }
        assert!(cache.get("aa").is_some() && cache.get("cc").is_none());
        keep(&cache, "cc", 400);
        assert_eq!(names(&dir), ["aa.debug", "cc.debug"]);
    }

    #[test]
    fn drafts_do_not_stay() {
        let dir = tempfile::tempdir().unwrap();
        let cache = Cache::open(dir.path().to_owned(), 1000).unwrap();
        let mut draft = cache.draft("aa").unwrap();
        draft.write(b"half").unwrap();
        assert!(cache.get("aa").is_none());
        drop(draft);
        assert_eq!(names(dir.path()), Vec::<String>::new());
        std::fs::write(dir.path().join("bb.part"), "left by a crash").unwrap();
        let _cache = Cache::open(dir.path().to_owned(), 1000).unwrap();
        assert_eq!(names(dir.path()), Vec::<String>::new());
    }
}
