//! One record's addresses and ids to its frames and labels.

use std::sync::Arc;

use quick_cache::unsync::Cache;

use crate::model::{
    Comm, Frame, FrameKind, Labels, Loss, Module, MonoNs, Pid, ProcessId, RawSample, RawWaker, Sample,
    StackFlags, Stage, StopReason, Waker, WalkEnd,
};

use super::Options;
use super::intern::Interner;
use super::kernel::KernelSymbols;
use super::labels::LabelCache;
use super::user::{Place, UserSymbols, caller};
use super::waker;
use crate::procs::SharedTable;

/// Addresses and ids to frames and labels, with everything that is remembered on the way.
pub struct Resolver {
    user: UserSymbols,
    kernel: KernelSymbols,
    kernel_cache: Cache<u64, Arc<Frame>>,
    kernel_modules: Vec<Arc<Module>>,
    interner: Interner,
    labels: LabelCache,
    loss: Loss,
    cache_entries: usize,
    /// Wakers that are no thread: an interrupt, and one of which that is not known.
    no_thread: [Arc<Labels>; 2],
}

impl Resolver {
    /// A resolver that knows no symbols yet.
    #[must_use]
    pub fn new(options: Options, procs: SharedTable) -> Self {
        let cache_entries = options.cache_entries.max(1);
        Self {
            user: UserSymbols::new(options, procs),
            kernel: KernelSymbols::default(),
            kernel_cache: Cache::new(cache_entries),
            kernel_modules: Vec::new(),
            interner: Interner::new(cache_entries * 2),
            labels: LabelCache::default(),
            loss: Loss::default(),
            cache_entries,
            no_thread: [Waker::INTERRUPT, Waker::UNKNOWN].map(Waker::pseudo),
        }
    }

    /// The record with frames and labels in place of addresses and ids. What could not be found out
    /// is counted, see [`Self::take_loss`].
    pub fn resolve(&mut self, sample: &RawSample) -> Sample {
        let labels = self.thread(sample.process, sample.comm);
        let mut frames = self.kernel_frames(&sample.kernel);
        let at = (sample.process, sample.time);
        let flags = self.user_frames(at, &sample.user, &labels, sample.flags, &mut frames);
        Sample {
            time: sample.time,
            process: sample.process,
            tid: sample.tid,
            cgroup: sample.cgroup,
            labels,
            stack: frames.into(),
            flags,
            measure: sample.measure,
            waker: sample.waker.as_ref().map(|waker| Arc::new(self.waker(waker))),
        }
    }

    /// Who ended a wait. A thread that an interrupt hit has not.
    fn waker(&mut self, raw: &RawWaker) -> Waker {
        let mut frames = self.kernel_frames(&raw.kernel);
        waker::without_hook(&mut frames);
        let interrupted = waker::cut_interrupted(&mut frames);
        // Without names in the kernel's stack nobody can tell.
        let unknown = raw.kernel.is_empty() || self.kernel.is_hidden();
        if unknown || interrupted || raw.process.pid == Pid(0) {
            let [interrupt, cannot_tell] = &self.no_thread;
            let labels = Arc::clone(if unknown { cannot_tell } else { interrupt });
            return Waker { labels, stack: frames.into() };
        }
        let labels = self.thread(raw.process, raw.comm);
        self.user_frames((raw.process, raw.time), &raw.user, &labels, raw.flags, &mut frames);
        Waker { labels, stack: frames.into() }
    }

    fn thread(&mut self, process: ProcessId, comm: Comm) -> Arc<Labels> {
        // A thread name that is new to a process is what an exec looks like from here.
        let maybe_exec = !self.labels.knows(process, comm);
        self.user.observe(process, maybe_exec, |process| self.labels.labels(process, comm))
    }

    fn kernel_frames(&mut self, addresses: &[u64]) -> Vec<Arc<Frame>> {
        let frames = addresses
            .iter()
            .enumerate()
            .map(|(depth, &address)| self.kernel_frame(lookup_address(depth == 0, address)))
            .collect();
        if !addresses.is_empty() && self.kernel.is_hidden() {
            self.loss.add(Stage::Symbolize, "kernel addresses hidden", 1);
        }
        frames
    }

    /// Adds the frames of user addresses; what is known of the stack then.
    fn user_frames(
        &mut self,
        (process, time): (ProcessId, MonoNs),
        addresses: &[u64],
        labels: &Labels,
        mut flags: StackFlags,
        frames: &mut Vec<Arc<Frame>>,
    ) -> StackFlags {
        let mut exact = true;
        for (depth, &address) in addresses.iter().enumerate() {
            let address = lookup_address(exact, address);
            // A walk along frame pointers through code that keeps none reads whatever the register
            // held. An address where no code is says so: what lies beyond it would be invented.
            let guessed = flags.guessed && depth > 0;
            if guessed && self.user.is_no_code(process, address, time) {
                flags.walk = WalkEnd::Stopped(StopReason::NoCode);
                break;
            }
            let at = Place { process, address, time, exact };
            // What a signal trampoline returns to was interrupted there, and called nothing.
            let upcoming = addresses.get(depth + 1..).unwrap_or_default();
            exact = self.user.frames(&at, upcoming, &labels.comm, &mut self.interner, frames);
        }
        if !addresses.is_empty() {
            self.user.count(process, &mut self.loss);
        }
        flags
    }

    /// What could not be found out since the last call.
    pub fn take_loss(&mut self) -> Loss {
        std::mem::take(&mut self.loss)
    }

    fn kernel_frame(&mut self, address: u64) -> Arc<Frame> {
        if let Some(known) = self.kernel_cache.get(&address) {
            return Arc::clone(known);
        }
        let mut reread = false;
        let symbol = self.kernel.find(address, || reread = true);
        let frame = match symbol {
            Some(symbol) => Frame {
                name: symbol.name.into(),
                kind: FrameKind::Kernel,
                module: Some(kernel_module(&mut self.kernel_modules, symbol.module)),
                address: symbol.address,
                source: None,
                named: true,
            },
            None => Frame {
                name: format!("[kernel+{address:#x}]").into(),
                kind: FrameKind::Kernel,
                module: Some(kernel_module(&mut self.kernel_modules, "[kernel]")),
                address,
                source: None,
                named: false,
            },
        };
        if reread {
            self.kernel_cache = Cache::new(self.cache_entries);
        }
        let frame = self.interner.intern(frame);
        // A function that was loaded later may come to be there: unnamed addresses are asked again.
        if frame.named {
            self.kernel_cache.insert(address, Arc::clone(&frame));
        }
        frame
    }
}

/// Frame 0 is where the thread was. All others are return addresses, behind the call: the call
/// itself is what ran, and it may be the last instruction of its function.
fn lookup_address(exact: bool, address: u64) -> u64 {
    if exact { address } else { caller(address) }
}

/// There are as many modules as the kernel has: a few hundred at most.
fn kernel_module(modules: &mut Vec<Arc<Module>>, name: &str) -> Arc<Module> {
    if let Some(known) = modules.iter().find(|module| &*module.path == name) {
        return Arc::clone(known);
    }
    let module = Arc::new(Module { path: name.into(), build_id: None, has_symbols: true });
    modules.push(Arc::clone(&module));
    module
}
