//! How sure the values of an open window are: what chance had to do with each thread's time.

use std::collections::HashMap;

use rustc_hash::FxBuildHasher;

use super::reported::News;
use crate::model::{PartRows, ProcessId, Profile, Sample, ThreadDraws, Tid};

/// Most pairs of a thread and a row of one window, some 12 MB. Those of further threads count by
/// themselves, which states more uncertainty than there is.
const MAX_PAIRS: usize = 400_000;

/// The draws of a window by thread.
#[derive(Debug, Default)]
pub(super) struct Precision {
    threads: HashMap<(ProcessId, Tid), (u32, ThreadDraws), FxBuildHasher>,
    pairs: usize,
}

impl Precision {
    /// Notes what was drawn of a sample that made these rows of the profile.
    pub(super) fn add(&mut self, profile: &mut Profile, sample: &Sample, news: &News, rows: PartRows) {
        if news.draws.iter().all(|draw| draw.period_ns == 0) {
            return;
        }
        let labels = profile.labels_id(&sample.labels);
        let thread = (sample.process, sample.tid);
        let drawn = rows.into_iter().zip(&news.draws).filter_map(|(row, draw)| Some((row?, draw)));
        if self.pairs >= MAX_PAIRS && !self.threads.contains_key(&thread) {
            let mut alone = ThreadDraws::default();
            drawn.for_each(|(row, draw)| alone.add(row, draw, news.thread_share));
            return settle(profile, labels, &alone);
        }
        let (_, draws) = self.threads.entry(thread).or_insert_with(|| (labels, ThreadDraws::default()));
        let before = draws.len();
        drawn.for_each(|(row, draw)| draws.add(row, draw, news.thread_share));
        self.pairs += draws.len() - before;
    }

    /// Adds the variances to the profile.
    pub(super) fn settle(&self, profile: &mut Profile) {
        for (labels, draws) in self.threads.values() {
            settle(profile, *labels, draws);
        }
    }
}

fn settle(profile: &mut Profile, labels: u32, draws: &ThreadDraws) {
    // A millionth of ns² is us²; what is more than fits is as good as not known at all.
    let us2 = |ns2: f64| (ns2 / 1e6).ceil() as u64;
    let (sum, rows) = draws.settle();
    profile.distributions_mut().add_variance(labels, us2(sum));
    rows.for_each(|(row, variance)| profile.add_variance(row, us2(variance)));
}
