//! The composition root: builds the stages, joins them, runs them and takes them down again.

mod child;
mod daemon;
mod error;
mod events;
mod guard;
mod history;
mod kernel_task;
mod outputs;
mod own_cost;
mod pipeline;
mod program_cost;
mod progress;
mod record;
mod recorder;
mod service_manager;
mod table_cache;
mod targets;
mod triggers;
mod unwinding;

pub use child::{EXEC_STOPPED, exec_stopped};
pub use daemon::daemon;
pub use error::AgentError;
pub use record::record;

use crate::kernel::preflight;
use crate::model::Finding;

/// What `profiler check` finds out about this host.
#[must_use]
pub fn check() -> Vec<Finding> {
    preflight::run()
}
