//! Generates the messages that the store writes to disk, as the daemon's own build does.

use std::error::Error;

const PROTO: &str = "../../profiler-daemon/proto/internal";

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo::rerun-if-changed={PROTO}");
    let messages = protox::compile(["window.proto"], [PROTO])?;
    prost_build::Config::new().compile_fds(messages)?;
    Ok(())
}
