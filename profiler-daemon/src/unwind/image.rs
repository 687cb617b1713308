//! Where an ELF file keeps its unwinding information, read piece by piece and within bounds.
//!
//! The file belongs to somebody else: it may be truncated, sparse, or made to mislead. It is read
//! with `pread`, never mapped, and nothing it claims is allocated before it is compared to a limit.

use std::io::Read;
use std::os::fd::{AsFd, BorrowedFd};

use object::elf::{self, CompressionHeader64, FileHeader64, ProgramHeader64, SectionHeader64};
use object::read::elf::{CompressionHeader as _, FileHeader as _, ProgramHeader as _, SectionHeader as _};
use object::{LittleEndian, pod};

use super::evidence::Recorder;
use super::{Problem, arch};

/// Most bytes of a section with unwinding information. The largest known programs have 40 MiB.
pub(super) const MAX_SECTION: u64 = 128 << 20;
/// Most program and section headers that are looked at.
const MAX_HEADERS: usize = 8192;
/// Most procedure linkage tables that are looked at; there are four kinds.
const MAX_PLTS: usize = 8;
/// Most bytes of section names.
const MAX_NAMES: u64 = 1 << 20;

const LITTLE: LittleEndian = LittleEndian;

/// The bytes of a file.
#[derive(Clone, Copy, Debug)]
pub(super) enum Source<'a> {
    /// An open file, and who writes down what is read of it.
    File(BorrowedFd<'a>, Option<&'a Recorder>),
    /// A file in memory.
    Bytes(&'a [u8]),
}

impl<'a> Source<'a> {
    /// An open file.
    pub(super) fn file(file: &'a impl AsFd) -> Self {
        Self::File(file.as_fd(), None)
    }

    /// An open file of which all that is read is written down.
    pub(super) fn recorded(file: &'a impl AsFd, recorder: &'a Recorder) -> Self {
        Self::File(file.as_fd(), Some(recorder))
    }

    /// Exactly `size` bytes at `offset`. Callers bound `size`; memory is taken as the file proves
    /// to have the bytes.
    pub(super) fn read(self, offset: u64, size: u64) -> Result<Vec<u8>, Problem> {
        let read = self.read_unrecorded(offset, size);
        if let Self::File(_, Some(recorder)) = self {
            recorder.note(offset, size, &read);
        }
        read
    }

    fn read_unrecorded(self, offset: u64, size: u64) -> Result<Vec<u8>, Problem> {
        let cut = || Problem::Truncated { offset, size };
        let size = usize::try_from(size).map_err(|_| cut())?;
        match self {
            Self::Bytes(bytes) => {
                let start = usize::try_from(offset).map_err(|_| cut())?;
                let end = start.checked_add(size).ok_or_else(cut)?;
                bytes.get(start..end).map(<[u8]>::to_vec).ok_or_else(cut)
            }
            Self::File(fd, _) => {
                const STEP: usize = 1 << 20;
                // Room is taken at once, memory only as it is written to: growing would copy.
                let mut bytes = Vec::with_capacity(size);
                while bytes.len() < size {
                    let done = bytes.len();
                    bytes.resize(size.min(done + STEP), 0);
                    let at = offset.checked_add(done as u64).ok_or_else(cut)?;
                    let rest = bytes.get_mut(done..).unwrap_or_default();
                    match rustix::io::pread(fd, rest, at) {
                        Ok(0) => return Err(cut()),
                        Ok(count) => bytes.truncate(done + count),
                        Err(rustix::io::Errno::INTR) => bytes.truncate(done),
                        Err(errno) => return Err(Problem::Read(errno.into())),
                    }
                }
                Ok(bytes)
            }
        }
    }
}

/// A range of the file with the address it has when loaded.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Range {
    /// Where it starts in the file.
    pub(super) offset: u64,
    /// Bytes in the file.
    pub(super) size: u64,
    /// Where it starts in the file's own address space.
    pub(super) address: u64,
}

impl Range {
    /// The address after the last; saturating.
    pub(super) fn end(&self) -> u64 {
        self.address.saturating_add(self.size)
    }
}

/// How a section is stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stored {
    Plain,
    Zlib,
    Zstd,
}

/// What unwinding needs to know of a file.
#[derive(Clone, Debug, Default)]
pub(super) struct Image {
    /// Executable segments, disjoint and by ascending address.
    pub(super) code: Vec<Range>,
    /// All load segments.
    segments: Vec<Range>,
    /// The address execution starts at; 0 for most libraries.
    pub(super) entry: u64,
    /// `.eh_frame`, and whether its size is known rather than assumed.
    pub(super) eh_frame: Option<(Range, bool)>,
    debug_frame: Option<(Range, Stored)>,
    /// `.eh_frame_hdr`, which `DW_EH_PE_datarel` counts from.
    pub(super) eh_frame_hdr: Option<Range>,
    /// Address of `.text`, which `DW_EH_PE_textrel` counts from.
    pub(super) text: u64,
    symbols: Option<Range>,
    /// Procedure linkage tables.
    pub(super) plts: Vec<Range>,
}

impl Image {
    /// Reads the headers.
    pub(super) fn read(source: Source<'_>) -> Result<Self, Problem> {
        let bytes =
            source.read(0, size_of::<FileHeader64<LittleEndian>>() as u64).map_err(|_| Problem::NotElf)?;
        let Ok((header, _)) = pod::from_bytes::<FileHeader64<LittleEndian>>(&bytes) else {
            return Err(Problem::NotElf);
        };
        let ident = header.e_ident();
        if ident.magic != elf::ELFMAG {
            return Err(Problem::NotElf);
        }
        let machine = header.e_machine(LITTLE).0;
        if ident.class != elf::ELFCLASS64 || ident.data != elf::ELFDATA2LSB || machine != arch::MACHINE {
            return Err(Problem::Architecture { class: ident.class.0, machine });
        }
        let mut image = Self { entry: header.e_entry(LITTLE), ..Self::default() };
        let count = usize::from(header.e_phnum(LITTLE)).min(MAX_HEADERS);
        let size = (count * size_of::<ProgramHeader64<LittleEndian>>()) as u64;
        let table = source.read(header.e_phoff(LITTLE), size)?;
        for segment in pod::slice_from_all_bytes::<ProgramHeader64<LittleEndian>>(&table).unwrap_or_default()
        {
            image.add_segment(segment);
        }
        // Disjoint, so that no address is looked at twice whatever the headers say.
        image.code.sort_unstable_by_key(|range| range.address);
        let mut end = 0;
        image.code.retain(|range| {
            let keep = range.size > 0 && range.address >= end;
            end = if keep { range.end() } else { end };
            keep
        });
        image.add_sections(source, header);
        if image.eh_frame.is_none() {
            image.eh_frame = image.eh_frame_by_header(source);
        }
        Ok(image)
    }

    fn add_segment(&mut self, segment: &ProgramHeader64<LittleEndian>) {
        let range = Range {
            offset: segment.p_offset(LITTLE),
            size: segment.p_filesz(LITTLE),
            address: segment.p_vaddr(LITTLE),
        };
        match segment.p_type(LITTLE) {
            elf::PT_LOAD => {
                self.segments.push(range);
                if segment.p_flags(LITTLE).0 & elf::PF_X.0 != 0 {
                    self.code.push(range);
                }
            }
            elf::PT_GNU_EH_FRAME => self.eh_frame_hdr = Some(range),
            _ => {}
        }
    }

    /// Section headers are a courtesy that a running program can do without; so are we.
    fn add_sections(&mut self, source: Source<'_>, header: &FileHeader64<LittleEndian>) {
        let count = usize::from(header.e_shnum(LITTLE)).min(MAX_HEADERS);
        let size = (count * size_of::<SectionHeader64<LittleEndian>>()) as u64;
        let Ok(table) = source.read(header.e_shoff(LITTLE), size) else { return };
        let sections = pod::slice_from_all_bytes::<SectionHeader64<LittleEndian>>(&table).unwrap_or_default();
        let names = sections
            .get(usize::from(header.e_shstrndx(LITTLE).0))
            .filter(|section| section.sh_size(LITTLE) <= MAX_NAMES)
            .and_then(|section| source.read(section.sh_offset(LITTLE), section.sh_size(LITTLE)).ok())
            .unwrap_or_default();
        for section in sections {
            let kind = section.sh_type(LITTLE);
            if kind == elf::SHT_NOBITS || kind == elf::SHT_NULL {
                continue;
            }
            let name = names.get(section.sh_name(LITTLE) as usize..).unwrap_or_default();
            // Names may overlap: looked at whole, they could be as long as their number times the table.
            let name = name.get(..64).unwrap_or(name);
            let name = name.split(|&byte| byte == 0).next().unwrap_or_default();
            let range = Range {
                offset: section.sh_offset(LITTLE),
                size: section.sh_size(LITTLE),
                address: section.sh_addr(LITTLE),
            };
            let compressed = section.sh_flags(LITTLE).0 & elf::SHF_COMPRESSED.0 != 0;
            match name {
                b".eh_frame" if !compressed && range.size > 0 => self.eh_frame = Some((range, true)),
                b".debug_frame" if compressed => self.debug_frame = compression(source, range),
                b".debug_frame" => self.debug_frame = Some((range, Stored::Plain)),
                b".text" => self.text = range.address,
                b".plt" | b".plt.sec" | b".plt.got" | b".iplt" if self.plts.len() < MAX_PLTS => {
                    self.plts.push(range);
                }
                _ => {}
            }
            let is_table = kind == elf::SHT_SYMTAB || kind == elf::SHT_DYNSYM && self.symbols.is_none();
            if is_table && !compressed {
                self.symbols = Some(range);
            }
        }
    }

    /// `.eh_frame_hdr` says where `.eh_frame` starts, but not where it ends: in its segment, at a
    /// terminating zero.
    fn eh_frame_by_header(&self, source: Source<'_>) -> Option<(Range, bool)> {
        let header = self.eh_frame_hdr?;
        let bytes = source.read(header.offset, header.size.min(64)).ok()?;
        let bases = gimli::BaseAddresses::default().set_eh_frame_hdr(header.address);
        let parsed = gimli::EhFrameHdr::new(&bytes, gimli::LittleEndian).parse(&bases, 8).ok()?;
        let gimli::Pointer::Direct(address) = parsed.eh_frame_ptr() else { return None };
        self.segments.iter().find_map(|segment| {
            let inside = address.checked_sub(segment.address).filter(|&inside| inside < segment.size)?;
            let offset = segment.offset.checked_add(inside)?;
            let size = (segment.size - inside).min(MAX_SECTION);
            Some((Range { offset, size, address }, false))
        })
    }

    /// The bytes of `.eh_frame`.
    pub(super) fn read_eh_frame(&self, source: Source<'_>, range: Range) -> Result<Vec<u8>, Problem> {
        if range.size > MAX_SECTION {
            return Err(Problem::TooLarge { what: ".eh_frame", size: range.size, limit: MAX_SECTION });
        }
        source.read(range.offset, range.size)
    }

    /// The bytes of `.debug_frame`, decompressed; `None` where there is none.
    pub(super) fn read_debug_frame(&self, source: Source<'_>) -> Result<Option<Vec<u8>>, Problem> {
        let Some((range, stored)) = self.debug_frame else { return Ok(None) };
        let too_large = |size| Problem::TooLarge { what: ".debug_frame", size, limit: MAX_SECTION };
        if range.size > MAX_SECTION {
            return Err(too_large(range.size));
        }
        let bytes = source.read(range.offset, range.size)?;
        let mut whole = Vec::new();
        let unpacked = match stored {
            Stored::Plain => return Ok(Some(bytes)),
            Stored::Zlib => {
                flate2::read::ZlibDecoder::new(&*bytes).take(MAX_SECTION + 1).read_to_end(&mut whole)
            }
            Stored::Zstd => zstd::stream::read::Decoder::with_buffer(&*bytes)
                .and_then(|decoder| decoder.take(MAX_SECTION + 1).read_to_end(&mut whole)),
        };
        unpacked.map_err(Problem::Read)?;
        if whole.len() as u64 > MAX_SECTION {
            return Err(too_large(whole.len() as u64));
        }
        Ok(Some(whole))
    }

    /// The first address after `address` where a symbol starts, at most `limit` bytes on.
    pub(super) fn next_symbol(&self, source: Source<'_>, address: u64, limit: u64) -> u64 {
        const MAX_SYMBOLS: u64 = 1 << 20;
        const STEP: u64 = 4096;
        let entry = size_of::<elf::Sym64<LittleEndian>>() as u64;
        let mut next = address.saturating_add(limit);
        let Some(range) = self.symbols else { return next };
        let count = (range.size / entry).min(MAX_SYMBOLS);
        let mut at = 0;
        while at < count {
            let step = STEP.min(count - at);
            let Ok(bytes) = source.read(range.offset.saturating_add(at * entry), step * entry) else { break };
            for symbol in pod::slice_from_all_bytes::<elf::Sym64<LittleEndian>>(&bytes).unwrap_or_default() {
                let value = symbol.st_value.get(LITTLE);
                if value > address && value < next {
                    next = value;
                }
            }
            at += step;
        }
        next
    }

    /// The executable segment that holds an address.
    pub(super) fn code_at(&self, address: u64) -> Option<&Range> {
        let after = self.code.partition_point(|range| range.address <= address);
        self.code.get(after.checked_sub(1)?).filter(|range| address < range.end())
    }
}

fn compression(source: Source<'_>, range: Range) -> Option<(Range, Stored)> {
    let size = size_of::<CompressionHeader64<LittleEndian>>() as u64;
    let bytes = source.read(range.offset, size).ok()?;
    let (header, _) = pod::from_bytes::<CompressionHeader64<LittleEndian>>(&bytes).ok()?;
    let stored = match header.ch_type(LITTLE) {
        elf::ELFCOMPRESS_ZLIB => Stored::Zlib,
        elf::ELFCOMPRESS_ZSTD => Stored::Zstd,
        _ => return None,
    };
    let offset = range.offset.checked_add(size)?;
    Some((Range { offset, size: range.size.checked_sub(size)?, ..range }, stored))
}
