//! Bundles: what is known about an incident in one directory - the minutes before a capture, the
//! capture, and the same time a day earlier.

mod build;
mod compare;
mod disk;
mod evidence;
mod report;

#[cfg(test)]
mod tests;

use std::fs::File;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime};

use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use self::disk::Shelf;
use crate::capture::{Capture, Captures};
use crate::model::ProfileKind;
use crate::store::Store;

/// How often the store is asked whether the windows of a capture's time are there.
const LOOK_EVERY: Duration = Duration::from_millis(500);

/// What a bundle holds, and where bundles are kept.
#[derive(Clone, Debug)]
pub struct Options {
    /// The directory that holds a directory for each bundle.
    pub directory: PathBuf,
    /// How much of the time before a capture is in its bundle.
    pub before: Duration,
    /// How long to wait, after a capture, for the windows of its last seconds.
    pub settle: Duration,
    /// Most bundles on disk; the oldest go.
    pub max_count: usize,
    /// Bytes of all bundles on disk; the oldest go, the newest always stays.
    pub max_bytes: u64,
}

/// A file of a bundle, open for reading: it stays readable when the bundle has to go.
#[derive(Debug)]
pub struct BundleFile {
    /// Its name: lower-case letters, digits, dots and dashes.
    pub name: String,
    /// Its length, bytes.
    pub size: u64,
    /// What is in it.
    pub content: File,
}

/// Why there is no bundle.
#[derive(Debug, thiserror::Error)]
pub enum BundleError {
    /// Neither a bundle nor a capture has this id.
    #[error("no capture has the id {id:?}, and there is no bundle of that name")]
    Unknown {
        /// The id that was asked for.
        id: String,
    },
    /// There will be one.
    #[error("capture {id} has not ended yet")]
    NotEnded {
        /// The capture.
        id: String,
        /// When it is worth asking again.
        retry_after: Duration,
    },
    /// It could not be written, or read.
    #[error("the bundle of capture {id} cannot be kept: {source}")]
    Disk {
        /// The capture.
        id: String,
        /// Why not.
        source: io::Error,
    },
    /// It could not be made.
    #[error("the bundle of capture {id} was not made: {source}")]
    Unfinished {
        /// The capture.
        id: String,
        /// Why not.
        source: tokio::task::JoinError,
    },
}

/// Makes bundles of captures and keeps them on disk.
pub struct Bundles {
    options: Options,
    captures: Arc<Captures>,
    store: Arc<Store>,
    shelf: Shelf,
    /// One at a time: each holds merged profiles in memory.
    turn: tokio::sync::Mutex<()>,
    closing: CancellationToken,
    tasks: TaskTracker,
    failed: AtomicU64,
}

impl Bundles {
    /// Nothing is made yet, and nothing is touched on disk.
    #[must_use]
    pub fn new(options: Options, captures: Arc<Captures>, store: Arc<Store>) -> Self {
        let shelf = Shelf::new(options.directory.clone(), options.max_count, options.max_bytes);
        Self {
            options,
            captures,
            store,
            shelf,
            turn: tokio::sync::Mutex::new(()),
            closing: CancellationToken::new(),
            tasks: TaskTracker::new(),
            failed: AtomicU64::new(0),
        }
    }

    /// Makes a bundle of a capture once that has ended. Returns at once; must be called within a
    /// tokio runtime.
    pub fn follow(self: &Arc<Self>, id: &str) {
        let Some(mut now) = self.captures.watch(id) else { return };
        let (this, id) = (Arc::clone(self), id.to_owned());
        self.tasks.spawn(async move {
            // The capture's task ends it before it drops the sender.
            let _ended = now.wait_for(|capture| capture.state.is_final()).await.is_ok();
            match this.get(&id).await {
                Ok(files) => tracing::info!(id, files = files.len(), "made a bundle"),
                Err(error) => {
                    this.failed.fetch_add(1, Ordering::Relaxed);
                    tracing::error!(id, %error, "a bundle is missing");
                }
            }
        });
    }

    /// The bundle of a capture: from disk, or made there now.
    ///
    /// # Errors
    /// There is no such capture, it has not ended, or the disk does not take its bundle.
    pub async fn get(self: &Arc<Self>, id: &str) -> Result<Vec<BundleFile>, BundleError> {
        if let Some(files) = self.stored(id).await? {
            return Ok(files);
        }
        let capture = self.captures.get(id).ok_or_else(|| BundleError::Unknown { id: id.to_owned() })?;
        if !capture.state.is_final() {
            return Err(BundleError::NotEnded { id: id.to_owned(), retry_after: capture.time_left() });
        }
        self.settle(&capture).await;
        let _turn = self.turn.lock().await;
        // Somebody else may have made it meanwhile.
        if let Some(files) = self.stored(id).await? {
            return Ok(files);
        }
        let this = Arc::clone(self);
        let made = self.blocking(id, move || {
            this.shelf
                .put(&capture.id, |draft| build::build(&capture, &this.store, this.options.before, draft))?;
            this.shelf.get(&capture.id).ok_or_else(|| io::ErrorKind::NotFound.into())
        });
        made.await?.map_err(|source: io::Error| BundleError::Disk { id: id.to_owned(), source })
    }

    /// Bundles that were promised and could not be made or kept, since the start.
    #[must_use]
    pub fn failed(&self) -> u64 {
        self.failed.load(Ordering::Relaxed)
    }

    /// Makes the bundles that are due of what there is, without waiting for more, and returns when
    /// they are on disk. Captures must have ended.
    pub async fn shutdown(&self) {
        self.closing.cancel();
        self.tasks.close();
        self.tasks.wait().await;
    }

    async fn stored(self: &Arc<Self>, id: &str) -> Result<Option<Vec<BundleFile>>, BundleError> {
        let this = Arc::clone(self);
        let name = id.to_owned();
        self.blocking(id, move || this.shelf.get(&name)).await
    }

    async fn blocking<T: Send + 'static>(
        &self,
        id: &str,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, BundleError> {
        let done = tokio::task::spawn_blocking(work).await;
        done.map_err(|source| BundleError::Unfinished { id: id.to_owned(), source })
    }

    /// Waits until the continuous profile of the capture's time is in the store, or patience ends.
    async fn settle(&self, capture: &Capture) {
        let ended = capture.ended.unwrap_or_else(SystemTime::now);
        let until = ended + self.options.settle;
        loop {
            let store = Arc::clone(&self.store);
            // It may read the disk.
            let stored = tokio::task::spawn_blocking(move || store.stored(ProfileKind::OnCpu)).await;
            let there = stored.ok().flatten().is_some_and(|stored| stored.to >= ended);
            if there || SystemTime::now() >= until {
                return;
            }
            tokio::select! {
                () = self.closing.cancelled() => return,
                () = tokio::time::sleep(LOOK_EVERY) => {}
            }
        }
    }
}
