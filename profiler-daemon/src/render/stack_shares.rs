//! What a profile's stacks are worth, in words: shares of complete, cut and guessed ones, with reasons.

use std::fmt::Write;

use crate::model::StackQuality;

/// Counts of stacks and frames as an answer carries them: from a profile, or from a daemon that may
/// know reasons we do not.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct StackShares<'a> {
    /// All records.
    pub records: u64,
    /// Records of threads that have a user stack.
    pub user_stacks: u64,
    /// User stacks walked to the outermost frame.
    pub complete: u64,
    /// User or kernel stacks cut at the depth limit.
    pub truncated: u64,
    /// User stacks cut at the depth limit.
    pub user_truncated: u64,
    /// User stacks that ended early.
    pub stopped: u64,
    /// The same by reason, most frequent first.
    pub stopped_reasons: Vec<(&'a str, u64)>,
    /// Stacks with frames found by following the frame pointer.
    pub guessed: u64,
    /// Kernel stacks that could not be read.
    pub kernel_missing: u64,
    /// Frames of all records.
    pub frames: u64,
    /// Frames without a name.
    pub frames_unnamed: u64,
    /// Those without a name although their file has symbols.
    pub frames_unnamed_despite_symbols: u64,
}

impl From<&StackQuality> for StackShares<'static> {
    fn from(quality: &StackQuality) -> Self {
        Self {
            records: quality.records,
            user_stacks: quality.user_stacks,
            complete: quality.complete,
            truncated: quality.truncated,
            user_truncated: quality.user_truncated,
            stopped: quality.stopped_early(),
            stopped_reasons: quality
                .stop_counts()
                .into_iter()
                .map(|(reason, count)| (reason.text(), count))
                .collect(),
            guessed: quality.guessed,
            kernel_missing: quality.kernel_missing,
            frames: quality.frames,
            frames_unnamed: quality.frames_unnamed,
            frames_unnamed_despite_symbols: quality.frames_unnamed_despite_symbols,
        }
    }
}

impl StackShares<'_> {
    /// All of it: `stacks: 99.3 % complete, 0.1 % truncated, 0.6 % stopped early (no unwinding table
    /// yet 0.5 %, no registers 0.1 %); 2.1 % hold a guessed frame; frames without a name:
    /// 0.4 % (0.1 % although their file has symbols)`. Shares of user stacks add up to the whole; what never occurred is left out.
    #[must_use]
    pub fn long(&self) -> String {
        self.text(true)
    }

    /// The same without the reasons, for where room is scarce.
    #[must_use]
    pub fn short(&self) -> String {
        self.text(false)
    }

    fn text(&self, reasons: bool) -> String {
        let [stopped, unreadable, guess, unnamed] = if reasons {
            ["stopped early", "not readable", "hold a guessed frame", "frames without a name"]
        } else {
            ["stopped", "unreadable", "guessed", "unnamed frames"]
        };
        let of_user = |count| percent(count, self.user_stacks);
        let mut text = String::from("stacks: ");
        // Writing to a string cannot fail.
        if self.user_stacks == 0 {
            text.push_str("none of user code");
        } else {
            let _ = write!(text, "{} complete", of_user(self.complete));
        }
        let ended = self.complete.saturating_add(self.user_truncated).saturating_add(self.stopped);
        for (what, count) in [
            ("truncated", self.user_truncated),
            (stopped, self.stopped),
            (unreadable, self.user_stacks.saturating_sub(ended)),
        ] {
            if count > 0 {
                let _ = write!(text, ", {} {what}", of_user(count));
            }
            if what == stopped && reasons && !self.stopped_reasons.is_empty() {
                let reasons = self.stopped_reasons.iter();
                let reasons: Vec<_> =
                    reasons.map(|(reason, count)| format!("{reason} {}", of_user(*count))).collect();
                let _ = write!(text, " ({})", reasons.join(", "));
            }
        }
        if self.guessed > 0 {
            let _ = write!(text, "; {} {guess}", of_user(self.guessed));
        }
        let kernel_cut = self.truncated.saturating_sub(self.user_truncated);
        for (what, count) in
            [("kernel stack truncated", kernel_cut), ("kernel stack missing", self.kernel_missing)]
        {
            if count > 0 && reasons {
                let _ = write!(text, "; {what}: {}", percent(count, self.records));
            }
        }
        let _ = write!(text, "; {unnamed}: {}", percent(self.frames_unnamed, self.frames));
        if self.frames_unnamed_despite_symbols > 0 && reasons {
            let gaps = percent(self.frames_unnamed_despite_symbols, self.frames);
            let _ = write!(text, " ({gaps} although their file has symbols)");
        }
        text
    }
}

/// A share with one decimal that never rounds something to nothing, nor nearly all to all.
fn percent(part: u64, whole: u64) -> String {
    let share = if whole == 0 { 0.0 } else { 100.0 * part as f64 / whole as f64 };
    if part > 0 && share < 0.1 {
        "<0.1 %".to_owned()
    } else if part < whole && share > 99.9 {
        ">99.9 %".to_owned()
    } else {
        format!("{share:.1} %")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_never_round_to_nothing_or_all() {
        assert_eq!(percent(1, 100_000), "<0.1 %");
        assert_eq!(percent(99_999, 100_000), ">99.9 %");
        assert_eq!(percent(0, 100_000), "0.0 %");
        assert_eq!(percent(7, 7), "100.0 %");
        assert_eq!(percent(0, 0), "0.0 %");
        assert_eq!(percent(1, 8), "12.5 %");
    }

    #[test]
    fn a_stack_that_never_came_is_not_complete() {
        let shares =
            StackShares { records: 4, user_stacks: 2, complete: 1, frames: 8, ..StackShares::default() };
        assert_eq!(
            shares.long(),
            "stacks: 50.0 % complete, 50.0 % not readable; frames without a name: 0.0 %"
        );
        let kernel_only = StackShares { records: 4, truncated: 1, frames: 8, ..StackShares::default() };
        assert_eq!(
            kernel_only.long(),
            "stacks: none of user code; kernel stack truncated: 25.0 %; frames without a name: 0.0 %"
        );
    }

    #[test]
    fn reasons_are_in_the_long_text_only() {
        let shares = StackShares {
            records: 1000,
            user_stacks: 1000,
            complete: 970,
            truncated: 10,
            user_truncated: 10,
            stopped: 20,
            stopped_reasons: vec![("no unwinding table yet", 15), ("a reason of tomorrow", 5)],
            guessed: 21,
            frames: 9000,
            frames_unnamed: 90,
            frames_unnamed_despite_symbols: 9,
            ..StackShares::default()
        };
        assert_eq!(
            shares.long(),
            "stacks: 97.0 % complete, 1.0 % truncated, 2.0 % stopped early (no unwinding table yet 1.5 %, \
             a reason of tomorrow 0.5 %); 2.1 % hold a guessed frame; frames without a name: 1.0 % (0.1 % although their \
             file has symbols)"
        );
        assert_eq!(
            shares.short(),
            "stacks: 97.0 % complete, 1.0 % truncated, 2.0 % stopped; 2.1 % guessed; unnamed frames: 1.0 %"
        );
    }
}
