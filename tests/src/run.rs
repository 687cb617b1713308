//! Runs a program to its end within a time limit and keeps all it said.

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;

use crate::binary::{cache_dir, profiler};

/// Longest time any single program of a test may take.
pub const LIMIT: Duration = Duration::from_secs(120);

/// What a program said, and how it ended.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// Exit code; `None` if a signal ended it.
    pub code: Option<i32>,
    /// All of its stdout.
    pub stdout: String,
    /// All of its stderr.
    pub stderr: String,
    /// From start to end.
    pub took: Duration,
}

impl Outcome {
    /// Itself, if the program ended with this code.
    ///
    /// # Errors
    /// When it ended otherwise; the message holds what it said.
    pub fn expect_code(self, code: i32) -> Result<Self> {
        ensure!(self.code == Some(code), "expected exit code {code}, got {self}");
        Ok(self)
    }
}

impl std::fmt::Display for Outcome {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "{:?} after {:?}\n--- stdout\n{}\n--- stderr\n{}",
            self.code, self.took, self.stdout, self.stderr
        )
    }
}

/// Runs `profiler ARGS...` to its end.
///
/// # Errors
/// When it cannot be started or does not end in time. Its exit code is not judged.
pub fn run<S: AsRef<OsStr>>(args: impl IntoIterator<Item = S>) -> Result<Outcome> {
    Running::start(command(args)?)?.wait()
}

/// Runs `profiler ARGS...` to its end in a directory.
///
/// # Errors
/// As [`run`].
pub fn run_in<S: AsRef<OsStr>>(dir: &Path, args: impl IntoIterator<Item = S>) -> Result<Outcome> {
    let mut command = command(args)?;
    command.current_dir(dir);
    Running::start(command)?.wait()
}

/// `profiler ARGS...`, ready to start, without the caller's own settings for the profiler. Recordings
/// keep their tables with what else the harness keeps.
///
/// # Errors
/// When there is no binary.
pub fn command<S: AsRef<OsStr>>(args: impl IntoIterator<Item = S>) -> Result<Command> {
    let mut command = Command::new(profiler()?);
    let mut args = args.into_iter().peekable();
    if args.peek().is_some_and(|first| first.as_ref() == "record") {
        command.args(args.next()).arg("--cache-dir").arg(cache_dir()?.join("tables"));
    }
    command.args(args);
    for (name, _) in std::env::vars_os() {
        if name.to_str().is_some_and(|name| name.starts_with("PROFILER_") || name == "RUST_LOG") {
            command.env_remove(name);
        }
    }
    Ok(command)
}

/// Turns arguments of different kinds into one list.
#[macro_export]
macro_rules! args {
    ($($arg:expr),* $(,)?) => { vec![$(::std::ffi::OsString::from($arg)),*] };
}

/// A program that runs. It is killed when this is dropped.
#[derive(Debug)]
pub struct Running {
    child: Child,
    name: OsString,
    // Files, not pipes: a full pipe would stop a program that nobody reads from yet.
    output: TempDir,
    since: Instant,
}

impl Running {
    /// Starts a program with no stdin.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn start(mut command: Command) -> Result<Self> {
        let output = TempDir::new()?;
        let child = command
            .stdin(Stdio::null())
            .stdout(File::create(output.path().join("stdout"))?)
            .stderr(File::create(output.path().join("stderr"))?)
            .spawn()
            .with_context(|| format!("cannot start {command:?}"))?;
        Ok(Self { child, name: command.get_program().to_owned(), output, since: Instant::now() })
    }

    /// The process's id.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Sends a signal.
    ///
    /// # Errors
    /// When the process is gone.
    pub fn signal(&self, signal: Signal) -> Result<()> {
        let pid = Pid::from_raw(self.pid().cast_signed()).context("not a pid")?;
        kill_process(pid, signal).with_context(|| format!("cannot send {signal:?} to {}", self.pid()))
    }

    /// Whether it still runs.
    ///
    /// # Errors
    /// When that cannot be found out.
    pub fn is_running(&mut self) -> Result<bool> {
        Ok(self.child.try_wait()?.is_none())
    }

    /// What it has written to stderr so far.
    #[must_use]
    pub fn stderr(&self) -> String {
        self.read("stderr")
    }

    /// Waits for its end, at most [`LIMIT`].
    ///
    /// # Errors
    /// When it does not end in time.
    pub fn wait(self) -> Result<Outcome> {
        self.wait_at_most(LIMIT)
    }

    /// Waits for its end.
    ///
    /// # Errors
    /// When it does not end in time; the message holds what it said.
    pub fn wait_at_most(mut self, limit: Duration) -> Result<Outcome> {
        let deadline = Instant::now() + limit;
        loop {
            if let Some(status) = self.child.try_wait()? {
                return Ok(self.outcome(status));
            }
            if Instant::now() > deadline {
                bail!("{} did not end within {limit:?}; stderr:\n{}", self.name.display(), self.stderr());
            }
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    fn outcome(&self, status: ExitStatus) -> Outcome {
        Outcome {
            code: status.code(),
            stdout: self.read("stdout"),
            stderr: self.read("stderr"),
            took: self.since.elapsed(),
        }
    }

    fn read(&self, name: &str) -> String {
        let bytes = std::fs::read(self.output.path().join(name)).unwrap_or_default();
        String::from_utf8_lossy(&bytes).into_owned()
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // Fails only for a process that has ended and was waited for: then there is nothing to do.
        _ = self.child.kill();
        _ = self.child.wait();
    }
}

/// Asks until the answer is there, at most `limit`.
///
/// # Errors
/// When it never comes; the message holds the last error or what was waited for.
pub fn wait_for<T>(what: &str, limit: Duration, mut ask: impl FnMut() -> Result<Option<T>>) -> Result<T> {
    let deadline = Instant::now() + limit;
    loop {
        let answer = ask();
        if let Ok(Some(answer)) = answer {
            return Ok(answer);
        }
        if Instant::now() > deadline {
            return match answer {
                Err(error) => Err(error.context(format!("gave up after {limit:?} waiting for {what}"))),
                Ok(_) => bail!("gave up after {limit:?} waiting for {what}"),
            };
        }
        std::thread::sleep(Duration::from_millis(50));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn output_and_exit_code_are_kept() -> Result<()> {
        let mut command = Command::new("sh");
        command.args(["-c", "echo out; echo err >&2; exit 7"]);
        let outcome = Running::start(command)?.wait()?;
        assert_eq!((outcome.code, &*outcome.stdout, &*outcome.stderr), (Some(7), "out\n", "err\n"));
        assert!(outcome.expect_code(0).is_err());
        Ok(())
    }

    #[test]
    fn a_program_that_does_not_end_is_reported_and_killed() -> Result<()> {
        let mut command = Command::new("sleep");
        command.arg("1000");
        let running = Running::start(command)?;
        let proc_entry = format!("/proc/{}", running.pid());
        assert!(running.wait_at_most(Duration::from_millis(50)).is_err());
        assert!(!Path::new(&proc_entry).exists());
        Ok(())
    }
}
