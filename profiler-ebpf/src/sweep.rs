//! The sweep over all threads: off-CPU intervals that have not ended are in the picture too.

use core::ffi::c_void;

use aya_ebpf::bindings::task_struct;
use aya_ebpf::helpers::bpf_ktime_get_ns;
use profiler_common::record::{FLAG_STARTED_BEFORE, FLAG_USER_MISSING, KIND_STILL_OFF_CPU};
use profiler_common::settings::SETTINGS_OFF_CPU;

use crate::filter;
use crate::maps::{SWEEP_SCRATCH, ThreadState};
use crate::offcpu::{self, Interval};
use crate::task;

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
    if task.is_null() || !offcpu::wanted(settings, task) {
        return;
    }
    // SAFETY: helper without arguments.
    let now = unsafe { bpf_ktime_get_ns() };
    let state = task::off_cpu_state(task);
    if !state.is_null() && !offcpu::stale(state, settings) {
        // SAFETY: task storage of a thread the iterator holds. It may switch while we look: then
        // the interval is already in the ring, and `out_ns` reads 0 or the start of a new one.
        let out_ns = unsafe { (*state).out_ns };
        if out_ns != 0 {
            // SAFETY: as above; plain integers.
            let interval = offcpu::interval(unsafe { &*state }, now);
            offcpu::record(&SWEEP_SCRATCH, KIND_STILL_OFF_CPU, task, state, &interval);
            return;
        }
        // SAFETY: as above.
        let since = unsafe { (*state).in_ns };
        blocked_since(task, since.max(settings.opened_ns), now);
        return;
    }
    blocked_since(task, offcpu::unseen_since(settings, task), now);
}

/// A thread that was never seen switching has been blocked all along, if it is blocked at all.
#[inline(always)]
fn blocked_since(task: *mut task_struct, since: u64, now: u64) {
    let task_state = task::state(task);
    if task_state == 0 {
        return;
    }
    let interval = Interval {
        blocked_ns: now.saturating_sub(since),
        run_queue_ns: 0,
        preempted_ns: 0,
        task_state,
        sequence: 0,
        flags: FLAG_STARTED_BEFORE | FLAG_USER_MISSING,
    };
    offcpu::record(&SWEEP_SCRATCH, KIND_STILL_OFF_CPU, task, core::ptr::null::<ThreadState>(), &interval);
}
