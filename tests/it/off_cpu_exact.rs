//! Off-CPU time where every interval is taken, by thread and by reason, against the kernel's own trace.

use anyhow::{Context as _, Result};
use profiler_tests::privilege::skip;
use profiler_tests::require_root;
use profiler_tests::sched_trace::{SchedTrace, Sums, holds};
use profiler_tests::workload::Workload;

use crate::recording::Recording;

/// Furthest from the truth that a thread's time off the CPU may be, and that one part of it may be: which of
/// two parts an instant belongs to is seen later by one hook than by another.
const SHARE: f64 = 0.02;
const SHARE_OF_PART: f64 = 0.04;
/// What else a thread does on its way in and out (its name, its end), microseconds.
const AROUND_US: f64 = 5_000.0;

#[test]
fn each_part_of_each_thread_is_what_the_kernel_counts() -> Result<()> {
    let _exclusive = require_root!();
    let recording = Recording::new()?;
    let workload = Workload::new("offcpu", 4.0)?;
    let Some(trace) = SchedTrace::start("oc-*")? else {
        skip("needs the kernel's tracing file system");
        return Ok(());
    };
    recording.record_workload("-d 100s --off-cpu", &["a.folded"], &workload)?.expect_code(0)?;
    let truth = trace.finish()?;
    let folded = recording.folded("a.folded")?;
    let mut wrong = Vec::new();
    for role in workload.truth()?.roles()? {
        let intervals =
            truth.get(&role.comm).with_context(|| format!("{} is not in the trace", role.comm))?;
        let mut sums = Sums::default();
        intervals.iter().for_each(|interval| sums.add(interval));
        assert!(holds(intervals, role.waits, role.least_us), "{} of {role:?}: {sums:?}", intervals.len());
        let seen = folded.off_cpu(&role.comm);
        let total = (seen.blocked + seen.run_queue + seen.preempted) as f64;
        let marker = format!("[blocked: {}]", role.reason);
        let reason = folded.under(&role.comm).value_where(|row| row.leaf() == marker) as f64;
        println!("{}: {seen:?}, {reason} us {marker}; the kernel: {sums:?}", role.comm);
        let near = |share: f64, seen: f64, truth: f64| (seen - truth).abs() <= AROUND_US.max(share * truth);
        let checks = [
            ("total", total, sums.total()),
            ("blocked", seen.blocked as f64, sums.blocked),
            ("run-queue", seen.run_queue as f64, sums.run_queue),
            ("preempted", seen.preempted as f64, sums.preempted),
            ("reason", reason, if role.reason == "preempted" { 0.0 } else { sums.blocked }),
        ];
        for (what, seen, truth) in checks {
            let share = if what == "total" { SHARE } else { SHARE_OF_PART };
            if !near(share, seen, truth) {
                wrong.push(format!("{} {what}: {seen:.0} us for {truth:.0} us", role.comm));
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
    Ok(())
}
