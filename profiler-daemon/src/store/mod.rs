//! What has been recorded: the sealed windows of the recent past and the results of captures.

mod captures;
mod summary;
mod windows;

#[cfg(test)]
mod tests;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

pub use self::captures::CaptureResult;
use self::captures::Results;
pub use self::summary::{ContainerRow, ProcessRow, Summary, containers, processes};
use self::windows::Windows;
use crate::model::{KindLoss, Profile, ProfileKind, Selector, TimeRange, Window};

/// How much is kept.
#[derive(Clone, Copy, Debug)]
pub struct StoreOptions {
    /// Windows that ended longer ago than this go, counted from the newest window.
    pub max_age: Duration,
    /// Memory for windows, bytes. Above it the oldest go early, which is counted; the newest
    /// window always stays.
    pub max_bytes: u64,
    /// Most results of captures; above it the oldest go.
    pub max_captures: usize,
    /// Memory for results of captures, bytes. Above it the oldest go; the newest always stays.
    pub max_capture_bytes: u64,
}

impl Default for StoreOptions {
    fn default() -> Self {
        Self {
            max_age: Duration::from_secs(3600),
            max_bytes: 256 << 20,
            max_captures: 100,
            max_capture_bytes: 64 << 20,
        }
    }
}

/// The windows and capture results in memory. Shared by reference; every method is short but
/// [`Store::query`], which holds no lock while it merges.
#[derive(Debug)]
pub struct Store {
    inner: Mutex<Inner>,
}

#[derive(Debug)]
struct Inner {
    windows: Windows,
    results: Results,
}

/// A merge of windows.
#[derive(Clone, Debug)]
pub struct Queried {
    /// What was recorded.
    pub profile: Profile,
    /// Time for which windows of this kind exist. Windows count whole, so at either end it can
    /// exceed the range that was asked for by up to one window.
    pub covered: Duration,
    /// From the start of the first to the end of the last window that was merged; `None` where
    /// there was none.
    pub range: Option<TimeRange>,
    /// Parts of the range that was asked for that no window of this kind covers.
    pub gaps: Vec<TimeRange>,
}

/// How full the store is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Stats {
    /// Number of windows.
    pub windows: u64,
    /// Memory of the windows and capture results, bytes (an upper bound).
    pub bytes: u64,
    /// Start of the oldest window.
    pub oldest: Option<SystemTime>,
    /// End of the newest window.
    pub newest: Option<SystemTime>,
    /// Records of windows that had to go before their time.
    pub loss: KindLoss,
}

impl Store {
    /// An empty store.
    #[must_use]
    pub fn new(options: StoreOptions) -> Self {
        let windows = Windows::new(options.max_age, options.max_bytes);
        let results = Results::new(options.max_captures, options.max_capture_bytes);
        Self { inner: Mutex::new(Inner { windows, results }) }
    }

    /// Takes a sealed window; older ones go as [`StoreOptions`] says.
    pub fn insert(&self, window: Window) {
        // What is evicted is freed after the lock is.
        let _evicted = self.lock().windows.insert(window);
    }

    /// Merges the windows that overlap `range`, each of them whole: a window says what happened
    /// in it, not when. Rows are those that the selector wants; loss is that of whole windows.
    #[must_use]
    pub fn query(&self, kind: ProfileKind, selector: &Selector, range: TimeRange) -> Queried {
        let parts = self.lock().windows.overlapping(kind, range);
        let mut profile = Profile::new(kind);
        for (_, part) in &parts {
            profile.merge_selected(part, selector);
        }
        let ranges: Vec<TimeRange> = parts.iter().map(|(range, _)| *range).collect();
        let gaps = range.gaps(ranges.clone());
        let (covered, range) = windows::cover(ranges);
        Queried { profile, covered, range, gaps }
    }

    /// The processes of such a query, heaviest first.
    #[must_use]
    pub fn processes(&self, kind: ProfileKind, selector: &Selector, range: TimeRange) -> Vec<ProcessRow> {
        processes(&self.query(kind, selector, range).profile)
    }

    /// From the start of the first to the end of the last window that has this kind.
    #[must_use]
    pub fn stored(&self, kind: ProfileKind) -> Option<TimeRange> {
        self.lock().windows.stored(kind)
    }

    /// How full it is.
    #[must_use]
    pub fn stats(&self) -> Stats {
        let inner = self.lock();
        let mut stats = inner.windows.stats();
        stats.bytes += inner.results.bytes();
        stats
    }

    /// Keeps the result of a capture; older ones go as [`StoreOptions`] says.
    pub fn put_capture(&self, result: CaptureResult) {
        let _evicted = self.lock().results.insert(result);
    }

    /// The result of a capture; `None` if there never was one or it had to go.
    #[must_use]
    pub fn capture(&self, id: &str) -> Option<Arc<CaptureResult>> {
        self.lock().results.get(id)
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        // No method leaves half a change behind, so a poisoned lock guards good data.
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
