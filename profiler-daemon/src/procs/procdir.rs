//! A handle on one life of a process: its `/proc/PID` directory, held open.
//!
//! A descriptor of `/proc/PID` belongs to that process alone: once it has exited, reads through
//! the descriptor fail with ESRCH even if the pid is in use again (fs/proc/base.c looks tasks up
//! by `struct pid`, which is never reused). So checking the start time once, through the
//! descriptor, is enough for all later reads.

use std::fs::File;
use std::io::{self, Read};
use std::os::fd::{AsFd, OwnedFd};

use rustix::fs::{self, Mode, OFlags, ResolveFlags};

use crate::model::{Pid, ProcessId};

use super::ProcsError;

/// `/proc/PID` of one process.
#[derive(Debug)]
pub(super) struct ProcDir {
    fd: OwnedFd,
    pid: Pid,
}

/// Bytes of a small file in `/proc` that are read at most.
pub(super) const SMALL: u64 = 64 * 1024;

impl ProcDir {
    /// Opens the directory of whatever process has this pid now.
    pub(super) fn open(pid: Pid) -> Result<Self, ProcsError> {
        let path = format!("/proc/{pid}");
        match fs::open(path.as_str(), OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty()) {
            Ok(fd) => Ok(Self { fd, pid }),
            Err(rustix::io::Errno::NOENT | rustix::io::Errno::SRCH) => Err(ProcsError::NoSuchProcess { pid }),
            Err(error) => Err(ProcsError::Read { path, source: error.into() }),
        }
    }

    /// Opens our own directory.
    pub(super) fn own() -> Result<Self, ProcsError> {
        Self::open(Pid(std::process::id()))
    }

    /// Opens the directory of exactly this process.
    pub(super) fn open_exact(id: ProcessId) -> Result<Self, ProcsError> {
        let dir = Self::open(id.pid)?;
        if dir.start_ticks()? == id.start_ticks {
            Ok(dir)
        } else {
            Err(ProcsError::NoSuchProcess { pid: id.pid })
        }
    }

    /// The pid it was opened by.
    pub(super) fn pid(&self) -> Pid {
        self.pid
    }

    /// Field 22 of `stat`.
    pub(super) fn start_ticks(&self) -> Result<u64, ProcsError> {
        let stat = self.read("stat", SMALL)?;
        start_ticks(&stat).ok_or_else(|| ProcsError::Malformed { path: self.path("stat") })
    }

    /// Reads a file of the directory, at most `limit` bytes of it.
    pub(super) fn read(&self, name: &str, limit: u64) -> Result<Vec<u8>, ProcsError> {
        let open = || -> io::Result<Vec<u8>> {
            let fd = fs::openat(&self.fd, name, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())?;
            let mut bytes = Vec::new();
            File::from(fd).take(limit).read_to_end(&mut bytes)?;
            Ok(bytes)
        };
        open().map_err(|error| self.error(name, error))
    }

    /// Target of a link of the directory, as raw bytes.
    pub(super) fn read_link(&self, name: &str) -> Result<Vec<u8>, ProcsError> {
        fs::readlinkat(&self.fd, name, Vec::new())
            .map(std::ffi::CString::into_bytes)
            .map_err(|error| self.error(name, error.into()))
    }

    /// Device and inode of what a link of the directory leads to. A server of files is not asked: one
    /// that hangs must not hang us.
    pub(super) fn stat(&self, name: &str) -> Option<(u64, u64)> {
        let stat = fs::statx(&self.fd, name, fs::AtFlags::STATX_DONT_SYNC, fs::StatxFlags::INO).ok()?;
        Some((fs::makedev(stat.stx_dev_major, stat.stx_dev_minor), stat.stx_ino))
    }

    /// Opens what a magic link of the directory (`exe`, `map_files/...`) leads to, if that is a
    /// regular file. Opening goes through O_PATH first, so that no device or FIFO is ever opened.
    pub(super) fn open_link(&self, name: &str) -> Option<OwnedFd> {
        let handle = fs::openat(&self.fd, name, OFlags::PATH | OFlags::CLOEXEC, Mode::empty()).ok()?;
        reopen_regular(&handle)
    }

    /// Opens a regular file by the path the process itself would use, without leaving its root.
    pub(super) fn open_in_root(&self, path: &[u8], follow_last: bool) -> Option<OwnedFd> {
        let root =
            fs::openat(&self.fd, "root", OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())
                .ok()?;
        let last = if follow_last { OFlags::empty() } else { OFlags::NOFOLLOW };
        open_regular_below(&root, path, last)
    }

    fn path(&self, name: &str) -> String {
        format!("/proc/{}/{name}", self.pid)
    }

    fn error(&self, name: &str, source: io::Error) -> ProcsError {
        // ENOENT: the directory is gone; ESRCH: the process went while the file was open.
        let gone = [libc::ENOENT, libc::ESRCH].into_iter().any(|code| source.raw_os_error() == Some(code));
        if gone {
            ProcsError::NoSuchProcess { pid: self.pid }
        } else {
            ProcsError::Read { path: self.path(name), source }
        }
    }
}

/// Opens a regular file by its path below a root directory, which no link leads out of.
pub(super) fn open_regular_below(root: impl AsFd, path: &[u8], flags: OFlags) -> Option<OwnedFd> {
    let stay = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
    let handle = fs::openat2(root, path, OFlags::PATH | OFlags::CLOEXEC | flags, Mode::empty(), stay).ok()?;
    reopen_regular(&handle)
}

/// Opens an O_PATH handle for reading if it is a regular file.
pub(super) fn reopen_regular(handle: &OwnedFd) -> Option<OwnedFd> {
    use std::os::fd::AsRawFd;

    let stat = fs::fstat(handle.as_fd()).ok()?;
    if fs::FileType::from_raw_mode(stat.st_mode) != fs::FileType::RegularFile {
        return None;
    }
    let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
    fs::open(format!("/proc/self/fd/{}", handle.as_raw_fd()), flags, Mode::empty()).ok()
}

/// Field 22 of a `stat` file. The name in field 2 may hold anything, also `)`: fields are counted
/// from the last one (proc(5)).
pub(super) fn start_ticks(stat: &[u8]) -> Option<u64> {
    let after_name = stat.iter().rposition(|&byte| byte == b')')? + 1;
    let text = std::str::from_utf8(stat.get(after_name..)?).ok()?;
    text.split_ascii_whitespace().nth(19)?.parse().ok()
}

/// The value of a `Name:` line of a `status` file.
pub(super) fn status_value<'a>(status: &'a [u8], name: &str) -> Option<&'a str> {
    status.split(|&byte| byte == b'\n').find_map(|line| {
        let value = line.strip_prefix(name.as_bytes())?.strip_prefix(b":")?;
        std::str::from_utf8(value).ok().map(str::trim)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_with_a_parenthesis_does_not_shift_the_fields() {
        let stat =
            b"7 (x) R 1) S 1 7 7 0 -1 4194304 1 0 0 0 0 0 0 0 20 0 1 0 4711 1000 1 18446744073709551615";
        assert_eq!(start_ticks(stat), Some(4711));
        assert_eq!(start_ticks(b"7 (x"), None);
        assert_eq!(start_ticks(b""), None);
    }

    #[test]
    fn a_handle_of_an_exited_process_reads_nothing() {
        let mut child = std::process::Command::new("sleep").arg("60").spawn().unwrap();
        let dir = ProcDir::open(Pid(child.id())).unwrap();
        assert!(dir.start_ticks().is_ok());
        child.kill().unwrap();
        child.wait().unwrap();
        assert!(dir.start_ticks().is_err());
        assert!(matches!(dir.read("maps", SMALL), Err(ProcsError::NoSuchProcess { .. })));
    }

    #[test]
    fn what_is_no_regular_file_is_not_opened() {
        let me = ProcDir::open(Pid(std::process::id())).unwrap();
        assert!(me.open_link("exe").is_some());
        assert!(me.open_in_root(b"/dev/null", true).is_none());
        assert!(me.open_in_root(b"/proc/self/exe", true).is_none(), "magic links lead out of the root");
    }
}
