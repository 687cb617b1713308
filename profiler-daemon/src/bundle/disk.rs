//! Bundles on disk: a directory each, written whole or not at all, bounded in number and bytes.

use std::fs::{self, DirBuilder, OpenOptions};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use super::BundleFile;

/// What is being written starts with this; nothing else does.
const DRAFT: &str = ".draft-";
/// Largest file that is read back, bytes; far above what [`super::build`] makes.
const MAX_FILE: u64 = 256 << 20;
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

    /// Writes a bundle and removes the oldest ones, as far as there are too many or too much.
    pub(super) fn put(&self, id: &str, files: &[BundleFile]) -> io::Result<()> {
        let _writing = self.writing.lock().unwrap_or_else(PoisonError::into_inner);
        if !is_name(id) {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        private_directory(&self.directory, true)?;
        self.sweep();
        let draft = self.directory.join(format!("{DRAFT}{id}"));
        private_directory(&draft, false)?;
        let written = files.iter().try_for_each(|file| {
            let path = draft.join(&file.name);
            let mut out = OpenOptions::new().write(true).create_new(true).mode(0o640).open(path)?;
            out.write_all(&file.bytes)
        });
        let done = written.and_then(|()| fs::rename(&draft, self.directory.join(id)));
        if done.is_err() {
            // Half a bundle would be taken for a whole one by nobody, but it takes room.
            let _ = fs::remove_dir_all(&draft);
        }
        done?;
        self.make_room()
    }

    /// Reads a bundle; `None` where there is none.
    pub(super) fn get(&self, id: &str) -> Option<Vec<BundleFile>> {
        if !is_name(id) {
            return None;
        }
        let read = || -> io::Result<Vec<BundleFile>> {
            let mut files = Vec::new();
            for entry in fs::read_dir(self.directory.join(id))?.take(MAX_FILES) {
                let entry = entry?;
                let name = entry.file_name().to_string_lossy().into_owned();
                if !is_name(&name) || !entry.file_type()?.is_file() {
                    continue;
                }
                let mut bytes = Vec::new();
                fs::File::open(entry.path())?.take(MAX_FILE).read_to_end(&mut bytes)?;
                files.push(BundleFile { name, bytes });
            }
            Ok(files)
        };
        let mut files = read().ok().filter(|files| !files.is_empty())?;
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

    fn make_room(&self) -> io::Result<()> {
        let mut kept: Vec<(String, u64)> =
            self.ids()?.into_iter().map(|id| (id.clone(), size(&self.directory.join(id)))).collect();
        let mut bytes: u64 = kept.iter().map(|(_, size)| size).sum();
        while kept.len() > 1 && (kept.len() > self.max_count || bytes > self.max_bytes) {
            let (oldest, size) = kept.remove(0);
            fs::remove_dir_all(self.directory.join(&oldest))?;
            tracing::info!(id = oldest, "removed a bundle to make room");
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
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    fn file(name: &str, bytes: usize) -> BundleFile {
        BundleFile { name: name.to_owned(), bytes: vec![b'x'; bytes] }
    }

    #[test]
    fn what_is_put_is_got_and_private() {
        let dir = tempfile::tempdir().expect("a directory");
        let shelf = Shelf::new(dir.path().join("state/bundles"), 10, 1 << 20);
        assert_eq!(shelf.get("a"), None);
        shelf.put("20261123-1", &[file("a.svg", 3), file("report.md", 1)]).expect("written");
        assert_eq!(shelf.get("20261123-1"), Some(vec![file("report.md", 1), file("a.svg", 3)]));
        let mode = |path: &str| {
            let path = dir.path().join("state/bundles").join(path);
            fs::metadata(path).expect("there").permissions().mode() & 0o777
        };
        assert_eq!((mode(""), mode("20261123-1"), mode("20261123-1/a.svg")), (0o750, 0o750, 0o640));
        for id in ["", "..", "../bundles", "/etc", ".draft-x"] {
            assert_eq!(shelf.get(id), None, "{id}");
            assert!(shelf.put(id, &[file("a", 1)]).is_err(), "{id}");
        }
    }

    #[test]
    fn the_oldest_go() {
        let dir = tempfile::tempdir().expect("a directory");
        let shelf = Shelf::new(dir.path().to_owned(), 3, 100);
        fs::create_dir(dir.path().join(".draft-old")).expect("made");
        for id in ["4", "1", "3", "2"] {
            shelf.put(id, &[file("a", 10)]).expect("written");
        }
        assert_eq!(shelf.ids().expect("read"), ["2", "3", "4"], "by number");
        shelf.put("5", &[file("a", 85)]).expect("written");
        assert_eq!(shelf.ids().expect("read"), ["4", "5"], "by bytes");
        shelf.put("6", &[file("a", 1000)]).expect("written");
        assert_eq!(shelf.ids().expect("read"), ["6"], "the newest stays");
        assert!(!dir.path().join(".draft-old").exists());
    }

    #[test]
    fn half_a_bundle_is_none() {
        let dir = tempfile::tempdir().expect("a directory");
        let shelf = Shelf::new(dir.path().to_owned(), 3, 100);
        assert!(shelf.put("1", &[file("a", 1), file("no/such/place", 1)]).is_err());
        assert_eq!(fs::read_dir(dir.path()).expect("read").count(), 0);
    }
}
