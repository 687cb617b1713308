//! What can go wrong with the history on disk, with the path and the way out.

use std::io;
use std::path::PathBuf;

/// Why the history on disk cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The directory or the file in it cannot be used.
    #[error(
        "cannot keep history in {}: {source}; create the directory for the daemon's user, name another \
         one with state_dir, or set retention.in_memory = true", .path.display()
    )]
    Unusable {
        /// The directory or file.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// Another process has the file open.
    #[error(
        "{} is in use by another daemon; stop that one, or give this one its own state_dir", .path.display()
    )]
    InUse {
        /// The file.
        path: PathBuf,
    },
    /// The file was written by a newer version.
    #[error(
        "{} has format {found} and this program knows formats up to {known}; run the version that wrote it, \
         or move the file away to begin a new history", .path.display()
    )]
    Newer {
        /// The file.
        path: PathBuf,
        /// Its format.
        found: u64,
        /// The newest format that is known.
        known: u64,
    },
    /// The file system has too little room to write safely.
    #[error("{} has no room left: {free} bytes free, {wanted} wanted; history goes on when there is", .path.display())]
    Full {
        /// The directory.
        path: PathBuf,
        /// Bytes that are free.
        free: u64,
        /// Bytes that are wanted before anything is written.
        wanted: u64,
    },
    /// The file does not hold what was written.
    #[error("{} is damaged: {what}", .path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What was found.
        what: String,
    },
    /// What is to be written cannot be, whatever the state of the file.
    #[error("not stored in {}: {what}", .path.display())]
    Unwritable {
        /// The file.
        path: PathBuf,
        /// Why not.
        what: String,
    },
    /// Reading or writing failed.
    #[error("{}: {what}", .path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// What the system said.
        what: String,
    },
}
