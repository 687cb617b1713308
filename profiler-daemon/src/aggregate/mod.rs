//! The single owner of what is still being recorded: open windows and open sessions.

mod distributions;
mod precision;
mod reported;
mod session;
mod waits;
mod windows;

#[cfg(test)]
mod tests;

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use tokio::sync::{mpsc, oneshot};
use tokio::time::{Instant, MissedTickBehavior};

use self::session::Sessions;
use self::waits::Waits;
use self::windows::Windows;
use crate::model::{
    Batch, ClockAnchor, Detail, Fresh, MonoNs, Profile, ProfileKind, Target, Usage, WaitRules, Window,
};

/// How late a sample may be and still find its window open.
const GRACE: Duration = Duration::from_secs(1);
/// How often windows are looked at when no samples come.
const TICK: Duration = Duration::from_millis(250);
/// How far the wall clock may move away from the anchor (NTP step, suspend) before the windows
/// follow it.
const MAX_CLOCK_ERROR: Duration = Duration::from_secs(1);
/// Requests that may wait; each waits for one batch at most.
const REQUESTS: usize = 16;
/// Sealed windows that are told of as open ones are, since the store may not have them yet.
const KEPT: usize = 2;

/// What the aggregator keeps.
#[derive(Clone, Debug)]
pub struct Options {
    /// Length of a window; `None` keeps sessions only.
    pub window: Option<Duration>,
    /// Kinds that every window has a profile of, also where it stayed empty.
    pub kinds: Vec<ProfileKind>,
    /// Most distinct rows of one open profile. Records that would make more are counted as lost.
    pub max_rows: usize,
    /// What blocked threads wait for.
    pub waits: WaitRules,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            window: Some(Duration::from_secs(10)),
            kinds: vec![ProfileKind::OnCpu],
            max_rows: 200_000,
            waits: WaitRules::default(),
        }
    }
}

/// A session to open.
#[derive(Debug)]
pub struct OpenSession {
    /// Its number, unique while the program runs.
    pub session: u64,
    /// What to record; [`ProfileKind::Wall`] takes on-CPU and off-CPU records.
    pub kind: ProfileKind,
    /// Whose records.
    pub target: Target,
    /// Nothing before this instant counts: intervals are clipped to it.
    pub not_before: MonoNs,
    /// Which off-CPU intervals, and what of them.
    pub detail: Detail,
    /// Where the finished profile goes.
    pub reply: oneshot::Sender<Profile>,
    /// Where it says what it has taken.
    pub usage: Arc<Usage>,
}

/// A session that was opened.
#[derive(Debug)]
pub struct Opened {
    /// Yields the profile once a batch names the session in [`Batch::ended`], or the samples end.
    pub profile: oneshot::Receiver<Profile>,
    /// What it has taken so far.
    pub usage: Arc<Usage>,
}

#[derive(Debug)]
enum Request {
    Open(OpenSession),
    Abandon(u64),
    /// What the windows hold that are not sealed, or were only just.
    Fresh(std::sync::mpsc::SyncSender<Fresh>),
}

/// Opens and abandons sessions.
#[derive(Clone, Debug)]
pub struct Handle(mpsc::Sender<Request>);

/// The aggregator has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the aggregator has ended: the profiler is shutting down")]
pub struct Closed;

impl Handle {
    /// Opens a session. Records that are sent to the aggregator after this returns are seen by
    /// it.
    ///
    /// # Errors
    /// [`Closed`] when the aggregator has ended.
    pub async fn open(
        &self,
        session: u64,
        kind: ProfileKind,
        target: Target,
        not_before: MonoNs,
        detail: Detail,
    ) -> Result<Opened, Closed> {
        let (reply, profile) = oneshot::channel();
        let usage = Arc::default();
        let open =
            OpenSession { session, kind, target, not_before, detail, reply, usage: Arc::clone(&usage) };
        self.0.send(Request::Open(open)).await.map_err(|_| Closed)?;
        Ok(Opened { profile, usage })
    }

    /// What the open windows hold up to now, and those that were sealed last: they may still be on
    /// their way. Blocks for a moment; nothing where the answer takes longer than `patience` or the
    /// aggregator has ended.
    #[must_use]
    pub fn fresh(&self, patience: Duration) -> Fresh {
        let (reply, windows) = std::sync::mpsc::sync_channel(1);
        if self.0.try_send(Request::Fresh(reply)).is_err() {
            return Fresh::default();
        }
        windows.recv_timeout(patience).unwrap_or_default()
    }

    /// Forgets a session and what it saw. Dropping its receiver does the same, a little later.
    pub async fn abandon(&self, session: u64) {
        // Once the aggregator has ended, so has the session.
        let _ended = self.0.send(Request::Abandon(session)).await;
    }
}

/// Makes the aggregator. The future is its loop: it ends when `samples` closes, after it has
/// sealed the open windows and finished all sessions.
///
/// `anchor` translates kernel time into wall-clock time; when the wall clock is set or the
/// machine was suspended, the windows are sealed and the anchor is read anew.
pub fn start(
    options: Options,
    anchor: ClockAnchor,
    samples: mpsc::Receiver<Batch>,
    windows: mpsc::Sender<Window>,
) -> (Handle, impl Future<Output = ()> + Send) {
    with_clock(options, anchor, samples, windows, read_clocks)
}

fn read_clocks() -> ClockAnchor {
    let mono = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
    let ns = (mono.tv_sec as u64).saturating_mul(1_000_000_000).saturating_add(mono.tv_nsec as u64);
    ClockAnchor { mono: MonoNs(ns), wall: SystemTime::now() }
}

fn with_clock(
    options: Options,
    anchor: ClockAnchor,
    samples: mpsc::Receiver<Batch>,
    windows: mpsc::Sender<Window>,
    clock: impl Fn() -> ClockAnchor + Send + Sync,
) -> (Handle, impl Future<Output = ()> + Send) {
    let (sender, requests) = mpsc::channel(REQUESTS);
    let state = Aggregator {
        sessions: Sessions::new(options.max_rows),
        windows: options.window.map(|length| Windows::new(length, GRACE, options.kinds, options.max_rows)),
        waits: Waits::new(options.waits),
        sealed: VecDeque::new(),
        complete_to: MonoNs::default(),
        anchor,
        sink: windows,
        clock,
    };
    (Handle(sender), state.run(samples, requests))
}

struct Aggregator<C> {
    sessions: Sessions,
    windows: Option<Windows>,
    waits: Waits,
    /// The windows that were sealed last, until the store has surely got them.
    sealed: VecDeque<Window>,
    /// What was recorded before this instant has arrived.
    complete_to: MonoNs,
    anchor: ClockAnchor,
    sink: mpsc::Sender<Window>,
    clock: C,
}

impl<C: Fn() -> ClockAnchor> Aggregator<C> {
    async fn run(mut self, mut samples: mpsc::Receiver<Batch>, mut requests: mpsc::Receiver<Request>) {
        let mut tick = tokio::time::interval_at(Instant::now() + TICK, TICK);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        self.advance().await;
        loop {
            tokio::select! {
                // Requests first: a session that was asked for before a batch was sent sees it.
                biased;
                Some(request) = requests.recv() => match request {
                    Request::Open(open) => self.sessions.open(open),
                    Request::Abandon(session) => self.sessions.abandon(session),
                    // Whoever asked may have lost patience.
                    Request::Fresh(reply) => _ = reply.try_send(self.fresh()),
                },
                batch = samples.recv() => {
                    let Some(mut batch) = batch else { break };
                    self.waits.name(&mut batch.samples);
                    self.advance().await;
                    if let Some(windows) = &mut self.windows {
                        windows.insert(&batch, &self.anchor);
                    }
                    self.complete_to = self.complete_to.max(batch.complete_to);
                    self.sessions.insert(&batch);
                }
                _ = tick.tick() => {
                    self.advance().await;
                    self.sessions.forget_unwanted();
                }
            }
        }
        self.advance().await;
        let now = self.anchor.wall((self.clock)().mono);
        let rest = self.windows.as_mut().map(|windows| windows.seal_all(now)).unwrap_or_default();
        self.send(rest).await;
        self.sessions.finish_all();
    }

    /// Brings the windows to the present.
    async fn advance(&mut self) {
        let Some(windows) = &mut self.windows else { return };
        let read = (self.clock)();
        let now = self.anchor.wall(read.mono);
        let error = now.duration_since(read.wall).or_else(|_| read.wall.duration_since(now));
        let sealed = if error.is_ok_and(|error| error > MAX_CLOCK_ERROR) {
            let sealed = windows.seal_all(now);
            self.anchor = read;
            windows.advance(read.wall, read.wall);
            sealed
        } else {
            windows.advance(now, self.anchor.wall(self.complete_to))
        };
        self.send(sealed).await;
    }

    /// What is not sealed, or was only just.
    fn fresh(&self) -> Fresh {
        let now = self.anchor.wall((self.clock)().mono);
        let open = self.windows.iter().flat_map(|windows| windows.so_far(now)).collect();
        Fresh { sealed: self.sealed.iter().cloned().collect(), open }
    }

    async fn send(&mut self, sealed: Vec<Window>) {
        for window in sealed {
            // Their profiles are shared with what is on its way.
            self.sealed.push_back(window.clone());
            if self.sealed.len() > KEPT {
                self.sealed.pop_front();
            }
            if self.sink.send(window).await.is_err() {
                tracing::debug!("a sealed window was dropped: the store has gone");
            }
        }
    }
}
