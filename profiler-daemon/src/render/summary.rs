//! One line that says what a profile is worth: how much, of which time, and what is missing.

use std::fmt::Write;
use std::time::Duration;

use super::{About, Certainty, StackShares};
use crate::model::{Profile, ProfileKind};

/// One line for people: total, rate, covered time, what was lost, how stacks ended and why.
#[must_use]
pub fn summary_line(profile: &Profile, about: &About) -> String {
    let stacks = StackShares::from(&profile.quality).long();
    let certainty = Certainty::from(profile);
    let details = [certainty.sampled(), certainty.user_stacks(), stacks];
    let details: Vec<String> = details.into_iter().filter(|text| !text.is_empty()).collect();
    format!("{}; lost: {}; {}", amount(profile, about), profile.loss, details.join("; "))
}

/// The same without reasons, for where room is scarce.
pub(super) fn short_line(profile: &Profile, about: &About) -> String {
    let stacks = StackShares::from(&profile.quality).short();
    let lost = match profile.loss.total() {
        0 => "nothing".to_owned(),
        count => count.to_string(),
    };
    format!("{}; lost: {lost}; {stacks}", amount(profile, about))
}

/// How much, and of which time.
fn amount(profile: &Profile, about: &About) -> String {
    let total = profile.total();
    let seconds = Duration::from_nanos(total.ns).as_secs_f64();
    let error = match Certainty::from(profile).error() {
        error if error.is_empty() => error,
        error => format!(" {error}"),
    };
    let mut line = match profile.kind() {
        ProfileKind::OnCpu => {
            format!("{} samples{error} at {:.1} Hz", total.count, frequency_hz(profile))
        }
        ProfileKind::OffCpu => format!("{seconds:.3} s{error} off CPU in {} records", total.count),
        ProfileKind::Wall => format!("{seconds:.3} s{error} on and off CPU in {} records", total.count),
    };
    let (covered, asked) = (about.covered.as_secs_f64(), about.range.length().as_secs_f64());
    // Writing to a string cannot fail.
    let _ = write!(line, ", {covered:.1} s");
    if covered < 0.99 * asked {
        let _ = write!(line, " covered of {asked:.1} s");
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
