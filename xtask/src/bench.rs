//! `cargo xtask bench`: what the profiler costs, as ratios measured within one run.

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
}

/// Measures.
///
/// # Errors
///
/// When something needed is missing or fails. A poor result is no error: it is printed.
pub(crate) fn bench(what: &Bench) -> Result<()> {
    match what {
        Bench::Walk => walk::walk(),
    }
}
