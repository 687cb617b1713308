//! Loads the embedded object: constants from BTF, ring sizes, and errors that name the cure.

use std::io;

use aya::maps::MapError;
use aya::programs::{BtfTracePoint, ProgramError};
use aya::{Ebpf, EbpfError, EbpfLoader};
use profiler_common::unwind::ROWS_PER_CHUNK;
use thiserror::Error;
use zerocopy::IntoBytes;

use super::layout;
use super::tables::Sizes;
use super::types::Types;
use crate::config::CpuEvent;

/// The object built from `profiler-ebpf`; see build.rs.
static OBJECT: &[u8] = aya::include_bytes_aligned!(concat!(env!("OUT_DIR"), "/profiler.bpf.o"));

/// Sizes that depend on the host and the rates.
#[derive(Clone, Debug)]
pub struct Options {
    /// Bytes of the on-CPU ring; rounded up to a power of two, at least 64 KiB.
    pub on_cpu_ring_bytes: u32,
    /// Bytes of the off-CPU ring; likewise.
    pub off_cpu_ring_bytes: u32,
    /// Bytes of the unwinding tables' rows, taken from the kernel at once; at least 1 MiB.
    pub table_bytes: u64,
    /// What makes an on-CPU sample due.
    pub event: CpuEvent,
    /// What tests and benches ask for beside.
    pub runs: Runs,
}

/// What the programs do beside their job, for tests and benches.
#[derive(Clone, Copy, Debug, Default)]
pub struct Runs {
    /// Do every walk of a user stack again, without cache and window, and compare.
    pub check_walks: bool,
    /// Time every walk, and the kernel's own along frame pointers beside it.
    pub time_walks: bool,
}

impl Options {
    /// Rings that hold half a second at full load: every CPU at `frequency_hz` with deep stacks,
    /// and about 8 000 off-CPU intervals.
    #[must_use]
    pub fn for_rate(cpus: u32, frequency_hz: u32) -> Self {
        const DEEP_RECORD: u64 = 1024;
        let on_cpu = u64::from(cpus) * u64::from(frequency_hz) * DEEP_RECORD;
        Self {
            on_cpu_ring_bytes: on_cpu.clamp(1 << 18, 1 << 25) as u32,
            off_cpu_ring_bytes: 1 << 23,
            table_bytes: 32 << 20,
            event: CpuEvent::Auto,
            runs: Runs::default(),
        }
    }

    /// Sizes of the unwinding tables' arrays: a row is 4 bytes, a page has 8 and covers 64 KiB of
    /// code, for which 8 rows are few. A mapping has 32 bytes; those of processes with the same ones
    /// are shared.
    fn table_sizes(&self) -> Sizes {
        let chunks = (self.table_bytes / (ROWS_PER_CHUNK as u64 * 4)).clamp(1, 1 << 12) as u32;
        Sizes {
            chunks,
            pages: (chunks * (1 << 13)).min(1 << 20),
            mappings: (chunks * (1 << 12)).clamp(1 << 14, 1 << 20),
        }
    }
}

/// Why the kernel side does not work.
#[derive(Debug, Error)]
pub enum KernelError {
    /// The kernel's type information cannot be read.
    #[error(
        "cannot read the kernel's type information (/sys/kernel/btf/vmlinux): {0}; \
         it takes a kernel built with CONFIG_DEBUG_INFO_BTF=y"
    )]
    Btf(String),
    /// A structure or field that the programs need is not in BTF.
    #[error("this kernel's type information has no {0}; please report the kernel version")]
    Layout(String),
    /// The kernel refused for want of privileges.
    #[error(
        "the kernel refused to {doing}: {source}; run as root or grant CAP_BPF and CAP_PERFMON \
             (`profiler check` names what is missing)"
    )]
    Privileges {
        /// What was tried.
        doing: String,
        /// The kernel's answer.
        source: io::Error,
    },
    /// The object could not be loaded.
    #[error("cannot load the eBPF object: {0}")]
    Load(#[from] EbpfError),
    /// A program was refused.
    #[error("cannot {doing}: {source}")]
    Program {
        /// What was tried.
        doing: String,
        /// aya's error, with the verifier's log where there is one.
        source: ProgramError,
    },
    /// A map cannot be shared with the kernel.
    #[error("cannot map the memory of the eBPF map {name}: {source}")]
    Mapping {
        /// The map.
        name: &'static str,
        /// The kernel's answer.
        source: io::Error,
    },
    /// A map operation failed.
    #[error("cannot access the eBPF map {name}: {source}")]
    Map {
        /// The map.
        name: &'static str,
        /// aya's error.
        source: MapError,
    },
    /// The object lacks a map or a program: it does not belong to this daemon.
    #[error("the eBPF object has no {0}; rebuild it with `cargo xtask build-ebpf`")]
    Missing(&'static str),
    /// Not one CPU could be sampled.
    #[error("cannot sample any CPU: {0}")]
    NoCpu(String),
    /// Too many targets for the in-kernel filter.
    #[error("too many targets: the in-kernel filter holds {limit} {what}")]
    TooManyTargets {
        /// How many fit.
        limit: u32,
        /// Of what.
        what: &'static str,
    },
    /// The sweep over all threads failed.
    #[error("cannot list the threads that are still blocked: {0}")]
    Sweep(io::Error),
    /// The programs' run time cannot be measured.
    #[error("cannot measure how long the programs run: {0}; it takes CAP_SYS_ADMIN")]
    RunTime(io::Error),
}

impl KernelError {
    /// Whether more privileges would cure it.
    #[must_use]
    pub fn is_privileges(&self) -> bool {
        matches!(self, Self::Privileges { .. })
    }

    pub(super) fn program(doing: impl Into<String>, source: ProgramError) -> Self {
        let doing = doing.into();
        match denied(&source) {
            Some(source) => Self::Privileges { doing, source },
            None => Self::Program { doing, source },
        }
    }
}

/// Parses the object, sets its constants and creates its maps.
pub(super) fn load(options: &Options, types: &mut Types) -> Result<(Ebpf, Sizes), KernelError> {
    let kernel = layout::read(options.runs)?;
    let sizes = options.table_sizes();
    let cpus = possible_cpus();
    let ring = |bytes: u32| bytes.clamp(1 << 16, 1 << 30).next_power_of_two();
    let ebpf = EbpfLoader::new()
        .btf(Some(types.get()?))
        // Task storage is ours: aya 0.14 has no type for it.
        .allow_unsupported_maps()
        .override_global("KERNEL", kernel.as_bytes(), true)
        .map_max_entries("ON_CPU_RING", ring(options.on_cpu_ring_bytes))
        .map_max_entries("OFF_CPU_RING", ring(options.off_cpu_ring_bytes))
        .map_max_entries("ROWS", sizes.chunks)
        .map_max_entries("PAGES", sizes.pages)
        .map_max_entries("MAPPINGS", sizes.mappings)
        .map_max_entries("ON_CPU_CACHE", cpus)
        .map_max_entries("OFF_CPU_CACHE", cpus)
        .map_max_entries("RSEQ_CACHE", cpus)
        .load(OBJECT)
        .map_err(|error| match denied(&error) {
            Some(source) => KernelError::Privileges { doing: "create eBPF maps".to_owned(), source },
            None => KernelError::Load(error),
        })?;
    Ok((ebpf, sizes))
}

/// CPUs that may ever come online: what programs may be running on.
fn possible_cpus() -> u32 {
    let cpus = aya::util::nr_cpus().unwrap_or_else(|(path, error)| {
        tracing::warn!(path, %error, "cannot read how many CPUs there may be");
        std::thread::available_parallelism().map_or(1, usize::from)
    });
    u32::try_from(cpus).unwrap_or(u32::MAX)
}

/// Loads and attaches a BTF tracepoint program, once.
pub(super) fn attach_tracepoint(
    ebpf: &mut Ebpf,
    types: &mut Types,
    program: &'static str,
    tracepoint: &'static str,
) -> Result<(), KernelError> {
    let handle: &mut BtfTracePoint = ebpf
        .program_mut(program)
        .ok_or(KernelError::Missing(program))?
        .try_into()
        .map_err(|error| KernelError::program(format!("use program {program}"), error))?;
    if handle.fd().is_err() {
        handle
            .load(tracepoint, types.get()?)
            .map_err(|error| KernelError::program(format!("load program {program}"), error))?;
    }
    match handle.attach() {
        Ok(_) | Err(ProgramError::AlreadyAttached) => Ok(()),
        Err(error) => Err(KernelError::program(format!("attach to tracepoint {tracepoint}"), error)),
    }
}

/// The permission error at the root of an error chain, if that is what it is.
fn denied(error: &(dyn std::error::Error + 'static)) -> Option<io::Error> {
    let mut link = Some(error);
    while let Some(current) = link {
        if let Some(io) = current.downcast_ref::<io::Error>() {
            let denied = matches!(io.raw_os_error(), Some(libc::EPERM | libc::EACCES));
            return denied.then(|| io::Error::from_raw_os_error(io.raw_os_error().unwrap_or(libc::EPERM)));
        }
        link = current.source();
    }
    None
}
