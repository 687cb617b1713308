//! Names of programs that were stripped: from files beside them, from servers, from tables of their own.

use std::io::Write;
use std::net::TcpListener;
use std::time::{Duration, Instant};

use super::*;

const ID: &str = "-Wl,--build-id=0xabcdef0123456789";

/// A resolver without an administrator's directories.
fn without_dirs(debuginfod: Option<DebuginfodOptions>) -> Resolver {
    let options = Options { debug_dirs: vec!["/nonexistent".into()], debuginfod, ..Options::default() };
    Resolver::new(options, SharedTable::default())
}

/// Splits debug information off into `target` and strips the program.
fn split(path: &Path, target: &Path) {
    std::fs::create_dir_all(target.parent().unwrap()).unwrap();
    run("objcopy", &["--only-keep-debug", path.to_str().unwrap()], target);
    run("strip", &[], path);
}

#[test]
fn debug_information_beside_the_binary_is_found_by_its_link() {
    for place in ["program.debug", ".debug/program.debug"] {
        for genuine in [true, false] {
            let program = Program::c(&["-g", "-O2"], |path| {
                let target = path.with_file_name(place);
                split(path, &target);
                run("objcopy", &[&format!("--add-gnu-debuglink={}", target.display())], path);
                if !genuine {
                    let mut file = std::fs::File::options().append(true).open(&target).unwrap();
                    file.write_all(b"more").unwrap();
                }
            });
            let found = names(&mut without_dirs(None), &program.sample(&program.addresses[..1]));
            assert_eq!(found == ["inner", "middle", "outer"], genuine, "{place}: {found:?}");
        }
    }
}

#[test]
fn a_symbol_table_compressed_in_the_file_serves() {
    let program = Program::c(&["-O2", "-rdynamic"], |path| {
        // As Fedora's find-debuginfo.sh does: what is exported is not said twice.
        let mini = path.with_extension("mini");
        run("objcopy", &["--only-keep-debug", "--remove-section=.comment", path.to_str().unwrap()], &mini);
        let whole = mini.with_extension("whole");
        std::fs::rename(&mini, &whole).unwrap();
        run("objcopy", &["--strip-symbol=a", whole.to_str().unwrap()], &mini);
        run("strip", &[], path);
        run("xz", &["-T0"], &mini);
        run("objcopy", &[&format!("--add-section=.gnu_debugdata={}.xz", mini.display())], path);
    });
    let mut resolver = without_dirs(None);
    assert_eq!(names(&mut resolver, &program.sample(&program.addresses[..1])), ["outer"]);
    assert_eq!(names(&mut resolver, &program.sample(&program.addresses[1..2])), ["a"], "exported");
}

#[test]
fn debug_information_from_a_server_replaces_what_the_file_has() {
    let dir = tempfile::tempdir().unwrap();
    let debug = dir.path().join("program.debug");
    let program = Program::c(&["-g", "-O2", ID], |path| split(path, &debug));
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let body = std::fs::read(&debug).unwrap();
    let (go_on, may_answer) = std::sync::mpsc::channel::<()>();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            let mut lines = BufReader::new(stream.try_clone().unwrap()).lines();
            let request = lines.next().unwrap().unwrap();
            while lines.next().is_some_and(|line| line.is_ok_and(|line| !line.is_empty())) {}
            let known = request.starts_with("GET /buildid/abcdef0123456789/debuginfo ");
            if known {
                may_answer.recv().unwrap();
            }
            let (status, body) = if known { ("200 OK", &body[..]) } else { ("404 No", &b""[..]) };
            let head =
                format!("HTTP/1.1 {status}\r\ncontent-length: {}\r\nconnection: close\r\n\r\n", body.len());
            stream.write_all(head.as_bytes()).and_then(|()| stream.write_all(body)).unwrap();
        }
    });
    let cache_dir = dir.path().join("state/debuginfod");
    let servers = DebuginfodOptions { urls: vec![url], cache_dir: cache_dir.clone(), cache_bytes: 64 << 20 };
    let mut resolver = without_dirs(Some(servers.clone()));
    let sample = program.sample(&program.addresses[..1]);
    // Nobody waits for the server, which has not answered yet.
    let before = names(&mut resolver, &sample);
    assert!(before.len() == 1 && before[0].starts_with("[program+0x"), "{before:?}");
    go_on.send(()).unwrap();
    let begin = Instant::now();
    while names(&mut resolver, &sample) == before {
        assert!(begin.elapsed() < Duration::from_secs(60), "the answer is not used");
        std::thread::sleep(Duration::from_millis(10));
    }
    let Sample { stack, .. } = resolver.resolve(&sample);
    assert_eq!(names(&mut resolver, &sample), ["inner", "middle", "outer"]);
    assert!(stack.iter().all(|frame| frame.module.as_ref().unwrap().has_symbols));
    assert!(resolver.take_loss().is_empty());
    assert!(cache_dir.join("abcdef0123456789.debug").is_file());
    // The next daemon has it at once.
    assert_eq!(names(&mut without_dirs(Some(servers)), &sample), ["inner", "middle", "outer"]);
}

#[test]
fn a_server_that_cannot_be_used_costs_a_count_and_no_names() {
    let dir = tempfile::tempdir().unwrap();
    let program = Program::c(&["-O2", ID], |_| {});
    let gone = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let servers = |cache_dir: PathBuf| {
        Some(DebuginfodOptions { urls: vec![format!("http://{gone}")], cache_dir, cache_bytes: 64 << 20 })
    };
    let sample = program.sample(&program.addresses[1..2]);
    let mut resolver = without_dirs(servers(dir.path().join("cache")));
    let begin = Instant::now();
    let reason = loop {
        assert_eq!(names(&mut resolver, &sample), ["a"]);
        if let Some(line) = resolver.take_loss().iter().next() {
            break line.reason;
        }
        assert!(begin.elapsed() < Duration::from_secs(60), "never counted");
        std::thread::sleep(Duration::from_millis(10));
    };
    assert_eq!(reason, "debuginfod request failed");
    // A directory that cannot be made.
    std::fs::write(dir.path().join("file"), "").unwrap();
    assert_eq!(names(&mut without_dirs(servers(dir.path().join("file/cache"))), &sample), ["a"]);
}

#[test]
fn without_a_reader_of_symbols_files_stay_without_names_and_it_is_counted() {
    let program = Program::c(&["-O2"], |_| {});
    let reader = ReaderProgram::new("/nonexistent".into());
    let mut resolver = Resolver::new(Options { reader, ..Options::default() }, SharedTable::default());
    let sample = program.sample(&program.addresses[1..2]);
    for _ in 0..2 {
        let found = names(&mut resolver, &sample);
        assert!(found[0].starts_with("[program+0x"), "{found:?}");
        let loss: Vec<_> = resolver.take_loss().iter().map(|line| (line.reason, line.count)).collect();
        assert_eq!(loss, [("symbol reader does not run", 1)], "asked again each time");
    }
}

#[test]
fn a_stripped_go_program_has_the_names_of_its_own_table() {
    if Command::new("go").arg("version").output().is_err() {
        // Past the test runner, which would keep it to itself.
        let _gone = std::io::stderr().write_all(b"skipped: Go is not installed\n");
        return;
    }
    let source = "package main\nimport (\"fmt\"; \"os\"; \"reflect\")\n//go:noinline\nfunc spin(n int) int { return n * 31 }\n\
        func main() { fmt.Printf(\"%#x\\n\", reflect.ValueOf(spin).Pointer()); os.Stdin.Read(make([]byte, 1)); spin(1) }\n";
    for mode in ["exe", "pie"] {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("main.go"), source).unwrap();
        std::fs::write(dir.path().join("go.mod"), "module example.com/p\n").unwrap();
        let build = Command::new("go")
            .current_dir(dir.path())
            .env("GOCACHE", dir.path().join("cache"))
            .args(["build", "-ldflags=-s -w", "-buildmode", mode, "-o", "program"])
            .output()
            .unwrap();
        assert!(build.status.success(), "{build:?}");
        let program = Program::run(dir.path().join("program"), dir);
        assert_eq!(
            names(&mut without_dirs(None), &program.sample(&program.addresses)),
            ["main.spin"],
            "{mode}"
        );
    }
}
