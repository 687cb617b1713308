//! The table of processes: read at first sight, kept past their exit, bounded.

use std::fs::File;
use std::ops::RangeInclusive;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustc_hash::{FxHashMap, FxHashSet};
use rustix::fs;

use crate::model::{FileKey, MonoNs, Pid, ProcessId};

use super::container::Owner;
use super::files::{FileTable, ObjectFile};
use super::maps::{self, MapsLine};
use super::names::Names;
use super::procdir::{ProcDir, SMALL, status_value};
use super::process::{Image, Mapping, MappingKind, Process};
use super::{ProcsError, cgroup};

/// Bytes of `/proc/PID/maps` that are read at most: about 160 000 mappings.
const MAX_MAPS: u64 = 16 << 20;
/// An address that fits no mapping has the maps read again: at once while that is rare, since a
/// process that has just started maps its libraries one after another, and at most this often while
/// what is missed is found then.
const REREAD_AFTER: RangeInclusive<Duration> = Duration::from_millis(2)..=Duration::from_millis(200);
/// How seldom they are read where what is missed is in no mapping: stacks of code without frame
/// pointers have such addresses for ever.
const REREAD_IN_VAIN: Duration = Duration::from_secs(10);
/// A process that did not miss for this long may have its maps read at once again.
const CALM_AFTER: Duration = Duration::from_secs(20);
/// How often a process is checked for having called exec since.
const CHECK_IMAGE_AFTER: Duration = Duration::from_secs(1);
/// Processes and files that nobody looked at for this long are forgotten.
const FORGET_AFTER: Duration = Duration::from_secs(120);
const SWEEP_EVERY: Duration = Duration::from_secs(10);

/// Bounds of the table.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// Most files held open; half of what the process may open if that is less.
    pub max_files: usize,
    /// Most processes.
    pub max_processes: usize,
    /// Most mappings of all processes together, about 64 bytes each.
    pub max_mappings: usize,
}

impl Default for Options {
    fn default() -> Self {
        Self { max_files: 8192, max_processes: 8192, max_mappings: 500_000 }
    }
}

/// All processes that were seen lately.
#[derive(Debug)]
pub struct ProcessTable {
    options: Options,
    processes: FxHashMap<ProcessId, Process>,
    /// The newest process with each pid.
    pids: FxHashMap<Pid, ProcessId>,
    /// Processes whose code has changed since anybody asked.
    changed: FxHashSet<ProcessId>,
    files: FileTable,
    names: Names,
    mappings: usize,
    swept: Instant,
    /// Mappings whose file stayed closed because the table of files was full.
    refused: u64,
}

impl ProcessTable {
    /// An empty table. Raises this process's limit of open files to its hard limit.
    #[must_use]
    pub fn new(options: Options) -> Self {
        Self {
            options,
            processes: FxHashMap::default(),
            pids: FxHashMap::default(),
            changed: FxHashSet::default(),
            files: FileTable::new(options.max_files),
            names: Names::new(),
            mappings: 0,
            swept: Instant::now(),
            refused: 0,
        }
    }

    /// The entry of a process. At first sight its maps are read and its mapped files opened; now
    /// and then it is checked for having called exec since.
    pub fn observe(&mut self, id: ProcessId) -> &mut Process {
        let now = Instant::now();
        self.sweep(now);
        if !self.processes.contains_key(&id) {
            self.add(Process::new(id, now));
            self.read(id, now);
        }
        let due = self.processes.get(&id).is_some_and(|process| {
            process.dir.is_some() && now.duration_since(process.image_checked) >= CHECK_IMAGE_AFTER
        });
        if due {
            self.recheck(id);
        }
        let process = self.processes.entry(id).or_insert_with(|| Process::new(id, now));
        process.used = now;
        process
    }

    /// Reads the maps again if the process runs another executable than when they were read, and
    /// looks whether its name, or that of its container, has become another one.
    pub fn recheck(&mut self, id: ProcessId) {
        let now = Instant::now();
        let Some(process) = self.processes.get_mut(&id) else { return };
        process.image_checked = now;
        process.place = self.names.place(&process.owner, now);
        if let Some(dir) = &process.dir {
            renew(&mut process.comm, comm_of(dir));
        }
        let image = process.dir.as_ref().and_then(|dir| dir.stat("exe"));
        if image.is_some() && image != process.image_file {
            self.read(id, now);
        }
    }

    /// The mapping of an observed process that held an address at some time. Where none did, the
    /// maps are read again, at most every 200 ms for a process that keeps missing and every 10 s
    /// for one that misses in vain.
    pub fn lookup(&mut self, id: ProcessId, address: u64, at: MonoNs) -> Option<&Mapping> {
        let process = self.processes.get_mut(&id)?;
        if process.find(address, at).is_none() && process.dir.is_some() && !process.is_past(at) {
            let now = Instant::now();
            let missed = std::mem::replace(&mut process.missed, now);
            if now.duration_since(missed) >= CALM_AFTER {
                process.reread_after = *REREAD_AFTER.start();
            }
            if now.duration_since(process.maps_read) >= process.reread_after {
                let next = (process.reread_after * 2).min(REREAD_IN_VAIN);
                self.read(id, now);
                if let Some(process) = self.processes.get_mut(&id) {
                    let found = process.find(address, at).is_some();
                    process.reread_after = if found { next.min(*REREAD_AFTER.end()) } else { next };
                }
            }
        }
        let process = self.processes.get(&id)?;
        process.find(address, at).or_else(|| process.find_caller_of_exec(address, at))
    }

    /// The processes whose code has changed since the last call.
    pub fn take_changed(&mut self) -> Vec<ProcessId> {
        self.changed.drain().collect()
    }

    /// The perf map of an observed process. Looked for again until there is one.
    pub fn perf_map(&mut self, id: ProcessId) -> Option<Arc<File>> {
        let process = self.processes.get_mut(&id)?;
        if process.perf_map.is_none() && process.perf_map_looked.elapsed() >= CHECK_IMAGE_AFTER {
            process.perf_map_looked = Instant::now();
            process.perf_map = process.dir.as_ref().and_then(open_perf_map);
        }
        process.perf_map.clone()
    }

    /// The process as it was last looked at, if it is in the table.
    #[must_use]
    pub fn get(&self, id: ProcessId) -> Option<&Process> {
        self.processes.get(&id)
    }

    /// Whether the process is in the table.
    #[must_use]
    pub fn contains(&self, id: ProcessId) -> bool {
        self.processes.contains_key(&id)
    }

    /// Processes in the table.
    #[must_use]
    pub fn len(&self) -> usize {
        self.processes.len()
    }

    /// Whether the table has no process.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.processes.is_empty()
    }

    /// Files held open.
    #[must_use]
    pub fn open_files(&self) -> usize {
        self.files.len()
    }

    /// Files that could not be held open since the last call, because too many were in use.
    pub fn take_refused(&mut self) -> u64 {
        std::mem::take(&mut self.refused)
    }

    pub(super) fn get_mut(&mut self, id: ProcessId) -> Option<&mut Process> {
        self.processes.get_mut(&id)
    }

    pub(super) fn by_pid(&self, pid: Pid) -> Option<ProcessId> {
        self.pids.get(&pid).copied()
    }

    pub(super) fn note_change(&mut self, id: ProcessId) {
        self.changed.insert(id);
    }

    pub(super) fn count_mappings(&mut self, before: usize, after: usize) {
        self.mappings = (self.mappings + after).saturating_sub(before);
    }

    /// Adds a process; the newest one with a pid is the one that has it.
    pub(super) fn add(&mut self, process: Process) {
        let id = process.id;
        self.make_room(id);
        let newest = self.pids.entry(id.pid).or_insert(id);
        if newest.start_ticks <= id.start_ticks {
            *newest = id;
        }
        self.mappings += process.mapping_count();
        self.processes.insert(id, process);
    }

    /// A file that is held open, by what the kernel says of it.
    pub(super) fn known_file(&mut self, key: &FileKey) -> Option<Arc<ObjectFile>> {
        self.files.find(key, Instant::now())
    }

    /// A file that is held open, by device and inode.
    pub(super) fn known_inode(&mut self, inode: (u64, u64)) -> Option<Arc<ObjectFile>> {
        self.files.find_inode(inode, Instant::now())
    }

    pub(super) fn keep_file(&mut self, fd: std::os::fd::OwnedFd, path: &Arc<str>) -> Option<Arc<ObjectFile>> {
        let file = self.files.keep(fd, path, Instant::now());
        self.refused += u64::from(file.is_none());
        file
    }

    /// Reads all there is to know about a process. One that is gone keeps what was known.
    fn read(&mut self, id: ProcessId, now: Instant) {
        let Some(mut process) = self.processes.remove(&id) else { return };
        let before = process.mapping_count();
        let read_at = mono_now();
        process.maps_read = now;
        process.image_checked = now;
        if process.dir.is_none() {
            process.dir = ProcDir::open_exact(id).ok();
        }
        if self.files.is_full() {
            self.files.drop_unused(Duration::ZERO, now);
        }
        let dir = process.dir.take();
        let read = match &dir {
            Some(dir) => self.read_mappings(dir, now),
            None => Err(ProcsError::NoSuchProcess { pid: id.pid }),
        };
        let mut gone = false;
        match (read, &dir) {
            (Ok(mappings), Some(dir)) => {
                let image_file = dir.stat("exe");
                if image_file.is_some() && process.image_file.is_some_and(|old| Some(old) != image_file) {
                    // Samples of the program before are still to come; when it ended is told later.
                    process.begin_image(read_at);
                    process.past_is_late = true;
                }
                process.image_file = image_file;
                let exe = dir.read_link("exe").map_or_else(|_| "".into(), |path| text(&path));
                let (cgroup, owner) = cgroup::membership_of(dir).unwrap_or_default();
                renew(&mut process.exe, exe);
                renew(&mut process.cgroup, cgroup.into());
                renew(&mut process.comm, comm_of(dir));
                process.place = self.names.place(&owner, now);
                process.owner = owner;
                let generates = mappings.iter().any(Mapping::may_be_generated);
                process.image.mappings = mappings;
                process.maps_known = true;
                process.read_at = read_at;
                self.changed.insert(id);
                if generates && process.perf_map.is_none() {
                    process.perf_map_looked = now;
                    process.perf_map = open_perf_map(dir);
                }
            }
            // A zombie has no maps any more, and neither has one that was reaped.
            (Err(ProcsError::NoSuchProcess { .. }), _) => gone = true,
            _ => {}
        }
        process.dir = dir.filter(|_| !gone);
        self.mappings = (self.mappings + process.mapping_count()).saturating_sub(before);
        self.processes.insert(id, process);
    }

    fn read_mappings(&mut self, dir: &ProcDir, now: Instant) -> Result<Vec<Mapping>, ProcsError> {
        let bytes = dir.read("maps", MAX_MAPS)?;
        let exe = dir.stat("exe");
        // A process that is exiting has given up its memory before it is gone: its maps are
        // empty although it has an executable. What was known serves better.
        if bytes.is_empty() && exe.is_none() && dir.read_link("exe").is_err() && !is_kernel_thread(dir) {
            return Err(ProcsError::NoSuchProcess { pid: dir.pid() });
        }
        let mut mappings: Vec<Mapping> = Vec::new();
        for line in maps::parse(&bytes).filter(|line| line.executable) {
            let kind = self.kind(dir, &line, now);
            match (mappings.last_mut(), &kind) {
                // Run-time compilers map many small neighbours; one entry serves.
                (Some(last), MappingKind::Anonymous)
                    if matches!(last.kind, MappingKind::Anonymous) && last.end == line.start =>
                {
                    last.end = line.end;
                }
                // The kernel lists mappings in ascending order; anything else is not to be trusted.
                (Some(last), _) if line.start < last.end => {}
                _ => mappings.push(Mapping { start: line.start, end: line.end, offset: line.offset, kind }),
            }
        }
        Ok(mappings)
    }

    fn kind(&mut self, dir: &ProcDir, line: &MapsLine<'_>, now: Instant) -> MappingKind {
        match line.path {
            b"[vdso]" => MappingKind::Vdso,
            b"" | b"[heap]" | b"[stack]" => MappingKind::Anonymous,
            path if path.starts_with(b"[anon") => MappingKind::Anonymous,
            path if path.starts_with(b"/") && line.inode != 0 => {
                let path: Arc<str> = text(path.strip_suffix(b" (deleted)").unwrap_or(path));
                let known = dir.stat(&link_of(line)).and_then(|inode| self.files.find_inode(inode, now));
                let file = known.or_else(|| {
                    let file = self.files.keep(open_mapped(dir, line)?, &path, now);
                    self.refused += u64::from(file.is_none());
                    file
                });
                MappingKind::File { path, file }
            }
            path => MappingKind::Special(text(path)),
        }
    }

    /// Forgets what nobody looked at for a while, and the oldest where there is too much.
    fn sweep(&mut self, now: Instant) {
        if now.duration_since(self.swept) >= SWEEP_EVERY {
            self.swept = now;
            self.processes.retain(|_, process| now.duration_since(process.used) < FORGET_AFTER);
            self.pids.retain(|_, id| self.processes.contains_key(id));
            self.mappings = self.processes.values().map(Process::mapping_count).sum();
            self.files.drop_unused(FORGET_AFTER, now);
        }
    }

    fn make_room(&mut self, newcomer: ProcessId) {
        let full =
            self.processes.len() >= self.options.max_processes || self.mappings >= self.options.max_mappings;
        if !full {
            return;
        }
        // An eighth at a time, so that the search for the oldest is rare.
        let mut ages: Vec<_> = self.processes.values().map(|process| (process.used, process.id)).collect();
        ages.sort_unstable_by_key(|&(used, _)| used);
        for (_, id) in ages.iter().take(ages.len() / 8 + 1).filter(|&&(_, id)| id != newcomer) {
            if let Some(process) = self.processes.remove(id) {
                self.mappings = self.mappings.saturating_sub(process.mapping_count());
                // The pid may be a newer process's.
                if self.pids.get(&id.pid) == Some(id) {
                    self.pids.remove(&id.pid);
                }
            }
        }
        self.files.drop_unused(Duration::ZERO, Instant::now());
    }
}

impl Process {
    pub(super) fn new(id: ProcessId, now: Instant) -> Self {
        Self {
            id,
            exe: "".into(),
            cgroup: "".into(),
            comm: "".into(),
            owner: Owner::default(),
            place: Arc::default(),
            image: Image::default(),
            past: Vec::new(),
            past_is_late: false,
            maps_known: false,
            read_at: MonoNs::default(),
            perf_map: None,
            perf_map_looked: now,
            image_file: None,
            dir: None,
            ended: false,
            maps_read: now,
            missed: now,
            reread_after: *REREAD_AFTER.start(),
            image_checked: now,
            used: now,
        }
    }
}

impl Mapping {
    /// Memory that a run-time compiler may have filled: nobody else's file describes it.
    fn may_be_generated(&self) -> bool {
        match &self.kind {
            MappingKind::Anonymous => true,
            MappingKind::File { file, .. } => file.as_ref().is_none_or(|file| file.elf().is_none()),
            MappingKind::Vdso | MappingKind::Special(_) => false,
        }
    }
}

/// Opens the file behind a mapping: `map_files` leads to the mapped file itself, whatever became
/// of its path, but needs CAP_CHECKPOINT_RESTORE; else by name, if that still is the same file.
fn open_mapped(dir: &ProcDir, line: &MapsLine<'_>) -> Option<std::os::fd::OwnedFd> {
    dir.open_link(&link_of(line))
        .or_else(|| dir.open_link("exe").filter(|fd| is_same_file(fd, line)))
        .or_else(|| dir.open_in_root(&maps::unescape(line.path), true).filter(|fd| is_same_file(fd, line)))
}

fn link_of(line: &MapsLine<'_>) -> String {
    format!("map_files/{:x}-{:x}", line.start, line.end)
}

fn is_same_file(fd: &std::os::fd::OwnedFd, line: &MapsLine<'_>) -> bool {
    is_same_inode(fd, line.device, line.inode)
}

pub(super) fn is_same_inode(fd: &std::os::fd::OwnedFd, device: (u32, u32), inode: u64) -> bool {
    // Overlay file systems and btrfs show another (anonymous, major 0) device in `maps` than in
    // `stat`; the inode number then has to do.
    fs::fstat(fd).is_ok_and(|stat| {
        let own = (fs::major(stat.st_dev), fs::minor(stat.st_dev));
        stat.st_ino == inode && (own == device || own.0 == 0 || device.0 == 0)
    })
}

/// Opens `/tmp/perf-PID.map` as the process itself sees it: in its root, with the pid of its own
/// pid namespace. It must belong to the process's user or to root, since `/tmp` is everybody's.
fn open_perf_map(dir: &ProcDir) -> Option<Arc<File>> {
    let status = dir.read("status", SMALL).ok()?;
    let pid: u32 = status_value(&status, "NSpid")?.split_ascii_whitespace().next_back()?.parse().ok()?;
    let user: u32 = status_value(&status, "Uid")?.split_ascii_whitespace().nth(1)?.parse().ok()?;
    let fd = dir.open_in_root(format!("/tmp/perf-{pid}.map").as_bytes(), false)?;
    let owner = fs::fstat(&fd).ok()?.st_uid;
    (owner == user || owner == 0).then(|| Arc::new(File::from(fd)))
}

/// Now on the kernel's clock.
fn mono_now() -> MonoNs {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
    MonoNs((now.tv_sec as u64).saturating_mul(1_000_000_000).saturating_add(now.tv_nsec as u64))
}

fn is_kernel_thread(dir: &ProcDir) -> bool {
    // PF_KTHREAD, include/linux/sched.h, in field 9 of `stat`.
    let stat = dir.read("stat", SMALL).unwrap_or_default();
    let tail =
        stat.iter().rposition(|&byte| byte == b')').and_then(|at| stat.get(at + 1..)).unwrap_or_default();
    let flags = String::from_utf8_lossy(tail)
        .split_ascii_whitespace()
        .nth(6)
        .and_then(|text| text.parse::<u64>().ok());
    flags.is_some_and(|flags| flags & 0x20_0000 != 0)
}

/// Equal text keeps its allocation, so that labels made from it stay the same.
fn renew(text: &mut Arc<str>, new: Arc<str>) {
    if *text != new {
        *text = new;
    }
}

/// The name of the process, without the newline that ends it.
fn comm_of(dir: &ProcDir) -> Arc<str> {
    dir.read("comm", SMALL).map_or_else(|_| "".into(), |comm| text(comm.strip_suffix(b"\n").unwrap_or(&comm)))
}

pub(super) fn text(bytes: &[u8]) -> Arc<str> {
    String::from_utf8_lossy(bytes).into()
}

impl ProcessTable {
    /// Keeps a file that no process maps by path, for example a copy of the vDSO, under a serial
    /// of its own.
    pub(crate) fn adopt(&mut self, fd: std::os::fd::OwnedFd, path: &Arc<str>) -> Option<Arc<ObjectFile>> {
        self.files.keep(fd, path, Instant::now())
    }
}

#[cfg(test)]
mod tests;
