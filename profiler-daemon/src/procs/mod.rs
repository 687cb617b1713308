//! What exists on the host: processes keyed by (pid, start time), their mappings, their cgroups.
//!
//! Everything read here was written by other people's processes: reads are bounded, no link is
//! followed out of a process's own root, and nothing is opened that is not a regular file.

mod cgroup;
mod elf;
mod files;
mod find;
mod identity;
mod maps;
mod procdir;
mod process;
mod table;

pub use cgroup::{cgroup_path, resolve_cgroup};
pub use elf::{CompressedSection, ElfInfo, Segment};
pub use files::ObjectFile;
pub use find::{by_comm, cgroups_named, open_cgroup_file};
pub use identity::{children, identify, threads};
pub use process::{Mapping, MappingKind, Process};
pub use table::{Options, ProcessTable};

use std::io;

use crate::model::Pid;

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
