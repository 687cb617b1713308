//! Ids of captures: when it started, readable, and a random part.

use std::hash::{BuildHasher, Hasher, RandomState};
use std::time::SystemTime;

use jiff::Timestamp;

/// `20261123-221501-ab12`: the second in UTC and 16 random bits, so that two captures of the
/// same second differ and an id that was not told is not guessed at once.
pub(super) fn new(at: SystemTime) -> String {
    let at = Timestamp::try_from(at).unwrap_or(Timestamp::UNIX_EPOCH);
    // The keys of a `RandomState` come from the system's random numbers.
    let random = RandomState::new().build_hasher().finish() as u16;
    format!("{}-{random:04x}", at.strftime("%Y%m%d-%H%M%S"))
}
