//! Which symbols serve which file: finds debug files, asks the symbol reader, and remembers what a file
//! did to it.

use std::os::fd::AsFd;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Instant;

use rustc_hash::{FxHashMap, FxHashSet};

use crate::model::Loss;
use crate::procs::{ElfInfo, ObjectFile};

use super::debug_files::{self, DebugFile, OpenInRoot};
use super::debuginfod::{self, Debuginfod};
use super::elf::{BROKEN, FORGET_AFTER, Limits, Reason, TOO_LARGE, TOO_SLOW, is_readable};
use super::wire::{Answer, Found, MAX_ADDRESSES, Request};
use super::worker::{Failure, ReaderProgram, Worker};

/// Most files whose debug files are held open.
const MAX_KNOWN: usize = 1024;
/// Most files that are remembered for what they did.
const MAX_REMEMBERED: usize = 4096;

pub(super) const CHANGED: Reason = "file changed after it was mapped";
pub(super) const DEBUG_CHANGED: Reason = "debug file changed after it was found, symbol table used";
pub(super) const DEBUG_GIVEN_UP: Reason = "debug information given up, symbol table used";
pub(super) const GIVEN_UP: Reason = "symbols of a file given up";
pub(super) const NO_READER: Reason = "symbol reader does not run";

/// Bounds and places.
pub(super) struct FileOptions {
    pub limits: Limits,
    pub debug_dirs: Vec<PathBuf>,
    pub own_debug_info: bool,
    pub reader: ReaderProgram,
    /// Asked for what is nowhere else.
    pub debuginfod: Option<Debuginfod>,
}

/// The symbols of all files.
pub(super) struct FileSymbols {
    limits: Limits,
    debug_dirs: Vec<PathBuf>,
    debuginfod: Option<Debuginfod>,
    worker: Worker,
    known: FxHashMap<u64, Known>,
    /// Files that nobody reads again.
    given_up: FxHashSet<u64>,
    /// Files of which the symbol tables are read, and no more.
    tables_only: FxHashSet<u64>,
    /// Files whose debug files are not to be used.
    without_debug_file: FxHashSet<u64>,
    next_serial: u64,
    swept: Instant,
    /// Device and inode of the file whose debug information is left alone: our own.
    spared: Option<(u64, u64)>,
}

/// What was found out about a file that is asked about.
struct Known {
    debug_file: Option<DebugFile>,
    /// Build id under which a debug file may come from a server.
    awaited: Option<Arc<str>>,
    /// It has tables of functions that are not among its symbol tables.
    more_symbols: bool,
    used: Instant,
}

impl FileSymbols {
    pub(super) fn new(options: FileOptions) -> Self {
        Self {
            limits: options.limits,
            debug_dirs: options.debug_dirs,
            debuginfod: options.debuginfod,
            worker: Worker::new(options.reader),
            known: FxHashMap::default(),
            given_up: FxHashSet::default(),
            tables_only: FxHashSet::default(),
            without_debug_file: FxHashSet::default(),
            next_serial: 0,
            swept: Instant::now(),
            spared: if options.own_debug_info { None } else { own_file() },
        }
    }

    /// What is at addresses of a file, as the file itself counts them; [`MAX_ADDRESSES`] at most.
    /// `in_root` opens files in the root of a process that maps it; `report` is told why a file gives
    /// less than it might. `None` where that cannot be found out now and may be later.
    pub(super) fn find(
        &mut self,
        file: &ObjectFile,
        addresses: &[u64],
        in_root: OpenInRoot<'_>,
        mut report: impl FnMut(Reason),
    ) -> Option<Vec<Option<Found>>> {
        let nothing = vec![None; addresses.len()];
        if addresses.is_empty() {
            return Some(nothing);
        }
        let serial = file.serial();
        let Some(elf) = file.elf().filter(|_| !self.given_up.contains(&serial)) else { return Some(nothing) };
        let reason = if is_readable(elf) { (!file.is_unchanged()).then_some(CHANGED) } else { Some(BROKEN) };
        if let Some(reason) = reason {
            self.give_up(serial, reason, &mut report);
            return Some(nothing);
        }
        // A debug file in a stranger's directory can be written over at any time.
        let debug_file = self.known.get(&serial).and_then(|known| known.debug_file.as_ref());
        if debug_file.is_some_and(|found| !found.file.is_unchanged()) {
            self.known.remove(&serial);
            remember(&mut self.without_debug_file, serial);
            report(DEBUG_CHANGED);
        }
        if !self.known.contains_key(&serial) {
            self.look_at(file, elf, in_root);
        }
        let mut was_ended = false;
        loop {
            let (request, details) = self.request(file, addresses);
            let debug_file = self.known.get(&serial).and_then(|known| known.debug_file.as_ref());
            let files: Vec<_> =
                [file.as_fd()].into_iter().chain(debug_file.map(|found| found.file.as_fd())).collect();
            let how = match self.worker.ask(&request, &files) {
                Ok(answers) => return Some(self.take_in(serial, answers, details, &mut report)),
                Err(Failure::Absent) => {
                    report(NO_READER);
                    return None;
                }
                Err(Failure::Ended) if !was_ended => {
                    was_ended = true;
                    continue;
                }
                Err(Failure::Ended) => "ended twice".to_owned(),
                Err(Failure::Fell(how)) => how,
            };
            let path = &**file.path();
            if details {
                tracing::warn!(path, how, "debug information ended its reader, the symbol table is used");
                remember(&mut self.tables_only, serial);
                report(DEBUG_GIVEN_UP);
            } else {
                tracing::warn!(path, how, "a symbol table ended its reader, its file gets no names");
                self.give_up(serial, GIVEN_UP, &mut report);
                return Some(nothing);
            }
        }
    }

    /// Takes in what servers sent since the last call; says whether names may have changed.
    pub(super) fn refresh(&mut self) -> bool {
        let Some(server) = &mut self.debuginfod else { return false };
        if !server.has_news() {
            return false;
        }
        let before = self.known.len();
        // They are looked at again, with the debug file, when they are asked about next.
        self.known.retain(|_, known| {
            let Some(build_id) = &known.awaited else { return true };
            if server.has(build_id) {
                return false;
            }
            if !server.is_pending(build_id) {
                known.awaited = None;
            }
            true
        });
        self.known.len() != before
    }

    /// Whether a file, or what was found for it, has more than a table of exported functions.
    pub(super) fn has_symbols(&self, file: &ObjectFile) -> bool {
        let own = file.elf().is_some_and(|elf| elf.has_symtab || elf.debug_info_bytes > 0);
        let known = self.known.get(&file.serial());
        own || known.is_some_and(|known| known.debug_file.is_some() || known.more_symbols)
    }

    /// What went wrong with servers since the last call.
    pub(super) fn take_loss(&self, loss: &mut Loss) {
        if let Some(server) = &self.debuginfod {
            server.take_loss(loss);
        }
    }

    /// Lets go of files that nobody asked about lately, and of a reader that nobody asks.
    pub(super) fn sweep(&mut self) {
        if self.swept.elapsed() < FORGET_AFTER / 4 {
            return;
        }
        self.swept = Instant::now();
        self.known.retain(|_, known| known.used.elapsed() < FORGET_AFTER || known.awaited.is_some());
        self.worker.stop_if_idle(FORGET_AFTER);
    }

    /// Looks for the debug file of a file.
    fn look_at(&mut self, file: &ObjectFile, elf: &ElfInfo, in_root: OpenInRoot<'_>) {
        if self.known.len() >= MAX_KNOWN {
            let oldest = self.known.iter().min_by_key(|(_, known)| known.used).map(|(&serial, _)| serial);
            if let Some(oldest) = oldest {
                self.known.remove(&oldest);
            }
        }
        self.next_serial += 1;
        let mut awaited = None;
        let debug_file = debug_files::find(file, &self.debug_dirs, in_root, self.next_serial)
            .or_else(|| self.served(file, elf, &mut awaited))
            .filter(|found| found.file.elf().is_some_and(is_readable))
            .filter(|_| !self.without_debug_file.contains(&file.serial()));
        let known = Known { debug_file, awaited, more_symbols: false, used: Instant::now() };
        self.known.insert(file.serial(), known);
    }

    /// The debug file that a server sent; sets `awaited` where it may come later. A file that has
    /// debug information itself needs none.
    fn served(&self, file: &ObjectFile, elf: &ElfInfo, awaited: &mut Option<Arc<str>>) -> Option<DebugFile> {
        let (server, build_id) = (self.debuginfod.as_ref()?, elf.build_id.as_ref()?);
        if elf.debug_info_bytes > 0 {
            return None;
        }
        match server.get(build_id) {
            debuginfod::Answer::File(fd) => {
                let file = ObjectFile::new(fd, Arc::clone(file.path()), self.next_serial).ok()?;
                Some(DebugFile { file, trusted: false })
            }
            debuginfod::Answer::Pending => {
                *awaited = Some(Arc::clone(build_id));
                None
            }
            debuginfod::Answer::Absent => None,
        }
    }

    /// The question, and whether its answer may take debug information.
    fn request(&mut self, file: &ObjectFile, addresses: &[u64]) -> (Request, bool) {
        let serial = file.serial();
        let spared = self.spared.is_some_and(|own| identity(file) == Some(own));
        let debug_info = !spared && !self.tables_only.contains(&serial);
        let mut debug_file = None;
        if let Some(known) = self.known.get_mut(&serial) {
            known.used = Instant::now();
            debug_file = known.debug_file.as_ref();
        }
        let has_details = |file: &ObjectFile| file.elf().is_some_and(|elf| elf.debug_info_bytes > 0);
        let details = debug_info && has_details(debug_file.map_or(file, |found| &found.file));
        let request = Request {
            file: serial,
            debug_file: debug_file.map_or(0, |found| found.file.serial()),
            trusted: debug_file.is_some_and(|found| found.trusted),
            debug_info,
            inlined: self.limits.inlined,
            memory_bytes: self.limits.memory_bytes,
            max_debug_info_bytes: self.limits.max_debug_info_bytes,
            addresses: addresses.iter().copied().take(MAX_ADDRESSES).collect(),
        };
        (request, details)
    }

    /// Takes in what the reader answered, and whether it has become too large.
    fn take_in(
        &mut self,
        serial: u64,
        answers: Vec<Answer>,
        details: bool,
        report: &mut impl FnMut(Reason),
    ) -> Vec<Option<Found>> {
        for reason in answers.iter().flat_map(Answer::reasons) {
            match reason {
                BROKEN => remember(&mut self.given_up, serial),
                TOO_SLOW => remember(&mut self.tables_only, serial),
                _ => {}
            }
            report(reason);
        }
        if let Some(known) = self.known.get_mut(&serial) {
            known.more_symbols |= answers.iter().any(|answer| answer.more_symbols);
        }
        if answers.last().is_some_and(|answer| answer.memory_bytes > self.limits.memory_bytes) {
            let alone = self.worker.knows_only(serial);
            if alone && details {
                remember(&mut self.tables_only, serial);
                report(TOO_LARGE);
            }
            // A symbol table that takes so much alone would only be read again, and take it again.
            if !alone || details {
                self.worker.stop();
            }
        }
        answers.into_iter().map(|answer| answer.found).collect()
    }

    fn give_up(&mut self, serial: u64, reason: Reason, report: &mut impl FnMut(Reason)) {
        self.known.remove(&serial);
        remember(&mut self.given_up, serial);
        report(reason);
    }
}

/// Device and inode.
fn identity(file: impl AsFd) -> Option<(u64, u64)> {
    rustix::fs::fstat(file).ok().map(|stat| (stat.st_dev, stat.st_ino))
}

/// The program that this process runs.
fn own_file() -> Option<(u64, u64)> {
    std::fs::File::open("/proc/self/exe").ok().and_then(identity)
}

/// Adds a file to a set that is kept from growing.
fn remember(files: &mut FxHashSet<u64>, serial: u64) {
    if files.len() >= MAX_REMEMBERED {
        files.clear();
    }
    files.insert(serial);
}

#[cfg(test)]
pub(super) mod tests;
