//! Separate debug information: by build id, then by debug link; in directories an administrator owns
//! first, then where the process itself would look.

use std::fs::File;
use std::io::Read;
use std::os::fd::OwnedFd;
use std::path::{Component, Path, PathBuf};
use std::sync::Arc;

use rustix::fs::{self, FileType, Mode, OFlags};

use crate::procs::{CompressedSection, ElfInfo, ObjectFile};

/// Largest file of an administrator whose checksum is compared with a debug link's.
const MAX_CHECKED: u64 = 1 << 30;
/// Largest file of somebody else: reading it must not hold up others. By build id larger ones serve.
const MAX_CHECKED_OF_OTHERS: u64 = 16 << 20;

/// A file with debug information.
pub(super) struct DebugFile {
    pub file: ObjectFile,
    /// It lies where an administrator put it: links in it may be followed.
    pub trusted: bool,
}

/// Opens a path the way a process would, inside of its root.
pub(super) type OpenInRoot<'a> = &'a dyn Fn(&Path) -> Option<OwnedFd>;

/// The file with the debug information of a binary, if there is one. Its serial is `serial`.
pub(super) fn find(
    binary: &ObjectFile,
    debug_dirs: &[PathBuf],
    in_root: OpenInRoot<'_>,
    serial: u64,
) -> Option<DebugFile> {
    let elf = binary.elf()?;
    let open = |fd| ObjectFile::new(fd, Arc::clone(binary.path()), serial).ok();
    let ours = by_build_id(elf, debug_dirs, &open_regular)
        .or_else(|| by_link(elf, &in_debug_dirs(binary, debug_dirs), &open_regular, MAX_CHECKED));
    if let Some(file) = ours.and_then(open) {
        return Some(DebugFile { file, trusted: true });
    }
    // Beside the binary, or from a package installed in a container. Whoever owns that place owns
    // the binary too, so what is found there is trusted no more than the binary is.
    let is_its = |file: &ObjectFile| file.elf().is_some_and(|found| found.build_id == elf.build_id);
    let mut places = beside(binary);
    places.extend(in_debug_dirs(binary, debug_dirs));
    by_build_id(elf, debug_dirs, in_root)
        .and_then(open)
        .filter(is_its)
        .or_else(|| by_link(elf, &places, in_root, MAX_CHECKED_OF_OTHERS).and_then(open))
        .map(|file| DebugFile { file, trusted: false })
}

/// `DIR/.build-id/ab/cdef....debug` (GDB manual, "Separate Debug Files").
fn by_build_id(elf: &ElfInfo, debug_dirs: &[PathBuf], open: OpenInRoot<'_>) -> Option<OwnedFd> {
    let (first, rest) = elf.build_id.as_deref()?.split_at_checked(2).filter(|(_, rest)| !rest.is_empty())?;
    let name = format!(".build-id/{first}/{rest}.debug");
    debug_dirs.iter().find_map(|dir| open(&dir.join(&name)))
}

/// The file a debug link names, in the first of these directories that has it with the link's checksum.
fn by_link(elf: &ElfInfo, places: &[PathBuf], open: OpenInRoot<'_>, max_bytes: u64) -> Option<OwnedFd> {
    let (name, crc) = elf.debug_link.as_ref()?;
    // The link is part of somebody else's file: it must be one plain name.
    let name = Path::new(name);
    if !is_plain(name) || name.components().count() != 1 {
        return None;
    }
    places.iter().find_map(|place| {
        let fd = open(&place.join(name))?;
        (checksum(&fd, max_bytes)? == *crc).then_some(fd)
    })
}

/// The binary's own directory and its `.debug`.
fn beside(binary: &ObjectFile) -> Vec<PathBuf> {
    let Some(folder) = folder(binary) else { return Vec::new() };
    let folder = Path::new("/").join(folder);
    vec![folder.clone(), folder.join(".debug")]
}

/// The binary's directory below each directory for debug files.
fn in_debug_dirs(binary: &ObjectFile, debug_dirs: &[PathBuf]) -> Vec<PathBuf> {
    let folder = folder(binary);
    debug_dirs.iter().filter_map(|dir| Some(dir.join(folder?))).collect()
}

/// The binary's directory without the first slash, if each part of it is a plain name.
fn folder(binary: &ObjectFile) -> Option<&Path> {
    let folder = Path::new(&**binary.path()).parent()?.strip_prefix("/").ok()?;
    is_plain(folder).then_some(folder)
}

fn is_plain(path: &Path) -> bool {
    path.components().all(|part| matches!(part, Component::Normal(_)))
}

/// Opens a regular file of the host.
pub(super) fn open_regular(path: &Path) -> Option<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
    let fd = fs::open(path, flags, Mode::empty()).ok()?;
    let stat = fs::fstat(&fd).ok()?;
    (FileType::from_raw_mode(stat.st_mode) == FileType::RegularFile).then_some(fd)
}

/// CRC-32 of the whole file, as `.gnu_debuglink` has it.
fn checksum(fd: &OwnedFd, max_bytes: u64) -> Option<u32> {
    let mut file = File::from(fd.try_clone().ok()?);
    if file.metadata().ok()?.len() > max_bytes {
        return None;
    }
    let mut crc = flate2::Crc::new();
    let mut buffer = vec![0; 256 << 10];
    loop {
        match file.read(&mut buffer).ok()? {
            0 => return Some(crc.sum()),
            count => crc.update(buffer.get(..count)?),
        }
    }
}

/// Whether each compressed section is as large as its header says, so that decompressing it in
/// memory is safe. Only zlib can be checked here; anything else counts as not safe.
pub(super) fn compression_is_honest(file: &ObjectFile, sections: &[CompressedSection], limit: u64) -> bool {
    let claimed = sections.iter().fold(0, |sum: u64, section| sum.saturating_add(section.claimed));
    claimed <= limit
        && sections
            .iter()
            .all(|section| section.zlib && decompressed_size(file, section) == Some(section.claimed))
}

fn decompressed_size(file: &ObjectFile, section: &CompressedSection) -> Option<u64> {
    let input = FileSlice { file, at: section.offset, end: section.offset.checked_add(section.size)? };
    let decoder = flate2::read::ZlibDecoder::new(input);
    // One byte more than claimed shows a larger one.
    std::io::copy(&mut decoder.take(section.claimed.checked_add(1)?), &mut std::io::sink()).ok()
}

/// Part of a file, read without moving its cursor.
struct FileSlice<'a> {
    file: &'a ObjectFile,
    at: u64,
    end: u64,
}

impl Read for FileSlice<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        let room = usize::try_from(self.end.saturating_sub(self.at)).unwrap_or(usize::MAX).min(buffer.len());
        let count = rustix::io::pread(self.file, buffer.get_mut(..room).unwrap_or_default(), self.at)?;
        self.at += count as u64;
        Ok(count)
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    fn object(path: &Path) -> ObjectFile {
        ObjectFile::new(File::open(path).unwrap().into(), path.to_str().unwrap().into(), 1).unwrap()
    }

    #[test]
    fn a_link_must_be_one_plain_name() {
        let dir = tempfile::tempdir().unwrap();
        let debug_dir = dir.path().join("debug");
        let binary = dir.path().join("bin/program");
        let beside = debug_dir.join(binary.parent().unwrap().strip_prefix("/").unwrap());
        std::fs::create_dir_all(binary.parent().unwrap()).unwrap();
        std::fs::create_dir_all(&beside).unwrap();
        std::fs::write(&binary, "x").unwrap();
        std::fs::write(beside.join("program.debug"), "debug information").unwrap();
        let mut crc = flate2::Crc::new();
        crc.update(b"debug information");

        let dirs = [debug_dir];
        let found = |name: &str, crc: u32| {
            let elf = ElfInfo { debug_link: Some((name.to_owned(), crc)), ..ElfInfo::default() };
            by_link(&elf, &in_debug_dirs(&object(&binary), &dirs), &open_regular, 1 << 20).is_some()
        };
        assert!(found("program.debug", crc.sum()));
        assert!(!found("program.debug", crc.sum() ^ 1));
        std::fs::create_dir(beside.join("sub")).unwrap();
        std::fs::write(beside.join("sub/program.debug"), "debug information").unwrap();
        assert!(!found("sub/program.debug", crc.sum()));
        assert!(!found("sub/../program.debug", crc.sum()));
        assert!(!found(beside.join("program.debug").to_str().unwrap(), crc.sum()));
        assert!(!found("", crc.sum()));
    }

    #[test]
    fn a_decompression_bomb_is_seen() {
        let mut encoder = flate2::write::ZlibEncoder::new(Vec::new(), flate2::Compression::best());
        encoder.write_all(&vec![0; 1 << 20]).unwrap();
        let bytes = encoder.finish().unwrap();
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a");
        std::fs::write(&path, &bytes).unwrap();
        let honest = |claimed, limit| {
            let section = CompressedSection { offset: 0, size: bytes.len() as u64, claimed, zlib: true };
            compression_is_honest(&object(&path), &[section], limit)
        };
        assert!(honest(1 << 20, 1 << 30));
        assert!(!honest(1 << 20, 1 << 10));
        assert!(!honest(1000, 1 << 30));
        assert!(!honest(2 << 20, 1 << 30));
    }
}
