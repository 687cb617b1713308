//! One process as the table keeps it: where its code is mapped from.

use std::fs::File;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::model::{MonoNs, ProcessId};

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
    /// What it runs now.
    pub(super) image: Image,
    /// What it ran before it called exec, newest last, each with the time at which it ended:
    /// samples are looked at later than they are taken.
    pub(super) past: Vec<(MonoNs, Image)>,
    /// The end of the newest of them is when `/proc` told of the exec: it happened some time before.
    pub(super) past_is_late: bool,
    pub(super) maps_known: bool,
    /// When `/proc` was last read: what happened before is in it.
    pub(super) read_at: MonoNs,
    pub(super) perf_map: Option<Arc<File>>,
    pub(super) perf_map_looked: Instant,
    /// Device and inode of the executable the mappings were read under.
    pub(super) image_file: Option<(u64, u64)>,
    /// None once the process is gone.
    pub(super) dir: Option<ProcDir>,
    /// Its end was reported: what happens to its pid from then on happens to another process.
    pub(super) ended: bool,
    pub(super) maps_read: Instant,
    /// When an address last fitted no mapping.
    pub(super) missed: Instant,
    /// How long after `maps_read` an address that fits no mapping has them read again.
    pub(super) reread_after: Duration,
    pub(super) image_checked: Instant,
    pub(super) used: Instant,
}

/// Most earlier images that are remembered.
const MAX_PAST: usize = 3;
/// Most mappings of them together, but for the newest one's.
const MAX_PAST_MAPPINGS: usize = 4096;
/// Longest time from when a new program takes the old one's place until it runs, ns. It waits for its
/// first pages only.
const LONGEST_EXEC_NS: u64 = 50_000_000;

/// The code of one program, from exec to exec.
#[derive(Clone, Debug, Default)]
pub(super) struct Image {
    /// Executable mappings by address; they do not overlap.
    pub(super) mappings: Vec<Mapping>,
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

    /// Opens a regular file by the path the process itself would use, without leaving its root;
    /// `None` once the process is gone.
    pub(crate) fn open_in_root(&self, path: &[u8]) -> Option<OwnedFd> {
        self.dir.as_ref()?.open_in_root(path, true)
    }

    /// The mapping that held an address at some time, as far as is known.
    #[must_use]
    pub fn find(&self, address: u64, at: MonoNs) -> Option<&Mapping> {
        let then = self.image_at(at).find(address);
        // It may have been the new program already.
        then.or_else(|| if self.past_is_late { self.image.find(address) } else { None })
    }

    /// Where the program before called exec: while that goes on, the thread's registers are still its.
    #[must_use]
    pub fn find_caller_of_exec(&self, address: u64, at: MonoNs) -> Option<&Mapping> {
        let index = self.past.partition_point(|&(until, _)| until <= at);
        let (until, before) = self.past.get(index.checked_sub(1)?)?;
        if at.0.saturating_sub(until.0) > LONGEST_EXEC_NS { None } else { before.find(address) }
    }

    /// Its executable mappings now, by address.
    #[must_use]
    pub fn mappings(&self) -> &[Mapping] {
        &self.image.mappings
    }

    /// Whether it has become another program since.
    pub(super) fn is_past(&self, at: MonoNs) -> bool {
        self.past.last().is_some_and(|&(until, _)| at < until)
    }

    /// What it ran at some time.
    fn image_at(&self, at: MonoNs) -> &Image {
        let index = self.past.partition_point(|&(until, _)| until <= at);
        self.past.get(index).map_or(&self.image, |(_, image)| image)
    }

    /// Mappings that are kept of it, earlier programs' among them.
    pub(super) fn mapping_count(&self) -> usize {
        self.image.mappings.len() + self.past_mappings()
    }

    fn past_mappings(&self) -> usize {
        self.past.iter().map(|(_, image)| image.mappings.len()).sum()
    }

    /// An event tells when the exec was that `/proc` told of. Says whether there was one.
    pub(super) fn correct_exec(&mut self, at: MonoNs) -> bool {
        let before = self.past.len().checked_sub(2).and_then(|index| self.past.get(index));
        let follows = before.is_none_or(|&(until, _)| until < at);
        match self.past.last_mut() {
            Some((until, _)) if self.past_is_late && follows && at <= *until => {
                *until = at;
                self.past_is_late = false;
                true
            }
            _ => false,
        }
    }

    /// It becomes another program, of which nothing is mapped yet.
    pub(super) fn begin_image(&mut self, at: MonoNs) {
        let ended = std::mem::take(&mut self.image);
        self.past.push((at, ended));
        self.past_is_late = false;
        while self.past.len() > MAX_PAST || (self.past.len() > 1 && self.past_mappings() > MAX_PAST_MAPPINGS)
        {
            self.past.remove(0);
        }
        self.perf_map = None;
        self.image_file = None;
    }
}

impl Image {
    fn find(&self, address: u64) -> Option<&Mapping> {
        let after = self.mappings.partition_point(|mapping| mapping.start <= address);
        self.mappings.get(after.checked_sub(1)?).filter(|mapping| address < mapping.end)
    }

    /// Adds a mapping; what lay in its place is gone.
    pub(super) fn insert(&mut self, new: Mapping) {
        if new.start >= new.end {
            return;
        }
        let first = self.mappings.partition_point(|mapping| mapping.end <= new.start);
        let last = self.mappings.partition_point(|mapping| mapping.start < new.end);
        let mut placed = Vec::with_capacity(3);
        let covered = self.mappings.get(first..last).unwrap_or_default();
        if let Some(left) = covered.first().filter(|left| left.start < new.start) {
            placed.push(Mapping { end: new.start, ..left.clone() });
        }
        let right = covered.last().filter(|right| right.end > new.end).map(|right| Mapping {
            start: new.end,
            offset: right.offset_of(new.end),
            ..right.clone()
        });
        placed.push(new);
        placed.extend(right);
        self.mappings.splice(first..last.max(first), placed);
        // Run-time compilers map many small neighbours; one entry serves.
        let from = first.saturating_sub(1);
        let mut at = from;
        while at + 1 < self.mappings.len() && at <= first + 3 {
            let [left, right] = &self.mappings[at..=at + 1] else { break };
            let joins = left.end == right.start
                && matches!((&left.kind, &right.kind), (MappingKind::Anonymous, MappingKind::Anonymous));
            if joins {
                self.mappings[at].end = self.mappings[at + 1].end;
                self.mappings.remove(at + 1);
            } else {
                at += 1;
            }
        }
    }
}

impl Mapping {
    /// Offset in the file of an address in this mapping.
    #[must_use]
    pub fn offset_of(&self, address: u64) -> u64 {
        address.wrapping_sub(self.start).wrapping_add(self.offset)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mapping(start: u64, end: u64, name: &str) -> Mapping {
        let kind = if name.is_empty() { MappingKind::Anonymous } else { MappingKind::Special(name.into()) };
        Mapping { start, end, offset: 0, kind }
    }

    fn image(mappings: &[(u64, u64, &str)]) -> Vec<(u64, u64, u64)> {
        let mut image = Image::default();
        for (start, end, name) in mappings {
            image.insert(mapping(*start, *end, name));
        }
        image.mappings.iter().map(|mapping| (mapping.start, mapping.end, mapping.offset)).collect()
    }

    #[test]
    fn a_new_mapping_takes_the_place_of_what_it_covers() {
        assert_eq!(
            image(&[(10, 20, "a"), (30, 40, "b"), (20, 30, "c")]),
            [(10, 20, 0), (20, 30, 0), (30, 40, 0)]
        );
        assert_eq!(image(&[(10, 40, "a"), (20, 30, "b")]), [(10, 20, 0), (20, 30, 0), (30, 40, 20)]);
        assert_eq!(
            image(&[(10, 20, "a"), (20, 30, "b"), (15, 25, "c")]),
            [(10, 15, 0), (15, 25, 0), (25, 30, 5)]
        );
        assert_eq!(image(&[(10, 20, "a"), (0, 50, "b")]), [(0, 50, 0)]);
        assert_eq!(image(&[(10, 20, ""), (20, 30, ""), (40, 50, "")]), [(10, 30, 0), (40, 50, 0)]);
        assert_eq!(image(&[(10, 10, "a")]), []);
    }

    #[test]
    fn samples_from_before_an_exec_find_what_ran_then() {
        let mut process = Process::new(ProcessId::default(), Instant::now());
        process.image.insert(mapping(10, 20, "old"));
        process.begin_image(MonoNs(100));
        process.image.insert(mapping(15, 25, "new"));
        let name = |address, at| match process.find(address, MonoNs(at)).map(|mapping| &mapping.kind) {
            Some(MappingKind::Special(name)) => Some(name.to_string()),
            _ => None,
        };
        assert_eq!(name(16, 99).as_deref(), Some("old"));
        assert_eq!(name(16, 100).as_deref(), Some("new"));
        assert_eq!(name(12, 100), None);
        assert!(process.is_past(MonoNs(99)) && !process.is_past(MonoNs(100)));
        let caller = |address, at| process.find_caller_of_exec(address, MonoNs(at)).is_some();
        assert!(caller(12, 100) && caller(12, 100 + LONGEST_EXEC_NS));
        assert!(!caller(12, 99) && !caller(12, 101 + LONGEST_EXEC_NS) && !caller(22, 100));
    }

    #[test]
    fn earlier_programs_are_counted_and_bounded() {
        let mut process = Process::new(ProcessId::default(), Instant::now());
        for exec in 1..10 {
            for at in 0..3000 {
                process.image.insert(mapping(at * 10, at * 10 + 5, "a"));
            }
            process.begin_image(MonoNs(exec));
            assert_eq!((process.mapping_count(), process.past.len()), (3000, 1));
        }
    }

    #[test]
    fn an_exec_that_proc_told_of_is_dated_by_its_event() {
        let mut process = Process::new(ProcessId::default(), Instant::now());
        process.image.insert(mapping(10, 20, "old"));
        process.begin_image(MonoNs(100));
        process.past_is_late = true;
        process.image.insert(mapping(15, 25, "new"));
        let name = |process: &Process, address, at| match &process.find(address, MonoNs(at))?.kind {
            MappingKind::Special(name) => Some(name.to_string()),
            _ => None,
        };
        assert_eq!(name(&process, 16, 90).as_deref(), Some("old"));
        assert_eq!(name(&process, 22, 90).as_deref(), Some("new"), "only the new program has code there");
        assert!(!process.correct_exec(MonoNs(101)), "another exec");
        assert!(process.correct_exec(MonoNs(80)) && !process.correct_exec(MonoNs(81)));
        assert_eq!(name(&process, 16, 79).as_deref(), Some("old"));
        assert_eq!(name(&process, 16, 90).as_deref(), Some("new"));
        assert_eq!(name(&process, 22, 79), None);
    }
}
