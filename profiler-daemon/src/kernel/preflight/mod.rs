//! Whether the profiler can run on this host: one [`Finding`] a check, each with a cause and a fix.
//!
//! Everything is read from `/proc` and `/sys`; nothing is loaded, attached or changed. The checks
//! take the two roots as a parameter, so that tests can show them hosts of any kind.

mod capabilities;
mod facilities;
mod kernel_version;
mod limits;
#[cfg(test)]
mod tests;

use std::fs::File;
use std::io::Read;
use std::path::PathBuf;

use crate::model::{Finding, Severity};

/// Most bytes read of any one file: `/proc/kallsyms` alone has more than 10 MiB.
const READ_LIMIT: u64 = 1 << 20;

/// Checks the host this process runs on.
#[must_use]
pub fn run() -> Vec<Finding> {
    check(&Host::default())
}

/// Checks a host as its two file systems show it, the conditions without which nothing works first.
#[must_use]
pub fn check(host: &Host) -> Vec<Finding> {
    let mut findings = Vec::new();
    kernel_version::check(host, &mut findings);
    capabilities::check(host, &mut findings);
    facilities::check(host, &mut findings);
    limits::check(host, &mut findings);
    findings
}

/// The finding for which the profiler must not start: the first error.
#[must_use]
pub fn refused(findings: &[Finding]) -> Option<&Finding> {
    findings.iter().find(|finding| finding.severity == Severity::Error)
}

/// Where to look for what a host can do.
#[derive(Clone, Debug)]
pub struct Host {
    /// The proc file system, `/proc` unless in a test.
    pub proc: PathBuf,
    /// The sys file system, `/sys` unless in a test.
    pub sys: PathBuf,
    /// The machine's architecture as Rust names it, for example `x86_64`.
    pub architecture: String,
}

impl Default for Host {
    /// The host this process runs on.
    fn default() -> Self {
        Self { proc: "/proc".into(), sys: "/sys".into(), architecture: std::env::consts::ARCH.to_owned() }
    }
}

impl Host {
    /// The start of a file below `/proc` (at most [`READ_LIMIT`] bytes), or `None` where it is not
    /// there or not readable.
    fn proc_text(&self, path: &str) -> Option<String> {
        read_start(self.proc.join(path))
    }

    /// As [`Self::proc_text`], below `/sys`.
    fn sys_text(&self, path: &str) -> Option<String> {
        read_start(self.sys.join(path))
    }

    /// A number that is all a file below `/proc` holds.
    fn proc_number(&self, path: &str) -> Option<i64> {
        self.proc_text(path)?.trim().parse().ok()
    }
}

fn read_start(path: PathBuf) -> Option<String> {
    let mut bytes = Vec::new();
    File::open(path).ok()?.take(READ_LIMIT).read_to_end(&mut bytes).ok()?;
    Some(String::from_utf8_lossy(&bytes).into_owned())
}

/// As it should be.
fn ok(check: &'static str, message: impl Into<String>) -> Finding {
    Finding { check, severity: Severity::Ok, message: message.into(), fix: String::new() }
}

/// Something works less well.
fn warning(check: &'static str, message: impl Into<String>, fix: impl Into<String>) -> Finding {
    Finding { check, severity: Severity::Warning, message: message.into(), fix: fix.into() }
}

/// The profiler cannot, or must not, run.
fn error(check: &'static str, message: impl Into<String>, fix: impl Into<String>) -> Finding {
    Finding { check, severity: Severity::Error, message: message.into(), fix: fix.into() }
}
