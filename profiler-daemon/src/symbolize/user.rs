//! User-space addresses to frames: by the file, the perf map or the vDSO that the code came from.

use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::sync::Arc;

use quick_cache::unsync::Cache;
use rustc_hash::FxHashMap;

use crate::model::{Frame, FrameKind, Loss, Module, MonoNs, ProcessId, SourceLine, Stage};
use crate::procs::{Mapping, MappingKind, ObjectFile, Process, SharedTable, vdso};

use super::debuginfod::Debuginfod;
use super::demangle::demangle;
use super::elf::Limits;
use super::files::{FileOptions, FileSymbols};
use super::intern::Interner;
use super::perf_map::PerfMap;
use super::wire::{Found, MAX_ADDRESSES, MAX_INLINED};
use super::{DebuginfodOptions, Options, trampoline};

/// What all perf maps together may take, in bytes.
const PERF_MAP_BYTES: usize = 128 << 20;
/// Most perf maps.
const PERF_MAPS: usize = 256;

const GONE: &str = "process gone before its maps were read";
const NOT_READABLE: &str = "maps of the process not readable";
const REFUSED: &str = "too many files open";
const PERF_MAP_CUT: &str = "perf map over its limit";

/// Where code ran.
pub(super) struct Place {
    pub(super) process: ProcessId,
    /// What is looked up: the instruction that was interrupted, or the last byte of the call.
    pub(super) address: u64,
    pub(super) time: MonoNs,
    /// It was interrupted there; else it is the call before a return address.
    pub(super) exact: bool,
}

/// What is known of an address of a file.
#[derive(Clone)]
struct Known {
    /// Innermost first.
    frames: Arc<[Arc<Frame>]>,
    trampoline: bool,
}

/// A place in a file that is to be looked up.
struct Wanted {
    key: (u64, u64),
    offset: u64,
    address: Option<u64>,
    trampoline: bool,
}

impl Wanted {
    fn new(file: &ObjectFile, offset: u64, exact: bool) -> Self {
        let key = key(file, offset, exact);
        // No call lies before a trampoline: what lies there is another function, or padding.
        let trampoline = !exact && trampoline::starts_at(file, offset + 1);
        let offset = offset + u64::from(trampoline);
        Self { key, offset, address: file.elf().and_then(|elf| elf.address_of(offset)), trampoline }
    }
}

/// A place in a file; the top bit of the offset tells calls from exact places.
fn key(file: &ObjectFile, offset: u64, exact: bool) -> (u64, u64) {
    (file.serial(), offset | u64::from(!exact) << 63)
}

/// Everything that is known of user space.
pub(super) struct UserSymbols {
    procs: SharedTable,
    files: FileSymbols,
    /// By file and offset in it; the top bit of the offset tells calls from exact places.
    frames: Cache<(u64, u64), Known>,
    modules: FxHashMap<u64, Arc<Module>>,
    perf_maps: FxHashMap<ProcessId, PerfMap>,
    vdso: Option<(Arc<ObjectFile>, u64)>,
    cache_entries: usize,
    loss: Loss,
}

impl UserSymbols {
    pub(super) fn new(options: Options, procs: SharedTable) -> Self {
        let cache_entries = options.cache_entries.max(1);
        let vdso = vdso().and_then(|(fd, size)| Some((procs.lock().adopt(fd, &"[vdso]".into())?, size)));
        Self {
            procs,
            files: FileSymbols::new(FileOptions {
                limits: Limits {
                    memory_bytes: options.memory_bytes,
                    max_debug_info_bytes: options.max_debug_info_bytes,
                    inlined: options.inlined,
                },
                debug_dirs: options.debug_dirs,
                own_debug_info: options.own_debug_info,
                reader: options.reader,
                debuginfod: options.debuginfod.and_then(start_debuginfod),
            }),
            frames: Cache::new(cache_entries),
            modules: FxHashMap::default(),
            perf_maps: FxHashMap::default(),
            vdso,
            cache_entries,
            loss: Loss::default(),
        }
    }

    /// The process, its maps read if they never were, or if it may have called exec since.
    pub(super) fn observe<T>(
        &mut self,
        id: ProcessId,
        maybe_exec: bool,
        look: impl FnOnce(&mut Process) -> T,
    ) -> T {
        self.files.sweep();
        if self.files.refresh() {
            self.frames = Cache::new(self.cache_entries);
            self.modules.clear();
        }
        let mut procs = self.procs.lock();
        if maybe_exec {
            procs.recheck(id);
        }
        look(procs.observe(id))
    }

    /// Counts what was lost with a sample of this process.
    pub(super) fn count(&mut self, id: ProcessId, loss: &mut Loss) {
        let mut procs = self.procs.lock();
        let process = procs.observe(id);
        if !process.maps_known() {
            loss.add(Stage::Symbolize, if process.is_gone() { GONE } else { NOT_READABLE }, 1);
        }
        loss.add(Stage::Symbolize, REFUSED, procs.take_refused());
        drop(procs);
        self.files.take_loss(loss);
        loss.merge(&std::mem::take(&mut self.loss));
    }

    /// Whether the process's maps are known and no code is mapped at this address.
    pub(super) fn is_no_code(&mut self, id: ProcessId, address: u64, at: MonoNs) -> bool {
        // Maps are not read again for it: what a guess finds is no address, more often than not.
        let procs = self.procs.lock();
        procs.get(id).is_some_and(|process| process.maps_known() && process.find(address, at).is_none())
    }

    /// Appends the frames at a place of an observed process, innermost first. Returns whether it is a
    /// signal trampoline. `upcoming` will be asked about next, as return addresses: what is to be read
    /// for them is read at once.
    pub(super) fn frames(
        &mut self,
        place: &Place,
        upcoming: &[u64],
        comm: &str,
        interner: &mut Interner,
        out: &mut Vec<Arc<Frame>>,
    ) -> bool {
        let &Place { process: id, address, time, exact: _ } = place;
        let mapping = self.procs.lock().lookup(id, address, time).cloned();
        let Some(mapping) = mapping else {
            // Nothing is mapped there any more, or nothing is known of the process.
            out.push(interner.intern(unnamed(comm, address, None)));
            return false;
        };
        match &mapping.kind {
            MappingKind::File { file: Some(file), path } if file.elf().is_some() => {
                let offset = mapping.offset_of(address);
                return self.file_frames(place, file, path, offset, upcoming, interner, out);
            }
            MappingKind::File { path, .. } => {
                // Run-time compilers also write to files (memfd) that hold plain code.
                let frame = self.generated(id, address, interner).unwrap_or_else(|| {
                    let module =
                        Arc::new(Module { path: Arc::clone(path), build_id: None, has_symbols: false });
                    interner.intern(unnamed(base_name(path), mapping.offset_of(address), Some(module)))
                });
                out.push(frame);
            }
            MappingKind::Anonymous => {
                let frame = self.generated(id, address, interner);
                out.push(frame.unwrap_or_else(|| interner.intern(unnamed("anon", address, None))));
            }
            MappingKind::Vdso => return self.vdso_frames(place, &mapping, interner, out),
            MappingKind::Special(name) => {
                let name = name.trim_matches(['[', ']']);
                out.push(interner.intern(unnamed(name, address, None)));
            }
        }
        false
    }

    fn vdso_frames(
        &mut self,
        place: &Place,
        mapping: &Mapping,
        interner: &mut Interner,
        out: &mut Vec<Arc<Frame>>,
    ) -> bool {
        let offset = place.address.wrapping_sub(mapping.start);
        match self.vdso.clone() {
            Some((file, size)) if size == mapping.end - mapping.start => {
                let path = Arc::clone(file.path());
                self.file_frames(place, &file, &path, offset, &[], interner, out)
            }
            _ => {
                out.push(interner.intern(unnamed("vdso", offset, None)));
                false
            }
        }
    }

    #[expect(clippy::too_many_arguments, reason = "two of them are places to put things")]
    fn file_frames(
        &mut self,
        place: &Place,
        file: &Arc<ObjectFile>,
        path: &Arc<str>,
        offset: u64,
        upcoming: &[u64],
        interner: &mut Interner,
        out: &mut Vec<Arc<Frame>>,
    ) -> bool {
        let id = place.process;
        if let Some(known) = self.frames.get(&key(file, offset, place.exact)) {
            out.extend(known.frames.iter().cloned());
            return known.trampoline;
        }
        let mut wanted = vec![Wanted::new(file, offset, place.exact)];
        self.add_upcoming(place, file, upcoming, &mut wanted);
        let addresses: Vec<u64> = wanted.iter().filter_map(|wanted| wanted.address).collect();
        let loss = &mut self.loss;
        let procs = self.procs.clone();
        let in_root = |path: &Path| procs.lock().get(id)?.open_in_root(path.as_os_str().as_bytes());
        let answers = self.files.find(file, &addresses, &in_root, |reason| {
            tracing::debug!(path = &**file.path(), reason, "symbols are limited");
            loss.add(Stage::Symbolize, reason, 1);
        });
        // What cannot be found out now is asked again.
        let is_final = answers.is_some();
        let mut answers = answers.unwrap_or_default().into_iter();
        let module = self.module(file);
        let mut asked = None;
        for Wanted { key, offset, address, trampoline } in wanted {
            let found = address.and_then(|_| answers.next().flatten());
            let found =
                if trampoline { address.map(|address| trampoline::named(found, address)) } else { found };
            let mut frames = Vec::new();
            match found {
                Some(found) => named(found, &module, interner, &mut frames),
                None => {
                    // A page that no segment covers has no address of its own: the offset serves.
                    let what = base_name(path);
                    let frame = unnamed(what, address.unwrap_or(offset), Some(Arc::clone(&module)));
                    frames.push(interner.intern(frame));
                }
            }
            let known = Known { frames: frames.into(), trampoline };
            if is_final {
                self.frames.insert(key, known.clone());
            }
            // The first is the one that was asked about.
            asked.get_or_insert(known);
        }
        asked.is_some_and(|known| {
            out.extend(known.frames.iter().cloned());
            known.trampoline
        })
    }

    /// Adds the places in the same file that are asked about next and are not known.
    fn add_upcoming(
        &self,
        place: &Place,
        file: &Arc<ObjectFile>,
        upcoming: &[u64],
        wanted: &mut Vec<Wanted>,
    ) {
        for &address in upcoming {
            if wanted.len() >= MAX_ADDRESSES {
                break;
            }
            let address = caller(address);
            let offset = {
                let mut procs = self.procs.lock();
                let Some(mapping) = procs.lookup(place.process, address, place.time) else { continue };
                match &mapping.kind {
                    MappingKind::File { file: Some(other), .. } if other.serial() == file.serial() => {
                        mapping.offset_of(address)
                    }
                    _ => continue,
                }
            };
            let key = key(file, offset, false);
            if self.frames.peek(&key).is_none() && wanted.iter().all(|wanted| wanted.key != key) {
                wanted.push(Wanted::new(file, offset, false));
            }
        }
    }

    fn module(&mut self, file: &ObjectFile) -> Arc<Module> {
        // Bounded by the frames that refer to them; started over when files came and went.
        if self.modules.len() > 65_536 {
            self.modules.clear();
        }
        let files = &self.files;
        let module = self.modules.entry(file.serial()).or_insert_with(|| {
            let build_id = file.elf().and_then(|elf| elf.build_id.clone());
            let has_symbols = files.has_symbols(file);
            Arc::new(Module { path: Arc::clone(file.path()), build_id, has_symbols })
        });
        Arc::clone(module)
    }

    fn generated(&mut self, id: ProcessId, address: u64, interner: &mut Interner) -> Option<Arc<Frame>> {
        let file = self.procs.lock().perf_map(id)?;
        if !self.perf_maps.contains_key(&id) {
            let procs = self.procs.lock();
            self.perf_maps.retain(|&id, _| procs.contains(id));
            if self.perf_maps.len() >= PERF_MAPS
                && let Some(oldest) = oldest(self.perf_maps.iter())
            {
                self.perf_maps.remove(&oldest);
            }
        }
        let map = self.perf_maps.entry(id).or_insert_with(|| PerfMap::new(file));
        let (was_cut, bytes) = (map.is_truncated(), map.memory_bytes());
        let frame = map.find(address).map(|(name, start)| Frame {
            name: demangle(name).into(),
            kind: FrameKind::Jit,
            module: None,
            address: start,
            source: None,
            named: true,
        });
        if map.is_truncated() && !was_cut {
            self.loss.add(Stage::Symbolize, PERF_MAP_CUT, 1);
        }
        if map.memory_bytes() > bytes {
            let mut taken: usize = self.perf_maps.values().map(PerfMap::memory_bytes).sum();
            while taken > PERF_MAP_BYTES
                && let Some(old) = oldest(
                    self.perf_maps.iter().filter(|(other, map)| **other != id && map.memory_bytes() > 0),
                )
                && let Some(map) = self.perf_maps.get_mut(&old)
            {
                // One alone always fits. The others are read again when they are needed.
                taken = taken.saturating_sub(map.memory_bytes());
                map.let_go();
            }
        }
        frame.map(|frame| interner.intern(frame))
    }
}

/// The process whose map was not asked for longest.
fn oldest<'a>(maps: impl Iterator<Item = (&'a ProcessId, &'a PerfMap)>) -> Option<ProcessId> {
    maps.min_by_key(|(_, map)| map.used()).map(|(&id, _)| id)
}

/// Names are found without servers as well: what stands in their way is said, no more.
fn start_debuginfod(options: DebuginfodOptions) -> Option<Debuginfod> {
    let dir = options.cache_dir.clone();
    Debuginfod::start(options)
        .inspect_err(|error| tracing::warn!(dir = %dir.display(), %error, "debuginfod servers are not asked"))
        .ok()
}

/// A function and what was inlined into it, innermost first.
fn named(found: Found, module: &Arc<Module>, interner: &mut Interner, out: &mut Vec<Arc<Frame>>) {
    let source = |file: Option<String>| file.map(|file| SourceLine { file: file.into(), line: 0 });
    for inlined in found.inlined.into_iter().rev().take(MAX_INLINED) {
        out.push(interner.intern(Frame {
            name: inlined.name.into(),
            kind: FrameKind::UserInlined,
            module: Some(Arc::clone(module)),
            // An inlined function has no start: equal ones are one frame wherever they were inlined.
            address: 0,
            source: source(inlined.source),
            named: true,
        }));
    }
    out.push(interner.intern(Frame {
        name: found.name.into(),
        kind: FrameKind::User,
        module: Some(Arc::clone(module)),
        address: found.address,
        source: source(found.source),
        named: true,
    }));
}

/// Where a caller was: a return address lies behind the call. The call itself is what ran, and it may
/// be the last instruction of its function.
pub(super) fn caller(address: u64) -> u64 {
    address.saturating_sub(1)
}

/// `[binary+0xaddress]`: for a file the address as its ELF headers count it (what `addr2line -e`
/// takes), for everything else the address in memory.
fn unnamed(what: &str, address: u64, module: Option<Arc<Module>>) -> Frame {
    let name = format!("[{what}+{address:#x}]").into();
    Frame { name, kind: FrameKind::User, module, address, source: None, named: false }
}

fn base_name(path: &str) -> &str {
    Path::new(path).file_name().and_then(|name| name.to_str()).unwrap_or(path)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::symbolize::wire::Inlined;

    #[test]
    fn inlined_frames_are_innermost_first_and_bounded() {
        let inlined = (0..200).map(|depth| Inlined { name: format!("f{depth}"), source: None }).collect();
        let found = Found { name: "holder".to_owned(), address: 1, source: None, inlined };
        let module = Arc::new(Module { path: "a".into(), build_id: None, has_symbols: true });
        let mut out = Vec::new();
        named(found, &module, &mut Interner::new(1000), &mut out);
        let names: Vec<&str> = out.iter().map(|frame| &*frame.name).collect();
        assert_eq!(
            (names.len(), &names[..2], names.last()),
            (MAX_INLINED + 1, &["f199", "f198"][..], Some(&"holder"))
        );
    }
}
