//! What this thread may do: capabilities, namespaces, and what else can take a right away.

use caps::Capability;

use super::{Host, error, ok, warning};
use crate::model::Finding;

/// Inode of the initial pid namespace: `PROC_PID_INIT_INO`, include/linux/proc_ns.h.
const INITIAL_PID_NAMESPACE: u32 = 0xEFFF_FFFC;
/// Inode of the initial user namespace: `PROC_USER_INIT_INO`, include/linux/proc_ns.h.
const INITIAL_USER_NAMESPACE: u32 = 0xEFFF_FFFD;

pub(super) fn check(host: &Host, findings: &mut Vec<Finding>) {
    findings.push(pid_namespace(host));
    findings.push(user_namespace(host));
    let status = host.proc_text("thread-self/status").unwrap_or_default();
    match Held::parse(&status) {
        Some(held) => {
            findings.extend(WANTED.iter().map(|wanted| wanted.check(held)));
            findings.push(perf_event_paranoid(host, held));
        }
        None => findings.push(error(
            "bpf-capability",
            "the capabilities of this process cannot be read from /proc/thread-self/status",
            "mount /proc where the profiler runs",
        )),
    }
    findings.push(seccomp(&status));
    findings.push(lockdown(host));
}

/// A set of effective capabilities.
#[derive(Clone, Copy)]
struct Held(u64);

impl Held {
    /// Reads the `CapEff` line of a `status` file. Capabilities belong to a thread, which is why
    /// the file is that of `thread-self`.
    fn parse(status: &str) -> Option<Self> {
        u64::from_str_radix(field(status, "CapEff")?, 16).ok().map(Self)
    }

    fn has(self, capability: Capability) -> bool {
        self.0 & capability.bitmask() != 0
    }
}

/// The value of a `Name:\tvalue` line.
fn field<'a>(status: &'a str, name: &str) -> Option<&'a str> {
    status.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':')).map(str::trim)
}

/// One capability the profiler wants.
struct Wanted {
    check: &'static str,
    capability: Capability,
    /// Stronger capabilities that the kernel accepts in its place.
    or: &'static [Capability],
    /// Whether nothing works without.
    required: bool,
    /// What is missing without.
    without: &'static str,
}

const WANTED: &[Wanted] = &[
    Wanted {
        check: "bpf-capability",
        capability: Capability::CAP_BPF,
        or: &[Capability::CAP_SYS_ADMIN],
        required: true,
        without: "eBPF programs cannot be loaded",
    },
    Wanted {
        check: "perfmon-capability",
        capability: Capability::CAP_PERFMON,
        or: &[Capability::CAP_SYS_ADMIN],
        required: true,
        without: "the host cannot be sampled, and tracing programs cannot be loaded",
    },
    Wanted {
        check: "ptrace-capability",
        capability: Capability::CAP_SYS_PTRACE,
        or: &[],
        required: false,
        without: "executables of other users' processes cannot be found, so their frames stay unnamed",
    },
    Wanted {
        check: "syslog-capability",
        capability: Capability::CAP_SYSLOG,
        or: &[],
        required: false,
        without: "the kernel may hide its addresses, so that kernel frames stay unnamed",
    },
    Wanted {
        check: "dac-read-search-capability",
        capability: Capability::CAP_DAC_READ_SEARCH,
        or: &[Capability::CAP_DAC_OVERRIDE],
        required: false,
        without: "files that only their owner may read cannot be symbolized",
    },
    Wanted {
        check: "checkpoint-restore-capability",
        capability: Capability::CAP_CHECKPOINT_RESTORE,
        or: &[Capability::CAP_SYS_ADMIN],
        required: false,
        without: "/proc/PID/map_files is closed, so that binaries deleted or replaced while they run stay \
                  unnamed",
    },
];

impl Wanted {
    fn check(&self, held: Held) -> Finding {
        let name = self.capability.to_string();
        if held.has(self.capability) {
            return ok(self.check, name);
        }
        if let Some(stronger) = self.or.iter().find(|stronger| held.has(**stronger)) {
            return ok(self.check, format!("{stronger} stands in for {name}"));
        }
        let alternatives: String = self.or.iter().map(|other| format!(" or {other}")).collect();
        let message = format!("missing {name}{alternatives}: {}", self.without);
        let fix = format!(
            "run as root, or grant {name} (systemd: AmbientCapabilities=, Kubernetes: capabilities.add, \
             docker: --cap-add)"
        );
        if self.required { error(self.check, message, fix) } else { warning(self.check, message, fix) }
    }
}

/// Levels above 2 are not in mainline: Ubuntu's 4 wants CAP_SYS_ADMIN where mainline is content
/// with CAP_PERFMON (tracee#2033, rr#3611).
fn perf_event_paranoid(host: &Host, held: Held) -> Finding {
    const CHECK: &str = "perf-event-paranoid";
    let sysctl = "sysctl kernel.perf_event_paranoid=2, or grant CAP_SYS_ADMIN as well";
    // "The existence of this file is the official method for determining if a kernel supports
    // perf_event_open", perf_event_open(2).
    let Some(level) = host.proc_number("sys/kernel/perf_event_paranoid") else {
        return error(
            CHECK,
            "no /proc/sys/kernel/perf_event_paranoid: the kernel has no perf events",
            "boot a kernel with CONFIG_PERF_EVENTS=y",
        );
    };
    if level <= 2 || held.has(Capability::CAP_SYS_ADMIN) {
        ok(CHECK, format!("kernel.perf_event_paranoid is {level}"))
    } else if level >= 4 {
        let message = format!(
            "kernel.perf_event_paranoid is {level}: at this level perf_event_open wants CAP_SYS_ADMIN, and \
             CAP_PERFMON is not enough"
        );
        error(CHECK, message, sysctl)
    } else {
        let message = format!(
            "kernel.perf_event_paranoid is {level}: some distributions' kernels want CAP_SYS_ADMIN at this \
             level"
        );
        warning(CHECK, message, sysctl)
    }
}

fn pid_namespace(host: &Host) -> Finding {
    const CHECK: &str = "pid-namespace";
    match namespace(host, "pid") {
        Some(INITIAL_PID_NAMESPACE) => ok(CHECK, "the initial pid namespace"),
        Some(_) => error(
            CHECK,
            "not in the initial pid namespace: process ids from the kernel would not match those in /proc",
            "Kubernetes: hostPID: true; docker, podman: --pid=host",
        ),
        None => warning(
            CHECK,
            "/proc/self/ns/pid cannot be read: process ids from the kernel may not match those in /proc",
            "mount the host's /proc where the profiler runs",
        ),
    }
}

fn user_namespace(host: &Host) -> Finding {
    const CHECK: &str = "user-namespace";
    match namespace(host, "user") {
        Some(INITIAL_USER_NAMESPACE) => ok(CHECK, "the initial user namespace"),
        Some(_) => error(
            CHECK,
            "not in the initial user namespace: capabilities held here do not count for eBPF and perf events",
            "run it as real root, not in a rootless container or a pod with hostUsers: false",
        ),
        None => ok(CHECK, "the kernel has no user namespaces"),
    }
}

/// The inode in a link such as `pid:[4026531836]`.
fn namespace(host: &Host, kind: &str) -> Option<u32> {
    let link = std::fs::read_link(host.proc.join("self/ns").join(kind)).ok()?;
    link.to_str()?.strip_prefix(kind)?.strip_prefix(":[")?.strip_suffix(']')?.parse().ok()
}

fn seccomp(status: &str) -> Finding {
    const CHECK: &str = "seccomp";
    let mut message = match field(status, "Seccomp") {
        // SECCOMP_MODE_FILTER, include/uapi/linux/seccomp.h.
        Some("2") => "a system call filter is active: it must let bpf and perf_event_open pass".to_owned(),
        _ => "no system call filter".to_owned(),
    };
    if field(status, "NoNewPrivs") == Some("1") {
        message.push_str("; no_new_privs is set: capabilities cannot be gained after the start");
    }
    ok(CHECK, message)
}

/// At `confidentiality` the helpers that read kernel memory are refused:
/// `LOCKDOWN_BPF_READ_KERNEL`, include/linux/security.h.
fn lockdown(host: &Host) -> Finding {
    const CHECK: &str = "lockdown";
    let text = host.sys_text("kernel/security/lockdown").unwrap_or_default();
    match text.split(['[', ']']).nth(1) {
        Some("confidentiality") => error(
            CHECK,
            "kernel lockdown is at confidentiality: eBPF programs may not read kernel memory",
            "boot with lockdown=integrity or without secure boot's lockdown",
        ),
        Some(mode) => ok(CHECK, format!("kernel lockdown is at {mode}, which lets eBPF read")),
        None => ok(CHECK, "kernel lockdown is not visible here (not built in, or securityfs not mounted)"),
    }
}
