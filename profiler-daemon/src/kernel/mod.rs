//! The only module that knows aya: loads the eBPF object, attaches it, reads its rings and counters.

mod cost;
mod counters;
mod filter;
mod layout;
mod load;
mod mapped;
mod off_cpu;
mod on_cpu;
mod on_cpu_event;
pub mod preflight;
#[cfg(test)]
mod privilege;
mod program_log;
mod rings;
mod run_time;
mod share;
mod side_band;
mod tables;
mod types;
mod watch;

use std::collections::BTreeMap;
use std::io;
use std::os::fd::OwnedFd;
use std::time::Duration;

use profiler_common::settings::{MAX_CLOCK_PERIOD_NS, SETTINGS_OFF_CPU, SETTINGS_ON_CPU, Settings};

use crate::model::{Detail, MonoNs, ProcessEvent, SamplerKind, Target};

pub use counters::{Counters, UserStacks, WalkCosts, Walks};
pub use load::{KernelError, Options, Runs};
pub use on_cpu::cpu_count;
pub use run_time::RunTimes;
pub use tables::{InstalledTable, NoRoom, TableStats, Tables};
pub use watch::Watched;

use types::Types;

/// The loaded eBPF object with everything that is attached. Dropping it detaches and frees all:
/// nothing is pinned.
pub struct Kernel {
    ebpf: aya::Ebpf,
    types: Types,
    rings: rings::Rings,
    filter: filter::Filter,
    log: program_log::ProgramLog,
    on_cpu: on_cpu::Sampler,
    off_cpu: off_cpu::Hooks,
    watch: watch::Watch,
    tables: Option<Tables>,
    sessions: BTreeMap<u64, Session>,
    clock: Option<Duration>,
    share: share::Share,
}

/// What one off-CPU session asked for.
#[derive(Clone, Debug)]
struct Session {
    target: Target,
    detail: Detail,
}

impl Kernel {
    /// Loads the object. Nothing is attached and nothing is recorded yet.
    ///
    /// # Errors
    /// Where the kernel lacks BTF or refuses a map; says what is missing.
    pub fn load(options: &Options) -> Result<Self, KernelError> {
        let mut types = Types::default();
        let (mut ebpf, sizes) = load::load(options, &mut types)?;
        let rings = rings::Rings::take(&mut ebpf)?;
        let filter = filter::Filter::take(&mut ebpf)?;
        let log = program_log::ProgramLog::take(&mut ebpf);
        let tables = Tables::take(&mut ebpf, sizes)?;
        Ok(Self {
            ebpf,
            types,
            rings,
            filter,
            log,
            on_cpu: on_cpu::Sampler::new(options.event),
            off_cpu: off_cpu::Hooks::default(),
            watch: watch::Watch::default(),
            tables: Some(tables),
            sessions: BTreeMap::new(),
            clock: None,
            share: share::Share::default(),
        })
    }

    /// Starts sampling every online CPU at `frequency_hz` (1 to 100 000).
    ///
    /// # Errors
    /// Where the kernel refuses the program or the perf events.
    pub fn start_on_cpu(&mut self, frequency_hz: u32, target: &Target) -> Result<(), KernelError> {
        let period_ns = 1_000_000_000 / u64::from(frequency_hz.max(1));
        self.follow_command(target)?;
        self.filter.set_targets(SamplerKind::OnCpu, [target])?;
        self.on_cpu.attach(&mut self.ebpf, frequency_hz)?;
        let settings = Settings { open: 1, period_ns, ..self.filter.settings(SamplerKind::OnCpu) };
        self.filter.write(SETTINGS_ON_CPU, &settings)
    }

    /// Changes the frequency of the on-CPU sampler while it runs; samples say which one they have.
    ///
    /// # Errors
    /// Where the kernel refuses the perf events.
    pub fn set_frequency(&mut self, frequency_hz: u32) -> Result<(), KernelError> {
        let before = self.on_cpu.frequency_hz();
        self.on_cpu.detach(&mut self.ebpf);
        if let Err(error) = self.on_cpu.attach(&mut self.ebpf, frequency_hz) {
            // Better at the old rate than not at all.
            if let Some(before) = before {
                self.on_cpu.attach(&mut self.ebpf, before)?;
            }
            return Err(error);
        }
        let period_ns = 1_000_000_000 / u64::from(frequency_hz.max(1));
        let settings = Settings { period_ns, ..self.filter.written(SETTINGS_ON_CPU) };
        self.filter.write(SETTINGS_ON_CPU, &settings)
    }

    /// Frequency of the on-CPU sampler, Hz; 0 while it does not run.
    #[must_use]
    pub fn frequency_hz(&self) -> u32 {
        self.on_cpu.frequency_hz().unwrap_or_default()
    }

    /// Stops sampling. What is in the ring can still be drained.
    ///
    /// # Errors
    /// Where the kernel refuses a map update.
    pub fn stop_on_cpu(&mut self) -> Result<(), KernelError> {
        self.filter.write(SETTINGS_ON_CPU, &Settings::default())?;
        self.on_cpu.detach(&mut self.ebpf);
        self.filter.set_targets(SamplerKind::OnCpu, [])
    }

    /// Passes on what the programs have logged since the last call.
    pub fn flush_log(&mut self) {
        self.log.flush();
    }

    /// Attaches to CPUs that came online since the last call, and lets go of what only loading takes.
    pub fn follow_cpus(&mut self) {
        self.on_cpu.follow_cpus(&mut self.ebpf);
        self.watch.follow_cpus();
        self.types.let_go();
    }

    /// The unwinding tables, to whoever fills them; once.
    pub fn take_tables(&mut self) -> Option<Tables> {
        self.tables.take()
    }

    /// Begins to report what happens to processes. What the kernel refuses is logged and found in
    /// `/proc` instead, later.
    pub fn watch_processes(&mut self) {
        self.watch.attach(&mut self.ebpf, &mut self.types);
    }

    /// What happened to processes since the last call, in the order of time, without a gap: all that
    /// the samples which were drained before may need. `decode` is handed the waiting records of our own
    /// programs and makes events of them.
    pub fn watched(&mut self, decode: impl FnMut(&[u8]) -> Option<ProcessEvent>) -> Watched {
        self.watch.read(&mut self.rings, decode)
    }

    /// Adds an off-CPU session; returns the instant from which its intervals are complete.
    ///
    /// # Errors
    /// Where the kernel refuses a program, a tracepoint or a map update.
    pub fn start_off_cpu(
        &mut self,
        session: u64,
        target: Target,
        detail: Detail,
    ) -> Result<MonoNs, KernelError> {
        self.follow_command(&target)?;
        self.sessions.insert(session, Session { target, detail });
        let started = self.apply_off_cpu();
        if started.is_err() {
            self.sessions.remove(&session);
        }
        started
    }

    /// Gives every thread of the host an off-CPU clock of this period (at most a minute; zero takes
    /// every interval), or changes the period of those that run; `None` takes them away.
    ///
    /// # Errors
    /// Where the kernel refuses a program, a tracepoint or a map update.
    pub fn set_clock(&mut self, period: Option<Duration>) -> Result<(), KernelError> {
        let before = std::mem::replace(&mut self.clock, period);
        let result = self.apply_off_cpu().map(drop);
        if result.is_err() {
            self.clock = before;
        }
        result
    }

    /// Lets the clocks look at one thread in `1 << share` only (7 at most). Sessions see all of theirs.
    ///
    /// # Errors
    /// Where the kernel refuses a map update.
    pub fn set_thread_share(&mut self, share: u32) -> Result<(), KernelError> {
        self.share.set(share);
        if self.off_cpu_active() { self.apply_off_cpu().map(drop) } else { Ok(()) }
    }

    /// Begins to measure how long our programs run; see [`RunTimes::read`].
    ///
    /// # Errors
    /// Where the kernel does not count it.
    pub fn measure_run_time(&self) -> Result<RunTimes, KernelError> {
        RunTimes::begin(&self.ebpf)
    }

    /// Looks whether user stacks come as they should; where they do not, other ways are taken.
    ///
    /// # Errors
    /// Where the kernel refuses a map update.
    pub fn judge_user_stacks(&mut self, counters: &Counters) -> Result<(), KernelError> {
        if self.off_cpu.judge(counters.user_stacks) && self.off_cpu_active() {
            return self.apply_off_cpu().map(drop);
        }
        Ok(())
    }

    /// Writes the still-open intervals of all sessions into the ring, marked as such.
    ///
    /// # Errors
    /// Where the iterator cannot be run.
    pub fn sweep_off_cpu(&mut self) -> Result<(), KernelError> {
        self.off_cpu.sweep(&mut self.ebpf, &mut self.types)
    }

    /// Ends an off-CPU session; the hooks go with the last one, unless the clocks want them.
    ///
    /// # Errors
    /// Where the kernel refuses a map update.
    pub fn stop_off_cpu(&mut self, session: u64) -> Result<(), KernelError> {
        self.sessions.remove(&session);
        self.apply_off_cpu().map(drop)
    }

    /// Whether the scheduler hooks are attached.
    #[must_use]
    pub fn off_cpu_active(&self) -> bool {
        !self.sessions.is_empty() || self.clock.is_some()
    }

    /// Hands the waiting samples of all rings to `each`, at most a bounded number per ring, and
    /// says whether there may be more.
    pub fn drain_samples(&mut self, each: impl FnMut(&[u8])) -> bool {
        self.rings.drain_samples(each)
    }

    /// Descriptors that become readable when a ring is half full.
    ///
    /// # Errors
    /// When the process has no descriptor left.
    pub fn ring_fds(&self) -> io::Result<[OwnedFd; 3]> {
        self.rings.fds()
    }

    /// The programs' counters since loading.
    ///
    /// # Errors
    /// Where the kernel refuses the map read.
    pub fn counters(&self) -> Result<Counters, KernelError> {
        counters::read(&self.ebpf)
    }

    /// Memory the kernel charges for our maps, bytes.
    #[must_use]
    pub fn map_bytes(&self) -> u64 {
        cost::map_bytes()
    }

    /// Brings filter, settings and hooks in line with the sessions and the clocks.
    fn apply_off_cpu(&mut self) -> Result<MonoNs, KernelError> {
        if !self.off_cpu_active() {
            self.filter.write(SETTINGS_OFF_CPU, &Settings::default())?;
            self.off_cpu.detach(&mut self.ebpf);
            self.filter.set_targets(SamplerKind::OffCpu, [])?;
            return Ok(now());
        }
        let targets: Vec<Target> = self.sessions.values().map(|session| session.target.clone()).collect();
        self.filter.set_targets(SamplerKind::OffCpu, &targets)?;
        // A session that asks more of its target asks nothing of the others'.
        let least = |of_host: bool| {
            let sessions =
                self.sessions.values().filter(|session| (session.target == Target::Host) == of_host);
            sessions.map(|session| session.detail.min_block_ns).min().unwrap_or(u64::MAX)
        };
        let (min_block_ns, min_block_listed_ns) = (least(true), least(false));
        // Sessions take every interval: their clocks are those of T = 0.
        let period_ns = self.clock.unwrap_or_default().as_nanos().min(u128::from(MAX_CLOCK_PERIOD_NS)) as u64;
        let opened_ns = self.off_cpu.attach(&mut self.ebpf, &mut self.types)?;
        let wakers = self.sessions.values().any(|session| session.detail.wakers);
        let wakers = self.off_cpu.wakers(&mut self.ebpf, &mut self.types, wakers);
        let share = self.share.apply(opened_ns, self.clock.is_some(), !self.sessions.is_empty(), now().0);
        let settings = Settings {
            opened_ns,
            thread_share: share.threads,
            thinned: u32::from(share.thinned),
            opened_by_level: share.opened_by_level,
            min_block_ns,
            min_block_listed_ns,
            period_ns,
            clock: u32::from(self.clock.is_some()),
            sessions: u32::from(!self.sessions.is_empty()),
            rseq: u32::from(self.off_cpu.rseq()),
            wakers: u32::from(wakers),
            // Kernel threads mostly wait for work; their waits say nothing about a service.
            skip_kernel_threads: 1,
            ..self.filter.settings(SamplerKind::OffCpu)
        };
        // The gate opens after the time stamp is in place: no program may see the one without
        // the other.
        let before = self.filter.written(SETTINGS_OFF_CPU);
        if before.open == 0 {
            self.filter.write(SETTINGS_OFF_CPU, &settings)?;
        } else if before.opened_by_level != settings.opened_by_level {
            // Likewise, threads are seen again only after it is known since when.
            let opened_by_level = settings.opened_by_level;
            self.filter.write(SETTINGS_OFF_CPU, &Settings { opened_by_level, ..before })?;
        }
        self.filter.write(SETTINGS_OFF_CPU, &Settings { open: 1, ..settings })?;
        Ok(now())
    }

    fn follow_command(&mut self, target: &Target) -> Result<(), KernelError> {
        if matches!(target, Target::Command { .. }) {
            for (program, tracepoint) in [
                ("follow_fork", "sched_process_fork"),
                ("follow_exec", "sched_process_exec"),
                ("follow_free", "sched_process_free"),
            ] {
                load::attach_tracepoint(&mut self.ebpf, &mut self.types, program, tracepoint)?;
            }
        }
        Ok(())
    }
}

/// Now on the clock of `bpf_ktime_get_ns`.
#[must_use]
pub fn now() -> MonoNs {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
    MonoNs(now.tv_sec as u64 * 1_000_000_000 + now.tv_nsec as u64)
}
