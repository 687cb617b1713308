//! Kernel version and architecture, and the kernels on which sampling has taken hosts down.

use std::fmt;

use super::{Host, error, ok, warning};
use crate::model::Finding;

/// Oldest kernel that has all the programs call: `bpf_task_pt_regs` came with it.
const OLDEST: KernelVersion = KernelVersion(5, 15, 0);
/// Oldest kernel to which a distribution has brought those (RHEL 9): loading tells.
const PATCHED: KernelVersion = KernelVersion(5, 14, 0);

/// `major.minor.patch` of a kernel; a release without a patch number counts as patch 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct KernelVersion(pub(super) u32, pub(super) u32, pub(super) u32);

impl KernelVersion {
    /// Reads the leading numbers of a release such as `6.1.0-50-cloud-amd64` or `6.18-rc3`.
    fn parse(release: &str) -> Option<Self> {
        let numbers = release.trim().split(|c: char| !c.is_ascii_digit() && c != '.').next()?;
        let mut parts = numbers.split('.');
        let (major, minor) = (parts.next()?.parse().ok()?, parts.next()?.parse().ok()?);
        let patch = parts.next().and_then(|patch| patch.parse().ok()).unwrap_or(0);
        Some(Self(major, minor, patch))
    }

    /// The version of a host's running kernel.
    pub(super) fn of(host: &Host) -> Option<Self> {
        Self::parse(&host.proc_text("sys/kernel/osrelease")?)
    }
}

impl fmt::Display for KernelVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.0, self.1)
    }
}

pub(super) fn check(host: &Host, findings: &mut Vec<Finding>) {
    let release = host.proc_text("sys/kernel/osrelease").unwrap_or_default();
    let release = release.trim();
    findings.push(version(release));
    findings.push(safety(release));
    findings.push(architecture(&host.architecture));
}

fn version(release: &str) -> Finding {
    const CHECK: &str = "kernel-version";
    let Some(version) = KernelVersion::parse(release) else {
        return error(
            CHECK,
            "the kernel's version cannot be read from /proc/sys/kernel/osrelease",
            "mount /proc where the profiler runs",
        );
    };
    if version >= OLDEST {
        ok(CHECK, format!("Linux {release}"))
    } else if version >= PATCHED && release.contains(".el9") {
        warning(
            CHECK,
            format!("Linux {release} is older than {OLDEST}: it runs the programs if it has what they call"),
            format!("boot a kernel from {OLDEST} on if loading them fails"),
        )
    } else {
        error(
            CHECK,
            format!("Linux {release} is older than {OLDEST}, the oldest kernel that can run the programs"),
            format!("boot a kernel from {OLDEST} on"),
        )
    }
}

/// What is publicly recorded of sampling profilers taking hosts down. A panic with private BPF
/// stacks on 6.13 and later needs preemptible uprobes, which we do not use
/// (opentelemetry-ebpf-instrumentation#3056), so it is not here.
fn safety(release: &str) -> Finding {
    const CHECK: &str = "kernel-safety";
    let newer = "boot another kernel; the report says what is known about fixes";
    let Some(version) = KernelVersion::parse(release) else {
        return warning(
            CHECK,
            "unknown kernel: not compared with the record of dangerous ones",
            "mount the host's /proc where the profiler runs",
        );
    };
    if version >= KernelVersion(5, 19, 0) && version < KernelVersion(6, 1, 0) {
        return error(
            CHECK,
            format!(
                "Linux {release}: reading user memory from a sampling interrupt can lock up the host on 5.19 \
                 and 6.0 (parca-agent#1675)"
            ),
            "boot 5.15, or a current 6.1 or newer kernel",
        );
    }
    // Ubuntu calls every update of its 6.11 kernels 6.11.0-N; the crash was reported on 6.11.0-19.
    if version == KernelVersion(6, 11, 0) {
        return error(
            CHECK,
            format!(
                "Linux {release}: walking user stacks from a sampling interrupt has crashed hosts on 6.11.0, \
                 in perf_callchain_user (coroot-node-agent#275)"
            ),
            newer,
        );
    }
    if version.0 == 5 && version.1 == 14 && release.contains(".el9") {
        return warning(
            CHECK,
            format!(
                "Linux {release}: a hard lock-up while sampling is reported on RHEL 9 and not resolved \
                 (perforator#68)"
            ),
            "try it on a host that may go down first",
        );
    }
    ok(CHECK, "not among the kernels on which sampling is known to take hosts down")
}

fn architecture(name: &str) -> Finding {
    const CHECK: &str = "architecture";
    let fix = "run the profiler on x86_64";
    match name {
        "x86_64" => ok(CHECK, name),
        "aarch64" => warning(CHECK, "aarch64 has not been tested", fix),
        other => error(CHECK, format!("{other} is not supported: the stack walk knows x86_64"), fix),
    }
}
