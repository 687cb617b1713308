//! `cargo xtask lint`: everything that is checked without running the profiler.

use anyhow::Result;

use crate::run::{cargo, run};
use crate::tidy;

/// The whole workspace but the programs for the kernel, which no host target can compile.
pub(crate) const HOST_PACKAGES: [&str; 4] = ["--workspace", "--exclude", "profiler-ebpf", "--locked"];

/// House rules, formatting, clippy and rustdoc; the first that finds something ends it.
///
/// # Errors
///
/// When one finds something, or cannot be run.
pub(crate) fn lint() -> Result<()> {
    tidy::run()?;
    run(cargo().args(["fmt", "--all", "--check"]))?;
    run(cargo().arg("clippy").args(HOST_PACKAGES).args(["--all-targets", "--", "-D", "warnings"]))?;
    run(cargo().arg("doc").args(HOST_PACKAGES).arg("--no-deps").env("RUSTDOCFLAGS", "-D warnings"))
}
