//! An eBPF-based continuous profiler: from ring-buffer bytes to folded stacks over gRPC.
//!
//! Data flows one way, over bounded channels whose overflow is counted:
//! `kernel -> decode -> symbolize (with procs) -> aggregate -> store -> api / render`.
//! `ARCHITECTURE.md` shows the house; `cargo xtask tidy` checks who may import whom.
#![deny(unsafe_code)]

pub mod agent;
pub mod aggregate;
pub mod api;
pub mod bundle;
pub mod capture;
pub mod cli;
pub mod client;
pub mod config;
pub mod decode;
pub mod kernel;
pub mod model;
pub mod procs;
pub mod proto;
pub mod render;
pub mod store;
pub mod symbolize;
pub mod telemetry;
pub mod trigger;
pub mod unwind;
