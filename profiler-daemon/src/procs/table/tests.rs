//! The process table against live processes: our own, children that exec, exit or lose their file.

use std::io::Read;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use crate::model::Pid;
use crate::procs::identify;

use super::*;

fn table() -> ProcessTable {
    ProcessTable::new(Options::default())
}

fn me() -> ProcessId {
    identify(Pid(std::process::id())).unwrap()
}

struct Running(Child);

impl Running {
    fn start(program: &Path, args: &[&str]) -> Self {
        let child =
            Command::new(program).args(args).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        Self(child)
    }

    fn id(&self) -> ProcessId {
        identify(Pid(self.0.id())).unwrap()
    }

    /// Waits until the process runs this executable and has mapped libc: exec is over then.
    fn settle(&self, exe: &Path) {
        let proc = format!("/proc/{}", self.0.id());
        for _ in 0..500 {
            let maps = std::fs::read_to_string(format!("{proc}/maps")).unwrap();
            let is_there =
                |name: &str| maps.lines().any(|line| line.contains(" r-xp ") && line.contains(name));
            let exe_is_this = std::fs::read_link(format!("{proc}/exe")).is_ok_and(|path| path == exe);
            if exe_is_this && is_there(exe.to_str().unwrap()) && is_there("libc") {
                return;
            }
            std::thread::sleep(Duration::from_millis(2));
        }
        panic!("{} never became {}", self.0.id(), exe.display());
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn cat_copy(dir: &Path) -> std::path::PathBuf {
    let copy = dir.join("cat-copy");
    std::fs::copy("/bin/cat", &copy).unwrap();
    copy.canonicalize().unwrap()
}

fn main_file(process: &Process) -> Arc<ObjectFile> {
    process
        .mappings()
        .iter()
        .find_map(|mapping| match &mapping.kind {
            MappingKind::File { path, file } if *path == process.exe => file.clone(),
            _ => None,
        })
        .unwrap()
}

#[test]
fn our_own_code_is_mapped_from_our_own_binary() {
    let address = table as fn() -> ProcessTable as usize as u64;
    let mut table = table();
    let id = me();
    assert!(table.observe(id).maps_known());
    let mapping = table.lookup(id, address, mono_now()).unwrap();
    let MappingKind::File { path, file } = &mapping.kind else { panic!("{mapping:?}") };
    assert_eq!(Path::new(&**path), std::env::current_exe().unwrap());
    assert!(file.as_ref().unwrap().elf().is_some());
    assert!(mapping.start <= address && address < mapping.end);
    assert!(table.lookup(id, 1, mono_now()).is_none());
    assert!(
        table.processes[&id].image.mappings.iter().any(|mapping| matches!(mapping.kind, MappingKind::Vdso))
    );
}

#[test]
fn a_reused_pid_never_gets_the_maps_of_its_successor() {
    let mut table = table();
    let other = ProcessId { start_ticks: me().start_ticks - 1, ..me() };
    let process = table.observe(other);
    assert!(!process.maps_known() && process.mappings().is_empty());
}

#[test]
fn a_deleted_file_and_an_exited_process_stay_known() {
    let dir = tempfile::tempdir().unwrap();
    let copy = cat_copy(dir.path());
    let child = Running::start(&copy, &[]);
    child.settle(&copy);
    let id = child.id();
    std::fs::remove_file(&copy).unwrap();

    let mut table = table();
    table.observe(id);
    drop(child);
    let process = table.observe(id);
    assert!(process.exe().contains("cat-copy"));
    let file = process.mappings().iter().find_map(|mapping| match &mapping.kind {
        MappingKind::File { path, file } if path.ends_with("/cat-copy") => file.clone(),
        _ => None,
    });
    let mut bytes = Vec::new();
    File::open(file.unwrap().proc_path()).unwrap().read_to_end(&mut bytes).unwrap();
    assert_eq!(bytes, std::fs::read("/bin/cat").unwrap());
    // The address that fits nothing asks for a re-read, which must not lose what is known.
    std::thread::sleep(*REREAD_AFTER.end());
    assert!(table.lookup(id, 1, mono_now()).is_none());
    assert!(!table.observe(id).mappings().is_empty());
}

#[test]
fn a_replaced_file_is_not_mistaken_for_the_mapped_one() {
    let dir = tempfile::tempdir().unwrap();
    let copy = cat_copy(dir.path());
    let child = Running::start(&copy, &[]);
    child.settle(&copy);
    std::fs::remove_file(&copy).unwrap();
    std::fs::copy("/bin/true", &copy).unwrap();
    let handle = ProcDir::open_exact(child.id()).unwrap();
    let bytes = handle.read("maps", MAX_MAPS).unwrap();
    let line = maps::parse(&bytes).find(|line| line.executable && line.path.starts_with(b"/")).unwrap();
    let by_name = handle.open_in_root(copy.to_str().unwrap().as_bytes(), true).unwrap();
    assert!(!is_same_file(&by_name, &line));
    assert!(is_same_file(&handle.open_link("exe").unwrap(), &line));
}

#[test]
fn exec_is_noticed() {
    let mut table = table();
    let cat = Path::new("/bin/cat").canonicalize().unwrap();
    let sh = Path::new("/bin/sh").canonicalize().unwrap();
    let mut child = Running::start(&sh, &["-c", "read line; exec /bin/cat"]);
    child.settle(&sh);
    let id = child.id();
    assert_eq!(Path::new(&**table.observe(id).exe()), sh);
    let before = main_file(&table.processes[&id]);

    std::io::Write::write_all(child.0.stdin.as_mut().unwrap(), b"\n").unwrap();
    child.settle(&cat);
    table.recheck(id);
    assert_eq!(Path::new(&**table.observe(id).exe()), cat);
    assert_ne!(main_file(&table.processes[&id]).serial(), before.serial());
    // Samples of before are still named by what ran then; the event that tells when it ended comes last.
    let process = &table.processes[&id];
    let old = process.past.last().expect("kept").1.mappings.first().unwrap().start;
    assert!(matches!(
        process.find(old, MonoNs(1)).map(|mapping| &mapping.kind),
        Some(MappingKind::File { file: Some(file), .. }) if file.serial() == before.serial()
    ));
    let counted: usize = table.processes.values().map(Process::mapping_count).sum();
    assert_eq!(table.mappings, counted);
}

#[test]
fn what_is_mapped_later_is_found_soon_but_misses_do_not_read_all_the_time() {
    let mut table = table();
    let id = me();
    let address = me as fn() -> ProcessId as usize as u64;
    table.observe(id);
    let forget = |table: &mut ProcessTable| table.processes.get_mut(&id).unwrap().image.mappings.clear();
    forget(&mut table);
    std::thread::sleep(*REREAD_AFTER.start());
    assert!(table.lookup(id, address, mono_now()).is_some(), "read again");
    let mut reads = 0;
    let start = Instant::now();
    while start.elapsed() < 2 * *REREAD_AFTER.end() {
        forget(&mut table);
        reads += u32::from(table.lookup(id, address, mono_now()).is_some());
    }
    // 4 + 8 + 16 + 32 + 64 + 128 + 200 ms.
    assert!((1..=8).contains(&reads), "{reads}");
}

#[test]
fn what_is_missed_in_vain_is_looked_for_ever_more_seldom() {
    let mut table = table();
    let id = me();
    table.observe(id);
    let (mut reads, mut last, start) = (0, Instant::now(), Instant::now());
    while start.elapsed() < Duration::from_millis(1200) {
        assert!(table.lookup(id, 1, mono_now()).is_none());
        let read = table.processes[&id].maps_read;
        reads += u32::from(std::mem::replace(&mut last, read) != read);
        std::thread::sleep(Duration::from_millis(1));
    }
    assert!(table.processes[&id].reread_after > 2 * *REREAD_AFTER.end(), "after {reads}");
    assert!((2..=10).contains(&reads), "{reads}");
}

#[test]
fn making_room_for_processes_keeps_the_newer_one_with_a_pid() {
    let mut table = ProcessTable::new(Options { max_processes: 8, ..Options::default() });
    let life = |pid: u32, start_ticks| ProcessId { pid: Pid(4_000_000_000 + pid), start_ticks };
    let now = Instant::now();
    table.add(Process::new(life(0, 1), now));
    table.add(Process::new(life(0, 2), now + Duration::from_secs(1)));
    for pid in 1..7 {
        table.add(Process::new(life(pid, 1), now + Duration::from_secs(1)));
    }
    assert_eq!(table.len(), 8);
    table.add(Process::new(life(9, 1), now + Duration::from_secs(2)));
    assert!(!table.contains(life(0, 1)), "the oldest made room");
    assert_eq!(table.by_pid(life(0, 2).pid), Some(life(0, 2)));
}

#[test]
fn a_full_table_of_files_evicts_no_process() {
    let mut table = ProcessTable::new(Options { max_files: 16, ..Options::default() });
    let life = |pid: u32| ProcessId { pid: Pid(4_000_000_000 + pid), start_ticks: 1 };
    let _held: Vec<_> = (0..16)
        .map(|_| table.keep_file(tempfile::tempfile().unwrap().into(), &"a".into()).unwrap())
        .collect();
    for pid in 0..100 {
        table.add(Process::new(life(pid), Instant::now()));
    }
    assert!(table.keep_file(tempfile::tempfile().unwrap().into(), &"a".into()).is_none());
    assert_eq!((table.len(), table.take_refused()), (100, 1));
}

#[test]
fn the_number_of_processes_is_bounded() {
    let mut table = ProcessTable::new(Options { max_processes: 8, ..Options::default() });
    for pid in 0..100 {
        table.observe(ProcessId { pid: Pid(4_000_000_000 + pid), start_ticks: 1 });
    }
    assert!(table.len() <= 8, "{}", table.len());
    // The latest is always there.
    assert!(table.processes.contains_key(&ProcessId { pid: Pid(4_000_000_099), start_ticks: 1 }));
}

#[test]
fn the_number_of_open_files_is_bounded() {
    let mut table = ProcessTable::new(Options { max_files: 16, ..Options::default() });
    let children: Vec<_> = (0..3)
        .map(|_| {
            let dir = tempfile::tempdir().unwrap();
            let copy = cat_copy(dir.path());
            let child = Running::start(&copy, &[]);
            child.settle(&copy);
            (child, dir)
        })
        .collect();
    for (child, _dir) in &children {
        table.observe(child.id());
    }
    assert!(table.open_files() <= 16);
}

#[test]
fn a_perf_map_behind_a_link_is_not_opened() {
    let child = Running::start(Path::new("/bin/cat"), &[]);
    let dir = ProcDir::open(Pid(child.0.id())).unwrap();
    let path = format!("/tmp/perf-{}.map", child.0.id());
    std::os::unix::fs::symlink("/etc/passwd", &path).unwrap();
    let through_link = open_perf_map(&dir);
    std::fs::remove_file(&path).unwrap();
    std::fs::write(&path, "1000 10 f\n").unwrap();
    let plain = open_perf_map(&dir);
    std::fs::remove_file(&path).unwrap();
    assert!(through_link.is_none());
    assert!(plain.is_some());
}
