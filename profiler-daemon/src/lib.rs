//! An eBPF-based continuous profiler: from ring-buffer bytes to folded stacks over gRPC.
//!
//! Data flows one way, over bounded channels whose overflow is counted:
//! `kernel -> decode -> symbolize (with procs) -> aggregate -> store -> api / render`.
//! `ARCHITECTURE.md` shows the house; `cargo xtask tidy` checks who may import whom.
// Only `kernel` talks to the kernel in ways the compiler cannot check; it says so where it does.
#![deny(unsafe_code)]

pub mod model;
pub mod render;
