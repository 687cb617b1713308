//! Hostile, huge, broken and changing files.

use std::fs::File;
use std::io::Write;
use std::path::Path;
use std::process::Command;

use proptest::prelude::*;

use super::*;

const SOURCE: &str = "static inline __attribute__((always_inline)) int in(int x) { return x * 3 + 1; }\n\
    __attribute__((noinline)) int f(int x) { return in(x) ^ in(x + 1); }\nint main(int c, char **v) { return f(c); }\n";

fn options() -> ElfOptions {
    ElfOptions {
        memory_bytes: 64 << 20,
        max_debug_info_bytes: 64 << 20,
        debug_dirs: Vec::new(),
        inlined: true,
        own_debug_info: true,
        debuginfod: None,
    }
}

fn compile(path: &Path) {
    let source = path.with_extension("c");
    std::fs::write(&source, SOURCE).unwrap();
    assert!(Command::new("gcc").args(["-g", "-O1", "-o"]).arg(path).arg(&source).status().unwrap().success());
}

fn object(path: &Path, serial: u64) -> Arc<ObjectFile> {
    Arc::new(
        ObjectFile::new(File::open(path).unwrap().into(), path.to_str().unwrap().into(), serial).unwrap(),
    )
}

/// Address of `f` plus a few bytes, as `nm` sees it.
fn address_of_f(path: &Path) -> u64 {
    let nm = Command::new("nm").arg(path).output().unwrap();
    let text = String::from_utf8(nm.stdout).unwrap();
    let line = text.lines().find(|line| line.ends_with(" T f")).unwrap();
    u64::from_str_radix(line.split(' ').next().unwrap(), 16).unwrap()
}

fn find(symbols: &mut ElfSymbols, file: &Arc<ObjectFile>, address: u64) -> (Option<Found>, Vec<Reason>) {
    let mut reasons = Vec::new();
    let found = symbols.find(file, address, &|_| None, |reason| reasons.push(reason));
    (found, reasons)
}

#[test]
fn stubs_are_not_taken_for_the_function_before_them() {
    let dir = tempfile::tempdir().unwrap();
    let (path, source) = (dir.path().join("p"), dir.path().join("p.c"));
    std::fs::write(&source, "#include <stdio.h>\nint main(void) { return puts(\"x\") + getchar(); }\n")
        .unwrap();
    // Lazy binding: without it the linker may do without stubs.
    let built =
        Command::new("gcc").args(["-O1", "-fplt", "-Wl,-z,lazy", "-o"]).arg(&path).arg(&source).status();
    assert!(built.unwrap().success());
    let file = object(&path, 1);
    let plt = *file.elf().unwrap().section(".plt").expect("it calls functions of another file");
    let mut symbols = ElfSymbols::new(options());
    // The first entry is the linker's own; calls go to those after it.
    for address in [plt.address, plt.address + 16, plt.address + plt.size - 1] {
        let found = find(&mut symbols, &file, address).0.unwrap();
        assert_eq!((&*found.name, found.address), ("[plt]", plt.address));
    }
    let nm = Command::new("nm").arg(&path).output().unwrap();
    let text = String::from_utf8(nm.stdout).unwrap();
    let init = text.lines().find_map(|line| line.strip_suffix(" T _init").or(line.strip_suffix(" t _init")));
    let init = u64::from_str_radix(init.unwrap(), 16).unwrap();
    assert_eq!(find(&mut symbols, &file, init + 1).0.unwrap().name, "_init");
}

#[test]
fn large_debug_information_is_left_alone_but_the_symbol_table_serves() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("p");
    compile(&path);
    let (file, address) = (object(&path, 1), address_of_f(&path));
    let mut symbols = ElfSymbols::new(options());
    let (found, reasons) = find(&mut symbols, &file, address);
    assert_eq!((found.unwrap().source.is_some(), reasons), (true, vec![]));

    let mut symbols = ElfSymbols::new(ElfOptions { max_debug_info_bytes: 10, ..options() });
    let (found, reasons) = find(&mut symbols, &file, address);
    let found = found.unwrap();
    assert_eq!((found.name.as_str(), found.source, reasons), ("f", None, vec![TOO_LARGE]));
    assert_eq!(find(&mut symbols, &file, address).1, Vec::<Reason>::new(), "said once");
}

#[test]
fn a_debug_link_to_a_pipe_does_not_hang() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("p");
    compile(&path);
    let pipe = dir.path().join("pipe");
    assert!(Command::new("mkfifo").arg(&pipe).status().unwrap().success());
    let link = dir.path().join("link");
    let mut bytes = pipe.to_str().unwrap().as_bytes().to_vec();
    bytes.push(0);
    bytes.resize(bytes.len().next_multiple_of(4), 0);
    bytes.extend([1, 2, 3, 4]);
    std::fs::write(&link, bytes).unwrap();
    let section = format!(".gnu_debuglink={}", link.display());
    assert!(Command::new("objcopy").args(["--add-section", &section]).arg(&path).status().unwrap().success());
    let (send, receive) = std::sync::mpsc::channel();
    let debug_dirs = vec![dir.path().to_owned()];
    std::thread::spawn(move || {
        let mut symbols = ElfSymbols::new(ElfOptions { debug_dirs, ..options() });
        let found = find(&mut symbols, &object(&path, 1), address_of_f(&path)).0;
        send.send(found.map(|found| found.name)).unwrap();
    });
    let name = receive.recv_timeout(Duration::from_secs(30)).expect("opens the pipe and waits");
    assert_eq!(name.as_deref(), Some("f"));
}

#[test]
fn a_file_that_is_written_over_is_not_read_any_more() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("p");
    compile(&path);
    let (file, address) = (object(&path, 1), address_of_f(&path));
    let mut symbols = ElfSymbols::new(options());
    assert!(find(&mut symbols, &file, address).0.is_some());
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
    let mut symbols = ElfSymbols::new(options());
    let mut find = || {
        let mut reasons = Vec::new();
        let open = |path: &Path| File::open(path).ok().map(Into::into);
        let found = symbols.find(&file, address, &open, |reason| reasons.push(reason));
        (found.map(|found| (found.name, found.source.is_some())), reasons)
    };
    assert_eq!(find(), (Some(("f".to_owned(), true)), vec![]));
    File::options().append(true).open(&debug).unwrap().write_all(b"x").unwrap();
    assert_eq!(find(), (Some(("f".to_owned(), false)), vec![DEBUG_CHANGED]));
    assert_eq!(find(), (Some(("f".to_owned(), false)), vec![]), "said once");
}

#[test]
fn memory_is_bounded_by_unloading_what_was_not_used_longest() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("p");
    compile(&path);
    let address = address_of_f(&path);
    let mut symbols = ElfSymbols::new(ElfOptions { memory_bytes: 3 * MIN_BYTES, ..options() });
    for serial in 1..20 {
        let copy = dir.path().join(serial.to_string());
        std::fs::copy(&path, &copy).unwrap();
        assert_eq!(find(&mut symbols, &object(&copy, serial), address).0.unwrap().name, "f");
        assert!(symbols.bytes <= 3 * MIN_BYTES && symbols.loaded.len() <= 3, "{}", symbols.bytes);
        assert!(symbols.loaded.contains_key(&serial));
    }
}

#[test]
fn two_files_whose_debug_information_does_not_fit_together_are_not_read_in_turns() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("p");
    compile(&path);
    let other = dir.path().join("other");
    std::fs::copy(&path, &other).unwrap();
    let (first, second, address) = (object(&path, 1), object(&other, 2), address_of_f(&path));
    // As much as one takes.
    let mut symbols = ElfSymbols::new(options());
    find(&mut symbols, &first, address);
    let memory_bytes = symbols.bytes + MIN_BYTES + first.elf().unwrap().symbol_bytes;
    let mut symbols = ElfSymbols::new(ElfOptions { memory_bytes, ..options() });
    for round in 0..3 {
        for (file, detailed) in [(&first, true), (&second, false)] {
            let (found, reasons) = find(&mut symbols, file, address);
            let found = found.unwrap();
            assert_eq!((found.name.as_str(), found.source.is_some()), ("f", detailed));
            let expected: &[Reason] = if round == 0 && !detailed { &[NO_ROOM] } else { &[] };
            assert_eq!(reasons, expected, "round {round}");
        }
    }
    assert!(symbols.bytes <= memory_bytes);
}

#[test]
fn what_nobody_asks_for_is_let_go_while_it_is_mapped() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("p");
    compile(&path);
    let (file, address) = (object(&path, 1), address_of_f(&path));
    let mut symbols = ElfSymbols::new(options());
    find(&mut symbols, &file, address);
    let long_ago = Instant::now().checked_sub(FORGET_AFTER).unwrap();
    symbols.swept = long_ago;
    symbols.sweep();
    assert_eq!(symbols.loaded.len(), 1, "it was asked for just now");
    symbols.loaded.get_mut(&1).unwrap().used = long_ago;
    symbols.swept = long_ago;
    symbols.sweep();
    assert_eq!((symbols.loaded.len(), symbols.bytes), (0, 0));
    assert_eq!(find(&mut symbols, &file, address).0.unwrap().name, "f", "read again");
}

#[test]
fn our_own_debug_information_can_be_left_alone() {
    let own = object(Path::new("/proc/self/exe"), 1);
    for (own_debug_info, loaded) in [(true, true), (false, false)] {
        let mut symbols = ElfSymbols::new(ElfOptions { own_debug_info, memory_bytes: 1 << 40, ..options() });
        find(&mut symbols, &own, own.elf().unwrap().entry);
        assert_eq!(symbols.loaded[&1].debug_info, loaded);
    }
}

#[test]
fn a_descriptor_number_that_is_used_again_means_the_new_file() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("p");
    compile(&path);
    let (address, mut symbols) = (address_of_f(&path), ElfSymbols::new(options()));
    let file = object(&path, 1);
    assert!(find(&mut symbols, &file, address).0.is_some());
    let number = file.proc_path();
    symbols.unload(1);
    drop(file);
    // `true` has no symbol table: a stale answer would show.
    let other = object(Path::new("/bin/true"), 2);
    let found = find(&mut symbols, &other, address).0;
    assert!(found.is_none(), "{found:?} from {}, was {}", other.proc_path().display(), number.display());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]
    #[test]
    fn broken_files_do_not_panic(flips in proptest::collection::vec((0.0_f64..1.0, any::<u8>()), 1..12), headers: bool) {
        use std::sync::OnceLock;
        static PROGRAM: OnceLock<Vec<u8>> = OnceLock::new();
        let program = PROGRAM.get_or_init(|| {
            let dir = tempfile::tempdir().unwrap();
            let path = dir.path().join("p");
            compile(&path);
            std::fs::read(path).unwrap()
        });
        let mut bytes = program.clone();
        let from = if headers { bytes.len() * 4 / 5 } else { 0 };
        for (place, value) in flips {
            let at = from + (place * (bytes.len() - from) as f64) as usize;
            bytes[at] = value;
        }
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("p");
        std::fs::write(&path, bytes).unwrap();
        let mut symbols = ElfSymbols::new(options());
        let file = object(&path, 1);
        for address in (0x1000..0x1400).step_by(64) {
            let _ = find(&mut symbols, &file, address);
        }
    }
}
