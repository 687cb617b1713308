//! What happens to processes: they begin, become other programs, map code, and end.

use std::sync::Arc;

use super::{MonoNs, Pid, ProcessId};

/// Something that happened to a process.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProcessEvent {
    /// When.
    pub time: MonoNs,
    /// What.
    pub change: ProcessChange,
}

/// What happened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ProcessChange {
    /// A process was forked; it has the memory of its parent.
    Fork {
        /// The new process.
        child: ProcessId,
        /// Who forked it.
        parent: Pid,
    },
    /// A process gave up its memory to become another program. What it maps follows.
    NewImage {
        /// Which.
        pid: Pid,
        /// Its name from now on.
        comm: Arc<str>,
    },
    /// A process has become another program: what the kernel maps for it is mapped.
    Exec(ProcessId),
    /// Code was mapped.
    Map(Pid, MappedCode),
    /// The last thread of a process has ended.
    Exit(ProcessId),
}

/// Memory that was mapped executable.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MappedCode {
    /// First address.
    pub start: u64,
    /// First address after.
    pub end: u64,
    /// Offset of `start` in the file.
    pub offset: u64,
    /// The file's path as the process sees it, or the kernel's name for memory without a file.
    pub path: Arc<[u8]>,
    /// Which file it is.
    pub file: FileKey,
}

/// How the kernel says which file was mapped.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FileKey {
    /// By build id, in lower-case hex.
    BuildId(Arc<str>),
    /// By device and inode; inode 0 is no file.
    Inode {
        /// Major and minor number of the device.
        device: (u32, u32),
        /// The inode.
        inode: u64,
    },
}
