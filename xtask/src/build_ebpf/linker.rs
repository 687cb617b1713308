//! Finds or installs `bpf-linker`, and makes it load the LLVM of the chosen compiler.

use std::fs;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result};

use crate::run::{all_on_path, cargo, output, run};

/// The version that is installed, and the oldest that is used.
const VERSION: (u32, u32, u32) = (0, 10, 3);

/// A linker for this LLVM: a script in `directory` that starts `bpf-linker` with that LLVM alone in sight.
///
/// `bpf-linker` loads the first file named `libLLVM*` in `LD_LIBRARY_PATH` and then beside the
/// directories of `PATH`, which on a machine with several LLVMs may well be another one.
///
/// # Errors
///
/// When it cannot be installed, or the files cannot be written.
pub(crate) fn prepare(workspace: &Path, directory: &Path, llvm: &Path) -> Result<PathBuf> {
    let linker = find_or_install(&workspace.join("target/tools"))?;
    let libraries = directory.join("llvm");
    fs::create_dir_all(&libraries)?;
    let link = libraries.join("libLLVM.so");
    match fs::remove_file(&link) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(error.into()),
        _ => symlink(llvm, &link)?,
    }
    let script = directory.join("bpf-linker");
    let text = format!(
        "#!/bin/sh\nLD_LIBRARY_PATH={} exec {} \"$@\"\n",
        shell_word(&libraries)?,
        shell_word(&linker)?
    );
    fs::write(&script, text)?;
    fs::set_permissions(&script, fs::Permissions::from_mode(0o755))?;
    Ok(script)
}

fn find_or_install(tools: &Path) -> Result<PathBuf> {
    let ours = tools.join("bin/bpf-linker");
    let candidates = [ours.clone()].into_iter().chain(all_on_path("bpf-linker"));
    for candidate in candidates {
        let version = output(Command::new(&candidate).arg("--version"));
        if version.and_then(|version| parse_version(&version)) >= Some(VERSION) {
            return Ok(candidate);
        }
    }
    let (major, minor, patch) = VERSION;
    run(cargo()
        .args([
            "install",
            "bpf-linker",
            "--locked",
            "--version",
            &format!("{major}.{minor}.{patch}"),
            "--root",
        ])
        .arg(tools))
    .context("cannot install bpf-linker")?;
    Ok(ours)
}

/// The numbers of `bpf-linker 0.10.3`.
fn parse_version(output: &str) -> Option<(u32, u32, u32)> {
    let mut numbers = output.split_whitespace().nth(1)?.splitn(3, '.');
    Some((numbers.next()?.parse().ok()?, numbers.next()?.parse().ok()?, numbers.next()?.parse().ok()?))
}

fn shell_word(path: &Path) -> Result<String> {
    let path = path.to_str().with_context(|| format!("{} is not UTF-8", path.display()))?;
    Ok(format!("'{}'", path.replace('\'', r"'\''")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_compared_as_numbers() {
        assert_eq!(parse_version("bpf-linker 0.10.3"), Some(VERSION));
        assert!(parse_version("bpf-linker 0.9.15") < Some(VERSION));
        assert!(parse_version("bpf-linker 0.11.0") > Some(VERSION));
        assert!(parse_version("") < Some(VERSION));
    }

    #[test]
    fn a_path_survives_the_shell() {
        let word = shell_word(Path::new("/a b/it's")).expect("UTF-8");
        let echoed = output(Command::new("sh").arg("-c").arg(format!("printf %s {word}")));
        assert_eq!(echoed.as_deref(), Some("/a b/it's"));
    }
}
