//! Where the running kernel keeps what the programs read: found in BTF, handed over as constants.

#[cfg(feature = "user")]
use zerocopy::{Immutable, IntoBytes};

/// Offset of a field that this kernel does not have.
pub const ABSENT: u32 = u32::MAX;

/// Byte offsets in kernel structures, and facts about this kernel and this daemon that do not
/// change while the programs are loaded. The verifier sees constants and drops dead branches.
#[derive(Clone, Copy, Debug, Default)]
#[cfg_attr(feature = "user", derive(IntoBytes, Immutable))]
#[repr(C)]
pub struct KernelLayout {
    /// `task_struct.pid` (the thread id).
    pub task_pid: u32,
    /// `task_struct.tgid` (the process id).
    pub task_tgid: u32,
    /// `task_struct.flags`.
    pub task_flags: u32,
    /// `task_struct.comm`.
    pub task_comm: u32,
    /// `task_struct.__state`, or `state` before 5.14.
    pub task_state: u32,
    /// `task_struct.group_leader`.
    pub task_group_leader: u32,
    /// `task_struct.start_time`: CLOCK_MONOTONIC, ns.
    pub task_start_time: u32,
    /// `task_struct.start_boottime`: CLOCK_BOOTTIME, ns.
    pub task_start_boottime: u32,
    /// `task_struct.signal`.
    pub task_signal: u32,
    /// `signal_struct.live`: threads of the process that have not ended.
    pub signal_live: u32,
    /// `task_struct.cgroups`.
    pub task_cgroups: u32,
    /// `css_set.dfl_cgrp`.
    pub css_set_dfl_cgrp: u32,
    /// `cgroup.kn`.
    pub cgroup_kn: u32,
    /// `cgroup.level`.
    pub cgroup_level: u32,
    /// `cgroup.ancestors` (from 6.1), or [`ABSENT`].
    pub cgroup_ancestors: u32,
    /// `cgroup.ancestor_ids` (before 6.1), or [`ABSENT`].
    pub cgroup_ancestor_ids: u32,
    /// `kernfs_node.id`.
    pub kernfs_node_id: u32,
    /// 1 where the `sched_switch` tracepoint passes the previous task's state (from 5.18).
    pub switch_has_state: u32,
    /// Depth limit of the kernel's own stack walk (`kernel.perf_event_max_stack`).
    pub max_stack: u32,
    /// 1 in a checking run: every walk is done again without cache and window, and compared.
    pub check_walks: u32,
    /// 1 in a measuring run: every walk is timed, beside the kernel's own along frame pointers.
    pub time_walks: u32,
    /// `task_struct.rseq`: where the thread's restartable-sequences area is, or [`ABSENT`].
    pub task_rseq: u32,
    /// The daemon's own process id: the scheduler hooks leave it out, lest it records its own
    /// recording.
    pub self_tgid: u32,
}
