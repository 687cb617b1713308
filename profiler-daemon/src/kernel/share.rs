//! Which share of the threads the off-CPU clocks look at, and since when each part of them was seen.

use profiler_common::clock::{LEVELS, MAX_THREAD_SHARE};

/// The share that is wanted, and since when threads of each level have been followed.
#[derive(Clone, Debug, Default)]
pub(super) struct Share {
    wanted: u32,
    /// The trace that the rest is about.
    trace_ns: u64,
    opened_by_level: [u64; LEVELS],
    /// Threads below this level are not followed now.
    followed_from: u32,
    thinned: bool,
}

/// What the programs are told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Applied {
    /// The clocks take one thread in `1 << threads`.
    pub(super) threads: u32,
    /// It was less than all at some time of this trace.
    pub(super) thinned: bool,
    pub(super) opened_by_level: [u64; LEVELS],
}

impl Share {
    pub(super) fn set(&mut self, wanted: u32) {
        self.wanted = wanted.min(MAX_THREAD_SHARE);
    }

    /// The share for what goes on from `now_ns` on. Switches of threads that the clocks do not take
    /// are followed while sessions run: they may be a session's. What is followed again has been seen
    /// since now and no longer: what the programs remember of it is of another time.
    pub(super) fn apply(&mut self, trace_ns: u64, clocks: bool, sessions: bool, now_ns: u64) -> Applied {
        let threads = if clocks { self.wanted } else { 0 };
        let followed_from = if sessions { 0 } else { threads };
        if trace_ns != self.trace_ns {
            self.trace_ns = trace_ns;
            self.opened_by_level = [trace_ns; LEVELS];
            self.thinned = false;
        } else {
            for level in followed_from..self.followed_from {
                if let Some(opened) = self.opened_by_level.get_mut(level as usize) {
                    *opened = now_ns;
                }
            }
        }
        self.thinned |= threads > 0;
        self.followed_from = followed_from;
        Applied { threads, thinned: self.thinned, opened_by_level: self.opened_by_level }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_seen_again_is_new() {
        let mut share = Share::default();
        let all = share.apply(100, true, false, 101);
        assert_eq!(all, Applied { threads: 0, thinned: false, opened_by_level: [100; LEVELS] });
        share.set(2);
        assert_eq!(share.apply(100, true, false, 200).opened_by_level, [100; LEVELS]);
        // A session follows all of them, but the clocks take no more.
        let session = share.apply(100, true, true, 300);
        assert_eq!((session.threads, &session.opened_by_level[..3]), (2, &[300, 300, 100][..]));
        let again = share.apply(100, true, true, 310);
        assert_eq!(again.opened_by_level, session.opened_by_level, "nothing has changed");
        share.apply(100, true, false, 320);
        share.set(1);
        let half = share.apply(100, true, false, 400);
        assert_eq!((half.threads, &half.opened_by_level[..3]), (1, &[300, 400, 100][..]));
        share.set(0);
        let all = share.apply(100, true, false, 500);
        assert_eq!((all.thinned, &all.opened_by_level[..3]), (true, &[500, 400, 100][..]));
        // Another trace.
        let next = share.apply(900, true, false, 901);
        assert_eq!(next, Applied { threads: 0, thinned: false, opened_by_level: [900; LEVELS] });
    }

    #[test]
    fn sessions_without_clocks_are_never_thinned() {
        let mut share = Share::default();
        share.set(99);
        assert_eq!(share.apply(100, false, true, 101).threads, 0);
        assert_eq!(share.apply(100, true, false, 102).threads, MAX_THREAD_SHARE);
    }
}
