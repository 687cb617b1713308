//! What of a waker's stack is its own: not our hook, and nothing of a thread that an interrupt hit.

use std::sync::Arc;

use crate::model::Frame;

/// The function that all wake-ups go through, from the hook's caller on.
const WAKE_UP: &str = "try_to_wake_up";
/// How the functions that run a hook begin.
const HOOK: [&str; 4] = ["bpf_", "__bpf_", "__traceiter_", "trace_"];
/// How the functions begin by which an interrupt enters the kernel: x86, then aarch64.
const INTERRUPT: [&str; 9] = [
    "sysvec_",
    "asm_sysvec_",
    "common_interrupt",
    "asm_common_interrupt",
    "fred_extint",
    "xen_pv_evtchn_do_upcall",
    "el0_interrupt",
    "el1_interrupt",
    "call_on_irq_stack",
];

/// Takes the frames of our own hook off the leaf of a kernel stack.
pub(super) fn without_hook(frames: &mut Vec<Arc<Frame>>) {
    let wake_up = frames.iter().position(|frame| frame.name.starts_with(WAKE_UP));
    let own = wake_up.unwrap_or_else(|| {
        // Trampolines have no names.
        frames.iter().take_while(|frame| !frame.named || begins(frame, &HOOK)).count()
    });
    frames.drain(..own);
}

/// Whether the kernel stack leads through an interrupt; what the interrupted thread did is cut off. A
/// soft interrupt that a thread runs by itself, as it does when it sends to its own host, is no
/// interrupt: the thread is what caused the wake-up.
pub(super) fn cut_interrupted(frames: &mut Vec<Arc<Frame>>) -> bool {
    let Some(entry) = frames.iter().position(|frame| begins(frame, &INTERRUPT)) else { return false };
    let entered = frames.iter().skip(entry).take_while(|frame| begins(frame, &INTERRUPT)).count();
    frames.truncate(entry + entered);
    true
}

fn begins(frame: &Frame, names: &[&str]) -> bool {
    frame.named && names.iter().any(|name| frame.name.starts_with(name))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::FrameKind;

    fn stack(names: &[&str]) -> Vec<Arc<Frame>> {
        let frame = |name: &&str| {
            Arc::new(Frame {
                name: (*name).into(),
                kind: FrameKind::Kernel,
                module: None,
                address: 0,
                source: None,
                named: !name.starts_with('['),
            })
        };
        names.iter().map(frame).collect()
    }

    fn names(frames: &[Arc<Frame>]) -> Vec<&str> {
        frames.iter().map(|frame| &*frame.name).collect()
    }

    #[test]
    fn the_hook_is_not_part_of_the_waker() {
        let mut frames = stack(&[
            "bpf_prog_0f_off_cpu_waking",
            "bpf_trace_run1",
            "__traceiter_sched_waking",
            "try_to_wake_up",
            "bpf_x",
        ]);
        without_hook(&mut frames);
        assert_eq!(names(&frames), ["try_to_wake_up", "bpf_x"]);
        let mut frames = stack(&["[kernel+0x1]", "__bpf_trace_sched", "wake_up_q", "bpf_x"]);
        without_hook(&mut frames);
        assert_eq!(names(&frames), ["wake_up_q", "bpf_x"]);
    }

    #[test]
    fn an_interrupted_thread_is_not_to_blame() {
        let mut timer = stack(&[
            "try_to_wake_up",
            "hrtimer_interrupt",
            "sysvec_apic_timer_interrupt",
            "asm_sysvec_apic_timer_interrupt",
            "innocent",
        ]);
        assert!(cut_interrupted(&mut timer));
        assert_eq!(names(&timer).last(), Some(&"asm_sysvec_apic_timer_interrupt"));
        // Sent to its own host: the soft interrupt is the sender's doing.
        let mut loopback =
            stack(&["try_to_wake_up", "handle_softirqs", "__local_bh_enable_ip", "tcp_sendmsg"]);
        assert!(!cut_interrupted(&mut loopback));
        assert_eq!(loopback.len(), 4);
    }
}
