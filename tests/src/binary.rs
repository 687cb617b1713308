//! Finds the `profiler` binary under test, building it first so that it is never a stale one.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

use anyhow::{Context as _, Result, anyhow, bail, ensure};

/// Path of the binary under test.
///
/// `PROFILER_BIN` names it; otherwise it is built once, with the cargo, the profile and the target
/// directory that built the tests.
///
/// # Errors
/// When it neither builds nor exists.
pub fn profiler() -> Result<&'static Path> {
    static PATH: OnceLock<Result<PathBuf, String>> = OnceLock::new();
    match PATH.get_or_init(|| locate().map_err(|error| format!("{error:#}"))) {
        Ok(path) => Ok(path),
        Err(error) => Err(anyhow!("{error}")),
    }
}

/// The directory for what the harness caches between runs: `TARGET/profiler-tests`.
///
/// # Errors
/// When it cannot be made.
pub fn cache_dir() -> Result<PathBuf> {
    let profile_dir = profile_dir()?;
    let dir = profile_dir.parent().unwrap_or(&profile_dir).join("profiler-tests");
    std::fs::create_dir_all(&dir).with_context(|| format!("cannot make {}", dir.display()))?;
    Ok(dir)
}

fn locate() -> Result<PathBuf> {
    if let Some(path) = std::env::var_os("PROFILER_BIN") {
        let path = PathBuf::from(path);
        ensure!(path.is_file(), "PROFILER_BIN={} is not a file", path.display());
        return Ok(path);
    }
    let profile_dir = profile_dir()?;
    let beside = profile_dir.join("profiler");
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let Ok(output) = build_command(&cargo, &profile_dir).output() else {
        // A test binary that was carried to a machine without cargo brings its profiler along.
        ensure!(
            beside.is_file(),
            "no cargo to build the profiler with, and none at {}; build it, or set PROFILER_BIN",
            beside.display()
        );
        return Ok(beside);
    };
    if !output.status.success() {
        bail!(
            "cargo build -p profiler-daemon --bin profiler failed:\n{}",
            String::from_utf8_lossy(&output.stderr)
        );
    }
    executable(&String::from_utf8_lossy(&output.stdout)).context("cargo built no binary named `profiler`")
}

fn build_command(cargo: &std::ffi::OsStr, profile_dir: &Path) -> Command {
    let profile = match profile_dir.file_name().and_then(|name| name.to_str()) {
        None | Some("debug") => "dev",
        Some(name) => name,
    };
    let mut command = Command::new(cargo);
    command
        .current_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/.."))
        .args(["build", "--package", "profiler-daemon", "--bin", "profiler", "--profile", profile])
        .arg("--message-format=json-render-diagnostics");
    if let Some(target) = profile_dir.parent() {
        command.arg("--target-dir").arg(target);
    }
    command
}

/// The path of the binary in cargo's messages, which are JSON lines.
fn executable(messages: &str) -> Option<PathBuf> {
    messages
        .lines()
        .filter_map(|line| serde_json::from_str::<serde_json::Value>(line).ok())
        .filter(|message| message["target"]["name"] == "profiler")
        .find_map(|message| message["executable"].as_str().map(PathBuf::from))
}

/// `TARGET/debug`, or what the profile is called: test binaries live in its `deps`.
fn profile_dir() -> Result<PathBuf> {
    let exe = std::env::current_exe().context("cannot find out where this test lives")?;
    let dir = exe.parent().context("this test lives in no directory")?;
    Ok(if dir.ends_with("deps") { dir.parent().unwrap_or(dir) } else { dir }.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_binary_is_found_among_cargos_messages() {
        let messages = r#"
{"reason":"compiler-artifact","target":{"name":"profiler_common"},"executable":null}
not json
{"reason":"compiler-artifact","target":{"name":"profiler"},"executable":"/t/debug/profiler"}
{"reason":"build-finished","success":true}"#;
        assert_eq!(executable(messages), Some(PathBuf::from("/t/debug/profiler")));
        assert_eq!(executable("{}"), None);
    }
}
