//! What has been recorded: sealed windows and the results of captures, in memory or on disk.

mod captures;
mod codec;
mod disk;
mod error;
mod fine;
mod heat;
mod keeper;
mod merge;
mod summary;
mod windows;

#[cfg(test)]
mod tests;

use std::collections::HashSet;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, RwLock};
use std::time::{Duration, SystemTime};

use self::captures::Results;
pub use self::captures::{CaptureAbout, CaptureResult, StoredCapture};
use self::disk::{Disk, Snapshot};
pub use self::error::StoreError;
pub use self::heat::Heat;
use self::keeper::Keeper;
pub use self::merge::MAX_BYTES as MAX_MERGED_BYTES;
use self::merge::Merger;
pub use self::summary::{ContainerRow, ProcessRow, Summary, containers, processes};
use self::windows::Windows;
use crate::model::{Finding, Fresh, KindLoss, Profile, ProfileKind, Selector, TimeRange, Window};

/// Why the records of a window in memory are missing from later answers.
const EVICTED: &str = "store full, window removed early";
/// The same for a window that could not be written.
const UNWRITTEN: &str = "window could not be written to disk";
/// Most memory for windows while the disk takes none, bytes: some ten minutes of a busy host.
const MAX_PENDING: u64 = 64 << 20;

/// A range that ends so long ago needs nothing that is not stored yet.
const RECENT: Duration = Duration::from_secs(120);

/// How much is kept.
#[derive(Clone, Copy, Debug)]
pub struct StoreOptions {
    /// Windows that ended longer ago than this go, counted from the newest window.
    pub max_age: Duration,
    /// Memory, or disk, for windows, bytes. Above it the oldest go early, which is counted; the
    /// newest window always stays.
    pub max_bytes: u64,
    /// Most results of captures; above it the oldest go.
    pub max_captures: usize,
    /// Memory, or disk, for results of captures, bytes. Above it the oldest go; the newest always
    /// stays.
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

/// Tells what has been recorded and may not have come to the store yet. It blocks for a moment.
pub type FreshSource = Arc<dyn Fn() -> Fresh + Send + Sync>;

/// The windows and capture results. Shared by reference. What touches the disk blocks: call
/// [`Store::insert`], [`Store::query`], [`Store::processes`], [`Store::stored`] and
/// [`Store::capture`] where that does no harm.
#[derive(Debug)]
pub struct Store {
    shared: Arc<Shared>,
    /// Does the upkeep of a store on disk; ended with the store.
    keeper: Option<Keeper>,
}

struct Shared {
    /// All there is, or what is not on disk yet.
    memory: Mutex<Memory>,
    disk: Option<Disk>,
    /// Held for writing while a window is on disk and in memory, so that no query counts it twice.
    moving: RwLock<()>,
    /// Held during upkeep: one at a time.
    upkeep: Mutex<()>,
    /// Bytes of all windows that were taken, as they were then.
    taken: AtomicU64,
    fresh: OnceLock<FreshSource>,
}

/// What there is of a kind at one moment.
struct View<'a> {
    /// What is not on disk.
    in_memory: Vec<(TimeRange, Arc<Profile>)>,
    /// Since when windows are not sealed yet, where there are any.
    open_from: Option<SystemTime>,
    snapshot: Option<(&'a Disk, Snapshot)>,
}

#[derive(Debug)]
struct Memory {
    windows: Windows,
    results: Results,
}

/// A merge of windows.
#[derive(Clone, Debug)]
pub struct Queried {
    /// What was recorded.
    pub profile: Profile,
    /// Time for which windows of this kind exist. Windows count whole, so at either end it can
    /// exceed the range that was asked for by half a window, or fall short of it; where one window
    /// holds the whole range, it exceeds it by the rest of that window.
    pub covered: Duration,
    /// From the start of the first to the end of the last window that was merged; `None` where
    /// there was none.
    pub range: Option<TimeRange>,
    /// Parts of the range that was asked for that no window of this kind covers.
    pub gaps: Vec<TimeRange>,
    /// From here on the answer is of a window that is still open: it grows.
    pub open_from: Option<SystemTime>,
    /// How finely the answer could be cut: the longest of the windows that were merged, or a
    /// millisecond where they keep when things happened and the range is shorter than they are.
    pub resolution: Duration,
}

/// How full the store is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Stats {
    /// Number of windows.
    pub windows: u64,
    /// Disk space, or memory, of the windows and capture results, bytes (of memory: an upper bound).
    pub bytes: u64,
    /// Start of the oldest window.
    pub oldest: Option<SystemTime>,
    /// End of the newest window.
    pub newest: Option<SystemTime>,
    /// Records of windows that had to go before their time.
    pub loss: KindLoss,
    /// The file; `None` while everything is in memory only.
    pub path: Option<PathBuf>,
    /// Windows that are in memory because the disk does not take them now.
    pub pending: u64,
    /// Why nothing is written, or even read, now.
    pub problem: Option<String>,
}

impl Store {
    /// An empty store in memory.
    #[must_use]
    pub fn new(options: StoreOptions) -> Self {
        let windows = Windows::new(options.max_age, options.max_bytes, EVICTED);
        let results = Results::new(options.max_captures, options.max_capture_bytes);
        Self { shared: Arc::new(Shared::new(windows, results, None)), keeper: None }
    }

    /// The store in a directory, which is made if need be. A file that is damaged, or too old to be
    /// read, is set aside: see [`Store::findings`]. A thread does the upkeep until the store is
    /// dropped.
    ///
    /// # Errors
    /// When the directory cannot be used, another process uses it, or a newer version wrote it.
    pub fn open(directory: &Path, options: StoreOptions) -> Result<Self, StoreError> {
        let disk = Disk::open(directory, options)?;
        let windows = Windows::new(options.max_age, options.max_bytes.min(MAX_PENDING), UNWRITTEN);
        let results = Results::new(options.max_captures, options.max_capture_bytes);
        let shared = Arc::new(Shared::new(windows, results, Some(disk)));
        let keeper = Keeper::start(Arc::clone(&shared))
            .map_err(|source| StoreError::Unusable { path: directory.to_owned(), source })?;
        Ok(Self { shared, keeper: Some(keeper) })
    }

    /// Takes a sealed window; older ones go as [`StoreOptions`] says. Says whether it is where a
    /// crash cannot take it; if the disk does not take it now, it is kept in memory until it does.
    pub fn insert(&self, window: Window) -> bool {
        match self.shared.disk.as_ref().map(|disk| disk.insert(&window)) {
            Some(Ok(bytes)) => {
                self.shared.taken.fetch_add(bytes, Ordering::Relaxed);
                return true;
            }
            // It never will be written, and has been counted.
            Some(Err(StoreError::Unwritable { .. })) => return false,
            Some(Err(_)) | None => {}
        }
        let bytes = window.profiles.iter().map(|profile| profile.memory_bytes() as u64).sum();
        self.shared.taken.fetch_add(bytes, Ordering::Relaxed);
        // What is evicted is freed after the lock is.
        let _evicted = self.shared.lock().windows.insert(window);
        false
    }

    /// Merges the windows whose middle lies in `range`, each of them whole: a window says what
    /// happened in it, not when. So ranges that tile a time add up to it, whatever the length of
    /// the windows. Where no middle lies in it, since the range is shorter than the windows, the one
    /// that the middle of the range lies in is taken. Rows are those that the selector wants; loss
    /// is that of whole windows.
    #[must_use]
    pub fn query(&self, kind: ProfileKind, selector: &Selector, range: TimeRange) -> Queried {
        self.shared.query(kind, selector, range)
    }

    /// How the activity of what a selector wants is spread over a range, by cells of this length.
    /// The range must be a whole number of cells long; memory grows with that number.
    #[must_use]
    pub fn heat(&self, kind: ProfileKind, selector: &Selector, range: TimeRange, cell: Duration) -> Heat {
        self.shared.heat(kind, selector, range, cell)
    }

    /// Says where to ask for what has not come to the store yet. Only the first counts.
    pub fn set_fresh(&self, source: FreshSource) {
        let _only_the_first = self.shared.fresh.set(source);
    }

    /// The processes of such a query, heaviest first.
    #[must_use]
    pub fn processes(&self, kind: ProfileKind, selector: &Selector, range: TimeRange) -> Vec<ProcessRow> {
        processes(&self.query(kind, selector, range).profile)
    }

    /// From the start of the first to the end of the last window that has this kind.
    #[must_use]
    pub fn stored(&self, kind: ProfileKind) -> Option<TimeRange> {
        windows::cover(self.shared.stretches(kind)).1
    }

    /// How full it is.
    #[must_use]
    pub fn stats(&self) -> Stats {
        self.shared.stats()
    }

    /// Bytes of all windows it has taken, as they were written then, or in memory where they were not.
    #[must_use]
    pub fn taken_bytes(&self) -> u64 {
        self.shared.taken.load(Ordering::Relaxed)
    }

    /// What was found out about the file: that one was set aside, for example.
    #[must_use]
    pub fn findings(&self) -> Vec<Finding> {
        self.shared.disk.as_ref().map(|disk| disk.state().findings).unwrap_or_default()
    }

    /// Keeps the result of a capture; older ones go as [`StoreOptions`] says. It is written to disk
    /// soon, and before the store is dropped.
    pub fn put_capture(&self, result: CaptureResult) {
        let _evicted = self.shared.lock().results.insert(result);
        if let Some(keeper) = &self.keeper {
            keeper.wake();
        }
    }

    /// The result of a capture; `None` if there never was one or it had to go.
    #[must_use]
    pub fn capture(&self, id: &str) -> Option<Arc<CaptureResult>> {
        let in_memory = self.shared.lock().results.get(id);
        in_memory.or_else(|| {
            let (capture, profile) = self.shared.disk.as_ref()?.capture(id).ok().flatten()?;
            let StoredCapture { id, range, summary, about } = capture;
            // Reading may leave rows out, as it does of windows.
            let summary = if profile.loss == summary.loss {
                summary
            } else {
                Summary::of(&profile, range, summary.covered)
            };
            Some(Arc::new(CaptureResult { id, range, profile: Arc::new(profile), summary, about }))
        })
    }

    /// The captures whose results are on disk, oldest first.
    #[must_use]
    pub fn captures(&self) -> Vec<StoredCapture> {
        self.shared.disk.as_ref().and_then(|disk| disk.captures().ok()).unwrap_or_default()
    }

    /// Writes what is still in memory to disk, if there is one. For the end: the upkeep does it all
    /// the time.
    pub fn flush(&self) {
        self.shared.maintain(|| false);
    }

    /// Does the upkeep that is due, as the store's own thread does every few seconds: writes what
    /// is still in memory, rolls up, removes what is too old. Nothing for a store in memory.
    pub fn maintain(&self) {
        self.shared.maintain(|| true);
    }
}

impl std::fmt::Debug for Shared {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Shared")
            .field("memory", &self.memory)
            .field("disk", &self.disk)
            .finish_non_exhaustive()
    }
}

impl View<'_> {
    /// The time that is stored of this kind, and whether it is kept when things happened.
    fn windows(&self, kind: ProfileKind) -> impl Iterator<Item = (TimeRange, bool)> {
        let headers = self.snapshot.iter().flat_map(|(_, snapshot)| snapshot.headers());
        let parts = headers.flat_map(|header| &header.parts).filter(move |part| part.kind == kind);
        let on_disk =
            parts.flat_map(|part| part.stretches.iter().map(|range| (*range, part.times_bytes > 0)));
        let in_memory = self.in_memory.iter().map(|(range, profile)| (*range, profile.times().is_some()));
        on_disk.chain(in_memory)
    }

    /// From when on an answer about a range is not final.
    fn open_in(&self, range: Option<TimeRange>) -> Option<SystemTime> {
        self.open_from.filter(|from| range.is_some_and(|range| *from < range.to))
    }
}

impl Shared {
    fn new(windows: Windows, results: Results, disk: Option<Disk>) -> Self {
        Self {
            memory: Mutex::new(Memory { windows, results }),
            disk,
            moving: RwLock::new(()),
            upkeep: Mutex::new(()),
            taken: AtomicU64::new(0),
            fresh: OnceLock::new(),
        }
    }

    fn query(&self, kind: ProfileKind, selector: &Selector, range: TimeRange) -> Queried {
        let view = self.view(kind, range);
        if let Some(queried) = self.query_within(&view, kind, selector, range) {
            return queried;
        }
        let View { in_memory, snapshot, .. } = &view;
        let on_disk = || {
            let headers = snapshot.iter().flat_map(|(_, snapshot)| snapshot.headers());
            headers.filter(|header| header.has(kind)).map(|header| header.range)
        };
        let middles = in_memory.iter().map(|(range, _)| *range).chain(on_disk());
        let by_middle = middles.into_iter().any(|window| codec::belongs(&window, &range));
        let wanted = |window: &TimeRange| {
            if by_middle { codec::belongs(window, &range) } else { codec::belongs(&range, window) }
        };
        let mut merger = Merger::new(kind);
        let mut stretches = Vec::new();
        let mut longest = Duration::ZERO;
        if let Some((disk, snapshot)) = snapshot {
            let wanted = |header: &codec::Header| header.has(kind) && wanted(&header.range);
            let merged = disk.merge(snapshot, kind, selector, wanted, &mut merger);
            // Without an answer from the disk, none of its time is covered.
            stretches.extend(merged.unwrap_or_default());
            let lengths = snapshot.headers().filter(|header| wanted(header));
            longest = lengths.map(|header| header.range.length()).max().unwrap_or_default();
        }
        for (window, profile) in in_memory.iter().filter(|(window, _)| wanted(window)) {
            merger.add_profile(profile, selector);
            stretches.push(*window);
            longest = longest.max(window.length());
        }
        let gaps = range.gaps(stretches.clone());
        let (covered, range) = windows::cover(stretches);
        let open_from = view.open_in(range);
        Queried { profile: merger.finish(), covered, range, gaps, open_from, resolution: longest }
    }

    /// What there is of a kind now; with what is not sealed yet, where the range reaches to it.
    fn view(&self, kind: ProfileKind, range: TimeRange) -> View<'_> {
        let recent = SystemTime::now().checked_sub(RECENT).is_none_or(|recent| range.to > recent);
        // Before the store is looked at: what is sealed in between is told of twice, and not never.
        let fresh = self.fresh.get().filter(|_| recent).map(|fresh| fresh()).unwrap_or_default();
        let (mut in_memory, snapshot) = {
            let _still = self.moving.read().unwrap_or_else(PoisonError::into_inner);
            let in_memory = self.lock().windows.of_kind(kind);
            // A store that cannot be read says so in its status; what is in memory is still answered.
            (in_memory, self.disk.as_ref().and_then(|disk| Some((disk, disk.snapshot().ok()?))))
        };
        let on_disk = snapshot.iter().flat_map(|(_, snapshot)| snapshot.headers()).map(|header| header.range);
        // A window is known by its start: windows do not overlap.
        let stored: HashSet<SystemTime> =
            in_memory.iter().map(|(range, _)| *range).chain(on_disk).map(|range| range.from).collect();
        let new = |window: &Window| !stored.contains(&window.range.from);
        let open_from = fresh.open.iter().filter(|window| new(window)).map(|window| window.range.from).min();
        for window in fresh.sealed.iter().chain(&fresh.open).filter(|window| new(window)) {
            let of_kind = window.profiles.iter().filter(|profile| profile.kind() == kind);
            in_memory.extend(of_kind.map(|profile| (window.range, Arc::clone(profile))));
        }
        View { in_memory, open_from, snapshot }
    }

    /// Which time is stored of a kind.
    fn stretches(&self, kind: ProfileKind) -> Vec<TimeRange> {
        let mut stretches: Vec<TimeRange> =
            self.lock().windows.of_kind(kind).into_iter().map(|(range, _)| range).collect();
        if let Some(snapshot) = self.disk.as_ref().and_then(|disk| disk.snapshot().ok()) {
            let parts = snapshot.headers().flat_map(|header| &header.parts);
            stretches.extend(parts.filter(|part| part.kind == kind).flat_map(|part| &part.stretches));
        }
        stretches
    }

    fn stats(&self) -> Stats {
        let disk = self.disk.as_ref().map(|disk| (disk.path(), disk.state()));
        let memory = self.lock();
        let in_memory = memory.windows.len() as u64;
        let mut stats = Stats {
            windows: in_memory,
            bytes: memory.windows.bytes() + memory.results.bytes(),
            oldest: memory.windows.oldest(),
            newest: memory.windows.newest(),
            loss: memory.windows.loss().clone(),
            ..Stats::default()
        };
        if let Some((path, state)) = disk {
            stats.windows += state.windows;
            stats.bytes = state.bytes;
            stats.oldest = [stats.oldest, state.oldest].into_iter().flatten().min();
            stats.newest = stats.newest.max(state.newest);
            stats.loss.merge(&state.loss);
            stats.path = Some(path);
            stats.pending = in_memory;
            stats.problem = state.problem;
        }
        stats
    }

    fn maintain(&self, go_on: impl Fn() -> bool) {
        let Some(disk) = &self.disk else { return };
        let _one_at_a_time = self.upkeep.lock().unwrap_or_else(PoisonError::into_inner);
        // Twice, since the first may find damage that makes the second begin a new file.
        for _ in 0..2 {
            match self.upkeep(disk, &go_on) {
                Ok(()) => return,
                // Each step leaves what it cannot do for the next time.
                Err(error) => disk.report(&error),
            }
        }
    }

    fn upkeep(&self, disk: &Disk, go_on: &impl Fn() -> bool) -> Result<(), StoreError> {
        if !disk.is_open() {
            disk.reopen()?;
        }
        self.write_pending(disk)?;
        self.write_results(disk)?;
        disk.maintain(go_on)
    }

    /// Brings windows that the disk did not take to it.
    fn write_pending(&self, disk: &Disk) -> Result<(), StoreError> {
        loop {
            let _moving = self.moving.write().unwrap_or_else(PoisonError::into_inner);
            let Some(window) = self.lock().windows.first() else { return Ok(()) };
            match disk.insert(&window) {
                Ok(_) | Err(StoreError::Unwritable { .. }) => {}
                Err(error) => return Err(error),
            }
            // Nothing is inserted before the first, and only eviction could have removed it; then
            // the one behind it would go in its place.
            let mut memory = self.lock();
            if memory.windows.first().is_some_and(|first| first.range == window.range) {
                memory.windows.remove_first();
            }
        }
    }

    /// Brings the results of captures to the disk.
    fn write_results(&self, disk: &Disk) -> Result<(), StoreError> {
        loop {
            let Some(result) = self.lock().results.first() else { return Ok(()) };
            match disk.put_capture(&result) {
                Ok(()) | Err(StoreError::Unwritable { .. }) => {}
                Err(error) => return Err(error),
            }
            self.lock().results.remove(&result.id);
        }
    }

    fn lock(&self) -> MutexGuard<'_, Memory> {
        // No method leaves half a change behind, so a poisoned lock guards good data.
        self.memory.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
