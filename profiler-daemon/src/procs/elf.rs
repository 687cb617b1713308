//! What an ELF file says about itself: load segments, build id, where its symbols are.
//!
//! The file belongs to somebody else and may be sparse, truncated or made to mislead: tables are
//! read with `pread` and a bound each, never by mapping the file.

use std::os::fd::AsFd;
use std::sync::Arc;

use object::Endianness;
use object::elf;
use object::pod;
use object::read::elf::{CompressionHeader, FileHeader, ProgramHeader, SectionHeader};

/// Most program headers that are looked at.
const MAX_SEGMENTS: usize = 1024;
/// Most section headers that are looked at.
const MAX_SECTIONS: usize = 8192;
/// Most bytes of section names.
const MAX_NAMES: u64 = 1 << 20;
/// Bytes of one section's name that are looked at: names may overlap, so that all of them together
/// could be as long as their number times the table.
const MAX_NAME: usize = 64;
/// Most bytes of one note segment.
const MAX_NOTES: u64 = 64 << 10;
/// `NT_GNU_BUILD_ID`, include/uapi/linux/elf.h of binutils' gABI extensions.
const NT_GNU_BUILD_ID: u32 = 3;

/// What an ELF file says about itself.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ElfInfo {
    /// GNU build id in lower-case hex.
    pub build_id: Option<Arc<str>>,
    /// The `PT_LOAD` segments, executable ones first.
    pub segments: Vec<Segment>,
    /// Where execution starts.
    pub entry: u64,
    /// Sections that names are read from in other ways than through a symbol table, by name.
    pub named: Vec<NamedSection>,
    /// Bytes of symbol tables (`.symtab`, `.dynsym`).
    pub symbol_bytes: u64,
    /// It has a `.symtab`: it was not stripped.
    pub has_symtab: bool,
    /// Bytes of `.debug_info`, decompressed as its header says.
    pub debug_info_bytes: u64,
    /// Bytes of all `.debug_*` sections, decompressed as their headers say.
    pub debug_bytes: u64,
    /// Compressed `.debug_*` sections, whose true size only decompressing tells.
    pub compressed: Vec<CompressedSection>,
    /// Contents of `.gnu_debuglink`: file name and CRC-32 of the file with the debug information.
    pub debug_link: Option<(String, u32)>,
    /// Other links to files with debug information (`.gnu_debugaltlink`, `.debug_sup`).
    pub has_other_links: bool,
    /// It is not as linkers write files: sections that symbols are read from claim to be compressed,
    /// or there are sections that were not looked at here and that another reader might see.
    pub suspicious: bool,
}

/// One `PT_LOAD` segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Segment {
    /// Where it starts in the file.
    pub offset: u64,
    /// Bytes in the file.
    pub size: u64,
    /// Where it starts in the file's own address space.
    pub address: u64,
    /// It is mapped executable.
    pub executable: bool,
}

/// A section that is known by its name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NamedSection {
    /// Its name.
    pub name: &'static str,
    /// Where it starts in the file.
    pub offset: u64,
    /// Bytes in the file.
    pub size: u64,
    /// Where it starts in the file's own address space.
    pub address: u64,
}

/// The sections kept in [`ElfInfo::named`]: what Go's linker writes, the compressed symbol table of
/// Fedora and its kin (MiniDebugInfo), and the stubs that calls of other files go through.
/// Position-independent Go programs prefix theirs.
const NAMED: [&str; 10] = [
    ".text",
    ".rela",
    ".rela.dyn",
    ".gopclntab",
    ".data.rel.ro.gopclntab",
    ".go.module",
    ".gnu_debugdata",
    ".plt",
    ".plt.sec",
    ".plt.got",
];

/// A compressed section.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CompressedSection {
    /// Where the compressed data start in the file.
    pub offset: u64,
    /// Compressed bytes.
    pub size: u64,
    /// Decompressed bytes, as the header says.
    pub claimed: u64,
    /// zlib, which this crate can check; else something it cannot.
    pub zlib: bool,
}

impl ElfInfo {
    /// Reads the headers of a file; `None` if it is not an ELF file.
    #[must_use]
    pub fn read(file: impl AsFd) -> Option<Self> {
        let ident = read_at(&file, 0, 64)?;
        let (magic, class) = (ident.get(..4)?, *ident.get(4)?);
        if magic != b"\x7fELF" {
            return None;
        }
        match elf::FileClass(class) {
            elf::ELFCLASS64 => {
                Self::parse::<elf::FileHeader64<Endianness>, elf::CompressionHeader64<Endianness>>(&file)
            }
            elf::ELFCLASS32 => {
                Self::parse::<elf::FileHeader32<Endianness>, elf::CompressionHeader32<Endianness>>(&file)
            }
            _ => None,
        }
    }

    /// The address, as the file's own headers count it, of a byte of the file. Linkers lay files
    /// out differently: only the segment that holds the byte says how offset and address relate.
    #[must_use]
    pub fn address_of(&self, offset: u64) -> Option<u64> {
        self.segments.iter().find_map(|segment| {
            let inside = offset.checked_sub(segment.offset)?;
            (inside < segment.size).then(|| segment.address.checked_add(inside))?
        })
    }

    /// The address, as the file's own headers count it, of a byte of the file that was mapped
    /// executable. Mappings begin at page borders, so they may begin before their segment does.
    #[must_use]
    pub fn mapped_address(&self, offset: u64) -> Option<u64> {
        const PAGE: u64 = 4096;
        self.segments.iter().filter(|segment| segment.executable).find_map(|segment| {
            let end = segment.offset.checked_add(segment.size)?;
            let inside = segment.offset & !(PAGE - 1) <= offset && offset < end;
            inside.then(|| segment.address.wrapping_add(offset).wrapping_sub(segment.offset))
        })
    }

    /// The section of this name, if it is one of those that are kept.
    #[must_use]
    pub fn section(&self, name: &str) -> Option<&NamedSection> {
        self.named.iter().find(|section| section.name == name)
    }

    fn parse<H, C>(file: impl AsFd) -> Option<Self>
    where
        H: FileHeader<Endian = Endianness>,
        C: CompressionHeader<Endian = Endianness>,
    {
        let bytes = read_at(&file, 0, size_of::<H>() as u64)?;
        let (header, _) = pod::from_bytes::<H>(&bytes).ok()?;
        let endian = header.endian().ok()?;
        let mut info = Self { entry: header.e_entry(endian).into(), ..Self::default() };

        let count = usize::from(header.e_phnum(endian)).min(MAX_SEGMENTS);
        let table = read_table::<H::ProgramHeader>(&file, header.e_phoff(endian).into(), count);
        for segment in pod::slice_from_all_bytes::<H::ProgramHeader>(&table).unwrap_or_default() {
            info.add_segment::<H>(&file, segment, endian);
        }
        info.segments.sort_by_key(|segment| !segment.executable);

        let (count, offset) = (usize::from(header.e_shnum(endian)), header.e_shoff(endian).into());
        let names_index = header.e_shstrndx(endian).0;
        // Counts beyond 16 bits lie in the first section (gABI, "ELF Header"). No program has so many.
        info.suspicious |= count > MAX_SECTIONS || (count == 0 && offset != 0);
        info.suspicious |= names_index == elf::SHN_XINDEX.0;
        let count = count.min(MAX_SECTIONS);
        let table = read_table::<H::SectionHeader>(&file, offset, count);
        let sections = pod::slice_from_all_bytes::<H::SectionHeader>(&table).unwrap_or_default();
        let names = sections
            .get(usize::from(names_index))
            .filter(|section| section.sh_size(endian).into() <= MAX_NAMES)
            .and_then(|section| {
                read_at(&file, section.sh_offset(endian).into(), section.sh_size(endian).into())
            })
            .unwrap_or_default();
        // Without their names, sections that must not be trusted would pass for others.
        info.suspicious |= sections.len() != count || (count > 0 && names.is_empty());
        for section in sections {
            let name = names.get(section.sh_name(endian) as usize..).unwrap_or_default();
            let name = name.get(..MAX_NAME).unwrap_or(name);
            let name = name.split(|&byte| byte == 0).next().unwrap_or_default();
            info.add_section::<H, C>(&file, section, name, endian);
        }
        Some(info)
    }

    fn add_segment<H: FileHeader<Endian = Endianness>>(
        &mut self,
        file: impl AsFd,
        segment: &H::ProgramHeader,
        endian: Endianness,
    ) {
        let (offset, size) = (segment.p_offset(endian).into(), segment.p_filesz(endian).into());
        match segment.p_type(endian) {
            elf::PT_LOAD => self.segments.push(Segment {
                offset,
                size,
                address: segment.p_vaddr(endian).into(),
                executable: segment.p_flags(endian).0 & elf::PF_X.0 != 0,
            }),
            elf::PT_NOTE if self.build_id.is_none() && size <= MAX_NOTES => {
                let align = if segment.p_align(endian).into() == 8 { 8 } else { 4 };
                self.build_id = read_at(file, offset, size)
                    .and_then(|notes| build_id(&notes, align, endian == Endianness::Little));
            }
            _ => {}
        }
    }

    fn add_section<H, C>(
        &mut self,
        file: impl AsFd,
        section: &H::SectionHeader,
        name: &[u8],
        endian: Endianness,
    ) where
        H: FileHeader<Endian = Endianness>,
        C: CompressionHeader<Endian = Endianness>,
    {
        let (offset, size) = (section.sh_offset(endian).into(), section.sh_size(endian).into());
        let kind = section.sh_type(endian);
        let compressed = section.sh_flags(endian).0 & elf::SHF_COMPRESSED.0 != 0;
        if kind == elf::SHT_NOBITS {
            return;
        }
        if kind == elf::SHT_SYMTAB || kind == elf::SHT_DYNSYM {
            self.symbol_bytes = self.symbol_bytes.saturating_add(size);
            self.has_symtab |= kind == elf::SHT_SYMTAB;
        }
        // The first of a name counts: more of them would be somebody's trick.
        if let Some(known) = NAMED.iter().find(|known| known.as_bytes() == name)
            && self.section(known).is_none()
        {
            self.named.push(NamedSection {
                name: known,
                offset,
                size,
                address: section.sh_addr(endian).into(),
            });
        }
        if name.starts_with(b".debug_") {
            let mut whole = size;
            if compressed {
                let head = read_at(&file, offset, size_of::<C>() as u64).unwrap_or_default();
                let Ok((head, _)) = pod::from_bytes::<C>(&head) else {
                    self.suspicious = true;
                    return;
                };
                whole = head.ch_size(endian).into();
                self.compressed.push(CompressedSection {
                    offset: offset.saturating_add(size_of::<C>() as u64),
                    size: size.saturating_sub(size_of::<C>() as u64),
                    claimed: whole,
                    zlib: head.ch_type(endian) == elf::ELFCOMPRESS_ZLIB,
                });
            }
            self.debug_bytes = self.debug_bytes.saturating_add(whole);
            if name == b".debug_info" {
                self.debug_info_bytes = self.debug_info_bytes.saturating_add(whole);
            }
        } else if compressed {
            self.suspicious = true;
        }
        match name {
            b".gnu_debuglink" if size <= 4096 => {
                self.debug_link = read_at(&file, offset, size).and_then(|bytes| debug_link(&bytes));
                // A link that cannot be read here must not be followed by anybody else either.
                self.has_other_links |= self.debug_link.is_none();
            }
            b".gnu_debuglink" | b".gnu_debugaltlink" | b".debug_sup" => self.has_other_links = true,
            _ => {}
        }
    }
}

/// A file name, a NUL, padding to four bytes, a CRC-32 (GDB manual, "Separate Debug Files").
fn debug_link(bytes: &[u8]) -> Option<(String, u32)> {
    let end = bytes.iter().position(|&byte| byte == 0)?;
    let crc = bytes.get((end + 4) & !3..)?.first_chunk::<4>()?;
    let name = std::str::from_utf8(bytes.get(..end)?).ok()?;
    Some((name.to_owned(), u32::from_ne_bytes(*crc)))
}

/// Looks for the build id among notes: name size, descriptor size, type, name, descriptor (gABI).
fn build_id(notes: &[u8], align: usize, little: bool) -> Option<Arc<str>> {
    let number = |bytes: &[u8]| {
        let bytes = *bytes.first_chunk::<4>()?;
        Some(if little { u32::from_le_bytes(bytes) } else { u32::from_be_bytes(bytes) })
    };
    let mut rest = notes;
    loop {
        let name_len = number(rest)? as usize;
        let data_len = number(rest.get(4..)?)? as usize;
        let kind = number(rest.get(8..)?)?;
        let data_at = 12_usize.checked_add(name_len)?.checked_next_multiple_of(align)?;
        let end = data_at.checked_add(data_len)?;
        if kind == NT_GNU_BUILD_ID && rest.get(12..12 + name_len) == Some(b"GNU\0") {
            let id = rest.get(data_at..end).filter(|id| (1..=64).contains(&id.len()))?;
            return Some(id.iter().map(|byte| format!("{byte:02x}")).collect::<String>().into());
        }
        rest = rest.get(end.checked_next_multiple_of(align)?..)?;
    }
}

fn read_table<T>(file: impl AsFd, offset: u64, count: usize) -> Vec<u8> {
    read_at(file, offset, (count * size_of::<T>()) as u64).unwrap_or_default()
}

/// Exactly `size` bytes at `offset`; `None` if the file does not have them. Callers bound `size`.
pub(crate) fn read_at(file: impl AsFd, offset: u64, size: u64) -> Option<Vec<u8>> {
    let mut bytes = vec![0; usize::try_from(size).ok()?];
    let mut done = 0;
    while let Some(rest) = bytes.get_mut(done..).filter(|rest| !rest.is_empty()) {
        match rustix::io::pread(&file, rest, offset.checked_add(done as u64)?) {
            Ok(0) | Err(_) => return None,
            Ok(count) => done += count,
        }
    }
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::io::Write;

    use proptest::prelude::*;

    use super::*;

    fn info_of(bytes: &[u8]) -> Option<ElfInfo> {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(bytes).unwrap();
        ElfInfo::read(&file)
    }

    #[test]
    fn our_own_binary_has_segments_symbols_and_debug_information() {
        let info = ElfInfo::read(File::open("/proc/self/exe").unwrap()).unwrap();
        assert!(info.segments[0].executable && info.segments.len() >= 2);
        assert!(
            info.symbol_bytes > 0 && info.debug_info_bytes > 0 && info.debug_bytes > info.debug_info_bytes
        );
        assert!(!info.suspicious && !info.has_other_links);
    }

    #[test]
    fn names_that_overlap_are_not_compared_as_a_whole() {
        // The header, a table of section names without an end, section headers that all start in it.
        let (names_at, names_size) = (64_u64, MAX_NAMES);
        let headers_at = names_at + names_size;
        let mut bytes = vec![0x7f, b'E', b'L', b'F', 2, 1, 1];
        bytes.resize(64, 0);
        bytes[40..48].copy_from_slice(&headers_at.to_le_bytes());
        bytes[52..54].copy_from_slice(&64_u16.to_le_bytes());
        bytes[58..60].copy_from_slice(&64_u16.to_le_bytes());
        bytes[60..62].copy_from_slice(&8192_u16.to_le_bytes());
        bytes.resize(usize::try_from(headers_at).unwrap(), b'a');
        let mut section = [0; 64];
        section[4] = 1;
        section[24..32].copy_from_slice(&names_at.to_le_bytes());
        section[32..40].copy_from_slice(&names_size.to_le_bytes());
        (0..MAX_SECTIONS).for_each(|_| bytes.extend(section));
        let plain = {
            let mut plain = bytes.clone();
            plain[64..].fill(0);
            plain
        };
        let time = |bytes: &[u8]| {
            let begin = std::time::Instant::now();
            assert!(info_of(bytes).is_some());
            begin.elapsed()
        };
        // Two thousand times as long, were the names not cut.
        let (hostile, plain) = (time(&bytes), time(&plain));
        assert!(hostile < plain * 100, "{hostile:?} against {plain:?}");
    }

    #[test]
    fn addresses_follow_the_segment_that_holds_the_offset() {
        // rust-lld: .text at file offset 0x16040, address 0x17040.
        let segment = |offset, size, address, executable| Segment { offset, size, address, executable };
        let info = ElfInfo {
            segments: vec![segment(0x16040, 0x1000, 0x17040, true), segment(0, 0x16040, 0, false)],
            ..ElfInfo::default()
        };
        assert_eq!(info.address_of(0x16050), Some(0x17050));
        assert_eq!(info.address_of(0x10), Some(0x10));
        assert_eq!(info.address_of(0x20000), None);
        // The mapping of .text begins at the page that it shares with .rodata.
        assert_eq!(info.mapped_address(0x16000), Some(0x17000));
        assert_eq!(info.mapped_address(0x15000), None);
        let hostile = ElfInfo { segments: vec![segment(0, u64::MAX, u64::MAX, true)], ..ElfInfo::default() };
        assert_eq!(hostile.address_of(5), None);
    }

    #[test]
    fn a_build_id_is_found_behind_another_note() {
        let note = |kind: u32, name: &[u8], data: &[u8]| {
            let mut note = Vec::new();
            for number in [u32::try_from(name.len()).unwrap(), u32::try_from(data.len()).unwrap(), kind] {
                note.extend(number.to_le_bytes());
            }
            note.extend(name);
            note.extend(data);
            note.resize(note.len().next_multiple_of(4), 0);
            note
        };
        let notes = [note(1, b"GNU\0", &[0; 16]), note(3, b"GNU\0", &[0xab, 0xcd, 0x01])].concat();
        assert_eq!(build_id(&notes, 4, true).as_deref(), Some("abcd01"));
        assert_eq!(build_id(&notes[..10], 4, true), None);
    }

    #[test]
    fn sections_that_another_reader_might_see_are_suspicious() {
        let bytes = std::fs::read("/bin/true").unwrap();
        // Places in the header of a 64-bit file.
        let (shnum, shstrndx) = (60..62, 62..64);
        let suspicious = |place: std::ops::Range<usize>, value: u16| {
            let mut bytes = bytes.clone();
            bytes[place].copy_from_slice(&value.to_ne_bytes());
            info_of(&bytes).unwrap().suspicious
        };
        assert!(!info_of(&bytes).unwrap().suspicious);
        assert!(suspicious(shnum.clone(), 0), "their number is elsewhere");
        assert!(suspicious(shnum.clone(), 9000), "too many");
        assert!(suspicious(shnum, 8000), "more than the file has");
        assert!(suspicious(shstrndx.clone(), elf::SHN_XINDEX.0), "their names are elsewhere");
        assert!(suspicious(shstrndx, 8000), "their names are nowhere");
    }

    #[test]
    fn a_debug_link_is_read() {
        assert_eq!(debug_link(b"a.debug\0\x01\0\0\0"), Some(("a.debug".to_owned(), 1)));
        assert_eq!(debug_link(b"ab.debug\0\0\0\0\x02\0\0\0"), Some(("ab.debug".to_owned(), 2)));
        assert_eq!(debug_link(b"abc"), None);
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic(tail in proptest::collection::vec(any::<u8>(), 0..600), class in 1_u8..3) {
            let mut bytes = vec![0x7f, b'E', b'L', b'F', class, 1, 1];
            bytes.extend(tail);
            let _ = info_of(&bytes);
        }

        #[test]
        fn a_flipped_byte_of_a_real_file_does_not_either(at in 0_usize..4096, value: u8) {
            let mut bytes = std::fs::read("/bin/true").unwrap();
            let at = at % bytes.len();
            bytes[at] = value;
            if let Some(info) = info_of(&bytes) {
                let _ = info.address_of(0x1000);
            }
        }

        #[test]
        fn hostile_notes_end(notes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = build_id(&notes, 4, true);
            let _ = build_id(&notes, 8, false);
        }
    }
}
