//! What may be asked of captures, and what goes wrong.

use std::time::Duration;

use crate::model::{Allowance, Pid, ProfileKind};

use super::Cause;

/// What to capture.
#[derive(Clone, Debug)]
pub struct CaptureSpec {
    /// What to measure; [`ProfileKind::OffCpu`] only, today.
    pub kind: ProfileKind,
    /// Whose time.
    pub target: TargetSpec,
    /// How long, 1 s to [`Limits::max_duration`]; `None`: 30 s.
    pub duration: Option<Duration>,
    /// Shortest interval that is recorded; `None`: 1 ms for the host, all for a narrower target.
    pub min_block: Option<Duration>,
    /// Whether to record who ended the waits; `None`: yes, but not for the host.
    pub wakers: Option<bool>,
    /// What it may take before it is ended; what is 0 is as [`Limits`] says.
    pub allowance: Allowance,
    /// Why it is started.
    pub cause: Cause,
}

/// Whose time a capture is about, as people say it: pids, or else a cgroup, or else the host.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TargetSpec {
    /// Processes, by pid in the daemon's host pid namespace.
    pub pids: Vec<Pid>,
    /// A cgroup: a path below the cgroup v2 mount, or an absolute one.
    pub cgroup: Option<String>,
}

impl TargetSpec {
    /// Whether the whole host is meant.
    #[must_use]
    pub fn is_host(&self) -> bool {
        self.pids.is_empty() && self.cgroup.is_none()
    }
}

/// Bounds on captures.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Longest capture.
    pub max_duration: Duration,
    /// Most captures that run at a time.
    pub max_running: usize,
    /// Most captures that are listed, those that run included.
    pub max_known: usize,
    /// Most pids of one target.
    pub max_pids: usize,
    /// What a capture may take before it is ended, if nothing less is asked for.
    pub allowance: Allowance,
    /// How long recording may take to begin, and the last records to come through after it.
    pub patience: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            max_duration: Duration::from_secs(600),
            max_running: 4,
            max_known: 100,
            max_pids: 1024,
            allowance: Allowance { events_per_second: 50_000, bytes: 64 << 20, millicpus: 1000 },
            patience: Duration::from_secs(10),
        }
    }
}

/// A request that was found in order, with its defaults filled in.
#[derive(Debug)]
pub(super) struct Order {
    pub(super) kind: ProfileKind,
    pub(super) target: TargetSpec,
    pub(super) duration: Duration,
    pub(super) min_block: Duration,
    pub(super) wakers: bool,
    pub(super) allowance: Allowance,
    pub(super) cause: Cause,
}

const MIN_DURATION: Duration = Duration::from_secs(1);
const DEFAULT_DURATION: Duration = Duration::from_secs(30);
const HOST_MIN_BLOCK: Duration = Duration::from_millis(1);
/// `PATH_MAX`, include/uapi/linux/limits.h.
const MAX_PATH: usize = 4096;

impl Limits {
    pub(super) fn check(&self, spec: CaptureSpec) -> Result<Order, CaptureError> {
        let invalid = |field, problem: String| Err(CaptureError::Invalid { field, problem });
        if spec.kind != ProfileKind::OffCpu {
            return invalid("kind", format!("a capture of kind {} is not possible: use off-cpu", spec.kind));
        }
        let TargetSpec { mut pids, cgroup } = spec.target;
        if pids.contains(&Pid(0)) {
            return invalid("target.pids", "0 is not the pid of a process".to_owned());
        }
        if pids.len() > self.max_pids {
            return invalid("target.pids", format!("{} pids given, {} allowed", pids.len(), self.max_pids));
        }
        pids.sort_unstable();
        pids.dedup();
        match &cgroup {
            Some(_) if !pids.is_empty() => {
                return invalid("target", "give pids or a cgroup, not both".to_owned());
            }
            Some(path) if path.is_empty() => return invalid("target.cgroup", "is empty".to_owned()),
            Some(path) if path.len() > MAX_PATH || path.contains('\0') => {
                return invalid("target.cgroup", "is not a path".to_owned());
            }
            _ => {}
        }
        let duration = spec.duration.unwrap_or(DEFAULT_DURATION.min(self.max_duration));
        if duration < MIN_DURATION || duration > self.max_duration {
            let max = self.max_duration;
            return invalid("duration", format!("{duration:?} is not within 1s to {max:?}"));
        }
        let target = TargetSpec { pids, cgroup };
        let default_min_block = if target.is_host() { HOST_MIN_BLOCK } else { Duration::ZERO };
        let min_block = spec.min_block.unwrap_or(default_min_block);
        if min_block > duration {
            let problem = format!("{min_block:?} is longer than the capture ({duration:?})");
            return invalid("min_block", problem);
        }
        // Each wake-up costs as much as the interval it ends.
        let wakers = spec.wakers.unwrap_or(!target.is_host());
        let allowance = self.allowance(spec.allowance)?;
        Ok(Order { kind: spec.kind, target, duration, min_block, wakers, allowance, cause: spec.cause })
    }

    fn allowance(&self, asked: Allowance) -> Result<Allowance, CaptureError> {
        let within = |field, asked: u64, most: u64| match asked {
            0 => Ok(most),
            asked if asked <= most => Ok(asked),
            _ => {
                let problem = format!("{asked} is above {most}, which the daemon is configured with");
                Err(CaptureError::Invalid { field, problem })
            }
        };
        let most = self.allowance;
        Ok(Allowance {
            events_per_second: within(
                "limits.events_per_second",
                asked.events_per_second,
                most.events_per_second,
            )?,
            bytes: within("limits.bytes", asked.bytes, most.bytes)?,
            millicpus: within("limits.millicpus", asked.millicpus, most.millicpus)?,
        })
    }
}

/// Why a capture was not started.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CaptureError {
    /// The request is out of range.
    #[error("{field}: {problem}")]
    Invalid {
        /// The field of the request, as in the public API.
        field: &'static str,
        /// What is wrong with it.
        problem: String,
    },
    /// As many captures run as may.
    #[error("{running} captures are running, no more may at a time; wait for one to end or stop one")]
    Busy {
        /// How many run.
        running: usize,
        /// When the next of them ends, unless it is stopped.
        retry_after: Duration,
    },
    /// The target is not there.
    #[error(transparent)]
    Resolve(#[from] ResolveError),
    /// The daemon is ending.
    #[error("the daemon is shutting down")]
    ShuttingDown,
}

impl CaptureError {
    /// Names of the reasons.
    pub(super) const NAMES: [&str; 4] = ["invalid", "busy", "no target", "shutting down"];

    /// Which of them it is, for counting.
    pub(super) fn name(&self) -> &'static str {
        match self {
            Self::Invalid { .. } => "invalid",
            Self::Busy { .. } => "busy",
            Self::Resolve(_) => "no target",
            Self::ShuttingDown => "shutting down",
        }
    }
}

/// Why a target cannot be recorded.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ResolveError {
    /// No process has this pid.
    #[error("no process has pid {pid}")]
    NoProcess {
        /// The pid.
        pid: Pid,
    },
    /// There is no such cgroup.
    #[error("there is no cgroup {path:?} in the cgroup v2 hierarchy")]
    NoCgroup {
        /// The path as given.
        path: String,
    },
    /// This host cannot record it.
    #[error("{problem}; {fix}")]
    Unavailable {
        /// What stands in the way.
        problem: String,
        /// What to do about it.
        fix: String,
    },
}

/// Why recording did not start.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct RecorderError(pub String);
