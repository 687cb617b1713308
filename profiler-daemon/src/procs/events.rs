//! What the kernel reports of processes goes into the table, in the order of time.

use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::Instant;

use crate::model::{FileKey, MappedCode, MonoNs, Pid, ProcessChange, ProcessEvent, ProcessId};

use super::files::ObjectFile;
use super::identity::identify;
use super::procdir::ProcDir;
use super::process::{Image, Mapping, MappingKind, Process};
use super::table::{ProcessTable, is_same_inode, text};

/// Most mappings of one process; what comes beyond is found in `/proc` when it is looked for.
const MAX_MAPPINGS: usize = 65_536;

impl ProcessTable {
    /// Takes note of an event. What was read from `/proc` after it happened is not undone by it.
    pub fn apply(&mut self, event: &ProcessEvent) {
        match &event.change {
            ProcessChange::Fork { child, parent } => self.forked(*child, *parent, event.time),
            ProcessChange::NewImage { pid, comm } => {
                let Some(id) = self.current(*pid) else { return };
                if let Some(process) = self.as_of(id, event.time) {
                    let before = process.mapping_count();
                    process.begin_image(event.time);
                    process.comm = Arc::clone(comm);
                    let after = process.mapping_count();
                    self.count_mappings(before, after);
                    self.note_change(id);
                } else if let Some(process) = self.get_mut(id) {
                    process.correct_exec(event.time);
                }
            }
            ProcessChange::Exec(id) => {
                // Reads its maps if it is new to us.
                self.observe(*id);
                self.note_change(*id);
            }
            ProcessChange::Map(pid, code) => self.mapped(*pid, code, event.time),
            ProcessChange::Exit(id) => {
                if let Some(process) = self.get_mut(*id) {
                    process.dir = None;
                    process.ended = true;
                    self.note_change(*id);
                }
            }
        }
    }

    /// A child has its parent's memory, and is in its parent's place in every other way.
    fn forked(&mut self, child: ProcessId, parent: Pid, time: MonoNs) {
        if self.contains(child) {
            return;
        }
        let now = Instant::now();
        let inherited = self.current(parent).and_then(|id| self.get(id)).filter(|parent| parent.maps_known());
        let Some(parent) = inherited else {
            self.observe(child);
            return;
        };
        let mut process = Process::new(child, now);
        process.exe = Arc::clone(&parent.exe);
        process.cgroup = Arc::clone(&parent.cgroup);
        process.comm = Arc::clone(&parent.comm);
        process.owner = parent.owner.clone();
        process.place = Arc::clone(&parent.place);
        process.image = Image { mappings: parent.image.mappings.clone() };
        process.read_at = time;
        process.maps_known = true;
        // Opened now, it stays this process's: what it reads later is never another's.
        process.dir = ProcDir::open_exact(child).ok();
        process.image_file = parent.image_file;
        self.add(process);
        self.note_change(child);
    }

    fn mapped(&mut self, pid: Pid, code: &MappedCode, time: MonoNs) {
        let Some(id) = self.current(pid) else { return };
        if self.as_of(id, time).is_none() {
            return;
        }
        let kind = self.kind_of(id, code);
        let Some(process) = self.get_mut(id) else { return };
        if process.image.mappings.is_empty()
            && let MappingKind::File { path, .. } = &kind
        {
            // The first file that a new program maps is its executable.
            process.exe = Arc::clone(path);
        }
        let before = process.mapping_count();
        if process.image.mappings.len() < MAX_MAPPINGS {
            let mapping = Mapping { start: code.start, end: code.end, offset: code.offset, kind };
            process.image.insert(mapping);
        }
        process.maps_known = true;
        let after = process.mapping_count();
        self.count_mappings(before, after);
        self.note_change(id);
    }

    /// The process that had this pid when the next event happened, as far as the events tell; else
    /// as `/proc` tells.
    fn current(&mut self, pid: Pid) -> Option<ProcessId> {
        let known = self.by_pid(pid).and_then(|id| self.get(id)).filter(|process| !process.ended);
        if let Some(process) = known.filter(|process| !process.is_gone()) {
            return Some(process.id());
        }
        let known = known.map(|process| process.id());
        match identify(pid) {
            Ok(id) => {
                self.observe(id);
                Some(id)
            }
            // It is gone before we came to its events: they are all there is to know of it.
            Err(_) => known,
        }
    }

    /// The process, if an event of this time is news: not if `/proc` was read after it.
    fn as_of(&mut self, id: ProcessId, time: MonoNs) -> Option<&mut Process> {
        self.get_mut(id).filter(|process| process.read_at <= time)
    }

    /// What was mapped, as the process itself tells while it lives.
    fn kind_of(&mut self, id: ProcessId, code: &MappedCode) -> MappingKind {
        let path = code.path.as_ref();
        match path {
            b"[vdso]" => return MappingKind::Vdso,
            b"" | b"//anon" | b"[heap]" | b"[stack]" => return MappingKind::Anonymous,
            _ if path.starts_with(b"[anon") => return MappingKind::Anonymous,
            _ if matches!(code.file, FileKey::Inode { inode: 0, .. }) || !path.starts_with(b"/") => {
                return MappingKind::Special(text(path));
            }
            _ => {}
        }
        let path = text(path.strip_suffix(b" (deleted)").unwrap_or(path));
        let file = self.open_file(id, code, &path);
        MappingKind::File { path, file }
    }

    fn open_file(&mut self, id: ProcessId, code: &MappedCode, path: &Arc<str>) -> Option<Arc<ObjectFile>> {
        let process = self.get_mut(id)?;
        if process.dir.is_none() {
            process.dir = ProcDir::open_exact(id).ok();
        }
        let link = format!("map_files/{:x}-{:x}", code.start, code.end);
        let inode = process.dir.as_ref().and_then(|dir| dir.stat(&link));
        if let Some(known) = inode.and_then(|inode| self.known_inode(inode)) {
            return Some(known);
        }
        let fd = match self.get(id).map(|process| &process.dir) {
            // The mapping may be gone again, or the program not yet be there; then by name.
            Some(Some(dir)) => dir.open_link(&link).or_else(|| dir.open_in_root(&code.path, true)),
            // Gone already: most processes see the files that we see.
            _ => {
                let own = || ProcDir::own().ok()?.open_in_root(&code.path, true);
                let ours = own().and_then(|fd| self.keep_if_same(fd, code, path));
                return ours.or_else(|| self.known_file(&code.file));
            }
        };
        self.keep_if_same(fd?, code, path)
    }

    /// Keeps a file if it is the one that the kernel says was mapped.
    fn keep_if_same(&mut self, fd: OwnedFd, code: &MappedCode, path: &Arc<str>) -> Option<Arc<ObjectFile>> {
        let by_inode = match code.file {
            FileKey::Inode { device, inode } => is_same_inode(&fd, device, inode),
            FileKey::BuildId(_) => true,
        };
        let file = if by_inode { self.keep_file(fd, path) } else { None }?;
        let same = match &code.file {
            FileKey::BuildId(wanted) => {
                file.elf().and_then(|elf| elf.build_id.as_ref()).is_some_and(|id| id == wanted)
            }
            FileKey::Inode { .. } => true,
        };
        same.then_some(file)
    }
}

#[cfg(test)]
mod tests;
