//! The scheduler hooks of the off-CPU side, attached only while somebody wants them.

use std::io::Read;

use aya::Ebpf;
use aya::programs::{BtfTracePoint, Iter, ProgramError};
use tracing::{info, warn};

use super::types::Types;
use super::{KernelError, UserStacks, load};

/// Program and tracepoint of each hook.
const HOOKS: [(&str, &str); 2] = [("off_cpu_switch", "sched_switch"), ("off_cpu_wakeup", "sched_wakeup")];
/// Catches threads on their way back to user mode. Not every kernel has it (5.15 has, without
/// CONFIG_RSEQ none), and later ones may fire it less often: see [`Hooks::judge`].
const RSEQ: (&str, &str) = ("off_cpu_rseq", "rseq_update");
/// Tells who wakes a thread. Attached only while somebody asks: it runs at every wake-up of the host.
const WAKING: (&str, &str) = ("off_cpu_waking", "sched_waking");
/// So many threads must have been expected there before it is judged.
const JUDGED_FROM: u64 = 200;
const SWEEP: &str = "off_cpu_sweep";

/// The hooks' state.
#[derive(Default)]
pub(super) struct Hooks {
    /// Instant after which every switch is seen, while attached.
    opened_ns: Option<u64>,
    /// Threads are caught on their way back to user mode.
    rseq: Rseq,
    /// Counters when that was last judged.
    judged: UserStacks,
    /// The hook that tells who wakes a thread is attached.
    waking: bool,
}

/// Whether threads can be caught on their way back to user mode.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Rseq {
    #[default]
    Absent,
    Attached,
    /// It fires too rarely here.
    Useless,
}

impl Hooks {
    /// Attaches the hooks unless they are; returns the instant from which they see every switch.
    pub(super) fn attach(&mut self, ebpf: &mut Ebpf, types: &mut Types) -> Result<u64, KernelError> {
        if let Some(opened_ns) = self.opened_ns {
            return Ok(opened_ns);
        }
        // The verifier takes its time, which the first sweep has not.
        sweep_program(ebpf, types)?;
        for (program, tracepoint) in HOOKS {
            if let Err(error) = load::attach_tracepoint(ebpf, types, program, tracepoint) {
                self.detach(ebpf);
                return Err(error);
            }
        }
        if self.rseq == Rseq::Absent {
            match load::attach_tracepoint(ebpf, types, RSEQ.0, RSEQ.1) {
                Ok(()) => self.rseq = Rseq::Attached,
                Err(error) => info!(%error, "user stacks of waiting threads are read at switch-out"),
            }
        }
        let opened_ns = super::now().0;
        self.opened_ns = Some(opened_ns);
        info!("scheduler hooks attached");
        Ok(opened_ns)
    }

    /// Detaches the hooks.
    pub(super) fn detach(&mut self, ebpf: &mut Ebpf) {
        self.opened_ns = None;
        self.waking = false;
        if self.rseq == Rseq::Attached {
            self.rseq = Rseq::Absent;
        }
        for (name, _) in HOOKS.into_iter().chain([RSEQ, WAKING]) {
            unload(ebpf, name);
        }
        info!("scheduler hooks detached");
    }

    /// Attaches or detaches the hook that tells who wakes a thread; whether it is attached now. Where
    /// the kernel refuses it, everything else goes on without.
    pub(super) fn wakers(&mut self, ebpf: &mut Ebpf, types: &mut Types, wanted: bool) -> bool {
        if wanted == self.waking {
            // Attaching once more would run it once more at each wake-up.
            return wanted;
        }
        if !wanted {
            unload(ebpf, WAKING.0);
            self.waking = false;
            return false;
        }
        let attached = load::attach_tracepoint(ebpf, types, WAKING.0, WAKING.1);
        if let Err(error) = &attached {
            warn!(%error, "who wakes threads is not recorded");
        }
        self.waking = attached.is_ok();
        self.waking
    }

    /// Whether threads are caught on their way back to user mode.
    pub(super) fn rseq(&self) -> bool {
        self.rseq == Rseq::Attached
    }

    /// Compares how many threads were expected on their way back to user mode with how many came;
    /// `true` where that has just turned out to be useless.
    pub(super) fn judge(&mut self, now: UserStacks) -> bool {
        let expected = now.expected.saturating_sub(self.judged.expected);
        let served = now.served.saturating_sub(self.judged.served);
        if self.rseq != Rseq::Attached || expected < JUDGED_FROM {
            return false;
        }
        self.judged = now;
        let useless = served * 2 < expected;
        if useless {
            self.rseq = Rseq::Useless;
            warn!(expected, served, "rseq:rseq_update fires too rarely: user stacks are read at switch-out");
        }
        useless
    }

    /// Runs the iterator over all threads once.
    pub(super) fn sweep(&mut self, ebpf: &mut Ebpf, types: &mut Types) -> Result<(), KernelError> {
        let program = sweep_program(ebpf, types)?;
        let link = program.attach().map_err(cannot_sweep)?;
        let link = program.take_link(link).map_err(cannot_sweep)?;
        let file = link.into_file().map_err(|error| KernelError::Sweep(std::io::Error::other(error)))?;
        // Reading drives the walk; the program writes into the ring and nothing here.
        let mut nothing = Vec::new();
        file.take(1 << 20).read_to_end(&mut nothing).map(drop).map_err(KernelError::Sweep)
    }
}

/// The iterator over all threads, loaded.
fn sweep_program<'a>(ebpf: &'a mut Ebpf, types: &mut Types) -> Result<&'a mut Iter, KernelError> {
    let program = ebpf.program_mut(SWEEP).ok_or(KernelError::Missing(SWEEP))?;
    let program: &mut Iter = program.try_into().map_err(cannot_sweep)?;
    if program.fd().is_err() {
        program.load("task", types.get()?).map_err(cannot_sweep)?;
    }
    Ok(program)
}

fn cannot_sweep(error: ProgramError) -> KernelError {
    KernelError::program("run the sweep over all threads".to_owned(), error)
}

/// Unloading detaches as well; who wants the program again loads it again.
fn unload(ebpf: &mut Ebpf, name: &'static str) {
    let Some(Ok(program)) = ebpf.program_mut(name).map(<&mut BtfTracePoint>::try_from) else { return };
    match program.unload() {
        Ok(()) | Err(ProgramError::NotLoaded) => {}
        Err(error) => warn!(name, %error, "cannot unload"),
    }
}
