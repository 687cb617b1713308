//! Who may start a capture now: one an episode, a pause after each, so many an hour.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use indexmap::IndexMap;

const HOUR: Duration = Duration::from_secs(3600);
/// Sources and targets that are remembered; above it, those that started longest ago go.
const MAX_KNOWN: usize = 1024;

/// What was started, by which source and for which target.
#[derive(Debug)]
pub(super) struct Gate {
    cooldown: Duration,
    max_per_hour: usize,
    sources: IndexMap<String, Start>,
    targets: IndexMap<String, Start>,
    /// Starts within the last hour, oldest first.
    recent: VecDeque<Instant>,
}

#[derive(Debug)]
struct Start {
    id: String,
    episode: String,
    at: Instant,
}

/// Whether it may start.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    Go,
    Duplicate { of: String },
    Cooling { of: String, left: Duration },
    TooMany { left: Duration },
}

impl Gate {
    pub(super) fn new(cooldown: Duration, max_per_hour: usize) -> Self {
        Self {
            cooldown,
            max_per_hour,
            sources: IndexMap::new(),
            targets: IndexMap::new(),
            recent: VecDeque::new(),
        }
    }

    /// What is to be said about an episode of a source, whatever its target.
    pub(super) fn source(&self, source: &str, episode: &str, now: Instant) -> Verdict {
        match self.sources.get(source) {
            Some(start) if start.episode == episode => Verdict::Duplicate { of: start.id.clone() },
            start => self.cooling(start, now),
        }
    }

    /// Whether an episode of a source may start a capture of a target.
    pub(super) fn check(&mut self, source: &str, episode: &str, target: &str, now: Instant) -> Verdict {
        let verdict = match self.source(source, episode, now) {
            Verdict::Go => self.cooling(self.targets.get(target), now),
            refusal => refusal,
        };
        if verdict != Verdict::Go {
            return verdict;
        }
        while self.recent.front().is_some_and(|&at| now.saturating_duration_since(at) >= HOUR) {
            self.recent.pop_front();
        }
        match self.recent.front() {
            Some(&oldest) if self.recent.len() >= self.max_per_hour => {
                Verdict::TooMany { left: HOUR.saturating_sub(now.saturating_duration_since(oldest)) }
            }
            _ => Verdict::Go,
        }
    }

    /// Remembers a start.
    pub(super) fn started(&mut self, source: &str, episode: &str, target: &str, id: &str, now: Instant) {
        let start = || Start { id: id.to_owned(), episode: episode.to_owned(), at: now };
        remember(&mut self.sources, source, start());
        remember(&mut self.targets, target, start());
        self.recent.push_back(now);
    }

    fn cooling(&self, start: Option<&Start>, now: Instant) -> Verdict {
        let left = start.map(|start| {
            let left = self.cooldown.saturating_sub(now.saturating_duration_since(start.at));
            (start.id.clone(), left)
        });
        match left {
            Some((of, left)) if left > Duration::ZERO => Verdict::Cooling { of, left },
            _ => Verdict::Go,
        }
    }
}

/// The latest start is the last entry.
fn remember(known: &mut IndexMap<String, Start>, key: &str, start: Start) {
    known.shift_remove(key);
    if known.len() >= MAX_KNOWN {
        known.shift_remove_index(0);
    }
    known.insert(key.to_owned(), start);
}

#[cfg(test)]
mod tests {
    use super::*;

    const MINUTE: Duration = Duration::from_secs(60);

    #[test]
    fn an_episode_starts_one_and_the_next_waits() {
        let mut gate = Gate::new(15 * MINUTE, 100);
        let now = Instant::now();
        assert_eq!(gate.check("a", "1", "host", now), Verdict::Go);
        gate.started("a", "1", "host", "c1", now);
        let later = now + 14 * MINUTE;
        assert_eq!(gate.check("a", "1", "host", later), Verdict::Duplicate { of: "c1".into() });
        let cooling = Verdict::Cooling { of: "c1".into(), left: MINUTE };
        assert_eq!(gate.check("a", "2", "other", later), cooling, "the same source");
        assert_eq!(gate.check("b", "1", "host", later), cooling, "the same target");
        assert_eq!(gate.check("b", "1", "other", later), Verdict::Go);
        let after = now + 15 * MINUTE;
        assert_eq!(gate.check("a", "2", "host", after), Verdict::Go);
        assert_eq!(gate.check("a", "1", "host", after), Verdict::Duplicate { of: "c1".into() });
    }

    #[test]
    fn so_many_an_hour() {
        let mut gate = Gate::new(Duration::ZERO, 2);
        let now = Instant::now();
        for (source, after) in [("a", 0), ("b", 30)] {
            let at = now + after * MINUTE;
            assert_eq!(gate.check(source, "1", source, at), Verdict::Go);
            gate.started(source, "1", source, source, at);
        }
        let left = 15 * MINUTE;
        assert_eq!(gate.check("c", "1", "c", now + 45 * MINUTE), Verdict::TooMany { left });
        assert_eq!(gate.check("c", "1", "c", now + 60 * MINUTE), Verdict::Go);
    }

    #[test]
    fn memory_is_bounded() {
        let mut gate = Gate::new(MINUTE, usize::MAX);
        let now = Instant::now();
        for number in 0..2 * MAX_KNOWN {
            gate.started(&number.to_string(), "1", "host", "c", now);
        }
        assert_eq!((gate.sources.len(), gate.targets.len()), (MAX_KNOWN, 1));
        assert_eq!(gate.source("0", "1", now), Verdict::Go, "forgotten");
    }
}
