//! A hit of the on-CPU sampler becomes a record with the kernel and the user stack.

use aya_ebpf::EbpfContext;
use aya_ebpf::helpers::{bpf_get_current_task_btf, bpf_get_smp_processor_id, generated::bpf_get_stack};
use aya_ebpf::programs::PerfEventContext;
use profiler_common::counters::Counter;
use profiler_common::limits::{MAX_KERNEL_FRAMES, MAX_USER_FRAMES};
use profiler_common::record::{
    FLAG_KERNEL_MISSING, FLAG_KERNEL_THREAD, FLAG_KERNEL_TRUNCATED, FLAG_USER_GUESSED, FLAG_USER_MISSING,
    KIND_ON_CPU,
};
use profiler_common::settings::SETTINGS_ON_CPU;
use profiler_common::unwind::verdict;

use crate::arch;
use crate::emit;
use crate::filter;
use crate::maps::{ON_CPU_CACHE, ON_CPU_RING, ON_CPU_SCRATCH, Scratch, kernel};
use crate::measure;
use crate::rules::Cache;
use crate::task::Task;
use crate::walk;

/// Records the thread that runs on this CPU.
#[inline(always)]
pub fn sample(ctx: &PerfEventContext) {
    let Some(settings) = filter::open(SETTINGS_ON_CPU) else { return };
    // SAFETY: helper without arguments (kernel 5.11).
    let task = unsafe { bpf_get_current_task_btf() } as Task;
    if !filter::passes(settings, SETTINGS_ON_CPU, task) {
        return;
    }
    let Some(scratch) = ON_CPU_SCRATCH.get_ptr_mut(0) else { return };
    // SAFETY: this CPU's scratch, which only this program uses and sampling does not nest.
    let header = unsafe { &mut (*scratch).header };
    emit::describe(header, KIND_ON_CPU, task);
    header.period_ns = settings.period_ns;

    let mut user_bytes = 0;
    if header.flags & FLAG_KERNEL_THREAD == 0 {
        user_bytes = user_stack(ctx, scratch, task) * 8;
    }
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
    emit::send(
        &ON_CPU_RING,
        scratch,
        kernel_bytes + user_bytes,
        Counter::OnCpuSamples,
        Counter::OnCpuRingFull,
    );
}

/// Walks the user stack into the first frames; how many there are.
#[inline(always)]
fn user_stack(ctx: &PerfEventContext, scratch: *mut Scratch, task: Task) -> u64 {
    // SAFETY: this CPU's scratch.
    let record = unsafe { &mut *scratch };
    let Some(registers) = arch::interrupted_registers(ctx, task) else {
        record.header.flags |= FLAG_USER_MISSING;
        record.header.verdict = verdict::NO_REGISTERS;
        return 0;
    };
    walk::begin(record, &registers, record.header.pid, record.header.process_start_ns);
    measure::timed(ctx, scratch, 0, &measure::ON_CPU, || walk::run(crate::on_cpu_walk));
    measure::check(scratch, &registers, 0, crate::on_cpu_check);
    record.header.verdict = record.walk.verdict as u8;
    if record.walk.guessed != 0 {
        record.header.flags |= FLAG_USER_GUESSED;
    }
    record.walk.frames()
}

/// Some steps of the walk that is under way on this CPU; 0 ends it.
#[inline(always)]
pub fn walk_steps() -> u32 {
    let (Some(scratch), Some(cache)) = (ON_CPU_SCRATCH.get_ptr_mut(0), cache()) else { return 0 };
    // SAFETY: values of this CPU and this kind of program.
    unsafe { walk::steps::<true>(scratch, cache) }
}

#[inline(always)]
fn cache() -> Option<*mut Cache> {
    // SAFETY: helper without arguments.
    ON_CPU_CACHE.get_ptr_mut(unsafe { bpf_get_smp_processor_id() } as u32)
}

/// The kernel's own walk of its stack, written `offset` bytes into the frames. Bytes, or a negative
/// error.
#[inline(always)]
pub fn kernel_stack(ctx: &impl EbpfContext, scratch: *mut Scratch, offset: u64) -> i64 {
    let offset = clamp(offset as i64, MAX_USER_FRAMES * 8) as usize;
    // SAFETY: `offset` and as many kernel frames as may come lie within the frames.
    unsafe {
        let frames = (&raw mut (*scratch).frames).cast::<u8>().add(offset);
        bpf_get_stack(ctx.as_ptr(), frames.cast(), (MAX_KERNEL_FRAMES * 8) as u32, 0)
    }
}

/// A helper's result as a byte count the verifier can bound.
#[inline(always)]
pub fn clamp(bytes: i64, limit: usize) -> u64 {
    if bytes <= 0 {
        0
    } else if bytes > limit as i64 {
        limit as u64
    } else {
        bytes as u64
    }
}
