//! Captures: bounded sessions, started on demand, whose result stays in the store.

mod cause;
mod id;
mod limit;
mod session;
mod spec;

#[cfg(test)]
mod tests;

use std::collections::VecDeque;
use std::future::Future;
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use tokio::sync::{oneshot, watch};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

pub use self::cause::Cause;
use self::session::Session;
pub use self::spec::{CaptureError, CaptureSpec, Limits, RecorderError, ResolveError, TargetSpec};
use crate::model::{
    Allowance, CgroupId, Counts, Detail, Pid, ProcessId, Profile, ProfileKind, Target, Usage,
};
use crate::store::{CaptureAbout, Store, StoredCapture, Summary};

/// A future that a [`Recorder`] hands out.
pub type BoxFuture<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// What records for a capture: the rest of the agent, as captures see it.
pub trait Recorder: Send + Sync {
    /// Finds the processes or the cgroup that are meant. Short: it reads a few files.
    ///
    /// # Errors
    /// When there is no such target, or this host cannot record it.
    fn resolve(&self, kind: ProfileKind, target: &TargetSpec) -> Result<Target, ResolveError>;

    /// Starts recording.
    fn start(
        &self,
        session: u64,
        kind: ProfileKind,
        target: Target,
        detail: Detail,
    ) -> BoxFuture<'_, Result<Recording, RecorderError>>;

    /// Stops recording. Called once for each session that started, or did not start in time.
    fn stop(&self, session: u64) -> BoxFuture<'_, ()>;

    /// CPU time that everything that records has taken since it was started.
    fn cpu_time(&self) -> Duration;
}

/// A recording that goes on.
#[derive(Debug)]
pub struct Recording {
    /// Yields the profile after [`Recorder::stop`], once all that was recorded has gone through.
    pub profile: oneshot::Receiver<Profile>,
    /// What it has taken so far.
    pub usage: Arc<Usage>,
}

/// A capture as it is now.
#[derive(Clone, Debug)]
pub struct Capture {
    /// Its id, for example `20261123-221501-ab12`: when it started (UTC), and a random part.
    pub id: String,
    /// What it measures.
    pub kind: ProfileKind,
    /// Whose time, as it was asked for.
    pub target: TargetSpec,
    /// Whose time, as it was found.
    pub resolved: Target,
    /// Why it was started.
    pub cause: Cause,
    /// How far it is.
    pub state: CaptureState,
    /// When it was asked for; when recording began, once it has.
    pub started: SystemTime,
    /// When recording ended.
    pub ended: Option<SystemTime>,
    /// How long it is to record.
    pub duration: Duration,
    /// Shortest interval that is recorded.
    pub min_block: Duration,
    /// Whether it records who ended the waits.
    pub wakers: bool,
    /// What it may take before it is ended.
    pub allowance: Allowance,
    /// Why it failed or ended early; empty otherwise.
    pub reason: String,
    /// What the result is worth, once there is one.
    pub summary: Option<Summary>,
}

impl Capture {
    /// How long until its result is there, about.
    #[must_use]
    pub fn time_left(&self) -> Duration {
        let spent = self.started.elapsed().unwrap_or_default();
        // A second for what is still on its way when recording ends.
        self.duration.saturating_sub(spent) + Duration::from_secs(1)
    }
}

/// How far a capture is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CaptureState {
    /// Asked for; recording has not begun.
    Pending,
    /// Recording.
    Running,
    /// The result is in the store.
    Done,
    /// There is no result; [`Capture::reason`] says why.
    Failed,
}

impl CaptureState {
    /// Whether nothing will change any more.
    #[must_use]
    pub fn is_final(self) -> bool {
        matches!(self, Self::Done | Self::Failed)
    }
}

/// All captures: those that run and the last that ended.
///
/// A capture belongs to the daemon, not to whoever asked for it: it goes on when the caller
/// leaves. A target process that exits does not end it either: what it did is part of the
/// picture.
pub struct Captures {
    recorder: Arc<dyn Recorder>,
    store: Arc<Store>,
    limits: Limits,
    sessions: AtomicU64,
    started: Counts,
    refused: Counts,
    /// Oldest first.
    known: Mutex<VecDeque<Known>>,
    /// Cancelled when the daemon shuts down.
    closing: CancellationToken,
    tasks: TaskTracker,
}

struct Known {
    now: watch::Receiver<Capture>,
    stop: CancellationToken,
}

impl Known {
    /// One that ended in an earlier life of the daemon.
    fn ended(stored: StoredCapture) -> Self {
        let StoredCapture { id, range, summary, about } = stored;
        let CaptureAbout { pids, cgroup, duration, min_block, wakers, allowance, reason, cause, labels } =
            about;
        let resolved = stored_target(&pids, cgroup.as_deref());
        let (_, now) = watch::channel(Capture {
            id,
            kind: summary.kind,
            target: TargetSpec { pids, cgroup },
            state: CaptureState::Done,
            started: range.from,
            ended: Some(range.to),
            duration,
            min_block,
            wakers,
            allowance,
            reason,
            summary: Some(summary),
            resolved,
            cause: Cause::Stored { text: cause, labels },
        });
        Self { now, stop: CancellationToken::new() }
    }
}

impl Captures {
    /// Only those whose results the store still has, from before a restart.
    #[must_use]
    pub fn new(recorder: Arc<dyn Recorder>, store: Arc<Store>, limits: Limits) -> Self {
        let stored = store.captures();
        let surplus = stored.len().saturating_sub(limits.max_known);
        let known = stored.into_iter().skip(surplus).map(Known::ended).collect();
        Self {
            recorder,
            store,
            limits,
            sessions: AtomicU64::new(1),
            started: Counts::of(&Cause::NAMES),
            refused: Counts::of(&CaptureError::NAMES),
            known: Mutex::new(known),
            closing: CancellationToken::new(),
            tasks: TaskTracker::new(),
        }
    }

    /// Starts a capture and returns at once. Must be called within a tokio runtime.
    ///
    /// # Errors
    /// When the request is out of range, the target does not exist, as many captures run as may,
    /// or the daemon shuts down. What goes wrong later makes the capture fail.
    pub fn start(&self, spec: CaptureSpec) -> Result<Capture, CaptureError> {
        let cause = spec.cause.name();
        let started = self.try_start(spec);
        match &started {
            Ok(_) => self.started.add(cause),
            Err(error) => self.refused.add(error.name()),
        }
        started
    }

    /// How many were started, by cause, and refused, by why, in this life of the daemon.
    #[must_use]
    pub fn counts(&self) -> [Vec<(&'static str, u64)>; 2] {
        [self.started.read(), self.refused.read()]
    }

    fn try_start(&self, spec: CaptureSpec) -> Result<Capture, CaptureError> {
        let order = self.limits.check(spec)?;
        let target = self.recorder.resolve(order.kind, &order.target)?;

        let mut known = self.lock();
        if self.closing.is_cancelled() {
            return Err(CaptureError::ShuttingDown);
        }
        let running: Vec<Capture> = snapshots(&known).filter(|capture| !capture.state.is_final()).collect();
        if running.len() >= self.limits.max_running {
            let retry_after = running.iter().map(Capture::time_left).min().unwrap_or_default();
            return Err(CaptureError::Busy { running: running.len(), retry_after });
        }
        let started = SystemTime::now();
        let mut id = id::new(started);
        while snapshots(&known).any(|capture| capture.id == id) {
            id = id::new(started);
        }
        let min_block_ns = u64::try_from(order.min_block.as_nanos()).unwrap_or(u64::MAX);
        let detail = Detail { min_block_ns, wakers: order.wakers };
        let capture = Capture {
            id,
            kind: order.kind,
            target: order.target,
            resolved: target.clone(),
            cause: order.cause,
            state: CaptureState::Pending,
            started,
            ended: None,
            duration: order.duration,
            min_block: order.min_block,
            wakers: order.wakers,
            allowance: order.allowance,
            reason: String::new(),
            summary: None,
        };
        let (state, now) = watch::channel(capture.clone());
        let stop = self.closing.child_token();
        forget_oldest(&mut known, self.limits.max_known);
        known.push_back(Known { now, stop: stop.clone() });
        let session = Session {
            number: self.sessions.fetch_add(1, Ordering::Relaxed),
            recorder: Arc::clone(&self.recorder),
            store: Arc::clone(&self.store),
            state,
            stop,
            closing: self.closing.clone(),
            patience: self.limits.patience,
        };
        self.tasks.spawn(session.run(target, detail));
        Ok(capture)
    }

    /// A capture as it is now.
    #[must_use]
    pub fn get(&self, id: &str) -> Option<Capture> {
        snapshots(&self.lock()).find(|capture| capture.id == id)
    }

    /// All captures, newest first.
    #[must_use]
    pub fn list(&self) -> Vec<Capture> {
        let mut all: Vec<Capture> = snapshots(&self.lock()).collect();
        all.reverse();
        all
    }

    /// How many have not ended yet.
    #[must_use]
    pub fn running(&self) -> usize {
        snapshots(&self.lock()).filter(|capture| !capture.state.is_final()).count()
    }

    /// Ends a capture early, keeps what was seen, and returns it once that is in the store.
    /// Changes nothing about one that has ended. `None` where there is no such capture.
    pub async fn stop(&self, id: &str) -> Option<Capture> {
        let (mut now, stop) = {
            let known = self.lock();
            let known = known.iter().find(|known| known.now.borrow().id == id)?;
            (known.now.clone(), known.stop.clone())
        };
        stop.cancel();
        // The task ends the capture before it drops the sender.
        let _ended = now.wait_for(|capture| capture.state.is_final()).await.is_ok();
        let capture = now.borrow().clone();
        Some(capture)
    }

    /// Follows a capture; dropping the receiver does nothing to it.
    #[must_use]
    pub fn watch(&self, id: &str) -> Option<watch::Receiver<Capture>> {
        let known = self.lock();
        let known = known.iter().find(|known| known.now.borrow().id == id)?;
        Some(known.now.clone())
    }

    /// Refuses new captures, ends all that run and waits until their results are in the store.
    pub async fn shutdown(&self) {
        {
            // Under the lock, so that no start slips in between.
            let _known = self.lock();
            self.closing.cancel();
            self.tasks.close();
        }
        self.tasks.wait().await;
    }

    fn lock(&self) -> MutexGuard<'_, VecDeque<Known>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Whose time a stored capture is about. Which processes the pids were is not known any more, so
/// nothing may be recorded by this: it serves to look up what is stored of that time.
fn stored_target(pids: &[Pid], cgroup: Option<&str>) -> Target {
    match cgroup {
        Some(path) => Target::Cgroup { id: CgroupId(0), path: path.to_owned() },
        None if pids.is_empty() => Target::Host,
        None => Target::Processes(pids.iter().map(|&pid| ProcessId { pid, start_ticks: 0 }).collect()),
    }
}

fn snapshots(known: &VecDeque<Known>) -> impl Iterator<Item = Capture> + '_ {
    known.iter().map(|known| known.now.borrow().clone())
}

/// Makes room for one more: captures that ended go, oldest first; those that run never do.
fn forget_oldest(known: &mut VecDeque<Known>, max_known: usize) {
    while known.len() >= max_known.max(1) {
        let Some(oldest) = known.iter().position(|known| known.now.borrow().state.is_final()) else { break };
        known.remove(oldest);
    }
}
