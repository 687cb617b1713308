//! User stacks of intervals that have ended, read when the thread is on its way back to user mode.
//!
//! By then it is known that the clock ticked in the interval, so no stack is read in vain; and the
//! thread runs, so its memory can be read.

use aya_ebpf::programs::BtfTracePointContext;
use profiler_common::counters::Counter;
use profiler_common::settings::SETTINGS_OFF_CPU;

use crate::arch;
use crate::clock;
use crate::emit;
use crate::filter;
use crate::maps::{RSEQ_CACHE, RSEQ_SCRATCH, ThreadState};
use crate::offcpu;
use crate::task::{self, Task};
use crate::user_stack::{self, Apart};

/// Remembers that an interval, which ends now, wants the user stack.
#[inline(always)]
pub fn expect(state: &mut ThreadState, sp: u64) {
    // A thread may block several times before it is back in user mode: the stack is one and the
    // same, and so is its stack pointer.
    if state.pending_last == 0 || state.pending_sp != sp {
        emit::count(Counter::RseqExpected, 1);
        state.pending_first = state.sequence;
        state.pending_sp = sp;
    }
    state.pending_last = state.sequence;
}

/// `rseq_update(struct task_struct *t)`: `t` runs, and goes back to user mode.
#[inline(always)]
pub fn update(ctx: &BtfTracePointContext) {
    let Some(settings) = filter::open(SETTINGS_OFF_CPU) else { return };
    let task: Task = ctx.arg(0);
    let draw = clock::draw(settings, task);
    if !draw.tracked {
        return;
    }
    let state = task::off_cpu_state(task);
    if state.is_null() || offcpu::stale(state, &draw) {
        return;
    }
    // SAFETY: task storage of this thread, which runs here.
    let state = unsafe { &mut *state };
    if state.pending_last == 0 {
        return;
    }
    let (first, last) = (state.pending_first, state.pending_last);
    state.pending_last = 0;
    let Some(registers) = arch::saved_registers(task) else { return };
    // An exec came between: the stack that was wanted is no more.
    if registers.sp != state.pending_sp {
        return;
    }
    let Some(scratch) = RSEQ_SCRATCH.get_ptr_mut(0) else { return };
    user_stack::walk_into(ctx, scratch, &registers, task, [crate::rseq_walk, crate::rseq_check], 2);
    // Counted before it is sent: whether the ring is full says nothing about the tracepoint.
    emit::count(Counter::RseqServed, 1);
    let apart = Apart { first, last, site: clock::site(&registers), counter: Counter::StacksOnReturn };
    user_stack::send(scratch, task, &apart);
}

/// Some steps of the walk that is under way on this CPU; 0 ends it.
#[inline(always)]
pub fn walk_steps() -> u32 {
    user_stack::steps_of(&RSEQ_SCRATCH, &RSEQ_CACHE)
}
