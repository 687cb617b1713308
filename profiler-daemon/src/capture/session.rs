//! One running capture: pending, running, then done or failed.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::{Capture, CaptureState, Recorder, Recording, limit};
use crate::model::{Detail, Profile, Target, TimeRange};
use crate::store::{CaptureAbout, CaptureResult, Store, Summary};

/// What a capture's task holds.
pub(super) struct Session {
    pub(super) number: u64,
    pub(super) recorder: Arc<dyn Recorder>,
    pub(super) store: Arc<Store>,
    pub(super) state: watch::Sender<Capture>,
    /// Cancelled by whoever stops this capture, and with `closing`.
    pub(super) stop: CancellationToken,
    /// Cancelled when the daemon shuts down.
    pub(super) closing: CancellationToken,
    /// [`super::Limits::patience`].
    pub(super) patience: Duration,
}

impl Session {
    pub(super) async fn run(self, target: Target, detail: Detail) {
        let outcome = self.record(target, detail).await;
        let ended = SystemTime::now();
        match outcome {
            Ok((profile, reason)) => self.done(profile, ended, reason),
            Err(reason) => self.state.send_modify(|capture| {
                capture.state = CaptureState::Failed;
                capture.ended.get_or_insert(ended);
                capture.reason = reason;
            }),
        }
    }

    /// The profile and why it ended early (empty if it did not), or why there is none.
    async fn record(&self, target: Target, detail: Detail) -> Result<(Profile, String), String> {
        if self.stop.is_cancelled() {
            return Err(format!("{} before it began", self.who_stopped()));
        }
        let kind = self.state.borrow().kind;
        let start = self.recorder.start(self.number, kind, target, detail);
        let Recording { mut profile, usage } = match tokio::time::timeout(self.patience, start).await {
            Ok(started) => started.map_err(|error| error.to_string())?,
            Err(_) => {
                self.recorder.stop(self.number).await;
                return Err(format!("recording did not begin within {} s", self.patience.as_secs_f64()));
            }
        };
        self.state.send_modify(|capture| {
            capture.state = CaptureState::Running;
            capture.started = SystemTime::now();
        });
        let (duration, allowance) = {
            let capture = self.state.borrow();
            (capture.duration, capture.allowance)
        };
        let (early, reason) = tokio::select! {
            () = tokio::time::sleep(duration) => (None, String::new()),
            () = self.stop.cancelled() => (None, self.who_stopped().to_owned()),
            reason = limit::exceeded(allowance, &usage, || self.recorder.cpu_time()) => (None, reason),
            early = &mut profile => (Some(early), "recording ended early: the profiler stopped".to_owned()),
        };
        self.state.send_modify(|capture| capture.ended = Some(SystemTime::now()));
        self.recorder.stop(self.number).await;
        let profile = match early {
            Some(early) => early,
            None => tokio::time::timeout(self.patience, profile).await.map_err(|_| {
                format!("its records were not through {} s after it ended", self.patience.as_secs_f64())
            })?,
        };
        match profile {
            Ok(profile) => Ok((profile, reason)),
            Err(_) => Err("recording ended without a result: the profiler stopped".to_owned()),
        }
    }

    fn who_stopped(&self) -> &'static str {
        if self.closing.is_cancelled() { "the daemon was shut down" } else { "stopped on request" }
    }

    fn done(&self, profile: Profile, ended: SystemTime, reason: String) {
        let (id, range, about) = {
            let capture = self.state.borrow();
            let to = capture.ended.unwrap_or(ended);
            let about = CaptureAbout {
                cause: capture.cause.to_string(),
                labels: capture.cause.labels().to_vec(),
                pids: capture.target.pids.clone(),
                cgroup: match &capture.resolved {
                    Target::Cgroup { path, .. } => Some(path.clone()),
                    _ => None,
                },
                duration: capture.duration,
                min_block: capture.min_block,
                wakers: capture.wakers,
                allowance: capture.allowance,
                reason: reason.clone(),
            };
            (capture.id.clone(), TimeRange { from: capture.started, to }, about)
        };
        let summary = Summary::of(&profile, range, range.length());
        // The result first: whoever sees `Done` finds it.
        let profile = Arc::new(profile);
        self.store.put_capture(CaptureResult { id, range, profile, summary: summary.clone(), about });
        self.state.send_modify(|capture| {
            capture.state = CaptureState::Done;
            capture.ended = Some(range.to);
            capture.reason = reason;
            capture.summary = Some(summary);
        });
    }
}
