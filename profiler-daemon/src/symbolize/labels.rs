//! Labels of samples, one shared value for each process and thread name.

use std::sync::Arc;

use rustc_hash::FxHashMap;

use crate::model::{Comm, Labels, ProcessId};
use crate::procs::{Place, Process};

/// Most process and thread-name pairs that are remembered.
const LIMIT: usize = 16_384;

/// The labels handed out so far, up to a bound.
#[derive(Debug, Default)]
pub(super) struct LabelCache {
    labels: FxHashMap<(ProcessId, Comm), (Arc<Labels>, Arc<Place>)>,
}

impl LabelCache {
    /// Whether this process was seen with this thread name before.
    pub(super) fn knows(&self, process: ProcessId, comm: Comm) -> bool {
        self.labels.contains_key(&(process, comm))
    }

    /// The labels of a process's thread. An exec shows as another executable; the name of a
    /// container may come later than its first sample.
    pub(super) fn labels(&mut self, process: &Process, comm: Comm) -> Arc<Labels> {
        let key = (process.id(), comm);
        if let Some((known, place)) = self.labels.get(&key)
            && Arc::ptr_eq(place, process.place())
            && Arc::ptr_eq(&known.process, process.comm())
            && Arc::ptr_eq(&known.exe, process.exe())
            && Arc::ptr_eq(&known.cgroup, process.cgroup())
        {
            return Arc::clone(known);
        }
        if self.labels.len() >= LIMIT {
            self.labels.clear();
        }
        let place = process.place();
        let labels = Arc::new(Labels {
            pid: process.id().pid,
            comm: comm.to_text().into(),
            process: Arc::clone(process.comm()),
            exe: Arc::clone(process.exe()),
            cgroup: Arc::clone(process.cgroup()),
            container: Arc::clone(&place.container),
            pod: Arc::clone(&place.pod),
            namespace: Arc::clone(&place.namespace),
            unit: Arc::clone(&place.unit),
        });
        self.labels.insert(key, (Arc::clone(&labels), Arc::clone(place)));
        labels
    }
}
