//! What exists on the host: processes keyed by (pid, start time), their mappings, their cgroups.
//!
//! Everything read here was written by other people's processes: reads are bounded, no link is
//! followed out of a process's own root, and nothing is opened that is not a regular file.

mod cgroup;
mod container;
mod elf;
mod events;
mod files;
mod find;
mod host;
mod identity;
mod maps;
mod names;
mod procdir;
mod process;
mod table;
mod vdso;

pub use cgroup::{cgroup_path, resolve_cgroup};
pub use container::Owner;
pub(crate) use elf::read_at;
pub use elf::{CompressedSection, ElfInfo, NamedSection, Segment};
pub use files::ObjectFile;
pub use find::{NamedPlace, by_comm, cgroups_named, cgroups_of, open_cgroup_file};
pub use host::host_facts;
pub use identity::{all, children, identify, threads};
pub use names::Place;
pub use process::{Mapping, MappingKind, Process};
pub use table::{Options, ProcessTable};
pub use vdso::vdso;

use std::io;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crate::model::Pid;

/// The table, shared by those who ask and those who tell. Held for one question at a time: never
/// while symbols are read.
#[derive(Clone, Debug)]
pub struct SharedTable(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    table: Mutex<ProcessTable>,
    applied: Mutex<u64>,
    more_applied: Condvar,
}

impl Default for SharedTable {
    fn default() -> Self {
        Self::new(ProcessTable::new(Options::default()))
    }
}

impl SharedTable {
    /// Shares a table.
    #[must_use]
    pub fn new(table: ProcessTable) -> Self {
        Self(Arc::new(Shared {
            table: Mutex::new(table),
            applied: Mutex::new(0),
            more_applied: Condvar::new(),
        }))
    }

    /// The table, for as long as the guard lives.
    pub fn lock(&self) -> MutexGuard<'_, ProcessTable> {
        self.0.table.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Says that the events of this batch, and of all before it, are in the table.
    pub fn set_applied(&self, number: u64) {
        *self.0.applied.lock().unwrap_or_else(PoisonError::into_inner) = number;
        self.0.more_applied.notify_all();
    }

    /// Waits until the events of a batch are in the table, at most so long. Says whether they are.
    #[must_use]
    pub fn wait_applied(&self, number: u64, at_most: Duration) -> bool {
        let applied = self.0.applied.lock().unwrap_or_else(PoisonError::into_inner);
        let waited = self.0.more_applied.wait_timeout_while(applied, at_most, |applied| *applied < number);
        !waited.unwrap_or_else(PoisonError::into_inner).1.timed_out()
    }
}

/// Why something about a process or a cgroup could not be found out.
#[derive(Debug, thiserror::Error)]
pub enum ProcsError {
    /// There is no such process (any more).
    #[error("no process with pid {pid}")]
    NoSuchProcess {
        /// The pid that was asked for.
        pid: Pid,
    },
    /// The id belongs to a thread that is not its process's main thread.
    #[error("{pid} is a thread of process {process}: use pid {process}")]
    IsThread {
        /// The id that was asked for.
        pid: Pid,
        /// The process it belongs to.
        process: Pid,
    },
    /// A file of `/proc` or of the cgroup hierarchy could not be read.
    #[error("cannot read {path}: {source}")]
    Read {
        /// The file.
        path: String,
        /// What the kernel said.
        source: io::Error,
    },
    /// A file of `/proc` does not look as it should.
    #[error("cannot make sense of {path}")]
    Malformed {
        /// The file.
        path: String,
    },
    /// No cgroup v2 hierarchy is mounted.
    #[error(
        "no cgroup v2 hierarchy is mounted: mount one with `mount -t cgroup2 none /sys/fs/cgroup/unified`"
    )]
    NoCgroup2,
    /// The path lies in a cgroup v1 hierarchy, whose ids the kernel side does not see.
    #[error("{path} is in a cgroup v1 hierarchy: use a path below {mount}, where cgroup v2 is mounted")]
    CgroupV1 {
        /// The path that was asked for.
        path: String,
        /// Where cgroup v2 is mounted.
        mount: String,
    },
    /// There is no such cgroup.
    #[error("no cgroup {path}: looked for a directory at {looked_at}")]
    NoSuchCgroup {
        /// The path that was asked for.
        path: String,
        /// The directory that would be it.
        looked_at: String,
    },
}
