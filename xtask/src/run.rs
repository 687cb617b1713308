//! Runs commands: says what it runs, and turns a failure into one error.

use std::ffi::OsStr;
use std::fmt::Write as _;
use std::path::PathBuf;
use std::process::{Command, ExitStatus, Stdio};
use std::{env, fmt};

use anyhow::{Context as _, Result};

/// A command ended, and not with success. Its own messages have said why.
#[derive(Debug)]
pub(crate) struct Failed {
    command: String,
    status: ExitStatus,
}

impl Failed {
    /// The command's exit code; 1 if a signal ended it.
    pub(crate) fn code(&self) -> u8 {
        self.status.code().and_then(|code| u8::try_from(code).ok()).unwrap_or(1)
    }
}

impl fmt::Display for Failed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "`{}` failed: {}", self.command, self.status)
    }
}

impl std::error::Error for Failed {}

/// Prints the command, runs it on our own terminal and waits for it.
///
/// # Errors
///
/// [`Failed`] if it does not end with success; another error if it cannot be started.
pub(crate) fn run(command: &mut Command) -> Result<()> {
    let line = line(command);
    eprintln!("$ {line}");
    let status = command.status().with_context(|| format!("cannot run `{line}`"))?;
    if status.success() { Ok(()) } else { Err(Failed { command: line, status }.into()) }
}

/// What a command wrote to stdout, trimmed; `None` if it cannot be run or fails. Prints nothing.
pub(crate) fn output(command: &mut Command) -> Option<String> {
    let output = command.stdin(Stdio::null()).stderr(Stdio::null()).output().ok()?;
    output.status.success().then(|| String::from_utf8_lossy(&output.stdout).trim().to_owned())
}

/// The cargo that runs us.
pub(crate) fn cargo() -> Command {
    Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()))
}

/// The workspace whose task this is.
///
/// Read at run time: a target directory copied to another checkout must not make it work on the first.
///
/// # Errors
///
/// When not run by cargo.
pub(crate) fn workspace() -> Result<PathBuf> {
    let package = env::var_os("CARGO_MANIFEST_DIR").context("run this as `cargo xtask`")?;
    Ok(PathBuf::from(package).parent().context("the package lies in the workspace")?.to_path_buf())
}

/// First file of this name in the directories of `PATH`.
pub(crate) fn on_path(name: &str) -> Option<PathBuf> {
    all_on_path(name).into_iter().next()
}

/// Every file of this name in the directories of `PATH`, in their order.
pub(crate) fn all_on_path(name: &str) -> Vec<PathBuf> {
    let path = env::var_os("PATH").unwrap_or_default();
    env::split_paths(&path).map(|directory| directory.join(name)).filter(|file| file.is_file()).collect()
}

/// Whether we are root.
pub(crate) fn is_root() -> bool {
    output(Command::new("id").arg("-u")).is_some_and(|id| id == "0")
}

/// The command as one would type it: what is set in its environment, then program and arguments.
fn line(command: &Command) -> String {
    let mut line = String::new();
    for (name, value) in command.get_envs() {
        if let Some(value) = value {
            let _ = write!(line, "{}={} ", name.display(), quoted(value));
        }
    }
    let _ = write!(line, "{}", quoted(command.get_program()));
    for argument in command.get_args() {
        let _ = write!(line, " {}", quoted(argument));
    }
    line
}

fn quoted(word: &OsStr) -> String {
    let word = word.to_string_lossy().replace('\x1f', " ");
    if word.is_empty() || word.contains([' ', '\'', '"', '$', '*', '(']) {
        format!("'{}'", word.replace('\'', r"'\''"))
    } else {
        word
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failure_keeps_the_exit_code() {
        let error = run(Command::new("sh").args(["-c", "exit 7"])).expect_err("it fails");
        assert_eq!(error.downcast_ref::<Failed>().map(Failed::code), Some(7));
        let error = run(Command::new("sh").args(["-c", "kill -9 $$"])).expect_err("it is killed");
        assert_eq!(error.downcast_ref::<Failed>().map(Failed::code), Some(1));
    }

    #[test]
    fn a_command_is_printed_as_one_would_type_it() {
        let mut command = Command::new("echo");
        command.args(["a b", "it's", "", "plain"]).env("V", "x y").env_remove("W");
        assert_eq!(line(&command), r"V='x y' echo 'a b' 'it'\''s' '' plain");
    }
}
