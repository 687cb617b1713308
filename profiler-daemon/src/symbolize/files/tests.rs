//! Files that change, and files that are made to take down who reads them.

use std::fs::File;
use std::io::Write;
use std::path::Path;
use std::process::Command;

use super::*;
use crate::symbolize::elf::tests::{LIMITS, address_of_f, compile, object};

fn symbols_by(reader: ReaderProgram) -> FileSymbols {
    FileSymbols::new(FileOptions {
        limits: LIMITS,
        debug_dirs: Vec::new(),
        own_debug_info: true,
        reader,
        debuginfod: None,
    })
}

fn symbols() -> FileSymbols {
    symbols_by(ReaderProgram::default())
}

/// Name and whether its source is known; and what was said of the file.
type Answered = (Option<(String, bool)>, Vec<Reason>);

fn find(symbols: &mut FileSymbols, file: &ObjectFile, address: u64) -> Answered {
    let mut reasons = Vec::new();
    let open = |path: &Path| File::open(path).ok().map(Into::into);
    let found = symbols.find(file, &[address], &open, |reason| reasons.push(reason)).unwrap();
    let found = found.into_iter().next().unwrap();
    (found.map(|found| (found.name, found.source.is_some())), reasons)
}

fn f(detailed: bool) -> Option<(String, bool)> {
    Some(("f".to_owned(), detailed))
}

#[test]
fn a_file_that_is_written_over_is_not_read_any_more() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("p");
    compile(&path);
    let (file, address) = (object(&path, 1), address_of_f(&path));
    let mut symbols = symbols();
    assert_eq!(find(&mut symbols, &file, address), (f(true), vec![]));
    File::options().append(true).open(&path).unwrap().write_all(b"x").unwrap();
    assert_eq!(find(&mut symbols, &file, address), (None, vec![CHANGED]));
    assert_eq!(find(&mut symbols, &file, address), (None, vec![]));
}

#[test]
fn a_debug_file_that_is_written_over_is_not_read_any_more() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("p");
    compile(&path);
    let address = address_of_f(&path);
    let debug = dir.path().join("p.debug");
    let tool = |program: &str, args: &[&Path]| {
        assert!(Command::new(program).args(args).status().unwrap().success());
    };
    tool("objcopy", &[Path::new("--only-keep-debug"), &path, &debug]);
    tool("strip", &[Path::new("--strip-debug"), &path]);
    tool("objcopy", &[Path::new(&format!("--add-gnu-debuglink={}", debug.display())), &path]);
    let file = object(&path, 1);
    let mut symbols = symbols();
    assert_eq!(find(&mut symbols, &file, address), (f(true), vec![]));
    File::options().append(true).open(&debug).unwrap().write_all(b"x").unwrap();
    assert_eq!(find(&mut symbols, &file, address), (f(false), vec![DEBUG_CHANGED]));
    assert_eq!(find(&mut symbols, &file, address), (f(false), vec![]), "said once");
}

#[test]
fn our_own_debug_information_can_be_left_alone() {
    let own = object(Path::new("/proc/self/exe"), 1);
    for own_debug_info in [true, false] {
        let mut symbols = symbols();
        symbols.spared = if own_debug_info { None } else { own_file() };
        assert_eq!(symbols.request(&own, &[1]).0.debug_info, own_debug_info);
    }
}

/// A program whose function `f` has debug information that its author wrote by hand. Where that names
/// `.Lranges`, it names a hundred thousand times this range.
pub(in crate::symbolize) fn crafted(path: &Path, debug_info: &str, range: &str) {
    let source = path.with_extension("c");
    let text = format!(
        r#"__attribute__((noinline)) int f(int x) {{
    asm volatile(".file 1 \"a.c\"; .loc 1 7");
    return x * 31 + 7;
}}
int main(int c, char **v) {{ return f(c); }}
asm(R"(
.section .debug_abbrev,""
.Labbrev:
.uleb128 1, 0x11; .byte 1; .uleb128 0x10, 0x17, 0x11, 1, 0x12, 7, 0, 0
.uleb128 2, 0x2e; .byte 1; .uleb128 3, 8, 0x11, 1, 0x12, 7, 0, 0
.uleb128 3, 0x1d; .byte 1; .uleb128 0, 0
.uleb128 4, 0x2e; .byte 0; .uleb128 0x55, 0x17, 0, 0
.byte 0
.section .debug_line,""
.Lline:
.section .debug_info,""
.long .Lend - .Lbegin
.Lbegin:
.2byte 4
.long .Labbrev
.byte 8
.uleb128 1; .long .Lline; .quad f, 16
.uleb128 2; .asciz "f"; .quad f, 16
{debug_info}
.byte 0
.Lend:
.section .debug_ranges,""
.Lranges:
.rept 100000
.quad {range}
.endr
.quad 0, 0
.text
)");
"#
    );
    std::fs::write(&source, text).unwrap();
    let mut gcc = Command::new("gcc");
    gcc.args(["-std=gnu11", "-O1", "-fcf-protection=none", "-o"]).arg(path).arg(&source);
    let gcc = gcc.output().unwrap();
    assert!(gcc.status.success(), "{}", String::from_utf8_lossy(&gcc.stderr));
}

/// `f` with so many levels of inlined functions.
fn nested(depth: u32) -> String {
    format!(".rept {depth}\n.uleb128 3\n.endr\n.rept {}\n.byte 0\n.endr", depth + 1)
}

/// `f`, and so many functions that are each at all ranges.
pub(in crate::symbolize) fn alike(count: u32) -> String {
    format!(".byte 0\n.rept {count}\n.uleb128 4\n.long .Lranges\n.endr")
}

#[test]
fn hostile_debug_information_costs_itself_and_nothing_else() {
    let dir = tempfile::tempdir().unwrap();
    let good = dir.path().join("good");
    compile(&good);
    let (good_file, good_address) = (object(&good, 1), address_of_f(&good));
    let mut symbols = symbols();
    let cases = [
        ("two levels of inlining", nested(2), "1, 2", false),
        // Each level takes some stack of who follows it.
        ("a million levels of inlining", nested(1_000_000), "1, 2", true),
        // A thousand functions, each at the same hundred thousand places: 2.4 GB once they are listed.
        ("ranges that multiply", alike(1000), "1, 2", true),
        // Nothing to be listed, but many seconds' work.
        ("empty ranges that multiply", alike(100_000), "1, 1", true),
    ];
    for (serial, (what, debug_info, range, hostile)) in (2..).zip(cases) {
        let path = dir.path().join(format!("p{serial}"));
        crafted(&path, &debug_info, range);
        let (file, address) = (object(&path, serial), address_of_f(&path));
        let expected = if hostile { vec![DEBUG_GIVEN_UP] } else { vec![] };
        assert_eq!(find(&mut symbols, &file, address), (f(!hostile), expected), "{what}");
        assert_eq!(find(&mut symbols, &file, address + 1), (f(!hostile), vec![]), "{what}: once");
        assert_eq!(find(&mut symbols, &good_file, good_address), (f(true), vec![]), "{what}: others");
    }
}

#[test]
fn a_file_whose_symbol_table_ends_its_reader_is_left_alone() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("p");
    compile(&path);
    let (file, address) = (object(&path, 1), address_of_f(&path));
    // A reader that falls over everything.
    let mut symbols = symbols_by(ReaderProgram::with("/bin/sh", &["-c", "kill -SEGV $$"]));
    assert_eq!(find(&mut symbols, &file, address), (None, vec![DEBUG_GIVEN_UP, GIVEN_UP]));
    assert_eq!(find(&mut symbols, &file, address), (None, vec![]), "not again");
    assert!(symbols.known.is_empty());
}

#[test]
fn what_cannot_be_asked_now_is_said_and_may_be_asked_again() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("p");
    compile(&path);
    let file = object(&path, 1);
    let mut symbols = symbols_by(ReaderProgram::with("/nonexistent", &[]));
    for _ in 0..2 {
        let mut reasons = Vec::new();
        assert!(symbols.find(&file, &[1], &|_| None, |reason| reasons.push(reason)).is_none());
        assert_eq!(reasons, [NO_READER]);
    }
}

#[test]
fn a_reader_that_takes_too_much_is_replaced() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("p");
    compile(&path);
    let other = dir.path().join("other");
    std::fs::copy(&path, &other).unwrap();
    let (file, other, address) = (object(&path, 1), object(&other, 2), address_of_f(&path));
    let mut symbols = symbols();
    // Less than it takes before it has read anything, but the file fits by estimate.
    symbols.limits.memory_bytes = 1;
    // Alone and too large: without its debug information it may be smaller.
    assert_eq!(find(&mut symbols, &file, address), (f(true), vec![TOO_LARGE]));
    assert_eq!(symbols.worker.pid(), None);
    assert_eq!(find(&mut symbols, &file, address), (f(false), vec![]));
    let pid = symbols.worker.pid();
    assert!(pid.is_some(), "nothing would be won by reading it again");
    find(&mut symbols, &other, address);
    assert_eq!(symbols.worker.pid(), None, "two of them: each alone may fit");
}
