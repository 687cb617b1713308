//! The daemon's history: on disk where that is possible, and what is said where it is not.

use tokio::sync::{broadcast, mpsc};
use tracing::warn;

use crate::config::Config;
use crate::model::{Finding, Severity, Window};
use crate::store::{Store, StoreError, StoreOptions};

/// Most memory for a history that is not on disk, bytes.
const MAX_IN_MEMORY: u64 = 256 << 20;

/// Opens the history as configured. Blocks.
///
/// # Errors
/// When it was written by a newer version, or a directory that somebody chose cannot be used.
pub(super) fn open(config: &Config) -> Result<(Store, Vec<Finding>), StoreError> {
    let options = StoreOptions {
        max_age: config.retention.age,
        max_bytes: config.retention.bytes,
        ..StoreOptions::default()
    };
    let in_memory = StoreOptions { max_bytes: options.max_bytes.min(MAX_IN_MEMORY), ..options };
    if config.retention.in_memory {
        return Ok((Store::new(in_memory), Vec::new()));
    }
    match Store::open(&config.state_dir, options) {
        Ok(store) => {
            let findings = store.findings();
            Ok((store, findings))
        }
        // Nobody chose the default: better a history that ends with the daemon than no daemon.
        Err(error @ (StoreError::Unusable { .. } | StoreError::InUse { .. }))
            if config.state_dir == Config::default().state_dir =>
        {
            let finding = Finding {
                check: "history",
                severity: Severity::Warning,
                message: format!("history is in memory and ends with the daemon: {error}"),
                fix: format!("make {} writable for the daemon's user", config.state_dir.display()),
            };
            warn!(check = finding.check, fix = finding.fix, "{}", finding.message);
            Ok((Store::new(in_memory), vec![finding]))
        }
        Err(error) => Err(error),
    }
}

/// Puts sealed windows into the store, and shows them to whoever watches, until no more come. Blocks.
pub(super) fn keep(mut sealed: mpsc::Receiver<Window>, store: &Store, watchers: &broadcast::Sender<Window>) {
    while let Some(window) = sealed.blocking_recv() {
        // Without watchers nobody takes it.
        let _watched_by = watchers.send(window.clone());
        store.insert(window);
    }
}
