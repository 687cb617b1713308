//! What the kernel says of the eBPF programs of a process, and of the process itself.

use std::collections::BTreeMap;
use std::fs;
use std::time::Duration;

use anyhow::{Context as _, Result};

const STATS: &str = "/proc/sys/kernel/bpf_stats_enabled";

/// A program's runs and what they took, as long as the kernel counted.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Program {
    /// Hash of its instructions.
    pub(super) tag: String,
    pub(super) run_ns: u64,
    pub(super) runs: u64,
}

/// All programs a process holds, by the kernel's numbers.
pub(super) type Programs = BTreeMap<u32, Program>;

/// Those of a process now.
pub(super) fn of(pid: u32) -> Result<Programs> {
    let directory = format!("/proc/{pid}/fdinfo");
    let entries = fs::read_dir(&directory).with_context(|| format!("cannot read {directory}"))?;
    // A descriptor may be closed while we look.
    let texts = entries.flatten().filter_map(|entry| fs::read_to_string(entry.path()).ok());
    Ok(texts.filter_map(|text| parse(&text)).collect())
}

/// Reads `bpf_prog_show_fdinfo` (kernel/bpf/syscall.c). Links name a program too, but not its runs.
fn parse(text: &str) -> Option<(u32, Program)> {
    let value = |name: &str| {
        let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
        line.map(str::trim)
    };
    let program = Program {
        tag: value("prog_tag")?.to_owned(),
        run_ns: value("run_time_ns")?.parse().ok()?,
        runs: value("run_cnt")?.parse().ok()?,
    };
    Some((value("prog_id")?.parse().ok()?, program))
}

/// What was run between two looks, by the program's name.
pub(super) fn between(before: &Programs, after: &Programs) -> BTreeMap<String, Program> {
    let symbols = fs::read_to_string("/proc/kallsyms").unwrap_or_default();
    let mut all: BTreeMap<String, Program> = BTreeMap::new();
    for (id, program) in after {
        let earlier = before.get(id).cloned().unwrap_or_default();
        let entry = all.entry(name(&symbols, &program.tag)).or_default();
        entry.run_ns += program.run_ns.saturating_sub(earlier.run_ns);
        entry.runs += program.runs.saturating_sub(earlier.runs);
    }
    all
}

/// The name in `bpf_prog_TAG_NAME`; the tag where the kernel does not tell.
fn name(symbols: &str, tag: &str) -> String {
    let prefix = format!("bpf_prog_{tag}_");
    let named = symbols.lines().find_map(|line| {
        let (_, rest) = line.split_once(&prefix)?;
        rest.split_whitespace().next()
    });
    named.unwrap_or(tag).to_owned()
}

/// CPU time of a process's threads since they were started.
pub(super) fn cpu_time(pid: u32) -> Duration {
    let threads = fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten();
    let ns = threads.filter_map(|thread| {
        let text = fs::read_to_string(thread.path().join("schedstat")).ok()?;
        text.split(' ').next()?.parse::<u64>().ok()
    });
    Duration::from_nanos(ns.sum())
}

/// Switches of the whole host since it was started.
pub(super) fn host_switches() -> Result<u64> {
    let text = fs::read_to_string("/proc/stat")?;
    let line = text.lines().find_map(|line| line.strip_prefix("ctxt "));
    line.and_then(|count| count.trim().parse().ok()).context("no ctxt in /proc/stat")
}

/// The kernel times programs while this lives.
pub(super) struct Stats {
    before: String,
}

impl Stats {
    pub(super) fn on() -> Result<Self> {
        let before = fs::read_to_string(STATS)?;
        fs::write(STATS, "1")?;
        Ok(Self { before })
    }
}

impl Drop for Stats {
    fn drop(&mut self) {
        // Nothing to do about it if it fails: it only costs a little.
        _ = fs::write(STATS, self.before.trim());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn runs_are_read_and_links_left_out() {
        let text = "pos:\t0\nprog_type:\t26\nprog_jited:\t1\nprog_tag:\tab12\nmemlock:\t4096\nprog_id:\t7\n\
                    run_time_ns:\t900\nrun_cnt:\t3\nrecursion_misses:\t0\n";
        let expected = Program { tag: "ab12".to_owned(), run_ns: 900, runs: 3 };
        assert_eq!(parse(text), Some((7, expected)));
        assert_eq!(parse("link_type:\ttracing\nlink_id:\t5\nprog_tag:\tab12\nprog_id:\t7\n"), None);
    }

    #[test]
    fn programs_have_names() {
        let symbols = "ffffffffc0001000 t bpf_prog_ab12_switch\t[bpf]\nffffffffc0002000 t other\n";
        assert_eq!(name(symbols, "ab12"), "switch");
        assert_eq!(name(symbols, "cd34"), "cd34");
    }
}
