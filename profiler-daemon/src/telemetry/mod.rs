//! Logs on stderr and the metrics page.

mod logs;
pub mod metrics;

pub use logs::{LogError, LogOptions, colored, init};
