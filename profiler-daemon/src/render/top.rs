//! The heaviest frames, processes, containers or reasons of a profile.

use std::str::FromStr;

use indexmap::IndexMap;
use regex::Regex;
use rustc_hash::FxBuildHasher;

use super::name;
use crate::model::{Entry, Labels, Profile};

/// One row's share, in the unit of the profile's kind.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TopRow {
    /// The frame's text, as in a folded line; or the name of the group.
    pub frame: String,
    /// Value with the frame on top of the stack.
    pub self_value: u64,
    /// Value with the frame anywhere in the stack, counted once a stack; the same as
    /// `self_value` for groups.
    pub total_value: u64,
}

/// What a row is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum GroupBy {
    /// A function.
    #[default]
    Frame,
    /// A process.
    Process,
    /// The threads of one name of a process.
    Thread,
    /// A container.
    Container,
    /// A pod.
    Pod,
    /// A unit of systemd's.
    Unit,
    /// What threads did with their time: on-cpu, blocked, run-queue, preempted.
    Reason,
}

/// What is wanted of a table.
#[derive(Clone, Debug)]
pub struct TopOptions {
    /// What a row is.
    pub by: GroupBy,
    /// Only stacks with a frame that matches.
    pub focus: Option<Regex>,
    /// No stacks with a frame that matches.
    pub ignore: Option<Regex>,
    /// Sort by total.
    pub cumulative: bool,
    /// Most rows.
    pub limit: usize,
}

/// A table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Top {
    /// Heaviest first.
    pub rows: Vec<TopRow>,
    /// Value of the stacks that `focus` and `ignore` left.
    pub shown: u64,
}

/// The `limit` heaviest frames by their own value, then by total. Records without a stack are
/// one row, so that the own values of all rows add up to the profile's total.
#[must_use]
pub fn top(profile: &Profile, limit: usize) -> Vec<TopRow> {
    let by = GroupBy::Frame;
    top_by(profile, &TopOptions { by, focus: None, ignore: None, cumulative: false, limit }).rows
}

/// The heaviest rows of any kind.
#[must_use]
pub fn top_by(profile: &Profile, options: &TopOptions) -> Top {
    let mut texts: IndexMap<String, Weight, FxBuildHasher> = IndexMap::default();
    let names = profile.frames().map(|frame| name::frame(frame)).chain([name::NO_STACK.to_owned()]);
    let names: Vec<String> = names.collect();
    let matching = |regex: &Option<Regex>| {
        regex.as_ref().map(|regex| names.iter().map(|name| regex.is_match(name)).collect::<Vec<bool>>())
    };
    let (focus, ignore) = (matching(&options.focus), matching(&options.ignore));
    let any = |matching: &[bool], stack: &[u32]| stack.iter().any(|&frame| matching[frame as usize]);
    let no_stack = [profile.frames().len() as u32];
    let mut shown = 0;
    for (row, entry) in (1..).zip(profile.entries()) {
        let stack = if entry.stack.is_empty() { &no_stack } else { entry.stack };
        let wanted = focus.as_ref().is_none_or(|focus| any(focus, stack));
        if !wanted || ignore.as_ref().is_some_and(|ignore| any(ignore, stack)) {
            continue;
        }
        shown += entry.shown;
        if let Some(group) = group(options.by, &entry) {
            let weight = texts.entry(group).or_default();
            weight.own += entry.shown;
            weight.total += entry.shown;
            continue;
        }
        for (depth, &frame) in stack.iter().enumerate() {
            let name = &names[frame as usize];
            let weight = match texts.get_mut(name) {
                Some(weight) => weight,
                None => texts.entry(name.clone()).or_default(),
            };
            if depth == 0 {
                weight.own += entry.shown;
            }
            if weight.last_row != row {
                weight.last_row = row;
                weight.total += entry.shown;
            }
        }
    }
    let mut rows: Vec<TopRow> = texts
        .into_iter()
        .filter(|(_, weight)| weight.total > 0)
        .map(|(frame, weight)| TopRow { frame, self_value: weight.own, total_value: weight.total })
        .collect();
    let key = |row: &TopRow| {
        if options.cumulative { (row.total_value, row.self_value) } else { (row.self_value, row.total_value) }
    };
    rows.sort_unstable_by(|a, b| key(b).cmp(&key(a)).then_with(|| a.frame.cmp(&b.frame)));
    rows.truncate(options.limit);
    Top { rows, shown }
}

/// The group that a row of the profile falls into; `None` for [`GroupBy::Frame`].
fn group(by: GroupBy, entry: &Entry<'_>) -> Option<String> {
    let labels: &Labels = entry.labels;
    let or = |text: &str, none: &str| {
        if text.is_empty() { none.to_owned() } else { name::clean(text).into_owned() }
    };
    let process = || format!("{}[{}]", or(labels.process_name(), "pid "), labels.pid);
    let path = |parts: &[&str]| {
        let parts: Vec<&str> = parts.iter().copied().filter(|part| !part.is_empty()).collect();
        parts.join("/")
    };
    Some(match by {
        GroupBy::Frame => return None,
        GroupBy::Process => process(),
        GroupBy::Thread => format!("{} in {}", or(&labels.comm, "thread"), process()),
        GroupBy::Container if labels.container.is_empty() => "[no container]".to_owned(),
        GroupBy::Container => or(&path(&[&labels.namespace, &labels.pod, &labels.container]), ""),
        GroupBy::Pod if labels.pod.is_empty() => "[no pod]".to_owned(),
        GroupBy::Pod => or(&path(&[&labels.namespace, &labels.pod]), ""),
        GroupBy::Unit => or(&labels.unit, "[no unit]"),
        GroupBy::Reason => name::activity(entry.activity).to_owned(),
    })
}

#[derive(Default)]
struct Weight {
    own: u64,
    total: u64,
    /// The row that was counted last, from 1: a recursive frame counts once a row.
    last_row: usize,
}

impl FromStr for GroupBy {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        Ok(match text {
            "frame" => Self::Frame,
            "process" => Self::Process,
            "thread" => Self::Thread,
            "container" => Self::Container,
            "pod" => Self::Pod,
            "unit" => Self::Unit,
            "reason" => Self::Reason,
            _ => return Err("use frame, process, thread, container, pod, unit or reason".to_owned()),
        })
    }
}
