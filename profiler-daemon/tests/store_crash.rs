//! `kill -9` at any moment: every window that was acknowledged is there afterwards, and right.
#![expect(clippy::expect_used, reason = "helpers of tests, which clippy does not know as such")]

use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use profiler_daemon::model::{
    Activity, Frame, FrameKind, Labels, Pid, Profile, ProfileKind, Selector, StackQuality, TimeRange, Value,
    Wait, Window,
};
use profiler_daemon::store::{Store, StoreOptions};

const KILLS: u64 = 50;
/// Names the directory for the process that is to be killed.
const VICTIM: &str = "PROFILER_TEST_VICTIM";

fn window_range(number: u64) -> TimeRange {
    // Half-minutes, so that a few thousand windows reach far enough back to be rolled up.
    let at = |seconds| SystemTime::UNIX_EPOCH + Duration::from_secs(3600 * 480_000 + seconds);
    TimeRange { from: at(30 * number), to: at(30 * number + 30) }
}

fn profile(kind: ProfileKind, number: u64) -> Profile {
    let mut profile = Profile::new(kind);
    for row in 0..50 {
        let labels =
            Arc::new(Labels { pid: Pid(1 + row as u32 % 5), comm: "demo".into(), ..Labels::default() });
        let name = format!("function {}", row * (1 + number % 4));
        let frame = Frame {
            name: name.into(),
            kind: FrameKind::User,
            module: None,
            address: row,
            source: None,
            named: true,
        };
        let activity = match kind {
            ProfileKind::OnCpu => Activity::OnCpu,
            _ => Activity::Blocked(Wait::Other),
        };
        let value = Value::exact(1 + (number + row) % 7, 1000 * number + row);
        profile.add_row(&labels, activity, &[Arc::new(frame)], value);
        profile.quality.merge(&StackQuality { records: value.count, ..StackQuality::default() });
    }
    profile
}

fn window(number: u64) -> Window {
    let kinds = [ProfileKind::OnCpu, ProfileKind::OffCpu];
    let profiles = kinds.map(|kind| Arc::new(profile(kind, number)));
    Window { range: window_range(number), profiles: profiles.to_vec() }
}

fn open(directory: &Path) -> Store {
    let options = StoreOptions {
        max_age: Duration::from_secs(365 * 86_400),
        max_bytes: 1 << 30,
        ..StoreOptions::default()
    };
    Store::open(directory, options).expect("the directory can be used")
}

/// What the first `windows` hold together.
fn expected(kind: ProfileKind, windows: u64) -> Value {
    let mut total = Value::default();
    for number in 0..windows {
        total += profile(kind, number).total();
    }
    total
}

/// Not a test: what the other one starts and kills. Numbers that it prints are acknowledged.
#[test]
fn victim() {
    let Some(directory) = std::env::var_os(VICTIM) else { return };
    let store = open(Path::new(&directory));
    std::thread::scope(|scope| {
        // Upkeep all the time, so that it is cut, too.
        scope.spawn(|| {
            loop {
                store.maintain();
            }
        });
        for number in store.stats().newest.map_or(0, |newest| {
            let first = window_range(0).from;
            newest.duration_since(first).expect("not before the first").as_secs() / 30
        })..
        {
            assert!(store.insert(window(number)), "not written: {:?}", store.stats());
            println!("kept {number}");
        }
    });
}

#[test]
fn kill_9_loses_no_window_that_was_acknowledged() {
    let directory = tempfile::tempdir().expect("a directory");
    let mut dice = 0x9e37_79b9_7f4a_7c15_u64;
    let mut kept = 0;
    for kill in 0..KILLS {
        let mut victim = Command::new(std::env::current_exe().expect("this test"))
            .args(["--exact", "victim", "--nocapture"])
            .env(VICTIM, directory.path())
            .stdout(Stdio::piped())
            .stderr(Stdio::inherit())
            .spawn()
            .expect("this test can be started");
        let output = BufReader::new(victim.stdout.take().expect("piped"));
        dice ^= dice << 13;
        dice ^= dice >> 7;
        dice ^= dice << 17;
        // After some windows, and then at any moment within the next.
        let (mut left, delay) = (dice % 20, Duration::from_micros(dice % 9000));
        let before = kept;
        for line in output.lines() {
            let line = line.expect("text");
            // The test runner says something of its own before.
            let Some((_, number)) = line.rsplit_once("kept ") else { continue };
            kept = kept.max(1 + number.parse::<u64>().expect("a number"));
            if left == 0 {
                std::thread::sleep(delay);
                victim.kill().expect("it runs");
            }
            left = left.saturating_sub(1);
        }
        victim.wait().expect("it was started");
        assert!(kept > before, "kill {kill}: nothing was written");

        let store = open(directory.path());
        assert!(store.findings().is_empty(), "kill {kill}: {:?}", store.findings());
        assert_eq!(store.stats().problem, None, "kill {kill}");
        for kind in [ProfileKind::OnCpu, ProfileKind::OffCpu] {
            let range = TimeRange { from: window_range(0).from, to: window_range(kept).to };
            let queried = store.query(kind, &Selector::default(), range);
            // One more may have been written and not acknowledged.
            let windows = queried.covered.as_secs() / 30;
            assert!(windows == kept || windows == kept + 1, "kill {kill}: {windows} windows of {kept}");
            assert_eq!(queried.profile.total(), expected(kind, windows), "kill {kill}: {kind}");
            assert!(queried.profile.loss.is_empty(), "kill {kill}: {}", queried.profile.loss);
            kept = kept.max(windows);
        }
    }
    let store = open(directory.path());
    store.maintain();
    assert!(store.stats().windows < kept, "nothing was rolled up: the test is blunt");
}
