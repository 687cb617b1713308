//! The hash of the sources of the eBPF object: `xtask` writes it, `profiler-daemon/build.rs` (which includes this file) checks it.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::{fs, io};

use sha2::{Digest as _, Sha256};

/// What the object is made of, relative to the workspace: files, and directories with all below them.
pub(crate) const SOURCES: [&str; 4] =
    ["profiler-common/Cargo.toml", "profiler-common/src", "profiler-ebpf/Cargo.toml", "profiler-ebpf/src"];

/// The checked-in object, relative to the workspace.
pub(crate) const OBJECT: &str = "profiler-ebpf/prebuilt/profiler.bpf.o";

/// [`source_hash`] of the sources that [`OBJECT`] was built from, as one line of hex digits.
pub(crate) const OBJECT_HASH: &str = "profiler-ebpf/prebuilt/profiler.bpf.o.sources.sha256";

/// SHA-256 over the names and the content of [`SOURCES`], as 64 hex digits.
///
/// Files are taken in the order of their names relative to the workspace, so that neither the
/// place of the workspace nor the order of its directories matters. Names that start with a dot
/// (editors' swap files) are left out.
///
/// # Errors
///
/// When a source is missing or cannot be read; the message names it.
pub(crate) fn source_hash(workspace: &Path) -> io::Result<String> {
    let mut files = Vec::new();
    for source in SOURCES {
        collect(workspace, Path::new(source), &mut files)?;
    }
    files.sort();

    let mut hash = Sha256::new();
    for file in files {
        let content = fs::read(workspace.join(&file)).map_err(|e| named(&file, &e))?;
        hash.update(file.as_os_str().as_encoded_bytes());
        // The lengths keep what belongs to one file from passing for a part of the next.
        hash.update([0]);
        hash.update((content.len() as u64).to_le_bytes());
        hash.update(content);
    }
    Ok(hash.finalize().iter().fold(String::with_capacity(64), |mut hex, byte| {
        let _ = write!(hex, "{byte:02x}");
        hex
    }))
}

fn collect(workspace: &Path, path: &Path, files: &mut Vec<PathBuf>) -> io::Result<()> {
    if !workspace.join(path).is_dir() {
        files.push(path.to_path_buf());
        return Ok(());
    }
    for entry in fs::read_dir(workspace.join(path)).map_err(|e| named(path, &e))? {
        let name = entry.map_err(|e| named(path, &e))?.file_name();
        if !name.as_encoded_bytes().starts_with(b".") {
            collect(workspace, &path.join(name), files)?;
        }
    }
    Ok(())
}

fn named(path: &Path, error: &io::Error) -> io::Error {
    io::Error::new(error.kind(), format!("{}: {error}", path.display()))
}
