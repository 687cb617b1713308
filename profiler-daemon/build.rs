//! Generates the code of `proto/` and embeds the eBPF object.

use std::path::{Path, PathBuf};
use std::{env, fs};

use anyhow::{Context as _, Result, ensure};
use prost::Message as _;

#[path = "../xtask/src/source_hash.rs"]
mod source_hash;

/// Names a file that is embedded in place of the checked-in object: the one a test run has just built.
const OBJECT_OVERRIDE: &str = "PROFILER_EBPF_OBJECT";

/// What unwinding tables are made by, relative to the workspace.
const TABLE_BUILDER: [&str; 3] =
    ["Cargo.lock", "profiler-common/src/unwind.rs", "profiler-daemon/src/unwind"];

fn main() {
    if let Err(error) = run() {
        println!("cargo::error={error:#}");
    }
}

fn run() -> Result<()> {
    let package = PathBuf::from(env::var_os("CARGO_MANIFEST_DIR").context("CARGO_MANIFEST_DIR is not set")?);
    let out = PathBuf::from(env::var_os("OUT_DIR").context("OUT_DIR is not set")?);
    embed_object(&package, &out)?;
    name_table_builder(&package)?;
    generate(&package.join("proto"), &out)
}

/// Puts the eBPF object into `OUT_DIR/profiler.bpf.o`.
fn embed_object(package: &Path, out: &Path) -> Result<()> {
    println!("cargo::rerun-if-env-changed={OBJECT_OVERRIDE}");
    let object = match env::var_os(OBJECT_OVERRIDE) {
        Some(object) => PathBuf::from(object),
        None => checked_in_object(package)?,
    };
    rerun_if_changed(&object);
    fs::copy(&object, out.join("profiler.bpf.o"))
        .with_context(|| format!("cannot embed the eBPF object {}", object.display()))?;
    Ok(())
}

/// Names the builder of unwinding tables by its sources, so that none takes those that another kept
/// on disk for its own.
fn name_table_builder(package: &Path) -> Result<()> {
    let workspace = package.parent().context("the package lies in the workspace")?;
    for path in TABLE_BUILDER {
        rerun_if_changed(&workspace.join(path));
    }
    let hash = source_hash::hash_of(workspace, &TABLE_BUILDER).context("cannot hash the table builder")?;
    println!("cargo::rustc-env=TABLE_BUILDER={hash}");
    Ok(())
}

/// The checked-in object, if it was built from the sources beside it.
fn checked_in_object(package: &Path) -> Result<PathBuf> {
    let workspace = package.parent().context("the package lies in the workspace")?;
    for path in source_hash::SOURCES.iter().chain([&source_hash::OBJECT_HASH]) {
        rerun_if_changed(&workspace.join(path));
    }
    let hash = source_hash::source_hash(workspace).context("cannot hash the eBPF sources")?;
    let built_from = fs::read_to_string(workspace.join(source_hash::OBJECT_HASH)).unwrap_or_default();
    ensure!(
        built_from.trim() == hash,
        "{} was not built from the sources in this tree; run `cargo xtask build-ebpf`",
        source_hash::OBJECT
    );
    Ok(workspace.join(source_hash::OBJECT))
}

/// Generates messages, clients and servers of `profiler.v1`, its descriptors for reflection, and
/// the messages of `third_party` and `internal`.
fn generate(proto: &Path, out: &Path) -> Result<()> {
    rerun_if_changed(proto);
    let descriptors = compile(proto, &proto.join("profiler/v1"))?;
    fs::write(out.join("profiler_descriptor.bin"), descriptors.encode_to_vec())?;
    // The summary of a difference is large beside a piece of text.
    tonic_prost_build::configure()
        .boxed(".profiler.v1.DiffResponse.part.summary")
        .compile_fds(descriptors)
        .context("cannot generate profiler.v1")?;

    for name in ["third_party", "internal"] {
        let directory = proto.join(name);
        tonic_prost_build::Config::new()
            .compile_fds(compile(&directory, &directory)?)
            .with_context(|| format!("cannot generate proto/{name}"))?;
    }
    Ok(())
}

/// Compiles every file of a directory, with their comments and imports.
fn compile(include: &Path, directory: &Path) -> Result<tonic_prost_build::FileDescriptorSet> {
    let mut files = Vec::new();
    for entry in fs::read_dir(directory).with_context(|| format!("cannot read {}", directory.display()))? {
        let path = entry?.path();
        if path.extension().is_some_and(|extension| extension == "proto") {
            files.push(path);
        }
    }
    files.sort();
    protox::compile(files, [include]).map_err(|error| {
        let file = error.file().unwrap_or("the .proto files").to_owned();
        anyhow::Error::new(error).context(format!("cannot compile {file}"))
    })
}

fn rerun_if_changed(path: &Path) {
    println!("cargo::rerun-if-changed={}", path.display());
}
