//! The tables in real BPF maps; what needs no maps needs no root.

use profiler_common::unwind::{cfa, row, row_rule};

use super::super::load::{self, Options};
use super::super::privilege;
use super::super::types::Types;
use super::*;
use crate::model::Pid;

/// Tables in maps of one chunk of rows; `None`, after saying so, without root.
fn tables() -> Option<Tables> {
    if privilege::must_skip() {
        return None;
    }
    let options = Options { table_bytes: 1, ..Options::for_rate(1, 1) };
    let (mut ebpf, sizes) = load::load(&options, &mut Types::default()).unwrap();
    assert_eq!(sizes.chunks, 1);
    Some(Tables::take(&mut ebpf, sizes).unwrap())
}

fn rule(offset: i32) -> Rule {
    Rule { cfa: cfa::SP, cfa_offset: offset, ..Rule::NONE }
}

fn id(pid: u32, start_ticks: u64) -> ProcessId {
    ProcessId { pid: Pid(pid), start_ticks }
}

fn mapping(start: u64) -> Mapping {
    Mapping { start, end: start + 0x1000, ..Mapping::default() }
}

fn entry(tables: &Tables, pid: u32) -> Option<ProcessEntry> {
    let bytes = tables.processes.get(&pid, 0).ok()?;
    ProcessEntry::read_from_bytes(&bytes).ok()
}

/// The list a process's entry names, as the programs read it.
fn listed(tables: &Tables, pid: u32) -> Vec<u64> {
    let entry = entry(tables, pid).unwrap();
    let mapping = |index: u32| {
        let at = (entry.first_mapping + index) as usize * size_of::<Mapping>();
        Mapping::read_from_bytes(&tables.mappings.read(at, size_of::<Mapping>())).unwrap().start
    };
    (0..entry.mappings).map(mapping).collect()
}

fn number(array: &MappedArray, slot: usize) -> u64 {
    u64::from_ne_bytes(array.read(slot * 8, 8).try_into().unwrap())
}

/// One page with this many rows.
fn one_page(rows: u32) -> ([(u32, u32); 1], Vec<u32>) {
    ([(0, rows)], (0..rows).map(|low| row(low as u16, 0)).collect())
}

#[test]
fn groups_hold_neighbouring_pages_and_lose_none() {
    const FULL: u32 = ROWS_PER_CHUNK as u32 / 8;
    let sizes = [5, 0, FULL, 1, FULL - 1, 2, FULL + 7, 0, 3];
    let mut first = 0;
    let pages: Vec<(u32, u32)> = sizes
        .iter()
        .map(|&rows| {
            first += rows;
            (first - rows, rows)
        })
        .collect();
    let grouped: Vec<Vec<(u32, u32)>> = groups(&pages).map(<[_]>::to_vec).collect();
    assert_eq!(grouped.concat(), pages);
    for group in &grouped {
        let rows: u32 = group.iter().map(|page| page.1).sum();
        assert!(rows <= FULL || group.len() == 1, "{group:?}");
    }
    let rows: Vec<Vec<u32>> = grouped.iter().map(|group| group.iter().map(|page| page.1).collect()).collect();
    assert_eq!(rows, [vec![5, 0], vec![FULL], vec![1, FULL - 1], vec![2], vec![FULL + 7], vec![0, 3]]);
    assert_eq!(groups(&[]).count(), 0);
}

#[test]
fn a_table_is_found_where_it_is_said_to_be() {
    let Some(mut tables) = tables() else { return };
    // Another one first, so that neither pages nor rows nor rules begin at 0.
    tables.install(&[(0, 1)], &[row(9, 0)], &[rule(99)]).unwrap();
    let pages = [(0, 2), (2, 0), (2, 1)];
    let installed = tables.install(&pages, &[row(1, 1), row(5, 0), row(7, 1)], &[rule(8), rule(16)]).unwrap();
    assert_eq!(installed.pages, 3);
    let rules_of = |page: u32| -> Vec<(u32, u64)> {
        let page = number(&tables.pages, (installed.first_page + page) as usize);
        let (first, count) = ((page >> 32) as usize, page as u32 as usize);
        let rows = (first..first + count).map(|index| {
            let row = u32::from_ne_bytes(tables.rows.read(index * 4, 4).try_into().unwrap());
            (row >> 16, number(&tables.rules, row_rule(row).into()))
        });
        rows.collect()
    };
    assert_eq!(rules_of(0), [(1, rule(16).pack()), (5, rule(8).pack())]);
    assert_eq!(rules_of(1), []);
    assert_eq!(rules_of(2), [(7, rule(16).pack())]);
    assert_eq!(number(&tables.rules, 0), Rule::NONE.pack(), "number 0 is no rule");
    assert_eq!((tables.stats().tables, tables.stats().rows.0), (2, 4));
}

#[test]
fn room_is_used_again_only_after_it_was_collected() {
    let Some(mut tables) = tables() else { return };
    // More than half of all rows in one table.
    let pages: Vec<(u32, u32)> = (0..5).map(|page| (page * 30_000, 30_000)).collect();
    let rows: Vec<u32> = (0..150_000_u32).map(|index| row((index % 30_000) as u16, 0)).collect();
    let first = tables.install(&pages, &rows, &[rule(8)]).unwrap();
    let error = tables.install(&pages, &rows, &[rule(8)]).unwrap_err();
    assert_eq!(error, NoRoom(150_000, "rows"));
    // The attempt that failed has left nothing behind.
    let (small, small_rows) = one_page(20_000);
    let other = tables.install(&small, &small_rows, &[rule(8)]).unwrap();
    tables.remove(first);
    assert_eq!(tables.install(&pages, &rows, &[rule(8)]), Err(NoRoom(150_000, "rows")));
    tables.collect();
    let again = tables.install(&pages, &rows, &[rule(8)]).unwrap();
    assert!(again.rows.iter().all(|range| !other.rows.contains(range)), "{again:?} {other:?}");
    assert_eq!(tables.stats().rows.0, 170_000);
}

#[test]
fn a_process_has_the_list_that_was_published_last() {
    let Some(mut tables) = tables() else { return };
    tables.publish(id(7, 1), &[mapping(0x1000), mapping(0x3000)]).unwrap();
    let before = entry(&tables, 7).unwrap();
    assert_eq!((before.start_ticks, listed(&tables, 7)), (1, vec![0x1000, 0x3000]));
    tables.publish(id(7, 1), &[mapping(0x5000)]).unwrap();
    let after = entry(&tables, 7).unwrap();
    assert_eq!(listed(&tables, 7), [0x5000]);
    assert_ne!(after.list, before.list, "a number is never used for two lists");
    assert_ne!(after.first_mapping, before.first_mapping, "what may be being read is not written over");
    assert_eq!(tables.stats().processes, 1);
    tables.forget(id(7, 1));
    assert!(entry(&tables, 7).is_none());
    // Another process with the same pid keeps its own.
    tables.publish(id(7, 2), &[mapping(0x9000)]).unwrap();
    tables.forget(id(7, 1));
    assert_eq!(listed(&tables, 7), [0x9000]);
}

#[test]
fn what_a_child_inherited_is_kept_until_the_child_is_gone() {
    let Some(mut tables) = tables() else { return };
    let (pages, rows) = one_page(10);
    let table = tables.install(&pages, &rows, &[rule(8)]).unwrap();
    tables.publish(id(7, 1), &[mapping(0x1000)]).unwrap();
    let inherited = entry(&tables, 7).unwrap();
    // What the program does at a fork.
    let mut bytes = [0; size_of::<ProcessEntry>()];
    bytes.copy_from_slice(ProcessEntry { start_ticks: 2, ..inherited }.as_bytes());
    tables.processes.insert(8, bytes, 0).unwrap();

    // The parent execs or loads a library: its old list is retired, and with it a table.
    tables.publish(id(7, 1), &[mapping(0x5000)]).unwrap();
    tables.remove(table);
    tables.collect();
    assert_eq!(listed(&tables, 8), [0x1000]);
    assert!(tables.lists.contains_key(&inherited.list));
    assert_eq!(tables.retired_tables.len(), 1, "the child's mappings may refer to it");
    for start in 0..8 {
        // Nothing new is written over it.
        tables.publish(id(9, 1), &[mapping(0x10_000 * (start + 1))]).unwrap();
        tables.collect();
    }
    assert_eq!(listed(&tables, 8), [0x1000]);

    tables.processes.remove(&8).unwrap();
    tables.collect();
    assert!(!tables.lists.contains_key(&inherited.list));
    assert!(tables.retired_tables.is_empty() && tables.retired_lists.is_empty());
    let published = tables.lists.len();
    assert_eq!(published, 2, "one list for each process: {:?}", tables.lists);
}

#[test]
fn a_process_without_room_for_its_list_is_unknown_not_wrong() {
    let Some(mut tables) = tables() else { return };
    tables.publish(id(7, 1), &[mapping(0x1000)]).unwrap();
    // Lists of the greatest length, until none fits.
    let long = |pid: u32| -> Vec<Mapping> {
        (0..u64::from(MAX_MAPPINGS)).map(|index| mapping(0x10_000 * index + u64::from(pid))).collect()
    };
    let refused =
        (100..).find_map(|pid| tables.publish(id(pid, 1), &long(pid)).err().map(|error| (pid, error)));
    let (pid, error) = refused.unwrap();
    assert_eq!(error, NoRoom(MAX_MAPPINGS.into(), "mappings"));
    assert!(entry(&tables, pid).is_none());
    let starts = |pid| -> Vec<u64> { long(pid).iter().map(|mapping| mapping.start).collect() };
    // Among them are some that lie in two pieces that are mapped one after the other.
    assert!((100..pid).all(|pid| listed(&tables, pid) == starts(pid)));
    assert_eq!(tables.publish(id(7, 1), &long(7)), Err(error));
    assert!(entry(&tables, 7).is_none(), "its old list holds no more");
    // When others go there is room.
    tables.forget(id(100, 1));
    tables.collect();
    tables.publish(id(7, 1), &long(7)).unwrap();
    assert_eq!(listed(&tables, 7).len(), MAX_MAPPINGS as usize);
}

#[test]
fn processes_that_map_the_same_share_a_list() {
    let Some(mut tables) = tables() else { return };
    let same = [mapping(0x1000), mapping(0x3000)];
    for pid in 7..1000 {
        tables.publish(id(pid, 1), &same).unwrap();
    }
    tables.publish(id(7, 1), &same).unwrap();
    assert_eq!(tables.lists.len(), 1, "{:?}", tables.lists);
    for pid in 7..999 {
        tables.forget(id(pid, 1));
        assert!(tables.retired_lists.is_empty());
    }
    assert_eq!(listed(&tables, 999), [0x1000, 0x3000]);
    let list = entry(&tables, 999).unwrap().list;
    tables.forget(id(999, 1));
    // Nobody's any more: whoever comes now gets another one, since this one's room may go.
    tables.publish(id(7, 1), &same).unwrap();
    assert_ne!(entry(&tables, 7).unwrap().list, list);
    tables.collect();
    assert_eq!((tables.lists.len(), listed(&tables, 7)), (1, vec![0x1000, 0x3000]));
}

#[test]
fn one_file_does_not_take_the_rules_of_others() {
    let Some(mut tables) = tables() else { return };
    let (pages, rows) = one_page(10);
    let many = |first: i32| -> Vec<Rule> { (first..first + 8192).map(rule).collect() };
    let too_many: Vec<Rule> = (0..8193).map(rule).collect();
    assert_eq!(tables.install(&pages, &rows, &too_many), Err(NoRoom(8193, "rules")));
    assert_eq!(tables.rule_ids.numbers.len(), 1, "the attempt that failed has left nothing behind");

    let mut installed: Vec<InstalledTable> =
        (0..7).map(|file| tables.install(&pages, &rows, &many(file * 8192)).unwrap()).collect();
    // Some rules are left, not as many.
    assert_eq!(tables.install(&pages, &rows, &many(100_000)), Err(NoRoom(8192, "rules")));
    // Known ones take no more.
    let same = tables.install(&pages, &rows, &many(0)).unwrap();
    tables.remove(installed.remove(0));
    tables.collect();
    assert_eq!(tables.install(&pages, &rows, &many(100_000)), Err(NoRoom(8192, "rules")), "still in use");
    tables.remove(same);
    tables.collect();
    let other = tables.install(&pages, &rows, &many(100_000)).unwrap();
    let number_of = |tables: &Tables, table: &InstalledTable, index: usize| {
        number(&tables.rules, table.rules[index].into())
    };
    assert_eq!(number_of(&tables, &other, 17), rule(100_017).pack());
    assert_eq!(number_of(&tables, &installed[0], 17), rule(8192 + 17).pack(), "others keep theirs");
}
