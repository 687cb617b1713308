//! What is known of the stacks of a profile, as messages: of all of them, and by labels.

use super::{Damaged, format, rows};
use crate::model::{QualityByLabels, StackQuality, StopReason};

const REASONS: usize = StopReason::ALL.len();

/// What depends on which counts a [`StackQuality`] has beside those by reason. All of them are taken
/// apart by name: a new one must not be forgotten here.
macro_rules! of_counts {
    ($($count:ident),+ $(,)?) => {
        const PLAIN: usize = [$(stringify!($count)),+].len();

        pub(super) fn write(quality: &StackQuality) -> format::Quality {
            let StackQuality { $($count,)+ stopped } = *quality;
            format::Quality { $($count,)+ stopped: stopped.to_vec() }
        }

        pub(super) fn read(message: Option<format::Quality>) -> Result<StackQuality, Damaged> {
            let format::Quality { $($count,)+ stopped } = message.unwrap_or_default();
            quality([$($count),+], &stopped)
        }

        fn counts(quality: &StackQuality) -> ([u64; PLAIN], [u64; REASONS]) {
            let StackQuality { $($count,)+ stopped } = *quality;
            ([$($count),+], stopped)
        }

        fn quality(plain: [u64; PLAIN], by_reason: &[u64]) -> Result<StackQuality, Damaged> {
            if plain.iter().chain(by_reason).any(|&count| count > rows::MAX_TOTAL) {
                return Err(Damaged::new("counts of stacks are too large"));
            }
            let mut stopped = [0; REASONS];
            // Reasons that were added since are 0; one that this version does not know cannot be.
            stopped
                .get_mut(..by_reason.len())
                .ok_or_else(|| Damaged::new("more reasons for stacks that ended early than there are"))?
                .copy_from_slice(by_reason);
            let [$($count),+] = plain;
            Ok(StackQuality { $($count,)+ stopped })
        }
    };
}

// In the order in which they are stored.
of_counts!(
    records,
    complete,
    truncated,
    guessed,
    user_missing,
    kernel_missing,
    frames,
    frames_unnamed,
    user_stacks,
    user_truncated,
    frames_unnamed_despite_symbols,
    user_borrowed,
    clock_period_ns,
    clock_period_min_ns,
    thread_share,
    off_cpu_ns,
    borrowed_ns,
    missing_ns,
);

/// Labels, each as the difference to those before, and the counts of each, one after the other.
pub(super) fn write_by_labels(parts: &QualityByLabels) -> (Vec<i32>, Vec<u64>) {
    let mut parts: Vec<(u32, &StackQuality)> = parts.iter().collect();
    parts.sort_unstable_by_key(|&(labels, _)| labels);
    let (mut all_labels, mut all_counts) = (Vec::new(), Vec::new());
    let mut before = 0_u32;
    for (labels, quality) in parts {
        let (plain, stopped) = counts(quality);
        all_labels.push(labels.wrapping_sub(before) as i32);
        all_counts.extend(plain);
        all_counts.extend(stopped);
        before = labels;
    }
    (all_labels, all_counts)
}

/// Windows of earlier versions have none, or fewer reasons.
pub(super) fn read_by_labels(labels: &[i32], counts: &[u64]) -> Result<QualityByLabels, Damaged> {
    let mut parts = QualityByLabels::default();
    let width = counts.len().checked_div(labels.len()).unwrap_or_default();
    if width * labels.len() != counts.len() {
        return Err(Damaged::new("columns of counts of stacks differ in length"));
    }
    let mut at = 0_u32;
    for (index, &step) in labels.iter().enumerate() {
        let counts = counts.get(index * width..).and_then(|counts| counts.get(..width)).unwrap_or_default();
        let (&plain, stopped) =
            counts.split_first_chunk().ok_or_else(|| Damaged::new("too few counts of stacks"))?;
        at = at.wrapping_add(step as u32);
        parts.add(at, &quality(plain, stopped)?);
    }
    Ok(parts)
}
