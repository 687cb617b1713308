//! What a profile is worth in a few figures, and who it is made of.

use std::cmp::Reverse;
use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use crate::model::{Loss, Pid, Profile, ProfileKind, StackQuality, TimeRange};

/// What a profile is worth: how much it holds, of which time, and what is missing.
#[derive(Clone, Debug, PartialEq)]
pub struct Summary {
    /// What was measured.
    pub kind: ProfileKind,
    /// Sum of all values in [`ProfileKind::unit`].
    pub total: u64,
    /// Records behind the total.
    pub records: u64,
    /// The time it is about.
    pub range: TimeRange,
    /// How much of that time was recorded.
    pub covered: Duration,
    /// On-CPU: effective sampling frequency, Hz; otherwise 0.
    pub frequency_hz: f64,
    /// What is missing.
    pub loss: Loss,
    /// What is known of the stacks.
    pub quality: StackQuality,
}

impl Summary {
    /// Sums a profile up.
    #[must_use]
    pub fn of(profile: &Profile, range: TimeRange, covered: Duration) -> Self {
        let total = profile.total();
        let sampled = profile.kind() == ProfileKind::OnCpu && total.ns > 0;
        Self {
            kind: profile.kind(),
            total: profile.total_shown(),
            records: total.count,
            range,
            covered,
            // Hits over the time they stand for.
            frequency_hz: if sampled { total.count as f64 * 1e9 / total.ns as f64 } else { 0.0 },
            loss: profile.loss.clone(),
            quality: profile.quality,
        }
    }
}

/// A process in a profile.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProcessRow {
    /// The process.
    pub pid: Pid,
    /// Its name; that of its heaviest thread where it has none that is known.
    pub comm: Arc<str>,
    /// Path of its executable; empty where unknown.
    pub exe: Arc<str>,
    /// Its share in [`ProfileKind::unit`].
    pub value: u64,
}

/// The processes of a profile, heaviest first. A pid that was reused with another executable is
/// two processes.
#[must_use]
pub fn processes(profile: &Profile) -> Vec<ProcessRow> {
    let mut processes: HashMap<_, HashMap<&Arc<str>, u64>> = HashMap::new();
    for entry in profile.entries() {
        let threads = processes.entry((entry.labels.pid, &entry.labels.exe)).or_default();
        *threads.entry(entry.labels.process_name()).or_default() += entry.shown;
    }
    let rows = processes.into_iter().map(|((pid, exe), threads)| {
        let heaviest = threads.iter().max_by_key(|&(comm, value)| (value, Reverse(comm)));
        let comm = heaviest.map_or_else(|| "".into(), |(comm, _)| Arc::clone(comm));
        ProcessRow { pid, comm, exe: Arc::clone(exe), value: threads.values().sum() }
    });
    let mut rows: Vec<ProcessRow> = rows.collect();
    rows.sort_by(|a, b| (Reverse(a.value), a.pid, &a.exe).cmp(&(Reverse(b.value), b.pid, &b.exe)));
    rows
}
