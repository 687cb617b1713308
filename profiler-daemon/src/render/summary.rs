//! One line that says what a profile is worth: how much, of which time, and what is missing.

use std::fmt::Write;
use std::time::Duration;

use super::About;
use crate::model::{Profile, ProfileKind};

/// One line for people: total, rate, covered time, what was lost, shares of flawed stacks.
#[must_use]
pub fn summary_line(profile: &Profile, about: &About) -> String {
    let total = profile.total();
    let seconds = Duration::from_nanos(total.ns).as_secs_f64();
    let mut line = match profile.kind() {
        ProfileKind::OnCpu => format!("{} samples at {:.1} Hz", total.count, frequency_hz(profile)),
        ProfileKind::OffCpu => format!("{seconds:.3} s off CPU in {} records", total.count),
        ProfileKind::Wall => format!("{seconds:.3} s on and off CPU in {} records", total.count),
    };
    let (covered, asked) = (about.covered.as_secs_f64(), about.range.length().as_secs_f64());
    // Writing to a string cannot fail.
    let _ = write!(line, ", {covered:.1} s");
    if covered < 0.99 * asked {
        let _ = write!(line, " covered of {asked:.1} s");
    }
    let quality = &profile.quality;
    if quality.clock_period_ns > 0 {
        let _ = write!(line, ", a tick every {:?}", Duration::from_nanos(quality.clock_period_ns));
    }
    let truncated = percent(quality.truncated, quality.records);
    let unnamed = percent(quality.frames_unnamed, quality.frames);
    let _ = write!(
        line,
        "; lost: {}; truncated stacks: {truncated:.1} %; unnamed frames: {unnamed:.1} %",
        profile.loss
    );
    for (what, count) in [
        ("stopped early", quality.stopped_early()),
        ("without user stack", quality.user_missing),
        ("user stack of an earlier wait", quality.user_borrowed),
        ("without kernel stack", quality.kernel_missing),
    ] {
        if count > 0 {
            let _ = write!(line, "; {what}: {:.1} %", percent(count, quality.records));
        }
    }
    line
}

/// The sampling frequency that the profile's samples had on average, in hertz; 0 for off-CPU and
/// wall profiles, whose rows are lengths of time.
#[must_use]
pub fn frequency_hz(profile: &Profile) -> f64 {
    let total = profile.total();
    if profile.kind() == ProfileKind::OnCpu && total.ns > 0 {
        1e9 * total.count as f64 / total.ns as f64
    } else {
        0.0
    }
}

fn percent(part: u64, whole: u64) -> f64 {
    if whole == 0 { 0.0 } else { 100.0 * part as f64 / whole as f64 }
}
