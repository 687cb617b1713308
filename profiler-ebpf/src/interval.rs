//! Off-CPU intervals: their parts, and the record of one with its kernel stack.

use aya_ebpf::helpers::generated::{bpf_get_task_stack, bpf_probe_read_kernel};
use aya_ebpf::maps::PerCpuArray;
use profiler_common::counters::Counter;
use profiler_common::limits::{MAX_KERNEL_FRAMES, MAX_USER_FRAMES};
use profiler_common::record::{
    FLAG_KERNEL_MISSING, FLAG_KERNEL_THREAD, FLAG_KERNEL_TRUNCATED, FLAG_STARTED_BEFORE, FLAG_USER_MISSING,
    KIND_STILL_OFF_CPU, SAMPLED_BY_CLOCK,
};
use profiler_common::settings::Settings;

use crate::clock;
use crate::emit;
use crate::maps::{OFF_CPU_RING, Scratch, ThreadState, UserStack, kernel};
use crate::oncpu::clamp;
use crate::task::{self, Task};

/// An interval that ended or was swept, in its parts.
pub struct Interval {
    pub blocked_ns: u64,
    pub run_queue_ns: u64,
    pub preempted_ns: u64,
    /// Ticks of the clock in each part.
    pub ticks: [u32; 3],
    /// Period of the clock, ns.
    pub period_ns: u64,
    pub task_state: u32,
    pub sequence: u32,
    pub site: u32,
    /// `FLAG_` bits.
    pub flags: u8,
    /// `SAMPLED_` and `STACK_` bits.
    pub sampled: u8,
    /// One thread in `1 << thread_share` is looked at.
    pub thread_share: u8,
}

impl Interval {
    /// Splits the time since switch-out.
    #[inline(always)]
    pub fn of(state: &ThreadState, settings: &Settings, now: u64) -> Self {
        let total = now.saturating_sub(state.out_ns);
        let mut interval = Self {
            blocked_ns: 0,
            run_queue_ns: 0,
            preempted_ns: 0,
            ticks: [0; 3],
            period_ns: state.period_ns,
            task_state: state.task_state,
            sequence: state.sequence,
            site: state.site,
            flags: state.flags,
            sampled: 0,
            thread_share: settings.thread_share as u8,
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

    /// An interval without state: blocked since then, if at all.
    #[inline(always)]
    pub fn unseen(blocked_ns: u64, task_state: u32, sequence: u32) -> Self {
        Self {
            blocked_ns,
            run_queue_ns: 0,
            preempted_ns: 0,
            ticks: [0; 3],
            period_ns: 0,
            task_state,
            sequence,
            site: 0,
            flags: FLAG_STARTED_BEFORE,
            sampled: 0,
            thread_share: 0,
        }
    }

    /// Lets the clock run through the parts; whether it ticked.
    #[inline(always)]
    pub fn run_clock(&mut self, left_ns: &mut u64) -> bool {
        let blocked = clock::tick(left_ns, self.blocked_ns, self.period_ns);
        let run_queue = clock::tick(left_ns, self.run_queue_ns, self.period_ns);
        let preempted = clock::tick(left_ns, self.preempted_ns, self.period_ns);
        self.ticks = [blocked, run_queue, preempted];
        blocked | run_queue | preempted != 0
    }

    /// Length of all parts.
    #[inline(always)]
    pub fn total_ns(&self) -> u64 {
        self.blocked_ns + self.run_queue_ns + self.preempted_ns
    }
}

/// Writes an interval with the thread's kernel stack of now and, where it was kept, its user stack
/// of switch-out. `still` is asked last thing before: `false` writes nothing.
#[inline(always)]
pub fn record(
    scratches: &PerCpuArray<Scratch>,
    kind: u8,
    task: Task,
    kept: *const UserStack,
    interval: &Interval,
    still: impl FnOnce() -> bool,
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
    header.period_ns = interval.period_ns;
    header.ticks = interval.ticks;
    header.site = interval.site;
    header.sampled = interval.sampled;
    header.thread_share = interval.thread_share;
    header.flags |= interval.flags;

    let mut user_bytes = 0;
    if !kept.is_null() {
        // SAFETY: task storage, kept alive by the program's RCU section.
        unsafe {
            header.verdict = (*kept).verdict;
            user_bytes = clamp((*kept).bytes.into(), MAX_USER_FRAMES * 8);
            if user_bytes > 0 {
                // Both buffers hold at least `user_bytes` bytes.
                let frames = (&raw mut (*scratch).frames).cast();
                bpf_probe_read_kernel(frames, user_bytes as u32, (&raw const (*kept).frames).cast());
            }
        }
    }
    if user_bytes == 0 && header.flags & FLAG_KERNEL_THREAD == 0 {
        // At least where it left user mode, so that the wait has a place.
        // SAFETY: the scratch has room for one address.
        unsafe { (&raw mut (*scratch).frames).cast::<u64>().write_volatile(task::user_ip(task)) };
        user_bytes = 8;
        header.flags |= FLAG_USER_MISSING;
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
    if !still() {
        return;
    }
    // The sweep has counters of its own: a switch may interrupt it. And what it writes comes once a
    // window whatever the period is, so the budget of samples is none of its business.
    if kind == KIND_STILL_OFF_CPU {
        emit::send(&OFF_CPU_RING, scratch, bytes, Counter::SweptIntervals, Counter::SweptRingFull);
        return;
    }
    if interval.sampled & SAMPLED_BY_CLOCK != 0 {
        emit::count(Counter::OffCpuTicked, 1);
    }
    emit::send(&OFF_CPU_RING, scratch, bytes, Counter::OffCpuIntervals, Counter::OffCpuRingFull);
}
