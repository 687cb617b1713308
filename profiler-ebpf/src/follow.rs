//! Followed processes: children join the filter before they run, commands when they exec; the dead leave it.

use aya_ebpf::programs::BtfTracePointContext;
use aya_log_ebpf::warn;
use profiler_common::counters::Counter;
use profiler_common::settings::{CLOCK_TICK_NS, FilterEntry};

use crate::emit;
use crate::maps::FILTER_PIDS;
use crate::task::{self, Task};

/// `sched_process_fork(struct task_struct *parent, struct task_struct *child)`
#[inline(always)]
pub fn fork(ctx: &BtfTracePointContext) {
    let (parent, child): (Task, Task) = (ctx.arg(0), ctx.arg(1));
    let (parent_tgid, child_tgid) = (task::tgid(parent), task::tgid(child));
    if parent_tgid == child_tgid {
        return;
    }
    // SAFETY: the entry is only read.
    let Some(entry) = (unsafe { FILTER_PIDS.get(parent_tgid) }) else { return };
    if entry.follow == 0 || entry.start_ticks != task::process_start(parent) / CLOCK_TICK_NS {
        return;
    }
    let start_ticks = task::process_start(child) / CLOCK_TICK_NS;
    let joined = FilterEntry { start_ticks, ..*entry };
    if FILTER_PIDS.insert(child_tgid, joined, 0).is_err() {
        emit::count(Counter::FilterFull, 1);
        // The one place that is rare enough for a log line: never in a sampling path.
        warn!(ctx, "pid {} is not recorded: the process filter is full", child_tgid);
    }
}

/// `sched_process_free(struct task_struct *p)`: nothing of the thread is left to record.
#[inline(always)]
pub fn free(ctx: &BtfTracePointContext) {
    let task: Task = ctx.arg(0);
    let pid = task::tid(task);
    // The leader is freed last.
    if pid != task::tgid(task) {
        return;
    }
    // SAFETY: the entry is only read.
    let Some(entry) = (unsafe { FILTER_PIDS.get(pid) }) else { return };
    if entry.follow != 0 && entry.start_ticks == task::process_start(task) / CLOCK_TICK_NS {
        // Not there is as good as removed.
        let _ = FILTER_PIDS.remove(pid);
    }
}

/// `sched_process_exec(struct task_struct *p, pid_t old_pid, struct linux_binprm *bprm)`
#[inline(always)]
pub fn exec(ctx: &BtfTracePointContext) {
    let task: Task = ctx.arg(0);
    // SAFETY: the entry is only read.
    let Some(entry) = (unsafe { FILTER_PIDS.get(task::tgid(task)) }) else { return };
    if entry.samplers_from_exec == 0 || entry.start_ticks != task::process_start(task) / CLOCK_TICK_NS {
        return;
    }
    let samplers = entry.samplers | entry.samplers_from_exec;
    let begun = FilterEntry { samplers, samplers_from_exec: 0, ..*entry };
    if FILTER_PIDS.insert(task::tgid(task), begun, 0).is_err() {
        emit::count(Counter::FilterFull, 1);
    }
}
