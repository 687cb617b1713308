//! From a pc to its unwinding rule: mapping, page, row, rule; and two caches that spare all of it.

use profiler_common::unwind::{MAX_MAPPINGS, MAX_ROWS_PER_PAGE, Mapping, PAGE_SHIFT, ROWS_PER_CHUNK};

use crate::maps::{MAPPINGS, PAGES, ROWS, RULES};

/// Kinds beyond [`profiler_common::unwind::cfa`]: why there is no rule.
pub mod kind {
    /// No code is mapped there, as far as is known.
    pub const NO_MAPPING: u8 = 16;
    /// Code whose table is not there yet.
    pub const NO_TABLE: u8 = 17;
    /// Generated code: it never has a table.
    pub const JIT: u8 = 18;
}

/// Entries by pc; a power of two.
const BY_PC: usize = 4096;
/// Entries by stack pointer; a power of two.
const BY_SP: usize = 1024;
/// A frame takes at least 16 bytes, mostly more than 32: two of one stack seldom share an entry.
const SP_SHIFT: u64 = 5;

/// One processor's caches of pcs and their rules. Keys name the list of mappings they were looked
/// up in, so that nothing has to be thrown away when a process maps or execs.
///
/// The first is by stack pointer: a thread that is seen again has most of its frames where they were,
/// and those of neighbours lie in one line or in the next one. The second is by pc, for frames that
/// have moved. At 99 Hz nothing of either is in the processor's own caches any more: by pc, each
/// frame costs a line and an entry of the TLB, twice what the whole walk costs besides.
#[repr(C)]
pub struct Cache {
    by_sp: [Seen; BY_SP],
    by_pc: [Entry; BY_PC],
}

/// As [`Entry`], without its padding.
#[repr(C)]
struct Seen {
    pc: u64,
    list: u64,
    rule: u64,
}

#[repr(C)]
struct Entry {
    /// The pc that was looked up. User addresses leave the top bit free: it says that the entry is in use.
    pc: u64,
    /// The list of mappings.
    list: u64,
    /// The packed rule.
    rule: u64,
    padding: u64,
}

const IN_USE: u64 = 1 << 63;

/// Whose code is looked up, and the mapping that was found last.
#[repr(C)]
pub struct Code {
    /// Number of the list of mappings, see `ProcessEntry::list`; 0: nothing is known.
    pub list: u32,
    pub first: u32,
    pub count: u32,
    pub padding: u32,
    pub last: Mapping,
}

/// The packed rule for a pc of a frame whose stack pointer this is, from a cache where it is there.
#[inline(always)]
pub fn cached(cache: *mut Cache, code: &mut Code, pc: u64, sp: u64) -> u64 {
    let key = pc | IN_USE;
    let slot = (sp >> SP_SHIFT) as usize & (BY_SP - 1);
    // SAFETY: masked to the array. The cache belongs to this CPU and this kind of program.
    unsafe {
        let seen = (&raw mut (*cache).by_sp).cast::<Seen>().add(slot);
        if (&raw const (*seen).pc).read_volatile() == key
            && (&raw const (*seen).list).read_volatile() == u64::from(code.list)
        {
            return (&raw const (*seen).rule).read_volatile();
        }
        let rule = cached_by_pc(cache, code, pc);
        // In this order, so that a program that interrupts us finds no half entry.
        (&raw mut (*seen).pc).write_volatile(0);
        (&raw mut (*seen).list).write_volatile(u64::from(code.list));
        (&raw mut (*seen).rule).write_volatile(rule);
        (&raw mut (*seen).pc).write_volatile(key);
        rule
    }
}

#[inline(always)]
fn cached_by_pc(cache: *mut Cache, code: &mut Code, pc: u64) -> u64 {
    let key = pc | IN_USE;
    // Fibonacci hashing: the top bits of the product depend on all bits of the pc.
    let slot = (key.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 52) as usize & (BY_PC - 1);
    // SAFETY: as above.
    unsafe {
        let entry = (&raw mut (*cache).by_pc).cast::<Entry>().add(slot);
        if (&raw const (*entry).pc).read_volatile() == key
            && (&raw const (*entry).list).read_volatile() == u64::from(code.list)
        {
            return (&raw const (*entry).rule).read_volatile();
        }
        let rule = find(code, pc);
        (&raw mut (*entry).pc).write_volatile(0);
        (&raw mut (*entry).list).write_volatile(u64::from(code.list));
        (&raw mut (*entry).rule).write_volatile(rule);
        (&raw mut (*entry).pc).write_volatile(key);
        rule
    }
}

/// The packed rule for a pc.
#[inline(always)]
pub fn find(code: &mut Code, pc: u64) -> u64 {
    if code.list == 0 {
        return kind::NO_TABLE.into();
    }
    if !(code.last.start <= pc && pc < code.last.end) && !find_mapping(code, pc) {
        return kind::NO_MAPPING.into();
    }
    if code.last.pages == 0 {
        return if code.last.first_page == Mapping::JIT { kind::JIT.into() } else { kind::NO_TABLE.into() };
    }
    let inside = pc.wrapping_sub(code.last.bias);
    let page = inside >> PAGE_SHIFT;
    if page >= u64::from(code.last.pages) {
        return 0;
    }
    let Some(page) = PAGES.get(code.last.first_page.wrapping_add(page as u32)) else { return 0 };
    let rule = find_row((*page >> 32) as u32, *page as u32, inside as u16);
    match RULES.get(rule.into()) {
        Some(rule) => *rule,
        None => 0,
    }
}

/// Makes the mapping that holds a pc the last one; `false` if there is none.
#[inline(always)]
fn find_mapping(code: &mut Code, pc: u64) -> bool {
    let (mut low, mut high) = (0, code.count);
    // The last mapping that starts at or below the pc.
    for _ in 0..MAX_MAPPINGS.ilog2() + 1 {
        if low >= high {
            break;
        }
        let middle = (low + high) / 2;
        let Some(mapping) = MAPPINGS.get(code.first.wrapping_add(middle)) else { return false };
        if mapping.start <= pc {
            low = middle + 1;
        } else {
            high = middle;
        }
    }
    if low == 0 {
        return false;
    }
    let Some(mapping) = MAPPINGS.get(code.first.wrapping_add(low - 1)) else { return false };
    if pc >= mapping.end {
        return false;
    }
    code.last.start = mapping.start;
    code.last.end = mapping.end;
    code.last.bias = mapping.bias;
    code.last.first_page = mapping.first_page;
    code.last.pages = mapping.pages;
    true
}

/// Number of the rule in force at an address of a page; 0, which is no rule, below its first row.
#[inline(always)]
fn find_row(first: u32, count: u32, low_bits: u16) -> u16 {
    let Some(chunk) = ROWS.get_ptr(first / ROWS_PER_CHUNK as u32) else { return 0 };
    let chunk: *const u32 = chunk.cast();
    let key = u32::from(low_bits) << 16 | 0xffff;
    let (mut low, mut high) = (0, count);
    for _ in 0..MAX_ROWS_PER_PAGE.ilog2() + 1 {
        if low >= high {
            break;
        }
        let middle = (low + high) / 2;
        // SAFETY: masked to the chunk.
        let row = unsafe { *chunk.add((first + middle) as usize & (ROWS_PER_CHUNK - 1)) };
        if row <= key {
            low = middle + 1;
        } else {
            high = middle;
        }
    }
    if low == 0 {
        return 0;
    }
    // SAFETY: as above.
    unsafe { *chunk.add((first + low - 1) as usize & (ROWS_PER_CHUNK - 1)) as u16 }
}
