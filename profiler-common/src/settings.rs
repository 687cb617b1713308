//! Run-time knobs that user space writes into one-slot arrays and the programs read.

#[cfg(feature = "user")]
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use crate::clock::LEVELS;

/// Everything passes: the filter is off.
pub const FILTER_HOST: u32 = 0;
/// Only processes in the process filter, or in a listed cgroup, pass.
pub const FILTER_TARGETS: u32 = 1;

/// Index of the on-CPU knobs in `SETTINGS`.
pub const SETTINGS_ON_CPU: u32 = 0;
/// Index of the off-CPU knobs in `SETTINGS`.
pub const SETTINGS_OFF_CPU: u32 = 1;

/// One sampler's knobs. All-zero means: record nothing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[cfg_attr(feature = "user", derive(FromBytes, IntoBytes, Immutable, KnownLayout))]
#[repr(C)]
pub struct Settings {
    /// 0 while the sampler is closed: programs return at once.
    pub open: u32,
    /// One of the `FILTER_` values.
    pub filter: u32,
    /// Off-CPU: `bpf_ktime_get_ns` at which all probes were attached; no interval starts earlier.
    pub opened_ns: u64,
    /// Off-CPU: shortest interval that sessions of the whole host record, ns. 0 records every interval.
    pub min_block_ns: u64,
    /// Off-CPU: shortest interval that sessions record of the processes and cgroups in the filter, ns.
    pub min_block_listed_ns: u64,
    /// On-CPU: nominal sampling period, ns. Off-CPU: period of the threads' clocks, ns, at most
    /// [`MAX_CLOCK_PERIOD_NS`]; 0 takes every interval.
    pub period_ns: u64,
    /// Cgroups are in the filter: programs need to look at the thread's ancestors.
    pub cgroups: u32,
    /// 0 records kernel threads too, 1 leaves them out.
    pub skip_kernel_threads: u32,
    /// Off-CPU: 1 while threads of the whole host have their clocks.
    pub clock: u32,
    /// Off-CPU: 1 while sessions want every interval of those that pass the filter.
    pub sessions: u32,
    /// Off-CPU: 1 where `rseq:rseq_update` fires whenever a thread goes back to user mode.
    pub rseq: u32,
    /// Off-CPU: 1 while a session wants to know who wakes its threads.
    pub wakers: u32,
    /// Off-CPU: the clocks look at one thread in `1 << thread_share`: those whose
    /// [`crate::clock::level`] is at least this.
    pub thread_share: u32,
    /// Off-CPU: 1 once the share was smaller than the whole in this trace: `opened_by_level` holds.
    pub thinned: u32,
    /// Off-CPU: since when all switches of threads of a level have been seen, as `opened_ns`.
    pub opened_by_level: [u64; LEVELS],
}

/// Longest period of the off-CPU clock, ns: the programs scale it in 64 bits.
pub const MAX_CLOCK_PERIOD_NS: u64 = 60_000_000_000;

/// Value of a process in the filter: which samplers want it, and the process's start time so that
/// a reused pid never matches.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[cfg_attr(feature = "user", derive(FromBytes, IntoBytes, Immutable, KnownLayout))]
#[repr(C)]
pub struct FilterEntry {
    /// `group_leader->start_boottime` in units of [`CLOCK_TICK_NS`], as `/proc/PID/stat` has it.
    pub start_ticks: u64,
    /// Bit per sampler: `1 << SETTINGS_ON_CPU`, `1 << SETTINGS_OFF_CPU`.
    pub samplers: u32,
    /// 1: children join the filter when they are forked.
    pub follow: u32,
    /// Bit per sampler that wants the process from its next exec on: a command that is started
    /// to be recorded is recorded as itself, not as what started it.
    pub samplers_from_exec: u32,
    /// Keeps the size a multiple of 8.
    pub padding: u32,
}

/// Resolution of start times in `/proc/PID/stat`: 1 / USER_HZ, which is 100 on every architecture
/// Linux runs on today (include/asm-generic/param.h).
pub const CLOCK_TICK_NS: u64 = 10_000_000;
