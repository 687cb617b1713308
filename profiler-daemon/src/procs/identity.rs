//! Which process a pid means now, its threads and its children.

use crate::model::{Pid, ProcessId, Tid};

use super::ProcsError;
use super::procdir::{ProcDir, SMALL, status_value};

/// The process that has this pid now.
///
/// # Errors
/// No such process; the id of a thread that is not a process's main thread; `/proc` not readable.
pub fn identify(pid: Pid) -> Result<ProcessId, ProcsError> {
    let dir = ProcDir::open(pid)?;
    // /proc/TID exists for every thread, though it is not listed.
    let status = dir.read("status", SMALL)?;
    let tgid = status_value(&status, "Tgid").and_then(|text| text.parse().ok());
    if let Some(process) = tgid.map(Pid)
        && process != pid
    {
        return Err(ProcsError::IsThread { pid, process });
    }
    Ok(ProcessId { pid, start_ticks: dir.start_ticks()? })
}

/// All processes there are now. One that ends meanwhile is left out.
///
/// # Errors
/// `/proc` not readable.
pub fn all() -> Result<Vec<ProcessId>, ProcsError> {
    let failed = |source| ProcsError::Read { path: "/proc".to_owned(), source };
    let entries = std::fs::read_dir("/proc").map_err(failed)?;
    let pids = entries.flatten().filter_map(|entry| entry.file_name().to_str()?.parse().ok().map(Pid));
    Ok(pids
        .filter_map(|pid| {
            let start_ticks = ProcDir::open(pid).ok()?.start_ticks().ok()?;
            Some(ProcessId { pid, start_ticks })
        })
        .collect())
}

/// The threads a process has now, in ascending order.
///
/// # Errors
/// No such process; `/proc` not readable.
pub fn threads(pid: Pid) -> Result<Vec<Tid>, ProcsError> {
    let path = format!("/proc/{pid}/task");
    let entries = match std::fs::read_dir(&path) {
        Ok(entries) => entries,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            return Err(ProcsError::NoSuchProcess { pid });
        }
        Err(source) => return Err(ProcsError::Read { path, source }),
    };
    let mut threads: Vec<Tid> =
        entries.flatten().filter_map(|entry| entry.file_name().to_str()?.parse().ok().map(Tid)).collect();
    threads.sort_unstable();
    Ok(threads)
}

/// The children a process has now. Empty on kernels without `CONFIG_PROC_CHILDREN`.
///
/// # Errors
/// No such process; `/proc` not readable.
pub fn children(pid: Pid) -> Result<Vec<Pid>, ProcsError> {
    let dir = ProcDir::open(pid)?;
    let mut children = Vec::new();
    for thread in threads(pid)? {
        // A thread that ends meanwhile leaves its children to another one: nothing to report.
        if let Ok(bytes) = dir.read(&format!("task/{thread}/children"), 16 * SMALL) {
            let text = String::from_utf8_lossy(&bytes);
            children.extend(text.split_ascii_whitespace().filter_map(|word| word.parse().ok().map(Pid)));
        }
    }
    Ok(children)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_is_told_apart_from_nothing_and_from_its_threads() {
        let me = Pid(std::process::id());
        let id = identify(me).unwrap();
        assert_eq!(id.pid, me);
        assert!(id.start_ticks > 0);
        let missing = identify(Pid(u32::MAX)).unwrap_err();
        assert!(missing.to_string().contains("4294967295"), "{missing}");

        // A test runs in a thread of its own, whose id differs from the process's.
        let tid = Pid(u32::try_from(rustix::thread::gettid().as_raw_nonzero().get()).unwrap());
        assert_ne!(tid, me);
        let error = identify(tid).unwrap_err();
        assert!(matches!(error, ProcsError::IsThread { process, .. } if process == me), "{error}");
        assert!(threads(me).unwrap().contains(&Tid(tid.0)));
    }

    #[test]
    fn a_child_is_found() {
        let mut child = std::process::Command::new("sleep").arg("60").spawn().unwrap();
        let found = children(Pid(std::process::id())).unwrap();
        child.kill().unwrap();
        child.wait().unwrap();
        assert!(found.contains(&Pid(child.id())), "{found:?}");
    }
}
