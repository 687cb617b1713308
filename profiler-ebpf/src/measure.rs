//! Checking and measuring runs: every walk done a second time, otherwise, and compared.

use core::ptr::null_mut;

use aya_ebpf::EbpfContext;
use aya_ebpf::bindings::BPF_F_USER_STACK;
use aya_ebpf::helpers::bpf_ktime_get_ns;
use aya_ebpf::helpers::generated::bpf_get_stack;
use profiler_common::counters::Counter;
use profiler_common::limits::MAX_USER_FRAMES;

use crate::arch::Registers;
use crate::emit;
use crate::maps::{CHECK_SCRATCH, Scratch, kernel};
use crate::walk::{self, Walk};

/// Walks again without cache and window, and counts whether the result is the same. `slot` tells
/// kinds of program apart; `body` is [`plain_steps`] of that slot.
#[inline(always)]
pub fn check(scratch: *mut Scratch, registers: &Registers, slot: u32, body: extern "C" fn() -> u32) {
    if kernel!(check_walks) == 0 {
        return;
    }
    let Some(plain) = CHECK_SCRATCH.get_ptr_mut(slot) else { return };
    // SAFETY: values of this CPU and kind of program.
    let (first, second) = unsafe { (&*scratch, &mut *plain) };
    // The same list of mappings as the walk under test, whatever user space does meanwhile.
    walk::begin_again(second, &first.walk, registers);
    walk::run(body);
    let mut same = first.walk.ended_as(&second.walk);
    for index in 0..MAX_USER_FRAMES {
        if index as u64 >= first.walk.frames() {
            break;
        }
        if first.frames[index] != second.frames[index] {
            same = false;
            break;
        }
    }
    emit::count(Counter::WalksChecked, 1);
    if !same {
        emit::count(Counter::WalksDiffered, 1);
    }
}

/// Some steps of the second walk of a slot; 0 ends it.
#[inline(always)]
pub fn plain_steps(slot: u32) -> u32 {
    let Some(plain) = CHECK_SCRATCH.get_ptr_mut(slot) else { return 0 };
    // SAFETY: a value of this CPU and kind of program; no cache is used.
    unsafe { walk::steps::<false>(plain, null_mut()) }
}

/// Where times and frames of a kind of walk are counted.
pub struct Counters {
    table: [Counter; 2],
    pointer: [Counter; 2],
}

/// Of walks where a thread is hit on the CPU.
pub const ON_CPU: Counters = Counters {
    table: [Counter::TableWalkNs, Counter::TableWalkFrames],
    pointer: [Counter::PointerWalkNs, Counter::PointerWalkFrames],
};

/// Of walks where a thread leaves the CPU, or comes back.
pub const OFF_CPU: Counters = Counters {
    table: [Counter::OffCpuTableWalkNs, Counter::OffCpuTableWalkFrames],
    pointer: [Counter::OffCpuPointerWalkNs, Counter::OffCpuPointerWalkFrames],
};

/// Runs a walk and, in a measuring run, the kernel's own beside it, and counts the time of each.
/// `slot` tells kinds of program apart.
#[inline(always)]
pub fn timed(
    ctx: &impl EbpfContext,
    scratch: *mut Scratch,
    slot: u32,
    counters: &Counters,
    run: impl FnOnce(),
) {
    if kernel!(time_walks) == 0 {
        return run();
    }
    // SAFETY: helpers without arguments; values of this CPU and kind of program.
    unsafe {
        let Some(other) = CHECK_SCRATCH.get_ptr_mut(slot) else { return run() };
        let start = bpf_ktime_get_ns();
        // Whichever comes first finds the stack cold: both get the same share of that.
        let pointer_first = start & 64 == 0;
        let mut pointer_ns = 0;
        let mut bytes = 0;
        if pointer_first {
            bytes = pointer_walk(ctx, other);
            pointer_ns = bpf_ktime_get_ns() - start;
        }
        let start = bpf_ktime_get_ns();
        run();
        let table_ns = bpf_ktime_get_ns() - start;
        if !pointer_first {
            let start = bpf_ktime_get_ns();
            bytes = pointer_walk(ctx, other);
            pointer_ns = bpf_ktime_get_ns() - start;
        }
        let walk: &Walk = &(*scratch).walk;
        emit::count(counters.table[0], table_ns);
        emit::count(counters.table[1], walk.frames());
        emit::count(counters.pointer[0], pointer_ns);
        emit::count(counters.pointer[1], if bytes > 0 { bytes as u64 / 8 } else { 0 });
    }
}

#[inline(always)]
unsafe fn pointer_walk(ctx: &impl EbpfContext, other: *mut Scratch) -> i64 {
    // SAFETY: the frames hold this many bytes.
    unsafe {
        let frames = (&raw mut (*other).frames).cast();
        bpf_get_stack(ctx.as_ptr(), frames, (MAX_USER_FRAMES * 8) as u32, BPF_F_USER_STACK.into())
    }
}
