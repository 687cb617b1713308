//! The whole profile as one JSON document, for scripts.
//!
//! The form is stable: fields may be added, none changes its meaning or goes.
//!
//! ```json
//! {
//!   "kind": "on-cpu",              // or "off-cpu", "wall"
//!   "unit": "samples",             // of every value: "samples" or "microseconds"
//!   "total": 42,                   // sum of all values
//!   "total_error": 6.5,            // its standard error
//!   "title": "the whole host",
//!   "from": "2026-11-20T10:00:00Z", "to": "2026-11-20T10:00:10Z",   // the range asked for
//!   "covered_seconds": 10.0,       // how much of it has data
//!   "frequency_hz": 99.0,          // effective sampling frequency; 0 unless on-cpu
//!   "quality": { "records": 42, "truncated": 0, "stopped": 2, "user_missing": 0, "kernel_missing": 0,
//!                "frames": 420, "frames_unnamed": 3,
//!                "user_stacks": 40,   // records of threads that have one; each has one end:
//!                "complete": 38, "user_truncated": 0,
//!                "stopped_reasons": [ { "reason": "no unwinding table yet", "count": 2 } ],
//!                "guessed": 1,        // stacks with frames that no table proves
//!                "frames_unnamed_despite_symbols": 0,   // though their file has symbols
//!                "clock_period_ns": 10000000, "clock_period_min_ns": 10000000,   // off-CPU; 0: every interval
//!                "one_thread_in": 1,  // the clocks looked at one thread in so many
//!                "off_cpu_ns": 0, "borrowed_ns": 0, "missing_ns": 0 },   // by whose user stack it has
//!   "waits": [                     // lengths of waits by process and reason
//!     { "comm": "demo", "pid": 7, "activity": "blocked: io", "count": 81.5, "records": 12,
//!       "p50_ns": 90000, "p90_ns": 400000, "p99_ns": 2000000, "max_ns": 2100000,
//!       "still": 0.0, "longest_still_ns": 0 } ],   // had not ended
//!   "losses": [ { "stage": "kernel", "reason": "on-CPU ring full", "count": 1 } ],
//!   "stacks": [                    // heaviest first
//!     { "comm": "demo", "thread": "worker-1",   // names of the process and of the thread
//!       "pid": 7, "exe": "/usr/bin/demo", "cgroup": "/system.slice/demo.service",
//!       "container": "", "pod": "", "namespace": "", "unit": "demo.service",   // empty where none
//!       "activity": "on-cpu",      // or "blocked", "blocked: uninterruptible", "blocked: stopped",
//!                                  // "run-queue", "preempted"
//!       "frames": [                // root first
//!         { "name": "main", "kind": "user",   // or "user-inlined", "jit", "kernel", "kernel-inlined"
//!           "module": "/usr/bin/demo", "file": "src/main.c", "line": 3 } ],   // null where unknown
//!       "value": 40,
//!       "error": 6.3,              // standard error of the value
//!       "count": 40,               // records behind the value
//!       "blocks": [ 3, 4, ... ],   // 12 stretches of the recording, of equal length: how much
//!                                  // came in each (on-CPU records, off-CPU ns); left out where unknown
//!       "waker": {                 // who ended the waits; only where that was recorded
//!         "comm": "demo", "thread": "[interrupt]", "pid": 0, "frames": [] } } ]   // root first
//! }
//! ```
//!
//! Names are whole, without the folded line's endings; only characters that cannot be seen are
//! replaced by U+FFFD.

use std::borrow::Cow;
use std::cmp::Reverse;
use std::io::{self, BufWriter, Write};
use std::time::SystemTime;

use serde::{Serialize, Serializer};

use super::{About, WaitTimes, frequency_hz, name};
use crate::model::{Blocks, Entry, FrameKind, Profile};

#[derive(Serialize)]
struct Document<'a> {
    kind: &'static str,
    unit: &'static str,
    total: u64,
    total_error: f64,
    title: Cow<'a, str>,
    from: Option<String>,
    to: Option<String>,
    covered_seconds: f64,
    frequency_hz: f64,
    quality: Quality,
    losses: Vec<Loss>,
    waits: Vec<Waits<'a>>,
    stacks: Stacks<'a>,
}

#[derive(Serialize)]
struct Quality {
    records: u64,
    truncated: u64,
    stopped: u64,
    user_missing: u64,
    kernel_missing: u64,
    frames: u64,
    frames_unnamed: u64,
    user_stacks: u64,
    complete: u64,
    user_truncated: u64,
    stopped_reasons: Vec<Stop>,
    guessed: u64,
    frames_unnamed_despite_symbols: u64,
    clock_period_ns: u64,
    clock_period_min_ns: u64,
    one_thread_in: u64,
    off_cpu_ns: u64,
    borrowed_ns: u64,
    missing_ns: u64,
}

#[derive(Serialize)]
struct Waits<'a> {
    comm: Cow<'a, str>,
    pid: u32,
    activity: &'static str,
    count: f64,
    records: u64,
    p50_ns: u64,
    p90_ns: u64,
    p99_ns: u64,
    max_ns: u64,
    still: f64,
    longest_still_ns: u64,
}

#[derive(Serialize)]
struct Stop {
    reason: &'static str,
    count: u64,
}

#[derive(Serialize)]
struct Loss {
    stage: &'static str,
    reason: &'static str,
    count: u64,
}

/// Written row by row: a deep profile spelled out is many times its interned size.
struct Stacks<'a> {
    profile: &'a Profile,
    frames: Vec<Frame<'a>>,
}

#[derive(Serialize)]
struct Stack<'a> {
    comm: Cow<'a, str>,
    thread: Cow<'a, str>,
    pid: u32,
    exe: Cow<'a, str>,
    cgroup: Cow<'a, str>,
    container: Cow<'a, str>,
    pod: Cow<'a, str>,
    namespace: Cow<'a, str>,
    unit: Cow<'a, str>,
    activity: &'static str,
    frames: Vec<&'a Frame<'a>>,
    value: u64,
    error: f64,
    count: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    blocks: Option<Blocks>,
    #[serde(skip_serializing_if = "Option::is_none")]
    waker: Option<Waker<'a>>,
}

#[derive(Serialize)]
struct Waker<'a> {
    comm: Cow<'a, str>,
    thread: Cow<'a, str>,
    pid: u32,
    frames: Vec<&'a Frame<'a>>,
}

#[derive(Serialize)]
struct Frame<'a> {
    name: Cow<'a, str>,
    kind: &'static str,
    module: Option<Cow<'a, str>>,
    file: Option<Cow<'a, str>>,
    line: Option<u32>,
}

/// Writes the document and a final newline.
pub(super) fn write(profile: &Profile, about: &About, out: &mut dyn Write) -> io::Result<()> {
    let quality = &profile.quality;
    let document = Document {
        kind: profile.kind().name(),
        unit: profile.kind().unit(),
        total: profile.total_shown(),
        total_error: profile.total_error(),
        title: name::clean(&about.title),
        from: rfc3339(about.range.from),
        to: rfc3339(about.range.to),
        covered_seconds: about.covered.as_secs_f64(),
        frequency_hz: frequency_hz(profile),
        quality: Quality {
            records: quality.records,
            truncated: quality.truncated,
            stopped: quality.stopped_early(),
            user_missing: quality.user_missing,
            kernel_missing: quality.kernel_missing,
            frames: quality.frames,
            frames_unnamed: quality.frames_unnamed,
            user_stacks: quality.user_stacks,
            complete: quality.complete,
            user_truncated: quality.user_truncated,
            stopped_reasons: quality
                .stop_counts()
                .into_iter()
                .map(|(reason, count)| Stop { reason: reason.text(), count })
                .collect(),
            guessed: quality.guessed,
            frames_unnamed_despite_symbols: quality.frames_unnamed_despite_symbols,
            clock_period_ns: quality.clock_period_ns,
            clock_period_min_ns: quality.clock_period_min_ns,
            one_thread_in: 1 << quality.thread_share.min(31),
            off_cpu_ns: quality.off_cpu_ns,
            borrowed_ns: quality.borrowed_ns,
            missing_ns: quality.missing_ns,
        },
        losses: profile
            .loss
            .iter()
            .map(|line| Loss { stage: line.stage.name(), reason: line.reason, count: line.count })
            .collect(),
        waits: waits(profile),
        stacks: Stacks { profile, frames: profile.frames().map(|frame| Frame::of(frame)).collect() },
    };
    let mut out = BufWriter::new(out);
    serde_json::to_writer(&mut out, &document)?;
    out.write_all(b"\n")?;
    out.flush()
}

/// By process and reason, most recorded first.
fn waits(profile: &Profile) -> Vec<Waits<'_>> {
    let groups = profile.distributions().grouped(|labels, activity| {
        let labels = profile.labels_at(labels)?;
        Some((labels.process_name(), labels.pid.0, activity))
    });
    let mut rows: Vec<Waits<'_>> = groups
        .iter()
        .map(|(&(comm, pid, activity), waits)| {
            let times = WaitTimes::of(activity, waits);
            Waits {
                comm: name::clean(comm),
                pid,
                activity: times.what,
                count: times.count,
                records: times.records,
                p50_ns: times.p50_ns,
                p90_ns: times.p90_ns,
                p99_ns: times.p99_ns,
                max_ns: times.max_ns,
                still: times.still,
                longest_still_ns: times.longest_still_ns,
            }
        })
        .collect();
    rows.sort_by_key(|row| Reverse(row.records));
    rows
}

/// `None` outside of the years -9999 to 9999.
fn rfc3339(time: SystemTime) -> Option<String> {
    jiff::Timestamp::try_from(time).ok().map(|time| time.to_string())
}

impl Serialize for Stacks<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let blocks = self.profile.blocks();
        let entries = self.profile.entries().enumerate().filter(|(_, entry)| entry.shown > 0);
        let mut entries: Vec<(usize, Entry<'_>)> = entries.collect();
        entries.sort_by_key(|(_, entry)| Reverse(entry.shown));
        serializer.collect_seq(entries.iter().map(|(row, entry)| Stack {
            comm: name::clean(entry.labels.process_name()),
            thread: name::clean(&entry.labels.comm),
            pid: entry.labels.pid.0,
            exe: name::clean(&entry.labels.exe),
            cgroup: name::clean(&entry.labels.cgroup),
            container: name::clean(&entry.labels.container),
            pod: name::clean(&entry.labels.pod),
            namespace: name::clean(&entry.labels.namespace),
            unit: name::clean(&entry.labels.unit),
            activity: name::activity(entry.activity),
            frames: self.frames(entry.stack),
            value: entry.shown,
            error: entry.error,
            count: entry.value.count,
            blocks: blocks.as_ref().and_then(|blocks| blocks.get(*row).copied()),
            waker: entry.waker.map(|waker| Waker {
                comm: name::clean(waker.labels.process_name()),
                thread: name::clean(&waker.labels.comm),
                pid: waker.labels.pid.0,
                frames: self.frames(waker.stack),
            }),
        }))
    }
}

impl<'a> Stacks<'a> {
    fn frames(&self, stack: &[u32]) -> Vec<&Frame<'a>> {
        stack.iter().rev().map(|&frame| &self.frames[frame as usize]).collect()
    }
}

impl<'a> Frame<'a> {
    fn of(frame: &'a crate::model::Frame) -> Self {
        Self {
            name: name::clean(&frame.name),
            kind: match frame.kind {
                FrameKind::User => "user",
                FrameKind::UserInlined => "user-inlined",
                FrameKind::Jit => "jit",
                FrameKind::Kernel => "kernel",
                FrameKind::KernelInlined => "kernel-inlined",
            },
            module: frame.module.as_ref().map(|module| name::clean(&module.path)),
            file: frame.source.as_ref().map(|source| name::clean(&source.file)),
            line: frame.source.as_ref().map(|source| source.line).filter(|&line| line > 0),
        }
    }
}
