//! Tests of what is too large for one value, and of names and windows that must not be taken twice.

use std::fs;

use super::*;
use crate::store::disk::open::set_aside;

fn result(id: &str, from: u64, profile: Profile) -> CaptureResult {
    let (range, profile) = (range(from, from + 30), Arc::new(profile));
    let summary = Summary::of(&profile, range, range.length());
    CaptureResult { id: id.to_owned(), range, profile, summary, about: CaptureAbout::default() }
}

/// One row whose name no value takes.
fn too_large(kind: ProfileKind) -> Profile {
    let mut profile = Profile::new(kind);
    let name = "x".repeat(65 << 20);
    let value = Value::exact(3, 3_000_000);
    profile.add_row(&Arc::new(Labels::default()), Activity::OnCpu, &[frame(name)], value);
    profile.quality.records = 3;
    profile
}

#[test]
fn what_is_too_large_is_left_out_with_a_count_and_nothing_else_is_touched() {
    let directory = tempfile::tempdir().expect("a directory");
    let store = open(directory.path());
    store.insert(window(0, 10));
    store.put_capture(result("small", 0, profile(ProfileKind::OffCpu, 1)));
    store.put_capture(result("large", 1, too_large(ProfileKind::OffCpu)));
    let large = Window { range: range(10, 20), profiles: vec![Arc::new(too_large(ProfileKind::OnCpu))] };
    assert!(!store.insert(large));
    for _ in 0..2 {
        store.maintain();
    }
    store.insert(window(20, 30));
    let stats = store.stats();
    assert_eq!((stats.windows, stats.pending, &stats.problem), (2, 0, &None));
    assert!(store.findings().is_empty(), "{:?}", store.findings());
    assert_eq!((stats.loss.on_cpu.total(), stats.loss.off_cpu.total()), (3, 3), "{:?}", stats.loss);
    assert!(store.capture("small").is_some() && store.capture("large").is_none());
    let files = fs::read_dir(directory.path()).expect("readable").count();
    assert_eq!(files, 1, "something was set aside");
}

#[test]
fn a_large_capture_is_stored_in_pieces_and_goes_with_all_of_them() {
    let directory = tempfile::tempdir().expect("a directory");
    let options = StoreOptions { max_captures: 2, ..options() };
    let store = Store::open(directory.path(), options).expect("usable");
    let mut large = Profile::new(ProfileKind::OffCpu);
    let frames: Vec<u32> = (0..600).map(|name| large.frame_id(&frame(format!("f{name}")))).collect();
    let stacks: Vec<u32> = (0..4000)
        .map(|stack: usize| {
            let ids: Vec<u32> = (0..500).map(|depth| frames[(stack * (depth + 1)) % 600]).collect();
            large.stack_id(&[&[frames[stack % 600], frames[stack / 600]], ids.as_slice()].concat())
        })
        .collect();
    for pid in 0..60 {
        let labels = large.labels_id(&Arc::new(Labels { pid: Pid(pid), ..Labels::default() }));
        for &stack in &stacks {
            let key = Key { labels, stack, activity: Activity::RunQueue, waker: None };
            large.add_known(key, Value::exact(1, u64::from(pid) + 1));
        }
    }
    large.quality.records = 7;
    assert_eq!(large.row_count(), 240_000);
    store.put_capture(result("a", 0, large.clone()));
    store.flush();
    let values = || {
        let disk = store.shared.disk.as_ref().expect("on disk");
        let count = disk.read(|database| {
            use redb::{ReadableDatabase as _, ReadableTableMetadata as _};
            Ok(database.begin_read()?.open_table(super::super::tables::RESULTS)?.len()?)
        });
        count.expect("readable")
    };
    assert!(values() > 4, "{} values: the test is too small", values());
    let read = store.capture("a").expect("stored");
    assert_eq!((read.profile.row_count(), read.profile.total()), (large.row_count(), large.total()));
    assert_eq!(read.profile.quality, large.quality);
    // The same again takes its place, and two others end it.
    store.put_capture(result("a", 0, profile(ProfileKind::OffCpu, 1)));
    store.flush();
    assert_eq!(store.capture("a").map(|read| read.profile.row_count()), Some(20));
    for (from, id) in [(1, "b"), (2, "c")] {
        store.put_capture(result(id, from, profile(ProfileKind::OffCpu, 1)));
        store.flush();
    }
    assert!(store.capture("a").is_none());
    assert_eq!(values(), 4);
}

#[test]
fn files_that_are_set_aside_in_the_same_second_do_not_replace_each_other() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join(FILE);
    for bytes in [10_000, 100, 200, 300] {
        fs::write(&path, vec![0; bytes]).expect("written");
        set_aside(&path, "corrupt", "damaged".to_owned()).expect("set aside");
    }
    let files = fs::read_dir(directory.path()).expect("readable");
    let mut lengths: Vec<u64> =
        files.map(|file| file.expect("there").metadata().expect("there").len()).collect();
    lengths.sort_unstable();
    assert_eq!(lengths, [300, 10_000], "the last, and the one that holds most");
}

/// What fails once a window is committed must not make its caller write it again.
#[test]
fn a_window_that_is_written_counts_once() {
    let directory = tempfile::tempdir().expect("a directory");
    let store = open(directory.path());
    let disk = store.shared.disk.as_ref().expect("on disk");
    let written = disk.write(|writer, database| {
        writer.window(database, &window(0, 10))?;
        // Closed meanwhile: nothing can be read back.
        *disk.database.write().expect("no panic") = None;
        Ok(())
    });
    assert!(written.is_ok(), "{written:?}");
    store.maintain();
    assert_eq!(store.stats().windows, 1);
}
