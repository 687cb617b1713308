//! Tests with files made to mislead: no panic, no hang, no more memory than the limits say.

use std::os::fd::AsFd;
use std::sync::LazyLock;

use profiler_common::unwind::MAX_ROWS_PER_PAGE;
use proptest::prelude::*;

use super::craft::{CODE, CODE_SIZE, Frames, with};
use super::*;

static PROGRAM: LazyLock<Vec<u8>> = LazyLock::new(|| std::fs::read("/bin/true").unwrap());

/// What must hold of every table, whatever it was made from.
fn sound(table: &Table) {
    for page in &table.pages {
        let first = page.first_row as usize;
        let rows = &table.rows[first..first + page.rows as usize];
        assert!(page.rows <= MAX_ROWS_PER_PAGE && rows.windows(2).all(|pair| pair[0] >> 16 < pair[1] >> 16));
    }
    for (address, rule) in table.boundaries() {
        assert_eq!(table.lookup(address), rule);
    }
}

fn build(bytes: &[u8]) {
    if let Ok(table) = build_from_bytes(bytes) {
        sound(&table);
    }
}

/// Where `.eh_frame` of the program is.
fn eh_frame() -> std::ops::Range<usize> {
    use object::{Object as _, ObjectSection as _};
    let file = object::File::parse(&**PROGRAM).unwrap();
    let (offset, size) = file.section_by_name(".eh_frame").unwrap().file_range().unwrap();
    offset as usize..(offset + size) as usize
}

proptest! {
    #[test]
    fn changed_bytes_of_a_real_section(changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..20)) {
        let (mut bytes, section) = (PROGRAM.clone(), eh_frame());
        for (at, value) in changes {
            let at = section.start + at.index(section.len());
            bytes[at] = value;
        }
        build(&bytes);
    }

    #[test]
    fn changed_bytes_of_real_headers(changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..10)) {
        let mut bytes = PROGRAM.clone();
        // Section headers are the last in the file.
        let places: Vec<usize> = (0..1024).chain(bytes.len() - 2048..bytes.len()).collect();
        for (at, value) in changes {
            bytes[places[at.index(places.len())]] = value;
        }
        build(&bytes);
    }

    #[test]
    fn a_real_file_cut_anywhere(at: prop::sample::Index) {
        build(&PROGRAM[..at.index(PROGRAM.len())]);
    }

    #[test]
    fn any_program(programs in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..40), 1..10)) {
        let frames = programs.iter().zip(0..).fold(Frames::new(), |frames, (program, at)| {
            frames.function(at * 0x40, 0x48, program)
        });
        build(&with(&frames));
    }

    #[test]
    fn any_section(bytes in prop::collection::vec(any::<u8>(), 0..400)) {
        let mut frames = Frames::new();
        frames.bytes.extend(bytes);
        build(&with(&frames));
    }
}

#[test]
fn a_page_full_of_rows_is_dropped_and_counted() {
    let program: Vec<u8> = (0..=0xffff_u16).flat_map(|at| [0x0e, 8 + 8 * (at % 2) as u8, 0x41]).collect();
    let table = table(&Frames::new().function(0, CODE_SIZE as u64, &program));
    sound(&table);
    assert_eq!(table.report.dropped_pages, 1);
    assert_eq!((table.lookup(CODE + 5), table.lookup(CODE + 0x1_0005)), (Rule::NONE, PUSHED));
}

#[test]
fn too_many_distinct_rules_are_counted() {
    // One more than there are numbers, next to the rule for none and the one functions start with.
    let mut program = Vec::new();
    for offset in 0_u32..70_000 {
        // DW_CFA_def_cfa_offset with three bytes, advance 1.
        program.extend([0x0e, offset as u8 | 0x80, (offset >> 7) as u8 | 0x80, (offset >> 14) as u8, 0x41]);
    }
    let table = table(&Frames::new().function(0, CODE_SIZE as u64, &program));
    sound(&table);
    assert!(table.report.dropped_rules > 70_000 - 65_536);
    assert!(table.rules.len() <= 65_536);
}

#[test]
fn a_section_that_claims_to_be_huge_is_refused_before_it_is_read() {
    let mut bytes = with(&Frames::new().function(0x100, 0x10, &[]));
    let at = bytes.len() - 2 * 64 + 32;
    bytes[at..at + 8].copy_from_slice(&(1_u64 << 32).to_le_bytes());
    let file = tempfile::tempfile().unwrap();
    rustix::io::pwrite(&file, &bytes, 0).unwrap();
    // Sparse, and truly that long.
    file.set_len(1 << 33).unwrap();
    let error = build_from_file(&file.as_fd()).unwrap_err();
    assert!(matches!(error, Problem::TooLarge { what: ".eh_frame", .. }), "{error}");
}

#[test]
fn a_common_entry_that_all_functions_would_have_to_run_is_refused() {
    let mut frames = Frames::new();
    frames.bytes[0..4].copy_from_slice(&(1_u32 << 20).to_le_bytes());
    frames.bytes.resize((1 << 20) + 4, 0);
    let huge = frames.function(0x100, 0x10, &[]);
    let error = build_from_bytes(&with(&huge)).unwrap_err();
    assert!(matches!(error, Problem::NoInformation), "{error}");
}

#[test]
fn a_million_remembered_states_are_not_kept() {
    let program = [0x0a; 1 << 20];
    let table = table(&Frames::new().function(0x100, 0x10, &program).function(0x200, 0x10, &[]));
    assert_eq!((table.report.malformed, table.report.functions), (1, 1));
}
