//! What the stacks of each of those are worth that a profile is about, so that an answer about some of
//! them says it of them.

use rustc_hash::FxHashMap;

use super::StackQuality;

/// Parts of a profile's [`StackQuality`], by the index of the labels of their records.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct QualityByLabels(FxHashMap<u32, StackQuality>);

impl QualityByLabels {
    /// Adds to the part of these labels.
    pub(crate) fn add(&mut self, labels: u32, quality: &StackQuality) {
        self.0.entry(labels).or_default().merge(quality);
    }

    /// Adds the parts whose labels `labels` finds; `None` leaves them out.
    pub(crate) fn merge(&mut self, other: &Self, mut labels: impl FnMut(u32) -> Option<u32>) {
        for (&theirs, quality) in &other.0 {
            if let Some(ours) = labels(theirs) {
                self.add(ours, quality);
            }
        }
    }

    /// What is known of the stacks of the wanted ones, out of what is known of all. That is `whole`
    /// where all are wanted, and where it is not known whose they are.
    pub(crate) fn wanted(&self, whole: &StackQuality, wanted: impl Fn(u32) -> bool) -> StackQuality {
        let mut sum = StackQuality::default();
        let mut all = true;
        for (&labels, quality) in &self.0 {
            if wanted(labels) {
                sum.merge(quality);
            } else {
                all = false;
            }
        }
        if all { *whole } else { sum }
    }

    /// All parts.
    pub(crate) fn iter(&self) -> impl ExactSizeIterator<Item = (u32, &StackQuality)> {
        self.0.iter().map(|(&labels, quality)| (labels, quality))
    }

    /// Memory held, bytes.
    pub(crate) fn memory_bytes(&self) -> usize {
        self.0.capacity() * (size_of::<(u32, StackQuality)>() + 1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn records(records: u64) -> StackQuality {
        StackQuality { records, ..StackQuality::default() }
    }

    #[test]
    fn the_part_of_the_wanted_ones_is_theirs_and_that_of_all_is_the_whole() {
        let mut parts = QualityByLabels::default();
        // Nobody knows whose they are.
        assert_eq!(parts.wanted(&records(9), |_| false).records, 9);
        parts.add(3, &records(5));
        parts.add(4, &records(2));
        parts.add(3, &records(1));
        let of = |wanted: &[u32]| parts.wanted(&records(9), |labels| wanted.contains(&labels)).records;
        assert_eq!((of(&[3]), of(&[4]), of(&[]), of(&[3, 4])), (6, 2, 0, 9));
        let mut others = QualityByLabels::default();
        others.merge(&parts, |labels| (labels == 3).then_some(0));
        assert_eq!(others.iter().map(|(labels, part)| (labels, part.records)).collect::<Vec<_>>(), [(0, 6)]);
    }
}
