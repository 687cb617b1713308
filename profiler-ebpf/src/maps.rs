//! Every map, and the constants that user space sets at load time.

use core::ptr::null;

use aya_ebpf::macros::{btf_map, map};
use aya_ebpf::maps::{Array, HashMap, PerCpuArray, RingBuf};
use profiler_common::counters::COUNTERS as COUNTER_SLOTS;
use profiler_common::layout::KernelLayout;
use profiler_common::limits::{
    MAX_FILTER_CGROUPS, MAX_FILTER_PIDS, MAX_KERNEL_FRAMES, MAX_PROCESSES, MAX_USER_FRAMES,
};
use profiler_common::record::Header;
use profiler_common::settings::{FilterEntry, Settings};
use profiler_common::unwind::{MAX_RULES, Mapping, ProcessEntry, ROWS_PER_CHUNK};

use crate::rules::Cache;
use crate::walk::Walk;

/// Set by user space before loading; all zero until then.
#[unsafe(no_mangle)]
pub static KERNEL: KernelLayout = KernelLayout {
    task_pid: 0,
    task_tgid: 0,
    task_flags: 0,
    task_comm: 0,
    task_state: 0,
    task_group_leader: 0,
    task_start_time: 0,
    task_start_boottime: 0,
    task_signal: 0,
    signal_live: 0,
    task_cgroups: 0,
    css_set_dfl_cgrp: 0,
    cgroup_kn: 0,
    cgroup_level: 0,
    cgroup_ancestors: 0,
    cgroup_ancestor_ids: 0,
    kernfs_node_id: 0,
    switch_has_state: 0,
    max_stack: 0,
    check_walks: 0,
    time_walks: 0,
    task_rseq: 0,
    self_tgid: 0,
};

/// Reads one field of [`KERNEL`] in a way the compiler cannot fold into its initial zero.
macro_rules! kernel {
    ($field:ident) => {
        // SAFETY: a valid, aligned, initialised static.
        unsafe { core::ptr::read_volatile(&raw const $crate::maps::KERNEL.$field) }
    };
}
pub(crate) use kernel;

/// One slot per sampler: `SETTINGS_ON_CPU`, `SETTINGS_OFF_CPU`.
#[map]
pub static SETTINGS: Array<Settings> = Array::with_max_entries(2, 0);

// Hash maps have room for all entries from the start: before 6.1 perf_event programs may use no others.

/// Processes that pass a filter, by process id.
#[map]
pub static FILTER_PIDS: HashMap<u32, FilterEntry> = HashMap::with_max_entries(MAX_FILTER_PIDS, 0);

/// Cgroups that pass a filter, by cgroup id; the value is the bit set of samplers.
#[map]
pub static FILTER_CGROUPS: HashMap<u64, u32> = HashMap::with_max_entries(MAX_FILTER_CGROUPS, 0);

/// What was seen and what was lost, by `Counter`.
#[map]
pub static COUNTERS: PerCpuArray<u64> = PerCpuArray::with_max_entries(COUNTER_SLOTS, 0);

// Each kind of record has its own ring, so that a flood of one never starves another.
// Sizes are set at load time.

/// On-CPU hits.
#[map]
pub static ON_CPU_RING: RingBuf = RingBuf::with_byte_size(1 << 18, 0);

/// Off-CPU intervals.
#[map]
pub static OFF_CPU_RING: RingBuf = RingBuf::with_byte_size(1 << 18, 0);

/// Rare records about processes.
#[map]
pub static CONTROL_RING: RingBuf = RingBuf::with_byte_size(1 << 18, 0);

// Unwinding tables. User space writes them through `mmap`; sizes are set at load time.

/// `BPF_F_MMAPABLE`, include/uapi/linux/bpf.h.
const MMAPABLE: u32 = 1 << 10;

/// What is known of processes, by process id.
#[map]
pub static PROCESSES: HashMap<u32, ProcessEntry> = HashMap::with_max_entries(MAX_PROCESSES, 0);

/// The mappings of all processes, those of one in a row.
#[map]
pub static MAPPINGS: Array<Mapping> = Array::with_max_entries(1, MMAPABLE);

/// The pages of all tables, those of one in a row; see `profiler_common::unwind::page`.
#[map]
pub static PAGES: Array<u64> = Array::with_max_entries(1, MMAPABLE);

/// The rows of all pages; see `profiler_common::unwind::row`.
#[map]
pub static ROWS: Array<[u32; ROWS_PER_CHUNK]> = Array::with_max_entries(1, MMAPABLE);

/// The distinct rules of all tables, packed.
#[map]
pub static RULES: Array<u64> = Array::with_max_entries(MAX_RULES, MMAPABLE);

// One cache for each CPU and kind of program; programs that cannot interrupt each other share one. Values of per-CPU arrays are limited to 32 KiB, so
// these are plain arrays, indexed by CPU.
#[map]
pub static ON_CPU_CACHE: Array<Cache> = Array::with_max_entries(1, 0);
#[map]
pub static OFF_CPU_CACHE: Array<Cache> = Array::with_max_entries(1, 0);
#[map]
pub static RSEQ_CACHE: Array<Cache> = Array::with_max_entries(1, 0);

/// Where a record is put together before it goes into its ring.
#[repr(C)]
pub struct Scratch {
    pub header: Header,
    /// User frames from the first on, kernel frames behind the last of them.
    pub frames: [u64; MAX_USER_FRAMES + MAX_KERNEL_FRAMES],
    pub walk: Walk,
}

// One scratch per CPU and per program type: a sampling interrupt may hit while a scheduler hook
// runs, and a scheduler hook while the sweep runs.
#[map]
pub static ON_CPU_SCRATCH: PerCpuArray<Scratch> = PerCpuArray::with_max_entries(1, 0);
#[map]
pub static OFF_CPU_SCRATCH: PerCpuArray<Scratch> = PerCpuArray::with_max_entries(1, 0);
#[map]
pub static RSEQ_SCRATCH: PerCpuArray<Scratch> = PerCpuArray::with_max_entries(1, 0);
#[map]
pub static SWEEP_SCRATCH: PerCpuArray<Scratch> = PerCpuArray::with_max_entries(1, 0);
/// The second walk of a checking or measuring run.
#[map]
pub static CHECK_SCRATCH: PerCpuArray<Scratch> = PerCpuArray::with_max_entries(3, 0);

/// Places where a thread waits that are remembered; a power of two.
pub const SITES: usize = 8;

/// What is known of a thread and its time off the CPU. Belongs to the task itself, so that no
/// reused thread id, exec or exit can confuse two threads.
#[repr(C)]
pub struct ThreadState {
    /// `Draw::opened_ns` of the trace this state belongs to; others are stale.
    pub epoch: u64,
    /// Switch-out, ns; 0 while on the CPU.
    pub out_ns: u64,
    /// Wake-up, ns; 0 while blocked.
    pub wake_ns: u64,
    /// Last switch-in, ns.
    pub in_ns: u64,
    /// Off-CPU time until the clock ticks, ns: 1 to `period_ns`.
    pub left_ns: u64,
    /// Period of the clock in this interval, ns; 0 takes every interval.
    pub period_ns: u64,
    /// User stack pointer of the intervals that wait for their user stack.
    pub pending_sp: u64,
    /// When a user stack was last taken for no other reason than that its place was new.
    pub sighted_ns: u64,
    /// Counts the thread's intervals.
    pub sequence: u32,
    /// `task->__state` at switch-out.
    pub task_state: u32,
    /// First and last interval that wait for their user stack; 0: none does.
    pub pending_first: u32,
    pub pending_last: u32,
    /// Where in user space the thread is waiting; 0: not known.
    pub site: u32,
    /// 1: was runnable at switch-out.
    pub preempted: u8,
    /// `FLAG_` bits for the record.
    pub flags: u8,
    /// 1: this interval's user stack is in `STACKS`.
    pub kept: u8,
    /// Keeps `sites` aligned.
    pub padding: u8,
    /// Places and how long the thread was off the CPU there lately: `site << 32 | us`.
    pub sites: [u64; SITES],
}

/// The user stack of a thread that is off the CPU, where it had to be taken at switch-out.
#[repr(C)]
pub struct UserStack {
    /// Bytes used in `frames`.
    pub bytes: u16,
    /// How the walk ended.
    pub verdict: u8,
    /// Keeps `frames` aligned.
    pub padding: [u8; 5],
    /// Leaf first.
    pub frames: [u64; MAX_USER_FRAMES],
}

/// Task storage (kernel 5.11) is not among aya-ebpf's map types: this is its BTF definition.
#[repr(C)]
pub struct TaskStorage<T> {
    r#type: *const [i32; 29],
    key: *const i32,
    value: *const T,
    max_entries: *const [i32; 0],
    map_flags: *const [i32; 1],
}

impl<T> TaskStorage<T> {
    const fn new() -> Self {
        Self { r#type: null(), key: null(), value: null(), max_entries: null(), map_flags: null() }
    }
}

// SAFETY: only a description of a map; nobody reads through its pointers.
unsafe impl<T> Sync for TaskStorage<T> {}

#[btf_map]
pub static THREADS: TaskStorage<ThreadState> = TaskStorage::new();

/// Only for threads whose every interval is recorded.
#[btf_map]
pub static STACKS: TaskStorage<UserStack> = TaskStorage::new();
