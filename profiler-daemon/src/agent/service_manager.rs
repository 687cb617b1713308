//! What the service manager (systemd) is told: ready, alive, stopping.

use std::time::Duration;

use sd_notify::NotifyState;
use tokio::time::interval;
use tracing::debug;

/// Recording and serving have begun.
pub(super) fn ready(status: &str) {
    notify(&[NotifyState::Ready, NotifyState::Status(status)]);
}

/// The end has begun.
pub(super) fn stopping() {
    notify(&[NotifyState::Stopping]);
}

/// Keeps the watchdog quiet as long as `alive` says so; never returns.
pub(super) async fn feed_watchdog(alive: impl Fn() -> bool) {
    let Some(timeout) = sd_notify::watchdog_enabled() else {
        return std::future::pending().await;
    };
    let mut tick = interval((timeout / 3).max(Duration::from_millis(100)));
    loop {
        tick.tick().await;
        if alive() {
            notify(&[NotifyState::Watchdog]);
        }
    }
}

/// Without a service manager there is nobody to tell.
fn notify(state: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(state) {
        debug!(%error, "the service manager could not be told");
    }
}
