//! Tests of retention, coverage and what a query merges.

use std::time::{Duration, SystemTime};

use super::*;
use crate::model::{Activity, Frame, FrameKind, Labels, Pid, StackQuality, Stage, Value};

fn at(seconds: u64) -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_secs(1_000_000 + seconds)
}

fn range(from: u64, to: u64) -> TimeRange {
    TimeRange { from: at(from), to: at(to) }
}

fn profile(kind: ProfileKind, rows: &[(u32, &str, u64)]) -> Profile {
    let mut profile = Profile::new(kind);
    for &(pid, comm, count) in rows {
        let labels =
            Labels { pid: Pid(pid), comm: comm.into(), exe: "/bin/demo".into(), ..Labels::default() };
        let frame = Frame {
            name: "f".into(),
            kind: FrameKind::User,
            module: None,
            address: 0,
            source: None,
            named: true,
        };
        let value = Value::exact(count, count * 10_000_000);
        profile.add_row(&Arc::new(labels), Activity::OnCpu, &[Arc::new(frame)], value);
        profile.quality.merge(&StackQuality { records: count, ..StackQuality::default() });
    }
    profile
}

fn window(from: u64, to: u64, rows: &[(u32, &str, u64)]) -> Window {
    Window { range: range(from, to), profiles: vec![Arc::new(profile(ProfileKind::OnCpu, rows))] }
}

fn store(max_age: u64, max_bytes: u64) -> Store {
    Store::new(StoreOptions { max_age: Duration::from_secs(max_age), max_bytes, ..StoreOptions::default() })
}

fn query(store: &Store, from: u64, to: u64) -> Queried {
    store.query(ProfileKind::OnCpu, &Selector::default(), range(from, to))
}

#[test]
fn windows_count_whole_where_their_middle_lies_and_gaps_do_not() {
    let store = store(3600, u64::MAX);
    store.insert(window(0, 10, &[(1, "a", 1)]));
    store.insert(window(10, 20, &[(1, "a", 2)]));
    store.insert(window(40, 50, &[(1, "a", 4)]));
    let queried = query(&store, 15, 46);
    assert_eq!(queried.profile.total().count, 6);
    assert_eq!(queried.covered, Duration::from_secs(20));
    assert_eq!(queried.range, Some(range(10, 50)));
    assert_eq!(query(&store, 0, 15).profile.total().count, 1, "what the one takes, the other leaves");
    assert_eq!(query(&store, 12, 14).range, Some(range(10, 20)), "shorter than a window");
    let nothing = query(&store, 20, 40);
    assert!(nothing.profile.is_empty() && nothing.range.is_none());
    assert_eq!(nothing.covered, Duration::ZERO);
}

#[test]
fn windows_without_the_kind_cover_nothing() {
    let store = store(3600, u64::MAX);
    store.insert(window(0, 10, &[(1, "a", 1)]));
    let queried = store.query(ProfileKind::OffCpu, &Selector::default(), range(0, 10));
    assert_eq!((queried.covered, queried.range), (Duration::ZERO, None));
    assert_eq!(store.stored(ProfileKind::OnCpu), Some(range(0, 10)));
    assert_eq!(store.stored(ProfileKind::OffCpu), None);
}

#[test]
fn time_that_two_windows_share_is_covered_once() {
    let store = store(3600, u64::MAX);
    store.insert(window(0, 10, &[]));
    store.insert(window(5, 8, &[]));
    store.insert(window(6, 12, &[]));
    assert_eq!(query(&store, 0, 20).covered, Duration::from_secs(12));
}

#[test]
fn time_without_windows_is_a_gap() {
    let store = store(3600, u64::MAX);
    store.insert(window(0, 10, &[]));
    store.insert(window(30, 40, &[]));
    assert_eq!(query(&store, 5, 50).gaps, [range(10, 30), range(40, 50)]);
    assert_eq!(query(&store, 0, 10).gaps, []);
}

#[test]
fn selectors_choose_rows() {
    let store = store(3600, u64::MAX);
    store.insert(window(0, 10, &[(1, "a", 1), (2, "b", 5)]));
    let selector = Selector::parse(r#"comm="b""#).expect("valid");
    let queried = store.query(ProfileKind::OnCpu, &selector, range(0, 10));
    assert_eq!(queried.profile.total().count, 5);
    assert_eq!(store.processes(ProfileKind::OnCpu, &selector, range(0, 10)).len(), 1);
}

#[test]
fn old_windows_go_uncounted() {
    let store = store(20, u64::MAX);
    for start in [0, 10, 20, 30] {
        store.insert(window(start, start + 10, &[(1, "a", 1)]));
    }
    let stats = store.stats();
    assert_eq!((stats.windows, stats.oldest, stats.newest), (3, Some(at(10)), Some(at(40))));
    assert!(stats.loss.of(ProfileKind::Wall).is_empty());
}

#[test]
fn windows_evicted_early_are_counted_and_the_newest_stays() {
    let one = window(0, 10, &[(1, "a", 3)]);
    let bytes = one.profiles[0].memory_bytes() as u64;
    let store = store(3600, bytes);
    store.insert(one);
    assert_eq!(store.stats().bytes, bytes);
    store.insert(window(10, 20, &[(1, "a", 4), (2, "b", 4)]));
    let stats = store.stats();
    assert_eq!((stats.windows, stats.oldest), (1, Some(at(10))));
    assert!(stats.bytes > bytes, "larger than allowed, and kept all the same");
    let lines: Vec<_> = stats.loss.on_cpu.iter().map(|line| (line.stage, line.count)).collect();
    assert_eq!(lines, [(Stage::Store, 3)]);
}

#[test]
fn processes_are_named_after_their_heaviest_thread() {
    let rows = processes(&profile(ProfileKind::OnCpu, &[(1, "idle", 1), (1, "work", 4), (2, "b", 9)]));
    let rows: Vec<_> =
        rows.iter().map(|row| (row.labels.pid.0, &**row.labels.process_name(), row.value)).collect();
    assert_eq!(rows, [(2, "b", 9), (1, "work", 5)]);
}

#[test]
fn a_summary_knows_the_frequency() {
    let profile = profile(ProfileKind::OnCpu, &[(1, "a", 5)]);
    let summary = Summary::of(&profile, range(0, 10), Duration::from_secs(10));
    assert_eq!((summary.total, summary.records), (5, 5));
    assert!((summary.frequency_hz - 100.0).abs() < 1e-9);
}

#[test]
fn results_are_bounded_in_number_and_bytes() {
    let result = |id: &str| {
        let profile = profile(ProfileKind::OffCpu, &[(1, "a", 1)]);
        let summary = Summary::of(&profile, range(0, 1), Duration::from_secs(1));
        CaptureResult {
            id: id.to_owned(),
            range: range(0, 1),
            profile: Arc::new(profile),
            summary,
            about: CaptureAbout::default(),
        }
    };
    let bytes = result("x").profile.memory_bytes() as u64;
    let kept = |max_captures, max_capture_bytes| {
        let store = Store::new(StoreOptions { max_captures, max_capture_bytes, ..StoreOptions::default() });
        for id in ["a", "b", "c"] {
            store.put_capture(result(id));
        }
        ["a", "b", "c"].map(|id| store.capture(id).is_some())
    };
    assert_eq!(kept(2, u64::MAX), [false, true, true]);
    assert_eq!(kept(9, 2 * bytes), [false, true, true]);
    assert_eq!(kept(9, 0), [false, false, true]);
}
