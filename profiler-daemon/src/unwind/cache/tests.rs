//! Tests of the cache: what is written comes back, and nothing else does.

use std::os::unix::fs::{PermissionsExt, symlink};

use profiler_common::unwind::{bp, cfa, row};
use tempfile::TempDir;

use super::*;
use crate::unwind::evidence::Place;
use crate::unwind::{PageRows, Report};

const LIMIT: u64 = 1 << 20;

fn cache(limit: u64) -> (TempDir, Cache) {
    let parent = tempfile::tempdir().unwrap();
    let cache = Cache::open(&parent.path().join("tables"), limit).unwrap();
    (parent, cache)
}

fn key(number: u64) -> Key {
    Key::new(&format!("{number:040x}"), 4096).unwrap()
}

fn table(rows: u16) -> Table {
    use profiler_common::unwind::Rule;
    let rule = Rule { cfa: cfa::SP, bp: bp::AT_CFA, bp_offset: -16, cfa_offset: 32 };
    Table {
        base: 0x40_0000,
        pages: vec![PageRows { first_row: 0, rows: rows.into() }],
        rows: (0..rows).map(|low| row(low, low % 2)).collect(),
        rules: vec![Rule::NONE, rule],
        report: Report { functions: 7, ..Report::default() },
    }
}

fn evidence() -> Evidence {
    let places =
        vec![Place { offset: 64, size: 56, there: true }, Place { offset: 4000, size: 200, there: false }];
    Evidence { places, digest: [7; 32] }
}

fn put(cache: &Cache, key: &Key, table: &Table) {
    cache.put(key, table, &evidence());
}

fn get(cache: &Cache, key: &Key) -> Option<Table> {
    let (table, found) = cache.get(key, |_| true)?;
    assert_eq!(found, evidence());
    Some(table)
}

fn encode(key: &Key, table: &Table) -> Vec<u8> {
    format::encode(key, table, &evidence())
}

fn decode(key: &Key, bytes: &[u8]) -> Option<Table> {
    format::decode(key, bytes).map(|(table, _)| table)
}

fn only_file(cache: &Cache) -> PathBuf {
    let mut files: Vec<PathBuf> =
        fs::read_dir(&cache.directory).unwrap().map(|entry| entry.unwrap().path()).collect();
    assert_eq!(files.len(), 1, "{files:?}");
    files.remove(0)
}

#[test]
fn what_is_kept_comes_back() {
    let (_parent, cache) = cache(LIMIT);
    assert_eq!(get(&cache, &key(1)), None);
    put(&cache, &key(1), &table(9));
    assert_eq!(get(&cache, &key(1)), Some(table(9)));
    assert_eq!(get(&cache, &Key::new(&key(1).build_id, 4097).unwrap()), None);
    assert_eq!(cache.counts(), CacheCounts { hits: 1, misses: 2, ..CacheCounts::default() });
    let reopened = Cache::open(&cache.directory, LIMIT).unwrap();
    assert_eq!(get(&reopened, &key(1)), Some(table(9)));
}

#[test]
fn what_was_made_from_another_file_is_not_given_out_and_stays() {
    let (_parent, cache) = cache(LIMIT);
    put(&cache, &key(1), &table(9));
    assert_eq!(cache.get(&key(1), |found| *found != evidence()), None);
    assert_eq!(get(&cache, &key(1)), Some(table(9)));
    assert_eq!(cache.counts(), CacheCounts { hits: 1, misses: 1, foreign: 1, ..CacheCounts::default() });
}

#[test]
fn only_build_ids_name_files() {
    for id in
        ["", "abcd", "../../../../etc/passwd", "ABCDEF0123456789", "0123456789abcde", "0123456789abcdeg"]
    {
        assert_eq!(Key::new(id, 1), None, "{id}");
    }
    assert!(Key::new("0123456789abcdef", 1).is_some());
    assert_eq!(Key::new(&"a".repeat(130), 1), None);
}

#[test]
fn every_flipped_bit_and_every_cut_is_noticed() {
    let key = key(1);
    let bytes = encode(&key, &table(5));
    assert_eq!(decode(&key, &bytes), Some(table(5)));
    for at in 0..bytes.len() {
        assert_eq!(decode(&key, &bytes[..at]), None, "cut at {at}");
        for bit in 0..8 {
            let mut changed = bytes.clone();
            changed[at] ^= 1 << bit;
            assert_eq!(decode(&key, &changed), None, "bit {bit} of byte {at}");
        }
    }
    assert_eq!(decode(&key, &[bytes, vec![0]].concat()), None);
}

#[test]
fn a_bad_file_is_removed_and_counted() {
    let (_parent, cache) = cache(LIMIT);
    // Cut, emptied by a crash, another version, another program's.
    for change in [
        |bytes: &mut Vec<u8>| bytes.truncate(100),
        |bytes: &mut Vec<u8>| bytes.clear(),
        |bytes: &mut Vec<u8>| bytes[8] = 99,
        |bytes: &mut Vec<u8>| *bytes = b"#!/bin/sh\n".to_vec(),
    ] {
        put(&cache, &key(1), &table(9));
        let path = only_file(&cache);
        let mut bytes = fs::read(&path).unwrap();
        change(&mut bytes);
        fs::write(&path, bytes).unwrap();
        assert_eq!(get(&cache, &key(1)), None);
        assert!(!path.exists());
    }
    // A whole file under another's name.
    put(&cache, &key(1), &table(9));
    fs::rename(only_file(&cache), cache.directory.join(key(2).file_name())).unwrap();
    assert_eq!(get(&cache, &key(2)), None);
    assert_eq!(cache.counts().rejected, 5);
}

#[test]
fn a_table_that_does_not_hold_together_is_rejected_in_spite_of_its_digest() {
    use profiler_common::unwind::Rule;
    let mut unsound = [table(5), table(5), table(5), table(5), table(5)];
    unsound[0].pages[0].rows = 6;
    unsound[1].rows[2] = row(2, 2);
    unsound[2].rules[0] = Rule::END;
    unsound[3].base = 0x40_1000;
    unsound[4].rules[1].cfa = 8;
    for table in unsound {
        assert_eq!(decode(&key(1), &encode(&key(1), &table)), None, "{table:?}");
    }
}

#[test]
fn files_and_directory_are_for_us_alone() {
    let (parent, cache) = cache(LIMIT);
    put(&cache, &key(1), &table(9));
    let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(&only_file(&cache)), 0o600);
    assert_eq!(mode(&cache.directory) & !0o750, 0);

    for bad in [0o770, 0o757, 0o777] {
        fs::set_permissions(&cache.directory, fs::Permissions::from_mode(bad)).unwrap();
        let error = Cache::open(&cache.directory, LIMIT).unwrap_err();
        assert!(matches!(error, CacheError::Untrusted { mode, .. } if mode == bad), "{error}");
    }
    fs::set_permissions(&cache.directory, fs::Permissions::from_mode(0o700)).unwrap();
    assert!(Cache::open(&cache.directory, LIMIT).is_ok());

    let link = parent.path().join("link");
    symlink(&cache.directory, &link).unwrap();
    assert!(matches!(Cache::open(&link, LIMIT), Err(CacheError::Directory { .. })));
    assert!(matches!(Cache::open(&parent.path().join("no/such"), LIMIT), Err(CacheError::Directory { .. })));
}

#[test]
fn another_users_directory_is_refused() {
    let (_parent, cache) = cache(LIMIT);
    if std::os::unix::fs::chown(&cache.directory, Some(65534), None).is_err() {
        eprintln!("skipped: only root can give a directory away");
        return;
    }
    let error = Cache::open(&cache.directory, LIMIT).unwrap_err();
    assert!(matches!(error, CacheError::Untrusted { owner: 65534, .. }), "{error}");
}

#[test]
fn a_link_in_place_of_a_table_is_not_followed() {
    let (parent, cache) = cache(LIMIT);
    put(&cache, &key(1), &table(9));
    let elsewhere = parent.path().join("elsewhere");
    let path = only_file(&cache);
    fs::rename(&path, &elsewhere).unwrap();
    symlink(&elsewhere, &path).unwrap();
    assert_eq!(get(&cache, &key(1)), None);
    assert!(elsewhere.exists() && fs::symlink_metadata(&path).is_err());
}

#[test]
fn what_was_not_used_for_longest_goes_first() {
    let one = encode(&key(1), &table(1000)).len() as u64;
    let (_parent, cache) = cache(3 * one + one / 2);
    let used = |number: u64, ago: u64| {
        let file = File::options().write(true).open(cache.directory.join(key(number).file_name())).unwrap();
        file.set_modified(SystemTime::now() - Duration::from_secs(ago)).unwrap();
    };
    for number in 1..=3 {
        put(&cache, &key(number), &table(1000));
        used(number, 100 - number);
    }
    assert!(get(&cache, &key(1)).is_some());
    put(&cache, &key(4), &table(1000));
    let left: Vec<u64> = (1..=4).filter(|&number| get(&cache, &key(number)).is_some()).collect();
    assert_eq!((left, cache.counts().evicted), (vec![1, 3, 4], 1));
    // Too large for the whole cache: not kept, and nothing is thrown out for it.
    put(&cache, &key(5), &table(u16::MAX));
    assert_eq!((cache.counts().failed, cache.counts().evicted), (1, 1));
    assert!(get(&cache, &key(4)).is_some());
}

#[test]
fn what_a_dead_writer_left_is_swept_up_and_other_peoples_files_are_not() {
    let (_parent, cache) = cache(LIMIT);
    let path = |name: &str| cache.directory.join(name);
    for name in ["a.tmp", "b.tmp", "notes.txt"] {
        let file = File::create(path(name)).unwrap();
        let ago = if name == "b.tmp" { Duration::ZERO } else { 2 * ABANDONED };
        file.set_modified(SystemTime::now() - ago).unwrap();
    }
    put(&cache, &key(1), &table(9));
    assert!(!path("a.tmp").exists() && path("b.tmp").exists() && path("notes.txt").exists());
}

#[test]
fn writers_at_the_same_time_leave_one_whole_table() {
    let (_parent, cache) = cache(LIMIT);
    let other = Cache::open(&cache.directory, LIMIT).unwrap();
    std::thread::scope(|scope| {
        for worker in 0..4_u16 {
            let cache = if worker % 2 == 0 { &cache } else { &other };
            scope.spawn(move || {
                for round in 0..20 {
                    put(cache, &key(1), &table(100 + worker));
                    if let Some(found) = get(cache, &key(1)) {
                        assert!(found.rows.len() >= 100, "{round}");
                    }
                }
            });
        }
    });
    assert!(get(&cache, &key(1)).is_some());
    only_file(&cache);
    assert_eq!(cache.counts().rejected + other.counts().rejected, 0);
}
