//! Firefox Profiler's processed profile format:
//! <https://github.com/firefox-devtools/profiler/blob/main/docs-developer/processed-profile-format.md>.
//!
//! A profile holds sums and no moments. So on the time axis the stacks of a thread lie one after the
//! other from 0 on, each as long as the time it stands for, those that begin alike side by side: the
//! stack chart of a thread is its flame graph. Threads of one name in a process are one thread.
//!
//! Weights add up to [`Profile::total_shown`]: on-CPU they are samples, else milliseconds with their
//! fractions. That, and source files beside names that are known, are what the crate
//! `fxprof-processed-profile` has no room for.

mod tables;

use std::cmp::Reverse;
use std::io::{self, BufWriter, Write};
use std::time::SystemTime;

use indexmap::IndexMap;
use rustc_hash::{FxBuildHasher, FxHashMap};
use serde::Serialize;

use self::tables::{CATEGORIES, Category, Library, Shared, Tables, category};
use super::{About, View, name, summary_line};
use crate::model::{Entry, Labels, Pid, Profile, ProfileKind};

/// The oldest version with tables that threads share; newer readers bring it up to theirs.
const VERSION: u32 = 60;

/// Threads that are open at first, heaviest first; the others are in the reader's list.
const VISIBLE_THREADS: usize = 20;

/// What the reader is told about the time axis.
const TIME_AXIS: &str = "Stacks lie one after the other, each as long as the time it stands for, \
                         not when it happened. Threads of one name in a process are one.";

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Document<'a> {
    meta: Meta<'a>,
    libs: Vec<Library<'a>>,
    shared: Shared,
    threads: Vec<Thread<'a>>,
    pages: [(); 0],
    counters: [(); 0],
    profiler_overhead: [(); 0],
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Meta<'a> {
    /// Between two samples, ms.
    interval: f64,
    /// Since 1970, ms.
    start_time: f64,
    process_type: u32,
    product: &'a str,
    imported_from: &'static str,
    stackwalk: u32,
    /// Of a format that this one is made from; readers of this one ignore it.
    version: u32,
    preprocessed_profile_version: u32,
    symbolicated: bool,
    categories: [tables::CategoryRow; CATEGORIES],
    marker_schema: [(); 0],
    sample_units: SampleUnits,
    uses_only_one_stack_type: bool,
    source_code_is_not_on_searchfox: bool,
    keep_profile_thread_order: bool,
    initial_visible_threads: Vec<usize>,
    initial_selected_threads: [usize; 1],
    extra: [Section<'a>; 1],
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct SampleUnits {
    time: &'static str,
    event_delay: &'static str,
    #[serde(rename = "threadCPUDelta")]
    thread_cpu_delta: &'static str,
}

/// Texts for the reader's page about the profile.
#[derive(Serialize)]
struct Section<'a> {
    label: &'static str,
    entries: Vec<Text<'a>>,
}

#[derive(Serialize)]
struct Text<'a> {
    label: &'static str,
    format: &'static str,
    value: std::borrow::Cow<'a, str>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Thread<'a> {
    name: std::borrow::Cow<'a, str>,
    is_main_thread: bool,
    process_name: std::borrow::Cow<'a, str>,
    process_type: &'static str,
    pid: String,
    tid: String,
    process_startup_time: f64,
    process_shutdown_time: Option<f64>,
    register_time: f64,
    unregister_time: Option<f64>,
    paused_ranges: [(); 0],
    samples: Samples,
    markers: Markers,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Samples {
    length: usize,
    stack: Vec<Option<u32>>,
    /// When each begins, ms.
    time: Vec<f64>,
    weight: Weights,
    weight_type: &'static str,
}

#[derive(Serialize)]
#[serde(untagged)]
enum Weights {
    Samples(Vec<u64>),
    Milliseconds(Vec<f64>),
}

/// None; the format wants the table.
#[derive(Default, Serialize)]
#[serde(rename_all = "camelCase")]
struct Markers {
    length: usize,
    data: [(); 0],
    name: [(); 0],
    start_time: [(); 0],
    end_time: [(); 0],
    phase: [(); 0],
    category: [(); 0],
}

/// The rows of a thread.
struct Rows<'a> {
    labels: &'a Labels,
    total: u64,
    rows: Vec<Row>,
}

struct Row {
    /// Frames, root first.
    path: Vec<u32>,
    ns: u64,
    shown: u64,
}

/// A pid that was used again with another executable is another process.
type Process<'a> = (Pid, &'a str);

/// Writes the whole profile, names without the folded line's endings.
pub(super) fn write(profile: &Profile, about: &About, view: View, out: &mut dyn Write) -> io::Result<()> {
    let mut tables = Tables::default();
    let frames: Vec<u32> = profile.frames().map(|frame| tables.frame(frame)).collect();
    let mut processes: IndexMap<Process<'_>, u64, FxBuildHasher> = IndexMap::default();
    let mut threads: IndexMap<(Process<'_>, &str), Rows<'_>, FxBuildHasher> = IndexMap::default();
    for entry in profile.entries().filter(|entry| entry.shown > 0) {
        let labels: &Labels = entry.labels;
        let process = (labels.pid, &*labels.exe);
        *processes.entry(process).or_default() += entry.shown;
        let thread = threads.entry((process, &*labels.comm));
        let thread = thread.or_insert_with(|| Rows { labels, total: 0, rows: Vec::new() });
        thread.total += entry.shown;
        let path = path(&mut tables, profile, &frames, &entry, view);
        thread.rows.push(Row { path, ns: entry.value.ns, shown: entry.shown });
    }
    let pids = pids(processes.keys());
    let mut threads: Vec<(usize, u64, Rows<'_>)> = threads
        .into_iter()
        .filter_map(|((process, _), rows)| {
            let (index, _, &total) = processes.get_full(&process)?;
            Some((index, total, rows))
        })
        .collect();
    threads.sort_by_key(|(process, total, rows)| (Reverse(*total), *process, Reverse(rows.total)));
    let threads = threads.into_iter().enumerate().map(|(number, (process, _, rows))| {
        let pid = pids.get(process).cloned().unwrap_or_default();
        thread(&mut tables, profile.kind(), number, pid, rows)
    });
    let threads: Vec<Thread<'_>> = threads.collect();

    let title = name::clean(&about.title);
    let mut texts = vec![("Summary", summary_line(profile, about).into())];
    texts.extend(about.command.as_ref().map(|command| ("Command", name::clean(command))));
    texts.push(("Time axis", TIME_AXIS.into()));
    let entries = texts.into_iter().map(|(label, value)| Text { label, format: "string", value });
    let extra = [Section { label: "Recording", entries: entries.collect() }];
    let (shared, libs) = tables.into_parts();
    let document = Document {
        meta: Meta {
            interval: ms(interval_ns(profile)),
            start_time: about
                .range
                .from
                .duration_since(SystemTime::UNIX_EPOCH)
                .map_or(0.0, |since| since.as_secs_f64() * 1000.0),
            process_type: 0,
            product: &title,
            imported_from: "profiler",
            stackwalk: 1,
            version: 0,
            preprocessed_profile_version: VERSION,
            symbolicated: true,
            categories: tables::categories(),
            marker_schema: [],
            sample_units: SampleUnits { time: "ms", event_delay: "ms", thread_cpu_delta: "ns" },
            uses_only_one_stack_type: true,
            source_code_is_not_on_searchfox: true,
            keep_profile_thread_order: true,
            initial_visible_threads: (0..threads.len().min(VISIBLE_THREADS)).collect(),
            initial_selected_threads: [0],
            extra,
        },
        libs,
        shared,
        threads,
        pages: [],
        counters: [],
        profiler_overhead: [],
    };
    let mut out = BufWriter::new(out);
    serde_json::to_writer(&mut out, &document)?;
    out.flush()
}

/// The frames of a row, root first.
fn path<'a>(
    tables: &mut Tables<'a>,
    profile: &'a Profile,
    frames: &[u32],
    entry: &Entry<'_>,
    view: View,
) -> Vec<u32> {
    let mut path: Vec<u32> = entry.stack.iter().rev().map(|&frame| frames[frame as usize]).collect();
    path.extend(entry.activity.marker().map(|text| tables.pseudo(text, category(entry.activity))));
    if let Some(waker) = entry.waker.filter(|_| view == View::Wakers) {
        path.push(tables.pseudo(name::WOKEN_BY, Category::WAKER));
        path.extend(waker.stack.iter().map(|&frame| tables.waker(profile.frame(frame))));
        path.push(tables.pseudo(&name::waker(waker.labels), Category::WAKER));
    }
    if path.is_empty() {
        // Samples without a stack would be missing from every view but the time axis.
        path.push(tables.pseudo(name::NO_STACK, Category::OTHER));
    }
    path
}

fn thread<'a>(
    tables: &mut Tables<'_>,
    kind: ProfileKind,
    number: usize,
    pid: String,
    rows: Rows<'a>,
) -> Thread<'a> {
    let Rows { labels, mut rows, .. } = rows;
    rows.sort_by(|a, b| a.path.cmp(&b.path));
    let (mut stack, mut time, mut end_ns) = (Vec::new(), Vec::new(), 0_u64);
    for row in &rows {
        stack.push(tables.stack(&row.path));
        time.push(ms(end_ns));
        end_ns = end_ns.saturating_add(row.ns);
    }
    // A sample lasts until the next one begins: this one ends the last.
    stack.push(None);
    time.push(ms(end_ns));
    let shown = rows.iter().map(|row| row.shown).chain([0]);
    let (weight, weight_type) = match kind {
        ProfileKind::OnCpu => (Weights::Samples(shown.collect()), "samples"),
        ProfileKind::OffCpu | ProfileKind::Wall => {
            (Weights::Milliseconds(shown.map(|us| us as f64 / 1000.0).collect()), "tracing-ms")
        }
    };
    let process_name = labels.process_name();
    let named = |text: &'a str| match name::clean(text) {
        empty if empty.is_empty() => format!("[pid {}]", labels.pid).into(),
        name => name,
    };
    Thread {
        name: named(&labels.comm),
        is_main_thread: labels.comm == *process_name,
        process_name: named(process_name),
        process_type: "default",
        // Which threads they were is not kept.
        tid: format!("{pid}.{number}"),
        pid,
        process_startup_time: 0.0,
        process_shutdown_time: None,
        register_time: 0.0,
        unregister_time: None,
        paused_ranges: [],
        samples: Samples { length: stack.len(), stack, time, weight, weight_type },
        markers: Markers::default(),
    }
}

/// Names of the processes: their pids, apart where one was used again.
fn pids<'a>(processes: impl Iterator<Item = &'a Process<'a>>) -> Vec<String> {
    let mut used: FxHashMap<Pid, u32> = FxHashMap::default();
    let names = processes.map(|(pid, _)| {
        let before = used.entry(*pid).or_default();
        *before += 1;
        if *before == 1 { pid.to_string() } else { format!("{pid}.{}", *before - 1) }
    });
    names.collect()
}

/// What a sample stands for: the sampler's period, or the clocks', or a nominal millisecond where every
/// interval was taken.
fn interval_ns(profile: &Profile) -> u64 {
    let total = profile.total();
    match (profile.kind(), profile.quality.clock_period_ns) {
        (ProfileKind::OnCpu, _) => (total.ns / total.count.max(1)).max(1),
        (_, 0) => 1_000_000,
        (_, period_ns) => period_ns,
    }
}

fn ms(ns: u64) -> f64 {
    ns as f64 / 1e6
}

#[cfg(test)]
pub(super) mod tests;
