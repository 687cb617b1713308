//! The on-CPU sampler: one perf event for each online CPU, also for CPUs that come later.

use std::collections::BTreeMap;

use aya::Ebpf;
use aya::programs::perf_event::{PerfEventLinkId, PerfEventScope};
use aya::programs::{PerfEvent, ProgramError};
use tracing::{info, warn};

use super::KernelError;
use super::on_cpu_event::Event;
use crate::config::CpuEvent;

const PROGRAM: &str = "on_cpu_sample";

/// Which CPUs are sampled, and how.
pub(super) struct Sampler {
    wanted: CpuEvent,
    /// What is counted, known from the first attachment on.
    event: Option<Event>,
    links: BTreeMap<u32, PerfEventLinkId>,
    /// Frequency while attached.
    frequency_hz: Option<u32>,
}

impl Sampler {
    /// Nothing is attached yet.
    pub(super) fn new(wanted: CpuEvent) -> Self {
        Self { wanted, event: None, links: BTreeMap::new(), frequency_hz: None }
    }

    /// Attaches to every online CPU.
    pub(super) fn attach(&mut self, ebpf: &mut Ebpf, frequency_hz: u32) -> Result<(), KernelError> {
        let program = program(ebpf)?;
        match program.load() {
            Ok(()) | Err(ProgramError::AlreadyLoaded) => {}
            Err(error) => return Err(KernelError::program("load the on-CPU program", error)),
        }
        self.frequency_hz = Some(frequency_hz);
        let mut last_error = None;
        for cpu in online_cpus() {
            if let Err(error) = self.attach_cpu(ebpf, cpu) {
                warn!(cpu, %error, "this CPU cannot be sampled");
                last_error = Some(error);
            }
        }
        match last_error {
            Some(error) if self.links.is_empty() => {
                self.frequency_hz = None;
                Err(error)
            }
            None if self.links.is_empty() => {
                Err(KernelError::NoCpu("/sys/devices/system/cpu/online names no CPU".to_owned()))
            }
            _ => {
                let event = self.event().name();
                info!(cpus = self.links.len(), frequency_hz, event, "sampling on-CPU stacks");
                Ok(())
            }
        }
    }

    /// Frequency while attached, Hz.
    pub(super) fn frequency_hz(&self) -> Option<u32> {
        self.frequency_hz
    }

    /// Detaches from all CPUs.
    pub(super) fn detach(&mut self, ebpf: &mut Ebpf) {
        self.frequency_hz = None;
        let Ok(program) = program(ebpf) else { return };
        for (cpu, link) in std::mem::take(&mut self.links) {
            if let Err(error) = program.detach(link) {
                warn!(cpu, %error, "cannot detach");
            }
        }
    }

    /// Attaches to CPUs that came online and forgets those that went.
    pub(super) fn follow_cpus(&mut self, ebpf: &mut Ebpf) {
        if self.frequency_hz.is_none() {
            return;
        }
        let online = online_cpus();
        let gone: Vec<u32> = self.links.keys().filter(|cpu| !online.contains(cpu)).copied().collect();
        for cpu in gone {
            if let (Some(link), Ok(program)) = (self.links.remove(&cpu), program(ebpf)) {
                // The event went with its CPU; only our handle is left.
                let _ = program.detach(link);
                info!(cpu, "this CPU went offline");
            }
        }
        for cpu in online {
            if !self.links.contains_key(&cpu) {
                match self.attach_cpu(ebpf, cpu) {
                    Ok(()) => info!(cpu, "this CPU came online"),
                    Err(error) => warn!(cpu, %error, "this CPU cannot be sampled"),
                }
            }
        }
    }

    fn attach_cpu(&mut self, ebpf: &mut Ebpf, cpu: u32) -> Result<(), KernelError> {
        let frequency_hz = self.frequency_hz.unwrap_or(1);
        let event = self.event();
        let (config, policy) = event.open(frequency_hz);
        let scope = PerfEventScope::AllProcessesOneCpu { cpu };
        let program = program(ebpf)?;
        let link = match program.attach(config, scope, policy, false) {
            // The counters may be taken, and not every CPU of a host need have the same.
            Err(error) if event != Event::CpuClock => {
                warn!(cpu, %error, "no reference cycles on this CPU: sampling it by the CPU clock");
                let (config, policy) = Event::CpuClock.open(frequency_hz);
                program.attach(config, scope, policy, false)
            }
            attached => attached,
        };
        let link =
            link.map_err(|error| KernelError::program(format!("open a perf event on CPU {cpu}"), error))?;
        self.links.insert(cpu, link);
        Ok(())
    }

    fn event(&mut self) -> Event {
        *self.event.get_or_insert_with(|| match self.wanted {
            CpuEvent::Auto => Event::of_host(),
            CpuEvent::CpuClock => Event::CpuClock,
        })
    }
}

fn program(ebpf: &mut Ebpf) -> Result<&mut PerfEvent, KernelError> {
    ebpf.program_mut(PROGRAM)
        .ok_or(KernelError::Missing(PROGRAM))?
        .try_into()
        .map_err(|error| KernelError::program("use the on-CPU program", error))
}

/// How many CPUs are online now; not the share of them that a cgroup's quota leaves us.
#[must_use]
pub fn cpu_count() -> u32 {
    online_cpus().len().max(1) as u32
}

/// The CPUs that are online now.
pub(super) fn online_cpus() -> Vec<u32> {
    aya::util::online_cpus().unwrap_or_else(|(path, error)| {
        warn!(path, %error, "cannot read which CPUs are online");
        Vec::new()
    })
}
