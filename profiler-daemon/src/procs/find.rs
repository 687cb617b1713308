//! Finds processes by name, and cgroups by a part of their directory's name.

use std::collections::VecDeque;
use std::path::Path;
use std::time::Instant;

use rustix::fs::{self, Mode, OFlags};

use crate::model::{Pid, ProcessId};

use super::ProcsError;
use super::container::Owner;
use super::names::{Names, Place};
use super::procdir::{ProcDir, SMALL};

/// Directories that one search of the cgroup hierarchy looks at, at most.
const MAX_CGROUPS: usize = 20_000;

/// All processes whose name is `comm`, in ascending order of their pids, at most `limit` of them;
/// and how many there are.
///
/// # Errors
/// `/proc` is not readable. Processes that end meanwhile are left out.
pub fn by_comm(comm: &str, limit: usize) -> Result<(Vec<ProcessId>, usize), ProcsError> {
    let entries =
        std::fs::read_dir("/proc").map_err(|source| ProcsError::Read { path: "/proc".to_owned(), source })?;
    let mut pids: Vec<u32> =
        entries.flatten().filter_map(|entry| entry.file_name().to_str()?.parse().ok()).collect();
    pids.sort_unstable();
    let mut found = Vec::new();
    let mut count = 0;
    for pid in pids.into_iter().map(Pid) {
        let Ok(dir) = ProcDir::open(pid) else { continue };
        let Ok(name) = dir.read("comm", SMALL) else { continue };
        if name.strip_suffix(b"\n").unwrap_or(&name) != comm.as_bytes() {
            continue;
        }
        count += 1;
        if found.len() < limit
            && let Ok(start_ticks) = dir.start_ticks()
        {
            found.push(ProcessId { pid, start_ticks });
        }
    }
    Ok((found, count))
}

/// Paths, below the cgroup v2 mount, of the topmost cgroups whose directory's name holds `part`
/// (a container's id or name, a pod's uid with dashes or underscores), at most `limit` of them.
/// Where a container and a cgroup inside it both match, the container's is found.
///
/// # Errors
/// No cgroup v2 hierarchy; it is not readable.
pub fn cgroups_named(part: &str, limit: usize) -> Result<Vec<String>, ProcsError> {
    let mount = super::cgroup::mount_point()?;
    search(Path::new(&mount), part, limit)
}

fn search(mount: &Path, part: &str, limit: usize) -> Result<Vec<String>, ProcsError> {
    // systemd's escaping of a pod's uid: dashes separate slices.
    let underscored = part.replace('-', "_");
    search_for(mount, limit, |path| {
        let name = path.rsplit('/').next().unwrap_or(path);
        name.contains(part) || name.contains(&underscored)
    })
}

/// The topmost directories that are wanted, by their path below the mount.
fn search_for(
    mount: &Path,
    limit: usize,
    mut wanted: impl FnMut(&str) -> bool,
) -> Result<Vec<String>, ProcsError> {
    let mut found = Vec::new();
    let mut looked_at = 0;
    let mut queue = VecDeque::from([mount.to_owned()]);
    while let Some(directory) = queue.pop_front() {
        // Breadth first, and never through a link: a loop cannot be built.
        let entries = match std::fs::read_dir(&directory) {
            Ok(entries) => entries,
            Err(source) if directory == mount => {
                return Err(ProcsError::Read { path: mount.display().to_string(), source });
            }
            // Removed meanwhile.
            Err(_) => continue,
        };
        for entry in entries.flatten() {
            if !entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                continue;
            }
            looked_at += 1;
            let path = entry.path();
            let below = path.strip_prefix(mount).map_or(String::new(), |path| format!("/{}", path.display()));
            if wanted(&below) {
                found.push(below);
            } else {
                queue.push_back(path);
            }
            if found.len() >= limit || looked_at >= MAX_CGROUPS {
                found.sort();
                return Ok(found);
            }
        }
    }
    found.sort();
    Ok(found)
}

/// A container or a pod by its name, as alerts name it.
#[derive(Clone, Copy, Debug, Default)]
pub struct NamedPlace<'a> {
    /// Name of the container.
    pub container: Option<&'a str>,
    /// Name of the pod.
    pub pod: Option<&'a str>,
    /// The pod's namespace.
    pub namespace: Option<&'a str>,
}

impl NamedPlace<'_> {
    fn fits(&self, place: &Place) -> bool {
        let fits = |wanted: Option<&str>, name: &str| wanted.is_none_or(|wanted| wanted == name);
        fits(self.container, &place.container)
            && fits(self.pod, &place.pod)
            && fits(self.namespace, &place.namespace)
    }
}

/// Paths, below the cgroup v2 mount, of the topmost cgroups that are this container, or this pod, at
/// most `limit` of them.
///
/// # Errors
/// No cgroup v2 hierarchy; it is not readable.
pub fn cgroups_of(wanted: NamedPlace<'_>, limit: usize) -> Result<Vec<String>, ProcsError> {
    let mount = super::cgroup::mount_point()?;
    search_place(Path::new(&mount), &mut Names::new(), wanted, limit)
}

pub(super) fn search_place(
    mount: &Path,
    names: &mut Names,
    wanted: NamedPlace<'_>,
    limit: usize,
) -> Result<Vec<String>, ProcsError> {
    let now = Instant::now();
    search_for(mount, limit, |path| {
        let owner = Owner::of(path);
        let there = if wanted.container.is_some() { owner.container.is_some() } else { owner.pod.is_some() };
        there && wanted.fits(&names.place(&owner, now))
    })
}

/// Opens a file of a cgroup in the v2 hierarchy without leaving it, `path` being below its mount.
///
/// # Errors
/// No cgroup v2 hierarchy; no such cgroup or file; not permitted.
pub fn open_cgroup_file(path: &str, name: &str, write: bool) -> Result<std::fs::File, ProcsError> {
    let mount = super::cgroup::mount_point()?;
    let relative = format!("{}/{name}", path.trim_matches('/'));
    let relative = relative.trim_start_matches('/');
    let access = if write { OFlags::RDWR | OFlags::NONBLOCK } else { OFlags::RDONLY };
    let open = || {
        let root =
            fs::open(mount.as_str(), OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?;
        let stay = fs::ResolveFlags::BENEATH | fs::ResolveFlags::NO_SYMLINKS | fs::ResolveFlags::NO_XDEV;
        fs::openat2(&root, relative, access | OFlags::CLOEXEC, Mode::empty(), stay)
    };
    open().map(std::fs::File::from).map_err(|error| ProcsError::Read {
        path: format!("{}/{relative}", mount.trim_end_matches('/')),
        source: error.into(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn processes_are_found_by_their_name() {
        let mut children: Vec<_> = (0..2)
            .map(|_| {
                let mut command = std::process::Command::new("sleep");
                command.arg("60").spawn().unwrap()
            })
            .collect();
        // `spawn` may return a moment before the exec that gives the name.
        let named = |child: &std::process::Child| {
            std::fs::read(format!("/proc/{}/comm", child.id())).is_ok_and(|comm| comm == b"sleep\n")
        };
        while !children.iter().all(named) {
            std::thread::yield_now();
        }
        let (all, count) = by_comm("sleep", 1000).unwrap();
        let (one, same_count) = by_comm("sleep", 1).unwrap();
        for child in &mut children {
            assert!(all.iter().any(|id| id.pid.0 == child.id()), "{} in {all:?}", child.id());
            child.kill().unwrap();
            child.wait().unwrap();
        }
        assert!(all.is_sorted_by_key(|id| id.pid));
        assert_eq!((one.len(), count >= 2, same_count >= 2), (1, true, true));
        assert_eq!(by_comm("no such name", 10).unwrap(), (Vec::new(), 0));
    }

    /// A plain directory tree stands in for the mount.
    #[test]
    fn cgroups_are_found_by_a_part_of_their_name() {
        let dir = tempfile::tempdir().unwrap();
        let pod = "kubepods.slice/kubepods-pod1234_5678.slice";
        let container = format!("{pod}/cri-containerd-deadbeef0000.scope");
        for path in [&format!("{container}/deadbeef0000"), "docker/deadbeef1111", "a/b"] {
            std::fs::create_dir_all(dir.path().join(path)).unwrap();
        }
        std::os::unix::fs::symlink(dir.path(), dir.path().join("a/loop-deadbeef")).unwrap();
        let find = |part| search(dir.path(), part, 10).unwrap();
        assert_eq!(find("deadbeef0000"), [format!("/{container}")], "the topmost only");
        assert_eq!(find("1234-5678"), [format!("/{pod}")]);
        assert_eq!(find("deadbeef"), ["/docker/deadbeef1111".to_owned(), format!("/{container}")]);
        assert_eq!(search(dir.path(), "deadbeef", 1).unwrap().len(), 1);
        assert!(find("nothing").is_empty());
    }
}
