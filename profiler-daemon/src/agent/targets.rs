//! From what people say (pids, a cgroup path) to what the kernel side filters by.

use crate::model::{Pid, ProcessId, Target};
use crate::procs::{self, ProcsError};

/// These processes as they are now.
pub(super) fn processes(pids: &[Pid]) -> Result<Target, ProcsError> {
    let ids = pids.iter().map(|&pid| procs::identify(pid)).collect::<Result<Vec<ProcessId>, _>>()?;
    Ok(Target::Processes(ids))
}

/// A cgroup and all below it.
pub(super) fn cgroup(path: &str) -> Result<Target, ProcsError> {
    let (id, path) = procs::resolve_cgroup(path)?;
    Ok(Target::Cgroup { id, path })
}

/// Whether a process of the target is still there; always true for targets without processes.
pub(super) fn any_alive(target: &Target) -> bool {
    match target {
        Target::Processes(ids) => ids.iter().any(|&id| procs::identify(id.pid).is_ok_and(|now| now == id)),
        _ => true,
    }
}
