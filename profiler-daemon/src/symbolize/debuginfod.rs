//! Debug information from debuginfod servers, if an administrator names some: fetched by a thread of
//! its own, kept on disk, never waited for.
//!
//! Whoever runs a server learns the build ids of what runs here, and serves files that are parsed
//! here; so nothing is asked unless it was configured, and what comes is trusted no more than the
//! binary itself.

mod cache;

use std::io::Read;
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use rustc_hash::FxHashMap;
use ureq::Agent;

use crate::model::{Loss, Stage};

use cache::Cache;

/// Most build ids that wait to be asked for.
const QUEUE: usize = 256;
/// Most build ids that are remembered.
const MAX_KNOWN: usize = 16_384;
/// How long a server has for the name lookup, and then for the connection.
const CONNECT: Duration = Duration::from_secs(5);
/// How long a server has for all of a request: it may have to unpack a package first.
const WHOLE: Duration = Duration::from_secs(120);
/// A server that does not know a build id may learn it later, from a new package.
const ABSENT_FOR: Duration = Duration::from_secs(3600);
/// A server that fails is left alone for so long, as far as one build id goes.
const FAILED_FOR: Duration = Duration::from_secs(300);

const FAILED: &str = "debuginfod request failed";
const OVERFLOW: &str = "debuginfod queue full";

/// Which servers are asked, and what they may cost.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Options {
    /// Servers, asked in this order: `https://debuginfod.example.org`.
    pub urls: Vec<String>,
    /// Where files are kept; made where it is missing.
    pub cache_dir: PathBuf,
    /// What all kept files may take, in bytes; a single file half of it.
    pub cache_bytes: u64,
}

/// What is known of a build id's file.
pub(super) enum Answer {
    /// It is here.
    File(OwnedFd),
    /// Somebody is asking.
    Pending,
    /// No server has it, as far as is known now.
    Absent,
}

/// A handle on the thread that asks.
pub(super) struct Debuginfod {
    shared: Arc<Shared>,
    queue: SyncSender<Arc<str>>,
    seen: u64,
}

struct Shared {
    cache: Cache,
    known: Mutex<FxHashMap<Arc<str>, Known>>,
    /// Counts the answers that came: what waits for one looks here.
    answered: AtomicU64,
    failed: AtomicU64,
    overflowed: AtomicU64,
    stop: AtomicBool,
}

#[derive(Clone, Copy)]
enum Known {
    Asked,
    Cached,
    AbsentUntil(Instant),
}

impl Debuginfod {
    /// Starts the thread.
    ///
    /// # Errors
    /// No thread, or no directory for the files.
    pub(super) fn start(options: Options) -> std::io::Result<Self> {
        let shared = Arc::new(Shared {
            cache: Cache::open(options.cache_dir, options.cache_bytes)?,
            known: Mutex::default(),
            answered: AtomicU64::new(0),
            failed: AtomicU64::new(0),
            overflowed: AtomicU64::new(0),
            stop: AtomicBool::new(false),
        });
        let (queue, questions) = sync_channel(QUEUE);
        let asker = Asker { shared: Arc::clone(&shared), agent: agent(), urls: options.urls };
        std::thread::Builder::new().name("debuginfod".to_owned()).spawn(move || asker.run(&questions))?;
        Ok(Self { shared, queue, seen: 0 })
    }

    /// The file of a build id (lower-case hex). What is not here is asked for.
    pub(super) fn get(&self, build_id: &Arc<str>) -> Answer {
        let mut known = self.shared.known();
        match known.get(build_id) {
            Some(Known::Asked) => return Answer::Pending,
            Some(Known::AbsentUntil(until)) if Instant::now() < *until => return Answer::Absent,
            _ => {}
        }
        if let Some(fd) = self.shared.cache.get(build_id) {
            known.insert(Arc::clone(build_id), Known::Cached);
            return Answer::File(fd);
        }
        if known.len() >= MAX_KNOWN {
            known.retain(|_, known| matches!(known, Known::Asked));
        }
        match self.queue.try_send(Arc::clone(build_id)) {
            Ok(()) => {
                known.insert(Arc::clone(build_id), Known::Asked);
                Answer::Pending
            }
            Err(TrySendError::Full(_)) => {
                self.shared.overflowed.fetch_add(1, Ordering::Relaxed);
                Answer::Absent
            }
            Err(TrySendError::Disconnected(_)) => Answer::Absent,
        }
    }

    /// Whether answers came since the last call.
    pub(super) fn has_news(&mut self) -> bool {
        let answered = self.shared.answered.load(Ordering::Acquire);
        std::mem::replace(&mut self.seen, answered) != answered
    }

    /// Whether a file that was pending is here now.
    pub(super) fn has(&self, build_id: &str) -> bool {
        matches!(self.shared.known().get(build_id), Some(Known::Cached))
    }

    /// Whether a build id is still being asked for.
    pub(super) fn is_pending(&self, build_id: &str) -> bool {
        matches!(self.shared.known().get(build_id), Some(Known::Asked))
    }

    /// What went wrong since the last call.
    pub(super) fn take_loss(&self, loss: &mut Loss) {
        loss.add(Stage::Symbolize, FAILED, self.shared.failed.swap(0, Ordering::Relaxed));
        loss.add(Stage::Symbolize, OVERFLOW, self.shared.overflowed.swap(0, Ordering::Relaxed));
    }
}

impl Drop for Debuginfod {
    /// The thread may sit in a request for a while; nobody waits for it.
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::Relaxed);
    }
}

impl Shared {
    fn known(&self) -> MutexGuard<'_, FxHashMap<Arc<str>, Known>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Why a server gave nothing.
#[derive(Debug, thiserror::Error)]
enum AskError {
    #[error("the server does not have it")]
    Absent,
    #[error("{0}")]
    Http(#[from] Box<ureq::Error>),
    #[error("status {0}")]
    Status(u16),
    #[error("cannot keep the file: {0}")]
    Keep(#[from] std::io::Error),
    #[error("more than {0} bytes")]
    TooLarge(u64),
    #[error("not an ELF file of this build id")]
    Mismatch,
    #[error("told to stop")]
    Stopped,
}

struct Asker {
    shared: Arc<Shared>,
    agent: Agent,
    urls: Vec<String>,
}

impl Asker {
    fn run(self, questions: &Receiver<Arc<str>>) {
        while let Ok(build_id) = questions.recv() {
            let known = self.ask_all(&build_id);
            if self.shared.stop.load(Ordering::Relaxed) {
                return;
            }
            self.shared.known().insert(build_id, known);
            self.shared.answered.fetch_add(1, Ordering::Release);
        }
    }

    /// Asks one server after the other until one has the file.
    fn ask_all(&self, build_id: &str) -> Known {
        let mut again_in = ABSENT_FOR;
        for url in &self.urls {
            match self.ask(url, build_id) {
                Ok(()) => return Known::Cached,
                Err(AskError::Absent) => {}
                Err(error) => {
                    again_in = FAILED_FOR;
                    self.shared.failed.fetch_add(1, Ordering::Relaxed);
                    tracing::debug!(url, build_id, %error, "debuginfod request failed");
                }
            }
        }
        Known::AbsentUntil(Instant::now() + again_in)
    }

    fn ask(&self, url: &str, build_id: &str) -> Result<(), AskError> {
        // A build id is hex digits (see `procs::ElfInfo`): it cannot change the path.
        let url = format!("{}/buildid/{build_id}/debuginfo", url.trim_end_matches('/'));
        let response = self.agent.get(&url).call().map_err(Box::new)?;
        match response.status().as_u16() {
            200 => {}
            404 => return Err(AskError::Absent),
            status => return Err(AskError::Status(status)),
        }
        let limit = self.shared.cache.max_file_bytes();
        let mut body = response.into_body().into_with_config().limit(limit + 1).reader();
        let mut draft = self.shared.cache.draft(build_id)?;
        let mut buffer = vec![0; 64 << 10];
        let mut total = 0;
        loop {
            let count = body.read(&mut buffer)?;
            if count == 0 {
                break;
            }
            total += count as u64;
            if total > limit {
                return Err(AskError::TooLarge(limit));
            }
            if self.shared.stop.load(Ordering::Relaxed) {
                return Err(AskError::Stopped);
            }
            draft.write(buffer.get(..count).unwrap_or_default())?;
        }
        if draft.build_id().as_deref() != Some(build_id) {
            return Err(AskError::Mismatch);
        }
        Ok(draft.keep()?)
    }
}

/// What asks: nothing from the environment (proxies), no cookies, few redirects, bounded in time.
fn agent() -> Agent {
    Agent::config_builder()
        .http_status_as_error(false)
        .proxy(None)
        .max_redirects(3)
        .user_agent(concat!("profiler/", env!("CARGO_PKG_VERSION")))
        .timeout_resolve(Some(CONNECT))
        .timeout_connect(Some(CONNECT))
        .timeout_global(Some(WHOLE))
        .build()
        .into()
}

#[cfg(test)]
mod tests;
