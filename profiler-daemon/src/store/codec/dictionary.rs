//! The dictionary of a segment: strings, frames, stacks and labels that many windows share.

use std::collections::HashMap;
use std::sync::Arc;

use rustc_hash::FxHashMap;

use super::{Damaged, Row, Table, format};
use crate::model::{Frame, FrameKind, Labels, Module, Pid, Profile, SourceLine, WakerIds};

/// Size of a piece at which the next one begins, in about bytes before compression.
const PIECE: usize = 4 << 20;
const NAMED: u32 = 1 << 4;

/// A dictionary to read from.
#[derive(Clone, Debug, Default)]
pub(in crate::store) struct Dictionary {
    strings: Vec<Arc<str>>,
    modules: Vec<Arc<Module>>,
    frames: Vec<Arc<Frame>>,
    /// Where each stack ends in `stack_frames`.
    stack_ends: Vec<u32>,
    stack_frames: Vec<u32>,
    labels: Vec<Arc<Labels>>,
}

impl Dictionary {
    /// Adds the next piece. After an error the dictionary must not be used.
    pub(in crate::store) fn append(&mut self, bytes: &[u8]) -> Result<(), Damaged> {
        self.append_message(super::unpack(bytes)?)
    }

    pub(super) fn append_message(&mut self, piece: format::Dictionary) -> Result<(), Damaged> {
        let first = [
            (piece.first_string, self.strings.len()),
            (piece.first_module, self.modules.len()),
            (piece.first_frame, self.frames.len()),
            (piece.first_stack, self.stack_ends.len()),
            (piece.first_labels, self.labels.len()),
        ];
        if first.iter().any(|&(first, length)| first as usize != length) {
            return Err(Damaged::new("a piece of a dictionary does not follow the one before"));
        }
        self.strings.extend(piece.strings.iter().map(|text| Arc::from(text.as_str())));
        same_length(&[piece.module_path.len(), piece.module_build_id.len(), piece.module_has_symbols.len()])?;
        let modules = piece.module_path.iter().zip(&piece.module_build_id).zip(&piece.module_has_symbols);
        for ((&path, &build_id), &has_symbols) in modules {
            let build_id = optional(build_id).map(|id| self.string(id)).transpose()?;
            self.modules.push(Arc::new(Module { path: self.string(path)?, build_id, has_symbols }));
        }
        self.append_frames(&piece)?;
        for &length in &piece.stack_length {
            let end = self.stack_ends.last().map_or(0, |&end| end).checked_add(length);
            self.stack_ends.push(end.ok_or_else(|| Damaged::new("stacks are too long"))?);
        }
        if piece.stack_frame.iter().any(|&frame| frame as usize >= self.frames.len()) {
            return Err(Damaged::new("a stack has a frame that does not exist"));
        }
        self.stack_frames.extend(piece.stack_frame);
        if self.stack_ends.last().map_or(0, |&end| end as usize) != self.stack_frames.len() {
            return Err(Damaged::new("stacks do not add up"));
        }
        for labels in piece.labels {
            self.labels.push(Arc::new(Labels {
                pid: Pid(labels.pid),
                comm: self.string(labels.comm)?,
                process: self.string(labels.process)?,
                exe: self.string(labels.exe)?,
                cgroup: self.string(labels.cgroup)?,
                container: self.string(labels.container)?,
                pod: self.string(labels.pod)?,
                namespace: self.string(labels.namespace)?,
                unit: self.string(labels.unit)?,
            }));
        }
        Ok(())
    }

    fn append_frames(&mut self, piece: &format::Dictionary) -> Result<(), Damaged> {
        same_length(&[
            piece.frame_name.len(),
            piece.frame_kind.len(),
            piece.frame_module.len(),
            piece.frame_address.len(),
            piece.frame_file.len(),
            piece.frame_line.len(),
        ])?;
        let names = piece.frame_name.iter().zip(&piece.frame_kind).zip(&piece.frame_module);
        let places = piece.frame_address.iter().zip(&piece.frame_file).zip(&piece.frame_line);
        for (((&name, &kind), &module), ((&address, &file), &line)) in names.zip(places) {
            let module = match optional(module) {
                Some(id) => Some(Arc::clone(at(&self.modules, id)?)),
                None => None,
            };
            let source = match optional(file) {
                Some(file) => Some(SourceLine { file: self.string(file)?, line }),
                None => None,
            };
            self.frames.push(Arc::new(Frame {
                name: self.string(name)?,
                kind: frame_kind_of(kind & !NAMED)?,
                module,
                address,
                source,
                named: kind & NAMED != 0,
            }));
        }
        Ok(())
    }

    fn string(&self, id: u32) -> Result<Arc<str>, Damaged> {
        at(&self.strings, id).map(Arc::clone)
    }

    pub(in crate::store) fn labels(&self, id: u32) -> Result<&Arc<Labels>, Damaged> {
        at(&self.labels, id)
    }

    pub(in crate::store) fn labels_len(&self) -> usize {
        self.labels.len()
    }

    /// Indices into [`Self::frames`], leaf first.
    pub(in crate::store) fn stack(&self, id: u32) -> Result<&[u32], Damaged> {
        let end = *at(&self.stack_ends, id)? as usize;
        let start = id.checked_sub(1).map_or(Ok(0), |before| at(&self.stack_ends, before).copied())?;
        // Both ends were checked when the piece was added.
        self.stack_frames.get(start as usize..end).ok_or_else(|| Damaged::new("stacks do not add up"))
    }

    pub(in crate::store) fn stacks_len(&self) -> usize {
        self.stack_ends.len()
    }

    pub(in crate::store) fn frames(&self) -> &[Arc<Frame>] {
        &self.frames
    }
}

/// A dictionary to write: gives ids to what profiles hold, and pieces of what is new.
#[derive(Debug, Default)]
pub(in crate::store) struct Interner {
    // Texts come from processes, so their hash must not be one that collisions can be made for.
    strings: HashMap<Arc<str>, u32>,
    modules: FxHashMap<(u32, u32, bool), u32>,
    frames: FxHashMap<FrameKey, u32>,
    stacks: FxHashMap<Box<[u32]>, u32>,
    labels: FxHashMap<(u32, [u32; 8]), u32>,
    /// Bytes of all strings, and frames of all stacks.
    string_bytes: usize,
    stack_frames: usize,
    piece: format::Dictionary,
    piece_bytes: usize,
    pieces: Vec<format::Dictionary>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct FrameKey {
    name: u32,
    kind: u32,
    module: u32,
    address: u64,
    file: u32,
    line: u32,
}

impl Interner {
    /// One that goes on where a stored dictionary ends.
    pub(in crate::store) fn of(dictionary: &Dictionary) -> Result<Self, Damaged> {
        let mut interner = Self::all_new(dictionary)?;
        interner.take_pieces();
        Ok(interner)
    }

    /// A stored dictionary in as few pieces as possible, with the same ids.
    pub(in crate::store) fn pieces_of(dictionary: &Dictionary) -> Result<Vec<format::Dictionary>, Damaged> {
        Ok(Self::all_new(dictionary)?.take_pieces())
    }

    fn all_new(dictionary: &Dictionary) -> Result<Self, Damaged> {
        let mut interner = Self::default();
        for text in &dictionary.strings {
            interner.string(text);
        }
        for module in &dictionary.modules {
            interner.module(module);
        }
        for frame in &dictionary.frames {
            interner.frame(frame);
        }
        for id in 0..dictionary.stack_ends.len() {
            interner.stack(dictionary.stack(id as u32)?);
        }
        for labels in &dictionary.labels {
            interner.labels(labels);
        }
        let lengths = [
            (interner.strings.len(), dictionary.strings.len()),
            (interner.modules.len(), dictionary.modules.len()),
            (interner.frames.len(), dictionary.frames.len()),
            (interner.stacks.len(), dictionary.stack_ends.len()),
            (interner.labels.len(), dictionary.labels.len()),
        ];
        if lengths.iter().any(|(ours, theirs)| ours != theirs) {
            return Err(Damaged::new("a dictionary has an entry twice"));
        }
        Ok(interner)
    }

    /// The rows of a profile by the ids of this dictionary.
    pub(in crate::store) fn table(&mut self, profile: &Profile) -> Table {
        let frames: Vec<u32> = profile.frames().map(|frame| self.frame(frame)).collect();
        let mut ids = Vec::new();
        let stacks: Vec<u32> = profile
            .stack_table()
            .map(|stack| {
                ids.clear();
                // A profile's stacks point into its own frames.
                ids.extend(stack.iter().filter_map(|&frame| frames.get(frame as usize)));
                self.stack(&ids)
            })
            .collect();
        let labels: Vec<u32> = profile.label_table().map(|labels| self.labels(labels)).collect();
        let mut table = Table::new(profile.kind());
        table.rows.reserve(profile.rows().len());
        let ours = |who: u32, stack: u32| {
            Some(WakerIds { labels: *labels.get(who as usize)?, stack: *stacks.get(stack as usize)? })
        };
        for (key, value) in profile.rows() {
            let waker = key.waker.and_then(|waker| ours(waker.labels, waker.stack));
            if let Some(WakerIds { labels, stack }) = ours(key.labels, key.stack) {
                let row = Row { labels, stack, activity: key.activity, waker };
                table.add(row, value);
                table.order.push(row);
            }
        }
        let mut here = |at: u32| labels.get(at as usize).copied();
        // As many as the profile had: there is room.
        table.distributions.merge(profile.distributions(), &mut here);
        table.quality = profile.quality;
        table.quality_by_labels.merge(profile.quality_by_labels(), &mut here);
        table.loss = profile.loss.clone();
        table
    }

    /// What is new since the last call, in pieces of bounded size.
    pub(in crate::store) fn take_pieces(&mut self) -> Vec<format::Dictionary> {
        self.end_piece();
        std::mem::take(&mut self.pieces)
    }

    /// Whether the dictionary is so large that the next window should begin another one.
    pub(in crate::store) fn is_full(&self) -> bool {
        // About 32 MiB of memory.
        self.stacks.len() > 100_000
            || self.stack_frames > 4_000_000
            || self.string_bytes > 8 << 20
            || self.labels.len() > 100_000
    }

    fn end_piece(&mut self) {
        let empty = self.piece.strings.is_empty()
            && self.piece.module_path.is_empty()
            && self.piece.frame_name.is_empty()
            && self.piece.stack_length.is_empty()
            && self.piece.labels.is_empty();
        let next = format::Dictionary {
            first_string: self.strings.len() as u32,
            first_module: self.modules.len() as u32,
            first_frame: self.frames.len() as u32,
            first_stack: self.stacks.len() as u32,
            first_labels: self.labels.len() as u32,
            ..format::Dictionary::default()
        };
        let piece = std::mem::replace(&mut self.piece, next);
        if !empty {
            self.pieces.push(piece);
        }
        self.piece_bytes = 0;
    }

    /// Called before something is added, so that no entry is torn from what it points to.
    fn grow(&mut self, bytes: usize) {
        if self.piece_bytes > PIECE {
            self.end_piece();
        }
        self.piece_bytes += bytes;
    }

    fn string(&mut self, text: &Arc<str>) -> u32 {
        if let Some(&id) = self.strings.get(text) {
            return id;
        }
        self.grow(text.len() + 2);
        let id = self.strings.len() as u32;
        self.string_bytes += text.len();
        self.strings.insert(Arc::clone(text), id);
        self.piece.strings.push((**text).to_owned());
        id
    }

    fn module(&mut self, module: &Module) -> u32 {
        let path = self.string(&module.path);
        let build_id = module.build_id.as_ref().map_or(0, |build_id| 1 + self.string(build_id));
        let key = (path, build_id, module.has_symbols);
        if let Some(&id) = self.modules.get(&key) {
            return id;
        }
        self.grow(7);
        let id = self.modules.len() as u32;
        self.modules.insert(key, id);
        self.piece.module_path.push(path);
        self.piece.module_build_id.push(build_id);
        self.piece.module_has_symbols.push(module.has_symbols);
        id
    }

    fn frame(&mut self, frame: &Frame) -> u32 {
        let key = FrameKey {
            name: self.string(&frame.name),
            kind: frame_kind_number(frame.kind) | if frame.named { NAMED } else { 0 },
            module: frame.module.as_ref().map_or(0, |module| 1 + self.module(module)),
            address: frame.address,
            file: frame.source.as_ref().map_or(0, |source| 1 + self.string(&source.file)),
            line: frame.source.as_ref().map_or(0, |source| source.line),
        };
        if let Some(&id) = self.frames.get(&key) {
            return id;
        }
        self.grow(20);
        let id = self.frames.len() as u32;
        self.frames.insert(key, id);
        self.piece.frame_name.push(key.name);
        self.piece.frame_kind.push(key.kind);
        self.piece.frame_module.push(key.module);
        self.piece.frame_address.push(key.address);
        self.piece.frame_file.push(key.file);
        self.piece.frame_line.push(key.line);
        id
    }

    fn stack(&mut self, frames: &[u32]) -> u32 {
        if let Some(&id) = self.stacks.get(frames) {
            return id;
        }
        self.grow(2 + 3 * frames.len());
        let id = self.stacks.len() as u32;
        self.stack_frames += frames.len();
        self.stacks.insert(frames.into(), id);
        self.piece.stack_length.push(frames.len() as u32);
        self.piece.stack_frame.extend_from_slice(frames);
        id
    }

    fn labels(&mut self, labels: &Labels) -> u32 {
        // Taken apart by name: a new label must not be forgotten here.
        let Labels { pid, comm, process, exe, cgroup, container, pod, namespace, unit } = labels;
        let texts = [comm, exe, cgroup, process, container, pod, namespace, unit];
        let texts = texts.map(|text| self.string(text));
        let key = (pid.0, texts);
        if let Some(&id) = self.labels.get(&key) {
            return id;
        }
        self.grow(24);
        let id = self.labels.len() as u32;
        self.labels.insert(key, id);
        let (pid, [comm, exe, cgroup, process, container, pod, namespace, unit]) = key;
        let labels = format::Labels { pid, comm, exe, cgroup, process, container, pod, namespace, unit };
        self.piece.labels.push(labels);
        id
    }
}

fn frame_kind_number(kind: FrameKind) -> u32 {
    match kind {
        FrameKind::User => 0,
        FrameKind::UserInlined => 1,
        FrameKind::Jit => 2,
        FrameKind::Kernel => 3,
        FrameKind::KernelInlined => 4,
    }
}

fn frame_kind_of(number: u32) -> Result<FrameKind, Damaged> {
    match number {
        0 => Ok(FrameKind::User),
        1 => Ok(FrameKind::UserInlined),
        2 => Ok(FrameKind::Jit),
        3 => Ok(FrameKind::Kernel),
        4 => Ok(FrameKind::KernelInlined),
        _ => Err(Damaged::new(format!("{number} is not a kind of frame"))),
    }
}

fn optional(id: u32) -> Option<u32> {
    id.checked_sub(1)
}

fn at<T>(table: &[T], id: u32) -> Result<&T, Damaged> {
    table.get(id as usize).ok_or_else(|| Damaged::new(format!("there is no entry {id} in a dictionary")))
}

fn same_length(lengths: &[usize]) -> Result<(), Damaged> {
    if lengths.windows(2).any(|pair| pair[0] != pair[1]) {
        return Err(Damaged::new("columns of a dictionary differ in length"));
    }
    Ok(())
}
