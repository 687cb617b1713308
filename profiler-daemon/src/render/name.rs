//! The text of a name: what processes and their files call things, made safe to show.
//!
//! Names are hostile: any process chooses its `comm` and its symbols. Two levels of care:
//!
//! - [`clean`], for every format: characters that no reader would see, or that would steer a
//!   terminal, become U+FFFD.
//! - [`frame`] and [`comm`], for the folded line and what is made from it: in addition nothing in
//!   a name can be read as part of the line's own syntax.

use std::borrow::Cow;

use crate::model::{Activity, Frame, FrameKind, Labels, Wait};

/// Longest text of a name, in bytes. A deep stack repeats its names in each of its lines, so one
/// huge symbol would multiply.
const MAX_BYTES: usize = 4096;

/// What stands for the stack of a record that has none, in formats that cannot say so otherwise.
pub(super) const NO_STACK: &str = "[no stack]";

/// The text of a frame in a folded line: kernel frames end in `_[k]`, inlined ones in `_[i]`, JIT
/// ones in `_[j]`.
pub(super) fn frame(frame: &Frame) -> String {
    let mut text = word(&frame.name);
    if text.is_empty() {
        text.push_str("[unnamed]");
    }
    text.push_str(match frame.kind {
        FrameKind::User => "",
        FrameKind::UserInlined => "_[i]",
        FrameKind::Jit => "_[j]",
        FrameKind::Kernel | FrameKind::KernelInlined => "_[k]",
    });
    text
}

/// What stands between a blocked stack and that of who ended the wait.
pub(super) const WOKEN_BY: &str = "[woken by]";

/// The text of a waker's frame in a folded line: it ends in `_[w]`, which flame graph tools know.
pub(super) fn waker_frame(frame: &Frame) -> String {
    let mut text = word(&frame.name);
    if text.is_empty() {
        text.push_str("[unnamed]");
    }
    text + "_[w]"
}

/// The text of a waker's name, on top of its stack.
pub(super) fn waker(labels: &Labels) -> String {
    // What is no thread has no pid, and a name that no thread's can be taken for.
    if labels.pid.0 == 0 { labels.comm.to_string() } else { comm(labels) + "_[w]" }
}

/// The text of a thread's name in a folded line; `[pid N]` where it has none.
pub(super) fn comm(labels: &Labels) -> String {
    let mut text = word(&labels.comm);
    if text.is_empty() {
        return format!("[pid {}]", labels.pid);
    }
    if text.starts_with('#') {
        // It begins the line, and readers skip lines that begin with `#`.
        text.replace_range(..1, "_");
    }
    text
}

/// The name of an activity as a label.
pub(super) fn activity(activity: Activity) -> &'static str {
    activity.marker().map_or("on-cpu", |marker| marker.trim_matches(['[', ']']))
}

/// Whether a text is the pseudo frame of an activity.
pub(super) fn is_marker(text: &str) -> bool {
    let blocked = Wait::ALL.map(Activity::Blocked);
    let others = [Activity::RunQueue, Activity::Preempted];
    let others = others.into_iter();
    text == WOKEN_BY || blocked.into_iter().chain(others).any(|activity| activity.marker() == Some(text))
}

/// Replaces characters that are not visible by U+FFFD, and cuts what is absurdly long.
pub(super) fn clean(text: &str) -> Cow<'_, str> {
    let text = match text.get(..text.floor_char_boundary(MAX_BYTES)) {
        Some(head) if head.len() < text.len() => Cow::Owned(format!("{head}...")),
        _ => Cow::Borrowed(text),
    };
    if text.contains(is_unseen) { Cow::Owned(text.replace(is_unseen, "\u{fffd}")) } else { text }
}

/// A name that has none of the folded line's own syntax:
///
/// - `;` separates frames: it becomes `:`.
/// - Readers trim lines: spaces at either end become `_`.
/// - The value follows the last space, and some readers accept two values: where a name ends in a
///   space and a number, the space becomes `_`.
/// - `_[x]` at the end says what kind of frame it is: it becomes `_(x)`.
fn word(name: &str) -> String {
    let mut text: String = clean(name)
        .chars()
        .map(|c| match c {
            ';' => ':',
            c if c.is_whitespace() => ' ',
            c => c,
        })
        .collect();
    let end = text.trim_end_matches(' ').len();
    let start = text.len() - text.trim_start_matches(' ').len();
    if end < start {
        return "_".repeat(text.len());
    }
    if start > 0 || end < text.len() {
        text.replace_range(end.., &"_".repeat(text.len() - end));
        text.replace_range(..start, &"_".repeat(start));
    }
    if let Some((head, last)) = text.rsplit_once(' ')
        && last.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.')
    {
        text = format!("{head}_{last}");
    }
    if let Some((head, last)) = text.rsplit_once("_[")
        && let Some(kind) = last.strip_suffix(']')
        && kind.chars().count() == 1
    {
        text = format!("{head}_({kind})");
    }
    text
}

/// Characters without a shape of their own: controls, line and paragraph separators, marks and
/// overrides of the writing direction, zero-width ones, and what XML 1.0 has no room for.
fn is_unseen(c: char) -> bool {
    c.is_control()
        || matches!(c,
            '\u{ad}' | '\u{61c}' | '\u{180e}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}'
            | '\u{2060}'..='\u{206f}' | '\u{feff}' | '\u{fff9}'..='\u{fffb}' | '\u{fffe}'..='\u{ffff}'
            | '\u{e0000}'..='\u{e007f}')
}

#[cfg(test)]
mod tests;
