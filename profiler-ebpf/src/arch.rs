//! What differs between processor architectures: registers and signal frames; x86-64 so far.

use aya_ebpf::bindings::pt_regs;
use aya_ebpf::helpers::bpf_task_pt_regs;
use aya_ebpf::programs::PerfEventContext;

use crate::task::Task;

/// The registers a walk needs.
#[derive(Clone, Copy)]
pub struct Registers {
    pub ip: u64,
    pub sp: u64,
    pub bp: u64,
}

/// Where `struct rt_sigframe` (arch/x86/include/asm/sigframe.h) keeps the interrupted registers,
/// counted from the stack pointer of the restorer that the handler returns to:
/// `uc.uc_mcontext` lies 40 bytes into it, `struct sigcontext_64` says what is where.
pub mod signal_frame {
    pub const BP: u64 = 120;
    pub const SP: u64 = 160;
    pub const IP: u64 = 168;
}

/// The user registers of the thread that a sampling interrupt hit; `None` for one that has none.
#[inline(always)]
pub fn interrupted_registers(ctx: &PerfEventContext, task: Task) -> Option<Registers> {
    // SAFETY: the verifier checks loads from the context. They are volatile and come before the
    // branch: LLVM would merge equal loads of the two kinds of pointer, which the verifier refuses.
    let (mut ip, mut sp, mut bp, cs) = unsafe {
        let regs = &raw const (*ctx.ctx).regs;
        (
            (&raw const (*regs).rip).read_volatile(),
            (&raw const (*regs).rsp).read_volatile(),
            (&raw const (*regs).rbp).read_volatile(),
            (&raw const (*regs).cs).read_volatile(),
        )
    };
    if cs & 3 != 3 {
        // Interrupted in the kernel: the registers it entered with lie on its kernel stack.
        let saved = saved_registers(task)?;
        (ip, sp, bp) = (saved.ip, saved.sp, saved.bp);
    }
    Some(Registers { ip, sp, bp })
}

/// The user registers a thread entered the kernel with; `None` for a thread that has none.
#[inline(always)]
pub fn saved_registers(task: Task) -> Option<Registers> {
    // SAFETY: the verifier knows `task` as a task; the helper (kernel 5.15) returns its saved
    // registers, which lie on the task's kernel stack as long as it exists.
    unsafe {
        let regs = bpf_task_pt_regs(task) as *const pt_regs;
        let (ip, sp, bp, cs) = (
            (&raw const (*regs).rip).read_volatile(),
            (&raw const (*regs).rsp).read_volatile(),
            (&raw const (*regs).rbp).read_volatile(),
            (&raw const (*regs).cs).read_volatile(),
        );
        if cs & 3 == 3 { Some(Registers { ip, sp, bp }) } else { None }
    }
}
