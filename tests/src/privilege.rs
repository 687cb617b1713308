//! Runs privileged tests one at a time as root, and says so when there is no root.

use std::fs::File;
use std::io::Write as _;
use std::sync::atomic::{AtomicUsize, Ordering};

use anyhow::{Context as _, Result};

use crate::binary::cache_dir;

/// Leaves the test, loudly, without root; otherwise gives a guard that keeps other privileged tests
/// waiting. The test must return `anyhow::Result<()>`.
#[macro_export]
macro_rules! require_root {
    () => {
        match $crate::privilege::Exclusive::acquire()? {
            Some(guard) => guard,
            None => return Ok(()),
        }
    };
}

/// The right to disturb the machine: profilers and busy workloads spoil each other's figures.
#[derive(Debug)]
pub struct Exclusive(#[expect(dead_code, reason = "holds the file lock until it is dropped")] File);

impl Exclusive {
    /// Waits for its turn; `None`, after saying so, without root.
    ///
    /// # Errors
    /// When the lock file cannot be used.
    pub fn acquire() -> Result<Option<Self>> {
        if !rustix::process::geteuid().is_root() {
            skip("needs root");
            return Ok(None);
        }
        // Set by `cargo xtask test --unprivileged`.
        if std::env::var_os("PROFILER_TESTS_UNPRIVILEGED").is_some() {
            skip("privileged tests are off");
            return Ok(None);
        }
        Self::wait().map(Some)
    }

    /// Waits for its turn, for a test that needs no root but keeps CPUs busy.
    ///
    /// # Errors
    /// When the lock file cannot be used.
    pub fn wait() -> Result<Self> {
        let path = cache_dir()?.join("lock");
        // A lock on the file serves threads and other test processes alike, since each opens it anew.
        let file = File::create(&path).with_context(|| format!("cannot open {}", path.display()))?;
        file.lock().with_context(|| format!("cannot lock {}", path.display()))?;
        Ok(Self(file))
    }
}

/// Whether tests may take long, and may ask for a machine that nobody else uses:
/// `PROFILER_TESTS_LONG=1`. Says so where they may not.
#[must_use]
pub fn long_or_skip() -> bool {
    let long = std::env::var_os("PROFILER_TESTS_LONG").is_some_and(|long| long == "1");
    if !long {
        skip("takes long and wants a machine of its own (PROFILER_TESTS_LONG=1)");
    }
    long
}

/// Says that the running test is skipped, and how many were so far. Goes straight to stderr, which
/// the test runner does not capture, so that it is seen although the test counts as passed.
pub fn skip(reason: &str) {
    static SKIPPED: AtomicUsize = AtomicUsize::new(0);
    let count = SKIPPED.fetch_add(1, Ordering::Relaxed) + 1;
    let thread = std::thread::current();
    let name = thread.name().unwrap_or("a test");
    // In one piece, so that other tests' lines do not get in between.
    let line = format!("skipped: {reason}: {name} ({count} skipped so far)\n");
    // Nothing to be done if stderr is gone.
    _ = std::io::stderr().write_all(line.as_bytes());
}
