//! Limits that the kernel sets to sampling: rate, stack depth, locked memory.

use super::kernel_version::KernelVersion;
use super::{Host, ok, warning};
use crate::model::Finding;

/// Sampling frequency unless told otherwise, Hz.
const DEFAULT_FREQUENCY_HZ: i64 = 99;
/// The kernel's own default for stacks, frames: `PERF_MAX_STACK_DEPTH`, include/uapi/linux/perf_event.h.
const DEFAULT_STACK_DEPTH: i64 = 127;
/// From here on BPF memory is charged to the memory cgroup and no longer to RLIMIT_MEMLOCK.
const CGROUP_CHARGED: KernelVersion = KernelVersion(5, 11, 0);

pub(super) fn check(host: &Host, findings: &mut Vec<Finding>) {
    findings.push(sample_rate(host));
    findings.push(stack_depth(host));
    findings.push(locked_memory(host));
}

fn sample_rate(host: &Host) -> Finding {
    const CHECK: &str = "perf-event-max-sample-rate";
    match host.proc_number("sys/kernel/perf_event_max_sample_rate") {
        Some(rate) if rate < DEFAULT_FREQUENCY_HZ => warning(
            CHECK,
            format!(
                "at most {rate} samples a second and CPU: the default of {DEFAULT_FREQUENCY_HZ} Hz is refused"
            ),
            "sysctl kernel.perf_event_max_sample_rate=100000, or sample at a lower frequency",
        ),
        Some(rate) => ok(CHECK, format!("at most {rate} samples a second and CPU")),
        None => warning(
            CHECK,
            "the highest sampling frequency is unknown",
            "mount the host's /proc where the profiler runs",
        ),
    }
}

fn stack_depth(host: &Host) -> Finding {
    const CHECK: &str = "perf-event-max-stack";
    match host.proc_number("sys/kernel/perf_event_max_stack") {
        Some(depth) if depth < DEFAULT_STACK_DEPTH => warning(
            CHECK,
            format!("stacks are cut at {depth} frames"),
            format!("sysctl kernel.perf_event_max_stack={DEFAULT_STACK_DEPTH} while nothing samples"),
        ),
        Some(depth) => ok(CHECK, format!("stacks are cut at {depth} frames")),
        None => warning(
            CHECK,
            "the deepest stack the kernel records is unknown",
            "mount the host's /proc where the profiler runs",
        ),
    }
}

fn locked_memory(host: &Host) -> Finding {
    const CHECK: &str = "memlock";
    if KernelVersion::of(host).is_none_or(|version| version >= CGROUP_CHARGED) {
        return ok(CHECK, "eBPF memory is charged to the memory cgroup");
    }
    let limits = host.proc_text("self/limits").unwrap_or_default();
    let soft = limits
        .lines()
        .find_map(|line| line.strip_prefix("Max locked memory"))
        .and_then(|rest| rest.split_ascii_whitespace().next());
    match soft {
        Some("unlimited") => ok(CHECK, "locked memory is not limited"),
        soft => warning(
            CHECK,
            format!(
                "locked memory is limited to {} bytes, and on this kernel eBPF maps count as locked: loading \
                 may fail with EPERM",
                soft.unwrap_or("an unknown number of")
            ),
            "systemd: LimitMEMLOCK=infinity; shell: ulimit -l unlimited",
        ),
    }
}
