//! Off-CPU intervals: from switch-out over wake-up to switch-in, as one record with both stacks.

use aya_ebpf::helpers::generated::{bpf_get_task_stack, bpf_probe_read_kernel};
use aya_ebpf::helpers::{bpf_get_smp_processor_id, bpf_ktime_get_ns};
use aya_ebpf::maps::PerCpuArray;
use aya_ebpf::programs::BtfTracePointContext;
use profiler_common::counters::Counter;
use profiler_common::limits::{MAX_KERNEL_FRAMES, MAX_USER_FRAMES};
use profiler_common::record::{
    FLAG_KERNEL_MISSING, FLAG_KERNEL_THREAD, FLAG_KERNEL_TRUNCATED, FLAG_STARTED_BEFORE, FLAG_USER_GUESSED,
    FLAG_USER_MISSING, KIND_OFF_CPU,
};
use profiler_common::settings::{SETTINGS_OFF_CPU, Settings};
use profiler_common::unwind::verdict;

use crate::arch;
use crate::emit;
use crate::filter;
use crate::maps::{OFF_CPU_CACHE, OFF_CPU_RING, OFF_CPU_SCRATCH, Scratch, ThreadState, kernel};
use crate::measure;
use crate::oncpu::clamp;
use crate::rules::Cache;
use crate::task::{self, Task};
use crate::walk;

/// `TASK_DEAD`, include/linux/sched.h: the task's last switch; its state goes with it.
const TASK_DEAD: u32 = 0x80;

/// An interval that ended or was swept, in its parts.
pub struct Interval {
    pub blocked_ns: u64,
    pub run_queue_ns: u64,
    pub preempted_ns: u64,
    pub task_state: u32,
    pub sequence: u32,
    pub flags: u8,
}

/// `sched_switch(bool preempt, struct task_struct *prev, struct task_struct *next[, unsigned int prev_state])`
#[inline(always)]
pub fn switch(ctx: &BtfTracePointContext) {
    let Some(settings) = filter::open(SETTINGS_OFF_CPU) else { return };
    // SAFETY: helper without arguments.
    let now = unsafe { bpf_ktime_get_ns() };
    switch_out(ctx, settings, now);
    switch_in(ctx, settings, now);
}

/// `sched_wakeup(struct task_struct *p)`
#[inline(always)]
pub fn wakeup(ctx: &BtfTracePointContext) {
    let Some(settings) = filter::open(SETTINGS_OFF_CPU) else { return };
    let task: Task = ctx.arg(0);
    // SAFETY: helper without arguments.
    let now = unsafe { bpf_ktime_get_ns() };
    let state = task::off_cpu_state(task);
    if state.is_null() || stale(state, settings) {
        // First sight of a thread that was blocked when the trace began.
        if wanted(settings, task) {
            begin_unseen(settings, task, now);
        }
        return;
    }
    // SAFETY: task storage of this thread; the run-queue lock orders its switches and wake-ups.
    let state = unsafe { &mut *state };
    // Wake-ups of a running or a merely preempted thread change nothing; the first one counts.
    if state.out_ns != 0 && state.preempted == 0 && state.wake_ns == 0 {
        state.wake_ns = now;
    }
}

/// The thread leaves the CPU: remember when, why and from which user stack.
#[inline(always)]
fn switch_out(ctx: &BtfTracePointContext, settings: &Settings, now: u64) {
    let task: Task = ctx.arg(1);
    let task_state = if kernel!(switch_has_state) != 0 { ctx.arg::<u32>(3) } else { task::state(task) };
    if task_state & TASK_DEAD != 0 || !wanted(settings, task) {
        return;
    }
    let state = task::off_cpu_state_or_new(task);
    if state.is_null() {
        emit::count(Counter::TaskStateFailed, 1);
        return;
    }
    // SAFETY: task storage of this thread; only its own switches and wake-ups write it.
    let state = unsafe { &mut *state };
    state.epoch = settings.opened_ns;
    state.out_ns = now;
    state.wake_ns = 0;
    state.sequence = state.sequence.wrapping_add(1);
    state.task_state = task_state;
    // Preemption on the way back to user mode calls schedule() with preempt = 0 and state 0, and a
    // thread can be preempted after it has set its state: both are preemption.
    state.preempted = (ctx.arg::<u32>(0) & 1 != 0 || task_state == 0) as u8;
    state.flags = 0;
    state.user_bytes = 0;
    state.verdict = verdict::NONE;
    if !task::is_kernel_thread(task) {
        user_stack(state, task);
    }
}

/// Keeps the user stack of a thread that is leaving the CPU. It is still current here, so its
/// memory can be read; at switch-in it cannot.
#[inline(always)]
fn user_stack(state: &mut ThreadState, task: Task) {
    let (Some(scratch), Some(registers)) = (OFF_CPU_SCRATCH.get_ptr_mut(0), arch::saved_registers(task))
    else {
        state.flags |= FLAG_USER_MISSING;
        state.verdict = verdict::NO_REGISTERS;
        return;
    };
    // SAFETY: this CPU's scratch for this program type.
    let record = unsafe { &mut *scratch };
    walk::begin(record, &registers, task::tgid(task), task::process_start(task));
    walk::run(crate::off_cpu_walk);
    measure::check(scratch, &registers, 1, crate::off_cpu_check);
    state.verdict = record.walk.verdict as u8;
    if record.walk.guessed != 0 {
        state.flags |= FLAG_USER_GUESSED;
    }
    let bytes = record.walk.frames() * 8;
    // SAFETY: both buffers hold at least `bytes` bytes.
    unsafe {
        bpf_probe_read_kernel((&raw mut state.user).cast(), bytes as u32, (&raw const record.frames).cast())
    };
    state.user_bytes = bytes as u16;
}

/// Some steps of the walk that is under way on this CPU; 0 ends it.
#[inline(always)]
pub fn walk_steps() -> u32 {
    let (Some(scratch), Some(cache)) = (OFF_CPU_SCRATCH.get_ptr_mut(0), cache()) else { return 0 };
    // SAFETY: values of this CPU and this kind of program.
    unsafe { walk::steps::<true>(scratch, cache) }
}

#[inline(always)]
fn cache() -> Option<*mut Cache> {
    // SAFETY: helper without arguments.
    OFF_CPU_CACHE.get_ptr_mut(unsafe { bpf_get_smp_processor_id() } as u32)
}

/// The thread is about to run again: its interval is over.
#[inline(always)]
fn switch_in(ctx: &BtfTracePointContext, settings: &Settings, now: u64) {
    let task: Task = ctx.arg(2);
    let mut state = task::off_cpu_state(task);
    if state.is_null() || stale(state, settings) {
        if !wanted(settings, task) {
            return;
        }
        // No wake-up was seen either: new, or runnable since before the trace began.
        state = begin_unseen(settings, task, 0);
        if state.is_null() {
            return;
        }
    }
    // SAFETY: as above.
    let state = unsafe { &mut *state };
    if state.out_ns == 0 {
        // Its switch-out was not wanted then. If it is wanted now, it has been off since; user
        // space cuts off what lies before the session.
        if wanted(settings, task) {
            state.out_ns = state.in_ns;
            state.flags = FLAG_STARTED_BEFORE | FLAG_USER_MISSING;
            state.user_bytes = 0;
            state.verdict = verdict::NONE;
        } else {
            return;
        }
    }
    let interval = interval(state, now);
    state.out_ns = 0;
    state.in_ns = now;
    let total = interval.blocked_ns + interval.run_queue_ns + interval.preempted_ns;
    if total < settings.min_block_ns {
        emit::count(Counter::OffCpuBelowMinimum, 1);
        emit::count(Counter::OffCpuBelowMinimumNs, total);
        return;
    }
    record(&OFF_CPU_SCRATCH, KIND_OFF_CPU, task, state, &interval);
}

/// Whether off-CPU time of this thread is recorded. Never our own: it would record its recording.
#[inline(always)]
pub fn wanted(settings: &Settings, task: Task) -> bool {
    task::tgid(task) != kernel!(self_tgid) && filter::passes(settings, SETTINGS_OFF_CPU, task)
}

/// Whether a state is left over from an earlier trace.
#[inline(always)]
pub fn stale(state: *const ThreadState, settings: &Settings) -> bool {
    // SAFETY: task storage, checked for null by the caller.
    unsafe { (*state).epoch != settings.opened_ns }
}

/// A thread whose switch-out was not seen has been off since the trace began, or since it exists.
#[inline(always)]
fn begin_unseen(settings: &Settings, task: Task, wake_ns: u64) -> *mut ThreadState {
    let state = task::off_cpu_state_or_new(task);
    if state.is_null() {
        emit::count(Counter::TaskStateFailed, 1);
        return state;
    }
    // SAFETY: task storage of this thread.
    unsafe {
        (*state).epoch = settings.opened_ns;
        (*state).out_ns = unseen_since(settings, task);
        (*state).wake_ns = wake_ns;
        (*state).in_ns = 0;
        (*state).sequence = 0;
        (*state).task_state = (wake_ns != 0) as u32;
        (*state).preempted = (wake_ns == 0) as u8;
        (*state).flags = FLAG_STARTED_BEFORE | FLAG_USER_MISSING;
        (*state).user_bytes = 0;
        (*state).verdict = verdict::NONE;
    }
    state
}

/// Since when a thread without state has been off the CPU.
#[inline(always)]
pub fn unseen_since(settings: &Settings, task: Task) -> u64 {
    task::start_time(task).max(settings.opened_ns)
}

/// Splits the time since switch-out.
#[inline(always)]
pub fn interval(state: &ThreadState, now: u64) -> Interval {
    let total = now.saturating_sub(state.out_ns);
    let mut interval = Interval {
        blocked_ns: 0,
        run_queue_ns: 0,
        preempted_ns: 0,
        task_state: state.task_state,
        sequence: state.sequence,
        flags: state.flags,
    };
    if state.preempted != 0 {
        interval.preempted_ns = total;
    } else if state.wake_ns == 0 {
        interval.blocked_ns = total;
    } else {
        interval.run_queue_ns = now.saturating_sub(state.wake_ns).min(total);
        interval.blocked_ns = total - interval.run_queue_ns;
    }
    interval
}

/// Writes an interval with the thread's kernel stack of now and its user stack of switch-out.
#[inline(always)]
pub fn record(
    scratches: &PerCpuArray<Scratch>,
    kind: u8,
    task: Task,
    state: *const ThreadState,
    interval: &Interval,
) {
    let Some(scratch) = scratches.get_ptr_mut(0) else { return };
    // SAFETY: this CPU's scratch for this program type.
    let header = unsafe { &mut (*scratch).header };
    emit::describe(header, kind, task);
    header.blocked_ns = interval.blocked_ns;
    header.run_queue_ns = interval.run_queue_ns;
    header.preempted_ns = interval.preempted_ns;
    header.task_state = interval.task_state;
    header.sequence = interval.sequence;
    header.flags |= interval.flags;
    if header.flags & FLAG_KERNEL_THREAD != 0 {
        header.flags &= !FLAG_USER_MISSING;
    }

    let mut user_bytes = 0;
    if !state.is_null() {
        // SAFETY: task storage, kept alive by the program's RCU section.
        unsafe {
            header.verdict = (*state).verdict;
            user_bytes = clamp((*state).user_bytes.into(), MAX_USER_FRAMES * 8);
            if user_bytes > 0 {
                // Both buffers hold at least `user_bytes` bytes.
                let frames = (&raw mut (*scratch).frames).cast();
                bpf_probe_read_kernel(frames, user_bytes as u32, (&raw const (*state).user).cast());
            }
        }
    }
    if user_bytes == 0 && header.flags & FLAG_KERNEL_THREAD == 0 {
        // At least where it left user mode, so that the wait has a place.
        // SAFETY: the scratch has room for one address.
        unsafe { (&raw mut (*scratch).frames).cast::<u64>().write_volatile(task::user_ip(task)) };
        user_bytes = 8;
    }
    header.user_frames = (user_bytes / 8) as u16;

    let limit = MAX_KERNEL_FRAMES * 8;
    // SAFETY: as many kernel frames as may come lie within the frames, behind all user frames.
    // The task is not running, so its stack stands.
    let kernel_bytes = unsafe {
        let frames = (&raw mut (*scratch).frames).cast::<u8>().add(user_bytes as usize);
        bpf_get_task_stack(task.cast(), frames.cast(), limit as u32, 0)
    };
    if kernel_bytes <= 0 {
        header.flags |= FLAG_KERNEL_MISSING;
    }
    let kernel_bytes = clamp(kernel_bytes, limit);
    header.kernel_frames = (kernel_bytes / 8) as u8;
    if kernel_bytes / 8 >= u64::from(kernel!(max_stack)) {
        header.flags |= FLAG_KERNEL_TRUNCATED;
    }
    let bytes = kernel_bytes + user_bytes;
    if !emit::send(&OFF_CPU_RING, scratch, bytes, Counter::OffCpuIntervals, Counter::OffCpuRingFull) {
        let lost = interval.blocked_ns + interval.run_queue_ns + interval.preempted_ns;
        emit::count(Counter::OffCpuRingFullNs, lost);
    }
}
