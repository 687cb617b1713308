//! What differs between processor architectures; x86-64 so far.

use aya_ebpf::bindings::pt_regs;

/// The user-space instruction pointer in saved registers.
///
/// # Safety
/// `regs` must be a pointer that the verifier knows as `struct pt_regs`.
#[inline(always)]
pub unsafe fn user_ip(regs: *const pt_regs) -> u64 {
    // SAFETY: the caller's promise.
    unsafe { (*regs).rip }
}
