//! The sweep over all threads: off-CPU intervals that have not ended are in the picture too.

use core::ffi::c_void;

use aya_ebpf::bindings::task_struct;
use aya_ebpf::helpers::bpf_ktime_get_ns;
use profiler_common::record::{KIND_STILL_OFF_CPU, SAMPLED_BY_CLOCK, SAMPLED_BY_SESSION, STACK_APART};
use profiler_common::settings::{SETTINGS_OFF_CPU, Settings};

use crate::clock::{self, Draw};
use crate::filter;
use crate::interval::{self, Interval};
use crate::maps::{SWEEP_SCRATCH, UserStack};
use crate::offcpu;
use crate::task::{self, Task};

/// `struct bpf_iter__task`, kernel/bpf/task_iter.c. The task is null at the end of the walk.
#[repr(C)]
pub struct TaskIterContext {
    meta: *mut c_void,
    task: *mut task_struct,
}

/// Records the thread if it is off the CPU.
#[inline(always)]
pub fn visit(ctx: *mut TaskIterContext) {
    let Some(settings) = filter::open(SETTINGS_OFF_CPU) else { return };
    // SAFETY: the kernel hands over a valid context.
    let task = unsafe { (*ctx).task };
    if task.is_null() {
        return;
    }
    let draw = clock::draw(settings, task);
    if !draw.tracked || !offcpu::wanted(settings, task) {
        return;
    }
    // SAFETY: helper without arguments.
    let now = unsafe { bpf_ktime_get_ns() };
    let state = task::off_cpu_state(task);
    if state.is_null() || offcpu::stale(state, &draw) {
        let since = offcpu::unseen_since(&draw, task);
        blocked_since(settings, &draw, task, since, now, offcpu::FIRST, clock::phase(settings, task));
        return;
    }
    // SAFETY: task storage of a thread the iterator holds. It may switch while we look: plain
    // integers, and what we saw is asked again before anything is written.
    let fields = unsafe { &*state };
    let (out_ns, sequence) = (volatile(&raw const fields.out_ns), volatile(&raw const fields.sequence));
    if out_ns == 0 {
        // With clocks that means it runs; without, that its switch-out was not wanted.
        if settings.clock == 0 {
            let since = fields.in_ns.max(draw.opened_ns);
            let left_ns = clock::left(fields, settings, task);
            blocked_since(settings, &draw, task, since, now, sequence, left_ns);
        }
        return;
    }
    let mut interval = Interval::of(fields, settings, now);
    let mut left_ns = fields.left_ns;
    let ticked = interval.run_clock(&mut left_ns);
    let kept = if fields.kept != 0 { task::kept_stack(task) } else { core::ptr::null_mut() };
    // Where it has ended meanwhile, its own record is on its way: it clears `out_ns` first.
    let still =
        || volatile(&raw const fields.out_ns) == out_ns && volatile(&raw const fields.sequence) == sequence;
    write(settings, &draw, task, kept, &mut interval, ticked, still);
}

/// A thread that was never seen switching has been blocked all along, if it is blocked at all.
#[inline(always)]
fn blocked_since(
    settings: &Settings,
    draw: &Draw,
    task: Task,
    since: u64,
    now: u64,
    sequence: u32,
    left_ns: u64,
) {
    let task_state = task::state(task);
    // A zombie waits for nothing.
    if task_state == 0 || task_state & offcpu::TASK_DEAD != 0 {
        return;
    }
    let mut interval = Interval::unseen(now.saturating_sub(since), task_state, sequence);
    interval.period_ns = settings.period_ns;
    interval.thread_share = settings.thread_share as u8;
    let mut left_ns = left_ns;
    let ticked = interval.run_clock(&mut left_ns);
    write(settings, draw, task, core::ptr::null_mut(), &mut interval, ticked, || true);
}

#[inline(always)]
fn write(
    settings: &Settings,
    draw: &Draw,
    task: Task,
    kept: *mut UserStack,
    interval: &mut Interval,
    ticked: bool,
    still: impl FnOnce() -> bool,
) {
    if draw.clocked && (ticked || interval.period_ns == 0) {
        interval.sampled |= SAMPLED_BY_CLOCK;
    }
    if offcpu::minimum_ns(settings, task).is_some() {
        interval.sampled |= SAMPLED_BY_SESSION;
    }
    if interval.sampled == 0 {
        return;
    }
    if kept.is_null() {
        interval.sampled |= STACK_APART;
    }
    interval::record(&SWEEP_SCRATCH, KIND_STILL_OFF_CPU, task, kept, interval, still);
}

#[inline(always)]
fn volatile<T: Copy>(field: *const T) -> T {
    // SAFETY: a field of task storage.
    unsafe { field.read_volatile() }
}
