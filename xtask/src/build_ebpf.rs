//! `cargo xtask build-ebpf`: builds `profiler-ebpf` for the kernel and checks the object in.

mod linker;
mod strip;
mod toolchain;

use std::path::{Path, PathBuf};
use std::process::Command;
use std::{env, fs};

use anyhow::{Context as _, Result, bail, ensure};

use crate::run::{run, workspace};
use crate::source_hash::{OBJECT, OBJECT_HASH, source_hash};
use toolchain::Toolchain;

/// The target the programs are built for.
const TARGET: &str = "bpfel-unknown-none";

/// Codegen of the object. The workspace's release profile is for the daemon.
const PROFILE: [(&str, &str); 6] = [
    ("CARGO_PROFILE_RELEASE_OPT_LEVEL", "3"),
    ("CARGO_PROFILE_RELEASE_LTO", "fat"),
    ("CARGO_PROFILE_RELEASE_PANIC", "abort"),
    ("CARGO_PROFILE_RELEASE_CODEGEN_UNITS", "1"),
    // BTF is made from the debugging information, which is taken out afterwards.
    ("CARGO_PROFILE_RELEASE_DEBUG", "2"),
    ("CARGO_PROFILE_RELEASE_STRIP", "none"),
];

/// Flags of the object. `v3` (32-bit registers and jumps) is known to kernels since 5.1, we start at 5.10.
/// The architecture decides how registers are read.
const FLAGS: [&str; 3] = ["-Clink-arg=--btf", "-Ctarget-cpu=v3", "--cfg=bpf_target_arch=\"x86_64\""];

/// Variables that would change the object, or make cargo take other tools than the ones chosen.
/// What cargo or rustup set for us is among them.
const CLEARED: [&str; 9] = [
    "AYA_BPF_TARGET_ARCH",
    "CARGO_BUILD_",
    "CARGO_INCREMENTAL",
    "CARGO_PROFILE_",
    "CARGO_TARGET_",
    "CARGO_UNSTABLE_",
    "LD_LIBRARY_PATH",
    "RUSTC",
    "RUSTUP_TOOLCHAIN",
];

/// Builds the object from source and writes it and the hash of its sources into the tree.
///
/// # Errors
///
/// When there is no toolchain, the build fails, or the object is not fit to be checked in.
pub(crate) fn write() -> Result<()> {
    let workspace = workspace()?;
    // Before the build: an edit meanwhile must make the object stale.
    let hash = source_hash(&workspace)?;
    let built = build(&workspace)?;
    let (object, object_hash) = (workspace.join(OBJECT), workspace.join(OBJECT_HASH));
    fs::create_dir_all(object.parent().context("the object lies in a directory")?)?;
    // The hash last: without it the object counts as stale.
    replace(&built, &object)?;
    fs::write(&object_hash, format!("{hash}\n"))?;
    eprintln!("wrote {OBJECT} and {OBJECT_HASH}");
    Ok(())
}

/// Rebuilds the object from source into `target/ebpf`, and compares it with the one checked in.
/// Returns its path, and whether the two are the same.
///
/// Other bytes are only a warning: another compiler is expected to give them.
///
/// # Errors
///
/// When the object checked in was built from other sources than those in the tree, or the build fails.
pub(crate) fn check() -> Result<(PathBuf, bool)> {
    let workspace = workspace()?;
    let checked_in = fs::read_to_string(workspace.join(OBJECT_HASH)).unwrap_or_default();
    ensure!(
        checked_in.trim() == source_hash(&workspace)?,
        "{OBJECT} was not built from the sources in this tree; run `cargo xtask build-ebpf`"
    );
    let built = build(&workspace)?;
    let object = workspace.join(OBJECT);
    let same = fs::read(&built)? == fs::read(&object).with_context(|| format!("cannot read {OBJECT}"))?;
    if same {
        eprintln!("{OBJECT} is what its sources build to");
    } else {
        eprintln!("warning: {OBJECT} differs from what this compiler builds from the same sources");
    }
    Ok((built, same))
}

/// Builds and strips the object; returns its path below `target/ebpf`.
fn build(workspace: &Path) -> Result<PathBuf> {
    let toolchain = toolchain::find()?;
    eprintln!("eBPF toolchain: {} ({})", toolchain.rustc.display(), toolchain.version);
    let target = workspace.join("target/ebpf");
    let linker = linker::prepare(workspace, &target.join("linker"), &toolchain.llvm)?;

    // The registry's directories must be there before they can be hidden.
    run(cargo(&toolchain, workspace).args(["fetch", "--locked", "--quiet", "--target", TARGET]))?;
    let hidden = hidden_prefixes(workspace, &toolchain)?;
    run(cargo(&toolchain, workspace)
        .args(["build", "--locked", "--release", "--package=profiler-ebpf", "--target", TARGET])
        .args(["-Z", "build-std=core", "--target-dir"])
        .arg(&target)
        .envs(PROFILE)
        .env("CARGO_TARGET_BPFEL_UNKNOWN_NONE_LINKER", linker)
        .env("CARGO_ENCODED_RUSTFLAGS", rustflags(&hidden)))?;

    let linked = target.join(TARGET).join("release/profiler");
    let linked = fs::read(&linked).with_context(|| format!("cannot read {}", linked.display()))?;
    let object = strip::strip_debug(&linked)?;
    let prefixes: Vec<String> = hidden.into_iter().map(|(prefix, _)| prefix).collect();
    if let Some(path) = strip::find_any(&object, &prefixes) {
        bail!("a path of this machine is in the object: {path}");
    }
    let stripped = target.join("profiler.bpf.o");
    // What embeds it is built anew when the file is touched.
    if !fs::read(&stripped).is_ok_and(|before| before == object) {
        fs::write(&stripped, object).with_context(|| format!("cannot write {}", stripped.display()))?;
    }
    Ok(stripped)
}

/// The toolchain's cargo, with nothing of our own environment that would change the object.
fn cargo(toolchain: &Toolchain, workspace: &Path) -> Command {
    let mut command = Command::new(&toolchain.cargo);
    for (name, _) in env::vars_os() {
        if CLEARED.iter().any(|prefix| name.as_encoded_bytes().starts_with(prefix.as_bytes())) {
            command.env_remove(name);
        }
    }
    // A stable compiler must be told to accept -Z.
    command.current_dir(workspace).env("RUSTC", &toolchain.rustc).env("RUSTC_BOOTSTRAP", "1");
    command
}

/// Directories whose names must not get into the object, and what stands for each.
/// The compiler takes the last prefix that fits, so those inside others come later.
fn hidden_prefixes(workspace: &Path, toolchain: &Toolchain) -> Result<Vec<(String, &'static str)>> {
    let cargo_home = match env::var_os("CARGO_HOME") {
        Some(home) => PathBuf::from(home),
        None => env::home_dir().context("neither CARGO_HOME nor HOME is set")?.join(".cargo"),
    };
    let mut hidden = vec![(cargo_home.clone(), "/cargo"), (workspace.to_path_buf(), "/profiler")];
    // One directory for each registry; its name says which, and not all machines use the same.
    if let Ok(registries) = fs::read_dir(cargo_home.join("registry/src")) {
        for registry in registries {
            hidden.push((registry?.path(), "/crates"));
        }
    }
    hidden.push((toolchain.library.clone(), "/rust"));
    // Debian's is a link.
    hidden.push((fs::canonicalize(&toolchain.library)?, "/rust"));
    hidden
        .into_iter()
        .map(|(path, name)| {
            let path = path.to_str().with_context(|| format!("{} is not UTF-8", path.display()))?;
            Ok((path.to_owned(), name))
        })
        .collect()
}

fn rustflags(hidden: &[(String, &str)]) -> String {
    let remaps = hidden.iter().map(|(path, name)| format!("--remap-path-prefix={path}={name}"));
    FLAGS.into_iter().map(str::to_owned).chain(remaps).collect::<Vec<_>>().join("\x1f")
}

/// Puts a file in place of another in one step.
fn replace(from: &Path, to: &Path) -> Result<()> {
    let next = to.with_extension("next");
    fs::copy(from, &next).with_context(|| format!("cannot write {}", next.display()))?;
    fs::rename(&next, to).with_context(|| format!("cannot write {}", to.display()))
}
