//! `profiler capture bundle`: fetches a bundle into a directory of its own.

use std::fs::{self, File, OpenOptions};
use std::io::Write as _;
use std::path::{Path, PathBuf};

use tokio::time::Instant;

use crate::cli::{CaptureBundleArgs, Exit, WriteError};
use crate::proto::{BundlePart, GetBundleRequest};

use super::super::Failure;
use super::super::connect::{Daemon, RENDER_DEADLINE, request};
use super::super::output::say;

/// Most bytes of a bundle that are taken from a daemon.
const MAX_BYTES: u64 = 1 << 30;
/// Most files.
const MAX_FILES: usize = 100;

/// Fetches a bundle.
pub(super) async fn fetch(args: &CaptureBundleArgs) -> Result<(), Failure> {
    let directory = args.output.clone().unwrap_or_else(|| PathBuf::from(&args.id));
    let daemon = Daemon::connect(&args.reach.connect).await?;
    let until = Instant::now() + RENDER_DEADLINE;
    let mut captures = daemon.captures();
    let question = request(GetBundleRequest { id: args.id.clone() }, RENDER_DEADLINE);
    let mut parts = daemon.answer(RENDER_DEADLINE, captures.get_bundle(question)).await?;
    let mut writer = Writer::create(&directory)?;
    while let Some(part) =
        daemon.in_time(until.saturating_duration_since(Instant::now()), parts.message()).await?
    {
        writer.take(&part)?;
    }
    let files = writer.finish()?;
    say(&format!("wrote {files} files; begin with {}", directory.join("report.md").display()));
    Ok(())
}

/// Puts the pieces of files together; removes the directory again unless it is finished.
struct Writer {
    directory: PathBuf,
    /// The file that is being written, and what is still to come of it.
    open: Option<(String, File, u64)>,
    files: usize,
    bytes: u64,
    finished: bool,
}

impl Writer {
    fn create(directory: &Path) -> Result<Self, Failure> {
        fs::create_dir(directory).map_err(|source| unwritable(directory, source))?;
        Ok(Self { directory: directory.to_owned(), open: None, files: 0, bytes: 0, finished: false })
    }

    fn take(&mut self, part: &BundlePart) -> Result<(), Failure> {
        // A daemon says what files are called; none gets out of the directory.
        let good = (1..=64).contains(&part.file.len())
            && !part.file.starts_with('.')
            && part.file.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte));
        if !good {
            return Err(Failure::malformed("a file of the bundle has an unusable name"));
        }
        self.bytes += part.data.len() as u64;
        if self.bytes > MAX_BYTES || self.files > MAX_FILES {
            return Err(Failure::malformed("the bundle is larger than any that is made"));
        }
        if self.open.as_ref().is_none_or(|(name, ..)| *name != part.file) {
            self.close()?;
            let path = self.directory.join(&part.file);
            let file = OpenOptions::new().write(true).create_new(true).open(&path);
            let file = file.map_err(|source| unwritable(&path, source))?;
            self.open = Some((part.file.clone(), file, part.size));
            self.files += 1;
        }
        let Some((name, file, left)) = &mut self.open else { return Ok(()) };
        file.write_all(&part.data).map_err(|source| unwritable(&self.directory.join(&*name), source))?;
        *left = left
            .checked_sub(part.data.len() as u64)
            .ok_or_else(|| Failure::malformed("a file of the bundle is longer than was said"))?;
        Ok(())
    }

    fn close(&mut self) -> Result<(), Failure> {
        match self.open.take() {
            Some((_, _, left)) if left > 0 => Err(Failure::malformed("a file of the bundle is cut short")),
            _ => Ok(()),
        }
    }

    fn finish(mut self) -> Result<usize, Failure> {
        self.close()?;
        if self.files == 0 {
            return Err(Failure::malformed("the bundle has no files"));
        }
        self.finished = true;
        Ok(self.files)
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        if !self.finished {
            // It was made for this bundle only.
            let _ = fs::remove_dir_all(&self.directory);
        }
    }
}

fn unwritable(path: &Path, source: std::io::Error) -> Failure {
    let exists = source.kind() == std::io::ErrorKind::AlreadyExists;
    let failure = Failure::from(WriteError { path: path.to_owned(), source });
    if exists {
        Failure { exit: Exit::Usage, ..failure }.hint("name a directory that does not exist yet with -o")
    } else {
        failure
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn part(file: &str, size: u64, data: &str) -> BundlePart {
        BundlePart { file: file.to_owned(), size, data: data.as_bytes().to_vec() }
    }

    #[test]
    fn pieces_become_files() {
        let place = tempfile::tempdir().expect("a directory");
        let directory = place.path().join("b");
        let mut writer = Writer::create(&directory).expect("made");
        for part in [part("report.md", 4, "ab"), part("report.md", 4, "cd"), part("x.svg", 0, "")] {
            writer.take(&part).expect("good");
        }
        assert_eq!(writer.finish(), Ok(2));
        assert_eq!(fs::read_to_string(directory.join("report.md")).expect("there"), "abcd");
        let again = Writer::create(&directory).map(drop).expect_err("exists");
        assert_eq!(again.exit, Exit::Usage);
    }

    #[test]
    fn what_is_wrong_leaves_nothing_behind() {
        let place = tempfile::tempdir().expect("a directory");
        let directory = place.path().join("b");
        let wrong: [&[BundlePart]; 5] = [
            &[part("../x", 1, "a")],
            &[part(".hidden", 1, "a")],
            &[part("a", 1, "ab")],
            &[part("a", 2, "a"), part("b", 1, "b")],
            &[part("a", 1, "a"), part("b", 1, "b"), part("a", 1, "a")],
        ];
        for parts in wrong {
            let mut writer = Writer::create(&directory).expect("made");
            assert!(parts.iter().try_for_each(|part| writer.take(part)).is_err(), "{parts:?}");
            drop(writer);
            assert!(!directory.exists());
        }
        assert!(Writer::create(&directory).expect("made").finish().is_err());
    }
}
