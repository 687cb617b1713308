//! Where a profile goes: files, written whole or not at all, or stdout.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

use crate::render::Format;

/// A file and the format its extension asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OutputFile {
    /// Path as given.
    pub path: PathBuf,
    /// Format by the extension.
    pub format: Format,
}

/// Where a rendered profile goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Destination {
    /// A file, replaced as a whole.
    File(OutputFile),
    /// Standard output.
    Stdout(Format),
}

impl Destination {
    /// The format that is wanted there.
    #[must_use]
    pub fn format(&self) -> Format {
        match self {
            Self::File(file) => file.format,
            Self::Stdout(format) => *format,
        }
    }
}

/// `-o FILE` or `--format FORMAT`, for commands with one result.
#[derive(Clone, Debug, Default, clap::Args)]
pub struct Rendering {
    /// Write to FILE; its extension says the format: .svg, .folded, .pb.gz (pprof), .speedscope.json,
    /// .firefox.json (Firefox Profiler) or .json
    #[arg(short, long, value_name = "FILE", value_parser = super::values::output_file)]
    pub output: Option<OutputFile>,
    /// Write to stdout in this format: folded, svg, pprof, speedscope, firefox or json
    #[arg(long, value_name = "FORMAT", conflicts_with = "output")]
    pub format: Option<Format>,
    /// On top of each wait, upside down, the stack of who ended it: a wake-up graph, of captures
    /// started with --wakers
    #[arg(long)]
    pub wakers: bool,
}

impl Rendering {
    /// The file, else stdout in the format asked for, else stdout as folded stacks.
    #[must_use]
    pub fn destination(&self) -> Destination {
        match &self.output {
            Some(file) => Destination::File(file.clone()),
            None => Destination::Stdout(self.format.unwrap_or(Format::Folded)),
        }
    }
}

/// A file cannot be written.
#[derive(Debug, thiserror::Error)]
#[error("cannot write {}: {source}", path.display())]
pub struct WriteError {
    /// The file that was wanted.
    pub path: PathBuf,
    /// Why not.
    pub source: io::Error,
}

/// A file on its way: it takes its place only with [`PendingFile::commit`], and leaves nothing
/// behind when dropped before. Creating it early shows early whether the place can be written.
#[derive(Debug)]
pub struct PendingFile {
    target: PathBuf,
    /// Empty once committed.
    temporary: PathBuf,
    file: File,
}

impl PendingFile {
    /// Creates a temporary file beside the target.
    ///
    /// # Errors
    /// When the directory cannot be written, or something other than a file has the name: a
    /// directory, device or pipe must not be replaced. A link is replaced, not followed.
    pub fn create(target: &Path) -> Result<Self, WriteError> {
        /// Tells apart several files of one process.
        static NEXT: AtomicU32 = AtomicU32::new(0);

        let failed = |source| WriteError { path: target.to_owned(), source };
        let name = target.file_name().ok_or_else(|| failed(io::ErrorKind::InvalidFilename.into()))?;
        match fs::symlink_metadata(target) {
            Ok(found) if found.is_dir() => return Err(failed(io::ErrorKind::IsADirectory.into())),
            Ok(found) if !found.is_file() && !found.is_symlink() => {
                return Err(failed(io::Error::other("it exists and is not a regular file")));
            }
            _ => {}
        }
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let temporary = format!(".{}-{number}.{}.tmp", std::process::id(), Path::new(name).display());
        let temporary = target.with_file_name(temporary);
        let file = OpenOptions::new().write(true).create_new(true).open(&temporary).map_err(failed)?;
        Ok(Self { target: target.to_owned(), temporary, file })
    }

    /// Writes more of the content.
    ///
    /// # Errors
    /// When the disk is full or fails.
    pub fn write(&mut self, bytes: &[u8]) -> Result<(), WriteError> {
        self.file.write_all(bytes).map_err(|source| self.failed(source))
    }

    /// Puts the file in its place, replacing what was there.
    ///
    /// # Errors
    /// When the disk is full or fails, or the directory is gone.
    pub fn commit(mut self) -> Result<(), WriteError> {
        // The rename must not become durable before the content.
        self.file.sync_all().map_err(|source| self.failed(source))?;
        fs::rename(&self.temporary, &self.target).map_err(|source| self.failed(source))?;
        self.temporary.clear();
        Ok(())
    }

    fn failed(&self, source: io::Error) -> WriteError {
        WriteError { path: self.target.clone(), source }
    }
}

impl Drop for PendingFile {
    fn drop(&mut self) {
        if !self.temporary.as_os_str().is_empty() {
            // Nothing to be done about a failure; the target itself is untouched.
            let _ = fs::remove_file(&self.temporary);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(directory: &Path) -> Vec<String> {
        let entries = fs::read_dir(directory).expect("a directory");
        entries.map(|entry| entry.expect("an entry").file_name().display().to_string()).collect()
    }

    #[test]
    fn a_file_appears_whole_or_not_at_all() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("a.folded");
        fs::write(&path, "old").expect("written");

        let mut dropped = PendingFile::create(&path).expect("created");
        dropped.write(b"half").expect("written");
        assert_eq!(names(directory.path()).len(), 2);
        drop(dropped);
        assert_eq!(names(directory.path()), ["a.folded"]);
        assert_eq!(fs::read_to_string(&path).expect("read"), "old");

        let mut pending = PendingFile::create(&path).expect("created");
        let mut other = PendingFile::create(&path).expect("two at a time");
        pending.write(b"new").expect("written");
        other.write(b"newer").expect("written");
        pending.commit().expect("committed");
        assert_eq!(fs::read_to_string(&path).expect("read"), "new");
        other.commit().expect("committed");
        assert_eq!(fs::read_to_string(&path).expect("read"), "newer");
        assert_eq!(names(directory.path()), ["a.folded"]);
    }

    #[test]
    fn what_is_no_file_is_not_replaced() {
        let directory = tempfile::tempdir().expect("a directory");
        let inner = directory.path().join("d.svg");
        fs::create_dir(&inner).expect("a directory");
        let message = |path: &Path| PendingFile::create(path).expect_err("must fail").to_string();
        assert!(message(&inner).ends_with("d.svg: is a directory"), "{}", message(&inner));
        assert!(message(Path::new("/dev/null")).contains("not a regular file"));
        assert!(message(&directory.path().join("missing/a.svg")).contains("No such file"));
        assert_eq!(names(directory.path()), ["d.svg"]);
    }
}
