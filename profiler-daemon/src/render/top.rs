//! The heaviest frames, processes, containers or reasons of a profile.

use std::str::FromStr;

use indexmap::IndexMap;
use regex::Regex;
use rustc_hash::FxBuildHasher;

use super::wait_times::WaitTimes;
use super::{name, wait_times};
use crate::model::{Activity, Labels, Profile, ProfileKind};

/// One row's share, in the unit of the profile's kind.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct TopRow {
    /// The frame's text, as in a folded line; or the name of the group.
    pub frame: String,
    /// Value with the frame on top of the stack.
    pub self_value: u64,
    /// Value with the frame anywhere in the stack, counted once a stack; the same as
    /// `self_value` for groups.
    pub total_value: u64,
    /// Standard errors of both.
    pub self_error: f64,
    /// See above.
    pub total_error: f64,
    /// How long the waits of a group were, by what for; none for frames.
    pub waits: Vec<WaitTimes>,
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
#[derive(Clone, Debug, PartialEq)]
pub struct Top {
    /// Heaviest first.
    pub rows: Vec<TopRow>,
    /// Value of the stacks that `focus` and `ignore` left.
    pub shown: u64,
    /// How long all waits of the profile were, by what for.
    pub waits: Vec<WaitTimes>,
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
        let variance = entry.error * entry.error;
        if let Some(group) = group(options.by, entry.labels, entry.activity) {
            let weight = texts.entry(group).or_default();
            weight.own += entry.shown;
            weight.total += entry.shown;
            weight.own_variance += variance;
            weight.total_variance += variance;
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
                weight.own_variance += variance;
            }
            if weight.last_row != row {
                weight.last_row = row;
                weight.total += entry.shown;
                weight.total_variance += variance;
            }
        }
    }
    if focus.is_none() && ignore.is_none() {
        of_whole_threads(profile, options.by, &mut texts);
    }
    let mut waits = waits_of_groups(profile, options.by);
    let mut rows: Vec<TopRow> = texts
        .into_iter()
        .filter(|(_, weight)| weight.total > 0)
        .map(|(frame, weight)| TopRow {
            waits: waits.swap_remove(&frame).unwrap_or_default(),
            frame,
            self_value: weight.own,
            total_value: weight.total,
            self_error: weight.own_variance.sqrt(),
            total_error: weight.total_variance.sqrt(),
        })
        .collect();
    let key = |row: &TopRow| {
        if options.cumulative { (row.total_value, row.self_value) } else { (row.self_value, row.total_value) }
    };
    rows.sort_unstable_by(|a, b| key(b).cmp(&key(a)).then_with(|| a.frame.cmp(&b.frame)));
    rows.truncate(options.limit);
    Top { rows, shown, waits: wait_times(profile) }
}

/// The group that a row of the profile falls into; `None` for [`GroupBy::Frame`].
fn group(by: GroupBy, labels: &Labels, activity: Activity) -> Option<String> {
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
        GroupBy::Reason => name::activity(activity).to_owned(),
    })
}

/// Where a group has all time of its threads, it is surer than its rows are one by one.
fn of_whole_threads(profile: &Profile, by: GroupBy, texts: &mut IndexMap<String, Weight, FxBuildHasher>) {
    if by == GroupBy::Reason || profile.kind() != ProfileKind::OffCpu {
        return;
    }
    let mut whole: IndexMap<String, f64, FxBuildHasher> = IndexMap::default();
    for (labels, us2) in profile.distributions().variances() {
        let labels = profile.labels_at(labels);
        if let Some(group) = labels.and_then(|labels| group(by, labels, Activity::Preempted)) {
            *whole.entry(group).or_default() += us2 as f64;
        }
    }
    for (group, variance) in whole {
        if let Some(weight) = texts.get_mut(&group) {
            weight.own_variance = weight.own_variance.min(variance);
            weight.total_variance = weight.total_variance.min(variance);
        }
    }
}

/// How long waits were, by group and what for.
fn waits_of_groups(profile: &Profile, by: GroupBy) -> IndexMap<String, Vec<WaitTimes>, FxBuildHasher> {
    let mut groups: IndexMap<String, Vec<WaitTimes>, FxBuildHasher> = IndexMap::default();
    if by == GroupBy::Frame {
        return groups;
    }
    let waits = profile
        .distributions()
        .grouped(|labels, activity| Some((group(by, profile.labels_at(labels)?, activity)?, activity)));
    for ((group, activity), waits) in waits {
        groups.entry(group).or_default().push(WaitTimes::of(activity, &waits));
    }
    groups.values_mut().for_each(|waits| waits.sort_by(|a, b| a.what.cmp(b.what)));
    groups
}

#[derive(Default)]
struct Weight {
    own: u64,
    total: u64,
    own_variance: f64,
    total_variance: f64,
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
