//! Names from ELF files and their debug information, through blazesym, within bounds.
//!
//! blazesym trusts the files it is given. So it only ever gets files that were looked at first:
//! without links of their own to follow, without sections that grow when decompressed, not larger
//! than a limit. A panic in it costs the file. All this runs in a process of its own (`serve`),
//! so that what cannot be foreseen costs no more than that.

mod ask;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use blazesym::symbolize::source::{Elf, Source};
use blazesym::symbolize::{Symbolizer, evict};
use rustc_hash::FxHashMap;

use crate::procs::{ElfInfo, NamedSection, ObjectFile};

use super::debug_files::{self, DebugFile};
use super::go::GoTable;
use super::mini_debug;
use super::wire::Found;
use ask::{ask, fresh};

/// Symbol tables above this are left alone: 10 million symbols.
const MAX_SYMBOL_BYTES: u64 = 256 << 20;
/// One answer from debug information may take this long; after that the file's symbol table serves.
const MAX_LOOKUP: Duration = Duration::from_secs(3);
/// What was read of files that nobody asked for in this long is let go, also while processes map
/// them: the frames found so far are remembered elsewhere, and a new one reads the file again.
pub(super) const FORGET_AFTER: Duration = Duration::from_secs(60);
/// What was asked for so lately makes no room for another file's debug information. Two that do not
/// fit together would be read in turns, which takes longer than all else that this thread does.
const BUSY: Duration = Duration::from_secs(10);
/// What the smallest file counts for, so that their number is bounded as well: each takes one or
/// two descriptors.
const MIN_BYTES: u64 = 256 << 10;

/// What may be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Limits {
    /// What all that is read may take in memory, bytes, as estimated from the sizes of sections.
    pub memory_bytes: u64,
    /// Debug information above this is left alone, bytes.
    pub max_debug_info_bytes: u64,
    /// Say which functions were inlined.
    pub inlined: bool,
}

/// Why a file gives less than it might.
pub(super) type Reason = &'static str;

pub(super) const TOO_LARGE: Reason = "debug information over its limit, symbol table used";
pub(super) const NO_ROOM: Reason = "no room for more debug information, symbol table used";
pub(super) const TOO_SLOW: Reason = "debug information too slow, symbol table used";
pub(super) const BROKEN: Reason = "file with broken symbols";

/// All files symbols are read from at present.
pub(super) struct ElfSymbols {
    limits: Limits,
    blazesym: Symbolizer,
    loaded: FxHashMap<u64, Loaded>,
    bytes: u64,
    swept: Instant,
}

struct Loaded {
    /// Keeps the descriptor open, so that its number means this file while blazesym knows it.
    file: Arc<ObjectFile>,
    debug_file: Option<ObjectFile>,
    /// The symbol table that was compressed in a section.
    mini: Option<ObjectFile>,
    /// Go's own table.
    go: Option<GoTable>,
    /// Use debug information of `debug_file`, or else of `file`.
    debug_info: bool,
    /// What blazesym may come to need for it: an estimate.
    bytes: u64,
    used: Instant,
}

/// The section of stubs that an address lies in. Each jumps to a function of another file, through an
/// address that the dynamic linker fills in.
fn stubs(elf: &ElfInfo, address: u64) -> Option<&NamedSection> {
    let holds = |section: &&NamedSection| {
        address.checked_sub(section.address).is_some_and(|inside| inside < section.size)
    };
    [".plt", ".plt.sec", ".plt.got"].iter().filter_map(|name| elf.section(name)).find(holds)
}

impl ElfSymbols {
    pub(super) fn new(limits: Limits) -> Self {
        Self {
            blazesym: fresh(limits.inlined),
            limits,
            loaded: FxHashMap::default(),
            bytes: 0,
            swept: Instant::now(),
        }
    }

    /// Whether a file and its debug file (0: none) are loaded, by their serials.
    pub(super) fn has(&self, serial: u64, debug_serial: u64) -> bool {
        let debug_file = |loaded: &Loaded| loaded.debug_file.as_ref().map_or(0, ObjectFile::serial);
        self.loaded.get(&serial).is_some_and(|loaded| debug_file(loaded) == debug_serial)
    }

    /// What is at an address of a loaded file, as the file itself counts addresses. `report` is told
    /// once for a file why it gives less than it might.
    pub(super) fn find(&mut self, serial: u64, address: u64, report: impl FnMut(Reason)) -> Option<Found> {
        let file = Arc::clone(&self.loaded.get(&serial)?.file);
        let found = self.find_symbol(&file, address, report);
        // `_init`, which lies before the stubs, has no size: to a symbol table it goes on into them.
        match file.elf().and_then(|elf| stubs(elf, address)) {
            Some(stubs) if found.as_ref().is_none_or(|found| found.address < stubs.address) => {
                let name = format!("[{}]", stubs.name.trim_start_matches('.'));
                Some(Found { name, address: stubs.address, source: None, inlined: Vec::new() })
            }
            _ => found,
        }
    }

    fn find_symbol(
        &mut self,
        file: &ObjectFile,
        address: u64,
        mut report: impl FnMut(Reason),
    ) -> Option<Found> {
        let serial = file.serial();
        let now = Instant::now();
        let loaded = self.loaded.get_mut(&serial)?;
        loaded.used = now;
        let (detailed, tables) = loaded.sources();
        let mut found = match detailed {
            Some(source) => self.ask(&source, address, &mut report)?,
            None => None,
        };
        if now.elapsed() > MAX_LOOKUP
            && let Some(loaded) = self.loaded.get_mut(&serial)
            && std::mem::take(&mut loaded.debug_info)
        {
            report(TOO_SLOW);
        }
        if found.as_ref().is_some_and(|found| is_mangled(&found.name)) {
            return found;
        }
        if found.is_none()
            && let Some(function) = self.loaded.get(&serial).and_then(|loaded| loaded.go?.find(file, address))
        {
            return Some(function);
        }
        // Debug information that cannot be read must not hide the symbol table. And where it has
        // no more than line tables, its names lack the path that the symbol table's have.
        for source in tables {
            if let Some(symbol) = self.ask(&source, address, &mut report)? {
                match &mut found {
                    None => return Some(symbol),
                    Some(found) if found.address == symbol.address && is_mangled(&symbol.name) => {
                        found.name = symbol.name;
                    }
                    Some(_) => {}
                }
                break;
            }
        }
        found
    }

    /// Asks blazesym. `None` if it panicked: everything it knew is gone then.
    fn ask(
        &mut self,
        source: &Source<'_>,
        address: u64,
        report: &mut impl FnMut(Reason),
    ) -> Option<Option<Found>> {
        let answer = catch_unwind(AssertUnwindSafe(|| ask(&self.blazesym, source, address)));
        if answer.is_err() {
            // Its caches may be half-written: start over, without this file.
            report(BROKEN);
            self.blazesym = fresh(self.limits.inlined);
            self.loaded.clear();
            self.bytes = 0;
        }
        answer.ok()
    }

    /// Whether a loaded file has tables of functions that are not among its symbol tables.
    pub(super) fn has_more_symbols(&self, serial: u64) -> bool {
        self.loaded.get(&serial).is_some_and(|loaded| loaded.mini.is_some() || loaded.go.is_some())
    }

    /// Lets go of files that nobody asked for lately.
    pub(super) fn sweep(&mut self) {
        if self.swept.elapsed() < FORGET_AFTER / 4 {
            return;
        }
        self.swept = Instant::now();
        let old: Vec<u64> = self
            .loaded
            .iter()
            .filter(|(_, loaded)| loaded.used.elapsed() >= FORGET_AFTER)
            .map(|(&serial, _)| serial)
            .collect();
        for serial in old {
            self.unload(serial);
        }
    }

    /// Loads a file and its debug file, in the place of what was loaded under its serial. Debug
    /// information is read where `wanted`.
    pub(super) fn load(
        &mut self,
        file: ObjectFile,
        debug_file: Option<DebugFile>,
        wanted: bool,
        mut report: impl FnMut(Reason),
    ) {
        self.unload(file.serial());
        let Some(elf) = file.elf().filter(|elf| is_readable(elf)) else { return };
        let debug_file = debug_file.filter(|found| found.file.elf().is_some_and(is_readable));
        let (source, source_elf, own_links) =
            match debug_file.as_ref().and_then(|found| Some((found, found.file.elf()?))) {
                // Links in an administrator's directories may be followed, those of strangers' files not.
                Some((found, elf)) if found.trusted => (&found.file, elf, elf.debug_link.is_some()),
                Some((found, elf)) => (&found.file, elf, has_links(elf)),
                None => (&file, elf, has_links(elf)),
            };
        let Limits { max_debug_info_bytes: limit, memory_bytes, .. } = self.limits;
        let has_debug_info = source_elf.debug_info_bytes > 0 && !own_links && wanted;
        // What is mapped the kernel takes back when it likes; what is decompressed takes memory.
        let debug_info = has_debug_info
            && source_elf.debug_info_bytes <= limit
            && debug_files::compression_is_honest(source, &source_elf.compressed, memory_bytes);
        if has_debug_info && !debug_info {
            report(TOO_LARGE);
        }
        let symbols = if debug_file.is_some() { source_elf.symbol_bytes } else { 0 };
        let mini = if debug_file.is_none() && !elf.has_symtab { mini(&file, elf) } else { None };
        // Unpacked it takes memory, and what is read of it takes more.
        let unpacked = mini.as_ref().map_or(0, |mini| mini.size().saturating_mul(2));
        let mut bytes = MIN_BYTES.saturating_add(elf.symbol_bytes).saturating_add(symbols);
        bytes = bytes.saturating_add(unpacked);
        // Once all of it was asked for, parsed debug information takes about one and a half times its
        // size (measured with Rust binaries and glibc), on top of what is decompressed.
        let compressed = source_elf.compressed.iter().map(|section| section.claimed);
        let parsed = (source_elf.debug_bytes / 2).saturating_mul(3);
        let detailed = compressed.fold(bytes.saturating_add(parsed), u64::saturating_add);
        let has_room = self.has_room(detailed);
        if debug_info && !has_room {
            report(NO_ROOM);
        }
        let debug_info = debug_info && has_room;
        if debug_info {
            bytes = detailed;
        }
        self.make_room(bytes);
        self.bytes = self.bytes.saturating_add(bytes);
        let go = GoTable::open(&file, elf);
        let file = Arc::new(file);
        let loaded = Loaded {
            file: Arc::clone(&file),
            debug_file: debug_file.map(|found| found.file),
            mini,
            go,
            debug_info,
            bytes,
            used: Instant::now(),
        };
        self.loaded.insert(file.serial(), loaded);
    }

    /// Whether debug information of so many bytes fits beside what is being asked for. One file's
    /// always does, where no other's is.
    fn has_room(&self, bytes: u64) -> bool {
        let busy = self.loaded.values().filter(|loaded| loaded.debug_info && loaded.used.elapsed() < BUSY);
        let taken = busy.fold(0, |sum: u64, loaded| sum.saturating_add(loaded.bytes));
        taken == 0 || taken.saturating_add(bytes) <= self.limits.memory_bytes
    }

    /// Unloads the files that were not asked for longest, until `bytes` more fit.
    fn make_room(&mut self, bytes: u64) {
        while !self.loaded.is_empty() && self.bytes.saturating_add(bytes) > self.limits.memory_bytes {
            let oldest = self.loaded.iter().min_by_key(|(_, loaded)| loaded.used).map(|(&serial, _)| serial);
            let Some(oldest) = oldest else { break };
            self.unload(oldest);
        }
    }

    fn unload(&mut self, serial: u64) {
        if let Some(loaded) = self.loaded.remove(&serial) {
            self.bytes = self.bytes.saturating_sub(loaded.bytes);
            for path in loaded.paths() {
                // Evicting an ELF file has no way to fail.
                let _ = self.blazesym.evict(&evict::Elf::new(path).into());
            }
        }
    }
}

impl Loaded {
    fn paths(&self) -> impl Iterator<Item = PathBuf> {
        self.debug_file.iter().chain(&self.mini).chain([&*self.file]).map(ObjectFile::proc_path)
    }

    /// Where to ask: for debug information if it is to be used, and for symbol tables, best first.
    fn sources(&self) -> (Option<Source<'static>>, Vec<Source<'static>>) {
        let source = |file: &ObjectFile, debug_info| {
            let mut elf = Elf::new(file.proc_path());
            elf.debug_syms = debug_info;
            Source::Elf(elf)
        };
        let best = self.debug_file.as_ref().unwrap_or(&self.file);
        let tables = self.debug_file.iter().chain(&self.mini).chain([&*self.file]);
        (self.debug_info.then(|| source(best, true)), tables.map(|file| source(file, false)).collect())
    }
}

/// The symbol table that was compressed in a section of the file.
fn mini(file: &ObjectFile, elf: &ElfInfo) -> Option<ObjectFile> {
    let mini =
        ObjectFile::new(mini_debug::unpack(file, elf)?, Arc::clone(file.path()), file.serial()).ok()?;
    mini.elf().is_some_and(is_readable).then_some(mini)
}

/// Whether reading its symbol tables takes bounded memory.
pub(super) fn is_readable(elf: &ElfInfo) -> bool {
    !elf.suspicious && elf.symbol_bytes <= MAX_SYMBOL_BYTES
}

/// Whether it refers to other files for its debug information.
fn has_links(elf: &ElfInfo) -> bool {
    elf.debug_link.is_some() || elf.has_other_links
}

fn is_mangled(name: &str) -> bool {
    name.starts_with("_Z") || name.starts_with("_R")
}

#[cfg(test)]
pub(super) mod tests;
