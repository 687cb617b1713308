//! Opens a page in a headless browser and gives back the document as its scripts left it.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Result, ensure};
use tempfile::TempDir;

use crate::run::Running;

/// Chromium, where it is installed.
#[must_use]
pub fn chromium() -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    let mut candidates = std::env::split_paths(&path)
        .flat_map(|dir| ["chromium", "chromium-browser", "google-chrome"].map(|name| dir.join(name)));
    candidates.find(|candidate| candidate.is_file())
}

/// Opens a file with a query string, lets its scripts run, and gives back the document.
///
/// # Errors
/// When the browser fails or shows nothing.
pub fn open(browser: &Path, file: &Path, query: &str) -> Result<String> {
    let profile = TempDir::new()?;
    let mut command = Command::new(browser);
    command
        .args(["--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"])
        .args(["--disable-background-networking", "--disable-component-update", "--disable-sync"])
        .args(["--disable-dev-shm-usage", "--no-default-browser-check"])
        .arg(format!("--user-data-dir={}", profile.path().display()))
        // Timers run at once instead of in real time: the graph draws itself from one.
        .arg("--virtual-time-budget=5000")
        .arg("--dump-dom")
        .arg(format!("file://{}?{query}", file.display()));
    let outcome = Running::start(command)?.wait()?.expect_code(0)?;
    ensure!(!outcome.stdout.trim().is_empty(), "the browser shows nothing: {}", outcome.stderr);
    Ok(outcome.stdout)
}
