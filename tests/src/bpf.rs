//! Sees which BPF objects a process holds, and whether the kernel still has them.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use aya::maps::loaded_maps;
use aya::programs::{loaded_links, loaded_programs};

use crate::run::wait_for;

/// BPF objects, by the kernel's ids.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Held {
    /// Programs.
    pub programs: BTreeSet<u32>,
    /// Maps.
    pub maps: BTreeSet<u32>,
    /// Links: programs attached to something.
    pub links: BTreeSet<u32>,
}

impl Held {
    /// What a process holds through its file descriptors.
    ///
    /// # Errors
    /// When the process is gone or cannot be looked at.
    pub fn by(pid: u32) -> Result<Self> {
        let mut held = Self::default();
        let dir = format!("/proc/{pid}/fdinfo");
        for entry in std::fs::read_dir(&dir).with_context(|| format!("cannot read {dir}"))? {
            // A descriptor may be closed while we look.
            if let Ok(text) = std::fs::read_to_string(entry?.path()) {
                held.add(&text);
            }
        }
        Ok(held)
    }

    /// Takes the ids out of one file of `/proc/PID/fdinfo` (`bpf_prog_show_fdinfo`,
    /// `bpf_map_show_fdinfo` and `bpf_link_show_fdinfo` in kernel/bpf/syscall.c). A link names its
    /// program too.
    fn add(&mut self, fdinfo: &str) {
        for line in fdinfo.lines() {
            let Some((name, value)) = line.split_once(':') else { continue };
            let Ok(id) = value.trim().parse() else { continue };
            match name {
                "prog_id" => self.programs.insert(id),
                "map_id" => self.maps.insert(id),
                "link_id" => self.links.insert(id),
                _ => false,
            };
        }
    }

    /// Waits until the kernel has freed all of these. It does so a grace period after the last
    /// reference went.
    ///
    /// # Errors
    /// When some are still there after some seconds, whoever keeps them.
    pub fn wait_until_gone(&self) -> Result<()> {
        wait_for("the kernel to free BPF objects", Duration::from_secs(10), || {
            let left = self.still_loaded();
            ensure!(left == Self::default(), "still loaded: {left:?}");
            Ok(Some(()))
        })
    }

    /// Those of these that the kernel still has.
    #[must_use]
    pub fn still_loaded(&self) -> Self {
        // An object that goes while the list is read is an error of that one item: not loaded.
        let loaded: BTreeSet<u32> = loaded_programs().flatten().map(|program| program.id()).collect();
        let maps: BTreeSet<u32> = loaded_maps().flatten().map(|map| map.id()).collect();
        let links: BTreeSet<u32> = loaded_links().flatten().map(|link| link.id()).collect();
        Self {
            programs: self.programs.intersection(&loaded).copied().collect(),
            maps: self.maps.intersection(&maps).copied().collect(),
            links: self.links.intersection(&links).copied().collect(),
        }
    }
}

/// Waits until a process has loaded BPF programs: it has begun to record.
///
/// # Errors
/// When it never does, or ends.
pub fn wait_for_programs(pid: u32) -> Result<Held> {
    wait_for("BPF programs to be loaded", Duration::from_secs(30), || {
        let held = Held::by(pid)?;
        Ok((!held.programs.is_empty()).then_some(held))
    })
}

/// Everything that is pinned in the BPF file system, if there is one.
#[must_use]
pub fn pinned() -> BTreeSet<PathBuf> {
    let mut found = BTreeSet::new();
    collect(Path::new("/sys/fs/bpf"), &mut found);
    found
}

fn collect(dir: &Path, found: &mut BTreeSet<PathBuf>) {
    for entry in std::fs::read_dir(dir).into_iter().flatten().flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            collect(&entry.path(), found);
        }
        found.insert(entry.path());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_read_from_fdinfo() {
        let mut held = Held::default();
        held.add("pos:\t0\nflags:\t02000002\nlink_type:\tperf\nlink_id:\t3\nprog_tag:\tab\nprog_id:\t17\n");
        held.add("map_type:\t27\nmap_id:\t5\n");
        held.add("pos:\t0\nprog_id:\tnonsense\n");
        let expected = Held { programs: [17].into(), maps: [5].into(), links: [3].into() };
        assert_eq!(held, expected);
    }
}
