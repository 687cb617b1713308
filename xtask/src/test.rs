//! `cargo xtask test`: rebuilds the eBPF object from source and runs every test with it.

use anyhow::Result;

use crate::lint::HOST_PACKAGES;
use crate::run::{cargo, is_root, on_path, run};
use crate::{build_ebpf, packages};

/// What the tests need of Debian: compilers and linkers for the workloads, programs whose stacks are
/// looked at, a browser for the flame graphs, `readelf` to compare unwinding tables with, what packs
/// a symbol table into a file. Go is large and stays optional.
const PACKAGES: [&str; 10] =
    ["binutils", "chromium", "g++", "gcc", "libc6-dev", "lld", "openssl", "python3", "sqlite3", "xz-utils"];

/// Names the object that `profiler-daemon/build.rs` embeds in place of the one checked in.
const OBJECT_OVERRIDE: &str = "PROFILER_EBPF_OBJECT";

/// Tells the tests to leave out what needs root although they have it.
const UNPRIVILEGED: &str = "PROFILER_TESTS_UNPRIVILEGED";

/// Runs the tests; those that need root are skipped without it, or where `unprivileged` asks for that.
///
/// # Errors
///
/// When a test fails, or what is tested cannot be built.
pub(crate) fn test(unprivileged: bool) -> Result<()> {
    let root = is_root();
    // Elsewhere the tests themselves say what they miss.
    if root && on_path("apt-get").is_some() {
        packages::install(&PACKAGES)?;
    }
    let (object, same) = build_ebpf::check()?;
    let mut tests = cargo();
    tests.arg("test").args(HOST_PACKAGES).env_remove(OBJECT_OVERRIDE);
    if !same {
        // Where it is the same, leaving the variable alone saves building the daemon twice.
        tests.env(OBJECT_OVERRIDE, object);
    }
    if unprivileged {
        tests.env(UNPRIVILEGED, "1");
    }
    if unprivileged || !root {
        let why = if root { "--unprivileged" } else { "not root" };
        eprintln!("{why}: tests that need root are skipped, each with a line `skipped: ...`");
    }
    run(&mut tests)
}
