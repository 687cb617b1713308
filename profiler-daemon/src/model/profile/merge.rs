//! Adds rows of one profile to another: all of them, some, or a part of each.

use std::sync::Arc;

use rustc_hash::FxHashMap;

use super::{NO_ROOM, Profile, intern};
use crate::model::{
    Activity, Distributions, Key, Labels, QualityByLabels, Selector, StackQuality, Stage, Value, WakerIds,
};

impl Profile {
    /// Adds all rows, counts and losses of another profile.
    pub fn merge(&mut self, other: &Self) {
        self.merge_selected(other, &Selector::default());
    }

    /// Adds the rows of another profile that a selector wants, and what is known of their stacks. Its
    /// loss is added whole, since nobody knows whose records were lost.
    pub fn merge_selected(&mut self, other: &Self, selector: &Selector) {
        let wanted = other.wanted(selector);
        self.merge_rows(other, &wanted, |_, _, value| Some(value));
        self.merge_waits(other, &wanted);
        self.merge_stacks(other, &wanted);
        self.loss.merge(&other.loss);
    }

    /// Adds what is known of the stacks of those of another profile that a selector wants.
    pub(crate) fn merge_quality(&mut self, other: &Self, selector: &Selector) {
        self.merge_stacks(other, &other.wanted(selector));
    }

    /// What is known of the stacks of those that a selector wants.
    pub(crate) fn quality_where(&self, selector: &Selector) -> StackQuality {
        let wanted = self.wanted(selector);
        self.quality_by_labels.wanted(&self.quality, |at| wanted.get(at as usize) == Some(&true))
    }

    /// Adds what `worth` makes of the rows of another profile that a selector wants, by their index;
    /// `None` leaves a row out. Nothing but rows is added.
    pub(crate) fn merge_worth(
        &mut self,
        other: &Self,
        selector: &Selector,
        worth: impl FnMut(usize, Key, Value) -> Option<Value>,
    ) {
        self.merge_rows(other, &other.wanted(selector), worth);
    }

    /// The rows of some activities, without what is known of all of them.
    #[must_use]
    pub fn filtered(&self, wanted: impl Fn(Activity) -> bool) -> Self {
        let mut some = Self::new(self.kind);
        let all = self.wanted(&Selector::default());
        some.merge_rows(self, &all, |_, key, value| wanted(key.activity).then_some(value));
        some.merge_waits(self, &all);
        some
    }

    /// Which labels a selector wants.
    fn wanted(&self, selector: &Selector) -> Vec<bool> {
        self.labels.iter().map(|labels| selector.is_empty() || selector.matches(labels)).collect()
    }

    fn merge_rows(
        &mut self,
        other: &Self,
        wanted: &[bool],
        mut worth: impl FnMut(usize, Key, Value) -> Option<Value>,
    ) {
        // Each frame, stack and label is looked up once, not once a row: frames hash by content.
        let mut frames: Vec<Option<u32>> = vec![None; other.frames.len()];
        let mut stacks: Vec<Option<u32>> = vec![None; other.stacks.len()];
        let mut labels: Vec<Option<u32>> = vec![None; other.labels.len()];
        let mut ids = Vec::new();
        let mut ours = |this: &mut Self, who: u32, stack: u32| {
            let labels =
                *labels[who as usize].get_or_insert_with(|| this.labels_id(&other.labels[who as usize]));
            let stack = *stacks[stack as usize].get_or_insert_with(|| {
                ids.clear();
                ids.extend(other.stacks[stack as usize].iter().map(|&id| {
                    *frames[id as usize].get_or_insert_with(|| this.frame_id(&other.frames[id as usize]))
                }));
                this.stack_id(&ids)
            });
            WakerIds { labels, stack }
        };
        for (row, (&key, &value)) in other.values.iter().enumerate() {
            if !wanted[key.labels as usize] {
                continue;
            }
            let Some(value) = worth(row, key, value) else { continue };
            let waker = key.waker.map(|waker| ours(self, waker.labels, waker.stack));
            let WakerIds { labels, stack } = ours(self, key.labels, key.stack);
            self.add_known(Key { labels, stack, activity: key.activity, waker }, value);
        }
    }

    fn merge_stacks(&mut self, other: &Self, wanted: &[bool]) {
        self.merge_quality_by_labels(&other.quality, &other.quality_by_labels, |at| {
            other.labels.get_index(at as usize).filter(|_| wanted.get(at as usize) == Some(&true))
        });
    }

    /// Adds what is known of stacks whose labels `labels` finds; `None` leaves them out. `whole` is
    /// what is known of all.
    pub(crate) fn merge_quality_by_labels<'a>(
        &mut self,
        whole: &StackQuality,
        other: &QualityByLabels,
        mut labels: impl FnMut(u32) -> Option<&'a Arc<Labels>>,
    ) {
        let set = &mut self.labels;
        let wanted: FxHashMap<u32, u32> =
            other.iter().filter_map(|(at, _)| Some((at, intern(set, labels(at)?)))).collect();
        self.quality.merge(&other.wanted(whole, |at| wanted.contains_key(&at)));
        self.quality_by_labels.merge(other, |at| wanted.get(&at).copied());
    }

    fn merge_waits(&mut self, other: &Self, wanted: &[bool]) {
        let left_out = self.merge_distributions(&other.distributions, |at| {
            other.labels.get_index(at as usize).filter(|_| wanted.get(at as usize) == Some(&true))
        });
        self.loss.add(Stage::Pipeline, NO_ROOM, left_out);
    }

    /// Adds distributions whose labels `labels` finds; `None` leaves them out. Returns the records for
    /// which there was no room.
    pub(crate) fn merge_distributions<'a>(
        &mut self,
        other: &Distributions,
        mut labels: impl FnMut(u32) -> Option<&'a Arc<Labels>>,
    ) -> u64 {
        let (set, distributions) = (&mut self.labels, &mut self.distributions);
        distributions.merge(other, |at| labels(at).map(|found| intern(set, found)))
    }
}
