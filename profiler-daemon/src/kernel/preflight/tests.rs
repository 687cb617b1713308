//! Feeds the checks hosts of every kind, each one change away from a host without a flaw.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;

use tempfile::TempDir;

use super::*;

/// CAP_BPF 39, CAP_PERFMON 38, CAP_CHECKPOINT_RESTORE 40, CAP_SYSLOG 34, CAP_SYS_PTRACE 19,
/// CAP_DAC_READ_SEARCH 2: include/uapi/linux/capability.h.
const WANTED: u64 = 1 << 39 | 1 << 38 | 1 << 40 | 1 << 34 | 1 << 19 | 1 << 2;
const SYS_ADMIN: u64 = 1 << 21;

/// A directory with a `proc` and a `sys` in it.
struct Fake {
    host: Host,
    _directory: TempDir,
}

impl Fake {
    /// A host on which every check is content.
    fn new() -> Self {
        let directory = tempfile::tempdir().expect("a directory");
        let host = Host {
            proc: directory.path().join("proc"),
            sys: directory.path().join("sys"),
            architecture: "x86_64".to_owned(),
        };
        let fake = Self { host, _directory: directory };
        fake.proc("sys/kernel/osrelease", "6.1.0-50-cloud-amd64\n");
        fake.proc("sys/kernel/perf_event_paranoid", "2\n");
        fake.proc("sys/kernel/perf_event_max_sample_rate", "100000\n");
        fake.proc("sys/kernel/perf_event_max_stack", "127\n");
        fake.proc("sys/net/core/bpf_jit_enable", "1\n");
        fake.proc("kallsyms", "0000000000000000 A fixed_percpu_data\nffffffff81000000 T _stext\n");
        fake.proc("pressure/cpu", "some avg10=0.00 avg60=0.00 avg300=0.00 total=0\n");
        fake.mounts("29 23 0:26 / /sys/fs/cgroup rw,nosuid shared:4 - cgroup2 cgroup2 rw\n");
        fake.capabilities(WANTED);
        fake.namespace("pid", 4_026_531_836);
        fake.namespace("user", 4_026_531_837);
        fake.write(&fake.host.sys, "kernel/btf/vmlinux", &0xEB9F_u16.to_ne_bytes());
        fake.sys("kernel/security/lockdown", "none [integrity] confidentiality\n");
        fake
    }

    fn write(&self, root: &Path, path: &str, content: &[u8]) {
        let path = root.join(path);
        fs::create_dir_all(path.parent().expect("a parent")).expect("a directory");
        fs::write(path, content).expect("a file");
    }

    fn proc(&self, path: &str, text: &str) {
        self.write(&self.host.proc, path, text.as_bytes());
    }

    fn sys(&self, path: &str, text: &str) {
        self.write(&self.host.sys, path, text.as_bytes());
    }

    fn mounts(&self, text: &str) {
        self.proc("self/mountinfo", text);
    }

    fn capabilities(&self, effective: u64) {
        self.proc("thread-self/status", &format!("Name:\tx\nCapEff:\t{effective:016x}\nSeccomp:\t0\n"));
    }

    fn namespace(&self, kind: &str, inode: u32) {
        let link = self.host.proc.join("self/ns").join(kind);
        fs::create_dir_all(link.parent().expect("a parent")).expect("a directory");
        let _ = fs::remove_file(&link);
        symlink(format!("{kind}:[{inode}]"), link).expect("a link");
    }

    fn finding(&self, check: &str) -> Finding {
        let mut found: Vec<_> = super::check(&self.host).into_iter().filter(|f| f.check == check).collect();
        assert_eq!(found.len(), 1, "{check} must be reported once");
        found.remove(0)
    }

    /// The one finding of `check`, which must have this severity, mention `text` in its message or
    /// fix, and say what to do if anything is wrong.
    fn expect(&self, check: &str, severity: Severity, text: &str) {
        let finding = self.finding(check);
        assert_eq!(finding.severity, severity, "{finding:?}");
        assert!(format!("{} {}", finding.message, finding.fix).contains(text), "{text:?} not in {finding:?}");
        assert_eq!(finding.fix.is_empty(), severity == Ok, "{finding:?}");
    }
}

use Severity::{Error, Ok, Warning};

#[test]
fn a_host_without_a_flaw_has_only_ok_findings() {
    let findings = check(&Fake::new().host);
    assert!(findings.iter().all(|finding| finding.severity == Ok), "{findings:#?}");
    assert_eq!(refused(&findings), None);
}

#[test]
fn a_host_that_shows_nothing_is_refused_and_every_problem_named() {
    let fake = Fake::new();
    fs::remove_dir_all(&fake.host.proc).expect("removed");
    fs::remove_dir_all(&fake.host.sys).expect("removed");
    let findings = check(&fake.host);
    assert_eq!(refused(&findings).map(|finding| finding.check), Some("kernel-version"));
    for finding in findings.iter().filter(|finding| finding.severity != Ok) {
        assert!(!finding.fix.is_empty(), "{finding:?}");
    }
    for check in ["bpf-capability", "btf"] {
        assert!(
            findings.iter().any(|finding| finding.check == check && finding.severity == Error),
            "{check}"
        );
    }
}

#[test]
fn kernel_versions() {
    let fake = Fake::new();
    for (release, severity) in [
        ("7.3.4+deb13-amd64", Ok),
        ("6.18-rc3", Ok),
        ("5.15.0", Ok),
        ("5.14.21", Error),
        ("5.14.0-503.15.1.el9_5.x86_64", Warning),
        ("5.10.0-32-amd64", Error),
        ("4.19.0", Error),
        ("nonsense", Error),
    ] {
        fake.proc("sys/kernel/osrelease", release);
        assert_eq!(fake.finding("kernel-version").severity, severity, "{release}");
    }
}

#[test]
fn dangerous_kernels_are_refused_with_their_source() {
    let fake = Fake::new();
    for (release, severity, source) in [
        ("5.18.19", Ok, ""),
        ("5.19.0-50-generic", Error, "parca-agent#1675"),
        ("6.0.12", Error, "parca-agent#1675"),
        ("6.1.0", Ok, ""),
        ("6.11.0-19-generic", Error, "coroot-node-agent#275"),
        ("6.11.5", Ok, ""),
        ("5.14.0-503.15.1.el9_5.x86_64", Warning, "perforator#68"),
        ("5.14.21-generic", Ok, ""),
    ] {
        fake.proc("sys/kernel/osrelease", release);
        fake.expect("kernel-safety", severity, source);
    }
}

#[test]
fn architectures() {
    let mut fake = Fake::new();
    for (name, severity) in [("x86_64", Ok), ("aarch64", Warning), ("riscv64", Error)] {
        fake.host.architecture = name.to_owned();
        fake.expect("architecture", severity, name);
    }
}

#[test]
fn each_missing_capability_is_named() {
    let fake = Fake::new();
    for (check, bit, severity, name) in [
        ("bpf-capability", 39, Error, "CAP_BPF"),
        ("perfmon-capability", 38, Error, "CAP_PERFMON"),
        ("ptrace-capability", 19, Warning, "CAP_SYS_PTRACE"),
        ("syslog-capability", 34, Warning, "CAP_SYSLOG"),
        ("dac-read-search-capability", 2, Warning, "CAP_DAC_READ_SEARCH"),
        ("checkpoint-restore-capability", 40, Warning, "CAP_CHECKPOINT_RESTORE"),
    ] {
        fake.capabilities(WANTED & !(1 << bit));
        fake.expect(check, severity, name);
        let wrong = super::check(&fake.host).iter().filter(|finding| finding.severity != Ok).count();
        assert_eq!(wrong, 1, "{check} and nothing else");
    }
}

#[test]
fn sys_admin_stands_in_for_what_was_split_off_it() {
    let fake = Fake::new();
    fake.capabilities(SYS_ADMIN);
    for check in ["bpf-capability", "perfmon-capability", "checkpoint-restore-capability"] {
        fake.expect(check, Ok, "CAP_SYS_ADMIN");
    }
    // kallsyms asks for CAP_SYSLOG itself, /proc/PID/exe for CAP_SYS_PTRACE.
    assert_eq!(fake.finding("syslog-capability").severity, Warning);
    assert_eq!(fake.finding("ptrace-capability").severity, Warning);
}

#[test]
fn paranoid_levels_that_want_sys_admin() {
    let fake = Fake::new();
    for (level, capabilities, severity) in [
        ("-1", WANTED, Ok),
        ("2", WANTED, Ok),
        ("3", WANTED, Warning),
        ("4", WANTED, Error),
        ("4", WANTED | SYS_ADMIN, Ok),
    ] {
        fake.proc("sys/kernel/perf_event_paranoid", level);
        fake.capabilities(capabilities);
        fake.expect("perf-event-paranoid", severity, level);
    }
    fs::remove_file(fake.host.proc.join("sys/kernel/perf_event_paranoid")).expect("removed");
    fake.expect("perf-event-paranoid", Error, "CONFIG_PERF_EVENTS");
}

#[test]
fn namespaces_of_a_container_are_refused() {
    let fake = Fake::new();
    fake.namespace("pid", 4_026_532_000);
    fake.expect("pid-namespace", Error, "hostPID: true");
    fs::remove_file(fake.host.proc.join("self/ns/pid")).expect("removed");
    fake.expect("pid-namespace", Warning, "/proc");
    fake.namespace("user", 4_026_532_001);
    fake.expect("user-namespace", Error, "rootless");
}

#[test]
fn lockdown_modes() {
    let fake = Fake::new();
    fake.expect("lockdown", Ok, "integrity");
    fake.sys("kernel/security/lockdown", "none integrity [confidentiality]\n");
    fake.expect("lockdown", Error, "lockdown=integrity");
    fs::remove_dir_all(fake.host.sys.join("kernel/security")).expect("removed");
    fake.expect("lockdown", Ok, "not visible");
}

#[test]
fn seccomp_and_no_new_privs_are_hints() {
    let fake = Fake::new();
    fake.expect("seccomp", Ok, "no system call filter");
    fake.proc("thread-self/status", &format!("CapEff:\t{WANTED:x}\nNoNewPrivs:\t1\nSeccomp:\t2\n"));
    fake.expect("seccomp", Ok, "must let bpf and perf_event_open pass; no_new_privs");
}

#[test]
fn btf_must_be_there_and_be_btf() {
    let fake = Fake::new();
    fake.sys("kernel/btf/vmlinux", "ELF");
    fake.expect("btf", Error, "not BTF");
    fs::remove_file(fake.host.sys.join("kernel/btf/vmlinux")).expect("removed");
    fake.expect("btf", Error, "CONFIG_DEBUG_INFO_BTF");
}

#[test]
fn jit_switch() {
    let fake = Fake::new();
    fake.proc("sys/net/core/bpf_jit_enable", "0\n");
    fake.expect("bpf-jit", Warning, "net.core.bpf_jit_enable=1");
    fs::remove_file(fake.host.proc.join("sys/net/core/bpf_jit_enable")).expect("removed");
    fake.expect("bpf-jit", Ok, "not visible");
}

#[test]
fn hidden_kernel_symbols_name_the_cause() {
    let fake = Fake::new();
    fake.expect("kernel-symbols", Ok, "addresses");
    fake.proc("kallsyms", "0000000000000000 T _stext\n0000000000000000 T _text\n");
    fake.proc("sys/kernel/kptr_restrict", "1\n");
    fake.expect("kernel-symbols", Warning, "CAP_SYSLOG");
    fake.proc("sys/kernel/kptr_restrict", "2\n");
    fake.expect("kernel-symbols", Warning, "kernel.kptr_restrict=1");
    fake.proc("kallsyms", "");
    fake.expect("kernel-symbols", Warning, "CONFIG_KALLSYMS");
}

#[test]
fn cgroup_hierarchies() {
    const V1: &str = "32 31 0:29 / /sys/fs/cgroup/cpu rw - cgroup cgroup rw,cpu\n";
    let fake = Fake::new();
    fake.expect("cgroup-v2", Ok, "/sys/fs/cgroup");
    fake.mounts(&format!("{V1}41 31 0:38 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw\n"));
    fake.expect("cgroup-v2", Warning, "/sys/fs/cgroup/unified");
    fake.mounts(V1);
    fake.expect("cgroup-v2", Warning, "--cgroup");
}

#[test]
fn pressure_and_tracefs_are_information() {
    let fake = Fake::new();
    fake.expect("pressure", Ok, "is there");
    fs::remove_dir_all(fake.host.proc.join("pressure")).expect("removed");
    fake.expect("pressure", Ok, "psi=1");

    fake.expect("tracefs", Ok, "not mounted");
    fake.sys("kernel/debug/tracing/events/enable", "0");
    fake.expect("tracefs", Ok, "/sys/kernel/debug/tracing");
    fake.sys("kernel/tracing/events/enable", "0");
    fake.expect("tracefs", Ok, "at /sys/kernel/tracing");
}

#[test]
fn limits_below_the_defaults() {
    let fake = Fake::new();
    fake.proc("sys/kernel/perf_event_max_sample_rate", "50\n");
    fake.expect("perf-event-max-sample-rate", Warning, "50 samples");
    fake.proc("sys/kernel/perf_event_max_stack", "16\n");
    fake.expect("perf-event-max-stack", Warning, "16 frames");
}

#[test]
fn locked_memory_counts_before_5_11_only() {
    let fake = Fake::new();
    fake.proc("self/limits", "Limit  Soft Hard Units\nMax locked memory         65536   65536   bytes\n");
    fake.expect("memlock", Ok, "memory cgroup");
    fake.proc("sys/kernel/osrelease", "5.10.0-32-amd64");
    fake.expect("memlock", Warning, "65536 bytes");
    fake.proc("self/limits", "Max locked memory         unlimited  unlimited  bytes\n");
    fake.expect("memlock", Ok, "not limited");
}

#[test]
fn files_larger_than_the_limit_are_read_in_part() {
    let fake = Fake::new();
    fake.proc("kallsyms", &"0000000000000000 T hidden\n".repeat(1 << 17));
    let text = fake.host.proc_text("kallsyms").expect("readable");
    assert_eq!(text.len() as u64, READ_LIMIT);
    assert_eq!(fake.finding("kernel-symbols").severity, Warning);
}
