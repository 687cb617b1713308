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
    hash_of(workspace, &SOURCES)
}

/// The same of other files, and directories with all below them.
///
/// # Errors
///
/// As of [`source_hash`].
pub(crate) fn hash_of(workspace: &Path, sources: &[&str]) -> io::Result<String> {
    let mut files = Vec::new();
    for source in sources {
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

#[cfg(test)]
mod tests {
    use super::*;

    fn workspace() -> tempfile::TempDir {
        let workspace = tempfile::tempdir().expect("a directory");
        for source in SOURCES {
            let mut file = workspace.path().join(source);
            if file.extension().is_none() {
                file.push("inner/a.rs");
            }
            fs::create_dir_all(file.parent().expect("a parent")).expect("a directory");
            fs::write(file, "a").expect("a file");
        }
        workspace
    }

    fn hash_after(change: impl FnOnce(&Path)) -> String {
        let workspace = workspace();
        change(&workspace.path().join("profiler-ebpf/src"));
        source_hash(workspace.path()).expect("a hash")
    }

    #[test]
    fn the_hash_is_that_of_names_and_content_wherever_the_workspace_is() {
        let unchanged = hash_after(|_| ());
        assert_eq!(unchanged.len(), 64);
        assert_eq!(unchanged, hash_after(|_| ()));
        assert_eq!(unchanged, hash_after(|src| fs::write(src.join(".a.rs.swp"), "x").expect("a file")));

        let changes = [
            hash_after(|src| fs::write(src.join("inner/a.rs"), "b").expect("a file")),
            hash_after(|src| fs::write(src.join("inner/b.rs"), "").expect("a file")),
            hash_after(|src| fs::rename(src.join("inner/a.rs"), src.join("inner/b.rs")).expect("a file")),
            hash_after(|src| fs::rename(src.join("inner/a.rs"), src.join("a.rs")).expect("a file")),
        ];
        for (at, change) in changes.iter().enumerate() {
            assert_ne!(*change, unchanged);
            assert!(!changes[..at].contains(change));
        }
    }

    #[test]
    fn a_source_that_is_missing_is_named() {
        let workspace = workspace();
        fs::remove_file(workspace.path().join("profiler-common/Cargo.toml")).expect("it is there");
        let error = source_hash(workspace.path()).expect_err("a file is missing");
        assert!(error.to_string().contains("profiler-common/Cargo.toml"), "{error}");
    }
}
