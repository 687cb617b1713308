//! The scheduler hooks of the off-CPU side, attached only while a session wants them.

use std::io::Read;

use aya::programs::{BtfTracePoint, Iter, ProgramError};
use aya::{Btf, Ebpf};
use tracing::{info, warn};

use super::{KernelError, load};

/// Program and tracepoint of each hook.
const HOOKS: [(&str, &str); 2] = [("off_cpu_switch", "sched_switch"), ("off_cpu_wakeup", "sched_wakeup")];
const SWEEP: &str = "off_cpu_sweep";

/// The hooks' state.
#[derive(Default)]
pub(super) struct Hooks {
    /// Instant after which every switch is seen, while attached.
    opened_ns: Option<u64>,
}

impl Hooks {
    /// Attaches the hooks unless they are; returns the instant from which they see every switch.
    pub(super) fn attach(&mut self, ebpf: &mut Ebpf, btf: &Btf) -> Result<u64, KernelError> {
        if let Some(opened_ns) = self.opened_ns {
            return Ok(opened_ns);
        }
        for (program, tracepoint) in HOOKS {
            if let Err(error) = load::attach_tracepoint(ebpf, btf, program, tracepoint) {
                self.detach(ebpf);
                return Err(error);
            }
        }
        let opened_ns = super::now().0;
        self.opened_ns = Some(opened_ns);
        info!("scheduler hooks attached");
        Ok(opened_ns)
    }

    /// Detaches the hooks. The programs stay loaded for the next session.
    pub(super) fn detach(&mut self, ebpf: &mut Ebpf) {
        self.opened_ns = None;
        for (name, _) in HOOKS {
            let Some(Ok(program)) = ebpf.program_mut(name).map(<&mut BtfTracePoint>::try_from) else {
                continue;
            };
            // Unloading detaches as well; the next session loads again.
            match program.unload() {
                Ok(()) | Err(ProgramError::NotLoaded) => {}
                Err(error) => warn!(name, %error, "cannot unload"),
            }
        }
        info!("scheduler hooks detached");
    }

    /// Runs the iterator over all threads once.
    pub(super) fn sweep(&mut self, ebpf: &mut Ebpf, btf: &Btf) -> Result<(), KernelError> {
        let doing = || "run the sweep over all threads".to_owned();
        let program: &mut Iter = ebpf
            .program_mut(SWEEP)
            .ok_or(KernelError::Missing(SWEEP))?
            .try_into()
            .map_err(|error| KernelError::program(doing(), error))?;
        match program.load("task", btf) {
            Ok(()) | Err(ProgramError::AlreadyLoaded) => {}
            Err(error) => return Err(KernelError::program(doing(), error)),
        }
        let link = program.attach().map_err(|error| KernelError::program(doing(), error))?;
        let link = program.take_link(link).map_err(|error| KernelError::program(doing(), error))?;
        let file = link.into_file().map_err(|error| KernelError::Sweep(std::io::Error::other(error)))?;
        // Reading drives the walk; the program writes into the ring and nothing here.
        let mut nothing = Vec::new();
        file.take(1 << 20).read_to_end(&mut nothing).map(drop).map_err(KernelError::Sweep)
    }
}
