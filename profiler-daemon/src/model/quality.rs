//! What the stacks of a profile are worth: how their walks ended, and what has no name.

use std::sync::Arc;

use super::{Clock, Frame, StackFlags, StopReason, WalkEnd};

/// How many records have which flaw.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct StackQuality {
    /// All records.
    pub records: u64,
    /// Records of threads that have a user stack: what the shares of complete and stopped ones are of.
    pub user_stacks: u64,
    /// User stacks walked to the outermost frame.
    pub complete: u64,
    /// User or kernel stacks cut at the depth limit.
    pub truncated: u64,
    /// User stacks cut at the depth limit.
    pub user_truncated: u64,
    /// User stacks that ended early, by reason: see [`StopReason::ALL`].
    pub stopped: [u64; StopReason::ALL.len()],
    /// Stacks with guessed frames: found by following the frame pointer, for want of unwinding tables,
    /// or by a register that functions called meanwhile may have changed.
    pub guessed: u64,
    /// No user stack although the thread has one.
    pub user_missing: u64,
    /// User stacks borrowed from an earlier wait at the same place.
    pub user_borrowed: u64,
    /// The kernel stack could not be read.
    pub kernel_missing: u64,
    /// Longest period of the off-CPU clocks, ns; 0 where none had a part in it.
    pub clock_period_ns: u64,
    /// Shortest period of those that did not take every interval, ns; 0 where all did.
    pub clock_period_min_ns: u64,
    /// The clocks looked at one thread in `1 << thread_share`, at the least.
    pub thread_share: u64,
    /// Off-CPU time, ns: what the next two are parts of.
    pub off_cpu_ns: u64,
    /// Off-CPU time whose user stack was borrowed from an earlier wait at the same place, ns.
    pub borrowed_ns: u64,
    /// Off-CPU time without a user stack although the thread has one, ns.
    pub missing_ns: u64,
    /// Frames of all records.
    pub frames: u64,
    /// Frames without a name.
    pub frames_unnamed: u64,
    /// Frames without a name although their file has symbols: see [`super::Module::has_symbols`].
    pub frames_unnamed_despite_symbols: u64,
}

impl StackQuality {
    /// Counts one record.
    pub fn add(&mut self, flags: StackFlags, stack: &[Arc<Frame>]) {
        self.records += 1;
        self.user_stacks += u64::from(flags.walk != WalkEnd::None || flags.user_missing);
        self.user_truncated += u64::from(flags.walk == WalkEnd::Truncated);
        self.complete += u64::from(flags.walk == WalkEnd::Complete);
        self.truncated += u64::from(flags.kernel_truncated || flags.walk == WalkEnd::Truncated);
        for (count, reason) in self.stopped.iter_mut().zip(StopReason::ALL) {
            *count += u64::from(flags.walk == WalkEnd::Stopped(reason));
        }
        self.guessed += u64::from(flags.guessed);
        self.user_missing += u64::from(flags.user_missing);
        self.user_borrowed += u64::from(flags.borrowed);
        self.kernel_missing += u64::from(flags.kernel_missing);
        self.frames += stack.len() as u64;
        for frame in stack.iter().filter(|frame| !frame.named) {
            self.frames_unnamed += 1;
            let has_symbols = frame.module.as_ref().is_some_and(|module| module.has_symbols);
            self.frames_unnamed_despite_symbols += u64::from(has_symbols);
        }
    }

    /// Counts the off-CPU time of a record, ns, and the clock that sampled it, if one did.
    pub(super) fn add_off_cpu(&mut self, flags: StackFlags, ns: u64, clock: Option<Clock>) {
        self.off_cpu_ns = self.off_cpu_ns.saturating_add(ns);
        self.borrowed_ns = self.borrowed_ns.saturating_add(if flags.borrowed { ns } else { 0 });
        self.missing_ns = self.missing_ns.saturating_add(if flags.user_missing { ns } else { 0 });
        let Some(clock) = clock else { return };
        self.clock_period_ns = self.clock_period_ns.max(clock.period_ns);
        self.clock_period_min_ns = shortest(self.clock_period_min_ns, clock.period_ns);
        self.thread_share = self.thread_share.max(clock.thread_share.into());
    }

    /// User stacks that ended early, for whatever reason.
    #[must_use]
    pub fn stopped_early(&self) -> u64 {
        self.stopped.iter().sum()
    }

    /// The reasons for which user stacks ended early and how many did, most frequent first.
    #[must_use]
    pub fn stop_counts(&self) -> Vec<(StopReason, u64)> {
        let mut counts: Vec<_> =
            StopReason::ALL.into_iter().zip(self.stopped).filter(|(_, count)| *count > 0).collect();
        counts.sort_by_key(|&(_, count)| std::cmp::Reverse(count));
        counts
    }

    /// Adds another profile's counts.
    pub fn merge(&mut self, other: &Self) {
        self.records += other.records;
        self.user_stacks += other.user_stacks;
        self.user_truncated += other.user_truncated;
        self.complete += other.complete;
        self.truncated += other.truncated;
        for (count, more) in self.stopped.iter_mut().zip(other.stopped) {
            *count += more;
        }
        self.guessed += other.guessed;
        self.user_missing += other.user_missing;
        self.user_borrowed += other.user_borrowed;
        self.clock_period_ns = self.clock_period_ns.max(other.clock_period_ns);
        self.clock_period_min_ns = shortest(self.clock_period_min_ns, other.clock_period_min_ns);
        self.thread_share = self.thread_share.max(other.thread_share);
        self.off_cpu_ns = self.off_cpu_ns.saturating_add(other.off_cpu_ns);
        self.borrowed_ns = self.borrowed_ns.saturating_add(other.borrowed_ns);
        self.missing_ns = self.missing_ns.saturating_add(other.missing_ns);
        self.kernel_missing += other.kernel_missing;
        self.frames += other.frames;
        self.frames_unnamed += other.frames_unnamed;
        self.frames_unnamed_despite_symbols += other.frames_unnamed_despite_symbols;
    }
}

/// The shorter of two periods, of which 0 is none.
fn shortest(a: u64, b: u64) -> u64 {
    if a == 0 || b == 0 { a.max(b) } else { a.min(b) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{FrameKind, Module};

    fn frame(name: &str) -> Arc<Frame> {
        Arc::new(Frame {
            name: name.into(),
            kind: FrameKind::User,
            module: None,
            address: 0,
            source: None,
            named: true,
        })
    }

    #[test]
    fn every_user_stack_has_one_end_and_kernel_threads_have_none() {
        let ends = [
            WalkEnd::Complete,
            WalkEnd::Truncated,
            WalkEnd::Stopped(StopReason::NoRule),
            WalkEnd::Stopped(StopReason::NoRule),
            WalkEnd::Stopped(StopReason::NoTable),
            WalkEnd::None,
        ];
        let mut quality = StackQuality::default();
        for walk in ends {
            quality.add(StackFlags { walk, ..StackFlags::default() }, &[frame("a")]);
        }
        // The kernel's half is cut as well: that is another stack.
        let flags = StackFlags { user_missing: true, kernel_truncated: true, ..StackFlags::default() };
        quality.add(flags, &[]);
        quality.merge(&quality.clone());
        assert_eq!((quality.records, quality.user_stacks, quality.frames), (14, 12, 12));
        assert_eq!((quality.complete, quality.user_truncated, quality.truncated), (2, 2, 4));
        assert_eq!(quality.stop_counts(), [(StopReason::NoRule, 4), (StopReason::NoTable, 2)]);
        assert_eq!(quality.stopped_early(), 6);
        let ends = quality.complete + quality.user_truncated + quality.stopped_early();
        assert_eq!(ends + quality.user_missing, quality.user_stacks);
    }

    #[test]
    fn an_unnamed_frame_of_a_file_with_symbols_is_a_gap() {
        let module = |has_symbols| Some(Arc::new(Module { path: "a".into(), build_id: None, has_symbols }));
        let unnamed = |module| Arc::new(Frame { named: false, module, ..(*frame("[a+0x1]")).clone() });
        let stack = [unnamed(module(true)), unnamed(module(false)), unnamed(None), frame("a")];
        let mut quality = StackQuality::default();
        quality.add(StackFlags::default(), &stack);
        quality.merge(&quality.clone());
        assert_eq!((quality.frames_unnamed, quality.frames_unnamed_despite_symbols), (6, 2));
    }
}
