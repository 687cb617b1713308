//! Whose time is recorded, and by which of the kernel's samplers.

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
    /// These processes, all their threads, each told apart from a later one with the same pid.
    Processes(Vec<ProcessId>),
    /// A process from its next exec on, and all the children it forks. Which those are is known
    /// in the kernel only.
    Command(ProcessId),
    /// A cgroup and all below it.
    Cgroup {
        /// The cgroup's id.
        id: CgroupId,
        /// Its path, for people.
        path: String,
    },
}
