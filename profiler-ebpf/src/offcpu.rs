//! The scheduler hooks of the off-CPU side: from switch-out over wake-up to switch-in.

use aya_ebpf::helpers::bpf_ktime_get_ns;
use aya_ebpf::programs::BtfTracePointContext;
use profiler_common::counters::Counter;
use profiler_common::record::{
    FLAG_STARTED_BEFORE, KIND_OFF_CPU, SAMPLED_BY_CLOCK, SAMPLED_BY_SESSION, SITE_PREEMPTED, STACK_APART,
    STACK_FOLLOWS,
};
use profiler_common::settings::{FILTER_HOST, SETTINGS_OFF_CPU, Settings};

use crate::arch;
use crate::clock::{self, Draw};
use crate::emit;
use crate::filter;
use crate::interval::{self, Interval};
use crate::maps::{OFF_CPU_CACHE, OFF_CPU_SCRATCH, ThreadState, kernel};
use crate::rseq;
use crate::task::{self, Task};
use crate::user_stack;

/// `TASK_DEAD`, include/linux/sched.h: the task's last switch; its state goes with it.
pub const TASK_DEAD: u32 = 0x80;

/// Number of the interval that was under way when a thread was first seen.
pub const FIRST: u32 = 1;

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
    let draw = clock::draw(settings, task);
    if !draw.tracked {
        return;
    }
    let state = task::off_cpu_state(task);
    if state.is_null() || stale(state, &draw) {
        // First sight of a thread that was blocked when the trace began.
        if wanted(settings, task) {
            // SAFETY: helper without arguments.
            begin_unseen(settings, &draw, task, unsafe { bpf_ktime_get_ns() });
        }
        return;
    }
    // SAFETY: task storage of this thread; the run-queue lock orders its switches and wake-ups.
    let state = unsafe { &mut *state };
    // Wake-ups of a running or a merely preempted thread change nothing. The first one counts; where
    // the switch-out was not wanted, the last: it may be wanted by the time the thread runs.
    if state.preempted == 0 && (state.wake_ns == 0 || state.out_ns == 0) {
        // SAFETY: helper without arguments.
        state.wake_ns = unsafe { bpf_ktime_get_ns() };
    }
}

/// The thread leaves the CPU: remember when, why and from where.
#[inline(always)]
fn switch_out(ctx: &BtfTracePointContext, settings: &Settings, now: u64) {
    let task: Task = ctx.arg(1);
    let draw = clock::draw(settings, task);
    if !draw.tracked {
        return;
    }
    let task_state = if kernel!(switch_has_state) != 0 { ctx.arg::<u32>(3) } else { task::state(task) };
    if task_state & TASK_DEAD != 0 || !eligible(settings, task) {
        return;
    }
    let minimum_ns = minimum_ns(settings, task);
    if minimum_ns.is_none() && settings.clock == 0 {
        return;
    }
    let state = task::off_cpu_state_or_new(task);
    if state.is_null() {
        emit::count(Counter::TaskStateFailed, 1);
        return;
    }
    // SAFETY: task storage of this thread; only its own switches and wake-ups write it.
    let state = unsafe { &mut *state };
    if state.epoch != draw.opened_ns {
        begin(state, settings, &draw, task);
    }
    clock::follow(state, settings, task);
    state.out_ns = now;
    state.wake_ns = 0;
    state.sequence = state.sequence.wrapping_add(1);
    state.task_state = task_state;
    // Preemption on the way back to user mode calls schedule() with preempt = 0 and state 0, and a
    // thread can be preempted after it has set its state: both are preemption.
    state.preempted = (ctx.arg::<u32>(0) & 1 != 0 || task_state == 0) as u8;
    state.flags = 0;
    state.kept = 0;
    state.site = 0;
    if let Some(registers) = arch::saved_registers(task) {
        state.site = if state.preempted != 0 { SITE_PREEMPTED } else { clock::site(&registers) };
        if minimum_ns.is_some() || draw.clocked {
            user_stack::at_switch_out(ctx, state, settings, task, &registers, minimum_ns, now);
        }
    }
}

/// Some steps of the walk that is under way on this CPU; 0 ends it.
#[inline(always)]
pub fn walk_steps() -> u32 {
    user_stack::steps_of(&OFF_CPU_SCRATCH, &OFF_CPU_CACHE)
}

/// The thread is about to run again: its interval is over.
#[inline(always)]
fn switch_in(ctx: &BtfTracePointContext, settings: &Settings, now: u64) {
    let task: Task = ctx.arg(2);
    let draw = clock::draw(settings, task);
    if !draw.tracked {
        return;
    }
    let mut state = task::off_cpu_state(task);
    if state.is_null() || stale(state, &draw) {
        if !wanted(settings, task) {
            return;
        }
        // No wake-up was seen either: new, or runnable since before the trace began.
        state = begin_unseen(settings, &draw, task, 0);
        if state.is_null() {
            return;
        }
    }
    // SAFETY: as above.
    let state = unsafe { &mut *state };
    if state.out_ns == 0 {
        // Its switch-out was not wanted then. If it is wanted now, it has been off since; user
        // space cuts off what lies before the session.
        if !wanted(settings, task) {
            return;
        }
        begin_unwanted(state, settings, task);
    }
    let mut interval = Interval::of(state, settings, now);
    // What belongs to this interval must not be taken for the next one's.
    (state.out_ns, state.wake_ns, state.preempted) = (0, 0, 0);
    state.in_ns = now;
    let total = interval.total_ns();
    let ticked = interval.run_clock(&mut state.left_ns);
    if draw.clocked {
        if ticked || interval.period_ns == 0 {
            interval.sampled |= SAMPLED_BY_CLOCK;
        }
        if state.site != 0 {
            clock::learn(state, state.site, total);
        }
    }
    if minimum_ns(settings, task).is_some_and(|minimum_ns| total >= minimum_ns) {
        interval.sampled |= SAMPLED_BY_SESSION;
    }
    if interval.sampled == 0 {
        return;
    }
    let mut kept = core::ptr::null_mut();
    if state.kept != 0 {
        kept = task::kept_stack(task);
    }
    if kept.is_null() {
        if let Some(registers) = arch::saved_registers(task) {
            if settings.rseq != 0 && task::has_rseq(task) {
                rseq::expect(state, registers.sp);
                interval.sampled |= STACK_FOLLOWS;
            }
            interval.sampled |= STACK_APART;
        }
    }
    interval::record(&OFF_CPU_SCRATCH, KIND_OFF_CPU, task, kept, &interval, || true);
}

/// Whether off-CPU time of this thread could be recorded at all. Never our own: it would record its
/// recording.
#[inline(always)]
pub fn eligible(settings: &Settings, task: Task) -> bool {
    if task::tid(task) == 0 || task::tgid(task) == kernel!(self_tgid) {
        return false;
    }
    settings.skip_kernel_threads == 0 || !task::is_kernel_thread(task)
}

/// The shortest interval of this thread that a session wants, ns; `None` where none wants any.
#[inline(always)]
pub fn minimum_ns(settings: &Settings, task: Task) -> Option<u64> {
    if settings.sessions == 0 || !filter::considered(settings, task) {
        return None;
    }
    let host = settings.filter == FILTER_HOST;
    // Where a session has the whole host, it is looked for others only if they want shorter ones.
    if (!host || settings.min_block_listed_ns < settings.min_block_ns)
        && filter::listed(settings, SETTINGS_OFF_CPU, task)
    {
        return Some(settings.min_block_listed_ns);
    }
    if host { Some(settings.min_block_ns) } else { None }
}

/// Whether off-CPU time of this thread is looked at.
#[inline(always)]
pub fn wanted(settings: &Settings, task: Task) -> bool {
    eligible(settings, task) && (settings.clock != 0 || minimum_ns(settings, task).is_some())
}

/// Whether a state is left over from an earlier trace.
#[inline(always)]
pub fn stale(state: *const ThreadState, draw: &Draw) -> bool {
    // SAFETY: task storage, checked for null by the caller.
    unsafe { (*state).epoch != draw.opened_ns }
}

/// A state begins, or begins anew with another trace.
#[inline(always)]
fn begin(state: &mut ThreadState, settings: &Settings, draw: &Draw, task: Task) {
    state.epoch = draw.opened_ns;
    state.period_ns = settings.period_ns;
    state.left_ns = clock::phase(settings, task);
    state.in_ns = 0;
    state.sequence = FIRST;
    state.pending_last = 0;
    state.sighted_ns = 0;
    state.kept = 0;
    state.site = 0;
}

/// An interval whose switch-out was seen but not wanted then. How it began is not known any more:
/// blocked, if a wake-up came.
#[inline(always)]
fn begin_unwanted(state: &mut ThreadState, settings: &Settings, task: Task) {
    clock::follow(state, settings, task);
    state.out_ns = state.in_ns;
    state.task_state = (state.wake_ns != 0) as u32;
    state.preempted = (state.wake_ns == 0) as u8;
    state.flags = FLAG_STARTED_BEFORE;
    (state.kept, state.site) = (0, 0);
}

/// A thread whose switch-out was not seen has been off since the trace began, or since it exists.
#[inline(always)]
fn begin_unseen(settings: &Settings, draw: &Draw, task: Task, wake_ns: u64) -> *mut ThreadState {
    let state = task::off_cpu_state_or_new(task);
    if state.is_null() {
        emit::count(Counter::TaskStateFailed, 1);
        return state;
    }
    // SAFETY: task storage of this thread.
    let fields = unsafe { &mut *state };
    begin(fields, settings, draw, task);
    fields.out_ns = unseen_since(draw, task);
    fields.wake_ns = wake_ns;
    fields.task_state = (wake_ns != 0) as u32;
    fields.preempted = (wake_ns == 0) as u8;
    fields.flags = FLAG_STARTED_BEFORE;
    state
}

/// Since when a thread without state has been off the CPU.
#[inline(always)]
pub fn unseen_since(draw: &Draw, task: Task) -> u64 {
    task::start_time(task).max(draw.opened_ns)
}
