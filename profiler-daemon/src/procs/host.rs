//! Pressure, throttling and memory of the host or of a cgroup, read from `/proc` and cgroup v2.

use std::fs::File;
use std::io::Read as _;
use std::os::fd::OwnedFd;

use rustix::fs::{self, Mode, OFlags};

use super::cgroup;
use super::procdir::{SMALL, open_regular_below};
use crate::model::{HostFacts, Pressure, Throttling};

/// What the kernel says of the cgroup with this path (cgroup v2), or of the host with so many CPUs.
/// What cannot be read stays unknown.
#[must_use]
pub fn host_facts(cgroup: Option<&str>, cpus: u32) -> HostFacts {
    let facts = match cgroup {
        None => Directory::open("/proc").map(|proc| of_host(&proc)),
        Some(path) => cgroup::directory(path).map(|fd| of_cgroup(&Directory(fd))),
    };
    HostFacts { cpus, ..facts.unwrap_or_default() }
}

struct Directory(OwnedFd);

impl Directory {
    fn open(path: &str) -> Option<Self> {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        fs::open(path, flags, Mode::empty()).ok().map(Self)
    }

    fn read(&self, name: &str) -> Option<String> {
        let fd = open_regular_below(&self.0, name.as_bytes(), OFlags::NOFOLLOW)?;
        let mut text = String::new();
        File::from(fd).take(SMALL).read_to_string(&mut text).ok()?;
        Some(text)
    }
}

fn of_host(proc: &Directory) -> HostFacts {
    let memory = proc.read("meminfo").unwrap_or_default();
    let kib = |name: &str| value(&memory, name).map(|kib| kib.saturating_mul(1024));
    let total = kib("MemTotal:");
    let available = kib("MemAvailable:");
    HostFacts {
        cpus: 0,
        pressure: pressure(|resource| proc.read(&format!("pressure/{resource}"))),
        throttling: None,
        oom_kills: proc.read("vmstat").and_then(|text| value(&text, "oom_kill")),
        memory_used: total.zip(available).map(|(total, available)| total.saturating_sub(available)),
        memory_limit: total,
    }
}

fn of_cgroup(directory: &Directory) -> HostFacts {
    let number = |name: &str| directory.read(name)?.trim().parse().ok();
    HostFacts {
        cpus: 0,
        pressure: pressure(|resource| directory.read(&format!("{resource}.pressure"))),
        throttling: directory.read("cpu.stat").and_then(|text| throttling(&text)),
        oom_kills: directory.read("memory.events").and_then(|text| value(&text, "oom_kill")),
        memory_used: number("memory.current"),
        // `max` where there is no limit.
        memory_limit: number("memory.max"),
    }
}

/// The number behind a name in lines of `name number`.
fn value(text: &str, name: &str) -> Option<u64> {
    text.lines().find_map(|line| {
        let mut words = line.split_ascii_whitespace();
        (words.next()? == name).then(|| words.next()?.parse().ok())?
    })
}

fn throttling(stat: &str) -> Option<Throttling> {
    let periods = value(stat, "nr_periods")?;
    let throttled = value(stat, "nr_throttled")?;
    let throttled_us = value(stat, "throttled_usec")?;
    // Without a quota there are no periods.
    (periods > 0).then_some(Throttling { periods, throttled, throttled_us })
}

fn pressure(read: impl Fn(&str) -> Option<String>) -> Vec<Pressure> {
    ["cpu", "memory", "io"].into_iter().filter_map(|resource| parse(resource, &read(resource)?)).collect()
}

/// `some avg10=0.00 avg60=0.00 avg300=0.00 total=0`, then the same with `full`.
fn parse(resource: &'static str, text: &str) -> Option<Pressure> {
    let line = |kind: &str| -> Option<[f64; 3]> {
        let rest = text.lines().find_map(|line| line.strip_prefix(kind))?;
        let average = |name: &str| {
            rest.split_ascii_whitespace().find_map(|word| word.strip_prefix(name)?.parse::<f64>().ok())
        };
        Some([average("avg10=")?, average("avg60=")?, average("avg300=")?])
    };
    Some(Pressure { resource, some: line("some ")?, full: line("full ") })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn directory(files: &[(&str, &str)]) -> (tempfile::TempDir, Directory) {
        let root = tempfile::tempdir().unwrap();
        for (path, text) in files {
            let path = root.path().join(path);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        }
        let directory = Directory::open(root.path().to_str().unwrap()).unwrap();
        (root, directory)
    }

    const PSI: &str = "some avg10=1.50 avg60=2.00 avg300=0.25 total=12345\nfull avg10=0.00 avg60=1.00 avg300=0.10 total=99\n";

    #[test]
    fn a_host_is_read() {
        let (_root, proc) = directory(&[
            ("pressure/cpu", "some avg10=9.00 avg60=8.00 avg300=7.00 total=1\n"),
            ("pressure/io", PSI),
            ("vmstat", "pgfault 1\noom_kill 3\noom_kill_x 9\n"),
            ("meminfo", "MemTotal:        1000 kB\nMemFree:  1 kB\nMemAvailable:     400 kB\n"),
        ]);
        let facts = of_host(&proc);
        let [cpu, io] = facts.pressure.as_slice() else { panic!("{facts:?}") };
        assert_eq!((cpu.resource, cpu.some, cpu.full), ("cpu", [9.0, 8.0, 7.0], None));
        assert_eq!((io.some, io.full), ([1.5, 2.0, 0.25], Some([0.0, 1.0, 0.1])));
        assert_eq!(
            (facts.oom_kills, facts.memory_used, facts.memory_limit),
            (Some(3), Some(614_400), Some(1_024_000))
        );
    }

    #[test]
    fn a_cgroup_is_read() {
        let (_root, cgroup) = directory(&[
            ("memory.pressure", PSI),
            ("cpu.stat", "usage_usec 5\nnr_periods 100\nnr_throttled 7\nthrottled_usec 12000\n"),
            ("memory.events", "low 0\noom 2\noom_kill 1\n"),
            ("memory.current", "4096\n"),
            ("memory.max", "max\n"),
        ]);
        let facts = of_cgroup(&cgroup);
        assert_eq!(facts.throttling, Some(Throttling { periods: 100, throttled: 7, throttled_us: 12_000 }));
        assert_eq!((facts.oom_kills, facts.memory_used, facts.memory_limit), (Some(1), Some(4096), None));
        assert_eq!(throttling("nr_periods 0\nnr_throttled 0\nthrottled_usec 0\n"), None);
    }

    #[test]
    fn what_is_not_there_is_unknown() {
        let (_root, empty) = directory(&[]);
        assert_eq!(of_host(&empty), HostFacts::default());
        assert_eq!(of_cgroup(&empty), HostFacts::default());
        for text in ["", "some", "some avg10=x avg60=1 avg300=1", "full avg10=1 avg60=1 avg300=1"] {
            assert_eq!(parse("cpu", text), None, "{text}");
        }
        assert_eq!(host_facts(None, 3).cpus, 3);
        assert_eq!(host_facts(Some("/no/such/cgroup"), 3).oom_kills, None);
    }
}
