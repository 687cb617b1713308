//! pprof: a gzip-compressed `perftools.profiles.Profile` (proto/third_party/profile.proto).
//!
//! Who a stack belongs to is in the samples' labels (`comm`, `pid`, `exe`, `cgroup`, `activity`,
//! `waker`): `pprof -tagroot=comm` splits by them.

use std::collections::HashMap;
use std::io::{self, Write};
use std::time::SystemTime;

use flate2::Compression;
use flate2::write::GzEncoder;
use indexmap::IndexSet;
use prost::Message;
use rustc_hash::{FxBuildHasher, FxHashMap};

use super::{About, View, name, summary_line};
use crate::model::{Entry, Frame, FrameKind, Module, Profile, ProfileKind};
use crate::proto::pprof;

/// Writes the profile; on-CPU the first value of the samples adds up to
/// [`Profile::total_shown`], else the second one does, in nanoseconds.
pub(super) fn write(profile: &Profile, about: &About, view: View, out: &mut dyn Write) -> io::Result<()> {
    let message = Builder::new(profile, view).build(about);
    let mut gzip = GzEncoder::new(out, Compression::default());
    gzip.write_all(&message.encode_to_vec())?;
    gzip.finish()?;
    Ok(())
}

struct Builder<'a> {
    profile: &'a Profile,
    view: View,
    message: pprof::Profile,
    strings: IndexSet<String, FxBuildHasher>,
    mappings: FxHashMap<&'a Module, u64>,
    functions: FxHashMap<FunctionKey, u64>,
    locations: FxHashMap<LocationKey<'a>, u64>,
}

/// Indices into the string table: name and file, and the line where it starts.
type FunctionKey = (i64, i64, i64);

#[derive(PartialEq, Eq, Hash)]
enum LocationKey<'a> {
    /// Inlined frames and the frame that holds them, leaf first.
    Frames(&'a [u32]),
    /// What a thread did instead of running; also the lack of a stack.
    Pseudo(String),
}

impl<'a> Builder<'a> {
    fn new(profile: &'a Profile, view: View) -> Self {
        Self {
            profile,
            view,
            message: pprof::Profile::default(),
            // string_table[0] must always be "".
            strings: IndexSet::from_iter([String::new()]),
            mappings: HashMap::default(),
            functions: HashMap::default(),
            locations: HashMap::default(),
        }
    }

    fn build(mut self, about: &About) -> pprof::Profile {
        let total = self.profile.total();
        let (count, time, period) = match self.profile.kind() {
            ProfileKind::OnCpu => ("samples", "cpu", total.ns / total.count.max(1)),
            ProfileKind::OffCpu => ("off_cpu_intervals", "off_cpu", 1),
            ProfileKind::Wall => ("records", "wall", 1),
        };
        self.message.sample_type =
            vec![self.value_type(count, "count"), self.value_type(time, "nanoseconds")];
        self.message.period_type = Some(self.value_type(time, "nanoseconds"));
        self.message.period = signed(period.into());
        self.message.time_nanos = about
            .range
            .from
            .duration_since(SystemTime::UNIX_EPOCH)
            .map_or(0, |since| signed(since.as_nanos()));
        self.message.duration_nanos = signed(about.covered.as_nanos());
        let summary = summary_line(self.profile, about);
        for text in [Some(&about.title), Some(&summary), about.command.as_ref()].into_iter().flatten() {
            let comment = self.string(&name::clean(text));
            self.message.comment.push(comment);
        }
        for entry in self.profile.entries() {
            self.sample(&entry);
        }
        self.message.string_table = self.strings.into_iter().collect();
        self.message
    }

    fn sample(&mut self, entry: &Entry<'a>) {
        let mut location_id = Vec::with_capacity(entry.stack.len() + 1);
        if let Some(waker) = entry.waker.filter(|_| self.view == View::Wakers) {
            location_id.push(self.pseudo(&name::waker(waker.labels)));
            // Upside down: the leaf is next to what it woke.
            location_id.extend(self.stack(waker.stack).into_iter().rev());
            location_id.push(self.pseudo(name::WOKEN_BY));
        }
        if let Some(marker) = entry.activity.marker() {
            location_id.push(self.pseudo(marker));
        }
        location_id.extend(self.stack(entry.stack));
        if location_id.is_empty() {
            // pprof would count the sample and show it nowhere.
            location_id.push(self.pseudo(name::NO_STACK));
        }
        let labels = entry.labels;
        let texts = [
            ("comm", &**labels.process_name()),
            ("thread", &*labels.comm),
            ("exe", &*labels.exe),
            ("container", &*labels.container),
            ("pod", &*labels.pod),
            ("namespace", &*labels.namespace),
            ("unit", &*labels.unit),
            ("cgroup", &*labels.cgroup),
            ("activity", name::activity(entry.activity)),
        ];
        let mut label = Vec::with_capacity(texts.len() + 3);
        for (key, text) in texts.into_iter().filter(|(_, text)| !text.is_empty()) {
            let (key, str) = (self.string(key), self.string(&name::clean(text)));
            label.push(pprof::Label { key, str, ..Default::default() });
        }
        if let Some(waker) = entry.waker {
            let (key, str) = (self.string("waker"), self.string(&name::clean(&waker.labels.comm)));
            label.push(pprof::Label { key, str, ..Default::default() });
            let (key, num) = (self.string("waker_pid"), waker.labels.pid.0.into());
            label.push(pprof::Label { key, num, ..Default::default() });
        }
        label.push(pprof::Label { key: self.string("pid"), num: labels.pid.0.into(), ..Default::default() });
        let value = vec![signed(entry.value.count.into()), signed(entry.value.ns.into())];
        self.message.sample.push(pprof::Sample { location_id, value, label });
    }

    /// The locations of a stack, leaf first.
    fn stack(&mut self, mut rest: &'a [u32]) -> Vec<u64> {
        let mut locations = Vec::with_capacity(rest.len());
        while !rest.is_empty() {
            let (location, callers) = rest.split_at(self.physical(rest));
            locations.push(self.location(location));
            rest = callers;
        }
        locations
    }

    /// How many frames at the leaf end of a stack, which is not empty, are one place in the
    /// machine code: inlined frames and the frame that holds them. Inlined frames whose holder is
    /// missing stay by themselves.
    fn physical(&self, stack: &[u32]) -> usize {
        let kind = |&frame: &u32| self.profile.frame(frame).kind;
        let (inlined, holder) = match stack.first().map(kind) {
            Some(FrameKind::UserInlined) => (FrameKind::UserInlined, FrameKind::User),
            Some(FrameKind::KernelInlined) => (FrameKind::KernelInlined, FrameKind::Kernel),
            _ => return 1,
        };
        let run = stack.iter().take_while(|&frame| kind(frame) == inlined).count();
        run + usize::from(stack.get(run).map(kind) == Some(holder))
    }

    fn location(&mut self, frames: &'a [u32]) -> u64 {
        let key = LocationKey::Frames(frames);
        if let Some(&id) = self.locations.get(&key) {
            return id;
        }
        let profile = self.profile;
        let line = frames.iter().map(|&frame| self.line(profile.frame(frame))).collect();
        let holder = frames.last().map(|&frame| profile.frame(frame));
        let address = holder.map_or(0, |frame| frame.address);
        let mapping_id = match holder.and_then(|frame| frame.module.as_deref()) {
            Some(module) => self.mapping(module, address, frames),
            None => 0,
        };
        self.insert(key, pprof::Location { mapping_id, address, line, ..Default::default() })
    }

    fn pseudo(&mut self, text: &str) -> u64 {
        let key = LocationKey::Pseudo(text.to_owned());
        if let Some(&id) = self.locations.get(&key) {
            return id;
        }
        let line = vec![self.function(text, None)];
        self.insert(key, pprof::Location { line, ..Default::default() })
    }

    fn insert(&mut self, key: LocationKey<'a>, location: pprof::Location) -> u64 {
        let id = self.message.location.len() as u64 + 1;
        self.message.location.push(pprof::Location { id, ..location });
        self.locations.insert(key, id);
        id
    }

    fn line(&mut self, frame: &'a Frame) -> pprof::Line {
        let source = frame.source.as_ref().map(|source| (&*source.file, source.line));
        self.function(&frame.name, source)
    }

    /// A line of a function. Which line is not known: `source` is where the function starts.
    fn function(&mut self, text: &str, source: Option<(&str, u32)>) -> pprof::Line {
        let (file, start) = source.unwrap_or_default();
        let (name, filename) = (self.string(&name::clean(text)), self.string(&name::clean(file)));
        let start_line = i64::from(start);
        let id = self.functions.len() as u64 + 1;
        let id = *self.functions.entry((name, filename, start_line)).or_insert(id);
        if id > self.message.function.len() as u64 {
            let function = pprof::Function { id, name, system_name: name, filename, start_line };
            self.message.function.push(function);
        }
        pprof::Line { function_id: id, ..Default::default() }
    }

    /// The mapping of a module, widened to hold an address. Addresses are those of the file's own
    /// headers, so each mapping starts at 0. A mapping of which we know names claims them, so
    /// that pprof does not look for better ones in files of the machine it runs on.
    fn mapping(&mut self, module: &'a Module, address: u64, frames: &[u32]) -> u64 {
        let next = self.mappings.len() as u64 + 1;
        let id = *self.mappings.entry(module).or_insert(next);
        if id == next {
            let filename = self.string(&name::clean(&module.path));
            let build_id = self.string(&name::clean(module.build_id.as_deref().unwrap_or_default()));
            let mapping = pprof::Mapping { id, filename, build_id, ..Default::default() };
            self.message.mapping.push(mapping);
        }
        let frames = frames.iter().map(|&frame| self.profile.frame(frame));
        if let Some(mapping) = self.message.mapping.get_mut(id as usize - 1) {
            mapping.memory_limit = mapping.memory_limit.max(address.saturating_add(1));
            for frame in frames {
                mapping.has_functions |= frame.named;
                mapping.has_filenames |= frame.source.is_some();
                mapping.has_inline_frames |= frame.kind == FrameKind::UserInlined;
            }
        }
        id
    }

    fn value_type(&mut self, kind: &str, unit: &str) -> pprof::ValueType {
        pprof::ValueType { r#type: self.string(kind), unit: self.string(unit) }
    }

    fn string(&mut self, text: &str) -> i64 {
        let index = self.strings.get_index_of(text);
        index.unwrap_or_else(|| self.strings.insert_full(text.to_owned()).0) as i64
    }
}

fn signed(value: u128) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests;
