//! Tests of a disk without room. They need root, to mount a small file system.

use std::fs::{self, File};
use std::io::Write as _;
use std::process::Command;

use super::*;

/// A small file system of its own; `None`, said on stderr, where it cannot be had.
struct Small(tempfile::TempDir);

impl Small {
    fn mount(test: &str) -> Option<Self> {
        let directory = tempfile::tempdir().expect("a directory");
        let mut mount = Command::new("mount");
        mount.args(["-t", "tmpfs", "-o", "size=24m", "none"]).arg(directory.path());
        if !rustix::process::geteuid().is_root() {
            eprintln!("{test}: skipped: needs root to mount a small file system");
            return None;
        }
        match mount.output() {
            Ok(output) if output.status.success() => Some(Self(directory)),
            other => {
                eprintln!("{test}: skipped: cannot mount a tmpfs: {other:?}");
                None
            }
        }
    }

    fn state(&self) -> std::path::PathBuf {
        self.0.path().join("state")
    }

    /// Fills it to the last byte.
    fn fill(&self) {
        let mut file = File::create(self.0.path().join("filler")).expect("created");
        for block in [vec![1; 1 << 20], vec![1; 512], vec![1]] {
            while file.write_all(&block).is_ok() {}
        }
    }

    fn empty(&self) {
        let _ = fs::remove_file(self.0.path().join("filler"));
    }
}

impl Drop for Small {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(self.0.path()).status();
    }
}

#[test]
fn a_full_disk_costs_nothing_but_the_file_and_recovers() {
    let Some(small) = Small::mount("a_full_disk_costs_nothing_but_the_file_and_recovers") else { return };
    let store = open(&small.state());
    for from in (0..200).step_by(10) {
        assert!(store.insert(window(from, from + 10)));
    }
    small.fill();
    for from in (200..250).step_by(10) {
        assert!(!store.insert(window(from, from + 10)), "there is no room");
    }
    store.maintain();
    let stats = store.stats();
    assert_eq!((stats.pending, stats.windows), (5, 25));
    assert!(stats.problem.as_ref().is_some_and(|problem| problem.contains("no room")), "{stats:?}");
    let expected = sum((0..250)
        .step_by(10)
        .map(|from| [ProfileKind::OnCpu, ProfileKind::OffCpu].map(|kind| rows(&profile(kind, from)))));
    assert_eq!(both(&store, 0, 250), expected, "queries go on");
    small.empty();
    store.maintain();
    let stats = store.stats();
    assert_eq!((stats.pending, stats.windows, stats.problem), (0, 25, None));
    drop(store);
    assert_eq!(both(&open(&small.state()), 0, 250), expected);
}

#[test]
fn a_daemon_that_starts_on_a_full_disk_waits_for_room() {
    let Some(small) = Small::mount("a_daemon_that_starts_on_a_full_disk_waits_for_room") else { return };
    let store = open(&small.state());
    store.insert(window(0, 10));
    drop(store);
    small.fill();
    let store = open(&small.state());
    assert!(!store.insert(window(10, 20)));
    assert!(store.stats().problem.is_some());
    small.empty();
    store.maintain();
    assert_eq!((store.stats().windows, store.stats().problem), (2, None));
}

/// Somebody fills the disk at moments that nobody can foresee.
#[test]
fn a_disk_that_fills_up_while_it_is_written_loses_nothing() {
    let Some(small) = Small::mount("a_disk_that_fills_up_while_it_is_written_loses_nothing") else { return };
    let store = open(&small.state());
    let stop = std::sync::atomic::AtomicBool::new(false);
    let mut refused = 0;
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !stop.load(std::sync::atomic::Ordering::Relaxed) {
                small.fill();
                std::thread::sleep(Duration::from_millis(3));
                small.empty();
                std::thread::sleep(Duration::from_millis(3));
            }
        });
        for from in (0..3000).step_by(10) {
            refused += u32::from(!store.insert(window(from, from + 10)));
            if from % 100 == 0 {
                store.maintain();
            }
        }
        stop.store(true, std::sync::atomic::Ordering::Relaxed);
    });
    store.maintain();
    let stats = store.stats();
    assert_eq!((stats.pending, &stats.problem), (0, &None));
    assert!(stats.loss.on_cpu.is_empty() && store.findings().is_empty(), "{stats:?}");
    assert!(refused > 0, "the disk was never full: the test is blunt");
    let expected = sum((0..3000)
        .step_by(10)
        .map(|from| [ProfileKind::OnCpu, ProfileKind::OffCpu].map(|kind| rows(&profile(kind, from)))));
    assert_eq!(both(&store, 0, 3000), expected);
    drop(store);
    assert_eq!(both(&open(&small.state()), 0, 3000), expected);
}

#[test]
fn what_the_disk_does_not_take_in_time_is_counted() {
    let Some(small) = Small::mount("what_the_disk_does_not_take_in_time_is_counted") else { return };
    let options = StoreOptions { max_bytes: 20_000, ..options() };
    let store = Store::open(&small.state(), options).expect("usable");
    small.fill();
    for from in (0..400).step_by(10) {
        store.insert(window(from, from + 10));
    }
    let stats = store.stats();
    let kept = query(&store, ProfileKind::OnCpu, 0, 400).profile.quality.records;
    let all: u64 = (0..400).step_by(10).map(|seed| profile(ProfileKind::OnCpu, seed).quality.records).sum();
    assert!(kept > 0 && stats.loss.on_cpu.total() > 0);
    assert_eq!(kept + stats.loss.on_cpu.total(), all);
}
