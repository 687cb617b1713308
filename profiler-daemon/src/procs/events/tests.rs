//! Events against a table that knows this very process, children of ours, and some that are gone.

use std::process::{Child, Command, Stdio};

use super::super::Options;
use super::*;

/// Later than anything that was read from `/proc` so far.
const LATER: MonoNs = MonoNs(u64::MAX / 2);

fn after(nanoseconds: u64) -> MonoNs {
    MonoNs(LATER.0 + nanoseconds)
}

fn me() -> ProcessId {
    identify(Pid(std::process::id())).unwrap()
}

/// A table that knows this process.
fn table() -> ProcessTable {
    let mut table = ProcessTable::new(Options::default());
    assert!(table.observe(me()).maps_known());
    table
}

fn apply(table: &mut ProcessTable, time: MonoNs, change: ProcessChange) {
    table.apply(&ProcessEvent { time, change });
}

/// A process that lives until this is dropped.
struct Running(Child);

impl Running {
    fn start() -> Self {
        Self(Command::new("sleep").arg("60").stdin(Stdio::null()).spawn().unwrap())
    }

    fn id(&self) -> ProcessId {
        identify(Pid(self.0.id())).unwrap()
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A process that there is no more when its first event comes: no pid is that large.
fn gone() -> ProcessId {
    ProcessId { pid: Pid(4_000_000_000), start_ticks: 7 }
}

fn map(pid: Pid, start: u64, end: u64, path: &str, file: FileKey) -> ProcessChange {
    ProcessChange::Map(pid, MappedCode { start, end, offset: 0x1000, path: path.as_bytes().into(), file })
}

fn anonymous(pid: Pid, start: u64, end: u64) -> ProcessChange {
    map(pid, start, end, "//anon", FileKey::Inode { device: (0, 0), inode: 0 })
}

/// The build id, file and path of some code that this process has mapped.
fn own_file(table: &ProcessTable) -> (FileKey, Arc<ObjectFile>, Arc<str>) {
    let of = |mapping: &Mapping| match &mapping.kind {
        MappingKind::File { path, file: Some(file) } => {
            let id = file.elf()?.build_id.clone()?;
            Some((FileKey::BuildId(id), Arc::clone(file), Arc::clone(path)))
        }
        _ => None,
    };
    table.get(me()).unwrap().mappings().iter().find_map(of).expect("some file has a build id")
}

/// Start, end and offset of every mapping.
fn ranges(table: &ProcessTable, id: ProcessId) -> Vec<(u64, u64, u64)> {
    let mappings = table.get(id).unwrap().mappings();
    mappings.iter().map(|mapping| (mapping.start, mapping.end, mapping.offset)).collect()
}

#[test]
fn a_forked_process_has_its_parents_code() {
    let mut table = table();
    let child = Running::start();
    table.take_changed();
    apply(&mut table, LATER, ProcessChange::Fork { child: child.id(), parent: me().pid });
    assert_eq!(ranges(&table, child.id()), ranges(&table, me()));
    let process = table.get(child.id()).unwrap();
    assert!(process.maps_known() && !process.is_gone());
    assert_eq!(process.exe(), table.get(me()).unwrap().exe());
    assert_eq!(table.take_changed(), [child.id()]);
    // Said twice it changes nothing.
    apply(&mut table, after(1), anonymous(child.id().pid, 0x10_000, 0x20_000));
    let known = ranges(&table, child.id());
    apply(&mut table, after(2), ProcessChange::Fork { child: child.id(), parent: me().pid });
    assert_eq!(ranges(&table, child.id()), known);
}

#[test]
fn the_child_of_an_unknown_parent_is_read() {
    let mut table = ProcessTable::new(Options::default());
    let child = Running::start();
    apply(&mut table, LATER, ProcessChange::Fork { child: child.id(), parent: gone().pid });
    assert!(table.get(child.id()).unwrap().maps_known());
}

#[test]
fn exec_begins_a_new_image_and_the_old_one_serves_older_samples() {
    let mut table = table();
    let (key, file, path) = own_file(&table);
    let child = Running::start();
    let id = child.id();
    apply(&mut table, LATER, ProcessChange::Fork { child: id, parent: me().pid });
    let old = ranges(&table, id)[0].0;
    apply(&mut table, after(100), ProcessChange::NewImage { pid: id.pid, comm: "next".into() });
    assert!(ranges(&table, id).is_empty());
    apply(&mut table, after(101), map(id.pid, 0x40_0000, 0x50_0000, &path, key.clone()));
    apply(&mut table, after(102), map(id.pid, 0x60_0000, 0x70_0000, "/other", key));
    assert_eq!(ranges(&table, id), [(0x40_0000, 0x50_0000, 0x1000), (0x60_0000, 0x70_0000, 0x1000)]);

    let process = table.get(id).unwrap();
    assert_eq!(**process.exe(), *path, "the first file that is mapped is the program");
    assert_eq!(&**process.comm(), "next", "and its name is known however soon it is gone");
    assert!(process.find(old, after(99)).is_some() && process.find(old, after(100)).is_none());
    assert!(process.find(0x40_0000, after(99)).is_none());
    let found = process.find(0x48_0000, after(103)).unwrap();
    let MappingKind::File { file: Some(found), .. } = &found.kind else { panic!("{found:?}") };
    assert_eq!(found.serial(), file.serial(), "the file that the process itself has there by that name");
}

#[test]
fn a_mapping_takes_the_place_of_what_lay_there() {
    let mut table = table();
    let (key, _, path) = own_file(&table);
    let child = Running::start();
    let id = child.id();
    apply(&mut table, LATER, ProcessChange::Fork { child: id, parent: me().pid });
    apply(&mut table, after(1), ProcessChange::NewImage { pid: id.pid, comm: "next".into() });
    apply(&mut table, after(2), anonymous(id.pid, 0x10_000, 0x20_000));
    apply(&mut table, after(3), map(id.pid, 0x14_000, 0x18_000, &path, key));
    assert_eq!(
        ranges(&table, id),
        [(0x10_000, 0x14_000, 0x1000), (0x14_000, 0x18_000, 0x1000), (0x18_000, 0x20_000, 0x9000)]
    );
}

#[test]
fn what_proc_said_later_is_not_undone_by_an_older_event() {
    let mut table = table();
    let known = ranges(&table, me());
    apply(&mut table, MonoNs(1), ProcessChange::NewImage { pid: me().pid, comm: "next".into() });
    apply(&mut table, MonoNs(2), anonymous(me().pid, 0x10_000, 0x20_000));
    assert_eq!(ranges(&table, me()), known);
}

#[test]
fn a_process_that_came_and_went_unseen_is_known_by_its_events() {
    let mut table = table();
    let (key, file, path) = own_file(&table);
    apply(&mut table, LATER, ProcessChange::Fork { child: gone(), parent: me().pid });
    apply(&mut table, after(1), ProcessChange::NewImage { pid: gone().pid, comm: "next".into() });
    apply(&mut table, after(2), map(gone().pid, 0x40_0000, 0x50_0000, &path, key));
    apply(&mut table, after(9), ProcessChange::Exit(gone()));
    let process = table.get(gone()).unwrap();
    assert!(process.is_gone() && process.maps_known());
    assert_eq!(process.exe(), &path);
    let found = process.find(0x40_1000, after(5)).expect("it had mapped this");
    let MappingKind::File { file: Some(found), .. } = &found.kind else { panic!("{found:?}") };
    assert_eq!(found.serial(), file.serial());

    // Nobody had told that a file of this build id is open: it is found by its name.
    let mut fresh = ProcessTable::new(Options::default());
    let (key, ..) = own_file(&table);
    fresh.observe(me());
    fresh.get_mut(me()).unwrap().image.mappings.retain(|mapping| matches!(mapping.kind, MappingKind::Vdso));
    let wrong = FileKey::BuildId("00".into());
    apply(&mut fresh, LATER, ProcessChange::Fork { child: gone(), parent: me().pid });
    apply(&mut fresh, after(1), map(gone().pid, 0x40_0000, 0x50_0000, &path, key));
    apply(&mut fresh, after(2), map(gone().pid, 0x60_0000, 0x70_0000, &path, wrong));
    let has_file = |address| {
        let found = fresh.get(gone()).unwrap().find(address, after(3)).unwrap();
        matches!(&found.kind, MappingKind::File { file: Some(_), .. })
    };
    assert!(has_file(0x40_1000));
    assert!(!has_file(0x60_1000), "another file than the one that was mapped");
}

#[test]
fn a_pid_that_was_given_away_is_not_the_old_process() {
    let mut table = table();
    let child = Running::start();
    // A predecessor with the same pid, whose end nobody told of.
    let old = ProcessId { start_ticks: child.id().start_ticks - 1, ..child.id() };
    apply(&mut table, LATER, ProcessChange::Fork { child: old, parent: me().pid });
    let known = ranges(&table, old);
    apply(&mut table, after(1), anonymous(child.id().pid, 0x10_000, 0x20_000));
    assert_eq!(ranges(&table, old), known);
    assert!(ranges(&table, child.id()).contains(&(0x10_000, 0x20_000, 0x1000)));
    // And one whose end is known.
    let mut table = self::table();
    apply(&mut table, LATER, ProcessChange::Fork { child: gone(), parent: me().pid });
    apply(&mut table, after(1), ProcessChange::Exit(gone()));
    let known = ranges(&table, gone());
    apply(&mut table, after(2), anonymous(gone().pid, 0x10_000, 0x20_000));
    assert_eq!(ranges(&table, gone()), known);
}

#[test]
fn a_process_that_has_ended_stays_known_and_is_said_to_have_changed() {
    let mut table = table();
    let child = Running::start();
    let id = child.id();
    apply(&mut table, LATER, ProcessChange::Fork { child: id, parent: me().pid });
    table.take_changed();
    apply(&mut table, after(1), ProcessChange::Exit(id));
    let process = table.get(id).unwrap();
    assert!(process.is_gone() && !process.mappings().is_empty());
    assert_eq!(table.take_changed(), [id]);
}

#[test]
fn names_without_a_file_are_no_files() {
    let mut table = table();
    let child = Running::start();
    let id = child.id();
    apply(&mut table, LATER, ProcessChange::Fork { child: id, parent: me().pid });
    apply(&mut table, after(1), ProcessChange::NewImage { pid: id.pid, comm: "next".into() });
    let none = FileKey::Inode { device: (0, 0), inode: 0 };
    for (number, name) in ["[vdso]", "//anon", "[anon:jit]", "[heap]", "", "[uprobes]"].iter().enumerate() {
        let start = 0x10_0000 * (number as u64 + 1);
        apply(&mut table, after(2), map(id.pid, start, start + 0x1000, name, none.clone()));
    }
    let kinds: Vec<String> = table
        .get(id)
        .unwrap()
        .mappings()
        .iter()
        .map(|mapping| match &mapping.kind {
            MappingKind::File { .. } => "file".to_owned(),
            MappingKind::Vdso => "vdso".to_owned(),
            MappingKind::Anonymous => "anonymous".to_owned(),
            MappingKind::Special(name) => name.to_string(),
        })
        .collect();
    assert_eq!(kinds, ["vdso", "anonymous", "anonymous", "anonymous", "anonymous", "[uprobes]"]);
}

#[test]
fn a_living_process_is_asked_which_file_it_mapped_whatever_its_build_id() {
    let dir = tempfile::tempdir().unwrap();
    let copy = |name: &str, tail: &[u8]| {
        let path = dir.path().canonicalize().unwrap().join(name);
        std::fs::copy("/bin/sleep", &path).unwrap();
        let mut file = std::fs::File::options().append(true).open(&path).unwrap();
        std::io::Write::write_all(&mut file, tail).unwrap();
        path
    };
    let (genuine, forged) = (copy("genuine", b""), copy("forged", b"more"));
    let child = Running(Command::new(&genuine).arg("60").stdin(Stdio::null()).spawn().unwrap());
    let mut table = ProcessTable::new(Options::default());
    // The forged one comes first.
    let forged = std::fs::File::open(&forged).unwrap();
    let forged = table.keep_file(forged.into(), &"forged".into()).unwrap();
    let build_id = forged.elf().unwrap().build_id.clone().expect("sleep has a build id");
    let id = child.id();
    table.observe(id);
    // Whoever starts a program may go on before the kernel has mapped it.
    let since = std::time::Instant::now();
    let line = loop {
        let maps = std::fs::read_to_string(format!("/proc/{}/maps", id.pid)).unwrap();
        let line = maps.lines().find(|line| line.contains(" r-xp ") && line.ends_with("/genuine"));
        if let Some(line) = line {
            break line.to_owned();
        }
        assert!(since.elapsed().as_secs() < 10, "{maps}");
    };
    let (start, end) = line.split_once(' ').unwrap().0.split_once('-').unwrap();
    let [start, end] = [start, end].map(|text| u64::from_str_radix(text, 16).unwrap());
    let path = genuine.to_str().unwrap();
    apply(&mut table, LATER, map(id.pid, start, end, path, FileKey::BuildId(build_id)));
    let found = table.get(id).unwrap().find(start, after(1)).unwrap();
    let MappingKind::File { file: Some(found), .. } = &found.kind else { panic!("{found:?}") };
    assert_ne!(found.serial(), forged.serial());
    assert_eq!(found.size(), std::fs::metadata(&genuine).unwrap().len());
}
