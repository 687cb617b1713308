//! Tables of every layout, made here; hostile ones; and a real Go program where Go is installed.

use std::fs::File;
use std::io::Write;
use std::path::Path;
use std::process::Command;

use proptest::prelude::*;

use super::*;

const SECTION: u64 = 0x5000;
const CODE: u64 = 0x40_1000;
const NAMES: [&str; 3] = ["main.main", "main.(*T).Spin", "_rt0_amd64_linux"];
/// Where the functions start, and where the last one ends.
const STARTS: [u64; 4] = [0, 0x40, 0x100, 0x180];

/// What a test varies.
#[derive(Clone, Copy)]
struct Made {
    magic: u32,
    /// The start of the code in the header; 0 in position-independent files.
    text: u64,
    entry: u64,
    text_section: u64,
    relocation: Option<u64>,
    module: Option<u64>,
}

const GO_1_20: Made =
    Made { magic: 0xffff_fff1, text: CODE, entry: 0, text_section: CODE, relocation: None, module: None };

/// A table in a file, and what its headers would say.
fn made(made: Made) -> (ObjectFile, ElfInfo) {
    let old = made.magic == 0xffff_fffa;
    let number = |bytes: &mut Vec<u8>, value: u64| {
        if old {
            bytes.extend(value.to_le_bytes());
        } else {
            bytes.extend(u32::try_from(value).unwrap().to_le_bytes());
        }
    };
    let base = if old { CODE } else { 0 };
    let mut names = Vec::new();
    let name_at: Vec<u64> = NAMES
        .iter()
        .map(|name| {
            let at = names.len() as u64;
            names.extend(name.as_bytes());
            names.push(0);
            at
        })
        .collect();
    let half = if old { 8 } else { 4 };
    let records_at = (STARTS.len() as u64 * 2 - 1) * half;
    let (mut table, mut records) = (Vec::new(), Vec::new());
    for (start, name) in STARTS.iter().zip(&name_at) {
        number(&mut table, base + start);
        number(&mut table, records_at + records.len() as u64);
        number(&mut records, base + start);
        records.extend(u32::try_from(*name).unwrap().to_le_bytes());
        records.extend([0; 12]);
    }
    number(&mut table, base + STARTS[3]);
    table.extend(records);

    let names_at = 96;
    let table_at = names_at + names.len() as u64;
    let words = if old {
        vec![3, 1, names_at, 0, 0, 0, table_at]
    } else {
        vec![3, 1, made.text, names_at, 0, 0, 0, table_at]
    };
    let mut section = made.magic.to_le_bytes().to_vec();
    section.extend([0, 0, 1, 8]);
    words.iter().for_each(|word: &u64| section.extend(word.to_le_bytes()));
    section.resize(names_at as usize, 0);
    section.extend(names);
    section.extend(table);

    let named = |name, offset, size, address| NamedSection { name, offset, size, address };
    let mut bytes = vec![0xcc; 64];
    let at = |bytes: &Vec<u8>| bytes.len() as u64;
    let mut sections = vec![
        named(".text", 0, 0x200, made.text_section),
        named(".gopclntab", at(&bytes), section.len() as u64, SECTION),
    ];
    bytes.extend(section);
    if let Some(text) = made.relocation {
        let from = at(&bytes);
        // Somebody else's comes first.
        for (place, addend) in [(SECTION, 7), (SECTION + 24, text)] {
            for word in [place, u64::from(RELATIVE[0]), addend] {
                bytes.extend(word.to_le_bytes());
            }
        }
        sections.push(named(".rela.dyn", from, 48, 0));
    }
    if let Some(text) = made.module {
        let from = at(&bytes);
        bytes.extend([0; MODULE_TEXT as usize]);
        bytes.extend(text.to_le_bytes());
        sections.push(named(".go.module", from, MODULE_TEXT + 8, 0x9000));
    }
    let elf = ElfInfo { named: sections, entry: made.entry, ..ElfInfo::default() };
    (object(&bytes), elf)
}

fn object(bytes: &[u8]) -> ObjectFile {
    let mut file = tempfile::tempfile().unwrap();
    file.write_all(bytes).unwrap();
    ObjectFile::new(file.into(), "go".into(), 1).unwrap()
}

/// Names and starts at these distances from the start of the code.
fn found(what: Made, distances: &[u64]) -> Vec<Option<(String, u64)>> {
    let (file, elf) = made(what);
    let table = GoTable::open(&file, &elf);
    let find = |distance| {
        let found = table?.find(&file, CODE.wrapping_add(distance))?;
        Some((found.name, found.address - CODE))
    };
    distances.iter().map(|&distance| find(distance)).collect()
}

fn is(name: &str, start: u64) -> Option<(String, u64)> {
    Some((name.to_owned(), start))
}

#[test]
fn every_layout_gives_the_function_that_holds_the_address() {
    for magic in [0xffff_fffa, 0xffff_fff0, 0xffff_fff1] {
        assert_eq!(
            found(Made { magic, ..GO_1_20 }, &[0, 0x3f, 0x40, 0xff, 0x17f, 0x180, u64::MAX]),
            [
                is("main.main", 0),
                is("main.main", 0),
                is("main.(*T).Spin", 0x40),
                is("main.(*T).Spin", 0x40),
                is("_rt0_amd64_linux", 0x100),
                None,
                None
            ],
            "{magic:#x}"
        );
    }
    assert_eq!(found(Made { magic: 0xffff_fffb, ..GO_1_20 }, &[0]), [None], "Go 1.2");
}

#[test]
fn position_independent_files_have_the_start_of_the_code_elsewhere() {
    let pie = Made { text: 0, text_section: 0x1000, ..GO_1_20 };
    let spin = [is("main.(*T).Spin", 0x40)];
    assert_eq!(found(Made { relocation: Some(CODE), ..pie }, &[0x50]), spin);
    assert_eq!(found(Made { module: Some(CODE), ..pie }, &[0x50]), spin);
    // Without either: `.text` only if the program starts with a Go function there.
    assert_eq!(found(Made { text_section: CODE, entry: CODE + 0x100, ..pie }, &[0x50]), spin);
    assert_eq!(found(Made { text_section: CODE, entry: CODE + 0x104, ..pie }, &[0x50]), [None]);
    assert_eq!(found(Made { text_section: CODE, entry: CODE + 0x40, ..pie }, &[0x50]), [None]);
}

#[test]
fn a_record_that_does_not_repeat_its_start_is_no_record() {
    let (file, elf) = made(GO_1_20);
    let table = GoTable::open(&file, &elf).unwrap();
    let mut bytes = vec![0; 1024];
    let length = rustix::io::pread(&file, &mut bytes[..], 0).unwrap();
    bytes.truncate(length);
    let records = (table.section.offset + table.table) as usize + 7 * 4;
    bytes[records] ^= 1;
    assert_eq!(table.find(&object(&bytes), CODE), None);
    assert!(table.find(&object(&bytes), CODE + 0x40).is_some());
}

/// The truth is the symbol table of the same program, before it was stripped.
#[test]
fn a_real_program_has_the_names_of_its_symbol_table() {
    if Command::new("go").arg("version").output().is_err() {
        // Past the test runner, which would keep it to itself.
        let _gone = std::io::stderr().write_all(b"skipped: Go is not installed\n");
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let source = "package main\n//go:noinline\nfunc leaf(n int) int { return n * 31 }\nfunc main() { println(leaf(3)) }\n";
    std::fs::write(dir.path().join("main.go"), source).unwrap();
    std::fs::write(dir.path().join("go.mod"), "module example.com/p\n").unwrap();
    for mode in ["exe", "pie"] {
        let path = dir.path().join(mode);
        let build = Command::new("go")
            .current_dir(dir.path())
            .env("GOCACHE", dir.path().join("cache"))
            .args(["build", "-buildmode", mode, "-o"])
            .arg(&path)
            .output()
            .unwrap();
        assert!(build.status.success(), "{build:?}");
        let truth = symbols(&path);
        assert!(Command::new("strip").arg(&path).status().unwrap().success());
        let name: std::sync::Arc<str> = mode.into();
        let file = ObjectFile::new(File::open(&path).unwrap().into(), name, 1).unwrap();
        let elf = file.elf().unwrap();
        assert!(!elf.has_symtab);
        let table = GoTable::open(&file, elf).expect(mode);
        assert!(truth.len() > 1000, "{}", truth.len());
        let wrong: Vec<_> = truth
            .iter()
            .filter_map(|(address, name)| {
                let found = table.find(&file, *address).map(|found| found.name);
                (found.as_ref() != Some(name)).then_some((name, found))
            })
            .collect();
        println!("{mode}: {} of {} functions differ: {wrong:?}", wrong.len(), truth.len());
        // `runtime.text` and `runtime.etext` are no functions; some names are spelled shorter.
        assert!(wrong.len() * 200 <= truth.len());
    }
}

/// Functions of Go's own code, as `nm` sees them; the linker appends the calling convention there.
fn symbols(path: &Path) -> Vec<(u64, String)> {
    let nm = Command::new("nm").arg(path).output().unwrap();
    let text = String::from_utf8(nm.stdout).unwrap();
    let symbol = |line: &str| {
        let (address, name) = line.split_once(" T ").or_else(|| line.split_once(" t "))?;
        Some((u64::from_str_radix(address, 16).ok()?, name.trim_end_matches(".abi0").to_owned()))
    };
    text.lines().filter_map(symbol).collect()
}

proptest! {
    #[test]
    fn no_bytes_make_it_panic(
        flips in proptest::collection::vec((0.0_f64..1.0, any::<u8>()), 1..8),
        magic in prop::sample::select(vec![0xffff_fffa_u32, 0xffff_fff0, 0xffff_fff1]),
        pie: bool,
    ) {
        let text = if pie { 0 } else { CODE };
        let (file, elf) = made(Made { magic, text, relocation: Some(CODE), module: Some(0), ..GO_1_20 });
        let mut bytes = vec![0; 4096];
        let length = rustix::io::pread(&file, &mut bytes[..], 0).unwrap();
        bytes.truncate(length);
        for (place, value) in flips {
            let at = (place * length as f64) as usize;
            bytes[at] = value;
        }
        let file = object(&bytes);
        if let Some(table) = GoTable::open(&file, &elf) {
            for address in [0, CODE, CODE + 0x50, CODE + 0x17f, u64::MAX] {
                let _ = table.find(&file, address);
            }
        }
    }
}
