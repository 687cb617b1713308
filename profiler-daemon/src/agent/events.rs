//! Tells the unwinding thread what happened to processes, and says what it could not be told.

use std::sync::mpsc::SyncSender;

use super::unwinding::Message;
use crate::kernel::Watched;

/// Tells the thread what happened to processes.
#[derive(Clone)]
pub(super) struct Events {
    sender: SyncSender<Message>,
    /// Batches sent so far.
    sent: u64,
    /// Events that found no room.
    unsent: u64,
}

impl Events {
    pub(super) fn new(sender: SyncSender<Message>) -> Self {
        Self { sender, sent: 0, unsent: 0 }
    }

    /// Passes events on, in the order of time.
    pub(super) fn send(&mut self, mut watched: Watched) {
        watched.lost += std::mem::take(&mut self.unsent);
        let lost = watched.lost + watched.events.len() as u64;
        let number = self.sent + 1;
        match self.sender.try_send(Message::Watched { watched, number }) {
            Ok(()) => self.sent = number,
            // They are found in /proc: the next batch says that some are missing.
            Err(_) => self.unsent = lost,
        }
    }

    /// Number of the last batch that was sent, see [`SharedTable::applied`].
    pub(super) fn last(&self) -> u64 {
        self.sent
    }
}
