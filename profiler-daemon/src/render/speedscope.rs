//! speedscope's file format: <https://www.speedscope.app/file-format-schema.json>.

use std::borrow::Cow;
use std::io::{self, BufWriter, Write};

use indexmap::IndexSet;
use rustc_hash::FxBuildHasher;
use serde::Serialize;

use super::{About, View, name};
use crate::model::{self, Profile, ProfileKind};

#[derive(Serialize)]
struct File<'a> {
    #[serde(rename = "$schema")]
    schema: &'static str,
    exporter: &'static str,
    name: &'a str,
    #[serde(rename = "activeProfileIndex")]
    active_profile_index: u32,
    shared: Shared<'a>,
    profiles: [Sampled<'a>; 1],
}

#[derive(Serialize)]
struct Shared<'a> {
    frames: Vec<Frame<'a>>,
}

#[derive(Serialize, PartialEq, Eq, Hash)]
struct Frame<'a> {
    name: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    file: Option<Cow<'a, str>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    line: Option<u32>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Sampled<'a> {
    #[serde(rename = "type")]
    type_: &'static str,
    name: &'a str,
    unit: &'static str,
    start_value: u64,
    end_value: u64,
    /// Indices into [`Shared::frames`], root first.
    samples: Vec<Vec<usize>>,
    weights: Vec<u64>,
}

/// Writes one profile with the texts and values of the folded lines, and source files beside.
pub(super) fn write(profile: &Profile, about: &About, view: View, out: &mut dyn Write) -> io::Result<()> {
    let mut frames: IndexSet<Frame<'_>, FxBuildHasher> = IndexSet::default();
    let mut intern = |frame| frames.insert_full(frame).0;
    let ids: Vec<usize> = profile.frames().map(|frame| intern(Frame::of(frame))).collect();
    let (mut samples, mut weights) = (Vec::new(), Vec::new());
    for entry in profile.entries().filter(|entry| entry.shown > 0) {
        let comm = intern(Frame::pseudo(name::comm(entry.labels)));
        let stack = entry.stack.iter().rev().map(|&frame| ids[frame as usize]);
        let marker = entry.activity.marker().map(|marker| intern(Frame::pseudo(marker.to_owned())));
        let mut sample: Vec<usize> = std::iter::once(comm).chain(stack).chain(marker).collect();
        if let Some(waker) = entry.waker.filter(|_| view == View::Wakers) {
            sample.push(intern(Frame::pseudo(name::WOKEN_BY.to_owned())));
            let stack = waker.stack.iter().map(|&frame| profile.frame(frame));
            sample.extend(
                stack.map(|frame| intern(Frame { name: name::waker_frame(frame), ..Frame::of(frame) })),
            );
            sample.push(intern(Frame::pseudo(name::waker(waker.labels))));
        }
        samples.push(sample);
        weights.push(entry.shown);
    }
    let title = name::clean(&about.title);
    let file = File {
        schema: "https://www.speedscope.app/file-format-schema.json",
        exporter: concat!("profiler ", env!("CARGO_PKG_VERSION")),
        name: &title,
        active_profile_index: 0,
        shared: Shared { frames: frames.into_iter().collect() },
        profiles: [Sampled {
            type_: "sampled",
            name: &title,
            unit: match profile.kind() {
                ProfileKind::OnCpu => "none",
                ProfileKind::OffCpu | ProfileKind::Wall => "microseconds",
            },
            start_value: 0,
            end_value: profile.total_shown(),
            samples,
            weights,
        }],
    };
    let mut out = BufWriter::new(out);
    serde_json::to_writer(&mut out, &file)?;
    out.flush()
}

impl<'a> Frame<'a> {
    fn of(frame: &'a model::Frame) -> Self {
        let source = frame.source.as_ref();
        Self {
            name: name::frame(frame),
            file: source.map(|source| name::clean(&source.file)),
            line: source.map(|source| source.line).filter(|&line| line > 0),
        }
    }

    fn pseudo(name: String) -> Self {
        Self { name, file: None, line: None }
    }
}
