//! Who wakes a thread: taken where it does so, for the intervals of sessions that ask for it.

use aya_ebpf::helpers::{bpf_get_current_task_btf, bpf_ktime_get_ns};
use aya_ebpf::programs::BtfTracePointContext;
use profiler_common::counters::Counter;
use profiler_common::limits::{MAX_KERNEL_FRAMES, MAX_USER_FRAMES};
use profiler_common::record::{
    FLAG_KERNEL_MISSING, FLAG_KERNEL_THREAD, FLAG_KERNEL_TRUNCATED, FLAG_USER_GUESSED, FLAG_USER_MISSING,
    KIND_WAKER,
};
use profiler_common::settings::{SETTINGS_OFF_CPU, Settings};
use profiler_common::unwind::verdict;

use crate::arch;
use crate::clock;
use crate::emit;
use crate::filter;
use crate::maps::{OFF_CPU_RING, OFF_CPU_SCRATCH, Scratch, kernel};
use crate::offcpu;
use crate::oncpu::{clamp, kernel_stack};
use crate::task::{self, Task};
use crate::user_stack;

/// `sched_waking(struct task_struct *p)`: unlike `sched_wakeup`, it always runs in the waker's own
/// context, and before the thread can run, so that its record comes before that of the interval.
///
/// The woken thread's `pi_lock` is held: nothing here may wake anybody or take a lock that a wake-up
/// takes. Interrupts are off, as they are in the hook of `sched_switch`, so neither interrupts the
/// other on a CPU and both use the same scratch and cache.
#[inline(always)]
pub fn waking(ctx: &BtfTracePointContext) {
    let Some(settings) = filter::open(SETTINGS_OFF_CPU) else { return };
    let task: Task = ctx.arg(0);
    if settings.wakers == 0 || !offcpu::eligible(settings, task) {
        return;
    }
    let Some(minimum_ns) = offcpu::minimum_ns(settings, task) else { return };
    // SAFETY: helpers without arguments (kernel 5.11).
    let (waker, now) = unsafe { (bpf_get_current_task_btf() as Task, bpf_ktime_get_ns()) };
    // Who wakes itself has not left the CPU. Only there interrupts are on.
    if task::tid(waker) == task::tid(task) {
        return;
    }
    let Some((since, sequence)) = blocked_since(settings, task) else { return };
    let blocked_ns = now.saturating_sub(since);
    if blocked_ns < minimum_ns {
        return;
    }
    let Some(scratch) = OFF_CPU_SCRATCH.get_ptr_mut(0) else { return };
    // SAFETY: this CPU's scratch of the scheduler hooks.
    let header = unsafe { &mut (*scratch).header };
    emit::describe(header, KIND_WAKER, waker);
    header.blocked_ns = blocked_ns;
    header.sequence = sequence;
    header.task_state = task::tid(task);
    header.site = task::tgid(task);
    header.preempted_ns = task::process_start(task);
    let user_bytes =
        if header.flags & FLAG_KERNEL_THREAD == 0 { user_frames(ctx, scratch, waker) * 8 } else { 0 };
    header.user_frames = (user_bytes / 8) as u16;
    let kernel_bytes = kernel_stack(ctx, scratch, user_bytes);
    if kernel_bytes < 0 {
        header.flags |= FLAG_KERNEL_MISSING;
    }
    let kernel_bytes = clamp(kernel_bytes, MAX_KERNEL_FRAMES * 8);
    header.kernel_frames = (kernel_bytes / 8) as u8;
    if kernel_bytes / 8 >= u64::from(kernel!(max_stack)) {
        header.flags |= FLAG_KERNEL_TRUNCATED;
    }
    let bytes = clamp(user_bytes as i64, MAX_USER_FRAMES * 8) + kernel_bytes;
    emit::send(&OFF_CPU_RING, scratch, bytes, Counter::Wakers, Counter::WakerRingFull);
}

/// Since when the thread has been blocked, and in which of its intervals; `None` for one that is not
/// off the CPU, or not blocked, or was woken before.
#[inline(always)]
fn blocked_since(settings: &Settings, task: Task) -> Option<(u64, u32)> {
    let state = task::off_cpu_state(task);
    let draw = clock::draw(settings, task);
    if state.is_null() || offcpu::stale(state, &draw) {
        // Blocked since before the trace began: `sched_wakeup`, which follows, begins its state.
        return Some((offcpu::unseen_since(&draw, task), offcpu::FIRST));
    }
    // SAFETY: task storage of this thread; its `pi_lock` orders its wake-ups.
    let state = unsafe { &*state };
    let blocked = state.out_ns != 0 && state.preempted == 0 && state.wake_ns == 0;
    if blocked { Some((state.out_ns, state.sequence)) } else { None }
}

/// Walks the waker's user stack into the first frames; how many there are.
#[inline(always)]
fn user_frames(ctx: &BtfTracePointContext, scratch: *mut Scratch, waker: Task) -> u64 {
    // SAFETY: this CPU's scratch of the scheduler hooks.
    let record = unsafe { &mut *scratch };
    let Some(registers) = arch::saved_registers(waker) else {
        record.header.flags |= FLAG_USER_MISSING;
        record.header.verdict = verdict::NO_REGISTERS;
        return 0;
    };
    user_stack::walk_into(ctx, scratch, &registers, waker, [crate::off_cpu_walk, crate::off_cpu_check], 1);
    record.header.verdict = record.walk.verdict as u8;
    if record.walk.guessed != 0 {
        record.header.flags |= FLAG_USER_GUESSED;
    }
    record.walk.frames()
}
