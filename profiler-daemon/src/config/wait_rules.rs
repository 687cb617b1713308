//! The file of rules that tell what blocked threads wait for: built-in ones, and those of users.

use std::path::Path;

use serde::Deserialize;

use super::error::{ConfigError, Origin, Problem};
use super::file;
use crate::model::{IdleRule, Names, Wait, WaitRule, WaitRules};

/// The rules that are always there; the file is shipped, to be read and copied from.
const BUILT_IN: &str = include_str!("../../../deploy/wait-rules.toml");

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    #[serde(default)]
    wait: Vec<WaitEntry>,
    #[serde(default)]
    idle: Vec<IdleEntry>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct WaitEntry {
    reason: String,
    kernel: Vec<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct IdleEntry {
    #[serde(default)]
    kernel: Vec<String>,
    #[serde(default)]
    user: Vec<String>,
}

/// The rules of a file, before the built-in ones; without a file only those.
///
/// # Errors
/// Where the file cannot be read, or is no file of rules; says which line is wrong.
pub fn wait_rules(path: Option<&Path>) -> Result<WaitRules, ConfigError> {
    let mut rules = WaitRules::default();
    if let Some(path) = path {
        let origin = |line| Origin::File { path: path.to_owned(), line };
        let read = file::read(path).and_then(|text| parse(&text, origin));
        rules = read.map_err(|problem| ConfigError { problems: vec![problem] })?;
    }
    // A test makes sure of it.
    let built_in = parse(BUILT_IN, |line| Origin::File { path: "wait-rules.toml (built in)".into(), line })
        .map_err(|problem| ConfigError { problems: vec![problem] })?;
    rules.waits.extend(built_in.waits);
    rules.idle.extend(built_in.idle);
    Ok(rules)
}

fn parse(text: &str, origin: impl Fn(usize) -> Origin) -> Result<WaitRules, Problem> {
    let file: File = toml::from_str(text).map_err(|error| {
        let line = error.span().map_or(0, |span| file::line_of(text.as_bytes(), span.start));
        Problem::new(origin(line), error.message().lines().collect::<Vec<_>>().join("; "))
    })?;
    let names = |list: &[String]| Names::new(list.iter().map(String::as_str));
    let waits = file.wait.iter().map(|entry| {
        let wait = Wait::from_name(&entry.reason).ok_or_else(|| {
            let known = Wait::ALL.map(Wait::name).join(", ");
            Problem::new(origin(0), format!("{:?} is no reason to wait; use {known}", entry.reason))
        })?;
        Ok(WaitRule { wait, kernel: names(&entry.kernel) })
    });
    let idle = file.idle.iter().map(|entry| {
        if entry.kernel.is_empty() && entry.user.is_empty() {
            return Err(Problem::new(origin(0), "a rule in [[idle]] without names would fit everything"));
        }
        Ok(IdleRule { kernel: names(&entry.kernel), user: names(&entry.user) })
    });
    Ok(WaitRules { waits: waits.collect::<Result<_, _>>()?, idle: idle.collect::<Result<_, _>>()? })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{Frame, FrameKind, TaskState};

    fn kernel(names: &[&str]) -> Vec<Frame> {
        let frame = |&name: &&str| Frame {
            name: name.into(),
            kind: FrameKind::Kernel,
            module: None,
            address: 0,
            source: None,
            named: true,
        };
        names.iter().map(frame).collect()
    }

    /// Stacks as Linux 6.18 has them.
    #[test]
    fn built_in_rules_know_the_usual_waits() {
        let rules = wait_rules(None).expect("valid");
        for (expected, names) in [
            (Wait::Lock, &["schedule", "futex_do_wait", "__futex_wait", "futex_wait", "do_futex"][..]),
            (Wait::Sleep, &["schedule", "do_nanosleep", "hrtimer_nanosleep", "common_nsleep"]),
            (Wait::Pipe, &["schedule", "anon_pipe_read", "vfs_read", "ksys_read"]),
            (Wait::Poll, &["schedule", "schedule_hrtimeout_range", "ep_poll", "do_epoll_wait"]),
            (Wait::Network, &["schedule", "wait_woken", "sk_wait_data", "tcp_recvmsg_locked"]),
            (Wait::Io, &["io_schedule", "folio_wait_bit_common", "filemap_read", "vfs_read"]),
            (Wait::PageFault, &["io_schedule", "folio_wait_bit_common", "filemap_fault", "exc_page_fault"]),
            (Wait::Other, &["schedule", "do_wait", "kernel_wait4"]),
        ] {
            assert_eq!(rules.wait(TaskState::Interruptible, kernel(names).iter()), expected, "{names:?}");
        }
        assert!(!rules.idle.is_empty());
    }

    #[test]
    fn rules_of_users_come_first() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("rules.toml");
        std::fs::write(&path, "[[wait]]\nreason = \"io\"\nkernel = [\"do_wait\"]\n").expect("written");
        let rules = wait_rules(Some(&path)).expect("valid");
        let wait = |names| rules.wait(TaskState::Interruptible, kernel(names).iter());
        assert_eq!(wait(&["do_wait"]), Wait::Io);
        assert_eq!(wait(&["futex_wait"]), Wait::Lock);
    }

    #[test]
    fn what_is_wrong_is_said_with_its_place() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("rules.toml");
        for (text, said) in [
            ("\n[[wait]]\nreason = \"tea\"\nkernel = []\n", "\"tea\" is no reason to wait; use other, io,"),
            ("[[wait]]\nreason = \"io\"\nkernal = []\n", "rules.toml:3: unknown field `kernal`"),
            ("[[idle]]\n", "would fit everything"),
        ] {
            std::fs::write(&path, text).expect("written");
            let error = wait_rules(Some(&path)).expect_err("must fail").to_string();
            assert!(error.contains(said), "{error}");
        }
        assert!(wait_rules(Some(Path::new("/nonexistent"))).is_err());
    }
}
