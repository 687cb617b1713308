//! The command of `record -- COMMAND`: started stopped, so that recording begins before it does.

use std::ffi::{OsStr, OsString};
use std::io;
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

use rustix::process::{Pid as OsPid, Signal, WaitOptions, kill_process, waitpid};
use tokio::process::Child;

use super::error::AgentError;
use crate::model::{Pid, ProcessId};
use crate::procs;

/// First argument with which the program runs [`exec_stopped`] instead of a command.
pub const EXEC_STOPPED: &str = "exec-stopped";

/// A command that waits to be let go.
pub(super) struct StoppedChild {
    child: Child,
    pid: OsPid,
    /// The process, the same before and after it becomes the command.
    pub(super) process: ProcessId,
    /// The command as given, for messages.
    pub(super) command: String,
}

impl StoppedChild {
    /// Starts the command, stopped before its first instruction. It has our standard input,
    /// output and error.
    pub(super) fn start(program: &OsStr, arguments: &[OsString]) -> Result<Self, AgentError> {
        let command = program.display().to_string();
        let failed = |source| AgentError::Command { command: command.clone(), source };
        // Before anything is recorded: the child could only fail later, and less clearly.
        let path = find(program).map_err(failed)?;
        let own = std::env::current_exe().map_err(failed)?;
        let mut starter = Command::new(own);
        starter.arg(EXEC_STOPPED).arg(path).arg(program).args(arguments);
        let child = tokio::process::Command::from(starter).spawn().map_err(failed)?;
        let pid = child.id().and_then(|id| OsPid::from_raw(id as i32));
        let pid = pid.ok_or_else(|| failed(io::Error::other("it ended at once")))?;
        let status = loop {
            match waitpid(Some(pid), WaitOptions::UNTRACED) {
                Err(rustix::io::Errno::INTR) => {}
                other => break other.map_err(|error| failed(error.into()))?,
            }
        };
        if !status.is_some_and(|(_, status)| status.stopped()) {
            return Err(failed(io::Error::other("it did not stop as told")));
        }
        let process = procs::identify(Pid(pid.as_raw_nonzero().get() as u32))?;
        Ok(Self { child, pid, process, command })
    }

    /// Lets the command go.
    pub(super) fn release(self) -> Result<(Child, String), AgentError> {
        let Self { child, pid, command, .. } = self;
        kill_process(pid, Signal::CONT)
            .map_err(|error| AgentError::Command { command: command.clone(), source: error.into() })?;
        Ok((child, command))
    }
}

/// Stops this process; when continued, becomes the command: `exec-stopped PATH ARG0 [ARG...]`.
/// Returns only if that fails.
pub fn exec_stopped(mut arguments: impl Iterator<Item = OsString>) -> ExitCode {
    let (Some(path), Some(name)) = (arguments.next(), arguments.next()) else {
        return ExitCode::from(2);
    };
    // If the recorder dies before it lets us go, nobody ever would.
    let orphan = Some(Signal::KILL);
    if rustix::process::set_parent_process_death_signal(orphan).is_err()
        || kill_process(rustix::process::getpid(), Signal::STOP).is_err()
        || rustix::process::set_parent_process_death_signal(None).is_err()
    {
        return ExitCode::FAILURE;
    }
    let error = Command::new(&path).arg0(name).args(arguments).exec();
    // Nothing can be returned to the recorder but this code, the shells' "cannot execute".
    let _ = io::Write::write_all(
        &mut io::stderr(),
        format!("profiler: cannot run {}: {error}\n", path.display()).as_bytes(),
    );
    ExitCode::from(126)
}

/// The file that a shell would run.
fn find(program: &OsStr) -> io::Result<PathBuf> {
    let direct = Path::new(program);
    if direct.components().count() > 1 {
        return executable(direct).then(|| direct.to_owned()).ok_or_else(|| missing(direct));
    }
    let path = std::env::var_os("PATH").unwrap_or_else(|| "/usr/local/bin:/usr/bin:/bin".into());
    std::env::split_paths(&path)
        .map(|directory| directory.join(direct))
        .find(|candidate| executable(candidate))
        .ok_or_else(|| io::Error::new(io::ErrorKind::NotFound, "command not found"))
}

fn executable(path: &Path) -> bool {
    path.metadata().is_ok_and(|data| data.is_file() && data.permissions().mode() & 0o111 != 0)
}

fn missing(path: &Path) -> io::Error {
    match path.metadata() {
        Err(error) => error,
        Ok(data) if data.is_dir() => io::Error::new(io::ErrorKind::IsADirectory, "it is a directory"),
        Ok(_) => io::Error::new(io::ErrorKind::PermissionDenied, "it is not executable"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commands_are_found_as_a_shell_does() {
        assert!(find(OsStr::new("sh")).is_ok_and(|path| path.ends_with("sh")));
        let error = |name: &str| find(OsStr::new(name)).expect_err("must fail").to_string();
        assert_eq!(error("no-such-command-here"), "command not found");
        assert!(error("/no/such/file").contains("No such file"));
        assert_eq!(error("/etc/passwd"), "it is not executable");
        assert_eq!(error("/etc"), "it is a directory".to_owned());
    }
}
