//! Builds the workloads with gcc, g++ or rustc, runs them, and reads the truth they tell about themselves.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;
use tempfile::TempDir;

use crate::binary::cache_dir;
use crate::run::Running;

/// Frame pointers everywhere, no inlining, no jump instead of a call: the stack is what the source says.
const FLAGS: &[&str] = &[
    "-std=gnu11",
    "-Wall",
    "-Wextra",
    "-Werror",
    "-g",
    "-O2",
    "-fno-omit-frame-pointer",
    "-fno-optimize-sibling-calls",
    "-fno-inline",
    "-pthread",
];

/// How a program is built that is not built like the others.
#[derive(Clone, Copy, Debug)]
pub struct Recipe<'a> {
    /// Name of the binary, and so of its processes: at most 15 bytes.
    pub name: &'a str,
    /// File in `tests/workloads`; its extension says the compiler.
    pub source: &'a str,
    /// What the compiler is told, all of it.
    pub flags: &'a [&'a str],
}

impl Recipe<'_> {
    /// Builds it, unless it was built before from the same.
    ///
    /// # Errors
    /// When it does not build.
    pub fn build(&self) -> Result<PathBuf> {
        build(self.name, self.source, self.flags)
    }
}

/// A workload with its arguments and a place for its truth. It can be run once.
#[derive(Debug)]
pub struct Workload {
    line: Vec<OsString>,
    dir: TempDir,
}

impl Workload {
    /// `tests/workloads/NAME.c`, told to run for this long (what of: see the file).
    ///
    /// # Errors
    /// When it does not build.
    pub fn new(name: &str, seconds: f64) -> Result<Self> {
        Self::of(build(name, &format!("{name}.c"), FLAGS)?, seconds)
    }

    /// The same of a program that was built before.
    ///
    /// # Errors
    /// When there is no room for its truth.
    pub fn of(program: PathBuf, seconds: f64) -> Result<Self> {
        let dir = TempDir::new()?;
        let line = vec![program.into(), dir.path().join("truth").into(), seconds.to_string().into()];
        Ok(Self { line, dir })
    }

    /// One more argument.
    #[must_use]
    pub fn arg(mut self, arg: impl Into<OsString>) -> Self {
        self.line.push(arg.into());
        self
    }

    /// The program and its arguments, for `record -- ...`.
    #[must_use]
    pub fn line(&self) -> &[OsString] {
        &self.line
    }

    /// Another file that it writes beside its truth: `truth.EXTENSION`.
    ///
    /// # Errors
    /// When it is not there.
    pub fn beside(&self, extension: &str) -> Result<String> {
        let path = self.dir.path().join("truth").with_extension(extension);
        std::fs::read_to_string(&path).with_context(|| format!("no {}", path.display()))
    }

    /// Starts it.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn start(&self) -> Result<Running> {
        let (program, args) = self.line.split_first().context("a workload has a program")?;
        let mut command = Command::new(program);
        command.args(args);
        Running::start(command)
    }

    /// What it measured of itself. It is there once the workload has ended.
    ///
    /// # Errors
    /// When the workload has not said anything yet, or nonsense.
    pub fn truth(&self) -> Result<Truth> {
        let path = self.dir.path().join("truth");
        let text = std::fs::read_to_string(&path).context("the workload did not write its truth")?;
        Ok(Truth(serde_json::from_str(&text).with_context(|| format!("not JSON: {text}"))?))
    }
}

/// What a workload measured of itself.
#[derive(Clone, Debug)]
pub struct Truth(Value);

impl Truth {
    /// A number by its name.
    ///
    /// # Errors
    /// When this workload says no such thing.
    pub fn number(&self, name: &str) -> Result<f64> {
        self.0[name].as_f64().with_context(|| format!("no number {name} in {}", self.0))
    }

    /// CPU time of the process, seconds.
    ///
    /// # Errors
    /// When this workload does not say it.
    pub fn cpu_seconds(&self) -> Result<f64> {
        Ok(self.number("cpu_ns")? / 1e9)
    }

    /// What each thread waited.
    ///
    /// # Errors
    /// When this workload has no roles.
    pub fn roles(&self) -> Result<Vec<Role>> {
        let roles = self.0["roles"].as_array().context("this workload has no roles")?;
        roles.iter().map(Role::from_json).collect()
    }
}

/// What a thread measured of its own waits.
#[derive(Clone, Debug, PartialEq)]
pub struct Role {
    /// The thread's name.
    pub comm: String,
    /// What it waited for, as the pseudo frame on top of its stacks has it; `preempted` for threads
    /// that never wait.
    pub reason: String,
    /// Sum of all waits, microseconds.
    pub wait_us: f64,
    /// What of it was no work for certain, microseconds.
    pub least_us: f64,
    /// Number of waits.
    pub waits: u64,
    /// Part of `wait_us` in waits below 1 ms.
    pub short_waits_us: f64,
}

impl Role {
    fn from_json(value: &Value) -> Result<Self> {
        let wait_ns = value["wait_ns"].as_f64().context("a role without wait_ns")?;
        Ok(Self {
            comm: value["comm"].as_str().context("a role without comm")?.to_owned(),
            reason: value["reason"].as_str().unwrap_or_default().to_owned(),
            wait_us: wait_ns / 1e3,
            least_us: value["least_ns"].as_f64().unwrap_or(wait_ns) / 1e3,
            waits: value["waits"].as_u64().context("a role without waits")?,
            short_waits_us: value["short_waits_ns"].as_f64().unwrap_or(0.0) / 1e3,
        })
    }
}

/// Builds a workload unless the cached binary was made from the same sources and flags.
fn build(name: &str, source: &str, flags: &[&str]) -> Result<PathBuf> {
    let sources = Path::new(env!("CARGO_MANIFEST_DIR")).join("workloads");
    let source = sources.join(source);
    let (compiler, package) = match source.extension().and_then(|extension| extension.to_str()) {
        Some("rs") => ("rustc", "rustc"),
        Some("cpp") => ("g++", "g++"),
        _ => ("gcc", "gcc libc6-dev"),
    };
    let mut inputs = format!("{compiler} {}", flags.join(" "));
    for path in [&source, &sources.join("common.h")] {
        inputs.push_str(
            &std::fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?,
        );
    }
    let dir = cache_dir()?;
    let (binary, record) = (dir.join(name), dir.join(format!("{name}.inputs")));
    if binary.is_file() && std::fs::read_to_string(&record).is_ok_and(|built_from| built_from == inputs) {
        return Ok(binary);
    }
    // Tests build at the same time: each makes its own draft, and the last one to finish wins.
    let draft = TempDir::new_in(&dir)?;
    let draft_binary = draft.path().join(name);
    // Libraries are named after the sources that need them.
    let output =
        Command::new(compiler).arg("-o").arg(&draft_binary).arg(&source).args(flags).output().with_context(
            || format!("cannot run {compiler}: install it (Debian: apt-get install {package})"),
        )?;
    ensure!(
        output.status.success(),
        "{compiler} cannot build {}:\n{}",
        source.display(),
        String::from_utf8_lossy(&output.stderr)
    );
    std::fs::rename(&draft_binary, &binary)?;
    std::fs::write(&record, inputs)?;
    Ok(binary)
}
