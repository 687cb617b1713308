//! What the fuzz targets share: the rooms that read what may be damaged or forged, and what must hold of it.
//!
//! The rooms are compiled from their sources: to build the whole daemon with sanitizers would take
//! longer than the fuzzing.

#[path = "../../../profiler-daemon/src/model/mod.rs"]
pub mod model;
#[path = "../../../profiler-daemon/src/procs/mod.rs"]
pub mod procs;
pub mod store;
#[path = "../../../profiler-daemon/src/unwind/mod.rs"]
pub mod unwind;

use profiler_common::unwind::{MAX_ROWS_PER_PAGE, Rule, row_rule};

use unwind::Table;

/// Panics unless the kernel half can walk the table.
pub fn check(table: &Table) {
    assert_eq!(table.base % (1 << 16), 0);
    assert_eq!(table.rules.first(), Some(&Rule::NONE));
    assert!(table.rows.iter().all(|&row| usize::from(row_rule(row)) < table.rules.len()));
    for page in &table.pages {
        assert!(page.rows <= MAX_ROWS_PER_PAGE);
        let first = page.first_row as usize;
        let rows = &table.rows[first..first + page.rows as usize];
        assert!(rows.windows(2).all(|pair| pair[0] >> 16 < pair[1] >> 16));
    }
    for (address, rule) in table.boundaries() {
        assert_eq!(table.lookup(address), rule);
    }
    let end = table.base + ((table.pages.len() as u64) << 16);
    for address in [table.base.wrapping_sub(1), end, u64::MAX] {
        assert_eq!(table.lookup(address), Rule::NONE);
    }
}

/// Address of the code in files of [`file_with`].
pub const CODE: u64 = 0xf0_0000;

/// Address of the section in files of [`file_with`]: right behind the code, as in small real files,
/// so that what they count from their own place falls into it.
pub const EH_FRAME: u64 = 0x100_0000;

/// An ELF file with 1 MiB of code that is not there, and these bytes as `.eh_frame`.
pub fn file_with(eh_frame: &[u8]) -> Vec<u8> {
    let mut file = Vec::new();
    let names = b"\0.eh_frame\0.names\0";
    let size = eh_frame.len() as u64;
    let names_at = 64 + 56 + size;
    let sections_at = names_at + names.len() as u64;
    file.extend(b"\x7fELF\x02\x01\x01\0\0\0\0\0\0\0\0\0");
    file.extend([3, 0, 62, 0, 1, 0, 0, 0]);
    for number in [CODE + 0x20, 64, sections_at] {
        file.extend(number.to_le_bytes());
    }
    for half in [0, 0, 64, 56, 1, 64, 3, 2_u16] {
        file.extend(half.to_le_bytes());
    }
    // PT_LOAD, readable and executable.
    file.extend([1, 0, 0, 0, 5, 0, 0, 0]);
    for number in [0, CODE, CODE, 1 << 20, 1 << 20, 4096_u64] {
        file.extend(number.to_le_bytes());
    }
    file.extend(eh_frame);
    file.extend(names);
    file.extend([0; 64]);
    for (name, address, offset, size) in
        [(1_u32, EH_FRAME, 64 + 56, size), (11, 0, names_at, names.len() as u64)]
    {
        file.extend(name.to_le_bytes());
        file.extend(1_u32.to_le_bytes());
        for number in [2, address, offset, size, 0, 8, 0] {
            file.extend(number.to_le_bytes());
        }
    }
    file
}
