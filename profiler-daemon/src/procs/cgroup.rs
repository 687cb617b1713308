//! Cgroups: the path a process is in, and the id the kernel side knows a path by.

use std::os::fd::OwnedFd;

use rustix::fs::{self, Mode, OFlags, ResolveFlags};

use crate::model::{CgroupId, Pid};

use super::ProcsError;
use super::container::Owner;
use super::procdir::{ProcDir, SMALL};

/// Path of a process's cgroup below the mount of its hierarchy, for example
/// `/system.slice/nginx.service`: in the v2 hierarchy where there is one.
///
/// # Errors
/// No such process; `/proc` not readable.
pub fn cgroup_path(pid: Pid) -> Result<String, ProcsError> {
    membership_of(&ProcDir::open(pid)?).map(|(path, _)| path)
}

/// See [`cgroup_path`]; with the container, pod and unit that the path says.
pub(super) fn membership_of(dir: &ProcDir) -> Result<(String, Owner), ProcsError> {
    let bytes = dir.read("cgroup", SMALL)?;
    let text = String::from_utf8_lossy(&bytes);
    Ok((path_in(&text).to_owned(), Owner::of_file(&text)))
}

/// Picks from `hierarchy:controllers:path` lines (cgroups(7)); hierarchy 0 is v2.
fn path_in(cgroup: &str) -> &str {
    let paths = |line| str::splitn(line, 3, ':').nth(2);
    let v2 = cgroup.lines().find_map(|line| line.strip_prefix("0::"));
    v2.or_else(|| cgroup.lines().filter_map(paths).find(|path| *path != "/"))
        .or_else(|| cgroup.lines().find_map(paths))
        .unwrap_or_default()
}

/// Id and path of a cgroup in the v2 hierarchy. Takes the path of its directory, or its path below
/// the mount as `/proc/PID/cgroup` shows it, with or without the leading slash.
///
/// # Errors
/// No v2 hierarchy is mounted; the path lies in a v1 hierarchy; there is no such cgroup.
pub fn resolve_cgroup(path: &str) -> Result<(CgroupId, String), ProcsError> {
    resolve_in(&own_mounts()?, path)
}

/// Where the v2 hierarchy is mounted.
pub(super) fn mount_point() -> Result<String, ProcsError> {
    own_mounts()?.into_iter().find(|mount| mount.v2).map(|mount| mount.point).ok_or(ProcsError::NoCgroup2)
}

fn own_mounts() -> Result<Vec<Mount>, ProcsError> {
    let mountinfo = "/proc/self/mountinfo";
    let text =
        std::fs::read(mountinfo).map_err(|source| ProcsError::Read { path: mountinfo.to_owned(), source })?;
    Ok(mounts(&String::from_utf8_lossy(&text)))
}

/// A mounted cgroup hierarchy.
#[derive(Debug, PartialEq, Eq)]
struct Mount {
    point: String,
    v2: bool,
}

/// The cgroup mounts of a `mountinfo` file (proc_pid_mountinfo(5)).
fn mounts(mountinfo: &str) -> Vec<Mount> {
    let mount = |line: &str| {
        let (left, right) = line.split_once(" - ")?;
        let v2 = match right.split(' ').next()? {
            "cgroup2" => true,
            "cgroup" => false,
            _ => return None,
        };
        let point = left.split(' ').nth(4)?.replace("\\040", " ");
        Some(Mount { point, v2 })
    };
    mountinfo.lines().filter_map(mount).collect()
}

fn resolve_in(mounts: &[Mount], path: &str) -> Result<(CgroupId, String), ProcsError> {
    let v2 = mounts.iter().find(|mount| mount.v2).ok_or(ProcsError::NoCgroup2)?;
    let below = |mount: &Mount| {
        path.strip_prefix(mount.point.as_str()).filter(|rest| rest.is_empty() || rest.starts_with('/'))
    };
    let relative = match below(v2) {
        Some(rest) => rest,
        None if mounts.iter().any(|mount| !mount.v2 && below(mount).is_some()) => {
            return Err(ProcsError::CgroupV1 { path: path.to_owned(), mount: v2.point.clone() });
        }
        None => path,
    };
    let relative = relative.trim_matches('/');
    let looked_at = format!("{}/{relative}", v2.point.trim_end_matches('/'));
    match open_below(v2, relative).and_then(fs::fstat) {
        Ok(stat) => Ok((CgroupId(stat.st_ino), format!("/{relative}"))),
        Err(rustix::io::Errno::ACCESS | rustix::io::Errno::PERM) => {
            Err(ProcsError::Read { path: looked_at, source: std::io::ErrorKind::PermissionDenied.into() })
        }
        Err(_) => Err(ProcsError::NoSuchCgroup { path: path.to_owned(), looked_at }),
    }
}

/// Opens the directory of a cgroup, which no link leads out of its hierarchy.
fn open_below(mount: &Mount, relative: &str) -> rustix::io::Result<OwnedFd> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let root = fs::open(mount.point.as_str(), flags, Mode::empty())?;
    let name = if relative.is_empty() { "." } else { relative };
    let stay = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_XDEV;
    fs::openat2(&root, name, flags, Mode::empty(), stay)
}

/// The directory of the cgroup with this path in the v2 hierarchy.
pub(super) fn directory(path: &str) -> Option<OwnedFd> {
    let text = std::fs::read("/proc/self/mountinfo").ok()?;
    let mounts = mounts(&String::from_utf8_lossy(&text));
    open_below(mounts.iter().find(|mount| mount.v2)?, path.trim_matches('/')).ok()
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::MetadataExt;

    use super::*;

    #[test]
    fn the_v2_line_wins_and_v1_is_the_fallback() {
        assert_eq!(path_in("4:memory:/a\n0::/b/c:d\n"), "/b/c:d");
        assert_eq!(path_in("9:name=systemd:/\n4:memory:/a\n"), "/a");
        assert_eq!(path_in("4:memory:/\n"), "/");
        assert_eq!(path_in(""), "");
    }

    #[test]
    fn mounts_of_both_versions_are_told_apart() {
        let text = "35 31 0:32 / /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory\n\
                    41 31 0:38 / /sys/fs/cgroup/uni\\040fied rw,relatime shared:9 - cgroup2 cgroup2 rw\n\
                    31 23 0:28 / /sys/fs/cgroup rw - tmpfs tmpfs rw\n";
        let mount = |point: &str, v2| Mount { point: point.to_owned(), v2 };
        assert_eq!(
            mounts(text),
            [mount("/sys/fs/cgroup/memory", false), mount("/sys/fs/cgroup/uni fied", true)]
        );
    }

    /// A plain directory tree stands in for the mount: only names and inodes matter here.
    #[test]
    fn a_path_resolves_in_each_of_its_forms() {
        let dir = tempfile::tempdir().unwrap();
        let point = dir.path().join("unified").to_str().unwrap().to_owned();
        std::fs::create_dir_all(format!("{point}/a/b")).unwrap();
        let v1 = dir.path().join("memory").to_str().unwrap().to_owned();
        let mounts = [Mount { point: v1.clone(), v2: false }, Mount { point: point.clone(), v2: true }];
        let inode = std::fs::metadata(format!("{point}/a/b")).unwrap().ino();
        for form in ["a/b", "/a/b", "/a/b/", &format!("{point}/a/b")] {
            assert_eq!(resolve_in(&mounts, form).unwrap(), (CgroupId(inode), "/a/b".to_owned()), "{form}");
        }
        let error = |path: &str| resolve_in(&mounts, path).unwrap_err();
        assert!(matches!(error(&format!("{v1}/a")), ProcsError::CgroupV1 { .. }));
        assert!(matches!(error("/nope"), ProcsError::NoSuchCgroup { .. }));
        assert!(matches!(error("../memory"), ProcsError::NoSuchCgroup { .. }));
        std::os::unix::fs::symlink("/", format!("{point}/out")).unwrap();
        assert!(matches!(error("out/tmp"), ProcsError::NoSuchCgroup { .. }));
        assert!(matches!(resolve_in(&mounts[..1], "/a"), Err(ProcsError::NoCgroup2)));
    }
}
