//! Depths and sizes both sides must agree on.

/// Version of the record and settings layout; a mismatch between object and daemon refuses to load.
pub const ABI_VERSION: u32 = 1;

/// Most kernel frames in one record. `perf_event_max_stack` (default 127) bounds it further.
pub const MAX_KERNEL_FRAMES: usize = 128;

/// Most user frames in one record. `perf_event_max_stack` (default 127) bounds it further while
/// stacks come from the kernel's own frame-pointer walk.
pub const MAX_USER_FRAMES: usize = 512;

/// Bytes of a task's `comm`, including the terminating NUL (`TASK_COMM_LEN`, include/linux/sched.h).
pub const COMM_LEN: usize = 16;

/// Most process targets the in-kernel filter holds at a time (followed children included).
pub const MAX_FILTER_PIDS: u32 = 16_384;

/// Most cgroup targets the in-kernel filter holds at a time.
pub const MAX_FILTER_CGROUPS: u32 = 256;

/// How many cgroup ancestors are compared with the cgroup filter, counted from the root.
pub const MAX_CGROUP_DEPTH: u32 = 24;

const _: () = assert!(MAX_KERNEL_FRAMES.is_power_of_two() && MAX_USER_FRAMES.is_power_of_two());
