//! Tests of the threads: who is served when, and what one bad file costs.

use std::fs::File;
use std::io::Write;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use profiler_common::unwind::Rule;

use super::*;
use crate::unwind::image::{Image, Source};

/// No answer takes that long; a test that waits for it has failed.
const LONG: Duration = Duration::from_secs(60);

/// A file whose first byte tells the test builders what to do.
fn file(serial: u64, kind: u8, size: u64) -> Arc<ObjectFile> {
    let mut file = tempfile::tempfile().unwrap();
    file.write_all(&[kind]).unwrap();
    file.set_len(size).unwrap();
    Arc::new(ObjectFile::new(OwnedFd::from(file), format!("/file-{serial}").into(), serial).unwrap())
}

fn real(path: &str, serial: u64) -> Arc<ObjectFile> {
    Arc::new(ObjectFile::new(File::open(path).unwrap().into(), path.into(), serial).unwrap())
}

fn kind(file: &ObjectFile) -> u8 {
    let mut byte = [0];
    rustix::io::pread(file, &mut byte, 0).unwrap();
    byte[0]
}

/// Files that begin with one of these digits are built when their gate opens. One a test.
static GATES: [AtomicBool; 4] = [const { AtomicBool::new(false) }; 4];

fn open(gate: u8) {
    GATES[usize::from(gate - b'0')].store(true, Ordering::SeqCst);
}

/// `p` panics, a digit waits for its gate, everything else is an empty table.
fn scripted(file: &ObjectFile) -> Result<Built, UnwindError> {
    match kind(file) {
        b'p' => panic!("as told"),
        gate @ b'0'..=b'3' => {
            while !GATES[usize::from(gate - b'0')].load(Ordering::SeqCst) {
                thread::sleep(Duration::from_millis(1));
            }
        }
        _ => {}
    }
    Ok(Built { table: Table { rules: vec![Rule::NONE], ..Table::default() }, evidence: None })
}

fn options(threads: usize) -> WorkersOptions {
    WorkersOptions { threads, waiting: 100, large: 1000 }
}

fn serials(answers: &Receiver<Answer>, count: usize) -> Vec<u64> {
    (0..count).map(|_| answers.recv_timeout(LONG).unwrap().serial).collect()
}

#[test]
fn a_real_file_gets_its_table_and_equal_ones_share_it() {
    let (workers, answers) = Workers::start(WorkersOptions::default(), None).unwrap();
    let library = std::fs::read_to_string("/proc/self/maps").unwrap();
    let library = library
        .lines()
        .find_map(|line| line.find("/").filter(|_| line.contains("/libc.so")).map(|at| line[at..].to_owned()))
        .unwrap();
    let mut tables = Vec::new();
    for serial in [1, 2] {
        assert_eq!(workers.request(&real(&library, serial)), Requested::Accepted);
        let answer = answers.recv_timeout(LONG).unwrap();
        assert_eq!(answer.serial, serial);
        tables.push(answer.table.unwrap());
    }
    assert!(tables[0].report.functions > 1000);
    assert!(Arc::ptr_eq(&tables[0], &tables[1]));
    assert_eq!(workers.in_flight(), 0);
}

#[test]
fn the_second_time_comes_from_the_cache() {
    let directory = tempfile::tempdir().unwrap();
    let cache = Arc::new(Cache::open(&directory.path().join("tables"), 64 << 20).unwrap());
    let mut tables = Vec::new();
    for _ in 0..2 {
        // Each with no memory of the other.
        let (workers, answers) = Workers::start(options(1), Some(Arc::clone(&cache))).unwrap();
        workers.request(&real("/bin/true", 1));
        tables.push(answers.recv_timeout(LONG).unwrap().table.unwrap());
    }
    assert_eq!(tables[0], tables[1]);
    let counts = cache.counts();
    assert_eq!((counts.hits, counts.misses, counts.rejected), (1, 1, 0));
}

/// Two programs that say the same of themselves, the second with other unwinding information.
fn forged(directory: &Path) -> [Arc<ObjectFile>; 2] {
    // DW_CFA_def_cfa_offset: 16 bytes, and what it is forged to.
    const HONEST: [u8; 2] = [0x0e, 16];
    const FORGED: [u8; 2] = [0x0e, 48];
    let mut program = std::fs::read("/bin/true").unwrap();
    let image = Image::read(Source::Bytes(&program)).unwrap();
    let (section, _) = image.eh_frame.unwrap();
    let start = usize::try_from(section.offset).unwrap();
    let section = start..start + usize::try_from(section.size).unwrap();
    let paths = ["honest", "forged"].map(|name| directory.join(name));
    std::fs::write(&paths[0], &program).unwrap();
    for at in section {
        if program[at..at + 2] == HONEST {
            program[at..at + 2].copy_from_slice(&FORGED);
        }
    }
    std::fs::write(&paths[1], &program).unwrap();
    [real(paths[0].to_str().unwrap(), 1), real(paths[1].to_str().unwrap(), 2)]
}

#[test]
fn a_forged_build_id_gets_nobody_elses_table_and_spoils_none() {
    let directory = tempfile::tempdir().unwrap();
    let files = forged(directory.path());
    let name = |file: &ObjectFile| (file.elf().unwrap().build_id.clone().unwrap(), file.size());
    assert_eq!(name(&files[0]), name(&files[1]));
    let cache = Arc::new(Cache::open(&directory.path().join("tables"), 64 << 20).unwrap());
    let own: Vec<Table> = files.iter().map(|file| build(file).unwrap().table).collect();
    assert_ne!(own[0], own[1]);

    // In memory, while the first one is held; on disk, after that.
    for _ in 0..2 {
        let (workers, answers) = Workers::start(options(1), Some(Arc::clone(&cache))).unwrap();
        let mut held = Vec::new();
        for (file, own) in files.iter().zip(&own).chain(files.iter().zip(&own)) {
            workers.request(file);
            let table = answers.recv_timeout(LONG).unwrap().table.unwrap();
            assert_eq!(*table, *own, "{}", file.path());
            held.push(table);
        }
    }
    assert!(cache.counts().foreign > 0);
    assert_eq!(cache.counts().rejected, 0);
}

#[test]
fn a_panic_costs_its_file_only() {
    let (workers, answers) = Workers::start_with(options(1), None, scripted).unwrap();
    workers.request(&file(1, b'p', 10));
    workers.request(&file(2, b'.', 10));
    let error = answers.recv_timeout(LONG).unwrap().table.unwrap_err();
    assert_eq!(
        error.to_string(),
        "/file-1: no unwinding table: the table builder panicked (as told): please report it"
    );
    assert!(answers.recv_timeout(LONG).unwrap().table.is_ok());
}

#[test]
fn small_files_pass_a_large_one() {
    let (workers, answers) = Workers::start_with(options(2), None, scripted).unwrap();
    workers.request(&file(1, b'0', 5000));
    workers.request(&file(2, b'0', 5000));
    for serial in 3..20 {
        workers.request(&file(serial, b'.', 10));
    }
    // The first large one is being built all the while.
    assert_eq!(serials(&answers, 17), (3..20).collect::<Vec<_>>());
    open(b'0');
    assert_eq!(serials(&answers, 2), [1, 2]);
}

#[test]
fn a_thread_that_is_alone_starves_nobody() {
    let (workers, answers) = Workers::start_with(options(1), None, scripted).unwrap();
    // Holds the thread until all others wait.
    workers.request(&file(1, b'1', 10));
    workers.request(&file(2, b'.', 5000));
    for serial in 3..60 {
        workers.request(&file(serial, b'.', 10));
    }
    open(b'1');
    let order = serials(&answers, 59);
    let large = order.iter().position(|&serial| serial == 2).unwrap();
    assert!((1..=SMALL_IN_A_ROW + 1).contains(&large), "{order:?}");
}

#[test]
fn one_answer_comes_for_all_who_asked_and_the_queue_is_bounded() {
    let options = WorkersOptions { waiting: 1, ..options(1) };
    let (workers, answers) = Workers::start_with(options, None, scripted).unwrap();
    let slow = file(1, b'2', 10);
    assert_eq!(workers.request(&slow), Requested::Accepted);
    assert_eq!(workers.request(&slow), Requested::Already);
    while !lock(&workers.shared.queue).small.is_empty() {
        thread::yield_now();
    }
    assert_eq!(workers.request(&file(2, b'.', 10)), Requested::Accepted);
    assert_eq!(workers.request(&file(3, b'.', 10)), Requested::Refused);
    open(b'2');
    assert_eq!(serials(&answers, 2), [1, 2]);
    assert_eq!(workers.request(&slow), Requested::Accepted);
    assert_eq!(serials(&answers, 1), [1]);
    assert!(answers.try_recv().is_err());
}

#[test]
fn a_file_that_was_written_over_has_no_table() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("program");
    std::fs::copy("/bin/true", &path).unwrap();
    let file = real(path.to_str().unwrap(), 1);
    File::options().append(true).open(&path).unwrap().write_all(b"more").unwrap();
    let (workers, answers) = Workers::start(options(1), None).unwrap();
    workers.request(&file);
    let error = answers.recv_timeout(LONG).unwrap().table.unwrap_err();
    assert!(matches!(error.problem, Problem::Changed), "{error}");
}

#[test]
fn threads_end_when_nobody_is_left() {
    let (workers, answers) = Workers::start_with(options(2), None, scripted).unwrap();
    let shared = Arc::downgrade(&workers.shared);
    workers.request(&file(1, b'3', 10));
    drop((workers, answers));
    open(b'3');
    while shared.strong_count() > 0 {
        thread::sleep(Duration::from_millis(1));
    }
}
