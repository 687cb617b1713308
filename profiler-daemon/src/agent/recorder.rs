//! What `capture` needs of the rest: finds targets, starts and stops recording sessions.

use tokio::sync::oneshot;

use super::pipeline::{SessionSpec, Sessions};
use super::targets;
use crate::capture::{BoxFuture, Recorder, RecorderError, ResolveError, TargetSpec};
use crate::model::{Profile, ProfileKind, Target};
use crate::procs::ProcsError;

/// Records captures through the daemon's own pipeline.
pub(super) struct PipelineRecorder {
    sessions: Sessions,
}

impl PipelineRecorder {
    pub(super) fn new(sessions: Sessions) -> Self {
        Self { sessions }
    }
}

impl Recorder for PipelineRecorder {
    fn resolve(&self, _kind: ProfileKind, spec: &TargetSpec) -> Result<Target, ResolveError> {
        match &spec.cgroup {
            _ if !spec.pids.is_empty() => targets::processes(&spec.pids).map_err(unresolved),
            Some(path) => targets::cgroup(path).map_err(unresolved),
            None => Ok(Target::Host),
        }
    }

    fn start(
        &self,
        session: u64,
        kind: ProfileKind,
        target: Target,
        min_block_ns: u64,
    ) -> BoxFuture<'_, Result<oneshot::Receiver<Profile>, RecorderError>> {
        let spec = SessionSpec { session, kind, target, min_block_ns, frequency_hz: None };
        Box::pin(async move {
            self.sessions.start(spec).await.map_err(|error| {
                tracing::error!(session, %error, "a capture could not be started");
                RecorderError(error.to_string())
            })
        })
    }

    fn stop(&self, session: u64) -> BoxFuture<'_, ()> {
        Box::pin(async move {
            if let Err(error) = self.sessions.end(session, false).await {
                tracing::error!(session, %error, "a capture did not end well");
            }
        })
    }
}

fn unresolved(error: ProcsError) -> ResolveError {
    match error {
        ProcsError::NoSuchProcess { pid } => ResolveError::NoProcess { pid },
        ProcsError::NoSuchCgroup { path, .. } => ResolveError::NoCgroup { path },
        other => ResolveError::Unavailable {
            problem: other.to_string(),
            fix: "run `profiler check` on the daemon's host".to_owned(),
        },
    }
}
