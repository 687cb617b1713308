//! Tests of the history on disk: restarts, roll-up, retention, damage, and a full disk.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::Write as _;
use std::os::unix::fs::{FileExt as _, PermissionsExt as _};
use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use super::open::FILE;
use super::tables::{FORMAT, FORMAT_KEY, META};
use crate::model::{
    Activity, Frame, FrameKind, Labels, Pid, Profile, ProfileKind, Selector, StackQuality, TaskState,
    TimeRange, Value, Window,
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
            _ => Activity::Blocked(TaskState::Interruptible),
        };
        let count = 1 + (seed * 7 + row) % 11;
        profile.add_row(&labels, activity, &stack, Value { count, ns: count * 10_101_010 + seed % 3 });
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
    let expected: u64 = (0..600).step_by(10).map(|seed| profile(ProfileKind::OnCpu, seed).total().count).sum();
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
    let tiles = |store: &Store, offset: u64| sum((0..11).map(|tile| {
        both(store, offset + 60 * tile, offset + 60 * (tile + 1))
    }));
    let whole = both(&store, 127, 727);
    for offset in [127, 120, 93] {
        assert_eq!(tiles(&store, offset), whole, "offset {offset}");
    }

    store.insert(window(127 + 7200, 127 + 7210));
    store.maintain();
    assert_eq!(store.stats().windows, 12, "minutes 2 to 12 and the newest");
    assert_eq!(both(&store, 0, 3600), whole);
    for offset in [127, 120, 93] {
        assert_eq!(tiles(&store, offset), whole, "offset {offset}");
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
    let options = StoreOptions { max_bytes: 2 << 20, ..options() };
    let store = Store::open(directory.path(), options).expect("usable");
    for from in (0..14_400).step_by(10) {
        store.insert(window(from, from + 10));
        if from % 600 == 0 {
            store.maintain();
        }
    }
    store.maintain();
    let stats = store.stats();
    assert!(stats.bytes < 3 << 20, "{} bytes", stats.bytes);
    assert_eq!(stats.newest, Some(at(14_400)));
    let kept = query(&store, ProfileKind::OnCpu, 0, DAY).profile.quality.records;
    let all: u64 =
        (0..14_400).step_by(10).map(|seed| profile(ProfileKind::OnCpu, seed).quality.records).sum();
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
            pids: vec![Pid(7)],
            cgroup: Some("/a".to_owned()),
            duration: Duration::from_secs(30),
            min_block: Duration::from_millis(1),
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
        // It goes on, if need be with a new file.
        store.maintain();
        store.insert(window(5000, 5010));
        store.maintain();
        assert!(store.stats().windows > 0, "round {round}");
        assert!(!query(&store, ProfileKind::OnCpu, 5000, 5010).profile.is_empty(), "round {round}");
    }
    assert!(noticed > 10 && unharmed > 0, "{noticed} noticed, {unharmed} unharmed: the test is blunt");
}

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
    let expected = sum((0..250).step_by(10).map(|from| {
        [ProfileKind::OnCpu, ProfileKind::OffCpu].map(|kind| rows(&profile(kind, from)))
    }));
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
    let expected = sum((0..3000).step_by(10).map(|from| {
        [ProfileKind::OnCpu, ProfileKind::OffCpu].map(|kind| rows(&profile(kind, from)))
    }));
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
