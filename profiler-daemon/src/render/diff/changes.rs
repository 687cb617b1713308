//! What each frame is worth on both sides, and how sure the change is.

use std::collections::HashMap;

use super::super::name;
use super::{Cost, Diff, Normalize};
use crate::model::Blocks;

/// A frame whose share is not the same on both sides.
#[derive(Clone, Debug, PartialEq)]
pub struct Change {
    /// The frame's text, as in a folded line.
    pub frame: String,
    /// With the frame on top of the stack.
    pub own: Share,
    /// With the frame anywhere in the stack, counted once a stack.
    pub total: Share,
}

/// What a frame is worth on both sides.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Share {
    /// Value on the base side, as recorded.
    pub base: u64,
    /// Value on the other side, as recorded.
    pub with: u64,
    /// Share of the whole on the base side, from 0 to 1; above 1 where several CPUs or threads
    /// share one second.
    pub base_share: f64,
    /// Share of the whole on the other side.
    pub with_share: f64,
    /// How much more it costs, as a part: 0.1 is 10 % more. Compared by total, that is relative to
    /// everything else in the profile: a function that became 10 % slower grew by 0.1, however
    /// large its share is. Compared by time or work it is the ratio of the values.
    pub growth: f64,
    /// Standard error of `ln(1 + growth)`.
    pub error: f64,
}

impl Share {
    /// By how much the share changed.
    #[must_use]
    pub fn change(&self) -> f64 {
        self.with_share - self.base_share
    }

    /// The change in standard errors; its sign is that of the growth.
    #[must_use]
    pub fn z(&self) -> f64 {
        if self.error > 0.0 { self.growth.ln_1p() / self.error } else { 0.0 }
    }

    /// Whether the change is more than the noise of sampling, for one frame looked at by itself
    /// (two-sided, 99 %).
    #[must_use]
    pub fn is_clear(&self) -> bool {
        self.z().abs() > 2.576
    }
}

/// Own and total cost of a frame on both sides.
#[derive(Clone, Copy, Default)]
struct Weight {
    own: [Cost; 2],
    total: [Cost; 2],
    /// The row that was counted last, from 1: a recursive frame counts once a row.
    last_row: usize,
}

impl Diff {
    /// All frames, those that grew most first: by their own share, then by their total.
    #[must_use]
    pub fn changes(&self) -> Vec<Change> {
        let mut weights = vec![Weight::default(); self.texts.len()];
        let mut no_stack = Weight::default();
        for (row, pair) in (1..).zip(&self.rows) {
            let frames = self.frames_of(&pair.frames);
            let Some(&leaf) = frames.last() else {
                add(&mut no_stack.own, pair.cost);
                add(&mut no_stack.total, pair.cost);
                continue;
            };
            add(&mut weights[leaf as usize].own, pair.cost);
            for &frame in frames {
                let weight = &mut weights[frame as usize];
                if weight.last_row != row {
                    weight.last_row = row;
                    add(&mut weight.total, pair.cost);
                }
            }
        }
        let named = self.texts.iter().map(String::as_str).zip(&weights);
        let all = named.chain([(name::NO_STACK, &no_stack)]);
        let seen = all.filter(|(_, weight)| weight.total.iter().any(|cost| cost.value > 0));
        let mut changes: Vec<Change> = seen
            .map(|(frame, weight)| Change {
                frame: frame.to_owned(),
                own: self.share(weight.own),
                total: self.share(weight.total),
            })
            .collect();
        changes.sort_by(|a, b| {
            let by_growth = b.own.change().total_cmp(&a.own.change());
            by_growth.then(b.total.change().total_cmp(&a.total.change())).then_with(|| a.frame.cmp(&b.frame))
        });
        changes
    }

    /// At most `limit` frames, those whose own share moved most (or the total, where that is the
    /// same for all), in the order of [`Self::changes`]. Frames that did not move are left out.
    #[must_use]
    pub fn top_changes(&self, limit: usize) -> Vec<Change> {
        let changes = self.changes();
        let moved = |change: &Change| (change.own.change().abs(), change.total.change().abs());
        let mut order: Vec<usize> =
            (0..changes.len()).filter(|&index| moved(&changes[index]) != (0.0, 0.0)).collect();
        order.sort_by(|&a, &b| {
            let (a, b) = (moved(&changes[a]), moved(&changes[b]));
            b.0.total_cmp(&a.0).then(b.1.total_cmp(&a.1))
        });
        order.truncate(limit);
        let kept: HashMap<usize, ()> = order.into_iter().map(|index| (index, ())).collect();
        changes
            .into_iter()
            .enumerate()
            .filter(|(index, _)| kept.contains_key(index))
            .map(|(_, change)| change)
            .collect()
    }

    /// The frames of a stack without the thread's name below and the activity on top of them.
    fn frames_of<'a>(&self, stack: &'a [u32]) -> &'a [u32] {
        let frames = stack.get(1..).unwrap_or_default();
        match frames.split_last() {
            Some((&last, rest)) if name::is_marker(&self.texts[last as usize]) => rest,
            _ => frames,
        }
    }

    fn share(&self, cost: [Cost; 2]) -> Share {
        let [base_whole, with_whole] = self.wholes();
        let [base, with] = cost;
        let parts = [0, 1].map(|side| self.log_part(side, cost[side]));
        let log_growth = parts[1].0 - parts[0].0;
        Share {
            base: base.value,
            with: with.value,
            base_share: base.value as f64 / base_whole,
            with_share: with.value as f64 / with_whole,
            growth: log_growth.exp_m1(),
            error: (parts[0].1 + parts[1].1).sqrt(),
        }
    }

    /// Logarithm of what a cost is compared by on one side, and its variance. Half a record is
    /// added to everything, so that what was not seen at all has a place (Haldane and Anscombe).
    fn log_part(&self, side: usize, cost: Cost) -> (f64, f64) {
        let facts = &self.sides[side];
        let whole = facts.total;
        // The length of a typical record: 1 for samples.
        let record = if whole.squares.is_finite() { whole.squares / whole.value as f64 } else { 1.0 };
        let log = |cost: Cost| {
            let value = cost.value as f64 + 0.5 * record;
            (value.ln(), (cost.squares + 0.5 * record * record) / (value * value))
        };
        let part = log(cost);
        let sway = sway(&cost, &whole, record);
        match self.normalize {
            Normalize::Total => {
                let squares = (whole.squares - cost.squares).max(0.0);
                let rest = whole.value - cost.value.min(whole.value);
                let rest = log(Cost { value: rest, squares, ..Cost::default() });
                (part.0 - rest.0, (part.1 + rest.1) * sway)
            }
            Normalize::Time => (part.0 - facts.whole_time.unwrap_or(1.0).ln(), part.1 * sway),
            Normalize::Work => (part.0, part.1 * sway),
        }
    }

    /// Whether both sides say how many records stand behind their values.
    pub(super) fn side_without_counts(&self) -> Option<&str> {
        self.sides.iter().find(|side| !side.total.squares.is_finite()).map(|side| side.title.as_str())
    }
}

/// How much more a frame's share sways from stretch to stretch of its recording than independent
/// records would make it, as a factor of the variance, at least 1: Pearson's statistic over its
/// degrees of freedom, as for quasi-likelihoods. How a program comes to lie in memory, and what else
/// runs on the machine, slow some functions more than others for a while; where a recording has several
/// such whiles, that does not look like a change of the program.
fn sway(cost: &Cost, whole: &Cost, record: f64) -> f64 {
    let sum = |blocks: &Blocks| blocks.iter().map(|&block| block as f64).sum::<f64>();
    let (part, all) = (sum(&cost.blocks), sum(&whole.blocks));
    let share = part / all.max(f64::MIN_POSITIVE);
    if part <= 0.0 || share >= 1.0 {
        return 1.0;
    }
    // Blocks may be in another unit than values: what counts is how many records they stand for.
    let record = record * all / whole.value.max(1) as f64;
    let pairs = cost.blocks.iter().zip(&whole.blocks).filter(|(_, all)| **all > 0);
    let (mut statistic, mut count) = (0.0, 0_u32);
    for (&part, &all) in pairs {
        let expected = share * all as f64;
        statistic += (part as f64 - expected).powi(2) / (expected * (1.0 - share) * record);
        count += 1;
    }
    if count > 2 { (statistic / f64::from(count - 1)).max(1.0) } else { 1.0 }
}

fn add(to: &mut [Cost; 2], cost: [Cost; 2]) {
    to.iter_mut().zip(cost).for_each(|(to, cost)| *to += cost);
}
