//! What `capture` needs of the rest: finds targets, starts and stops recording sessions.

use std::time::Duration;

use super::own_cost;
use super::pipeline::{SessionSpec, Sessions};
use super::targets;
use crate::capture::{BoxFuture, Recorder, RecorderError, Recording, ResolveError, TargetSpec};
use crate::model::{Detail, ProfileKind, Target};
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
        detail: Detail,
    ) -> BoxFuture<'_, Result<Recording, RecorderError>> {
        let spec = SessionSpec { session, kind, target, detail, frequency_hz: None };
        Box::pin(async move {
            let opened = self.sessions.start(spec).await.map_err(|error| {
                tracing::error!(session, %error, "a capture could not be started");
                RecorderError(error.to_string())
            })?;
            Ok(Recording { profile: opened.profile, usage: opened.usage })
        })
    }

    fn cpu_time(&self) -> Duration {
        own_cost::cpu_time()
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
