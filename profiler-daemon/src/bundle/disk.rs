//! Bundles on disk: a directory each, written whole or not at all, bounded in number and bytes.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io;
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use super::BundleFile;

/// What is being written starts with this; nothing else does.
const DRAFT: &str = ".draft-";
/// Most files of one bundle.
const MAX_FILES: usize = 100;

/// The directory of the bundles.
#[derive(Debug)]
pub(super) struct Shelf {
    directory: PathBuf,
    max_count: usize,
    max_bytes: u64,
    /// Writing and removing are one at a time.
    writing: Mutex<()>,
}

impl Shelf {
    pub(super) fn new(directory: PathBuf, max_count: usize, max_bytes: u64) -> Self {
        Self { directory, max_count, max_bytes, writing: Mutex::new(()) }
    }

    /// Makes a bundle of what is written into a draft, and removes the oldest ones, as far as there
    /// are too many or too much.
    pub(super) fn put(&self, id: &str, write: impl FnOnce(&Draft) -> io::Result<()>) -> io::Result<()> {
        let _writing = self.writing.lock().unwrap_or_else(PoisonError::into_inner);
        if !is_name(id) {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        private_directory(&self.directory, true)?;
        self.sweep();
        let draft = Draft(self.directory.join(format!("{DRAFT}{id}")));
        private_directory(&draft.0, false)?;
        let done = write(&draft).and_then(|()| fs::rename(&draft.0, self.directory.join(id)));
        if done.is_err() {
            // Half a bundle would be taken for a whole one by nobody, but it takes room.
            let _ = fs::remove_dir_all(&draft.0);
        }
        done?;
        if let Err(error) = self.make_room(id) {
            tracing::warn!(%error, "older bundles cannot be removed");
        }
        Ok(())
    }

    /// Opens the files of a bundle; `None` where there is none.
    pub(super) fn get(&self, id: &str) -> Option<Vec<BundleFile>> {
        if !is_name(id) {
            return None;
        }
        let open = || -> io::Result<Vec<BundleFile>> {
            let mut files = Vec::new();
            for entry in fs::read_dir(self.directory.join(id))?.take(MAX_FILES) {
                let entry = entry?;
                let name = entry.file_name().to_string_lossy().into_owned();
                if !is_name(&name) || !entry.file_type()?.is_file() {
                    continue;
                }
                let content = File::open(entry.path())?;
                let size = content.metadata()?.len();
                files.push(BundleFile { name, size, content });
            }
            Ok(files)
        };
        let mut files = open().ok().filter(|files| !files.is_empty())?;
        // The report first: it is what people read.
        files.sort_by(|a, b| (a.name != "report.md", &a.name).cmp(&(b.name != "report.md", &b.name)));
        Some(files)
    }

    /// Ids of all bundles, oldest first: they begin with the time.
    fn ids(&self) -> io::Result<Vec<String>> {
        let entries = fs::read_dir(&self.directory)?.flatten();
        let mut ids: Vec<String> = entries
            .filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()))
            .filter_map(|entry| entry.file_name().into_string().ok())
            .filter(|name| is_name(name))
            .collect();
        ids.sort();
        Ok(ids)
    }

    /// Removes the oldest, but for one that was just made, maybe of an old capture.
    fn make_room(&self, made: &str) -> io::Result<()> {
        let sized = |id: String| {
            let size = size(&self.directory.join(&id));
            (id, size)
        };
        let kept: Vec<(String, u64)> = self.ids()?.into_iter().map(sized).collect();
        let (mut count, mut bytes) = (kept.len(), kept.iter().map(|(_, size)| size).sum::<u64>());
        for (oldest, size) in kept.into_iter().filter(|(id, _)| id != made) {
            if count <= self.max_count && bytes <= self.max_bytes {
                break;
            }
            fs::remove_dir_all(self.directory.join(&oldest))?;
            tracing::info!(id = oldest, "removed a bundle to make room");
            count -= 1;
            bytes -= size;
        }
        Ok(())
    }

    /// Removes what an earlier daemon did not finish.
    fn sweep(&self) {
        let Ok(entries) = fs::read_dir(&self.directory) else { return };
        for entry in entries.flatten() {
            if entry.file_name().to_string_lossy().starts_with(DRAFT) {
                let _ = fs::remove_dir_all(entry.path());
            }
        }
    }
}

/// A bundle that is being written.
#[derive(Debug)]
pub(super) struct Draft(PathBuf);

impl Draft {
    /// Begins a file.
    pub(super) fn create(&self, name: &str) -> io::Result<File> {
        OpenOptions::new().write(true).create_new(true).mode(0o640).open(self.0.join(name))
    }

    /// Takes a file back.
    pub(super) fn remove(&self, name: &str) -> io::Result<()> {
        fs::remove_file(self.0.join(name))
    }
}

fn private_directory(path: &Path, may_exist: bool) -> io::Result<()> {
    DirBuilder::new().mode(0o750).recursive(may_exist).create(path)
}

fn size(directory: &Path) -> u64 {
    let Ok(entries) = fs::read_dir(directory) else { return 0 };
    entries.flatten().filter_map(|entry| entry.metadata().ok()).map(|metadata| metadata.len()).sum()
}

/// Whether it is a name that leads nowhere else.
fn is_name(name: &str) -> bool {
    (1..=64).contains(&name.len())
        && !name.starts_with('.')
        && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte))
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    /// Files of so many bytes.
    fn put(shelf: &Shelf, id: &str, files: &[(&str, usize)]) -> io::Result<()> {
        shelf.put(id, |draft| {
            files.iter().try_for_each(|(name, size)| draft.create(name)?.write_all(&vec![b'x'; *size]))
        })
    }

    fn got(shelf: &Shelf, id: &str) -> Option<Vec<(String, u64)>> {
        Some(shelf.get(id)?.into_iter().map(|file| (file.name, file.size)).collect())
    }

    #[test]
    fn what_is_put_is_got_and_private() {
        let dir = tempfile::tempdir().expect("a directory");
        let shelf = Shelf::new(dir.path().join("state/bundles"), 10, 1 << 20);
        assert_eq!(got(&shelf, "a"), None);
        put(&shelf, "20261123-1", &[("a.svg", 3), ("report.md", 1)]).expect("written");
        assert_eq!(got(&shelf, "20261123-1"), Some(vec![("report.md".into(), 1), ("a.svg".into(), 3)]));
        let mode = |path: &str| {
            let path = dir.path().join("state/bundles").join(path);
            fs::metadata(path).expect("there").permissions().mode() & 0o777
        };
        assert_eq!((mode(""), mode("20261123-1"), mode("20261123-1/a.svg")), (0o750, 0o750, 0o640));
        for id in ["", "..", "../bundles", "/etc", ".draft-x"] {
            assert_eq!(got(&shelf, id), None, "{id}");
            assert!(put(&shelf, id, &[("a", 1)]).is_err(), "{id}");
        }
    }

    #[test]
    fn the_oldest_go() {
        let dir = tempfile::tempdir().expect("a directory");
        let shelf = Shelf::new(dir.path().to_owned(), 3, 100);
        fs::create_dir(dir.path().join(".draft-old")).expect("made");
        for id in ["4", "1", "3", "2"] {
            put(&shelf, id, &[("a", 10)]).expect("written");
        }
        assert_eq!(shelf.ids().expect("read"), ["2", "3", "4"], "by number");
        put(&shelf, "5", &[("a", 85)]).expect("written");
        assert_eq!(shelf.ids().expect("read"), ["4", "5"], "by bytes");
        put(&shelf, "6", &[("a", 1000)]).expect("written");
        assert_eq!(shelf.ids().expect("read"), ["6"], "the newest stays");
        put(&shelf, "1", &[("a", 1000)]).expect("written");
        assert_eq!(shelf.ids().expect("read"), ["1"], "somebody waits for the one that was made last");
        assert!(!dir.path().join(".draft-old").exists());
    }

    #[test]
    fn half_a_bundle_is_none() {
        let dir = tempfile::tempdir().expect("a directory");
        let shelf = Shelf::new(dir.path().to_owned(), 3, 100);
        assert!(put(&shelf, "1", &[("a", 1), ("no/such/place", 1)]).is_err());
        assert_eq!(fs::read_dir(dir.path()).expect("read").count(), 0);
    }
}
