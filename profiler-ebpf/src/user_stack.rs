//! User stacks for off-CPU intervals: walked, kept with the thread, or sent apart from the interval.

use aya_ebpf::helpers::bpf_get_smp_processor_id;
use aya_ebpf::helpers::generated::bpf_probe_read_kernel;
use aya_ebpf::maps::{Array, PerCpuArray};
use aya_ebpf::programs::BtfTracePointContext;
use profiler_common::counters::Counter;
use profiler_common::record::{FLAG_USER_GUESSED, KIND_USER_STACK};
use profiler_common::settings::Settings;

use crate::arch::Registers;
use crate::clock;
use crate::emit;
use crate::maps::{OFF_CPU_RING, OFF_CPU_SCRATCH, Scratch, ThreadState};
use crate::measure;
use crate::rules::Cache;
use crate::task::{self, Task};
use crate::walk;

/// What a user stack that is sent apart belongs to.
pub struct Apart {
    /// First and last interval.
    pub first: u32,
    pub last: u32,
    /// Where the thread left user mode.
    pub site: u32,
    /// Counts it once it is sent.
    pub counter: Counter,
}

/// Takes the user stack of a thread that is leaving the CPU, if it should not be left for later.
/// The thread is still current here, so its memory can be read; at switch-in it cannot.
#[inline(always)]
pub fn at_switch_out(
    ctx: &BtfTracePointContext,
    state: &mut ThreadState,
    settings: &Settings,
    task: Task,
    registers: &Registers,
    minimum_ns: Option<u64>,
    now: u64,
) {
    let comes_later = settings.rseq != 0 && task::has_rseq(task);
    // A session that takes every interval takes the stack of each here; one with a minimum, under
    // which most may be, only where it cannot be had afterwards.
    let keep = settings.period_ns == 0 || minimum_ns.is_some_and(|ns| ns == 0 || !comes_later);
    if !keep {
        let wanted = if comes_later {
            // Its stack comes when it is back; but if it never comes back, somebody will ask where
            // it waits. Once a place, and no more often than the clock could tick.
            let new = state.preempted == 0 && !clock::knows(state, state.site);
            let rested = now.saturating_sub(state.sighted_ns) >= settings.period_ns;
            if new && rested {
                state.sighted_ns = now;
            }
            new && rested
        } else {
            clock::foresees(state, state.site)
        };
        if !wanted {
            return;
        }
    }
    let Some(scratch) = OFF_CPU_SCRATCH.get_ptr_mut(0) else { return };
    walk_into(ctx, scratch, registers, task, [crate::off_cpu_walk, crate::off_cpu_check], 1);
    if keep {
        keep_with_thread(state, task, scratch);
        return;
    }
    let sequence = state.sequence;
    let counter = Counter::StacksAtSwitchOut;
    send(scratch, task, &Apart { first: sequence, last: sequence, site: state.site, counter });
}

/// Walks a user stack into a scratch. The bodies are those of the walk and of its check; `slot` tells
/// kinds of program apart in checking and measuring runs. The thread is the current one.
#[inline(always)]
pub fn walk_into(
    ctx: &BtfTracePointContext,
    scratch: *mut Scratch,
    registers: &Registers,
    task: Task,
    [body, check]: [extern "C" fn() -> u32; 2],
    slot: u32,
) {
    // SAFETY: this CPU's scratch for this program type.
    let record = unsafe { &mut *scratch };
    walk::begin(record, registers, task::tgid(task), task::process_start(task));
    measure::timed(ctx, scratch, slot, &measure::OFF_CPU, || walk::run(body));
    measure::check(scratch, registers, slot, check);
}

/// Copies the stack that was walked into the thread's own storage.
#[inline(always)]
fn keep_with_thread(state: &mut ThreadState, task: Task, scratch: *const Scratch) {
    let stack = task::kept_stack_or_new(task);
    if stack.is_null() {
        emit::count(Counter::TaskStateFailed, 1);
        return;
    }
    // SAFETY: task storage of this thread, and this CPU's scratch.
    let (stack, scratch) = unsafe { (&mut *stack, &*scratch) };
    stack.verdict = scratch.walk.verdict as u8;
    if scratch.walk.guessed != 0 {
        state.flags |= FLAG_USER_GUESSED;
    }
    let bytes = scratch.walk.frames() * 8;
    // SAFETY: both buffers hold at least `bytes` bytes.
    unsafe {
        bpf_probe_read_kernel(
            (&raw mut stack.frames).cast(),
            bytes as u32,
            (&raw const scratch.frames).cast(),
        )
    };
    stack.bytes = bytes as u16;
    state.kept = 1;
}

/// Sends the stack that was walked as a record of its own.
#[inline(always)]
pub fn send(scratch: *mut Scratch, task: Task, apart: &Apart) {
    // SAFETY: this CPU's scratch for this program type.
    let record = unsafe { &mut *scratch };
    let header = &mut record.header;
    emit::describe(header, KIND_USER_STACK, task);
    header.verdict = record.walk.verdict as u8;
    if record.walk.guessed != 0 {
        header.flags |= FLAG_USER_GUESSED;
    }
    let frames = record.walk.frames();
    header.user_frames = frames as u16;
    header.task_state = apart.first;
    header.sequence = apart.last;
    header.site = apart.site;
    emit::send(&OFF_CPU_RING, scratch, frames * 8, apart.counter, Counter::UserStackRingFull);
}

/// Some steps of the walk that is under way on this CPU; 0 ends it.
#[inline(always)]
pub fn steps_of(scratches: &PerCpuArray<Scratch>, caches: &Array<Cache>) -> u32 {
    let (Some(scratch), Some(cache)) = (scratches.get_ptr_mut(0), cache_of(caches)) else { return 0 };
    // SAFETY: values of this CPU and this kind of program.
    unsafe { walk::steps::<true>(scratch, cache) }
}

/// This CPU's cache.
#[inline(always)]
fn cache_of(caches: &Array<Cache>) -> Option<*mut Cache> {
    // SAFETY: helper without arguments.
    caches.get_ptr_mut(unsafe { bpf_get_smp_processor_id() } as u32)
}
