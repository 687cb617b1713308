//! A hit of the on-CPU sampler becomes a record with the kernel and the user stack.

use aya_ebpf::EbpfContext;
use aya_ebpf::bindings::BPF_F_USER_STACK;
use aya_ebpf::helpers::{bpf_get_current_task_btf, generated::bpf_get_stack};
use aya_ebpf::programs::PerfEventContext;
use profiler_common::counters::Counter;
use profiler_common::limits::{MAX_KERNEL_FRAMES, MAX_USER_FRAMES};
use profiler_common::record::{
    FLAG_KERNEL_MISSING, FLAG_KERNEL_THREAD, FLAG_KERNEL_TRUNCATED, FLAG_USER_MISSING, FLAG_USER_TRUNCATED,
    KIND_ON_CPU,
};
use profiler_common::settings::SETTINGS_ON_CPU;

use crate::emit;
use crate::filter;
use crate::maps::{ON_CPU_RING, ON_CPU_SCRATCH, Scratch, kernel};
use crate::task::Task;

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

    let kernel_bytes = stack(ctx, scratch, 0, (MAX_KERNEL_FRAMES * 8) as u32, 0);
    if kernel_bytes < 0 {
        header.flags |= FLAG_KERNEL_MISSING;
    }
    let kernel_bytes = clamp(kernel_bytes, MAX_KERNEL_FRAMES * 8);
    header.kernel_frames = (kernel_bytes / 8) as u8;
    if kernel_bytes / 8 >= u64::from(kernel!(max_stack)) {
        header.flags |= FLAG_KERNEL_TRUNCATED;
    }

    let mut user_bytes = 0;
    if header.flags & FLAG_KERNEL_THREAD == 0 {
        let read = stack(ctx, scratch, kernel_bytes, (MAX_USER_FRAMES * 8) as u32, BPF_F_USER_STACK.into());
        user_bytes = clamp(read, MAX_USER_FRAMES * 8);
        if user_bytes == 0 {
            header.flags |= FLAG_USER_MISSING;
        }
    }
    header.user_frames = (user_bytes / 8) as u16;
    if user_bytes / 8 >= u64::from(kernel!(max_stack)) {
        header.flags |= FLAG_USER_TRUNCATED;
    }
    emit::send(
        &ON_CPU_RING,
        scratch,
        kernel_bytes + user_bytes,
        Counter::OnCpuSamples,
        Counter::OnCpuRingFull,
    );
}

/// The kernel's own stack walk, written `offset` bytes into the frames. Bytes, or a negative error.
#[inline(always)]
fn stack(ctx: &PerfEventContext, scratch: *mut Scratch, offset: u64, bytes: u32, flags: u64) -> i64 {
    // SAFETY: `offset + bytes` lies within the frames: kernel frames first, user frames behind.
    unsafe {
        let frames = (&raw mut (*scratch).frames).cast::<u8>().add(offset as usize);
        bpf_get_stack(ctx.as_ptr(), frames.cast(), bytes, flags)
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
