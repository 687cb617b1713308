//! Processes come, change and go: user space is told, and what is known of their code follows.

use aya_ebpf::bindings::{BPF_RB_FORCE_WAKEUP, BPF_RB_NO_WAKEUP};
use aya_ebpf::helpers::generated::bpf_ringbuf_output;
use aya_ebpf::programs::BtfTracePointContext;
use profiler_common::counters::Counter;
use profiler_common::record::{Header, KIND_EXEC, KIND_EXIT, KIND_FORK};
use profiler_common::settings::CLOCK_TICK_NS;
use profiler_common::unwind::ProcessEntry;

use crate::emit;
use crate::maps::{CONTROL_RING, PROCESSES};
use crate::task::{self, Task};

/// `sched_process_fork(struct task_struct *parent, struct task_struct *child)`
#[inline(always)]
pub fn fork(ctx: &BtfTracePointContext) {
    let (parent, child): (Task, Task) = (ctx.arg(0), ctx.arg(1));
    let parent_tgid = task::tgid(parent);
    if parent_tgid == task::tgid(child) {
        return;
    }
    // The child has the parent's memory: it can be unwound from its first instruction on.
    // SAFETY: the entry is only read.
    if let Some(known) = unsafe { PROCESSES.get(parent_tgid) } {
        if known.start_ticks == task::process_start(parent) / CLOCK_TICK_NS {
            let start_ticks = task::process_start(child) / CLOCK_TICK_NS;
            let inherited = ProcessEntry { start_ticks, ..*known };
            if PROCESSES.insert(task::tgid(child), inherited, 0).is_err() {
                emit::count(Counter::ProcessesFull, 1);
            }
        }
    }
    tell(child, KIND_FORK, parent_tgid);
}

/// `sched_process_exec(struct task_struct *p, pid_t old_pid, struct linux_binprm *bprm)`
#[inline(always)]
pub fn exec(ctx: &BtfTracePointContext) {
    let task: Task = ctx.arg(0);
    // Not there is as good as removed.
    let _ = PROCESSES.remove(task::tgid(task));
    tell(task, KIND_EXEC, 0);
}

/// `sched_process_exit(struct task_struct *p)`
#[inline(always)]
pub fn exit(ctx: &BtfTracePointContext) {
    let task: Task = ctx.arg(0);
    if !task::is_last_thread(task) {
        return;
    }
    let _ = PROCESSES.remove(task::tgid(task));
    tell(task, KIND_EXIT, 0);
}

#[inline(always)]
fn tell(task: Task, kind: u8, parent: u32) {
    let mut header = Header::default();
    emit::describe(&mut header, kind, task);
    header.task_state = parent;
    // A new program wants its tables before it is gone again; all else can wait for the timer.
    let flags = u64::from(if kind == KIND_EXEC { BPF_RB_FORCE_WAKEUP } else { BPF_RB_NO_WAKEUP });
    let size = size_of::<Header>() as u64;
    // SAFETY: `header` is `size` bytes long.
    let result = unsafe {
        bpf_ringbuf_output((&raw const CONTROL_RING) as *mut _, (&raw mut header).cast(), size, flags)
    };
    if result != 0 {
        emit::count(Counter::ControlRingFull, 1);
    }
}
