//! Tests that drive the real `profiler` binary on this kernel, against workloads that know their own
//! truth. Those that need root or a browser say so when they are skipped.

mod bad_input;
mod browser;
mod cli;
mod daemon;
mod diff;
mod heatmap;
mod hidden_files;
mod hostile_files;
mod lifecycle;
mod names;
mod native_assembly;
mod native_big;
mod native_churn;
mod native_programs;
mod native_stacks;
mod native_walks;
mod off_cpu;
mod off_cpu_clock;
mod off_cpu_cost;
mod off_cpu_exact;
mod off_cpu_honest;
mod off_cpu_pressure;
mod off_cpu_sampled;
mod on_cpu;
mod recording;
mod restart;
mod signals;
mod survive;
mod triggers;
mod wakers;
mod workloads;
