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

#[cfg(test)]
mod tests {
    use object::elf::{SHT_PROGBITS, SectionType};
    use object::{Endianness, Object as _, ObjectSection as _};

    use super::*;

    fn object_with(sections: &[&'static str]) -> Vec<u8> {
        let mut elf = Builder::new(Endianness::Little, true);
        let mut add = |name: &'static str, kind: SectionType, data| {
            let section = elf.sections.add();
            section.name = name.as_bytes().into();
            section.sh_type = kind;
            section.sh_addralign = 1;
            section.data = data;
        };
        for name in sections {
            add(name, SHT_PROGBITS, SectionData::Data(name.as_bytes().into()));
        }
        add(".shstrtab", SHT_STRTAB, SectionData::SectionString);
        let mut object = Vec::new();
        elf.write(&mut object).expect("it fits");
        object
    }

    #[test]
    fn debugging_sections_go_and_the_others_keep_their_content() {
        let stripped =
            strip_debug(&object_with(&[".debug_info", ".BTF", ".debug_str", ".text"])).expect("it has BTF");
        let elf = object::File::parse(&*stripped).expect("an object");
        for name in [".BTF", ".text"] {
            let section = elf.section_by_name(name).expect("it stays");
            assert_eq!(section.data().expect("data"), name.as_bytes());
        }
        assert!(elf.section_by_name(".debug_info").is_none());
        assert!(elf.section_by_name(".debug_str").is_none());
    }

    #[test]
    fn an_object_without_btf_is_refused() {
        strip_debug(&object_with(&[".text"])).expect_err("no BTF");
        strip_debug(b"no object").expect_err("no ELF");
    }

    #[test]
    fn needles_are_found_wherever_they_are() {
        let needles = ["/a/b".to_owned(), "/c".to_owned()];
        assert_eq!(find_any(b"\0/a/x/c", &needles), Some("/c"));
        assert_eq!(find_any(b"/a/b", &needles), Some("/a/b"));
        assert_eq!(find_any(b"/a", &needles), None);
    }
}
