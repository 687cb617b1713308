//! The test binary as a symbol reader; readers that die, hang, or are too large.

use std::fs::File;
use std::os::fd::AsFd as _;
use std::path::Path;

use rustix::process::{Pid, Signal, kill_process};

use super::*;
use crate::symbolize::elf::tests::{address_of_f, compile};
use crate::symbolize::files::tests::{alike, crafted};
use crate::symbolize::serve::read_symbols;

/// Has the test binary run [`the_test_binary_reads_symbols`] alone.
pub(super) const READER: [&str; 5] = [
    "--exact",
    "symbolize::worker::tests::the_test_binary_reads_symbols",
    "--nocapture",
    "--test-threads=1",
    SYMBOL_READER,
];

/// Not a test where it runs as one: what [`ReaderProgram::default`] starts.
#[test]
fn the_test_binary_reads_symbols() {
    if std::env::args().any(|argument| argument == SYMBOL_READER) {
        let _code = read_symbols();
        std::process::exit(0);
    }
}

fn request(file: u64, addresses: &[u64]) -> Request {
    Request {
        file,
        debug_info: true,
        inlined: true,
        memory_bytes: 64 << 20,
        max_debug_info_bytes: 64 << 20,
        addresses: addresses.to_vec(),
        ..Request::default()
    }
}

/// The names at some addresses.
fn names(worker: &mut Worker, number: u64, path: &Path, addresses: &[u64]) -> Result<Vec<String>, Failure> {
    let file = File::open(path).unwrap();
    let answers = worker.ask(&request(number, addresses), &[file.as_fd()])?;
    let name = |answer: Answer| answer.found.map_or_else(String::new, |found| found.name);
    Ok(answers.into_iter().map(name).collect())
}

fn signal(worker: &Worker, signal: Signal) {
    let pid = i32::try_from(worker.pid().unwrap()).unwrap();
    kill_process(Pid::from_raw(pid).unwrap(), signal).unwrap();
}

/// Waits until all threads of the reader are in a state, as `/proc/PID/stat` has it.
fn wait_until(worker: &Worker, state: &str) {
    let tasks = format!("/proc/{}/task", worker.pid().unwrap());
    let is_there = || {
        let mut stats = std::fs::read_dir(&tasks).unwrap();
        stats.all(|task| {
            let stat = std::fs::read_to_string(task.unwrap().path().join("stat"));
            stat.is_ok_and(|stat| stat.contains(state))
        })
    };
    let begin = Instant::now();
    while !is_there() {
        assert!(begin.elapsed() < PATIENCE, "not in state {state}");
        std::thread::sleep(Duration::from_millis(1));
    }
}

struct Fixture {
    dir: tempfile::TempDir,
    path: PathBuf,
    address: u64,
    worker: Worker,
}

fn fixture() -> Fixture {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("p");
    compile(&path);
    let address = address_of_f(&path);
    Fixture { dir, path, address, worker: Worker::new(ReaderProgram::default()) }
}

#[test]
fn many_addresses_are_answered_at_once_and_the_reader_stays() {
    let Fixture { dir: _dir, path, address, mut worker } = fixture();
    assert_eq!(names(&mut worker, 1, &path, &[address, 1, address + 1]).unwrap(), ["f", "", "f"]);
    let pid = worker.pid();
    assert!(worker.knows_only(1));
    assert_eq!(names(&mut worker, 2, &path, &[address]).unwrap(), ["f"]);
    assert!(worker.pid() == pid && !worker.knows_only(1) && !worker.knows_only(2));
    worker.stop_if_idle(Duration::ZERO);
    assert_eq!(worker.pid(), None);
    assert_eq!(names(&mut worker, 1, &path, &[address]).unwrap(), ["f"]);
    assert!(worker.pid().is_some() && worker.pid() != pid);
}

#[test]
fn the_reader_has_no_rights_and_limits() {
    let Fixture { dir: _dir, path, address, mut worker } = fixture();
    names(&mut worker, 1, &path, &[address]).unwrap();
    let pid = worker.pid().unwrap();
    // Here a thread of the test binary reads, in the program it is the only one.
    let threads = std::fs::read_dir(format!("/proc/{pid}/task")).unwrap();
    let statuses =
        threads.map(|thread| std::fs::read_to_string(thread.unwrap().path().join("status")).unwrap());
    let status = statuses.into_iter().find(|status| status.contains("symbol-reader")).unwrap();
    let field = |name: &str| -> String {
        status.lines().find_map(|line| line.strip_prefix(name)).unwrap().trim().to_owned()
    };
    // CAP_DAC_READ_SEARCH or, where that is missing, CAP_DAC_OVERRIDE.
    let reading = |set: String| matches!(u64::from_str_radix(&set, 16), Ok(0 | 0b10 | 0b100));
    assert!(reading(field("CapEff:")) && reading(field("CapPrm:")), "{status}");
    assert_eq!([field("CapInh:"), field("CapAmb:")], ["0000000000000000", "0000000000000000"]);
    assert_eq!(field("NoNewPrivs:"), "1");
    let limits = std::fs::read_to_string(format!("/proc/{pid}/limits")).unwrap();
    let limit = |name: &str| -> u64 {
        let line = limits.lines().find(|line| line.starts_with(name)).unwrap();
        line.trim_start_matches(name).split_whitespace().next().unwrap().parse().unwrap()
    };
    assert_eq!((limit("Max core file size"), limit("Max data size")), (0, (80 + 96) << 20));
    assert!(limit("Max cpu time") < 3600 && limit("Max open files") <= 8192, "{limits}");
}

#[test]
fn a_file_that_shrinks_while_it_is_read_costs_the_reader_and_no_more() {
    let Fixture { dir, path, address, mut worker } = fixture();
    // Three hundred million ranges that are empty: seconds of work.
    let slow = dir.path().join("slow");
    crafted(&slow, &alike(3000), "1, 1");
    let slow_address = address_of_f(&slow);
    names(&mut worker, 1, &path, &[address]).unwrap();
    let pid = worker.pid().unwrap();
    let before = ticks_of(pid);
    let file = File::options().write(true).open(&slow).unwrap();
    let shrinking = std::thread::spawn(move || {
        // It has begun.
        let begin = Instant::now();
        while ticks_of(pid) < before + 10 && begin.elapsed() < PATIENCE {
            std::thread::sleep(Duration::from_millis(1));
        }
        file.set_len(64).unwrap();
    });
    let failure = names(&mut worker, 2, &slow, &[slow_address]).unwrap_err();
    assert!(matches!(&failure, Failure::Fell(how) if how.contains("SIGBUS")), "{failure:?}");
    shrinking.join().unwrap();
    assert_eq!(names(&mut worker, 1, &path, &[address]).unwrap(), ["f"]);
}

#[test]
fn a_reader_that_somebody_kills_is_no_fault_of_the_file() {
    let Fixture { dir: _dir, path, address, mut worker } = fixture();
    names(&mut worker, 1, &path, &[address]).unwrap();
    // While nobody asks.
    signal(&worker, Signal::KILL);
    wait_until(&worker, ") Z");
    assert!(matches!(names(&mut worker, 1, &path, &[address]), Err(Failure::Ended)));
    assert_eq!(names(&mut worker, 1, &path, &[address]).unwrap(), ["f"]);
    // In the middle of an answer.
    signal(&worker, Signal::STOP);
    wait_until(&worker, ") T");
    let pid = i32::try_from(worker.pid().unwrap()).unwrap();
    let killer = std::thread::spawn(move || {
        std::thread::sleep(Duration::from_millis(200));
        kill_process(Pid::from_raw(pid).unwrap(), Signal::KILL).unwrap();
    });
    assert!(matches!(names(&mut worker, 1, &path, &[address]), Err(Failure::Ended)));
    killer.join().unwrap();
    assert_eq!(names(&mut worker, 1, &path, &[address]).unwrap(), ["f"]);
}

#[test]
fn a_reader_that_hangs_is_killed() {
    let Fixture { dir: _dir, path, address, mut worker } = fixture();
    names(&mut worker, 1, &path, &[address]).unwrap();
    signal(&worker, Signal::STOP);
    wait_until(&worker, ") T");
    worker.patience = Duration::from_millis(100);
    assert!(matches!(names(&mut worker, 1, &path, &[address]), Err(Failure::Fell(_))));
    worker.patience = PATIENCE;
    assert_eq!(names(&mut worker, 1, &path, &[address]).unwrap(), ["f"]);
}

#[test]
fn a_reader_that_cannot_run_is_not_started_again_and_again() {
    let Fixture { dir: _dir, path, address, .. } = fixture();
    for program in ["/bin/false", "/nonexistent"] {
        let mut worker = Worker::new(ReaderProgram::with(program, &[]));
        for _ in 0..3 {
            assert!(matches!(names(&mut worker, 1, &path, &[address]), Err(Failure::Absent)), "{program}");
        }
        assert!(worker.running.is_none() && worker.dying.is_empty() && worker.retry_at.is_some());
    }
}

#[test]
fn a_reader_that_is_let_go_leaves_no_process() {
    let Fixture { dir: _dir, path, address, mut worker } = fixture();
    let (before, _) = reader_cost();
    names(&mut worker, 1, &path, &[address]).unwrap();
    let process = PathBuf::from(format!("/proc/{}", worker.pid().unwrap()));
    assert!(process.exists());
    drop(worker);
    assert!(!process.exists());
    assert!(reader_cost().0 >= before);
}
