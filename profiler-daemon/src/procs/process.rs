//! One process as the table keeps it: where its code is mapped from.

use std::fs::File;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::model::ProcessId;

use super::container::Owner;
use super::files::ObjectFile;
use super::names::Place;
use super::procdir::ProcDir;

/// One process as the table keeps it.
#[derive(Debug)]
pub struct Process {
    pub(super) id: ProcessId,
    pub(super) exe: Arc<str>,
    pub(super) cgroup: Arc<str>,
    pub(super) comm: Arc<str>,
    pub(super) owner: Owner,
    pub(super) place: Arc<Place>,
    /// Executable mappings by address; they do not overlap.
    pub(super) mappings: Vec<Mapping>,
    pub(super) maps_known: bool,
    pub(super) perf_map: Option<Arc<File>>,
    pub(super) perf_map_looked: Instant,
    /// Device and inode of the executable the mappings were read under.
    pub(super) image: Option<(u64, u64)>,
    /// None once the process is gone.
    pub(super) dir: Option<ProcDir>,
    pub(super) maps_read: Instant,
    /// How long after `maps_read` an address that fits no mapping has them read again.
    pub(super) reread_after: Duration,
    pub(super) image_checked: Instant,
    pub(super) used: Instant,
}

/// A range of executable memory.
#[derive(Clone, Debug)]
pub struct Mapping {
    /// First address.
    pub start: u64,
    /// First address after.
    pub end: u64,
    /// Offset of `start` in the file.
    pub offset: u64,
    /// Where the code comes from.
    pub kind: MappingKind,
}

/// Where mapped code comes from.
#[derive(Clone, Debug)]
pub enum MappingKind {
    /// A file.
    File {
        /// Path as the process saw it.
        path: Arc<str>,
        /// The file; `None` if it could not be opened.
        file: Option<Arc<ObjectFile>>,
    },
    /// The kernel's vDSO.
    Vdso,
    /// Memory without a file: generated code.
    Anonymous,
    /// Something the kernel names, for example `[vsyscall]`.
    Special(Arc<str>),
}

impl Process {
    /// Which process.
    #[must_use]
    pub fn id(&self) -> ProcessId {
        self.id
    }

    /// Path of the executable; empty for kernel threads and where it could not be read.
    #[must_use]
    pub fn exe(&self) -> &Arc<str> {
        &self.exe
    }

    /// Path of the cgroup; empty where unknown.
    #[must_use]
    pub fn cgroup(&self) -> &Arc<str> {
        &self.cgroup
    }

    /// The name of the process, that is of its main thread; empty where it could not be read.
    #[must_use]
    pub fn comm(&self) -> &Arc<str> {
        &self.comm
    }

    /// The container, pod and unit it is in.
    #[must_use]
    pub fn place(&self) -> &Arc<Place> {
        &self.place
    }

    /// Whether its mappings were ever read. False if it had exited before it was first seen, or if
    /// this process may not read them (that needs CAP_SYS_PTRACE).
    #[must_use]
    pub fn maps_known(&self) -> bool {
        self.maps_known
    }

    /// Whether it is known to have exited.
    #[must_use]
    pub fn is_gone(&self) -> bool {
        self.dir.is_none()
    }

    /// The perf map its run-time compiler writes, held open since the maps were read.
    #[must_use]
    pub fn perf_map(&self) -> Option<&Arc<File>> {
        self.perf_map.as_ref()
    }

    /// The mapping that holds an address, as of when the maps were last read.
    #[must_use]
    pub fn find(&self, address: u64) -> Option<&Mapping> {
        let after = self.mappings.partition_point(|mapping| mapping.start <= address);
        self.mappings.get(after.checked_sub(1)?).filter(|mapping| address < mapping.end)
    }
}

impl Mapping {
    /// Offset in the file of an address in this mapping.
    #[must_use]
    pub fn offset_of(&self, address: u64) -> u64 {
        address.wrapping_sub(self.start).wrapping_add(self.offset)
    }
}
