//! Tests of the history on disk: restarts, roll-up, retention, formats.

mod damage;
mod full;
mod large;

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use super::open::FILE;
use super::tables::{FORMAT, FORMAT_KEY, META, SEGMENTS};
use crate::model::{
    Activity, Allowance, Frame, FrameKind, Key, Labels, Pid, Profile, ProfileKind, Selector, StackQuality,
    TimeRange, Value, Wait, Window,
};
use crate::store::{CaptureAbout, CaptureResult, Queried, Store, StoreError, StoreOptions, Summary};

const DAY: u64 = 86_400;

fn at(seconds: u64) -> SystemTime {
    // An hour begins at 0.
    SystemTime::UNIX_EPOCH + Duration::from_secs(3600 * 480_000 + seconds)
}

fn range(from: u64, to: u64) -> TimeRange {
    TimeRange { from: at(from), to: at(to) }
}

fn frame(name: String) -> Arc<Frame> {
    let kind = FrameKind::User;
    Arc::new(Frame { name: name.into(), kind, module: None, address: 0, source: None, named: true })
}

/// Some rows that differ from window to window, and some that do not.
fn profile(kind: ProfileKind, seed: u64) -> Profile {
    let mut profile = Profile::new(kind);
    for row in 0..20 {
        let pid = Pid(row as u32 % 3 + 1);
        let labels = Arc::new(Labels { pid, comm: format!("comm{pid}").into(), ..Labels::default() });
        let name = if row < 15 { format!("f{row}") } else { format!("f{row} of {}", seed / 20) };
        let stack = [frame(name), frame("main".to_owned())];
        let activity = match kind {
            ProfileKind::OnCpu => Activity::OnCpu,
            _ if row % 2 == 0 => Activity::RunQueue,
            _ => Activity::Blocked(Wait::Other),
        };
        let count = 1 + (seed * 7 + row) % 11;
        profile.add_row(&labels, activity, &stack, Value::exact(count, count * 10_101_010 + seed % 3));
        profile.quality.merge(&StackQuality { records: count, ..StackQuality::default() });
    }
    profile
}

fn window(from: u64, to: u64) -> Window {
    let kinds = [ProfileKind::OnCpu, ProfileKind::OffCpu];
    let profiles = kinds.map(|kind| Arc::new(profile(kind, from)));
    Window { range: range(from, to), profiles: profiles.to_vec() }
}

fn options() -> StoreOptions {
    StoreOptions { max_age: Duration::from_secs(2 * DAY), max_bytes: 1 << 30, ..StoreOptions::default() }
}

fn open(directory: &std::path::Path) -> Store {
    Store::open(directory, options()).expect("the directory can be used")
}

fn query(store: &Store, kind: ProfileKind, from: u64, to: u64) -> Queried {
    store.query(kind, &Selector::default(), range(from, to))
}

/// The sum of rows, whatever their order.
fn rows(profile: &Profile) -> BTreeMap<String, (u64, u64)> {
    let mut rows = BTreeMap::new();
    for entry in profile.entries() {
        let names: Vec<&str> = entry.stack.iter().map(|&id| &*profile.frame(id).name).collect();
        let key = format!("{:?} {:?} {names:?}", entry.labels, entry.activity);
        rows.insert(key, (entry.value.count, entry.value.ns));
    }
    rows
}

/// On-CPU and off-CPU of a range.
fn both(store: &Store, from: u64, to: u64) -> [BTreeMap<String, (u64, u64)>; 2] {
    [ProfileKind::OnCpu, ProfileKind::OffCpu].map(|kind| rows(&query(store, kind, from, to).profile))
}

fn sum(parts: impl Iterator<Item = [BTreeMap<String, (u64, u64)>; 2]>) -> [BTreeMap<String, (u64, u64)>; 2] {
    let mut sums = [BTreeMap::new(), BTreeMap::new()];
    for part in parts {
        for (sum, rows) in sums.iter_mut().zip(part) {
            for (key, (count, ns)) in rows {
                let total: &mut (u64, u64) = sum.entry(key).or_default();
                *total = (total.0 + count, total.1 + ns);
            }
        }
    }
    sums
}

#[test]
fn windows_survive_a_restart() {
    let directory = tempfile::tempdir().expect("a directory");
    let state = directory.path().join("a/state");
    let store = open(&state);
    for from in (0..600).step_by(10) {
        assert!(store.insert(window(from, from + 10)));
    }
    let (before, loss) = (both(&store, 0, 600), store.stats().loss);
    assert_eq!(before[0].len(), 165);
    let expected: u64 =
        (0..600).step_by(10).map(|seed| profile(ProfileKind::OnCpu, seed).total().count).sum();
    assert_eq!(before[0].values().map(|value| value.0).sum::<u64>(), expected);
    drop(store);

    let mode = |path: &std::path::Path| fs::metadata(path).expect("there").permissions().mode() & 0o777;
    assert_eq!((mode(&state) & !0o022, mode(&state.join(FILE)) & !0o022), (0o750 & !0o022, 0o640));
    let store = open(&state);
    let stats = store.stats();
    assert_eq!((stats.windows, stats.oldest, stats.newest), (60, Some(at(0)), Some(at(600))));
    assert_eq!((stats.loss, stats.problem), (loss, None));
    assert!(store.findings().is_empty());
    assert_eq!(both(&store, 0, 600), before);
    // It goes on with the dictionary it has.
    assert!(store.insert(window(600, 610)));
    let queried = query(&store, ProfileKind::OffCpu, 590, 700);
    assert_eq!(queried.covered, Duration::from_secs(20));
    assert_eq!(queried.range, Some(range(590, 610)));
    assert_eq!(store.stored(ProfileKind::OnCpu), Some(range(0, 610)));
    assert_eq!(store.stored(ProfileKind::Wall), None);
}

/// Pieces of the dictionary of each segment of a store that is closed.
fn pieces(directory: &std::path::Path) -> Vec<u32> {
    use redb::ReadableDatabase as _;
    let database = redb::Database::open(directory.join(FILE)).expect("a database");
    let transaction = database.begin_read().expect("readable");
    let segments = transaction.open_table(SEGMENTS).expect("there");
    let segments = segments.range::<u64>(..).expect("readable");
    segments.map(|segment| segment.expect("readable").1.value().0).collect()
}

#[test]
fn the_dictionary_of_an_hour_that_is_over_is_put_together() {
    let directory = tempfile::tempdir().expect("a directory");
    let store = open(directory.path());
    for from in (0..600).step_by(10) {
        assert!(store.insert(window(from, from + 10)));
    }
    let before = both(&store, 0, 600);
    store.maintain();
    drop(store);
    // As long as it is written to, every window with something new adds a piece.
    let [scattered] = pieces(directory.path())[..] else { panic!("one hour") };
    assert!(scattered >= 30, "{scattered}");
    let store = open(directory.path());
    assert!(store.insert(window(3600, 3610)));
    store.maintain();
    assert_eq!(both(&store, 0, 600), before);
    // A window that comes late goes on with it.
    assert!(store.insert(window(600, 610)));
    let with_late = both(&store, 0, 610);
    assert_eq!(with_late, sum([before, both(&store, 600, 610)].into_iter()));
    drop(store);
    assert_eq!(pieces(directory.path()), [2, 1]);
    assert_eq!(both(&open(directory.path()), 0, 610), with_late);
}

#[test]
fn selectors_and_quality_count_on_disk_too() {
    let directory = tempfile::tempdir().expect("a directory");
    let (disk, memory) = (open(directory.path()), Store::new(options()));
    for from in (0..60).step_by(10) {
        let mut window = window(from, from + 10);
        let mut lossy = profile(ProfileKind::OnCpu, from);
        lossy.loss.add(crate::model::Stage::Kernel, "on-CPU ring full", from);
        lossy.quality.stopped[2] = from;
        window.profiles[0] = Arc::new(lossy);
        disk.insert(window.clone());
        memory.insert(window);
    }
    let selector = Selector::parse(r#"comm="comm2""#).expect("valid");
    let [from_disk, from_memory] =
        [&disk, &memory].map(|store| store.query(ProfileKind::OnCpu, &selector, range(0, 60)));
    assert_eq!(rows(&from_disk.profile), rows(&from_memory.profile));
    assert!(!from_disk.profile.is_empty());
    assert_eq!(from_disk.profile.quality, from_memory.profile.quality);
    assert_eq!(from_disk.profile.loss, from_memory.profile.loss);
    assert_eq!(from_disk.covered, from_memory.covered);
}

/// A recording of ten minutes, asked for in ten ranges that do not meet its windows: as sealed,
/// rolled up to minutes, and rolled up to the hour.
#[test]
fn ranges_add_up_to_the_whole_before_and_after_roll_up() {
    let directory = tempfile::tempdir().expect("a directory");
    let store = open(directory.path());
    for from in (127..727).step_by(10) {
        store.insert(window(from, from + 10));
    }
    let tiles = |store: &Store, offset: u64| {
        sum((0..11).map(|tile| both(store, offset + 60 * tile, offset + 60 * (tile + 1))))
    };
    let whole = both(&store, 127, 727);
    for offset in [127, 120, 93] {
        assert!(tiles(&store, offset) == whole, "offset {offset}");
    }

    store.insert(window(127 + 7200, 127 + 7210));
    store.maintain();
    assert_eq!(store.stats().windows, 11, "minutes 2 to 11 and the newest");
    assert_eq!(both(&store, 0, 3600), whole);
    for offset in [127, 120, 93] {
        assert!(tiles(&store, offset) == whole, "offset {offset}");
    }
    let queried = query(&store, ProfileKind::OnCpu, 0, 3600);
    assert_eq!((queried.covered, queried.range), (Duration::from_secs(600), Some(range(127, 727))));

    store.insert(window(8 * 3600, 8 * 3600 + 10));
    store.maintain();
    assert_eq!(store.stats().windows, 3);
    assert_eq!(both(&store, 0, 3600), whole);
    let queried = query(&store, ProfileKind::OffCpu, 180, 240);
    assert_eq!(rows(&queried.profile), whole[1], "a part of an hour is answered with the hour,");
    assert_eq!(queried.range, Some(range(127, 727)), "and that is said");
    drop(store);
    assert_eq!(both(&open(directory.path()), 0, 3600), whole);
}

#[test]
fn gaps_inside_a_rolled_up_window_are_not_covered() {
    let directory = tempfile::tempdir().expect("a directory");
    let store = open(directory.path());
    for from in [0, 10, 1800, 9 * 3600] {
        store.insert(window(from, from + 10));
    }
    store.maintain();
    assert_eq!(store.stats().windows, 2);
    let queried = query(&store, ProfileKind::OnCpu, 0, 3600);
    assert_eq!((queried.covered, queried.range), (Duration::from_secs(30), Some(range(0, 1810))));
}

#[test]
fn old_windows_go_and_their_dictionaries_with_them() {
    let directory = tempfile::tempdir().expect("a directory");
    let options = StoreOptions { max_age: Duration::from_secs(3 * 3600), ..options() };
    let store = Store::open(directory.path(), options).expect("usable");
    for hour in 0..12 {
        store.insert(window(hour * 3600, hour * 3600 + 10));
    }
    store.maintain();
    let stats = store.stats();
    assert_eq!((stats.windows, stats.oldest), (4, Some(at(8 * 3600))));
    assert!(stats.loss.on_cpu.is_empty(), "age is no loss");
    let disk = store.shared.disk.as_ref().expect("on disk");
    let segments = disk.read(|database| {
        use redb::ReadableDatabase as _;
        let transaction = database.begin_read()?;
        Ok(transaction.open_table(super::tables::SEGMENTS)?.range::<u64>(..)?.count())
    });
    assert_eq!(segments.expect("readable"), 4);
}

#[test]
fn the_file_stays_below_its_limit_and_what_goes_early_is_counted() {
    let directory = tempfile::tempdir().expect("a directory");
    let options = StoreOptions { max_bytes: 8 << 20, ..options() };
    let store = Store::open(directory.path(), options).expect("usable");
    let (mut all, mut most, mut dice) = (0, 0, Dice(1));
    for from in (0..12_000).step_by(10) {
        // Values that do not compress.
        let mut bulky = profile(ProfileKind::OnCpu, from);
        let rows: Vec<_> = bulky.rows().collect();
        for _ in 0..2000 {
            let (Key { labels, stack, .. }, _) = rows[dice.below(20) as usize];
            let state = Wait::Other;
            let activity = if dice.below(2) == 0 { Activity::OnCpu } else { Activity::Blocked(state) };
            let frame = bulky.frame_id(&frame(format!("g{}", dice.below(3000))));
            let stack = if dice.below(8) == 0 { stack } else { bulky.stack_id(&[frame]) };
            let key = Key { labels, stack, activity, waker: None };
            bulky.add_known(key, Value::exact(1, dice.below(1 << 40)));
        }
        all += bulky.quality.records;
        store.insert(Window { range: range(from, from + 10), profiles: vec![Arc::new(bulky)] });
        if from % 100 == 0 {
            store.maintain();
            most = most.max(store.stats().bytes);
        }
    }
    let stats = store.stats();
    assert!(most <= 8 << 20, "{most} bytes");
    assert!(most > 4 << 20, "{most} bytes: no use made of what is allowed");
    assert_eq!(stats.newest, Some(at(12_000)));
    let kept = query(&store, ProfileKind::OnCpu, 0, DAY).profile.quality.records;
    assert!(kept < all, "nothing had to go: the test is too small");
    assert_eq!(kept + stats.loss.on_cpu.total(), all);
}

#[test]
fn a_newer_format_is_refused_and_left_alone() {
    let directory = tempfile::tempdir().expect("a directory");
    drop(open(directory.path()));
    let path = directory.path().join(FILE);
    let database = redb::Database::open(&path).expect("valid");
    let transaction = database.begin_write().expect("begun");
    transaction.open_table(META).expect("there").insert(FORMAT_KEY, FORMAT + 1).expect("written");
    transaction.commit().expect("written");
    drop(database);
    let error = Store::open(directory.path(), options()).expect_err("must be refused");
    assert!(matches!(error, StoreError::Newer { found: 2, known: 1, .. }), "{error}");
    assert!(error.to_string().contains("move the file away"), "{error}");
    assert!(path.exists());
}

#[test]
fn an_older_format_is_set_aside() {
    let directory = tempfile::tempdir().expect("a directory");
    drop(open(directory.path()));
    let database = redb::Database::open(directory.path().join(FILE)).expect("valid");
    let transaction = database.begin_write().expect("begun");
    transaction.open_table(META).expect("there").insert(FORMAT_KEY, 0).expect("written");
    transaction.commit().expect("written");
    drop(database);
    let store = open(directory.path());
    assert!(store.findings()[0].message.contains("too old to read"), "{:?}", store.findings());
    assert!(store.insert(window(0, 10)));
}

#[test]
fn two_daemons_cannot_share_a_history() {
    let directory = tempfile::tempdir().expect("a directory");
    let _first = open(directory.path());
    let error = Store::open(directory.path(), options()).expect_err("must be refused");
    assert!(matches!(error, StoreError::InUse { .. }), "{error}");
}

#[test]
fn a_directory_that_cannot_be_made_is_an_error_with_a_way_out() {
    let error = Store::open("/proc/nowhere".as_ref(), options()).expect_err("must fail");
    assert!(error.to_string().contains("retention.in_memory"), "{error}");
}

#[test]
fn what_is_no_database_is_set_aside_and_only_the_last_is_kept() {
    let directory = tempfile::tempdir().expect("a directory");
    let aside = || {
        let names = fs::read_dir(directory.path()).expect("readable");
        let names = names.map(|entry| entry.expect("readable").file_name().into_string().expect("text"));
        names.filter(|name| name.starts_with("profiles.redb.corrupt-")).count()
    };
    for round in 0..3 {
        fs::write(directory.path().join(FILE), [round; 10_000]).expect("written");
        let store = open(directory.path());
        assert!(store.findings()[0].message.contains("set aside"), "{:?}", store.findings());
        assert!(store.insert(window(0, 10)));
        assert_eq!(store.stats().windows, 1);
        assert_eq!(aside(), 1);
    }
}

#[test]
fn captures_survive_a_restart_and_are_bounded() {
    let directory = tempfile::tempdir().expect("a directory");
    let options = StoreOptions { max_captures: 2, ..options() };
    let store = Store::open(directory.path(), options).expect("usable");
    let result = |id: &str, from: u64| {
        let profile = Arc::new(profile(ProfileKind::OffCpu, from));
        let range = range(from, from + 30);
        let about = CaptureAbout {
            cause: "alert Slow (3a1c)".to_owned(),
            labels: vec![("alertname".to_owned(), "Slow".to_owned())],
            pids: vec![Pid(7)],
            cgroup: Some("/a".to_owned()),
            duration: Duration::from_secs(30),
            min_block: Duration::from_millis(1),
            wakers: true,
            allowance: Allowance { events_per_second: 5, bytes: 6, millicpus: 7 },
            reason: "stopped on request".to_owned(),
        };
        let summary = Summary::of(&profile, range, range.length());
        CaptureResult { id: id.to_owned(), range, profile, summary, about }
    };
    for (from, id) in ["a", "b", "c"].into_iter().enumerate() {
        store.put_capture(result(id, from as u64));
    }
    drop(store);
    let store = Store::open(directory.path(), options).expect("usable");
    let stored = store.captures();
    assert_eq!(stored.iter().map(|capture| capture.id.as_str()).collect::<Vec<_>>(), ["b", "c"]);
    let expected = result("c", 2);
    assert_eq!((&stored[1].summary, &stored[1].about), (&expected.summary, &expected.about));
    let read = store.capture("c").expect("kept");
    assert_eq!(rows(&read.profile), rows(&expected.profile));
    assert!(store.capture("a").is_none());
}

/// Numbers that look random, the same in every run.
struct Dice(u64);

impl Dice {
    fn below(&mut self, limit: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % limit
    }
}
