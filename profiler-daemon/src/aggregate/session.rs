//! The sessions that are still open: which samples are theirs, and how much of each.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use tokio::sync::oneshot;

use super::windows::kind_of;
use super::{OpenSession, distributions};
use crate::model::{
    Batch, Detail, Extent, Labels, Measure, MonoNs, Profile, ProfileKind, Sample, Stage, Target, Usage,
};

/// When it was looked for intervals that had not ended: once, at the end.
const ONLY_LOOK: u64 = 1;
/// How finely a session keeps when its values came: how much shares sway is told by it.
const GRAIN: Duration = Duration::from_millis(250);

/// All open sessions. Those that run at a time are few; a list is enough.
#[derive(Debug)]
pub(super) struct Sessions {
    open: Vec<(Session, oneshot::Sender<Profile>)>,
    max_rows: usize,
}

impl Sessions {
    pub(super) fn new(max_rows: usize) -> Self {
        Self { open: Vec::new(), max_rows }
    }

    pub(super) fn open(&mut self, open: OpenSession) {
        let OpenSession { session, kind, target, not_before, detail, reply, usage } = open;
        // Samples and nanoseconds do not add up.
        let profile = match kind {
            ProfileKind::Wall => Profile::new(kind),
            _ => Profile::with_coarse_times(kind, SystemTime::UNIX_EPOCH, GRAIN),
        };
        let max_rows = self.max_rows;
        let session =
            Session { session, target, not_before, detail, max_rows, profile, usage, measured_rows: 0 };
        self.open.push((session, reply));
    }

    pub(super) fn abandon(&mut self, session: u64) {
        self.open.retain(|(open, _)| open.session != session);
    }

    /// Drops the sessions whose profile nobody waits for any more.
    pub(super) fn forget_unwanted(&mut self) {
        self.open.retain(|(_, reply)| !reply.is_closed());
    }

    /// Adds a batch to every session, then finishes those that end with it.
    pub(super) fn insert(&mut self, batch: &Batch) {
        for (session, _) in &mut self.open {
            session.insert(batch);
        }
        if batch.ended.is_empty() {
            return;
        }
        let still_open = still_open(batch);
        for (session, reply) in self.open.extract_if(.., |(open, _)| batch.ended.contains(&open.session)) {
            finish(session, reply, &still_open);
        }
    }

    #[cfg(test)]
    pub(super) fn count(&self) -> usize {
        self.open.len()
    }

    /// Finishes every session, for want of further samples.
    pub(super) fn finish_all(&mut self) {
        for (session, reply) in self.open.drain(..) {
            finish(session, reply, &[]);
        }
    }
}

fn finish(mut session: Session, reply: oneshot::Sender<Profile>, still_open: &[&Sample]) {
    for sample in still_open {
        session.insert_sample(sample);
    }
    session.profile.distributions_mut().swept(ONLY_LOOK);
    if reply.send(session.profile).is_err() {
        tracing::debug!(session = session.session, "a session ended and nobody waited for its profile");
    }
}

/// The intervals that a sweep saw open, each once: two sessions that end together cause two
/// sweeps, and an interval may end between the sweep and the end of the batch.
fn still_open(batch: &Batch) -> Vec<&Sample> {
    let mut intervals = HashMap::new();
    for sample in &batch.samples {
        if let Measure::OffCpu { sequence, open, .. } = sample.measure {
            let interval = intervals.entry((sample.process, sample.tid, sequence)).or_insert(Some(sample));
            if !open {
                *interval = None;
            } else if interval.is_some_and(|known| known.time < sample.time) {
                *interval = Some(sample);
            }
        }
    }
    let mut open: Vec<&Sample> = intervals.into_values().flatten().collect();
    open.sort_by_key(|sample| (sample.time, sample.tid));
    open
}

#[derive(Debug)]
struct Session {
    session: u64,
    target: Target,
    not_before: MonoNs,
    detail: Detail,
    max_rows: usize,
    profile: Profile,
    usage: Arc<Usage>,
    /// Rows when the profile's memory was last told.
    measured_rows: usize,
}

impl Session {
    /// Adds what is known for certain: all but the intervals that are still open.
    fn insert(&mut self, batch: &Batch) {
        for sample in &batch.samples {
            if !matches!(sample.measure, Measure::OffCpu { open: true, .. }) {
                self.insert_sample(sample);
            }
        }
        self.profile.loss.merge(&batch.loss.of(self.profile.kind()));
        // Measuring goes through the whole profile: only where it has grown by a part.
        let rows = self.profile.row_count();
        if rows - self.measured_rows > self.measured_rows / 16 {
            self.usage.set_bytes(self.profile.memory_bytes() as u64);
            self.measured_rows = rows;
        }
    }

    fn insert_sample(&mut self, sample: &Sample) {
        let kind = self.profile.kind();
        let wanted = kind == ProfileKind::Wall || kind == kind_of(sample.measure);
        if !wanted || sample.time < self.not_before || !is_target(&self.target, sample) {
            return;
        }
        let mut measure = sample.measure.clipped(sample.time, self.not_before);
        if let Measure::OffCpu { sampled, .. } = &mut measure {
            if !sampled.by_session {
                return;
            }
            // A session takes intervals for what they are.
            sampled.by_clock = None;
        }
        let whole_ns = off_cpu_ns(sample.measure);
        // The minimum is about the interval, not about the part of it that this session saw.
        if whole_ns.is_some_and(|ns| ns < self.detail.min_block_ns) || off_cpu_ns(measure) == Some(0) {
            return;
        }
        let waker = sample.waker.clone().filter(|_| self.detail.wakers);
        let sample = Sample { measure, waker, ..sample.clone() };
        self.usage.add_events(1);
        if let Measure::OffCpu { open: true, .. } = measure {
            distributions::add_open(&mut self.profile, &sample, ONLY_LOOK);
        } else {
            distributions::add_ended(&mut self.profile, &sample);
        }
        // Only how values are spread over the session is of interest: its own clock does.
        let after = Duration::from_nanos(sample.time.0.saturating_sub(self.not_before.0));
        let extent = Extent::of(measure, SystemTime::UNIX_EPOCH + after);
        if self.profile.add_when(&sample, Some(&extent), self.max_rows).is_none() {
            self.profile.loss.add(Stage::Pipeline, "session full", 1);
        }
    }
}

/// Length of an off-CPU interval, ns; `None` for an on-CPU hit.
fn off_cpu_ns(measure: Measure) -> Option<u64> {
    match measure {
        Measure::OnCpu { .. } => None,
        Measure::OffCpu { blocked_ns, run_queue_ns, preempted_ns, .. } => {
            Some(blocked_ns.saturating_add(run_queue_ns).saturating_add(preempted_ns))
        }
    }
}

/// Whether a sample is part of a target.
///
/// Of a command, membership grows by forks that only the kernel's filter sees, so everything
/// that came through the filter is accepted: such a session must be the only one that runs.
fn is_target(target: &Target, sample: &Sample) -> bool {
    match target {
        Target::Host | Target::Command(_) => true,
        Target::Processes(ids) => ids.contains(&sample.process),
        Target::Cgroup { id, path } => sample.cgroup == *id || is_below(&sample.labels, path),
    }
}

/// Whether the labels' cgroup is `path` or lies below it; an unknown cgroup lies nowhere.
fn is_below(labels: &Labels, path: &str) -> bool {
    let below = labels.cgroup.strip_prefix(path.trim_end_matches('/'));
    !labels.cgroup.is_empty() && below.is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}
