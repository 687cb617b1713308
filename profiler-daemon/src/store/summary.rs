//! What a profile is worth in a few figures, and who it is made of.

use std::cmp::Reverse;
use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use crate::model::{Labels, Loss, Profile, ProfileKind, StackQuality, TimeRange};

/// What a profile is worth: how much it holds, of which time, and what is missing.
#[derive(Clone, Debug, PartialEq)]
pub struct Summary {
    /// What was measured.
    pub kind: ProfileKind,
    /// Sum of all values in [`ProfileKind::unit`].
    pub total: u64,
    /// Standard error of the sum, in the same unit.
    pub total_error: f64,
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
            total_error: profile.total_error(),
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
    /// Who it is: the labels of its heaviest thread.
    pub labels: Arc<Labels>,
    /// Its share in [`ProfileKind::unit`].
    pub value: u64,
}

/// A container in a profile.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ContainerRow {
    /// Its name, or the first digits of its id.
    pub container: Arc<str>,
    /// Its pod; empty outside of Kubernetes.
    pub pod: Arc<str>,
    /// The pod's namespace.
    pub namespace: Arc<str>,
    /// Its share in [`ProfileKind::unit`].
    pub value: u64,
}

/// The processes of a profile, heaviest first. A pid that was reused with another executable is
/// two processes.
#[must_use]
pub fn processes(profile: &Profile) -> Vec<ProcessRow> {
    let mut processes: HashMap<_, HashMap<&Arc<Labels>, u64>> = HashMap::new();
    for entry in profile.entries() {
        let threads = processes.entry((entry.labels.pid, &entry.labels.exe)).or_default();
        *threads.entry(entry.labels).or_default() += entry.shown;
    }
    let rows = processes.into_values().filter_map(|threads| {
        let heaviest = threads.iter().max_by_key(|&(labels, value)| (value, Reverse(&labels.comm)));
        let labels = Arc::clone(heaviest?.0);
        Some(ProcessRow { labels, value: threads.values().sum() })
    });
    let mut rows: Vec<ProcessRow> = rows.collect();
    let order = |row: &ProcessRow| (Reverse(row.value), row.labels.pid, Arc::clone(&row.labels.exe));
    rows.sort_by_cached_key(order);
    rows
}

/// The containers of a profile, heaviest first; what runs outside of containers is left out.
#[must_use]
pub fn containers(profile: &Profile) -> Vec<ContainerRow> {
    let mut containers: HashMap<_, u64> = HashMap::new();
    for entry in profile.entries().filter(|entry| !entry.labels.container.is_empty()) {
        let Labels { container, pod, namespace, .. } = &**entry.labels;
        *containers.entry((container, pod, namespace)).or_default() += entry.shown;
    }
    let rows = containers.into_iter().map(|((container, pod, namespace), value)| ContainerRow {
        container: Arc::clone(container),
        pod: Arc::clone(pod),
        namespace: Arc::clone(namespace),
        value,
    });
    let mut rows: Vec<ContainerRow> = rows.collect();
    let order = |row: &ContainerRow| {
        (Reverse(row.value), Arc::clone(&row.namespace), Arc::clone(&row.pod), Arc::clone(&row.container))
    };
    rows.sort_by_cached_key(order);
    rows
}
