//! Installs Debian packages, where that is possible.

use std::process::Command;

use anyhow::{Result, bail};

use crate::run::{is_root, on_path, output, run};

/// Installs those of `packages` that are missing.
///
/// # Errors
///
/// When one is missing and we may not or cannot install it; the message holds the commands.
pub(crate) fn install(packages: &[&str]) -> Result<()> {
    let missing: Vec<&str> = packages.iter().copied().filter(|package| !is_installed(package)).collect();
    if missing.is_empty() {
        return Ok(());
    }
    if on_path("apt-get").is_none() || !is_root() {
        bail!(
            "missing: {0}; run as root: apt-get update && apt-get install --no-install-recommends {0}",
            missing.join(" ")
        );
    }
    run(Command::new("apt-get").args(["update", "--quiet"]))?;
    run(Command::new("apt-get")
        .env("DEBIAN_FRONTEND", "noninteractive")
        .args(["install", "--yes", "--quiet", "--no-install-recommends"])
        .args(missing))
}

fn is_installed(package: &str) -> bool {
    output(Command::new("dpkg-query").args(["--show", "--showformat=${db:Status-Status}", package]))
        .is_some_and(|status| status == "installed")
}
