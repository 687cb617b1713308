//! Harness of the tests that drive the real `profiler` binary: workloads that know their own truth,
//! readers for what the profiler writes, and a client that knows only gRPC reflection.
//!
//! Tests assert ratios against a workload's truth, never absolute times. Those that need root take
//! [`require_root!`]: without root they say that they were skipped, with root they run one at a time.

pub mod binary;
pub mod bpf;
pub mod browser;
pub mod chain;
pub mod daemon;
pub mod folded;
pub mod grpc;
pub mod pprof;
pub mod privilege;
pub mod run;
pub mod sched_trace;
pub mod stacks;
pub mod svg;
pub mod workload;
