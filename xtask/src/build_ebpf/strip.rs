//! Takes the debugging sections out of the eBPF object, and finds what must not be in it.

use anyhow::{Result, ensure};
use object::build::elf::{Builder, SectionData};
use object::elf::SHT_STRTAB;

/// The object without DWARF. BTF stays: the kernel needs it for global functions and task storage.
///
/// # Errors
///
/// When it is no ELF object, or was linked without BTF.
pub(crate) fn strip_debug(object: &[u8]) -> Result<Vec<u8>> {
    let mut elf = Builder::read(object)?;
    for section in &mut elf.sections {
        section.delete = section.name.starts_with(b".debug_") || section.name.starts_with(b".rel.debug_");
    }
    ensure!(elf.sections.iter().any(|section| &*section.name == b".BTF"), "the object has no BTF");
    // Symbols of what is gone.
    elf.delete_orphans();
    // LLVM keeps the names of sections and of symbols in one table; we write two.
    if !elf.sections.iter().any(|section| matches!(section.data, SectionData::SectionString)) {
        let names = elf.sections.add();
        names.name = b".shstrtab"[..].into();
        names.sh_type = SHT_STRTAB;
        names.sh_addralign = 1;
        names.data = SectionData::SectionString;
    }
    let mut stripped = Vec::new();
    elf.write(&mut stripped)?;
    Ok(stripped)
}

/// The first of `needles` that occurs in the object.
pub(crate) fn find_any<'a>(object: &[u8], needles: &'a [String]) -> Option<&'a str> {
    needles
        .iter()
        .find(|needle| object.windows(needle.len().max(1)).any(|window| window == needle.as_bytes()))
        .map(String::as_str)
}
