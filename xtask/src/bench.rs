//! `cargo xtask bench`: what the profiler costs, as ratios measured within one run.

mod off_cpu;
mod walk;

use anyhow::Result;
use clap::Subcommand;

/// What is measured.
#[derive(Debug, Subcommand)]
pub(crate) enum Bench {
    /// Walks of user stacks by tables against the kernel's walk along frame pointers
    ///
    /// Needs root and gcc. Prints time a frame of both over the same stacks, and their ratio.
    Walk,
    /// Off-CPU time by switches a second, against no profiler, perf sched and bpftrace
    ///
    /// Needs root, and installs gcc, bpftrace and linux-perf if they are missing. Prints throughput of a
    /// workload that only switches, time in the eBPF programs, and the tool's own CPU time.
    OffCpu(off_cpu::Arguments),
}

/// Measures.
///
/// # Errors
///
/// When something needed is missing or fails. A poor result is no error: it is printed.
pub(crate) fn bench(what: &Bench) -> Result<()> {
    match what {
        Bench::Walk => walk::walk(),
        Bench::OffCpu(arguments) => off_cpu::off_cpu(arguments),
    }
}
