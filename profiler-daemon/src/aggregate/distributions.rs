//! Lengths of waits, from intervals that were taken with a known probability.

use super::reported::Reported;
use crate::model::{
    Activity, Clock, Distribution, Measure, NO_ROOM, PARTS, Profile, Sample, Stage, StillOpen,
};

/// How many intervals, in [`PARTS`], one of this length stands for: the clock ticks in it with the
/// probability `length / period`, but at most 1.
fn stands_for(length_ns: u64, clock: Option<Clock>) -> u64 {
    let Some(clock) = clock else { return PARTS };
    let periods = if length_ns == 0 { 1.0 } else { clock.period_ns as f64 / length_ns as f64 };
    (periods.max(1.0) * PARTS as f64).round() as u64 * clock.stands_for()
}

/// Adds the parts of an interval that has ended to the distributions of its thread's labels.
pub(super) fn add_ended(profile: &mut Profile, sample: &Sample) {
    let Measure::OffCpu { blocked_ns, run_queue_ns, preempted_ns, wait, open: false, sampled, .. } =
        sample.measure
    else {
        return;
    };
    let whole_ns = blocked_ns.saturating_add(run_queue_ns).saturating_add(preempted_ns);
    let parts = stands_for(whole_ns, sampled.by_clock);
    for (activity, ns) in [
        (Activity::Blocked(wait), blocked_ns),
        (Activity::RunQueue, run_queue_ns),
        (Activity::Preempted, preempted_ns),
    ] {
        if ns > 0 {
            with(profile, sample, activity, |waits| waits.ended.add(ns, parts));
        }
    }
}

/// Adds an interval that has not ended, as of an instant in ns since 1970.
pub(super) fn add_open(profile: &mut Profile, sample: &Sample, at_ns: u64) {
    let Measure::OffCpu { blocked_ns, run_queue_ns, preempted_ns, wait, sampled, .. } = sample.measure else {
        return;
    };
    let whole_ns = blocked_ns.saturating_add(run_queue_ns).saturating_add(preempted_ns);
    // What it is now: it was blocked before it was woken.
    let activity = match (run_queue_ns, preempted_ns) {
        (0, 0) => Activity::Blocked(wait),
        (0, _) => Activity::Preempted,
        _ => Activity::RunQueue,
    };
    let parts = stands_for(whole_ns, sampled.by_clock);
    profile.distributions_mut().swept(at_ns);
    with(profile, sample, activity, |waits| {
        let longest_ns = waits.open.longest_ns.max(whole_ns);
        waits.open = StillOpen { at_ns, parts: waits.open.parts.saturating_add(parts), longest_ns };
    });
}

/// Adds all that was open at the end of a window.
pub(super) fn add_all_open(profile: &mut Profile, reported: &Reported, at_ns: u64) {
    profile.distributions_mut().swept(at_ns);
    for sample in reported.still_open() {
        add_open(profile, sample, at_ns);
    }
}

fn with(profile: &mut Profile, sample: &Sample, activity: Activity, add: impl FnOnce(&mut Distribution)) {
    let labels = profile.labels_id(&sample.labels);
    match profile.distributions_mut().entry(labels, activity) {
        Some(waits) => add(waits),
        None => profile.loss.add(Stage::Pipeline, NO_ROOM, 1),
    }
}

#[cfg(test)]
mod tests;
