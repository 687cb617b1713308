//! Tests of a file that does not hold what was written.

use std::fs::{self, File};
use std::os::unix::fs::FileExt as _;

use super::*;

/// Flips bits anywhere in the file: what is then answered is right, or it is said that it is not.
#[test]
fn flipped_bits_are_found_out_and_never_a_panic() {
    let directory = tempfile::tempdir().expect("a directory");
    let store = open(directory.path());
    for from in (0..1200).step_by(10) {
        store.insert(window(from, from + 10));
    }
    let whole = both(&store, 0, 1200);
    drop(store);
    let path = directory.path().join(FILE);
    let good = fs::read(&path).expect("readable");
    let mut dice = Dice(0x9e37_79b9_7f4a_7c15);
    let (mut noticed, mut unharmed) = (0, 0);
    for round in 0..60 {
        fs::write(&path, &good).expect("written");
        // In even rounds the file changes below an open store.
        let early = (round % 2 == 0).then(|| open(directory.path()));
        let file = File::options().read(true).write(true).open(&path).expect("there");
        for _ in 0..1 + dice.below(40) {
            let place = dice.below(good.len() as u64);
            let mut byte = [0];
            file.read_exact_at(&mut byte, place).expect("inside");
            file.write_all_at(&[byte[0] ^ (1 << dice.below(8))], place).expect("written");
        }
        let store = early.unwrap_or_else(|| open(directory.path()));
        let answers = [ProfileKind::OnCpu, ProfileKind::OffCpu].map(|kind| query(&store, kind, 0, 1200));
        let said = !store.findings().is_empty()
            || store.stats().problem.is_some()
            || answers.iter().any(|answer| !answer.profile.loss.is_empty());
        let right = answers.iter().zip(&whole).all(|(answer, whole)| rows(&answer.profile) == *whole);
        assert!(right || said, "round {round}: a wrong answer, and nobody says so");
        noticed += usize::from(said);
        unharmed += usize::from(right);
        // It goes on, with a new file as soon as the damage to the old one shows.
        let goes_on = |from: u64| {
            store.maintain();
            store.insert(window(from, from + 10));
            store.maintain();
            !query(&store, ProfileKind::OnCpu, from, from + 10).profile.is_empty()
        };
        assert!((500..504).any(|ten| goes_on(10 * ten)), "round {round}: {:?}", store.stats());
    }
    assert!(noticed > 10 && unharmed > 0, "{noticed} noticed, {unharmed} unharmed: the test is blunt");
}
