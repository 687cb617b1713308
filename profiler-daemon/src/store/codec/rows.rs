//! The rows of one profile, as columns of small numbers.

use std::collections::HashSet;
use std::sync::{Mutex, PoisonError};

use rustc_hash::FxHashMap;

use super::{Damaged, Effort, Unwritable, distributions, format, pack, quality, unpack};
use crate::model::{
    Activity, Distributions, Loss, ProfileKind, QualityByLabels, StackQuality, Stage, Value, Wait, WakerIds,
};

/// Most that the records or nanoseconds of one value of rows can sum up to, so that sums of values
/// cannot overflow. 320 000 threads make so many nanoseconds in an hour.
pub(super) const MAX_TOTAL: u64 = 1 << 60;
/// Most that one line of a loss can be, for the same reason.
const MAX_LOSS: u64 = 1 << 48;

/// Who, where, doing what: ids of a dictionary.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(in crate::store) struct Row {
    pub(in crate::store) labels: u32,
    pub(in crate::store) stack: u32,
    pub(in crate::store) activity: Activity,
    /// Who ended the wait.
    pub(in crate::store) waker: Option<WakerIds>,
}

/// The rows of one profile whose labels and stacks are ids of one dictionary.
#[derive(Clone, Debug)]
pub(in crate::store) struct Table {
    pub(in crate::store) kind: ProfileKind,
    pub(in crate::store) rows: FxHashMap<Row, Value>,
    /// The rows of a profile that was taken in, in its order.
    pub(in crate::store) order: Vec<Row>,
    pub(in crate::store) distributions: Distributions,
    pub(in crate::store) quality: StackQuality,
    pub(in crate::store) quality_by_labels: QualityByLabels,
    pub(in crate::store) loss: Loss,
}

/// What a value of rows says beside them.
#[derive(Clone, Debug, Default)]
pub(in crate::store) struct Beside {
    pub(in crate::store) distributions: Distributions,
    pub(in crate::store) quality: StackQuality,
    pub(in crate::store) quality_by_labels: QualityByLabels,
    pub(in crate::store) loss: Loss,
}

impl Table {
    pub(in crate::store) fn new(kind: ProfileKind) -> Self {
        let Beside { distributions, quality, quality_by_labels, loss } = Beside::default();
        let (rows, order) = (FxHashMap::default(), Vec::new());
        Self { kind, rows, order, distributions, quality, quality_by_labels, loss }
    }

    pub(in crate::store) fn add(&mut self, row: Row, value: Value) {
        let sum = self.rows.entry(row).or_default();
        // What comes from a file may be anything.
        sum.count = sum.count.saturating_add(value.count);
        sum.ns = sum.ns.saturating_add(value.ns);
        sum.variance_us2 = sum.variance_us2.saturating_add(value.variance_us2);
    }

    /// The table as a value.
    pub(in crate::store) fn write(&self, segment: u64, effort: Effort) -> Result<Vec<u8>, Unwritable> {
        pack(&self.message(segment, &self.sorted()), effort)
    }

    /// All rows in the order in which they are stored.
    pub(super) fn sorted(&self) -> Vec<(&Row, &Value)> {
        let mut rows: Vec<(&Row, &Value)> = self.rows.iter().collect();
        rows.sort_unstable_by_key(|(row, _)| **row);
        rows
    }

    /// Some of [`Self::sorted`] as a message, with what is known of all of them.
    pub(super) fn message(&self, segment: u64, rows: &[(&Row, &Value)]) -> format::Rows {
        let unit_ns = rows.first().map_or(0, |(_, value)| value.ns / value.count.max(1));
        let (quality_labels, quality_counts) = quality::write_by_labels(&self.quality_by_labels);
        let mut message = format::Rows {
            kind: kind_number(self.kind),
            segment,
            unit_ns,
            quality: Some(quality::write(&self.quality)),
            loss: write_loss(&self.loss),
            quality_labels,
            quality_counts,
            distributions: Some(distributions::write(&self.distributions)),
            ..format::Rows::default()
        };
        let woken = rows.iter().any(|(row, _)| row.waker.is_some());
        let sampled = rows.iter().any(|(_, value)| value.variance_us2 > 0);
        let (mut labels, mut stack) = (0_u32, 0_u32);
        for (row, value) in rows {
            if woken {
                message.waker_labels.push(row.waker.map_or(0, |waker| waker.labels + 1));
                message.waker_stack.push(row.waker.map_or(0, |waker| waker.stack + 1));
            }
            if sampled {
                message.variance_us2.push(distributions::rounded(value.variance_us2));
            }
            message.labels.push(row.labels.wrapping_sub(labels) as i32);
            message.stack.push(row.stack.wrapping_sub(stack) as i32);
            message.activity.push(activity_number(row.activity));
            message.count.push(value.count);
            message.rest_ns.push(value.ns.wrapping_sub(value.count.wrapping_mul(unit_ns)) as i64);
            (labels, stack) = (row.labels, row.stack);
        }
        message
    }
}

/// Reads a value of rows, hands each row to `each`, and returns what is known of all of them.
/// Whether ids exist in the dictionary is for `each` to find out.
pub(in crate::store) fn read_rows(
    bytes: &[u8],
    kind: ProfileKind,
    segment: u64,
    each: impl FnMut(Row, Value) -> Result<(), Damaged>,
) -> Result<Beside, Damaged> {
    let message: format::Rows = unpack(bytes)?;
    if kind_of(message.kind)? != kind || message.segment != segment {
        return Err(Damaged::new("rows are not those of this window"));
    }
    read_message(message, each)
}

pub(super) fn read_message(
    message: format::Rows,
    mut each: impl FnMut(Row, Value) -> Result<(), Damaged>,
) -> Result<Beside, Damaged> {
    let length = message.labels.len();
    let others = [message.stack.len(), message.activity.len(), message.count.len(), message.rest_ns.len()];
    let wakers = [message.waker_labels.len(), message.waker_stack.len()];
    let wakers_fit = wakers == [0; 2] || wakers == [length; 2];
    // Only where something was sampled.
    let variances = message.variance_us2.len();
    let variances_fit = variances == 0 || variances == length;
    if others.iter().any(|&other| other != length) || !wakers_fit || !variances_fit {
        return Err(Damaged::new("columns of rows differ in length"));
    }
    let (mut labels, mut stack) = (0_u32, 0_u32);
    let mut total = Value::default();
    let columns = message.labels.iter().zip(&message.stack).zip(&message.activity);
    let values = message.count.iter().zip(&message.rest_ns);
    for (at, (((&labels_step, &stack_step), &activity), (&count, &rest_ns))) in
        columns.zip(values).enumerate()
    {
        let variance_us2 = message.variance_us2.get(at).copied().unwrap_or_default();
        labels = labels.wrapping_add(labels_step as u32);
        stack = stack.wrapping_add(stack_step as u32);
        let activity = activity_of(activity)?;
        let ns = count.wrapping_mul(message.unit_ns).wrapping_add(rest_ns as u64);
        total.count = total.count.saturating_add(count);
        total.ns = total.ns.saturating_add(ns);
        if total.count > MAX_TOTAL || total.ns > MAX_TOTAL {
            return Err(Damaged::new("values are too large"));
        }
        let waker = waker_of(message.waker_labels.get(at), message.waker_stack.get(at))?;
        each(Row { labels, stack, activity, waker }, Value { count, ns, variance_us2 })?;
    }
    Ok(Beside {
        distributions: distributions::read(message.distributions)?,
        quality: quality::read(message.quality)?,
        quality_by_labels: quality::read_by_labels(&message.quality_labels, &message.quality_counts)?,
        loss: read_loss(&message.loss)?,
    })
}

/// Ids plus 1; 0, or no column at all, is nobody.
fn waker_of(labels: Option<&u32>, stack: Option<&u32>) -> Result<Option<WakerIds>, Damaged> {
    match (labels.copied().unwrap_or(0), stack.copied().unwrap_or(0)) {
        (0, 0) => Ok(None),
        (0, _) | (_, 0) => Err(Damaged::new("a waker has no labels or no stack")),
        (labels, stack) => Ok(Some(WakerIds { labels: labels - 1, stack: stack - 1 })),
    }
}

/// Refuses values whose sum is more than threads can spend.
pub(super) fn check_total<'a>(values: impl Iterator<Item = &'a Value>) -> Result<(), Damaged> {
    let mut total = Value::default();
    for value in values {
        total.count = total.count.saturating_add(value.count);
        total.ns = total.ns.saturating_add(value.ns);
    }
    if total.count > MAX_TOTAL || total.ns > MAX_TOTAL {
        return Err(Damaged::new("values are too large"));
    }
    Ok(())
}

pub(super) fn kind_number(kind: ProfileKind) -> u32 {
    match kind {
        ProfileKind::OnCpu => 1,
        ProfileKind::OffCpu => 2,
        ProfileKind::Wall => 3,
    }
}

pub(super) fn kind_of(number: u32) -> Result<ProfileKind, Damaged> {
    match number {
        1 => Ok(ProfileKind::OnCpu),
        2 => Ok(ProfileKind::OffCpu),
        3 => Ok(ProfileKind::Wall),
        _ => Err(Damaged::new(format!("{number} is not a kind of profile"))),
    }
}

pub(super) fn activity_number(activity: Activity) -> u32 {
    match activity {
        Activity::OnCpu => 0,
        Activity::RunQueue => 1,
        Activity::Preempted => 2,
        Activity::Blocked(wait) => {
            let place = Wait::ALL.iter().position(|known| *known == wait);
            3 + place.unwrap_or_default() as u32
        }
    }
}

pub(super) fn activity_of(number: u32) -> Result<Activity, Damaged> {
    Ok(match number {
        0 => Activity::OnCpu,
        1 => Activity::RunQueue,
        2 => Activity::Preempted,
        blocked => {
            let wait = Wait::ALL.get(blocked as usize - 3);
            Activity::Blocked(*wait.ok_or_else(|| Damaged::new(format!("{number} is not an activity")))?)
        }
    })
}

pub(super) fn write_loss(loss: &Loss) -> Vec<format::Loss> {
    let lines = loss.iter().map(|line| format::Loss {
        stage: match line.stage {
            Stage::Kernel => 0,
            Stage::Decode => 1,
            Stage::Pipeline => 2,
            Stage::Symbolize => 3,
            Stage::Store => 4,
        },
        reason: line.reason.to_owned(),
        count: line.count,
    });
    lines.collect()
}

pub(super) fn read_loss(lines: &[format::Loss]) -> Result<Loss, Damaged> {
    let mut loss = Loss::default();
    for line in lines {
        let stage = match line.stage {
            0 => Stage::Kernel,
            1 => Stage::Decode,
            2 => Stage::Pipeline,
            3 => Stage::Symbolize,
            4 => Stage::Store,
            other => return Err(Damaged::new(format!("{other} is not a stage"))),
        };
        loss.add(stage, reason(&line.reason), line.count.min(MAX_LOSS));
    }
    Ok(loss)
}

/// A reason as the fixed text that losses hold. Texts are kept for the life of the program, a
/// bounded number of them: those of this program's own versions are a few dozen.
fn reason(text: &str) -> &'static str {
    const MAX_REASONS: usize = 256;
    const MAX_LENGTH: usize = 120;
    static REASONS: Mutex<Option<HashSet<&'static str>>> = Mutex::new(None);
    let mut reasons = REASONS.lock().unwrap_or_else(PoisonError::into_inner);
    let reasons = reasons.get_or_insert_default();
    match reasons.get(text) {
        Some(known) => known,
        None if reasons.len() < MAX_REASONS && text.len() <= MAX_LENGTH => {
            let kept: &'static str = Box::leak(text.to_owned().into_boxed_str());
            reasons.insert(kept);
            kept
        }
        None => "another reason",
    }
}
