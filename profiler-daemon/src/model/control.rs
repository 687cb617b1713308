//! The one message type that travels back to the task that owns the loaded eBPF object.

use super::{CgroupId, ProcessId};

/// Which of the kernel's samplers is meant.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum SamplerKind {
    /// The perf-event sampler.
    OnCpu,
    /// The scheduler hooks.
    OffCpu,
}

/// What is to be recorded.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Target {
    /// Everything.
    #[default]
    Host,
    /// These processes, all their threads.
    Processes {
        /// The processes, each told apart from a later one with the same pid.
        ids: Vec<ProcessId>,
        /// Also the children they fork from now on.
        follow: bool,
    },
    /// A cgroup and all below it.
    Cgroup {
        /// The cgroup's id.
        id: CgroupId,
        /// Its path, for people.
        path: String,
    },
}

/// What `capture` and the daemon ask of the kernel stage.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Control {
    /// Starts recording off-CPU intervals for a session, on top of those that run.
    StartOffCpu {
        /// The session's number, unique while the daemon runs.
        session: u64,
        /// What to record.
        target: Target,
        /// Shortest interval wanted, ns; the smallest wish of all sessions is what the kernel gets.
        min_block_ns: u64,
    },
    /// Writes the still-open intervals of a session into the ring, then forgets the session.
    StopOffCpu {
        /// The session's number.
        session: u64,
    },
}
