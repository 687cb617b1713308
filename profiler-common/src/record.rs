//! Ring-buffer records: a fixed header and then `user_frames + kernel_frames` addresses (u64 each).
//!
//! Every record starts with [`Header`]; `header.kind` says which ring and meaning it has.
//! Addresses follow leaf first, user frames before kernel frames. All integers are native-endian.

#[cfg(feature = "user")]
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use crate::limits::COMM_LEN;

/// Version of this layout. A reader refuses records of another one.
pub const VERSION: u8 = 4;

/// A hit of the on-CPU sampler.
pub const KIND_ON_CPU: u8 = 1;
/// An off-CPU interval that has ended.
pub const KIND_OFF_CPU: u8 = 2;
/// An off-CPU interval that is still open: written by the sweep over all tasks.
pub const KIND_STILL_OFF_CPU: u8 = 3;
/// A process was forked (control ring): the record is about the child.
pub const KIND_FORK: u8 = 4;
/// A process has become another program (control ring).
pub const KIND_EXEC: u8 = 5;
/// The last thread of a process has ended (control ring).
pub const KIND_EXIT: u8 = 6;

/// The user stack of off-CPU intervals, written apart from them. `sequence` names the last interval
/// it belongs to and `task_state` the first, `site` where the thread waited.
pub const KIND_USER_STACK: u8 = 7;

/// Who ended the blocked part of an off-CPU interval: the header and the frames are the waker's, and
/// the record comes before the interval's own. `site` is the pid of the thread that was woken,
/// `task_state` its tid, `preempted_ns` the start of its process as in [`Header::process_start_ns`],
/// `sequence` the interval, `blocked_ns` its length so far.
///
/// The thread that ran is not the waker where an interrupt hit it: the kernel frames tell.
pub const KIND_WAKER: u8 = 8;

/// The kernel stack was cut at the kernel's own depth limit.
pub const FLAG_KERNEL_TRUNCATED: u8 = 1 << 0;
/// At least one user frame was guessed: found by following the frame pointer, for want of a table, or
/// by a register that the frames it called may have changed.
pub const FLAG_USER_GUESSED: u8 = 1 << 1;
/// The user stack could not be read at all; only the leaf address (or nothing) is there.
pub const FLAG_USER_MISSING: u8 = 1 << 2;
/// The kernel stack could not be read.
pub const FLAG_KERNEL_MISSING: u8 = 1 << 3;
/// The thread is a kernel thread: it has no user stack.
pub const FLAG_KERNEL_THREAD: u8 = 1 << 4;
/// The interval began before the probes were attached; its start is the start of the trace.
pub const FLAG_STARTED_BEFORE: u8 = 1 << 5;

/// The off-CPU clock wants the interval: it ticked in it, or takes every interval.
pub const SAMPLED_BY_CLOCK: u8 = 1 << 0;
/// The sessions want the interval: it is of one of their targets and long enough.
pub const SAMPLED_BY_SESSION: u8 = 1 << 1;
/// The user stack follows in a [`KIND_USER_STACK`] record, when the thread is back in user mode.
pub const STACK_FOLLOWS: u8 = 1 << 2;
/// The user stack went ahead in a [`KIND_USER_STACK`] record, if one was taken at all.
pub const STACK_APART: u8 = 1 << 3;

/// [`Header::site`] of all intervals that began with a preemption: each of them has a place of its
/// own, so none says anything about another.
pub const SITE_PREEMPTED: u32 = 1;

/// Fixed part of each record. 120 bytes, 8-byte aligned.
#[derive(Clone, Copy, Debug, Default)]
#[cfg_attr(feature = "user", derive(FromBytes, IntoBytes, Immutable, KnownLayout))]
#[repr(C)]
pub struct Header {
    /// One of the `KIND_` values.
    pub kind: u8,
    /// [`VERSION`] of this layout.
    pub version: u8,
    /// `FLAG_` bits.
    pub flags: u8,
    /// Number of kernel frames that follow the user frames.
    pub kernel_frames: u8,
    /// Number of user frames that follow.
    pub user_frames: u16,
    /// CPU on which the record was written.
    pub cpu: u16,
    /// `bpf_ktime_get_ns` (CLOCK_MONOTONIC) when the record was written.
    pub time_ns: u64,
    /// Process id (tgid) in the initial pid namespace.
    pub pid: u32,
    /// Thread id in the initial pid namespace.
    pub tid: u32,
    /// Start of the process: `group_leader->start_boottime`, ns since boot.
    /// `/proc/PID/stat` field 22 is the same clock in ticks.
    pub process_start_ns: u64,
    /// Id of the thread's cgroup in the v2 hierarchy: the inode number of its directory.
    pub cgroup_id: u64,
    /// Off-CPU: time from switch-out to wake-up, ns. On-CPU: 0.
    pub blocked_ns: u64,
    /// Off-CPU: time from wake-up to running, ns. On-CPU: 0.
    pub run_queue_ns: u64,
    /// Off-CPU: time off the CPU although runnable at switch-out, ns. On-CPU: 0.
    pub preempted_ns: u64,
    /// Off-CPU: `task->__state` at switch-out (include/linux/sched.h). On-CPU: 0.
    /// [`KIND_FORK`]: the parent's pid.
    pub task_state: u32,
    /// Off-CPU: number of the interval within its thread, to tell a swept open interval from
    /// the same interval when it ends.
    pub sequence: u32,
    /// On-CPU: nominal sampling period, ns (1e9 / frequency). Off-CPU: period of the thread's
    /// clock, ns; 0 where it takes every interval.
    pub period_ns: u64,
    /// The thread's name, NUL-padded.
    pub comm: [u8; COMM_LEN],
    /// Off-CPU: ticks of the clock in the blocked, run-queue and preempted part.
    pub ticks: [u32; 3],
    /// Off-CPU: names where in user space the thread waited (hash of its instruction and stack
    /// pointer); 0 where that is not known, or says nothing.
    pub site: u32,
    /// How the walk of the user stack ended, one of [`crate::unwind::verdict`].
    pub verdict: u8,
    /// Off-CPU: `SAMPLED_` and `STACK_` bits.
    pub sampled: u8,
    /// Off-CPU: the clock looked at one thread in `1 << thread_share`.
    pub thread_share: u8,
    /// Keeps the size a multiple of 8.
    pub padding: [u8; 5],
}

const _: () = assert!(size_of::<Header>() == 120 && align_of::<Header>() == 8);
