//! Names of Go functions from the table that the Go runtime itself reads (`.gopclntab`): it is there
//! in stripped binaries too.
//!
//! Layouts of Go 1.16 to 1.26, as in `src/debug/gosym/pclntab.go` and `src/runtime/symtab.go`. The
//! file belongs to somebody else: nothing is kept of it, each lookup reads a few small pieces of the
//! table and checks every number against the table's bounds.

use crate::procs::{ElfInfo, NamedSection, ObjectFile, read_at};

use super::wire::Found;

/// Longest name that is taken; generic functions spell out their type arguments.
const MAX_NAME: u64 = 4096;
/// Most functions a table may have: a gigabyte of machine code at 64 bytes each.
const MAX_FUNCTIONS: u64 = 16 << 20;
/// Most bytes of relocations that are searched for the start of the code.
const MAX_RELOCATIONS: u64 = 64 << 20;
/// Offset of `text` in `runtime.moduledata`: a pointer, six slices, three pointers.
const MODULE_TEXT: u64 = 8 + 6 * 24 + 3 * 8;
/// `R_X86_64_RELATIVE` and `R_AARCH64_RELATIVE`.
const RELATIVE: [u32; 2] = [8, 1027];

/// Where the parts of a file's table are. 64-bit little-endian files only.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct GoTable {
    section: NamedSection,
    layout: Layout,
    functions: u64,
    /// Address that functions are counted from; 0 for [`Layout::Go116`], which has addresses.
    text: u64,
    /// Offsets in the section: names, and the table of functions.
    names: u64,
    table: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Layout {
    /// Magic 0xfffffffa: functions by address.
    Go116,
    /// Magic 0xfffffff0 and 0xfffffff1 (Go 1.20): functions by distance from the start of the code.
    Go118,
}

impl GoTable {
    /// Reads the header; `None` if the file has no table that is understood.
    pub(super) fn open(file: &ObjectFile, elf: &ElfInfo) -> Option<Self> {
        let section = *elf.section(".gopclntab").or_else(|| elf.section(".data.rel.ro.gopclntab"))?;
        let head = read_at(file, section.offset, 72)?;
        // Magic, two zeros, the instruction quantum, the size of pointers.
        let layout = match (u32_at(&head, 0)?, head.get(4..8)?) {
            (0xffff_fffa, [0, 0, 1 | 2 | 4, 8]) => Layout::Go116,
            (0xffff_fff0 | 0xffff_fff1, [0, 0, 1 | 2 | 4, 8]) => Layout::Go118,
            _ => return None,
        };
        let word = |index: usize| u64_at(&head, 8 + 8 * index);
        let functions = word(0).filter(|&count| count > 0 && count <= MAX_FUNCTIONS)?;
        // Behind the counts of functions and files: the start of the code (1.18), then offsets of
        // names, units, files, pc values, functions.
        let (names, table) = match layout {
            Layout::Go116 => (word(2)?, word(6)?),
            Layout::Go118 => (word(3)?, word(7)?),
        };
        let mut this = Self { section, layout, functions, text: 0, names, table };
        let entries = this.entry_size().checked_mul(functions)?.checked_add(this.entry_size() / 2)?;
        if names >= section.size || table.checked_add(entries)? > section.size {
            return None;
        }
        if layout == Layout::Go118 {
            this.text = this.code_start(file, elf, word(2)?)?;
        }
        Some(this)
    }

    /// The function at an address, as the file counts addresses.
    pub(super) fn find(&self, file: &ObjectFile, address: u64) -> Option<Found> {
        let wanted = address.checked_sub(self.text)?;
        // One more entry than functions: where the last one ends.
        let (mut low, mut high) = (0, self.functions);
        if wanted < self.start(file, low)? || wanted >= self.start(file, high)? {
            return None;
        }
        while high - low > 1 {
            let middle = low + (high - low) / 2;
            if self.start(file, middle)? <= wanted {
                low = middle;
            } else {
                high = middle;
            }
        }
        let half = self.entry_size() / 2;
        let start = self.start(file, low)?;
        let at = self.table.checked_add(low * self.entry_size() + half)?;
        let record = self.table.checked_add(self.number(file, at, half)?)?;
        // The record repeats the start: a table where it does not is not what it seems to be.
        if self.number(file, record, half)? != start {
            return None;
        }
        let name = self.names.checked_add(self.number(file, record.checked_add(half)?, 4)?)?;
        Some(Found {
            name: self.text_at(file, name)?,
            address: self.text.checked_add(start)?,
            source: None,
            inlined: Vec::new(),
        })
    }

    /// Where code starts. Position-independent files leave it to a relocation; Go 1.26 has it in
    /// the module's data alone.
    fn code_start(&self, file: &ObjectFile, elf: &ElfInfo, stated: u64) -> Option<u64> {
        if stated != 0 {
            return Some(stated);
        }
        let module = elf.section(".go.module").filter(|section| section.size >= MODULE_TEXT + 8);
        let in_module = module.and_then(|section| {
            let bytes = read_at(file, section.offset.checked_add(MODULE_TEXT)?, 8)?;
            u64_at(&bytes, 0).filter(|&text| text != 0)
        });
        let places = [
            self.section.address.checked_add(8 + 2 * 8),
            module.and_then(|section| section.address.checked_add(MODULE_TEXT)),
        ];
        in_module.or_else(|| relocated(file, elf, &places)).or_else(|| {
            // Without C code the Go linker begins `.text` with Go's own code, and the program with
            // a Go function. Only then the section's start can be trusted.
            let text = elf.section(".text")?.address;
            let guess = Self { text, ..*self };
            let entry = guess.find(file, elf.entry)?;
            (entry.address == elf.entry && entry.name.starts_with("_rt0_")).then_some(text)
        })
    }

    fn entry_size(&self) -> u64 {
        match self.layout {
            Layout::Go116 => 16,
            Layout::Go118 => 8,
        }
    }

    /// Start of a function, as the table counts it; of the one behind the last, where that ends.
    fn start(&self, file: &ObjectFile, index: u64) -> Option<u64> {
        self.number(file, self.table.checked_add(index * self.entry_size())?, self.entry_size() / 2)
    }

    /// A number of 4 or 8 bytes in the section.
    fn number(&self, file: &ObjectFile, at: u64, size: u64) -> Option<u64> {
        if at.checked_add(size)? > self.section.size {
            return None;
        }
        let bytes = read_at(file, self.section.offset.checked_add(at)?, size)?;
        if size == 4 { u32_at(&bytes, 0).map(u64::from) } else { u64_at(&bytes, 0) }
    }

    /// A text that ends with a NUL.
    fn text_at(&self, file: &ObjectFile, at: u64) -> Option<String> {
        let room = self.section.size.checked_sub(at)?.min(MAX_NAME);
        let bytes = read_at(file, self.section.offset.checked_add(at)?, room)?;
        let end = bytes.iter().position(|&byte| byte == 0)?;
        let text = std::str::from_utf8(bytes.get(..end)?).ok()?;
        (!text.is_empty()).then(|| text.to_owned())
    }
}

/// What the dynamic linker will put at the first of these addresses that it knows of.
fn relocated(file: &ObjectFile, elf: &ElfInfo, places: &[Option<u64>]) -> Option<u64> {
    const ENTRY: usize = 24;
    let section = elf
        .section(".rela.dyn")
        .or_else(|| elf.section(".rela"))
        .filter(|section| section.size <= MAX_RELOCATIONS)?;
    let (mut at, end) = (section.offset, section.offset.checked_add(section.size)?);
    while at < end {
        let piece = (end - at).min(ENTRY as u64 * 4096);
        let bytes = read_at(file, at, piece)?;
        for entry in bytes.chunks_exact(ENTRY) {
            let is_relative = RELATIVE.contains(&u32_at(entry, 8)?);
            if is_relative && places.contains(&u64_at(entry, 0)) {
                return u64_at(entry, 16);
            }
        }
        at += piece;
    }
    None
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    bytes.get(at..)?.first_chunk::<4>().map(|bytes| u32::from_le_bytes(*bytes))
}

fn u64_at(bytes: &[u8], at: usize) -> Option<u64> {
    bytes.get(at..)?.first_chunk::<8>().map(|bytes| u64::from_le_bytes(*bytes))
}

#[cfg(test)]
mod tests;
