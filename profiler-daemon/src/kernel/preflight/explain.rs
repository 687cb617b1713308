//! Turns the error number of a refused system call into the capability, sysctl or limit at fault.

use std::fmt;
use std::io;

use crate::model::{Finding, Severity};

/// The system call that was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KernelCall {
    /// `bpf(2)`: creating a map, loading or attaching a program.
    Bpf,
    /// `perf_event_open(2)`: opening a sampling clock.
    PerfEventOpen,
}

impl fmt::Display for KernelCall {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Bpf => "bpf()",
            Self::PerfEventOpen => "perf_event_open()",
        })
    }
}

/// Says in one line why `call` failed with `errno` (a positive `libc` number), and what to do.
///
/// The findings of the same host name what is at fault where the number alone does not.
#[must_use]
pub fn explain_load_error(call: KernelCall, errno: i32, findings: &[Finding]) -> String {
    let failed = format!("{call}: {}", io::Error::from_raw_os_error(errno));
    // EACCES from bpf() is the verifier's refusal of a program, not a missing right.
    let denied = errno == libc::EPERM || (errno == libc::EACCES && call == KernelCall::PerfEventOpen);
    if denied {
        return match culprit(call, findings) {
            Some(finding) => format!("{failed}: {}; {}", finding.message, finding.fix),
            None => format!(
                "{failed}: the capabilities are there, so a system call filter (the container runtime's or \
                 systemd's SystemCallFilter=) or a security module (lockdown, SELinux, AppArmor) refuses it"
            ),
        };
    }
    let cause = match (call, errno) {
        (KernelCall::Bpf, libc::EACCES) => "the kernel's verifier refused a program; its log says where",
        (KernelCall::Bpf, libc::EINVAL) => {
            "this kernel lacks a map type, helper or attach type it was asked for"
        }
        (KernelCall::PerfEventOpen, libc::EINVAL) => {
            "the frequency is above kernel.perf_event_max_sample_rate, or the event is not known here"
        }
        (KernelCall::PerfEventOpen, libc::ENOENT | libc::EOPNOTSUPP) => "this CPU has no such hardware event",
        (KernelCall::PerfEventOpen, libc::ENODEV) => "the CPU is offline",
        (KernelCall::PerfEventOpen, libc::EBUSY) => "another user holds the PMU exclusively",
        (_, libc::ENOSYS) => "the kernel was built without this system call",
        (_, libc::EMFILE) => "too many open files in this process: raise LimitNOFILE= or ulimit -n",
        (_, libc::ENFILE) => "too many open files on this host: raise sysctl fs.file-max",
        (_, libc::ENOMEM) => "out of memory: raise the memory limit of the service or container",
        _ => return failed,
    };
    format!("{failed}: {cause}")
}

/// The worst finding that makes the kernel answer EPERM or EACCES, the likeliest first.
fn culprit(call: KernelCall, findings: &[Finding]) -> Option<&Finding> {
    let suspects: &[&str] = match call {
        KernelCall::Bpf => &["bpf-capability", "perfmon-capability", "user-namespace", "lockdown", "memlock"],
        KernelCall::PerfEventOpen => &["perfmon-capability", "user-namespace", "perf-event-paranoid"],
    };
    let guilty = |severity: Severity| {
        suspects.iter().find_map(|suspect| {
            findings.iter().find(|finding| finding.check == *suspect && finding.severity == severity)
        })
    };
    guilty(Severity::Error).or_else(|| guilty(Severity::Warning))
}
