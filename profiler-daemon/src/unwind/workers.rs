//! Threads that build tables aside, so that nobody waits for a large file but who needs it.
//!
//! Large files have one thread at a time; the others serve small files only, which take
//! milliseconds. A single thread serves small files first, but lets no large one starve.

use std::collections::VecDeque;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, Weak};
use std::thread;

use rustc_hash::{FxHashMap, FxHashSet};

use super::cache::{Cache, Key};
use super::{Built, Evidence, Problem, Table, UnwindError, build};
use crate::procs::ObjectFile;

/// Small files that a single thread serves in a row while a large one waits.
const SMALL_IN_A_ROW: usize = 16;

/// Most tables that are remembered to be shared between files with the same build id.
const MAX_SHARED: usize = 4096;

/// How many threads, and what they take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WorkersOptions {
    /// Threads, at least 1. From 2 on, all but one serve small files only.
    pub threads: usize,
    /// Files that may wait; more are refused.
    pub waiting: usize,
    /// Bytes of a file from which on it is large.
    pub large: u64,
}

impl Default for WorkersOptions {
    /// 2 threads, 4096 waiting files, large from 16 MiB on.
    fn default() -> Self {
        Self { threads: 2, waiting: 4096, large: 16 << 20 }
    }
}

/// What became of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Requested {
    /// It will be answered.
    Accepted,
    /// The same file is being served already; one answer will come for both.
    Already,
    /// Too many wait; ask again later. Counted by the caller.
    Refused,
}

/// The answer to a request.
#[derive(Debug)]
pub struct Answer {
    /// [`ObjectFile::serial`] of the file.
    pub serial: u64,
    /// The table. Files with the same build id, size and unwinding information share one while it
    /// lives.
    pub table: Result<Arc<Table>, UnwindError>,
}

/// The threads. They end after what they are at when this is dropped.
#[derive(Debug)]
pub struct Workers {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    queue: Mutex<Queue>,
    changed: Condvar,
    options: WorkersOptions,
    cache: Option<Arc<Cache>>,
    tables: Mutex<FxHashMap<Key, Known>>,
}

/// A table that somebody may still hold, and what it was made from.
#[derive(Debug)]
struct Known {
    table: Weak<Table>,
    evidence: Arc<Evidence>,
}

#[derive(Debug, Default)]
struct Queue {
    small: VecDeque<Arc<ObjectFile>>,
    large: VecDeque<Arc<ObjectFile>>,
    /// Serials of all files that wait or are being served.
    in_flight: FxHashSet<u64>,
    small_in_a_row: usize,
    closed: bool,
}

type Builder = fn(&ObjectFile) -> Result<Built, UnwindError>;

impl Workers {
    /// Starts the threads. Answers come through the receiver, in the order they are ready; while
    /// nobody takes them, at most as many as there are threads wait, and the threads with them.
    ///
    /// # Errors
    ///
    /// When a thread cannot be started.
    pub fn start(options: WorkersOptions, cache: Option<Arc<Cache>>) -> io::Result<(Self, Receiver<Answer>)> {
        Self::start_with(options, cache, build)
    }

    fn start_with(
        options: WorkersOptions,
        cache: Option<Arc<Cache>>,
        builder: Builder,
    ) -> io::Result<(Self, Receiver<Answer>)> {
        let threads = options.threads.max(1);
        let (answers, receiver) = sync_channel(threads);
        let workers = Self {
            shared: Arc::new(Shared {
                queue: Mutex::default(),
                changed: Condvar::new(),
                options: WorkersOptions { threads, ..options },
                cache,
                tables: Mutex::default(),
            }),
        };
        for number in 0..threads {
            let (shared, answers) = (Arc::clone(&workers.shared), answers.clone());
            thread::Builder::new()
                .name(format!("unwind-{number}"))
                .spawn(move || shared.serve(number == 0, &answers, builder))?;
        }
        Ok((workers, receiver))
    }

    /// Asks for the table of a file.
    pub fn request(&self, file: &Arc<ObjectFile>) -> Requested {
        let large = size(file) >= self.shared.options.large;
        let mut queue = lock(&self.shared.queue);
        if queue.in_flight.contains(&file.serial()) {
            return Requested::Already;
        }
        if queue.small.len() + queue.large.len() >= self.shared.options.waiting {
            return Requested::Refused;
        }
        queue.in_flight.insert(file.serial());
        if large { &mut queue.large } else { &mut queue.small }.push_back(Arc::clone(file));
        // All of them: the one that wakes up may be one that does not take this file.
        self.shared.changed.notify_all();
        Requested::Accepted
    }

    /// Files that wait or are being served.
    #[must_use]
    pub fn in_flight(&self) -> usize {
        lock(&self.shared.queue).in_flight.len()
    }
}

impl Drop for Workers {
    fn drop(&mut self) {
        lock(&self.shared.queue).closed = true;
        self.shared.changed.notify_all();
    }
}

impl Shared {
    fn serve(&self, takes_large: bool, answers: &SyncSender<Answer>, builder: Builder) {
        while let Some(file) = self.next(takes_large) {
            let table = self.table(&file, builder);
            lock(&self.queue).in_flight.remove(&file.serial());
            if answers.send(Answer { serial: file.serial(), table }).is_err() {
                break;
            }
        }
    }

    /// Waits for a file; `None` when there will be none.
    fn next(&self, takes_large: bool) -> Option<Arc<ObjectFile>> {
        let mut queue = lock(&self.queue);
        loop {
            if queue.closed {
                return None;
            }
            if let Some(file) = queue.pop(takes_large, self.options.threads == 1) {
                return Some(file);
            }
            queue = self.changed.wait(queue).unwrap_or_else(PoisonError::into_inner);
        }
    }

    fn table(&self, file: &ObjectFile, builder: Builder) -> Result<Arc<Table>, UnwindError> {
        let failed = |problem| UnwindError {
            path: Arc::clone(file.path()),
            build_id: file.elf().and_then(|elf| elf.build_id.clone()),
            problem,
        };
        // What was written over in place no longer says what processes have mapped.
        if !file.is_unchanged() {
            return Err(failed(Problem::Changed));
        }
        let build_id = file.elf().and_then(|elf| elf.build_id.as_deref());
        let key = build_id.and_then(|build_id| Key::new(build_id, size(file)));
        if let Some(table) = key.as_ref().and_then(|key| self.shared(key, file)) {
            return Ok(table);
        }
        let cache = self.cache.as_deref().zip(key.as_ref());
        let cached = cache.and_then(|(cache, key)| cache.get(key, |evidence| evidence.holds_of(file)));
        let is_cached = cached.is_some();
        let Built { table, evidence } = match cached {
            Some((table, evidence)) => Built { table, evidence: Some(evidence) },
            None => catch_unwind(AssertUnwindSafe(|| builder(file)))
                .unwrap_or_else(|panic| Err(failed(Problem::Panicked(message(&*panic)))))?,
        };
        if !file.is_unchanged() {
            return Err(failed(Problem::Changed));
        }
        if let Some(((cache, key), evidence)) = cache.filter(|_| !is_cached).zip(evidence.as_ref()) {
            cache.put(key, &table, evidence);
        }
        let table = Arc::new(table);
        if let Some((key, evidence)) = key.zip(evidence) {
            self.share(key, &table, evidence);
        }
        Ok(table)
    }

    /// The table of an equal file, while somebody holds it.
    fn shared(&self, key: &Key, file: &ObjectFile) -> Option<Arc<Table>> {
        let (table, evidence) = {
            let tables = lock(&self.tables);
            let known = tables.get(key)?;
            (known.table.upgrade()?, Arc::clone(&known.evidence))
        };
        // Outside of the lock: it reads the file.
        evidence.holds_of(file).then_some(table)
    }

    fn share(&self, key: Key, table: &Arc<Table>, evidence: Evidence) {
        let mut tables = lock(&self.tables);
        if tables.len() >= MAX_SHARED {
            tables.retain(|_, known| known.table.strong_count() > 0);
        }
        if tables.len() < MAX_SHARED {
            let known = Known { table: Arc::downgrade(table), evidence: Arc::new(evidence) };
            tables.insert(key, known);
        }
    }
}

impl Queue {
    fn pop(&mut self, takes_large: bool, alone: bool) -> Option<Arc<ObjectFile>> {
        if !takes_large {
            return self.small.pop_front();
        }
        // Where others serve the small ones, the large ones come first; a thread that is alone
        // lets one in among every few small ones.
        let large_first = !alone || self.small_in_a_row >= SMALL_IN_A_ROW;
        let next = if large_first { self.large.pop_front() } else { None };
        if next.is_some() {
            self.small_in_a_row = 0;
            return next;
        }
        match self.small.pop_front() {
            Some(file) => {
                self.small_in_a_row += 1;
                Some(file)
            }
            None => {
                self.small_in_a_row = 0;
                self.large.pop_front()
            }
        }
    }
}

/// Bytes of a file; 0 if it cannot be asked.
fn size(file: &ObjectFile) -> u64 {
    rustix::fs::fstat(file).ok().and_then(|stat| u64::try_from(stat.st_size).ok()).unwrap_or_default()
}

/// What a panic said, if it said it in words.
fn message(panic: &(dyn std::any::Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().copied();
    text.or_else(|| panic.downcast_ref::<String>().map(String::as_str)).unwrap_or("no message").to_owned()
}

/// A queue is whole between any two statements, so a panic elsewhere does not spoil it.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests;
