//! The in-kernel filter: which processes and cgroups each sampler records.

use std::collections::BTreeMap;

use aya::Ebpf;
use aya::maps::{Array, HashMap, MapData, MapError};
use profiler_common::limits::{MAX_FILTER_CGROUPS, MAX_FILTER_PIDS};
use profiler_common::settings::{
    FILTER_HOST, FILTER_TARGETS, FilterEntry, SETTINGS_OFF_CPU, SETTINGS_ON_CPU, Settings,
};
use zerocopy::{FromBytes, IntoBytes};

use super::KernelError;
use crate::model::{SamplerKind, Target};

const SETTINGS: &str = "SETTINGS";
const PIDS: &str = "FILTER_PIDS";
const CGROUPS: &str = "FILTER_CGROUPS";

/// The filter maps and what is in them.
pub(super) struct Filter {
    settings: Array<MapData, [u8; size_of::<Settings>()]>,
    pids: HashMap<MapData, u32, [u8; size_of::<FilterEntry>()]>,
    cgroups: HashMap<MapData, u64, u32>,
    written: [Settings; 2],
    targets: [Vec<Target>; 2],
}

impl Filter {
    pub(super) fn take(ebpf: &mut Ebpf) -> Result<Self, KernelError> {
        let mut take = |name| ebpf.take_map(name).ok_or(KernelError::Missing(name));
        Ok(Self {
            settings: take(SETTINGS)?.try_into().map_err(error(SETTINGS))?,
            pids: take(PIDS)?.try_into().map_err(error(PIDS))?,
            cgroups: take(CGROUPS)?.try_into().map_err(error(CGROUPS))?,
            written: [Settings::default(); 2],
            targets: [Vec::new(), Vec::new()],
        })
    }

    /// Writes a sampler's settings.
    pub(super) fn write(&mut self, sampler: u32, settings: &Settings) -> Result<(), KernelError> {
        let mut bytes = [0; size_of::<Settings>()];
        bytes.copy_from_slice(settings.as_bytes());
        self.settings.set(sampler, bytes, 0).map_err(error(SETTINGS))?;
        if let Some(written) = self.written.get_mut(sampler as usize) {
            *written = *settings;
        }
        Ok(())
    }

    /// What was last written.
    pub(super) fn written(&self, sampler: u32) -> Settings {
        self.written.get(sampler as usize).copied().unwrap_or_default()
    }

    /// Settings that select the sampler's targets; all else is zero.
    pub(super) fn settings(&self, sampler: SamplerKind) -> Settings {
        let targets = &self.targets[index(sampler)];
        Settings {
            filter: if targets.contains(&Target::Host) { FILTER_HOST } else { FILTER_TARGETS },
            cgroups: u32::from(targets.iter().any(|target| matches!(target, Target::Cgroup { .. }))),
            ..Settings::default()
        }
    }

    /// Replaces a sampler's targets: the filter holds the union of all samplers' targets.
    pub(super) fn set_targets<'a>(
        &mut self,
        sampler: SamplerKind,
        targets: impl IntoIterator<Item = &'a Target>,
    ) -> Result<(), KernelError> {
        self.targets[index(sampler)] = targets.into_iter().cloned().collect();
        let (pids, cgroups) = self.wanted();
        if pids.len() > MAX_FILTER_PIDS as usize {
            return Err(KernelError::TooManyTargets { limit: MAX_FILTER_PIDS, what: "processes" });
        }
        if cgroups.len() > MAX_FILTER_CGROUPS as usize {
            return Err(KernelError::TooManyTargets { limit: MAX_FILTER_CGROUPS, what: "cgroups" });
        }
        let following = pids.values().any(|entry| entry.follow != 0);
        let present: Vec<u32> = self.pids.keys().collect::<Result<_, _>>().map_err(error(PIDS))?;
        // While forks are followed the kernel adds children by itself: those stay.
        for pid in present.into_iter().filter(|pid| !following && !pids.contains_key(pid)) {
            ignore_missing(self.pids.remove(&pid)).map_err(error(PIDS))?;
        }
        for (pid, wanted) in &pids {
            let entry = self.begun(*pid, *wanted);
            let mut bytes = [0; size_of::<FilterEntry>()];
            bytes.copy_from_slice(entry.as_bytes());
            self.pids.insert(pid, bytes, 0).map_err(error(PIDS))?;
        }
        let present: Vec<u64> = self.cgroups.keys().collect::<Result<_, _>>().map_err(error(CGROUPS))?;
        for id in present.into_iter().filter(|id| !cgroups.contains_key(id)) {
            ignore_missing(self.cgroups.remove(&id)).map_err(error(CGROUPS))?;
        }
        for (id, samplers) in &cgroups {
            self.cgroups.insert(id, samplers, 0).map_err(error(CGROUPS))?;
        }
        Ok(())
    }

    /// A command that has been recorded since its exec must not be told to wait for another one.
    fn begun(&self, pid: u32, wanted: FilterEntry) -> FilterEntry {
        let present = self.pids.get(&pid, 0).ok().and_then(|bytes| FilterEntry::read_from_bytes(&bytes).ok());
        match present {
            Some(present) if present.start_ticks == wanted.start_ticks && present.samplers_from_exec == 0 => {
                let samplers = wanted.samplers | wanted.samplers_from_exec;
                FilterEntry { samplers, samplers_from_exec: 0, ..wanted }
            }
            _ => wanted,
        }
    }

    /// What the maps should hold.
    fn wanted(&self) -> (BTreeMap<u32, FilterEntry>, BTreeMap<u64, u32>) {
        let (mut pids, mut cgroups) = (BTreeMap::new(), BTreeMap::new());
        for (sampler, targets) in [SETTINGS_ON_CPU, SETTINGS_OFF_CPU].into_iter().zip(&self.targets) {
            for target in targets {
                match target {
                    Target::Host => {}
                    Target::Processes(ids) => {
                        for id in ids {
                            let entry: &mut FilterEntry = pids.entry(id.pid.0).or_default();
                            entry.start_ticks = id.start_ticks;
                            entry.samplers |= 1 << sampler;
                        }
                    }
                    Target::Command(id) => {
                        let entry: &mut FilterEntry = pids.entry(id.pid.0).or_default();
                        entry.start_ticks = id.start_ticks;
                        entry.samplers_from_exec |= 1 << sampler;
                        entry.follow = 1;
                    }
                    Target::Cgroup { id, .. } => *cgroups.entry(id.0).or_default() |= 1 << sampler,
                }
            }
        }
        (pids, cgroups)
    }
}

fn index(sampler: SamplerKind) -> usize {
    match sampler {
        SamplerKind::OnCpu => 0,
        SamplerKind::OffCpu => 1,
    }
}

fn error(name: &'static str) -> impl Fn(MapError) -> KernelError {
    move |source| KernelError::Map { name, source }
}

/// A key that is gone already is as good as removed.
fn ignore_missing(result: Result<(), MapError>) -> Result<(), MapError> {
    match result {
        Err(MapError::KeyNotFound) => Ok(()),
        Err(MapError::SyscallError(error)) if error.io_error.raw_os_error() == Some(libc::ENOENT) => Ok(()),
        other => other,
    }
}
