//! Names from ELF files and their debug information, through blazesym, within bounds.
//!
//! blazesym trusts the files it is given. So it only ever gets files that were looked at first:
//! without links of their own to follow, without sections that grow when decompressed, not larger
//! than a limit. A panic in it costs the file, not the daemon.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use blazesym::symbolize::source::{Elf, Source};
use blazesym::symbolize::{Input, Sym, Symbolized, Symbolizer, evict};
use rustc_hash::{FxHashMap, FxHashSet};

use crate::model::Loss;
use crate::procs::{ElfInfo, NamedSection, ObjectFile};

use super::debug_files::{self, DebugFile, OpenInRoot};
use super::debuginfod::{Answer, Debuginfod};
use super::go::GoTable;
use super::mini_debug;
use super::user::MAX_INLINED;

/// Symbol tables above this are left alone: 10 million symbols.
const MAX_SYMBOL_BYTES: u64 = 256 << 20;
/// One answer from debug information may take this long; after that the file's symbol table serves.
const MAX_LOOKUP: Duration = Duration::from_secs(3);
/// Files nobody asked for in this long are closed once no process maps them.
const FORGET_AFTER: Duration = Duration::from_secs(120);
/// What the smallest file counts for, so that their number is bounded as well: each takes one or
/// two descriptors.
const MIN_BYTES: u64 = 256 << 10;
/// Most files that are remembered as broken, or as without a debug file.
const MAX_BROKEN: usize = 4096;
/// Longest path of a source file that is kept, bytes (`PATH_MAX`): debug information may say anything.
const MAX_SOURCE: usize = 4096;

/// Bounds and places.
pub(super) struct ElfOptions {
    pub memory_bytes: u64,
    pub max_debug_info_bytes: u64,
    pub debug_dirs: Vec<PathBuf>,
    pub inlined: bool,
    /// Asked for what is nowhere else.
    pub debuginfod: Option<Debuginfod>,
}

/// A function and what was inlined into it, as found for one address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Found {
    /// The function's name as the file has it.
    pub name: String,
    /// Its start, as the file counts addresses.
    pub address: u64,
    /// Source file of the function.
    pub source: Option<String>,
    /// Names and source files of the functions inlined at the address, innermost last.
    pub inlined: Vec<(String, Option<String>)>,
}

/// Why a file gives less than it might.
pub(super) type Reason = &'static str;

pub(super) const CHANGED: Reason = "file changed after it was mapped";
pub(super) const DEBUG_CHANGED: Reason = "debug file changed after it was found, symbol table used";
pub(super) const TOO_LARGE: Reason = "debug information over its limit, symbol table used";
pub(super) const TOO_SLOW: Reason = "debug information too slow, symbol table used";
pub(super) const BROKEN: Reason = "file with broken symbols";

/// All files symbols are read from at present.
pub(super) struct ElfSymbols {
    options: ElfOptions,
    blazesym: Symbolizer,
    loaded: FxHashMap<u64, Loaded>,
    broken: FxHashSet<u64>,
    /// Files whose debug files are not to be used.
    without_debug_file: FxHashSet<u64>,
    bytes: u64,
    next_serial: u64,
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
    /// Build id under which a debug file may come from a server.
    awaited: Option<Arc<str>>,
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
    pub(super) fn new(options: ElfOptions) -> Self {
        Self {
            blazesym: fresh(options.inlined),
            options,
            loaded: FxHashMap::default(),
            broken: FxHashSet::default(),
            without_debug_file: FxHashSet::default(),
            bytes: 0,
            next_serial: 0,
            swept: Instant::now(),
        }
    }

    /// What is at an address of a file, as the file itself counts addresses. `in_root` opens files
    /// in the root of a process that maps it; `report` is told once for a file why it gives less
    /// than it might.
    pub(super) fn find(
        &mut self,
        file: &Arc<ObjectFile>,
        address: u64,
        in_root: OpenInRoot<'_>,
        report: impl FnMut(Reason),
    ) -> Option<Found> {
        let found = self.find_symbol(file, address, in_root, report);
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
        file: &Arc<ObjectFile>,
        address: u64,
        in_root: OpenInRoot<'_>,
        mut report: impl FnMut(Reason),
    ) -> Option<Found> {
        let elf = file.elf()?;
        let serial = file.serial();
        if self.broken.contains(&serial) {
            return None;
        }
        let reason = if is_readable(elf) { (!file.is_unchanged()).then_some(CHANGED) } else { Some(BROKEN) };
        if let Some(reason) = reason {
            self.give_up(serial, reason, &mut report);
            return None;
        }
        let now = Instant::now();
        // A debug file in a stranger's directory can be written over at any time.
        let debug_file = self.loaded.get(&serial).and_then(|loaded| loaded.debug_file.as_ref());
        if debug_file.is_some_and(|file| !file.is_unchanged()) {
            self.unload(serial);
            remember(&mut self.without_debug_file, serial);
            report(DEBUG_CHANGED);
        }
        if !self.loaded.contains_key(&serial) {
            self.load(file, elf, now, in_root, &mut report);
        }
        let loaded = self.loaded.get_mut(&serial)?;
        loaded.used = now;
        let (detailed, tables) = loaded.sources();
        let mut found = match detailed {
            Some(source) => self.ask(serial, &source, address, &mut report)?,
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
            if let Some(symbol) = self.ask(serial, &source, address, &mut report)? {
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
        serial: u64,
        source: &Source<'_>,
        address: u64,
        report: &mut impl FnMut(Reason),
    ) -> Option<Option<Found>> {
        let answer = catch_unwind(AssertUnwindSafe(|| ask(&self.blazesym, source, address)));
        if answer.is_err() {
            // Its caches may be half-written: start over, without this file.
            self.give_up(serial, BROKEN, report);
            self.blazesym = fresh(self.options.inlined);
            self.loaded.clear();
            self.bytes = 0;
        }
        answer.ok()
    }

    /// Takes in what servers sent since the last call; says whether names may have changed.
    pub(super) fn refresh(&mut self) -> bool {
        let Some(server) = &mut self.options.debuginfod else { return false };
        if !server.has_news() {
            return false;
        }
        let mut here = Vec::new();
        for (&serial, loaded) in &mut self.loaded {
            let Some(build_id) = &loaded.awaited else { continue };
            if server.has(build_id) {
                here.push(serial);
            } else if !server.is_pending(build_id) {
                loaded.awaited = None;
            }
        }
        // They are loaded again, with the debug file, when they are asked next.
        here.iter().for_each(|&serial| self.unload(serial));
        !here.is_empty()
    }

    /// Whether a file, or what was found for it, has more than a table of exported functions.
    pub(super) fn has_symbols(&self, file: &ObjectFile) -> bool {
        let own = file.elf().is_some_and(|elf| elf.has_symtab || elf.debug_info_bytes > 0);
        own || self
            .loaded
            .get(&file.serial())
            .is_some_and(|loaded| loaded.debug_file.is_some() || loaded.mini.is_some() || loaded.go.is_some())
    }

    /// What went wrong with servers since the last call.
    pub(super) fn take_loss(&self, loss: &mut Loss) {
        if let Some(server) = &self.options.debuginfod {
            server.take_loss(loss);
        }
    }

    /// Closes files that no process maps any more and nobody asked for lately.
    pub(super) fn sweep(&mut self) {
        if self.swept.elapsed() < FORGET_AFTER / 4 {
            return;
        }
        self.swept = Instant::now();
        let old: Vec<u64> = self
            .loaded
            .iter()
            .filter(|(_, loaded)| {
                Arc::strong_count(&loaded.file) == 1 && loaded.used.elapsed() >= FORGET_AFTER
            })
            .map(|(&serial, _)| serial)
            .collect();
        for serial in old {
            self.unload(serial);
        }
    }

    fn load(
        &mut self,
        file: &Arc<ObjectFile>,
        elf: &ElfInfo,
        now: Instant,
        in_root: OpenInRoot<'_>,
        report: &mut impl FnMut(Reason),
    ) {
        let mut awaited = None;
        let serial = self.serial();
        let debug_file = debug_files::find(file, &self.options.debug_dirs, in_root, serial)
            .or_else(|| self.served(file, elf, serial, &mut awaited))
            .filter(|found| found.file.elf().is_some_and(is_readable))
            .filter(|_| !self.without_debug_file.contains(&file.serial()));
        let (source, source_elf, own_links) =
            match debug_file.as_ref().and_then(|found| Some((found, found.file.elf()?))) {
                // Links in an administrator's directories may be followed, those of strangers' files not.
                Some((found, elf)) if found.trusted => (&found.file, elf, elf.debug_link.is_some()),
                Some((found, elf)) => (&found.file, elf, has_links(elf)),
                None => (&**file, elf, has_links(elf)),
            };
        let limit = self.options.max_debug_info_bytes;
        let has_debug_info = source_elf.debug_info_bytes > 0 && !own_links;
        let debug_info = has_debug_info
            && source_elf.debug_info_bytes <= limit
            && debug_files::compression_is_honest(source, &source_elf.compressed, limit.saturating_mul(2));
        if has_debug_info && !debug_info {
            report(TOO_LARGE);
        }
        let symbols = if debug_file.is_some() { source_elf.symbol_bytes } else { 0 };
        let mini = if debug_file.is_none() && !elf.has_symtab { self.mini(file, elf) } else { None };
        // Unpacked it takes memory, and what is read of it takes more.
        let unpacked = mini.as_ref().map_or(0, |mini| mini.size().saturating_mul(2));
        let mut bytes = MIN_BYTES.saturating_add(elf.symbol_bytes).saturating_add(symbols);
        bytes = bytes.saturating_add(unpacked);
        if debug_info {
            // Once all of it was asked for, parsed debug information takes about one and a half
            // times its size (measured with Rust binaries and glibc), on top of what is
            // decompressed.
            let compressed = source_elf.compressed.iter().map(|section| section.claimed);
            let parsed = (source_elf.debug_bytes / 2).saturating_mul(3);
            bytes = compressed.fold(bytes.saturating_add(parsed), u64::saturating_add);
        }
        self.make_room(bytes);
        self.bytes = self.bytes.saturating_add(bytes);
        let loaded = Loaded {
            file: Arc::clone(file),
            debug_file: debug_file.map(|found| found.file),
            mini,
            go: GoTable::open(file, elf),
            awaited,
            debug_info,
            bytes,
            used: now,
        };
        self.loaded.insert(file.serial(), loaded);
    }

    /// The debug file that a server sent; sets `awaited` where it may come later. A file that has
    /// debug information itself needs none.
    fn served(
        &self,
        file: &ObjectFile,
        elf: &ElfInfo,
        serial: u64,
        awaited: &mut Option<Arc<str>>,
    ) -> Option<DebugFile> {
        let (server, build_id) = (self.options.debuginfod.as_ref()?, elf.build_id.as_ref()?);
        if elf.debug_info_bytes > 0 {
            return None;
        }
        match server.get(build_id) {
            Answer::File(fd) => {
                let file = ObjectFile::new(fd, Arc::clone(file.path()), serial).ok()?;
                Some(DebugFile { file, trusted: false })
            }
            Answer::Pending => {
                *awaited = Some(Arc::clone(build_id));
                None
            }
            Answer::Absent => None,
        }
    }

    /// The symbol table that was compressed in a section of the file.
    fn mini(&mut self, file: &ObjectFile, elf: &ElfInfo) -> Option<ObjectFile> {
        let fd = mini_debug::unpack(file, elf)?;
        let mini = ObjectFile::new(fd, Arc::clone(file.path()), self.serial()).ok()?;
        mini.elf().is_some_and(is_readable).then_some(mini)
    }

    /// A serial for a file that only this struct knows.
    fn serial(&mut self) -> u64 {
        self.next_serial += 1;
        self.next_serial
    }

    /// Unloads the files that were not asked for longest, until `bytes` more fit.
    fn make_room(&mut self, bytes: u64) {
        while !self.loaded.is_empty() && self.bytes.saturating_add(bytes) > self.options.memory_bytes {
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

    fn give_up(&mut self, serial: u64, reason: Reason, report: &mut impl FnMut(Reason)) {
        self.unload(serial);
        remember(&mut self.broken, serial);
        report(reason);
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

/// Adds a file to a set that is kept from growing.
fn remember(files: &mut FxHashSet<u64>, serial: u64) {
    if files.len() >= MAX_BROKEN {
        files.clear();
    }
    files.insert(serial);
}

/// Whether reading its symbol tables takes bounded memory.
fn is_readable(elf: &ElfInfo) -> bool {
    !elf.suspicious && elf.symbol_bytes <= MAX_SYMBOL_BYTES
}

/// Whether it refers to other files for its debug information.
fn has_links(elf: &ElfInfo) -> bool {
    elf.debug_link.is_some() || elf.has_other_links
}

fn is_mangled(name: &str) -> bool {
    name.starts_with("_Z") || name.starts_with("_R")
}

fn fresh(inlined: bool) -> Symbolizer {
    Symbolizer::builder()
        .enable_code_info(true)
        .enable_inlined_fns(inlined)
        .enable_demangling(false)
        // Debug files are found by this crate, with checks.
        .set_debug_dirs(Some([] as [PathBuf; 0]))
        .build()
}

fn ask(blazesym: &Symbolizer, source: &Source<'_>, address: u64) -> Option<Found> {
    match blazesym.symbolize_single(source, Input::VirtOffset(address)) {
        Ok(Symbolized::Sym(sym)) if !sym.name.is_empty() => Some(found(&sym)),
        Ok(_) => None,
        Err(error) => {
            tracing::debug!(%error, ?source, "cannot symbolize");
            None
        }
    }
}

fn found(sym: &Sym<'_>) -> Found {
    let file = |info: Option<&blazesym::symbolize::CodeInfo<'_>>| {
        info.map(|info| {
            let mut path = info.to_path().to_string_lossy().into_owned();
            path.truncate(path.floor_char_boundary(MAX_SOURCE));
            path
        })
    };
    // The outermost come first, and the innermost are the ones that are shown.
    let surplus = sym.inlined.len().saturating_sub(MAX_INLINED);
    Found {
        name: sym.name.to_string(),
        address: sym.addr,
        source: file(sym.code_info.as_deref()),
        inlined: sym
            .inlined
            .iter()
            .skip(surplus)
            .map(|frame| (frame.name.to_string(), file(frame.code_info.as_ref())))
            .collect(),
    }
}

#[cfg(test)]
mod tests;
