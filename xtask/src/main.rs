//! The project's own tasks: `cargo xtask build-ebpf | tidy | lint | test | bench`.

mod bench;
mod build_ebpf;
mod lint;
mod packages;
mod run;
mod source_hash;
mod test;
mod tidy;

use std::process::ExitCode;

use anyhow::Result;
use clap::{Parser, Subcommand};

/// The project's own tasks
#[derive(Debug, Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask")]
struct Arguments {
    #[command(subcommand)]
    task: Task,
}

#[derive(Debug, Subcommand)]
enum Task {
    /// Build the eBPF object from source and check it in
    ///
    /// Installs what it needs if it is missing: a rustc with the source of its library, and bpf-linker.
    /// PROFILER_EBPF_RUSTC names the rustc to use.
    BuildEbpf {
        /// Write nothing: fail if the object checked in was built from other sources
        #[arg(long)]
        check: bool,
    },
    /// Check the house rules
    ///
    /// How files open and how long they are, who imports whom, what must not stay in the tree.
    Tidy,
    /// Check the house rules, formatting, clippy and rustdoc
    Lint,
    /// Rebuild the eBPF object from source and run all tests with it
    ///
    /// As root it first installs the Debian packages that the tests need and that are missing.
    Test {
        /// Skip the tests that need root, although we are root
        #[arg(long)]
        unprivileged: bool,
    },
    /// Measure what the profiler costs, as ratios within one run
    Bench {
        #[command(subcommand)]
        what: bench::Bench,
    },
}

fn main() -> ExitCode {
    match run_task(Arguments::parse().task) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            error.downcast_ref::<run::Failed>().map_or(1, run::Failed::code).into()
        }
    }
}

fn run_task(task: Task) -> Result<()> {
    match task {
        Task::BuildEbpf { check: false } => build_ebpf::write(),
        Task::BuildEbpf { check: true } => build_ebpf::check().map(drop),
        Task::Tidy => tidy::run(),
        Task::Lint => lint::lint(),
        Task::Test { unprivileged } => test::test(unprivileged),
        Task::Bench { what } => bench::bench(&what),
    }
}
