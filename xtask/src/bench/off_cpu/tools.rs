//! What is run beside the workload: nothing, an empty eBPF program, the profiler, and its peers.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use clap::ValueEnum;

use crate::run::output;

/// How long a tool may take until it is ready, and until it has ended.
const LIMIT: Duration = Duration::from_secs(60);
/// From a tool's being attached to its being at rest.
const CALM: Duration = Duration::from_millis(500);

/// An eBPF program that does nothing: what the others' time is counted from.
const EMPTY: &str = "tracepoint:sched:sched_switch { }";
/// The classic: both stacks at switch-out, sums at switch-in.
const OFF_CPU_TIME: &str = "tracepoint:sched:sched_switch {
  if (args->prev_pid != 0) {
    @out[args->prev_pid] = nsecs; @user[args->prev_pid] = ustack; @kernel[args->prev_pid] = kstack;
  }
  $out = @out[args->next_pid];
  if ($out != 0) {
    @sum[@kernel[args->next_pid], @user[args->next_pid], args->next_comm] = sum(nsecs - $out);
    delete(@out[args->next_pid]);
  }
}";

/// What is measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, ValueEnum)]
pub(super) enum Tool {
    /// An eBPF program that does nothing (bpftrace)
    Empty,
    /// The daemon without off-CPU time
    OnCpu,
    /// The daemon as it comes
    Continuous,
    /// The daemon with a capture of every interval of the workload
    Capture,
    /// `perf sched record`
    PerfSched,
    /// offcputime in bpftrace
    Bpftrace,
}

impl Tool {
    /// For people.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Empty => "empty program",
            Self::OnCpu => "daemon without off-CPU",
            Self::Continuous => "continuous off-CPU",
            Self::Capture => "capture of every interval",
            Self::PerfSched => "perf sched record",
            Self::Bpftrace => "bpftrace offcputime",
        }
    }

    /// What has to be installed for it.
    pub(super) fn package(self) -> Option<&'static str> {
        match self {
            Self::Empty | Self::Bpftrace => Some("bpftrace"),
            Self::PerfSched => Some("linux-perf"),
            Self::OnCpu | Self::Continuous | Self::Capture => None,
        }
    }

    /// Whether it is ours, and so takes a while until the guard has set its rates.
    pub(super) fn is_ours(self) -> bool {
        matches!(self, Self::OnCpu | Self::Continuous | Self::Capture)
    }
}

/// Starts tools, each with files of its own.
pub(super) struct Tools {
    pub(super) profiler: PathBuf,
    pub(super) directory: PathBuf,
}

/// A tool that runs. It is ended when this is dropped.
pub(super) struct Running {
    child: Child,
    /// Where a daemon listens.
    url: String,
}

impl Tools {
    /// Starts a tool and waits until it is ready.
    pub(super) fn start(&self, tool: Tool) -> Result<Running> {
        match tool {
            Tool::Empty => self.bpftrace(EMPTY),
            Tool::Bpftrace => self.bpftrace(OFF_CPU_TIME),
            Tool::PerfSched => self.perf(),
            Tool::OnCpu => self.daemon(&["--off-cpu-enabled", "false"]),
            Tool::Continuous | Tool::Capture => self.daemon(&[]),
        }
    }

    /// Starts a daemon of our own, with these flags.
    pub(super) fn daemon(&self, flags: &[&str]) -> Result<Running> {
        let (socket, state) = (self.directory.join("profiler.sock"), self.directory.join("state"));
        // What an earlier one stored is no part of this one's work.
        _ = fs::remove_dir_all(&state);
        let url = format!("unix://{}", socket.display());
        let mut command = Command::new(&self.profiler);
        command.args(["daemon", "--listen", &url, "--state-dir"]).arg(&state).args(flags);
        command.arg("--run-dir").arg(self.directory.join("run"));
        let mut running = Running { child: self.spawn(command)?, url };
        let since = Instant::now();
        while self.client(&running, &["status"]).is_none() {
            ensure!(running.child.try_wait()?.is_none(), "the daemon ended: {}", self.said());
            ensure!(since.elapsed() < LIMIT, "the daemon does not serve: {}", self.said());
            std::thread::sleep(Duration::from_millis(100));
        }
        Ok(running)
    }

    /// What a client command says; `None` if it fails.
    pub(super) fn client(&self, running: &Running, arguments: &[&str]) -> Option<String> {
        output(Command::new(&self.profiler).args(arguments).args(["--connect", &running.url]))
    }

    /// Has the daemon take every interval of a process from now on.
    pub(super) fn capture(&self, running: &Running, pid: u32) -> Result<()> {
        let pid = pid.to_string();
        let arguments = ["capture", "start", "off-cpu", "-d", "5m", "--min-block", "0s", "-p", &pid];
        self.client(running, &arguments).context("the capture does not start").map(drop)
    }

    fn bpftrace(&self, script: &str) -> Result<Running> {
        // It looks for the events in one place only, where not every host has them.
        let mount = "mount -t debugfs none /sys/kernel/debug; exec bpftrace -e \"$0\"";
        let mut command = Command::new("unshare");
        command.args(["--mount", "sh", "-c", mount, script]);
        let mut running = Running { child: self.spawn(command)?, url: String::new() };
        let since = Instant::now();
        while super::programs::of(running.pid()).map_or(true, |programs| programs.is_empty()) {
            ensure!(running.child.try_wait()?.is_none(), "bpftrace ended: {}", self.said());
            ensure!(since.elapsed() < LIMIT, "bpftrace attaches nothing: {}", self.said());
            std::thread::sleep(Duration::from_millis(100));
        }
        std::thread::sleep(CALM);
        Ok(running)
    }

    fn perf(&self) -> Result<Running> {
        let mut command = Command::new("perf");
        command.args(["sched", "record", "-a", "-o"]).arg(self.directory.join("perf.data"));
        let mut running = Running { child: self.spawn(command)?, url: String::new() };
        // It does not say when it is ready.
        std::thread::sleep(2 * CALM);
        if let Some(status) = running.child.try_wait()? {
            bail!("perf ended ({status}): {}", self.said());
        }
        Ok(running)
    }

    fn spawn(&self, mut command: Command) -> Result<Child> {
        let log = File::create(self.log())?;
        command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
        command.spawn().with_context(|| format!("cannot run {command:?}"))
    }

    fn log(&self) -> PathBuf {
        self.directory.join("tool.log")
    }

    fn said(&self) -> String {
        fs::read_to_string(self.log()).unwrap_or_default()
    }
}

impl Running {
    pub(super) fn pid(&self) -> u32 {
        self.child.id()
    }

    fn end(&mut self) -> Result<()> {
        if self.url.is_empty() {
            // What a peer does at its end, naming stacks for minutes, is not measured.
            self.child.kill()?;
        } else {
            Command::new("kill").args(["-INT", &self.pid().to_string()]).status()?;
        }
        let since = Instant::now();
        while self.child.try_wait()?.is_none() {
            if since.elapsed() > LIMIT {
                self.child.kill()?;
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        Ok(())
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // One that cannot be ended is seen in the next figures.
        _ = self.end();
    }
}

/// Removes what the tools leave behind.
pub(super) fn clean(directory: &Path) {
    for file in ["perf.data", "perf.data.old", "tool.log"] {
        _ = fs::remove_file(directory.join(file));
    }
    _ = fs::remove_dir_all(directory.join("state"));
}
