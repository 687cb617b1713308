//! Reads from `struct task_struct`, at the offsets that user space found in BTF.

use core::ffi::c_void;
use core::ptr::null_mut;

use aya_ebpf::bindings::task_struct;
use aya_ebpf::helpers::{bpf_probe_read_kernel, generated::bpf_task_storage_get};
use profiler_common::layout::ABSENT;

use crate::arch;
use crate::maps::{STACKS, THREADS, TaskStorage, ThreadState, UserStack, kernel};

pub type Task = *mut task_struct;

/// `PF_KTHREAD`, include/linux/sched.h. The idle tasks (pid 0) carry it too.
const PF_KTHREAD: u32 = 0x0020_0000;

/// Reads a field through a pointer the verifier knows as a task: a plain load, no helper call.
macro_rules! direct {
    ($task:expr, $field:ident, $type:ty) => {{
        let offset = kernel!($field) as usize;
        // SAFETY: the verifier checks the offset against the kernel's own type information.
        unsafe { *(($task as *const u8).add(offset) as *const $type) }
    }};
}

#[inline(always)]
pub fn tid(task: Task) -> u32 {
    direct!(task, task_pid, u32)
}

#[inline(always)]
pub fn tgid(task: Task) -> u32 {
    direct!(task, task_tgid, u32)
}

#[inline(always)]
pub fn state(task: Task) -> u32 {
    direct!(task, task_state, u32)
}

#[inline(always)]
pub fn is_kernel_thread(task: Task) -> bool {
    direct!(task, task_flags, u32) & PF_KTHREAD != 0
}

/// Start of the thread on the clock of `bpf_ktime_get_ns`.
#[inline(always)]
pub fn start_time(task: Task) -> u64 {
    direct!(task, task_start_time, u64)
}

/// Start of the thread's process in ns since boot; 0 if it could not be read.
#[inline(always)]
pub fn process_start(task: Task) -> u64 {
    let leader: u64 = read(task as u64, kernel!(task_group_leader));
    read(leader, kernel!(task_start_boottime))
}

#[inline(always)]
pub fn comm(task: Task) -> [u8; 16] {
    read(task as u64, kernel!(task_comm))
}

/// The address at which the thread left user mode; 0 for kernel threads.
#[inline(always)]
pub fn user_ip(task: Task) -> u64 {
    arch::saved_registers(task).map_or(0, |registers| registers.ip)
}

/// Whether the thread has told the kernel of a restartable-sequences area; without one
/// `rseq:rseq_update` never fires for it.
#[inline(always)]
pub fn has_rseq(task: Task) -> bool {
    if kernel!(task_rseq) == ABSENT {
        return false;
    }
    direct!(task, task_rseq, u64) != 0
}

/// Whether no other thread of the process is left.
#[inline(always)]
pub fn is_last_thread(task: Task) -> bool {
    let signal: u64 = read(task as u64, kernel!(task_signal));
    read::<u32>(signal, kernel!(signal_live)) == 0
}

/// The thread's cgroup in the v2 hierarchy: a `struct cgroup *`, 0 if it could not be read.
#[inline(always)]
pub fn cgroup(task: Task) -> u64 {
    let set: u64 = read(task as u64, kernel!(task_cgroups));
    read(set, kernel!(css_set_dfl_cgrp))
}

/// Id of a `struct cgroup`.
#[inline(always)]
pub fn cgroup_id(cgroup: u64) -> u64 {
    let node: u64 = read(cgroup, kernel!(cgroup_kn));
    read(node, kernel!(kernfs_node_id))
}

/// How deep a `struct cgroup` lies below the root.
#[inline(always)]
pub fn cgroup_level(cgroup: u64) -> u32 {
    read(cgroup, kernel!(cgroup_level))
}

/// Id of a `struct cgroup`'s ancestor at a level; its own id at its own level.
#[inline(always)]
pub fn cgroup_ancestor_id(cgroup: u64, level: u32) -> u64 {
    let slot = level * 8;
    if kernel!(cgroup_ancestors) != ABSENT {
        let ancestor: u64 = read(cgroup, kernel!(cgroup_ancestors) + slot);
        cgroup_id(ancestor)
    } else {
        read(cgroup, kernel!(cgroup_ancestor_ids) + slot)
    }
}

/// The thread's off-CPU state, or null.
#[inline(always)]
pub fn off_cpu_state(task: Task) -> *mut ThreadState {
    storage(&raw const THREADS, task, 0)
}

/// The thread's off-CPU state, all zero if it had none; null if the kernel refuses it.
#[inline(always)]
pub fn off_cpu_state_or_new(task: Task) -> *mut ThreadState {
    storage(&raw const THREADS, task, CREATE)
}

/// The user stack that was taken when the thread left the CPU, or null.
#[inline(always)]
pub fn kept_stack(task: Task) -> *mut UserStack {
    storage(&raw const STACKS, task, 0)
}

/// Room for such a stack; null if the kernel refuses it.
#[inline(always)]
pub fn kept_stack_or_new(task: Task) -> *mut UserStack {
    storage(&raw const STACKS, task, CREATE)
}

/// `BPF_LOCAL_STORAGE_GET_F_CREATE`, include/uapi/linux/bpf.h.
const CREATE: u64 = 1;

#[inline(always)]
fn storage<T>(map: *const TaskStorage<T>, task: Task, flags: u64) -> *mut T {
    // SAFETY: the map is task storage and the verifier knows `task` as a task.
    unsafe { bpf_task_storage_get(map as *mut c_void, task.cast(), null_mut(), flags) as *mut T }
}

/// Reads kernel memory; a fault gives the zero value, which no caller takes for a real one.
#[inline(always)]
fn read<T: Copy + Zero>(base: u64, offset: u32) -> T {
    // SAFETY: the helper checks the address and fails on a fault.
    unsafe { bpf_probe_read_kernel((base as *const u8).wrapping_add(offset as usize) as *const T) }
        .unwrap_or(T::ZERO)
}

trait Zero {
    const ZERO: Self;
}

impl Zero for u64 {
    const ZERO: Self = 0;
}

impl Zero for u32 {
    const ZERO: Self = 0;
}

impl Zero for [u8; 16] {
    const ZERO: Self = [0; 16];
}
