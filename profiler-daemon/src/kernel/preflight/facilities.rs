//! What the kernel offers: BTF, symbols, the JIT, cgroups, pressure, tracefs.

use std::fs;

use super::{Host, error, ok, warning};
use crate::model::Finding;

/// First two bytes of BTF, in the byte order of the machine: `BTF_MAGIC`, include/uapi/linux/btf.h.
const BTF_MAGIC: [u8; 2] = 0xEB9F_u16.to_ne_bytes();

pub(super) fn check(host: &Host, findings: &mut Vec<Finding>) {
    findings.push(btf(host));
    findings.push(jit(host));
    findings.push(kernel_symbols(host));
    findings.push(cgroup(host));
    findings.push(pressure(host));
    findings.push(tracefs(host));
}

fn btf(host: &Host) -> Finding {
    const CHECK: &str = "btf";
    let mut magic = [0; 2];
    let read = fs::File::open(host.sys.join("kernel/btf/vmlinux"))
        .and_then(|mut file| std::io::Read::read_exact(&mut file, &mut magic));
    match read {
        Ok(()) if magic == BTF_MAGIC => ok(CHECK, "/sys/kernel/btf/vmlinux"),
        Ok(()) => error(CHECK, "/sys/kernel/btf/vmlinux is not BTF", "mount the host's /sys here"),
        Err(cause) => error(
            CHECK,
            format!("/sys/kernel/btf/vmlinux: {cause}; without it the kernel's structures are unknown"),
            "boot a kernel with CONFIG_DEBUG_INFO_BTF=y, and mount /sys where the profiler runs",
        ),
    }
}

fn jit(host: &Host) -> Finding {
    const CHECK: &str = "bpf-jit";
    match host.proc_number("sys/net/core/bpf_jit_enable") {
        Some(0) => warning(
            CHECK,
            "the eBPF JIT is off: programs are interpreted and cost several times as much",
            "sysctl net.core.bpf_jit_enable=1",
        ),
        Some(_) => ok(CHECK, "the eBPF JIT is on"),
        // The sysctl exists in the initial network namespace only.
        None => ok(CHECK, "the eBPF JIT's switch is not visible here (not the host's network namespace)"),
    }
}

/// Without CAP_SYSLOG, or with kptr_restrict at 2, every address reads as zero. The first lines
/// alone prove nothing: per-CPU symbols start at zero on x86_64.
fn kernel_symbols(host: &Host) -> Finding {
    const CHECK: &str = "kernel-symbols";
    let Some(symbols) = host.proc_text("kallsyms").filter(|text| !text.is_empty()) else {
        return warning(
            CHECK,
            "/proc/kallsyms cannot be read: kernel frames stay unnamed",
            "boot a kernel with CONFIG_KALLSYMS=y; systemd: no ProtectKernelTunables=",
        );
    };
    let visible = symbols
        .lines()
        .filter_map(|line| line.split_ascii_whitespace().next())
        .any(|address| u64::from_str_radix(address, 16).is_ok_and(|address| address != 0));
    if visible {
        return ok(CHECK, "/proc/kallsyms shows addresses");
    }
    let message = "/proc/kallsyms hides all addresses: kernel frames stay unnamed";
    match host.proc_number("sys/kernel/kptr_restrict") {
        Some(level) if level >= 2 => warning(
            CHECK,
            format!("{message} (kernel.kptr_restrict is {level})"),
            "sysctl kernel.kptr_restrict=1",
        ),
        _ => warning(CHECK, message, "grant CAP_SYSLOG"),
    }
}

fn cgroup(host: &Host) -> Finding {
    const CHECK: &str = "cgroup-v2";
    let mounts = host.proc_text("self/mountinfo").unwrap_or_default();
    let mut unified = None;
    let mut legacy = false;
    for mount in mounts.lines() {
        // `id parent dev root MOUNT options [optional...] - TYPE source superoptions`, proc(5).
        let Some((place, system)) = mount.split_once(" - ") else { continue };
        match system.split(' ').next() {
            Some("cgroup2") => unified = unified.or_else(|| place.split(' ').nth(4)),
            Some("cgroup") => legacy = true,
            _ => {}
        }
    }
    match (unified, legacy) {
        (Some(place), false) => ok(CHECK, place),
        (Some(place), true) => warning(
            CHECK,
            format!("{place}, beside v1 hierarchies: processes that only those tell apart share one cgroup"),
            "boot with systemd.unified_cgroup_hierarchy=1",
        ),
        (None, _) => warning(
            CHECK,
            "no cgroup v2 hierarchy is mounted: samples carry no cgroup, and --cgroup cannot be used",
            "mount -t cgroup2 none /sys/fs/cgroup; in a container, mount the host's /sys/fs/cgroup",
        ),
    }
}

fn pressure(host: &Host) -> Finding {
    const CHECK: &str = "pressure";
    match host.proc_text("pressure/cpu") {
        Some(text) if text.starts_with("some ") => ok(CHECK, "/proc/pressure is there"),
        _ => ok(CHECK, "no pressure stall information (boot with psi=1 to have it)"),
    }
}

fn tracefs(host: &Host) -> Finding {
    const CHECK: &str = "tracefs";
    for (place, shown) in
        [("kernel/tracing", "/sys/kernel/tracing"), ("kernel/debug/tracing", "/sys/kernel/debug/tracing")]
    {
        if host.sys.join(place).join("events").exists() {
            return ok(CHECK, format!("at {shown}; not needed"));
        }
    }
    ok(CHECK, "not mounted, and not needed")
}
