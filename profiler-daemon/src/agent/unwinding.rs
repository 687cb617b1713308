//! The thread that keeps the kernel's unwinding tables in step with what processes map.
//!
//! It applies the events to the process table, has tables built for files that are new, and
//! publishes each process's mappings. It never waits for the symbolizer, so that tables are there
//! while debug information is still being read.

use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use profiler_common::unwind::{MAX_MAPPINGS, Mapping as TableMapping};
use rustc_hash::{FxHashMap, FxHashSet};
use tokio::sync::watch;
use tracing::{debug, info, warn};

use super::error::AgentError;
use super::events::Events;
use super::own_cost;
use crate::kernel::{InstalledTable, NoRoom, TableStats, Tables, Watched};
use crate::model::{ProcessId, Unwinding as Status};
use crate::procs::{self, Mapping, MappingKind, ObjectFile, SharedTable};
use crate::unwind::cache::Cache;
use crate::unwind::{self, Answer, Requested, Table, Workers, WorkersOptions};

/// Batches of events that may wait. With one every 50 ms there is never more than a few.
const BATCHES: usize = 256;
/// How often what processes map is looked at when nothing happens: the symbolizer finds out things too.
const LOOK_EVERY: Duration = Duration::from_millis(200);
/// How often `/proc` is compared with what is known: events can be lost.
const RECONCILE_EVERY: Duration = Duration::from_secs(10);
/// How often unused room is made usable again.
const COLLECT_EVERY: Duration = Duration::from_secs(2);
/// Tables of files that nobody has mapped for this long are dropped; the cache on disk brings them back.
const UNUSED_AFTER: Duration = Duration::from_secs(600);
/// Key of the vDSO's table; no file has this serial.
const VDSO: u64 = 0;

/// What goes into the thread.
pub(super) enum Message {
    Watched { watched: Watched, number: u64 },
    Built(Answer),
    Stop,
}

/// The running thread.
pub(super) struct Unwinding {
    sender: SyncSender<Message>,
    thread: JoinHandle<()>,
    snapshot: Arc<Mutex<Status>>,
    ready: watch::Receiver<bool>,
}

impl Unwinding {
    /// Starts the thread; it begins with all processes there are.
    pub(super) fn start(
        procs: SharedTable,
        tables: Tables,
        cache: Option<Arc<Cache>>,
    ) -> Result<(Self, Events), AgentError> {
        let failed = |source| AgentError::System { doing: "start the unwinding threads", source };
        let (sender, receiver) = sync_channel(BATCHES);
        let (workers, answers) = Workers::start(WorkersOptions::default(), cache).map_err(failed)?;
        let built = sender.clone();
        std::thread::Builder::new()
            .name("tables".to_owned())
            .spawn(move || {
                // Ends with the workers, or when nobody needs tables any more.
                for answer in answers {
                    if built.send(Message::Built(answer)).is_err() {
                        return;
                    }
                }
            })
            .map_err(failed)?;
        let snapshot = Arc::new(Mutex::new(Status::default()));
        let (ready_sender, ready) = watch::channel(false);
        let state = State {
            procs,
            tables,
            workers,
            files: FxHashMap::default(),
            processes: FxHashMap::default(),
            snapshot: Arc::clone(&snapshot),
            no_room: 0,
            warned: false,
            covered_after: None,
            cut: FxHashSet::default(),
            refused: false,
            outdated: FxHashSet::default(),
        };
        let thread = std::thread::Builder::new()
            .name("unwinding".to_owned())
            .spawn(move || state.run(&receiver, &ready_sender))
            .map_err(failed)?;
        let events = Events::new(sender.clone());
        Ok((Self { sender, thread, snapshot, ready }, events))
    }

    /// What the thread last knew of itself.
    pub(super) fn snapshot(&self) -> Arc<Mutex<Status>> {
        Arc::clone(&self.snapshot)
    }

    /// Waits until the processes that ran at the start can be unwound, but not for long: what is to
    /// be recorded happens now.
    pub(super) fn ready(&self) -> impl Future<Output = ()> + Send + use<> {
        const AT_MOST: Duration = Duration::from_secs(3);
        let mut ready = self.ready.clone();
        async move {
            if tokio::time::timeout(AT_MOST, ready.wait_for(|ready| *ready)).await.is_err() {
                info!("some unwinding tables are still being built: stacks may be incomplete at first");
            }
        }
    }

    /// Ends the thread. Blocks.
    pub(super) fn stop(self) {
        let _ended = self.sender.send(Message::Stop);
        if self.thread.join().is_err() {
            warn!("the unwinding thread panicked");
        }
    }
}

struct State {
    procs: SharedTable,
    tables: Tables,
    workers: Workers,
    /// Tables by the file's serial.
    files: FxHashMap<u64, File>,
    /// Files that each published process maps.
    processes: FxHashMap<ProcessId, Vec<u64>>,
    snapshot: Arc<Mutex<Status>>,
    no_room: u64,
    warned: bool,
    covered_after: Option<Duration>,
    /// Files or processes were refused since all processes were looked at.
    /// Published processes that map more code than one may have.
    cut: FxHashSet<ProcessId>,
    /// Files were refused since all processes were looked at.
    refused: bool,
    /// Processes that map a file whose table came since they were published.
    outdated: FxHashSet<ProcessId>,
}

struct File {
    /// Gone, nobody asks by its serial again: opened anew it gets another one.
    file: Weak<ObjectFile>,
    /// Keeps the serial while processes map the file. Once none does it may be closed, however long
    /// its table stays: there are more files than may be open.
    open: Option<Arc<ObjectFile>>,
    state: FileState,
    users: FxHashSet<ProcessId>,
    unused_since: Option<Instant>,
}

enum FileState {
    Building,
    Ready {
        table: InstalledTable,
        base: u64,
    },
    /// No usable unwinding information.
    Without,
}

impl State {
    fn run(mut self, receiver: &Receiver<Message>, ready: &watch::Sender<bool>) {
        let started = Instant::now();
        let (mut reconciled, mut collected) = (started, started);
        self.reconcile();
        loop {
            let first = match receiver.recv_timeout(LOOK_EVERY) {
                Ok(message) => Some(message),
                Err(RecvTimeoutError::Timeout) => None,
                Err(RecvTimeoutError::Disconnected) => return,
            };
            // All that waits, before anything is published: a process of thirty files is published
            // once for all their tables, not thirty times.
            for message in first.into_iter().chain(receiver.try_iter().take(BATCHES)) {
                match message {
                    Message::Watched { watched, number } => self.watched(&watched, number),
                    Message::Built(answer) => self.built(answer),
                    Message::Stop => return,
                }
            }
            self.publish_changed();
            if reconciled.elapsed() >= RECONCILE_EVERY {
                reconciled = Instant::now();
                self.reconcile();
            }
            if collected.elapsed() >= COLLECT_EVERY {
                collected = Instant::now();
                self.drop_unused(UNUSED_AFTER);
                self.tables.collect();
            }
            self.report(ready);
        }
    }

    fn watched(&mut self, watched: &Watched, number: u64) {
        for event in &watched.events {
            self.procs.lock().apply(event);
        }
        self.procs.set_applied(number);
        if watched.lost > 0 {
            warn!(lost = watched.lost, "events of processes were lost: comparing with /proc");
            self.reconcile();
        }
    }

    /// Finds processes that no event told of, and forgets those that are gone.
    fn reconcile(&mut self) {
        let there = match procs::all() {
            Ok(there) => there,
            Err(error) => {
                warn!(%error, "cannot list the processes");
                return;
            }
        };
        for id in &there {
            if !self.processes.contains_key(id) {
                // For one process at a time: others ask meanwhile.
                self.procs.lock().observe(*id);
            }
        }
        let there: FxHashSet<ProcessId> = there.into_iter().collect();
        let gone: Vec<ProcessId> = self.processes.keys().filter(|id| !there.contains(id)).copied().collect();
        for id in gone {
            self.forget(id);
        }
        if std::mem::take(&mut self.refused) {
            let all: Vec<ProcessId> = self.processes.keys().copied().collect();
            for id in all {
                self.publish(id);
            }
        }
        self.publish_changed();
    }

    fn publish_changed(&mut self) {
        let changed = self.procs.lock().take_changed();
        let mut outdated = std::mem::take(&mut self.outdated);
        outdated.extend(changed);
        for id in outdated {
            self.publish(id);
        }
    }

    /// Publishes what a process maps, with the tables that are there.
    fn publish(&mut self, id: ProcessId) {
        let mappings = {
            let mut procs = self.procs.lock();
            if !procs.contains(id) {
                // It made room for others: that is no reason to unwind it no more.
                procs.observe(id);
            }
            match procs.get(id).filter(|process| process.maps_known() && !process.is_gone()) {
                Some(process) => process.mappings().to_vec(),
                None => Vec::new(),
            }
        };
        if mappings.is_empty() {
            // Gone, a kernel thread, or about to map its new program.
            return self.forget(id);
        }
        let mut files = Vec::new();
        let published: Vec<TableMapping> =
            mappings.iter().map(|mapping| self.table_mapping(mapping, &mut files)).collect();
        files.sort_unstable();
        files.dedup();
        self.set_files(id, files);
        let result = self.tables.publish(id, &published).or_else(|_| {
            self.tables.collect();
            self.tables.publish(id, &published)
        });
        match result {
            Ok(0) => {
                self.cut.remove(&id);
            }
            Ok(left_out) => self.lack_some(id, left_out),
            Err(error) => {
                self.refused = true;
                self.lack(error);
            }
        }
    }

    fn table_mapping(&mut self, mapping: &Mapping, files: &mut Vec<u64>) -> TableMapping {
        let plain = TableMapping { start: mapping.start, end: mapping.end, ..TableMapping::default() };
        let generated = TableMapping { first_page: TableMapping::JIT, ..plain };
        let (key, file, address) = match &mapping.kind {
            MappingKind::Vdso => (VDSO, None, Some(0)),
            MappingKind::File { file: Some(file), .. } => {
                let address = file.elf().and_then(|elf| elf.mapped_address(mapping.offset));
                (file.serial(), Some(file), address)
            }
            _ => return generated,
        };
        // What is not code by the file's own account has no table.
        let Some(address) = address else { return generated };
        self.request(key, file);
        files.push(key);
        match self.files.get(&key).map(|file| &file.state) {
            Some(FileState::Ready { table, base }) if table.pages > 0 => TableMapping {
                bias: mapping.start.wrapping_sub(address).wrapping_add(*base),
                first_page: table.first_page,
                pages: table.pages,
                ..plain
            },
            // Without state: too many files wait.
            Some(FileState::Building) | None => TableMapping { first_page: TableMapping::NO_TABLE, ..plain },
            _ => generated,
        }
    }

    /// Has a file's table built, unless it was asked for.
    fn request(&mut self, key: u64, file: Option<&Arc<ObjectFile>>) {
        if self.files.contains_key(&key) {
            return;
        }
        let state = match file {
            Some(file) if self.workers.request(file) == Requested::Refused => return self.refuse(),
            Some(_) => FileState::Building,
            None => FileState::Building,
        };
        let file = file.map(Arc::downgrade).unwrap_or_default();
        let file = File { file, open: None, state, users: FxHashSet::default(), unused_since: None };
        self.files.insert(key, file);
        if key == VDSO {
            let table = procs::vdso().map(|(image, _)| unwind::build_from_file(&image));
            let state = match table {
                Some(Ok(table)) => self.ready(&table),
                Some(Err(problem)) => {
                    debug!(%problem, "no unwinding table for the vDSO");
                    FileState::Without
                }
                None => FileState::Without,
            };
            self.set_state(VDSO, state);
        }
    }

    /// Too many files wait: those that are refused are asked for again with the next change of
    /// their processes, at the latest when all are compared with `/proc`.
    fn refuse(&mut self) {
        debug!("too many files wait for their unwinding tables");
        self.refused = true;
    }

    fn built(&mut self, answer: Answer) {
        let state = match answer.table {
            Ok(table) => self.ready(&table),
            Err(error) => {
                debug!(%error, "no unwinding table");
                FileState::Without
            }
        };
        self.set_state(answer.serial, state);
        self.outdated.extend(self.files.get(&answer.serial).iter().flat_map(|file| &file.users));
    }

    fn ready(&mut self, table: &Table) -> FileState {
        match self.install_with_room(table) {
            Ok(installed) => FileState::Ready { table: installed, base: table.base },
            Err(error) => {
                self.lack(error);
                FileState::Without
            }
        }
    }

    fn set_state(&mut self, key: u64, state: FileState) {
        if let Some(file) = self.files.get_mut(&key) {
            file.state = state;
        }
    }

    /// Installs a table; where there is no room, those that nobody uses go first.
    fn install_with_room(&mut self, table: &Table) -> Result<InstalledTable, NoRoom> {
        let pages: Vec<(u32, u32)> = table.pages.iter().map(|page| (page.first_row, page.rows)).collect();
        let first = self.tables.install(&pages, &table.rows, &table.rules);
        if first.is_ok() {
            return first;
        }
        self.drop_unused(Duration::ZERO);
        self.tables.collect();
        self.tables.install(&pages, &table.rows, &table.rules)
    }

    fn drop_unused(&mut self, age: Duration) {
        let old = |file: &File| {
            let gone = file.file.strong_count() == 0;
            file.unused_since.is_some_and(|since| gone || since.elapsed() >= age)
        };
        let unused: Vec<u64> = self
            .files
            .iter()
            .filter(|(key, file)| **key != VDSO && old(file) && !matches!(file.state, FileState::Building))
            .map(|(&key, _)| key)
            .collect();
        for key in unused {
            if let Some(File { state: FileState::Ready { table, .. }, .. }) = self.files.remove(&key) {
                self.tables.remove(table);
            }
        }
    }

    fn forget(&mut self, id: ProcessId) {
        self.tables.forget(id);
        self.cut.remove(&id);
        self.set_files(id, Vec::new());
        self.processes.remove(&id);
    }

    fn set_files(&mut self, id: ProcessId, files: Vec<u64>) {
        let before = self.processes.insert(id, files).unwrap_or_default();
        let now = self.processes.get(&id).map(Vec::as_slice).unwrap_or_default();
        for key in &before {
            if !now.contains(key)
                && let Some(file) = self.files.get_mut(key)
            {
                file.users.remove(&id);
                if file.users.is_empty() {
                    file.unused_since = Some(Instant::now());
                    file.open = None;
                }
            }
        }
        for key in now {
            if let Some(file) = self.files.get_mut(key) {
                file.users.insert(id);
                file.unused_since = None;
                if file.open.is_none() {
                    file.open = file.file.upgrade();
                }
            }
        }
    }

    fn lack(&mut self, error: NoRoom) {
        self.no_room += 1;
        if !self.warned {
            self.warned = true;
            warn!(%error, "some stacks cannot be unwound completely");
        }
    }

    /// Part of what a process maps is not known to the programs: stacks end there, and say so.
    fn lack_some(&mut self, id: ProcessId, left_out: usize) {
        if self.cut.insert(id) {
            self.no_room += 1;
            warn!(
                pid = id.pid.0,
                left_out,
                limit = MAX_MAPPINGS,
                "the process maps too much code: some is not unwound"
            );
        }
    }

    fn report(&mut self, ready: &watch::Sender<bool>) {
        let count = |wanted: fn(&FileState) -> bool| {
            self.files.values().filter(|file| wanted(&file.state)).count() as u64
        };
        let TableStats { tables, rows, processes } = self.tables.stats();
        let building = count(|state| matches!(state, FileState::Building));
        let first = building == 0 && !*ready.borrow();
        if first {
            self.covered_after = own_cost::age();
        }
        let snapshot = Status {
            tables,
            rows: rows.0,
            rows_room: rows.1,
            processes,
            building,
            without: count(|state| matches!(state, FileState::Without)),
            no_room: self.no_room,
            covered_after: self.covered_after,
        };
        if first {
            info!(
                tables,
                rows = rows.0,
                processes,
                after_ms = self.covered_after.unwrap_or_default().as_millis() as u64,
                "all processes can be unwound"
            );
            // Nobody may be waiting.
            let _unheard = ready.send(true);
        }
        *self.snapshot.lock().unwrap_or_else(PoisonError::into_inner) = snapshot;
    }
}
