//! Depths and sizes both sides must agree on.

/// Most kernel frames in one record. `perf_event_max_stack` (default 127) bounds it further.
pub const MAX_KERNEL_FRAMES: usize = 128;

/// Most user frames in one record.
pub const MAX_USER_FRAMES: usize = 512;

/// Most processes whose code is known to the programs at a time.
pub const MAX_PROCESSES: u32 = 16_384;

/// Bytes of a task's `comm`, including the terminating NUL (`TASK_COMM_LEN`, include/linux/sched.h).
pub const COMM_LEN: usize = 16;

/// Most process targets the in-kernel filter holds at a time (followed children included).
pub const MAX_FILTER_PIDS: u32 = 16_384;

/// Most cgroup targets the in-kernel filter holds at a time.
pub const MAX_FILTER_CGROUPS: u32 = 256;

/// How many cgroup ancestors are compared with the cgroup filter, counted from the root.
pub const MAX_CGROUP_DEPTH: u32 = 24;

const _: () = assert!(MAX_KERNEL_FRAMES.is_power_of_two() && MAX_USER_FRAMES.is_power_of_two());
