//! Addresses to frames: a thread of its own that owns the process table and all symbol caches.
//!
//! Reading symbols blocks on disks and takes long: that does not belong on the runtime. And the files are
//! strangers': symbol tables and debug information are read by another process (`serve`), which may
//! do little, and which a file can take down without taking the daemon along.

mod confine;
mod debug_files;
mod debuginfod;
mod demangle;
mod elf;
mod files;
mod go;
mod intern;
mod kernel;
mod labels;
mod mini_debug;
mod perf_map;
mod resolver;
mod serve;
mod trampoline;
mod user;
mod waker;
mod wire;
mod worker;

pub use debuginfod::Options as DebuginfodOptions;
pub use resolver::Resolver;
pub use serve::{SYMBOL_READER, read_symbols};
pub use worker::{ReaderProgram, reader_cost};

use std::path::PathBuf;
use std::thread::JoinHandle;
use std::time::Duration;

use tokio::sync::mpsc::{Receiver, Sender};

use crate::model::{Batch, KindLoss, Measure, RawBatch};
use crate::procs::SharedTable;

/// How long samples wait for the process events that came before them.
const MAX_WAIT: Duration = Duration::from_millis(500);

/// Bounds and places.
#[derive(Clone, Debug)]
pub struct Options {
    /// Most code addresses whose frames are remembered, user and kernel each.
    pub cache_entries: usize,
    /// What symbol tables and debug information may take in memory, in bytes. The process that reads
    /// them is replaced where it takes more, and killed a quarter above.
    pub memory_bytes: u64,
    /// Debug information above this many bytes (`.debug_info`) is left alone: the symbol table
    /// serves.
    pub max_debug_info_bytes: u64,
    /// Where separate debug information is looked for.
    pub debug_dirs: Vec<PathBuf>,
    /// Servers that are asked for debug information; `None`: nobody is.
    pub debuginfod: Option<DebuginfodOptions>,
    /// Show functions that were inlined.
    pub inlined: bool,
    /// Read the debug information of the program that this is. What watches a host for long sees
    /// itself, and its own may take more memory than all else.
    pub own_debug_info: bool,
    /// The program that reads symbols.
    pub reader: ReaderProgram,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            cache_entries: 200_000,
            memory_bytes: 256 << 20,
            max_debug_info_bytes: 512 << 20,
            debug_dirs: vec!["/usr/lib/debug".into()],
            debuginfod: None,
            inlined: true,
            own_debug_info: true,
            reader: ReaderProgram::default(),
        }
    }
}

/// Why the symbolizer could not be started or did not end well.
#[derive(Debug, thiserror::Error)]
pub enum SymbolizeError {
    /// No thread.
    #[error("cannot start the symbolizer's thread: {0}")]
    Thread(#[from] std::io::Error),
    /// The thread died.
    #[error("the symbolizer's thread panicked")]
    Panicked,
}

/// The running thread.
#[derive(Debug)]
pub struct Symbolizer {
    thread: JoinHandle<()>,
}

impl Symbolizer {
    /// Starts the thread. It ends when `input` is closed and empty, or when nobody receives from
    /// `output` any more; it drops `output` then.
    ///
    /// # Errors
    /// The operating system refused a thread.
    pub fn spawn(
        options: Options,
        procs: SharedTable,
        input: Receiver<RawBatch>,
        output: Sender<Batch>,
    ) -> Result<Self, SymbolizeError> {
        let thread = std::thread::Builder::new()
            .name("symbolize".to_owned())
            .spawn(move || run(options, procs, input, &output))?;
        Ok(Self { thread })
    }

    /// Waits until the thread has ended: close its input first. Blocks.
    ///
    /// # Errors
    /// The thread panicked.
    pub fn join(self) -> Result<(), SymbolizeError> {
        self.thread.join().map_err(|_| SymbolizeError::Panicked)
    }
}

fn run(options: Options, procs: SharedTable, mut input: Receiver<RawBatch>, output: &Sender<Batch>) {
    let mut resolver = Resolver::new(options, procs.clone());
    while let Some(batch) = input.blocking_recv() {
        // What a process mapped before its sample must be known by now: it may be gone already.
        if !procs.wait_applied(batch.events_before, MAX_WAIT) {
            tracing::debug!("process events lag behind the samples");
        }
        if output.blocking_send(symbolize(&mut resolver, batch)).is_err() {
            break;
        }
    }
}

fn symbolize(resolver: &mut Resolver, raw: RawBatch) -> Batch {
    let mut loss: KindLoss = raw.loss;
    let mut samples = Vec::with_capacity(raw.samples.len());
    for sample in raw.samples {
        let named = resolver.resolve(&sample);
        let lost = resolver.take_loss();
        match sample.measure {
            Measure::OnCpu { .. } => loss.on_cpu.merge(&lost),
            Measure::OffCpu { .. } => loss.off_cpu.merge(&lost),
        }
        samples.push(named);
    }
    Batch { samples, loss, ended: raw.ended, complete_to: raw.complete_to }
}

#[cfg(test)]
mod tests;
