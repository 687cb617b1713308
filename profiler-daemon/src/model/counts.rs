//! Counts by a name, for metrics: what came of things that are asked for.

use std::sync::{Mutex, PoisonError};

/// How often each of a few outcomes came about. All are there from the start, so that a rate can be
/// taken of the first one as well.
#[derive(Debug)]
pub struct Counts(Mutex<Vec<(&'static str, u64)>>);

impl Counts {
    /// None of these has come about yet.
    #[must_use]
    pub fn of(names: &[&'static str]) -> Self {
        Self(Mutex::new(names.iter().map(|&name| (name, 0)).collect()))
    }

    /// Counts one.
    pub fn add(&self, name: &'static str) {
        let mut counts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        match counts.iter_mut().find(|(known, _)| *known == name) {
            Some((_, count)) => *count += 1,
            None => counts.push((name, 1)),
        }
    }

    /// All of them.
    #[must_use]
    pub fn read(&self) -> Vec<(&'static str, u64)> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// What came of requests for captures since the daemon started, by name.
#[derive(Clone, Debug, Default)]
pub struct CaptureCounts {
    /// Captures that were started, by cause.
    pub started: Vec<(&'static str, u64)>,
    /// Those that were not, by why.
    pub refused: Vec<(&'static str, u64)>,
    /// Alerts that came in, by what became of them.
    pub alerts: Vec<(&'static str, u64)>,
}
