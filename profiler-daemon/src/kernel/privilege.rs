//! For tests: says that a test is skipped where it may not use the kernel as it would have to.

use std::io::Write as _;

/// Whether the running test must be left out, which it says on stderr: without root, and where
/// `cargo xtask test --unprivileged` asks for that.
pub(super) fn must_skip() -> bool {
    let allowed =
        rustix::process::geteuid().is_root() && std::env::var_os("PROFILER_TESTS_UNPRIVILEGED").is_none();
    if !allowed {
        let thread = std::thread::current();
        let line = format!("skipped: needs root: {}\n", thread.name().unwrap_or("a test"));
        // Past the test runner, which keeps to itself what a test that passes prints.
        _ = std::io::stderr().write_all(line.as_bytes());
    }
    !allowed
}
