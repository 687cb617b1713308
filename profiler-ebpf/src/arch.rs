//! What differs between processor architectures: registers and signal frames; x86-64 so far.

use aya_ebpf::bindings::pt_regs;
use aya_ebpf::helpers::generated::bpf_probe_read_kernel;
use aya_ebpf::helpers::{bpf_get_current_task_btf, bpf_task_pt_regs};
use aya_ebpf::programs::PerfEventContext;

use crate::task::Task;
use crate::window;

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
    /// The first register, r8.
    pub const REGISTERS: u64 = 40;
    /// Where each register lies, counted in eights from the first: four bits each, by DWARF's number.
    pub const SLOTS: u64 = 0x7654_3210_fa89_becd;
}

/// Where `struct pt_regs` (arch/x86/include/asm/ptrace.h) keeps each register, in eights: four bits
/// each, by DWARF's number. Stack and frame pointer have kinds of their own.
const SAVED_SLOTS: u64 = 0x0123_6789_04ed_5bca;

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

/// A general register as it was when the thread left user mode, by DWARF's number; 0 if it cannot be
/// read. `signal_frame` is the address of the signal frame that keeps it, or 0: then the kernel does.
// Not inlined: next to no frame needs it, and every step of a walk would carry it.
#[inline(never)]
pub fn register(signal_frame: u64, number: u64) -> u64 {
    let slot = |slots: u64| (slots >> ((number & 15) * 4) & 15) * 8;
    if signal_frame != 0 {
        let at = signal_frame + signal_frame::REGISTERS + slot(signal_frame::SLOTS);
        return window::read(at).unwrap_or(0);
    }
    let mut value = 0_u64;
    // SAFETY: the task's saved registers lie on its kernel stack, which exists while it runs; the
    // helper checks the address, and `value` is eight bytes long.
    let result = unsafe {
        let registers = bpf_task_pt_regs(bpf_get_current_task_btf()) as u64;
        let at = registers + slot(SAVED_SLOTS);
        bpf_probe_read_kernel((&raw mut value).cast(), 8, at as *const _)
    };
    if result == 0 { value } else { 0 }
}

/// Whether the code before this address could be a call, which is what a return address follows.
#[inline(never)]
pub fn follows_call(address: u64) -> bool {
    let Some(before) = window::read(address.wrapping_sub(8)) else { return false };
    let byte = |back: u64| before >> (64 - 8 * back) & 0xff;
    // `call` through a register or memory is 0xff and a byte whose middle three bits are 2; 0, 1, 2, 4
    // or 5 bytes of address follow.
    let through = |back: u64| byte(back) == 0xff && byte(back - 1) & 0x38 == 0x10;
    byte(5) == 0xe8 || through(2) || through(3) || through(4) || through(6) || through(7)
}
