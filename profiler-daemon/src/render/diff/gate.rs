//! The gate for CI: which frames grew by more than allowed, and by more than noise can.
//!
//! The rule, for each frame's own and total value:
//!
//! 1. Its share is at least [`Gate::min_share`] on one side, and at most 95 % on both: what is
//!    nearly everything has nothing to be compared with.
//! 2. It grew by more than [`Gate::fail_over`]: see [`Share::growth`].
//! 3. It grew at all, beyond the noise of sampling: the lower bound of its growth is above zero.
//!    Records are taken to come independently, which makes sums of them (compound) Poisson. The
//!    bound is so wide that two equal programs pass 99 times of 100, whatever the number of frames
//!    that are looked at (Bonferroni). Where it is known how values are spread over a recording, shares
//!    that sway more than independent records would have their noise widened by as much: so it is best
//!    to record several starts of a program, since how it comes to lie in memory can make one of its
//!    functions a tenth slower from its start to its end. Waits of one stack are taken to be equally
//!    long, so for off-CPU profiles the noise is a lower bound.
//!
//! Frames that pass 2 but not 3 are counted as undecided: a longer recording would tell.

use super::changes::{Change, Share};
use super::{Diff, DiffError};

/// What is nearly everything is not tested.
const MAX_SHARE: f64 = 0.95;

/// How often the gate may fail although nothing changed.
const FALSE_ALARMS: f64 = 0.01;

/// What is allowed.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Gate {
    /// Growth that is still allowed, as a part: 0.05 is 5 %.
    pub fail_over: f64,
    /// Frames with a smaller share are not looked at, from 0 to 1.
    pub min_share: f64,
}

/// What the gate says.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Verdict {
    /// What was allowed; `None` where nobody asked.
    pub gate: Option<Gate>,
    /// Frames that grew by more, those whose own value did first.
    pub failed: Vec<Change>,
    /// Frames that may have grown by more, or not: there is too little data to tell.
    pub undecided: u64,
    /// Own and total values that were looked at.
    pub tested: u64,
    /// Standard errors that a growth must exceed.
    pub bound: f64,
}

impl Gate {
    fn tests(&self, share: &Share) -> bool {
        let shares = [share.base_share, share.with_share];
        shares.iter().any(|share| *share >= self.min_share) && shares.iter().all(|share| *share <= MAX_SHARE)
    }

    fn exceeded(&self, share: &Share) -> bool {
        self.tests(share) && share.growth > self.fail_over
    }

    fn fails(&self, share: &Share, bound: f64) -> bool {
        self.exceeded(share) && share.z() > bound
    }
}

impl Verdict {
    /// Whether a frame's value fails the gate.
    #[must_use]
    pub fn fails(&self, share: &Share) -> bool {
        self.gate.is_some_and(|gate| gate.fails(share, self.bound))
    }
}

impl Diff {
    /// Applies the rule of this module to all frames.
    ///
    /// # Errors
    /// A side does not say how many records it has.
    pub fn judge(&self, gate: Gate) -> Result<Verdict, DiffError> {
        if let Some(side) = self.side_without_counts() {
            return Err(DiffError::NoCounts { side: side.to_owned() });
        }
        let changes = self.changes();
        let shares = || changes.iter().flat_map(|change| [&change.own, &change.total]);
        let tested = shares().filter(|share| gate.tests(share)).count() as u64;
        let bound = normal_quantile(FALSE_ALARMS / tested.max(1) as f64);
        let mut verdict = Verdict { gate: Some(gate), failed: Vec::new(), undecided: 0, tested, bound };
        for change in changes {
            if verdict.fails(&change.own) || verdict.fails(&change.total) {
                verdict.failed.push(change);
            } else if gate.exceeded(&change.own) || gate.exceeded(&change.total) {
                verdict.undecided += 1;
            }
        }
        verdict.failed.sort_by_key(|change| !gate.fails(&change.own, bound));
        Ok(verdict)
    }
}

/// The value that a standard normal variable exceeds with probability `p`, for `p` below 1/2:
/// Abramowitz and Stegun 26.2.23, absolute error below 4.5e-4.
fn normal_quantile(p: f64) -> f64 {
    let t = (-2.0 * p.clamp(1e-300, 0.5).ln()).sqrt();
    let above = 2.515_517 + t * (0.802_853 + t * 0.010_328);
    let below = 1.0 + t * (1.432_788 + t * (0.189_269 + t * 0.001_308));
    t - above / below
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles() {
        // Tables of the normal distribution.
        for (p, z) in [(0.5, 0.0), (0.025, 1.960), (0.005, 2.576), (1e-4, 3.719), (1e-6, 4.753)] {
            assert!((normal_quantile(p) - z).abs() < 1e-3, "{p}: {}", normal_quantile(p));
        }
    }
}
