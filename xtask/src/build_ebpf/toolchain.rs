//! Finds a compiler that can build `core` for the kernel, or installs one.

use std::env;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, bail, ensure};

use crate::packages;
use crate::run::{all_on_path, is_root, on_path, output};

/// Names the rustc to use, whatever else there is.
const RUSTC_OVERRIDE: &str = "PROFILER_EBPF_RUSTC";

/// Oldest rustc that builds the workspace (`rust-version` in Cargo.toml).
const OLDEST: (u32, u32) = (1, 95);

/// Debian's compiler with the source of its library.
const DEBIAN_PACKAGES: [&str; 2] = ["rustc-web", "rust-web-src"];

/// A compiler with the source of its library, and what goes with it.
#[derive(Debug)]
pub(crate) struct Toolchain {
    /// The compiler itself, not rustup's stand-in for it.
    pub(crate) rustc: PathBuf,
    /// A cargo of the same release where there is one: it knows the layout of the library's source.
    pub(crate) cargo: PathBuf,
    /// Source of the library: `SYSROOT/lib/rustlib/src/rust`.
    pub(crate) library: PathBuf,
    /// The LLVM this compiler runs on. `bpf-linker` must read the bitcode with the same.
    pub(crate) llvm: PathBuf,
    /// What `rustc --version` says.
    pub(crate) version: String,
}

/// Finds a toolchain: the one asked for, else rustup's nightly, else any, else Debian's, installed now.
///
/// # Errors
///
/// When there is none; the message lists what was tried, and the commands that help.
pub(crate) fn find() -> Result<Toolchain> {
    if let Some(rustc) = env::var_os(RUSTC_OVERRIDE) {
        return examine(Path::new(&rustc)).with_context(|| format!("{RUSTC_OVERRIDE} cannot be used"));
    }
    let mut refused = Vec::new();
    if let Some(toolchain) = first_usable(&mut refused) {
        return Ok(toolchain);
    }
    if on_path("apt-get").is_some() && is_root() {
        packages::install(&DEBIAN_PACKAGES)?;
        return examine(Path::new("/usr/bin/rustc"));
    }
    bail!(
        "no rustc with the source of its library was found\n{}\
         either: rustup toolchain install nightly --component rust-src\n\
         or, as root on Debian: apt-get update && apt-get install --no-install-recommends {}",
        refused.iter().map(|why| format!("  {why}\n")).collect::<String>(),
        DEBIAN_PACKAGES.join(" ")
    )
}

fn first_usable(refused: &mut Vec<String>) -> Option<Toolchain> {
    let nightly = output(Command::new("rustup").env("RUSTUP_AUTO_INSTALL", "0").args([
        "which",
        "--toolchain",
        "nightly",
        "rustc",
    ]))
    .map(PathBuf::from);
    let mut candidates: Vec<PathBuf> = nightly.into_iter().chain(all_on_path("rustc")).collect();
    candidates.push("/usr/bin/rustc".into());
    for rustc in candidates {
        match examine(&rustc) {
            Ok(toolchain) => return Some(toolchain),
            Err(error) => {
                let why = format!("{error:#}");
                if !refused.contains(&why) {
                    refused.push(why);
                }
            }
        }
    }
    None
}

/// The toolchain of a rustc (or of rustup's stand-in for it), if the eBPF object can be built with it.
fn examine(rustc: &Path) -> Result<Toolchain> {
    let sysroot = output(Command::new(rustc).args(["--print", "sysroot"]))
        .with_context(|| format!("{} does not run", rustc.display()))?;
    let sysroot = PathBuf::from(sysroot);
    let rustc = sysroot.join("bin/rustc");
    let version = output(Command::new(&rustc).arg("--version"))
        .with_context(|| format!("{} does not run", rustc.display()))?;
    ensure!(
        release(&version) >= Some(OLDEST),
        "{} is older than {}.{}: {version}",
        rustc.display(),
        OLDEST.0,
        OLDEST.1
    );
    let library = sysroot.join("lib/rustlib/src/rust");
    ensure!(
        library.join("library/core/Cargo.toml").is_file(),
        "{} has no library source (component rust-src)",
        rustc.display()
    );
    let llvm = llvm_of(&rustc)?;
    let cargo = cargo_for(&rustc, &version);
    Ok(Toolchain { rustc, cargo, library, llvm, version })
}

/// The cargo beside the compiler if it is of the same release, else the one that runs us.
fn cargo_for(rustc: &Path, version: &str) -> PathBuf {
    let beside = rustc.with_file_name("cargo");
    let same_release = output(Command::new(&beside).arg("--version"))
        .is_some_and(|cargo| release(&cargo).is_some() && release(&cargo) == release(version));
    if same_release { beside } else { env::var_os("CARGO").unwrap_or_else(|| "cargo".into()).into() }
}

/// The shared library of LLVM that the loader gives to this compiler.
fn llvm_of(rustc: &Path) -> Result<PathBuf> {
    // As ldd does: with this variable set, the loader lists the libraries and does not start the program.
    let libraries =
        output(Command::new(rustc).env("LD_TRACE_LOADED_OBJECTS", "1").env_remove("LD_LIBRARY_PATH"))
            .unwrap_or_default();
    parse_llvm(&libraries).map(PathBuf::from).with_context(|| {
        format!("{} has LLVM inside and not as a shared library, which bpf-linker needs", rustc.display())
    })
}

/// `LIBRARY => PATH (ADDRESS)` of the library whose name starts with `libLLVM`.
fn parse_llvm(libraries: &str) -> Option<&str> {
    libraries.lines().find_map(|line| {
        let (name, rest) = line.trim().split_once(" => ")?;
        let (path, _address) = rest.rsplit_once(" (")?;
        name.starts_with("libLLVM").then_some(path)
    })
}

/// Major and minor of `rustc 1.96.0 (...)` or `cargo 1.96.0 (...)`.
fn release(version: &str) -> Option<(u32, u32)> {
    let mut numbers = version.split_whitespace().nth(1)?.split('.');
    Some((numbers.next()?.parse().ok()?, numbers.next()?.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn releases_are_compared_as_numbers() {
        assert_eq!(release("rustc 1.96.0 (ac68faa20 2026-05-25)"), Some((1, 96)));
        assert_eq!(release("cargo 1.100.0-nightly"), Some((1, 100)));
        assert!(release("rustc 1.63.0") < Some(OLDEST));
        assert!(release("rustc 1.100.0") > Some(OLDEST));
        assert_eq!(release("rustc"), None);
    }

    #[test]
    fn llvm_is_found_in_the_loaders_list() {
        let list = "\tlinux-vdso.so.1 (0x00007fa4ebb1b000)\n\
                    \tlibrustc_driver-ea0e99b3.so => /lib/librustc_driver-ea0e99b3.so (0x00007fa4e6000000)\n\
                    \tlibLLVM.so.22.1 => /opt/my rust/libLLVM.so.22.1 (0x00007fa4dce00000)\n";
        assert_eq!(parse_llvm(list), Some("/opt/my rust/libLLVM.so.22.1"));
        assert_eq!(parse_llvm("\tlibc.so.6 => /lib/libc.so.6 (0x1)\n"), None);
        assert_eq!(parse_llvm("\tlibLLVM.so.22.1 => not found\n"), None);
    }
}
