//! Tests of the builder: what it makes of files that no compiler writes.

mod craft;
mod hostile;

use profiler_common::unwind::{Rule, bp, cfa};

use super::*;
use craft::{CODE, Frames, file, with};

const ENTRY: Rule = Rule { cfa: cfa::SP, cfa_offset: 8, ..Rule::NONE };
const PUSHED: Rule = Rule { cfa: cfa::SP, cfa_offset: 16, ..Rule::NONE };

fn table(frames: &Frames) -> Table {
    build_from_bytes(&with(frames)).unwrap()
}

fn check(table: &Table, expected: &[(u64, Rule)]) {
    for &(offset, rule) in expected {
        assert_eq!(table.lookup(CODE + offset), rule, "{offset:#x}");
    }
}

/// The rule of a function with this program.
fn rule(program: &[u8]) -> Rule {
    table(&Frames::new().function(0x100, 0x10, program)).lookup(CODE + 0x108)
}

#[test]
fn rows_follow_the_program() {
    // advance 1; def_cfa_offset 16; advance 4; remember; def_cfa_offset 8; advance 1; restore.
    let program = [0x41, 0x0e, 16, 0x44, 0x0a, 0x0e, 8, 0x41, 0x0b];
    let table = table(&Frames::new().function(0x100, 0x20, &program));
    check(
        &table,
        &[
            (0xff, Rule::NONE),
            (0x100, ENTRY),
            (0x101, PUSHED),
            (0x104, PUSHED),
            (0x105, ENTRY),
            (0x106, PUSHED),
            (0x11f, PUSHED),
            (0x120, Rule::NONE),
        ],
    );
    assert_eq!((table.report.functions, table.report.raw_rows(), table.report.count(Form::Sp)), (1, 4, 4));
}

#[test]
fn no_gap_takes_over_a_neighbours_rule() {
    let pushed = [0x0e, 16];
    let frames = Frames::new()
        .function(0x100, 0x18, &pushed)
        // 8 bytes of padding before an aligned function.
        .function(0x120, 0x14, &pushed)
        // 8 bytes before one that is not aligned.
        .function(0x13c, 0x14, &[])
        // 16 bytes, which could be a function.
        .function(0x160, 0x20, &[])
        // None.
        .function(0x180, 0x10, &pushed)
        // Padding before a function that starts with another rule than functions do.
        .function(0x198, 8, &[])
        .function(0x1a0, 0x2_0000, &[]);
    check(
        &table(&frames),
        &[
            (0x117, PUSHED),
            (0x118, Rule::NONE),
            (0x11f, Rule::NONE),
            (0x120, PUSHED),
            (0x134, Rule::NONE),
            (0x13c, ENTRY),
            (0x14f, ENTRY),
            (0x150, Rule::NONE),
            (0x15f, Rule::NONE),
            (0x160, ENTRY),
            (0x17f, ENTRY),
            (0x180, PUSHED),
            (0x190, Rule::NONE),
            (0x1a0, ENTRY),
            (0x2_019f, ENTRY),
            (0x2_01a0, Rule::NONE),
        ],
    );
    let frames = Frames::new().function(0x100, 0x18, &pushed).function(0x120, 0x10, &[]);
    check(&table(&frames), &[(0x117, PUSHED), (0x118, ENTRY), (0x11f, ENTRY), (0x120, ENTRY)]);
}

#[test]
fn forms_are_told_apart() {
    let sp = |cfa_offset| Rule { cfa: cfa::SP, cfa_offset, ..Rule::NONE };
    // def_cfa_register rbp after rbp was saved at CFA - 16.
    let saved = Rule { cfa: cfa::BP, bp: bp::AT_CFA, bp_offset: -16, cfa_offset: 16 };
    assert_eq!(rule(&[0x0e, 16, 0x86, 2, 0x0d, 6]), saved);
    // rbp undefined, same value, in rax.
    assert_eq!(rule(&[0x07, 6]), Rule { bp: bp::LOST, ..sp(8) });
    assert_eq!(rule(&[0x86, 2, 0x08, 6]), sp(8));
    assert_eq!(rule(&[0x09, 6, 0]), Rule { bp: bp::LOST, ..sp(8) });
    // rbp at breg6 - 16, at breg7 + 0 while the CFA is rsp + 8, by anything else.
    assert_eq!(rule(&[0x10, 6, 2, 0x76, 0x70]), Rule { bp: bp::AT_BP, bp_offset: -16, ..sp(8) });
    assert_eq!(rule(&[0x10, 6, 2, 0x77, 0]), Rule { bp: bp::AT_CFA, bp_offset: -8, ..sp(8) });
    assert_eq!(rule(&[0x10, 6, 2, 0x70, 0]), Rule { bp: bp::LOST, ..sp(8) });
    // CFA in r11, in rax by an expression, in a register that no interrupt keeps.
    let register = |number, cfa_offset| Rule { cfa: cfa::REGISTER + number, cfa_offset, ..Rule::NONE };
    assert_eq!(rule(&[0x0c, 11, 8]), register(11, 8));
    assert_eq!(rule(&[0x0f, 2, 0x70, 8]), register(0, 8));
    assert_eq!(rule(&[0x0c, 17, 8]), Rule::NONE);
    // 600 000 bytes away; beyond 32 bits.
    assert_eq!(rule(&[0x0e, 0xc0, 0xcf, 0x24]), sp(600_000));
    assert_eq!(rule(&[0x0e, 0x80, 0x80, 0x80, 0x80, 0x10]), Rule::NONE);
    // *(rbp - 40), *(rsp + 16) + 64, *(rsp + 65536): the last does not fit.
    let halves = |low: i16, high: i16| i32::from(high) << 16 | i32::from(low) & 0xffff;
    let deref = |kind, cfa_offset| Rule { cfa: kind, cfa_offset, ..Rule::NONE };
    assert_eq!(rule(&[0x0f, 3, 0x76, 0x58, 0x06]), deref(cfa::DEREF_BP, halves(-40, 0)));
    assert_eq!(rule(&[0x0f, 5, 0x77, 16, 0x06, 0x23, 64]), deref(cfa::DEREF_SP, halves(16, 64)));
    assert_eq!(rule(&[0x0f, 5, 0x77, 0x80, 0x80, 4, 0x06]), Rule::NONE);
    // *(rsp + 8 * r9 + 8) + 8; by a factor of 4.
    let indexed = |factor: u8| [0x0f, 10, 0x77, 8, 0x79, 0, 0x30 + factor, 0x1e, 0x22, 0x06, 0x23, 8];
    assert_eq!(rule(&indexed(8)), deref(cfa::INDEXED + 9, halves(8, 8)));
    assert_eq!(rule(&indexed(4)), Rule::NONE);
    // Lazy PLT entries, both thresholds.
    for threshold in [10, 11] {
        let expression = [0x77, 8, 0x80, 0, 0x3f, 0x1a, 0x30 + threshold, 0x2a, 0x33, 0x24, 0x22];
        let program = [&[0x0f, 11][..], &expression].concat();
        assert_eq!(rule(&program), deref(cfa::PLT, threshold.into()));
    }
    // Return address undefined, in rdx, at CFA - 16.
    assert_eq!(rule(&[0x07, 16]), Rule::END);
    assert_eq!(rule(&[0x09, 16, 1]), Rule::NONE);
    assert_eq!(rule(&[0x90, 2]), Rule::NONE);
    // The signal frame, and one that only looks like it.
    let signal = |ra| rule(&[0x0f, 4, 0x77, 0xa0, 1, 6, 0x10, 6, 3, 0x77, 0xf8, 0, 0x10, 16, 3, 0x77, ra, 1]);
    assert_eq!(signal(0xa8), Rule { cfa: cfa::SIGNAL, ..Rule::NONE });
    assert_eq!(signal(0xb0), Rule::NONE);
}

#[test]
fn a_mistake_costs_its_function_only() {
    let frames = Frames::new()
        .function(0x100, 0x10, &[0x44, 0x0e, 16])
        // Restores what was never remembered, after a row that was good.
        .function(0x110, 0x10, &[0x44, 0x0b])
        // No such instruction.
        .function(0x120, 0x10, &[0x3b])
        .function(0x130, 0x10, &[]);
    let table = table(&frames);
    check(&table, &[(0x10f, PUSHED), (0x110, Rule::NONE), (0x12f, Rule::NONE), (0x130, ENTRY)]);
    assert_eq!((table.report.functions, table.report.malformed), (2, 2));
}

#[test]
fn where_functions_overlap_the_later_start_wins() {
    let frames = Frames::new().function(0x100, 0x100, &[0x0e, 16]).function(0x140, 0x20, &[]).function(
        0x140,
        0x10,
        &[0x0e, 16],
    );
    let table = table(&frames);
    check(&table, &[(0x13f, PUSHED), (0x140, ENTRY), (0x15f, ENTRY), (0x160, Rule::NONE)]);
    assert_eq!(table.report.overlapping, 2);
}

#[test]
fn functions_of_no_code_are_left_out() {
    let mut frames = Frames::new().function(0x100, 0x10, &[]).function(0x200, 0, &[]);
    frames.function_at(0, 0x10, &[]);
    frames.function_at(CODE + 0x2_fff8, 0x10, &[]);
    frames.function_at(u64::MAX - 4, 0x10, &[]);
    let table = table(&frames);
    assert_eq!((table.report.functions, table.report.outside), (1, 4));
    assert_eq!(table.pages.len(), 1);
}

#[test]
fn entries_behind_an_early_terminator_count_where_the_size_is_known() {
    let mut frames = Frames::new().function(0x100, 0x10, &[]);
    frames.bytes.extend([0; 4]);
    let len = frames.bytes.len();
    frames.function_at(CODE + 0x200, 0x10, &[]);
    assert!(frames.bytes.len() > len);
    check(&table(&frames), &[(0x100, ENTRY), (0x200, ENTRY)]);
    // A section that ends within an entry keeps what came before.
    frames.bytes.truncate(len + 10);
    let table = table(&frames);
    check(&table, &[(0x100, ENTRY), (0x200, Rule::NONE)]);
    assert_eq!(table.report.truncated, 1);
}

#[test]
fn debug_frame_fills_in_and_never_overrules() {
    let frames = Frames::new().function(0x100, 0x10, &[]);
    let debug = Frames::debug().function(0x108, 0x10, &[0x0e, 16]).function(0x200, 0x10, &[0x0e, 16]);
    check(&table(&debug), &[(0x108, PUSHED), (0x200, PUSHED)]);
    let sections = [(".eh_frame", 0, &*frames.bytes), (".debug_frame", 0, &*debug.bytes)];
    let both = build_from_bytes(&file(&[], 0, &sections)).unwrap();
    check(&both, &[(0x108, ENTRY), (0x110, Rule::NONE), (0x200, PUSHED)]);
}

#[test]
fn an_entry_point_without_description_is_the_outermost_frame() {
    let frames = Frames::new().function(0x100, 0x10, &[]).function(0x130, 0x10, &[]);
    let at =
        |offset| build_from_bytes(&file(&[], CODE + offset, &[(".eh_frame", 0, &frames.bytes)])).unwrap();
    let table = at(0x110);
    check(&table, &[(0x10f, ENTRY), (0x110, Rule::END), (0x12f, Rule::END), (0x130, ENTRY)]);
    assert_eq!(table.report.entry_points, 1);
    check(&at(0x200), &[(0x1ff, Rule::NONE), (0x200, Rule::END), (0x23f, Rule::END), (0x240, Rule::NONE)]);
    // Described, or not code: nothing is added.
    assert_eq!((at(0x100).report.entry_points, at(0x40_0000).report.entry_points), (0, 0));
}

#[test]
fn signal_trampolines_are_found_by_their_code() {
    let mut code = vec![0x90; 0x200];
    code[0x80..0x89].copy_from_slice(&[0x48, 0xc7, 0xc0, 15, 0, 0, 0, 0x0f, 0x05]);
    code[0x150..0x157].copy_from_slice(&[0xb8, 15, 0, 0, 0, 0x0f, 0x05]);
    // Described by its file, which is believed.
    code[0x108..0x10f].copy_from_slice(&[0xb8, 15, 0, 0, 0, 0x0f, 0x05]);
    let frames = Frames::new().function(0x100, 0x10, &[]);
    let table = build_from_bytes(&file(&code, 0, &[(".eh_frame", 0, &frames.bytes)])).unwrap();
    let signal = Rule { cfa: cfa::SIGNAL, ..Rule::NONE };
    // The return address is the first byte, and is looked up one before.
    check(&table, &[(0x7e, Rule::NONE), (0x7f, signal), (0x88, signal), (0x89, Rule::NONE)]);
    check(&table, &[(0x108, ENTRY), (0x14e, Rule::NONE), (0x14f, signal), (0x157, Rule::NONE)]);
    assert_eq!(table.report.trampolines, 2);
}

#[test]
fn linkage_tables_without_description_are_recognised() {
    let mut code = vec![0x90; 0x200];
    code[0x100..0x110]
        .copy_from_slice(&[0xff, 0x35, 1, 2, 3, 4, 0xff, 0x25, 1, 2, 3, 4, 0x0f, 0x1f, 0x40, 0]);
    for slot in [0x110, 0x120] {
        code[slot..slot + 16].copy_from_slice(&[0xff, 0x25, 1, 2, 3, 4, 0x68, 0, 0, 0, 0, 0xe9, 1, 2, 3, 4]);
    }
    let plt = |offset: u64, frames: &Frames| {
        let sections = [(".eh_frame", 0, &*frames.bytes), (".plt", CODE + offset, &[0; 0x30][..])];
        build_from_bytes(&file(&code, 0, &sections)).unwrap()
    };
    let frames = Frames::new().function(0x40, 0x10, &[]);
    let table = plt(0x100, &frames);
    let slot = Rule { cfa: cfa::PLT, cfa_offset: 11, ..Rule::NONE };
    let sp24 = Rule { cfa: cfa::SP, cfa_offset: 24, ..Rule::NONE };
    check(&table, &[(0xff, Rule::NONE), (0x100, PUSHED), (0x105, PUSHED), (0x106, sp24), (0x10f, sp24)]);
    check(&table, &[(0x110, slot), (0x12f, slot), (0x130, Rule::NONE)]);
    assert_eq!(table.report.plt_slots, 3);
    // A table that is described, or crooked, is left alone.
    assert_eq!(plt(0x100, &Frames::new().function(0x120, 0x10, &[])).report.plt_slots, 0);
    assert_eq!(plt(0x108, &frames).report.plt_slots, 0);
}

#[test]
fn a_file_without_section_headers_gives_the_same() {
    let whole = std::fs::read("/bin/true").unwrap();
    let mut stripped = whole.clone();
    // e_shoff, e_shnum, e_shstrndx.
    stripped[40..48].fill(0);
    stripped[60..64].fill(0);
    let (whole, stripped) = (build_from_bytes(&whole).unwrap(), build_from_bytes(&stripped).unwrap());
    assert!(whole.report.functions > 10);
    assert_eq!((whole.base, whole.pages, whole.rows), (stripped.base, stripped.pages, stripped.rows));
}

#[test]
fn the_vdso_has_a_table() {
    use std::os::unix::fs::FileExt;
    let maps = std::fs::read_to_string("/proc/self/maps").unwrap();
    let range = maps.lines().find(|line| line.ends_with("[vdso]")).unwrap().split(' ').next().unwrap();
    let (start, end) = range.split_once('-').unwrap();
    let number = |digits| u64::from_str_radix(digits, 16).unwrap();
    let mut image = vec![0; (number(end) - number(start)) as usize];
    std::fs::File::open("/proc/self/mem").unwrap().read_exact_at(&mut image, number(start)).unwrap();
    let table = build_from_bytes(&image).unwrap();
    assert!(table.report.functions >= 4, "{:?}", table.report);
    assert_eq!(table.report.malformed, 0);
}

#[test]
fn what_cannot_have_a_table_says_why() {
    let message = |bytes: &[u8]| build_from_bytes(bytes).unwrap_err().to_string();
    assert_eq!(message(b"#!/bin/sh\n"), "it is not an ELF file");
    let mut other = with(&Frames::new().function(0x100, 0x10, &[]));
    assert!(message(&other[..100]).contains("it is truncated"));
    other[18] = 183;
    assert!(message(&other).contains("machine 183"));
    assert!(message(&file(&[], 0, &[])).contains("no unwinding information"));
}
