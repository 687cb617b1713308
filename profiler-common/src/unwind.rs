//! Unwinding tables as the kernel half walks them: rows by 64 KiB page, shared rules, mappings.
//!
//! A pc is looked up in four steps: its mapping among those of its process, the page of its file
//! address, the row in force there, that row's rule. Everything is a plain integer in an array.

#[cfg(feature = "user")]
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// Bytes of text that one page of rows covers, as a power of two.
pub const PAGE_SHIFT: u32 = 16;

/// Rows in one value of the row array. The rows of one page never straddle two values.
pub const ROWS_PER_CHUNK: usize = 1 << 18;

/// Most rows of one page: the kernel half searches this many at most.
pub const MAX_ROWS_PER_PAGE: u32 = 1 << 15;

/// Most distinct rules of all tables together; a row has 16 bits for one.
pub const MAX_RULES: u32 = 1 << 16;

/// Most mappings of code of one process that are looked through.
pub const MAX_MAPPINGS: u32 = 1 << 14;

/// A row: the rule `rule` is in force from the address whose low 16 bits are `low` on.
#[must_use]
pub const fn row(low: u16, rule: u16) -> u32 {
    (low as u32) << 16 | rule as u32
}

/// Rule number of a row.
#[must_use]
pub const fn row_rule(row: u32) -> u16 {
    row as u16
}

/// A page: its first row in the row array, and how many there are.
#[must_use]
pub const fn page(first_row: u32, rows: u32) -> u64 {
    (first_row as u64) << 32 | rows as u64
}

/// How the canonical frame address (the caller's stack pointer) is found.
pub mod cfa {
    /// No rule is known: no unwinding information, or a form that these tables cannot express.
    pub const NONE: u8 = 0;
    /// `sp + offset`.
    pub const SP: u8 = 1;
    /// `bp + offset`.
    pub const BP: u8 = 2;
    /// `sp + 8`, and 8 more where the low four bits of the pc are at least `offset`: lazy PLT entries.
    pub const PLT: u8 = 3;
    /// The kernel built this frame to deliver a signal: all registers lie in it.
    pub const SIGNAL: u8 = 4;
    /// The outermost frame: there is no caller.
    pub const END: u8 = 5;
    /// `*(sp + low half of offset) + high half of offset`, halves signed.
    pub const DEREF_SP: u8 = 6;
    /// `*(bp + low half of offset) + high half of offset`, halves signed.
    pub const DEREF_BP: u8 = 7;
    /// This and the 15 kinds after it: `register + offset`, for the register of that number (DWARF's).
    /// The interrupted registers are what is known of it: hand-written assembly keeps the frame's
    /// address in whatever register is free.
    pub const REGISTER: u8 = 32;
    /// The last of them.
    pub const LAST_REGISTER: u8 = REGISTER + 15;
    /// This and the 15 kinds after it: `*(sp + 8 * register + low half of offset) + high half of offset`,
    /// halves signed: behind an array whose length is in that register.
    pub const INDEXED: u8 = REGISTER + 16;
    /// The last of them.
    pub const LAST_INDEXED: u8 = INDEXED + 15;
}

/// Where the caller's frame pointer is.
pub mod bp {
    /// Still in its register.
    pub const SAME: u8 = 0;
    /// In memory at `CFA + offset`.
    pub const AT_CFA: u8 = 1;
    /// In memory at `bp + offset`.
    pub const AT_BP: u8 = 2;
    /// It cannot be found; frames further out that need it cannot be unwound.
    pub const LOST: u8 = 3;
}

/// How to get from a frame to its caller. The return address is always at `CFA - 8`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Rule {
    /// One of [`cfa`].
    pub cfa: u8,
    /// One of [`bp`].
    pub bp: u8,
    /// Bytes, see [`bp`].
    pub bp_offset: i16,
    /// Bytes, see [`cfa`].
    pub cfa_offset: i32,
}

impl Rule {
    /// No rule is known.
    pub const NONE: Self = Self { cfa: cfa::NONE, bp: bp::SAME, bp_offset: 0, cfa_offset: 0 };
    /// The outermost frame.
    pub const END: Self = Self { cfa: cfa::END, ..Self::NONE };

    /// As the rule array holds it.
    #[must_use]
    pub const fn pack(self) -> u64 {
        self.cfa as u64
            | (self.bp as u64) << 8
            | (self.bp_offset as u16 as u64) << 16
            | (self.cfa_offset as u32 as u64) << 32
    }

    /// From what the rule array holds.
    #[must_use]
    pub const fn unpack(bits: u64) -> Self {
        Self {
            cfa: bits as u8,
            bp: (bits >> 8) as u8,
            bp_offset: (bits >> 16) as u16 as i16,
            cfa_offset: (bits >> 32) as u32 as i32,
        }
    }
}

/// Executable memory of one process. Those of a process lie in a row, by ascending address.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[cfg_attr(feature = "user", derive(FromBytes, IntoBytes, Immutable, KnownLayout))]
#[repr(C)]
pub struct Mapping {
    /// First address.
    pub start: u64,
    /// First address after.
    pub end: u64,
    /// What to take from a pc for the distance from the first page of its table (wrapping).
    pub bias: u64,
    /// Index of the table's first page.
    pub first_page: u32,
    /// Pages of the table; 0 where there is none, see [`Mapping::NO_TABLE`] and [`Mapping::JIT`].
    pub pages: u32,
}

impl Mapping {
    /// `first_page` of code that will have a table, but does not yet.
    pub const NO_TABLE: u32 = 0;
    /// `first_page` of code that never will: generated at run time.
    pub const JIT: u32 = 1;
}

/// What is known of a process: value of the process map, by process id.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[cfg_attr(feature = "user", derive(FromBytes, IntoBytes, Immutable, KnownLayout))]
#[repr(C)]
pub struct ProcessEntry {
    /// Start of the process, as in [`crate::settings::FilterEntry::start_ticks`]; another process
    /// with the same id is none of this entry's business.
    pub start_ticks: u64,
    /// Its first mapping in the mapping array.
    pub first_mapping: u32,
    /// How many there are.
    pub mappings: u32,
    /// Names this list of mappings: no two lists ever share a number, so what was looked up in one
    /// is never taken for an answer from another.
    pub list: u32,
    /// Keeps the size a multiple of 8.
    pub padding: u32,
}

/// How the walk of a user stack ended: `Header::verdict`.
pub mod verdict {
    /// No user stack was asked for, or the thread has none.
    pub const NONE: u8 = 0;
    /// At the outermost frame.
    pub const COMPLETE: u8 = 1;
    /// At the depth limit.
    pub const TRUNCATED: u8 = 2;
    /// In a process, or code, whose tables were not there yet.
    pub const NO_TABLE: u8 = 3;
    /// At code without a usable rule, and the frame pointer led nowhere.
    pub const NO_RULE: u8 = 4;
    /// At stack memory that could not be read.
    pub const READ_FAULT: u8 = 5;
    /// At an address where no code is mapped.
    pub const NO_CODE: u8 = 6;
    /// At a frame that would have lain below its callee.
    pub const BACKWARDS: u8 = 7;
    /// Before it began: the thread's registers were not to be had.
    pub const NO_REGISTERS: u8 = 8;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rules_survive_packing() {
        for rule in [
            Rule::NONE,
            Rule::END,
            Rule { cfa: cfa::SP, bp: bp::AT_CFA, bp_offset: -16, cfa_offset: 540_080 },
            Rule { cfa: cfa::LAST_REGISTER, bp: bp::AT_CFA, bp_offset: -24, cfa_offset: -8 },
            Rule { cfa: cfa::DEREF_BP, bp: bp::AT_BP, bp_offset: i16::MIN, cfa_offset: i32::MIN },
        ] {
            assert_eq!(Rule::unpack(rule.pack()), rule);
        }
    }

    #[test]
    fn rows_compare_as_addresses() {
        assert!(row(1, 0xffff) < row(2, 0));
        assert_eq!(row_rule(row(7, 99)), 99);
        assert_eq!(page(3, 5) >> 32, 3);
    }
}
