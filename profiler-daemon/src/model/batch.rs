//! What travels between the stages: samples with what was lost beside them.

use std::sync::Arc;

use super::{Loss, Measure, MonoNs, Profile, ProfileKind, RawSample, Sample, StackQuality, TimeRange};

/// Records on their way to the symbolizer.
#[derive(Clone, Debug, Default)]
pub struct RawBatch {
    /// The records, in the order in which their ring had them.
    pub samples: Vec<RawSample>,
    /// What was lost since the last batch.
    pub loss: KindLoss,
    /// Sessions whose last record is in this batch or before it.
    pub ended: Vec<u64>,
    /// Number of the batch of process events that came before these samples.
    pub events_before: u64,
    /// What was recorded before this instant is in this batch or before it; zero: not known.
    pub complete_to: MonoNs,
}

/// Symbolized records on their way to the aggregator.
#[derive(Clone, Debug, Default)]
pub struct Batch {
    /// The records.
    pub samples: Vec<Sample>,
    /// What was lost since the last batch.
    pub loss: KindLoss,
    /// Sessions whose last record is in this batch or before it.
    pub ended: Vec<u64>,
    /// What was recorded before this instant is in this batch or before it; zero: not known.
    pub complete_to: MonoNs,
}

/// Losses by the kind of profile they are missing from.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct KindLoss {
    /// Missing from on-CPU profiles.
    pub on_cpu: Loss,
    /// Missing from off-CPU profiles.
    pub off_cpu: Loss,
}

impl KindLoss {
    /// The losses of one kind; of both, merged, for [`ProfileKind::Wall`].
    #[must_use]
    pub fn of(&self, kind: ProfileKind) -> Loss {
        match kind {
            ProfileKind::OnCpu => self.on_cpu.clone(),
            ProfileKind::OffCpu => self.off_cpu.clone(),
            ProfileKind::Wall => {
                let mut both = self.on_cpu.clone();
                both.merge(&self.off_cpu);
                both
            }
        }
    }

    /// What came on top of an earlier reading of the same counters.
    #[must_use]
    pub fn since(&self, earlier: &Self) -> Self {
        Self { on_cpu: self.on_cpu.since(&earlier.on_cpu), off_cpu: self.off_cpu.since(&earlier.off_cpu) }
    }

    /// Adds all of another loss.
    pub fn merge(&mut self, other: &Self) {
        self.on_cpu.merge(&other.on_cpu);
        self.off_cpu.merge(&other.off_cpu);
    }
}

/// What is known of the stacks of records, by the kind of profile they belong to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct KindQuality {
    /// Of on-CPU records.
    pub on_cpu: StackQuality,
    /// Of off-CPU records.
    pub off_cpu: StackQuality,
}

impl KindQuality {
    /// Counts the records of a batch.
    pub fn add(&mut self, batch: &Batch) {
        for sample in &batch.samples {
            let quality = match sample.measure {
                Measure::OnCpu { .. } => &mut self.on_cpu,
                Measure::OffCpu { .. } => &mut self.off_cpu,
            };
            quality.add(sample.flags, &sample.stack);
        }
    }
}

/// What has been recorded and no store may have yet, oldest first.
#[derive(Clone, Debug, Default)]
pub struct Fresh {
    /// Windows that were sealed last.
    pub sealed: Vec<Window>,
    /// Windows that are still open, up to now.
    pub open: Vec<Window>,
}

/// A sealed window: what was recorded in one stretch of time.
#[derive(Clone, Debug)]
pub struct Window {
    /// Which time.
    pub range: TimeRange,
    /// One profile per kind that was being recorded, also where it stayed empty.
    pub profiles: Vec<Arc<Profile>>,
}
