//! The kernel half of the profiler: entry points only, one line each into the module that does it.
#![no_std]
#![no_main]

mod arch;
mod clock;
mod emit;
mod filter;
mod follow;
mod interval;
mod lifecycle;
mod maps;
mod measure;
mod offcpu;
mod oncpu;
mod rseq;
mod rules;
mod sweep;
mod task;
mod user_stack;
mod waker;
mod walk;
mod window;

use aya_ebpf::macros::{btf_tracepoint, perf_event};
use aya_ebpf::programs::{BtfTracePointContext, PerfEventContext};

/// One hit of the on-CPU sampler.
#[perf_event]
pub fn on_cpu_sample(ctx: PerfEventContext) -> u32 {
    oncpu::sample(&ctx);
    0
}

/// A CPU goes from one thread to the next.
#[btf_tracepoint(function = "sched_switch")]
pub fn off_cpu_switch(ctx: BtfTracePointContext) -> i32 {
    offcpu::switch(&ctx);
    0
}

/// A blocked thread becomes runnable.
#[btf_tracepoint(function = "sched_wakeup")]
pub fn off_cpu_wakeup(ctx: BtfTracePointContext) -> i32 {
    offcpu::wakeup(&ctx);
    0
}

/// A thread is about to be woken by the one that runs here.
#[btf_tracepoint(function = "sched_waking")]
pub fn off_cpu_waking(ctx: BtfTracePointContext) -> i32 {
    waker::waking(&ctx);
    0
}

/// A thread that was off the CPU goes back to user mode.
#[btf_tracepoint(function = "rseq_update")]
pub fn off_cpu_rseq(ctx: BtfTracePointContext) -> i32 {
    rseq::update(&ctx);
    0
}

/// A process forks: children of followed processes join the filter.
#[btf_tracepoint(function = "sched_process_fork")]
pub fn follow_fork(ctx: BtfTracePointContext) -> i32 {
    follow::fork(&ctx);
    0
}

/// A process becomes another program: commands begin to be recorded here.
#[btf_tracepoint(function = "sched_process_exec")]
pub fn follow_exec(ctx: BtfTracePointContext) -> i32 {
    follow::exec(&ctx);
    0
}

/// A thread is gone for good: dead processes leave the filter.
#[btf_tracepoint(function = "sched_process_free")]
pub fn follow_free(ctx: BtfTracePointContext) -> i32 {
    follow::free(&ctx);
    0
}

/// A process begins: it has the code of its parent.
#[btf_tracepoint(function = "sched_process_fork")]
pub fn process_fork(ctx: BtfTracePointContext) -> i32 {
    lifecycle::fork(&ctx);
    0
}

/// A process becomes another program: what was known of its code holds no more.
#[btf_tracepoint(function = "sched_process_exec")]
pub fn process_exec(ctx: BtfTracePointContext) -> i32 {
    lifecycle::exec(&ctx);
    0
}

/// A process ends.
#[btf_tracepoint(function = "sched_process_exit")]
pub fn process_exit(ctx: BtfTracePointContext) -> i32 {
    lifecycle::exit(&ctx);
    0
}

/// Visits every thread and writes the off-CPU intervals that are still open.
// aya-ebpf has no macro for iterators; the context layout is that of `struct bpf_iter__task`.
#[unsafe(no_mangle)]
#[unsafe(link_section = "iter/task")]
pub extern "C" fn off_cpu_sweep(ctx: *mut sweep::TaskIterContext) -> i32 {
    sweep::visit(ctx);
    0
}

// Bodies of walks. Exported, which makes them global functions to the verifier: it looks at each
// once, however often they are called.

/// Steps of an on-CPU walk.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn on_cpu_walk() -> u32 {
    oncpu::walk_steps()
}

/// Steps of an off-CPU walk.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn off_cpu_walk() -> u32 {
    offcpu::walk_steps()
}

/// Steps of the second on-CPU walk in a checking run.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn on_cpu_check() -> u32 {
    measure::plain_steps(0)
}

/// Steps of the second off-CPU walk in a checking run.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn off_cpu_check() -> u32 {
    measure::plain_steps(1)
}

/// Steps of a walk on the way back to user mode.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn rseq_walk() -> u32 {
    rseq::walk_steps()
}

/// Steps of its second walk in a checking run.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn rseq_check() -> u32 {
    measure::plain_steps(2)
}

/// GPL-compatible, as the kernel demands of programs that use its tracing helpers.
#[unsafe(link_section = "license")]
#[unsafe(no_mangle)]
static LICENSE: [u8; 13] = *b"Dual MIT/GPL\0";

#[panic_handler]
fn panic(_info: &core::panic::PanicInfo<'_>) -> ! {
    // SAFETY: programs are built so that no panic path survives; the verifier rejects any that does.
    unsafe { core::hint::unreachable_unchecked() }
}
