//! x86_64 machine code that is recognised by its bytes, because nothing describes it.

use profiler_common::unwind::{Rule, bp, cfa};

use super::AT_ENTRY;

/// What both trampolines end in, searched for first: the number 15 (`rt_sigreturn`), `syscall`.
pub(in crate::unwind) const TRAMPOLINE_END: [u8; 6] = [0x0f, 0, 0, 0, 0x0f, 0x05];

/// How they start: `mov $15, %rax` as the C libraries write it, `mov $15, %eax` as Go does.
const TRAMPOLINE_STARTS: [&[u8]; 2] = [&[0x48, 0xc7, 0xc0], &[0xb8]];

/// Bytes of the longest start.
pub(in crate::unwind) const TRAMPOLINE_START: usize = 3;

/// What holds at a trampoline.
pub(in crate::unwind) const SIGNAL: Rule =
    Rule { cfa: cfa::SIGNAL, bp: bp::SAME, bp_offset: 0, cfa_offset: 0 };

/// How many bytes before [`TRAMPOLINE_END`] a signal trampoline starts, if `before` ends in one.
pub(in crate::unwind) fn trampoline_start(before: &[u8]) -> Option<usize> {
    TRAMPOLINE_STARTS.iter().find(|start| before.ends_with(start)).map(|start| start.len())
}

/// Bytes of a slot of a procedure linkage table.
pub(in crate::unwind) const PLT_SLOT: usize = 16;

/// What holds from which byte of a slot on. lld describes no slot at all.
pub(in crate::unwind) fn plt_rules(slot: &[u8; PLT_SLOT]) -> Option<[(u64, Rule); 2]> {
    let sp = |cfa_offset| Rule { cfa: cfa::SP, bp: bp::SAME, bp_offset: 0, cfa_offset };
    let plt = |threshold| Rule { cfa: cfa::PLT, bp: bp::SAME, bp_offset: 0, cfa_offset: threshold };
    match slot {
        // push GOT+8(%rip); jmp *GOT+16(%rip); nopl. Entered with an index pushed.
        [0xff, 0x35, _, _, _, _, 0xff, 0x25, ..] => Some([(0, sp(16)), (6, sp(24))]),
        // jmp *GOT(%rip); push $index; jmp to the first slot.
        [0xff, 0x25, _, _, _, _, 0x68, _, _, _, _, 0xe9, ..] => Some([(0, plt(11)), (0, plt(11))]),
        // endbr64; push $index; jmp to the first slot.
        [0xf3, 0x0f, 0x1e, 0xfa, 0x68, _, _, _, _, 0xe9, ..] => Some([(0, plt(9)), (0, plt(9))]),
        // jmp *GOT(%rip), with or without endbr64 before.
        [0xff, 0x25, ..] | [0xf3, 0x0f, 0x1e, 0xfa, 0xff, 0x25, ..] => Some([(0, AT_ENTRY), (0, AT_ENTRY)]),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slots_of_lld_are_recognised() {
        let slot = |bytes: &[u8]| {
            let mut slot = [0x90; PLT_SLOT];
            slot[..bytes.len()].copy_from_slice(bytes);
            plt_rules(&slot).map(|rules| rules.map(|(at, rule)| (at, rule.cfa, rule.cfa_offset)))
        };
        let first = [0xff, 0x35, 0x3a, 0x22, 0, 0, 0xff, 0x25, 0x3c, 0x22, 0, 0, 0x0f, 0x1f, 0x40, 0];
        assert_eq!(slot(&first), Some([(0, cfa::SP, 16), (6, cfa::SP, 24)]));
        let lazy = [0xff, 0x25, 0x3a, 0x22, 0, 0, 0x68, 0, 0, 0, 0, 0xe9, 0xe0, 0xff, 0xff, 0xff];
        assert_eq!(slot(&lazy), Some([(0, cfa::PLT, 11); 2]));
        let lazy_ibt = [0xf3, 0x0f, 0x1e, 0xfa, 0x68, 0, 0, 0, 0, 0xe9, 0xe2, 0xff, 0xff, 0xff, 0x66, 0x90];
        assert_eq!(slot(&lazy_ibt), Some([(0, cfa::PLT, 9); 2]));
        assert_eq!(slot(&[0xf3, 0x0f, 0x1e, 0xfa, 0xff, 0x25]), Some([(0, cfa::SP, 8); 2]));
        assert_eq!(slot(&[0x55, 0x48]), None);
    }

    #[test]
    fn both_trampolines_are_recognised() {
        assert_eq!(trampoline_start(&[0xc3, 0x48, 0xc7, 0xc0]), Some(3));
        assert_eq!(trampoline_start(&[0xc3, 0xb8]), Some(1));
        assert_eq!(trampoline_start(&[0xc3, 0xba]), None);
    }
}
