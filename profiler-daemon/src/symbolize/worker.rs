//! The symbol reader as the daemon sees it: a process that is started when it is needed, watched while
//! it works, and replaced when it dies or takes too much.

use std::ffi::OsString;
use std::io;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::os::unix::process::{CommandExt as _, ExitStatusExt as _};
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use super::serve::SYMBOL_READER;
use super::wire::{self, Answer, Request};

/// How long all answers to one request may take. A limit on its CPU time ends a reader that works
/// too long (`serve`); this is for one that waits, and leaves room for a host without CPU to spare.
const PATIENCE: Duration = Duration::from_secs(30);
/// How long a reader that was killed is waited for.
const DYING: Duration = Duration::from_secs(1);
/// Most readers that were killed and are not gone, as they hang in the kernel.
const MAX_DYING: usize = 4;
/// After a reader could not be started, the next try.
const RETRY_AFTER: Duration = Duration::from_secs(10);

/// Exit code of a Rust program that panicked.
const PANICKED: i32 = 101;
/// Signals that a reader gets from somebody else: an administrator, the service manager, the kernel
/// when memory is short.
const FROM_OUTSIDE: [i32; 4] = [libc::SIGKILL, libc::SIGTERM, libc::SIGINT, libc::SIGHUP];

/// The process whose costs are told; 0: none.
static PID: AtomicU32 = AtomicU32::new(0);
/// What the readers that ended took, clock ticks.
static ENDED_TICKS: AtomicU64 = AtomicU64::new(0);
/// What was told last, so that a reader that is between the two takes nothing away.
static TOLD_TICKS: AtomicU64 = AtomicU64::new(0);

/// How the symbol reader is started.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReaderProgram {
    program: PathBuf,
    arguments: Vec<OsString>,
}

impl ReaderProgram {
    /// A file of the program `profiler`.
    #[must_use]
    pub fn new(program: PathBuf) -> Self {
        Self { program, arguments: vec![SYMBOL_READER.into()] }
    }

    #[cfg(test)]
    pub(super) fn with(program: &str, arguments: &[&str]) -> Self {
        Self { program: program.into(), arguments: arguments.iter().map(OsString::from).collect() }
    }
}

impl Default for ReaderProgram {
    /// The program that this is.
    fn default() -> Self {
        #[cfg(not(test))]
        let own = Self::new("/proc/self/exe".into());
        #[cfg(test)]
        let own = Self::with("/proc/self/exe", &tests::READER);
        own
    }
}

/// CPU time that symbol readers took since this process started, and the memory of the one that runs,
/// bytes.
#[must_use]
pub fn reader_cost() -> (Duration, u64) {
    let pid = PID.load(Ordering::Relaxed);
    let (ticks, pages) = if pid == 0 { (0, 0) } else { (ticks_of(pid), pages_of(pid)) };
    let ticks = ENDED_TICKS.load(Ordering::Relaxed).saturating_add(ticks);
    let ticks = TOLD_TICKS.fetch_max(ticks, Ordering::Relaxed).max(ticks);
    let time = Duration::from_secs_f64(ticks as f64 / rustix::param::clock_ticks_per_second() as f64);
    (time, pages.saturating_mul(rustix::param::page_size() as u64))
}

/// Why there is no answer.
#[derive(Debug)]
pub(super) enum Failure {
    /// There is no reader, and none can be started at present.
    Absent,
    /// Somebody else ended it: the file need not be at fault.
    Ended,
    /// It died over the file, or would have kept at it.
    Fell(String),
}

/// The reader, if one runs.
pub(super) struct Worker {
    program: ReaderProgram,
    running: Option<Running>,
    dying: Vec<Child>,
    retry_at: Option<Instant>,
    pub(super) patience: Duration,
}

struct Running {
    child: Child,
    socket: UnixStream,
    used: Instant,
    /// The file it was asked about; 0: more than one.
    only: u64,
}

impl Worker {
    pub(super) fn new(program: ReaderProgram) -> Self {
        Self { program, running: None, dying: Vec::new(), retry_at: None, patience: PATIENCE }
    }

    /// Asks about a file; the answers are as many as the addresses.
    pub(super) fn ask(
        &mut self,
        request: &Request,
        files: &[BorrowedFd<'_>],
    ) -> Result<Vec<Answer>, Failure> {
        let until = Instant::now() + self.patience;
        let running = self.running(request.file)?;
        let sent = wire::send_request(&running.socket, request, files);
        let was_alive = sent.is_ok();
        let answers = sent.and_then(|()| {
            request.addresses.iter().map(|_| wire::receive_answer(&running.socket, until)).collect()
        });
        running.used = Instant::now();
        answers.map_err(|error: io::Error| {
            // What it died of shows only if it did so before it is killed.
            let status = if hung_up(&error) { self.status() } else { None };
            self.stop();
            match status {
                Some(status) if status.signal().is_some_and(|signal| FROM_OUTSIDE.contains(&signal)) => {
                    Failure::Ended
                }
                // No file makes it leave, but for a panic: it cannot do what it must.
                Some(status) if status.code().is_some_and(|code| code != PANICKED) => {
                    self.postpone(&status);
                    Failure::Absent
                }
                Some(status) if was_alive => Failure::Fell(status.to_string()),
                Some(_) => Failure::Ended,
                None => Failure::Fell(error.to_string()),
            }
        })
    }

    /// Whether the reader that runs was asked about this file alone.
    pub(super) fn knows_only(&self, file: u64) -> bool {
        self.running.as_ref().is_some_and(|running| running.only == file)
    }

    /// Ends a reader that nobody asked for so long; it gives its memory back.
    pub(super) fn stop_if_idle(&mut self, at_least: Duration) {
        if self.running.as_ref().is_some_and(|running| running.used.elapsed() >= at_least) {
            self.stop();
        }
        self.reap();
    }

    /// Ends the reader. The next question starts another one.
    pub(super) fn stop(&mut self) {
        let Some(Running { mut child, .. }) = self.running.take() else { return };
        PID.store(0, Ordering::Relaxed);
        // It has nothing to put in order. If it is gone already, so much the better.
        let _ = child.kill();
        self.dying.push(child);
        self.reap();
    }

    /// The process of the reader.
    #[cfg(test)]
    pub(super) fn pid(&self) -> Option<u32> {
        self.running.as_ref().map(|running| running.child.id())
    }

    /// The reader that is to be asked about a file.
    fn running(&mut self, file: u64) -> Result<&mut Running, Failure> {
        if self.running.is_none() {
            self.reap();
            let too_early = self.retry_at.is_some_and(|at| Instant::now() < at);
            if too_early || self.dying.len() >= MAX_DYING {
                return Err(Failure::Absent);
            }
            match self.start(file) {
                Ok(running) => self.running = Some(running),
                Err(error) => self.postpone(&error),
            }
        }
        let running = self.running.as_mut().ok_or(Failure::Absent)?;
        if running.only != file {
            running.only = 0;
        }
        Ok(running)
    }

    /// There is no reader for a while.
    fn postpone(&mut self, why: &dyn std::fmt::Display) {
        let program = self.program.program.display();
        tracing::warn!(%program, %why, "the symbol reader does not run: user frames stay without names");
        self.retry_at = Some(Instant::now() + RETRY_AFTER);
    }

    fn start(&self, file: u64) -> io::Result<Running> {
        let (socket, other) = UnixStream::pair()?;
        socket.set_write_timeout(Some(self.patience))?;
        let child = Command::new(&self.program.program)
            .args(&self.program.arguments)
            .env_clear()
            // One thread reads: one place to keep freed memory in.
            .env("MALLOC_ARENA_MAX", "1")
            .current_dir("/")
            // What interrupts us must not end it while the last samples get their names.
            .process_group(0)
            .stdin(Stdio::from(OwnedFd::from(other)))
            .stdout(Stdio::null())
            // What it would say when it dies is the author's of the file as much as ours.
            .stderr(Stdio::null())
            .spawn()?;
        PID.store(child.id(), Ordering::Relaxed);
        Ok(Running { child, socket, used: Instant::now(), only: file })
    }

    /// How the reader ended, if it does so soon.
    fn status(&mut self) -> Option<ExitStatus> {
        let begin = Instant::now();
        loop {
            if let Some(status) = ended(&mut self.running.as_mut()?.child) {
                self.running = None;
                PID.store(0, Ordering::Relaxed);
                return status;
            }
            if begin.elapsed() >= DYING {
                return None;
            }
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    /// Takes leave of readers that are gone.
    fn reap(&mut self) {
        self.dying.retain_mut(|child| ended(child).is_none());
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        self.stop();
        let begin = Instant::now();
        while !self.dying.is_empty() && begin.elapsed() < DYING {
            self.reap();
            std::thread::sleep(Duration::from_millis(1));
        }
    }
}

/// Whether nobody is at the other end any more.
fn hung_up(error: &io::Error) -> bool {
    use io::ErrorKind::{BrokenPipe, ConnectionReset, UnexpectedEof};
    [BrokenPipe, ConnectionReset, UnexpectedEof].contains(&error.kind())
}

/// Whether a reader has ended, and how. Not to be asked again once it has.
fn ended(child: &mut Child) -> Option<Option<ExitStatus>> {
    // Its costs can be read until it was waited for.
    let ticks = ticks_of(child.id());
    let status = child.try_wait().map_or(Some(None), |status| status.map(Some))?;
    ENDED_TICKS.fetch_add(ticks, Ordering::Relaxed);
    Some(status)
}

/// User and system time of a process, clock ticks; 0 once it was waited for.
fn ticks_of(pid: u32) -> u64 {
    // Behind the name, which may hold anything: 14th and 15th field, proc(5).
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    let fields = stat.rsplit_once(')').map_or("", |(_, fields)| fields);
    fields.split_whitespace().skip(11).take(2).filter_map(|ticks| ticks.parse::<u64>().ok()).sum()
}

/// Resident pages of a process.
fn pages_of(pid: u32) -> u64 {
    let statm = std::fs::read_to_string(format!("/proc/{pid}/statm")).unwrap_or_default();
    statm.split_whitespace().nth(1).and_then(|pages| pages.parse().ok()).unwrap_or_default()
}

#[cfg(test)]
mod tests;
