//! The compressed symbol table that Fedora and its kin leave in stripped files (`.gnu_debugdata`).

use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::OwnedFd;
use std::panic::{AssertUnwindSafe, catch_unwind};

use lzma_rust2::XzReader;
use object::elf::{self, FileHeader64, SectionHeader64, Sym64};
use object::{LittleEndian, pod};
use rustix::fs::{MemfdFlags, memfd_create};

use crate::procs::{ElfInfo, ObjectFile, read_at};

/// Most compressed bytes: glibc's take 120 KiB, the largest programs' a few MiB.
const MAX_COMPRESSED: u64 = 16 << 20;
/// Most bytes once decompressed: less than a second's work.
const MAX_BYTES: u64 = 64 << 20;
/// What the decoder may take, KiB: `xz -9` wants 64 MiB for its window.
const MAX_DECODER_KIB: u32 = 66 << 10;

/// Most section headers that are looked at.
const MAX_SECTIONS: usize = 8192;
/// Most bytes of exported symbols, and of their names: a hundred thousand functions.
const MAX_EXPORTED: u64 = 16 << 20;
/// Where a section header has the offset of its section, followed by its size (gABI, `Elf64_Shdr`).
const SH_OFFSET: usize = 24;

/// The section as a file of its own, an ELF file again, in anonymous memory; `None` where there is
/// no such section, or one that is broken or too large.
pub(super) fn unpack(file: &ObjectFile, elf: &ElfInfo) -> Option<OwnedFd> {
    let section = elf.section(".gnu_debugdata").filter(|section| section.size <= MAX_COMPRESSED)?;
    let packed = read_at(file, section.offset, section.size)?;
    // The decoder is careful, but the bytes are a stranger's: a panic costs this table only.
    let plain = catch_unwind(AssertUnwindSafe(|| decompress(&packed, MAX_BYTES))).ok()??;
    let plain = with_exported(plain, file);
    let mut out = File::from(memfd_create("mini-debug-info", MemfdFlags::CLOEXEC).ok()?);
    out.write_all(&plain).ok()?;
    Some(out.into())
}

/// A symbol table of a 64-bit little-endian file, and its names.
struct SymbolTable {
    symbols: Vec<u8>,
    names: Vec<u8>,
    /// Where their section headers are in the file.
    headers: [u64; 2],
}

impl SymbolTable {
    /// The first one of this kind; `read` gives bytes of the file.
    fn read(
        read: impl Fn(u64, u64) -> Option<Vec<u8>>,
        kind: elf::SectionType,
        max_bytes: u64,
    ) -> Option<Self> {
        let bytes = read(0, size_of::<FileHeader64<LittleEndian>>() as u64)?;
        let (header, _) = pod::from_bytes::<FileHeader64<LittleEndian>>(&bytes).ok()?;
        let ident = (header.e_ident.class, header.e_ident.data);
        if header.e_ident.magic != elf::ELFMAG || ident != (elf::ELFCLASS64, elf::ELFDATA2LSB) {
            return None;
        }
        let count = usize::from(header.e_shnum.get(LittleEndian)).min(MAX_SECTIONS);
        let (at, each) = (header.e_shoff.get(LittleEndian), size_of::<SectionHeader64<LittleEndian>>());
        let table = read(at, (count * each) as u64)?;
        let sections = pod::slice_from_all_bytes::<SectionHeader64<LittleEndian>>(&table).ok()?;
        let index = sections.iter().position(|section| section.sh_type.get(LittleEndian) == kind)?;
        let symbols = sections.get(index)?;
        let linked = symbols.sh_link.get(LittleEndian) as usize;
        let names = sections.get(linked)?;
        let contents = |section: &SectionHeader64<LittleEndian>| {
            let size = Some(section.sh_size.get(LittleEndian)).filter(|&size| size <= max_bytes)?;
            read(section.sh_offset.get(LittleEndian), size)
        };
        let header_of = |index: usize| at.checked_add((index * each) as u64);
        let headers = [header_of(index)?, header_of(linked)?];
        Some(Self { symbols: contents(symbols)?, names: contents(names)?, headers })
    }
}

/// Adds the functions that a file exports to the table that was compressed in it, which has all the
/// others: who reads `.gnu_debugdata` is expected to read `.dynsym` too.
fn with_exported(mut mini: Vec<u8>, file: &ObjectFile) -> Vec<u8> {
    let in_mini = |offset: u64, size: u64| {
        let from = usize::try_from(offset).ok()?;
        Some(mini.get(from..from.checked_add(usize::try_from(size).ok()?)?)?.to_vec())
    };
    let tables = SymbolTable::read(in_mini, elf::SHT_SYMTAB, MAX_BYTES).zip(SymbolTable::read(
        |offset, size| read_at(file, offset, size),
        elf::SHT_DYNSYM,
        MAX_EXPORTED,
    ));
    let Some((mut table, exported)) = tables else { return mini };
    for symbol in exported.symbols.chunks_exact(size_of::<Sym64<LittleEndian>>()) {
        let Ok((symbol, _)) = pod::from_bytes::<Sym64<LittleEndian>>(symbol) else { continue };
        let name = u64::from(symbol.st_name.get(LittleEndian)) + table.names.len() as u64;
        // Without a section it is another file's.
        if let Ok(name) = u32::try_from(name)
            && symbol.st_shndx.get(LittleEndian).0 != 0
        {
            let mut symbol = *symbol;
            symbol.st_name.set(LittleEndian, name);
            table.symbols.extend_from_slice(pod::bytes_of(&symbol));
        }
    }
    table.names.extend_from_slice(&exported.names);
    // The old ones stay where they are, unused.
    for (header, contents) in table.headers.into_iter().zip([table.symbols, table.names]) {
        mini.resize(mini.len().next_multiple_of(8), 0);
        let place = [(mini.len() as u64).to_le_bytes(), (contents.len() as u64).to_le_bytes()].concat();
        let field = usize::try_from(header).ok().and_then(|at| at.checked_add(SH_OFFSET));
        if let Some(field) = field.and_then(|from| mini.get_mut(from..from.checked_add(place.len())?)) {
            field.copy_from_slice(&place);
            mini.extend_from_slice(&contents);
        }
    }
    mini
}

fn decompress(packed: &[u8], limit: u64) -> Option<Vec<u8>> {
    let mut plain = Vec::new();
    let reader = XzReader::new_mem_limit(packed, true, MAX_DECODER_KIB);
    reader.take(limit + 1).read_to_end(&mut plain).ok()?;
    (plain.len() as u64 <= limit).then_some(plain)
}

#[cfg(test)]
mod tests {
    use std::process::{Command, Stdio};

    use proptest::prelude::*;

    use super::*;

    fn xz(bytes: &[u8], args: &[&str]) -> Vec<u8> {
        let mut child = Command::new("xz")
            .args(args)
            .arg("-c")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("xz-utils is installed");
        let mut input = child.stdin.take().unwrap();
        let bytes = bytes.to_vec();
        let writer = std::thread::spawn(move || input.write_all(&bytes).unwrap());
        let output = child.wait_with_output().unwrap();
        writer.join().unwrap();
        output.stdout
    }

    #[test]
    fn what_xz_packed_is_unpacked_within_the_limit() {
        let plain: Vec<u8> = (0..300_000_u32).flat_map(|number| (number / 7).to_le_bytes()).collect();
        for args in [&["-6"][..], &["-9"], &["-T2", "--block-size=100000"], &["--check=sha256"]] {
            let packed = xz(&plain, args);
            assert!(decompress(&packed, 2_000_000) == Some(plain.clone()), "{args:?}");
            assert_eq!(decompress(&packed, 1_000_000), None, "over the limit");
            assert_eq!(decompress(&packed[..packed.len() / 2], 2_000_000), None, "cut off");
        }
        // A window of a gigabyte is not given, whatever is in it.
        let greedy = xz(b"small", &["--lzma2=dict=1GiB"]);
        assert_eq!(decompress(&greedy, 2_000_000), None);
    }

    proptest! {
        #[test]
        fn broken_streams_end(place in 0.0_f64..1.0, value: u8) {
            let mut packed = xz(&[b'a'; 5000], &["-6"]);
            let at = (place * packed.len() as f64) as usize;
            packed[at] = value;
            let _ = catch_unwind(AssertUnwindSafe(|| decompress(&packed, 1 << 20)));
        }
    }
}
