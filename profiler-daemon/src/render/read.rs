//! Reads back what [`super::Format::Json`] writes.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use rustc_hash::FxHashMap;
use serde::Deserialize;

use super::About;
use crate::model::{
    Activity, Blocks, Frame, FrameKind, Labels, Pid, Profile, ProfileKind, Span, TimeRange, Value, Wait,
};

/// The text is no profile of ours.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// Not the document.
    #[error("not a profile in JSON: {0}")]
    Json(#[from] serde_json::Error),
    /// A word that we do not write.
    #[error("not a profile in JSON: {field} is {text:?}")]
    Word {
        /// Which field.
        field: &'static str,
        /// What it says.
        text: String,
    },
}

/// The fields that make a profile; more may be there.
#[derive(Deserialize)]
struct Document {
    kind: String,
    title: String,
    from: Option<String>,
    to: Option<String>,
    covered_seconds: f64,
    frequency_hz: f64,
    stacks: Vec<Stack>,
}

#[derive(Deserialize)]
struct Stack {
    comm: String,
    #[serde(default)]
    thread: String,
    pid: u32,
    #[serde(default)]
    exe: String,
    activity: String,
    frames: Vec<JsonFrame>,
    value: u64,
    count: u64,
    blocks: Option<Blocks>,
}

#[derive(Deserialize, PartialEq, Eq, Hash)]
struct JsonFrame {
    name: String,
    kind: String,
}

/// Stacks, labels and values of a document, and what it is about.
///
/// # Errors
/// The text is something else.
pub(super) fn profile(text: &str) -> Result<(Profile, About), ReadError> {
    let document: Document = serde_json::from_str(text)?;
    let kind = match document.kind.as_str() {
        "wall" => ProfileKind::Wall,
        text => text.parse().map_err(|_| word("kind", text))?,
    };
    let mut frames: FxHashMap<JsonFrame, Arc<Frame>> = FxHashMap::default();
    // Each block is told of as a millisecond.
    let mut profile = Profile::with_times(kind, SystemTime::UNIX_EPOCH);
    for stack in document.stacks {
        let mut leaf_first = Vec::with_capacity(stack.frames.len());
        for frame in stack.frames.into_iter().rev() {
            let known = match frames.get(&frame) {
                Some(known) => Arc::clone(known),
                None => {
                    let made = Arc::new(made(&frame)?);
                    frames.insert(frame, Arc::clone(&made));
                    made
                }
            };
            leaf_first.push(known);
        }
        let labels = Labels {
            pid: Pid(stack.pid),
            comm: if stack.thread.is_empty() { stack.comm.as_str() } else { stack.thread.as_str() }.into(),
            process: stack.comm.as_str().into(),
            exe: stack.exe.into(),
            ..Labels::default()
        };
        let ns = if kind == ProfileKind::OnCpu {
            // Each sample stands for a period.
            (stack.count as f64 * 1e9 / document.frequency_hz.max(1e-3)) as u64
        } else {
            stack.value.saturating_mul(1000)
        };
        let value = Value::exact(stack.count, ns);
        let row = profile.add_row(&Arc::new(labels), activity(&stack.activity)?, &leaf_first, value);
        for (block, amount) in (0..).zip(stack.blocks.unwrap_or_default()).filter(|(_, amount)| *amount > 0) {
            profile.add_span(row, Span { start_ms: block, length_ms: 1, amount });
        }
    }
    let covered = Duration::try_from_secs_f64(document.covered_seconds).unwrap_or_default();
    let range = TimeRange { from: time(document.from.as_deref()), to: time(document.to.as_deref()) };
    Ok((profile, About { title: document.title, range, covered, command: None }))
}

fn made(frame: &JsonFrame) -> Result<Frame, ReadError> {
    let kind = match frame.kind.as_str() {
        "user" => FrameKind::User,
        "user-inlined" => FrameKind::UserInlined,
        "jit" => FrameKind::Jit,
        "kernel" => FrameKind::Kernel,
        "kernel-inlined" => FrameKind::KernelInlined,
        text => return Err(word("frames.kind", text)),
    };
    let named = !frame.name.starts_with('[');
    Ok(Frame { name: frame.name.as_str().into(), kind, module: None, address: 0, source: None, named })
}

fn activity(text: &str) -> Result<Activity, ReadError> {
    Ok(match text {
        "on-cpu" => Activity::OnCpu,
        "run-queue" => Activity::RunQueue,
        "preempted" => Activity::Preempted,
        "blocked" => Activity::Blocked(Wait::Other),
        text => {
            let wait = text.strip_prefix("blocked: ").and_then(Wait::from_name);
            Activity::Blocked(wait.ok_or_else(|| word("activity", text))?)
        }
    })
}

fn time(text: Option<&str>) -> SystemTime {
    text.and_then(|text| text.parse::<jiff::Timestamp>().ok())
        .map_or(SystemTime::UNIX_EPOCH, SystemTime::from)
}

fn word(field: &'static str, text: &str) -> ReadError {
    ReadError::Word { field, text: text.to_owned() }
}
