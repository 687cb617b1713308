//! The thread that does the upkeep of a store on disk.

use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use super::Shared;

/// How often upkeep is done; also how soon a disk that was full is tried again.
const PERIOD: Duration = Duration::from_secs(10);

/// The thread; it ends, after a last round, when this is dropped.
#[derive(Debug)]
pub(super) struct Keeper {
    bell: Arc<Bell>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Debug, Default)]
struct Bell {
    stop: AtomicBool,
    rung: Mutex<bool>,
    ring: Condvar,
}

impl Keeper {
    pub(super) fn start(shared: Arc<Shared>) -> io::Result<Self> {
        let bell = Arc::new(Bell::default());
        let heard = Arc::clone(&bell);
        let thread = std::thread::Builder::new().name("store".to_owned()).spawn(move || {
            loop {
                heard.wait();
                let stop = || heard.stop.load(Ordering::Acquire);
                // The last round writes what is in memory and leaves the rest for the next start.
                shared.maintain(|| !stop());
                if stop() {
                    return;
                }
            }
        })?;
        Ok(Self { bell, thread: Some(thread) })
    }

    /// Asks for a round soon.
    pub(super) fn wake(&self) {
        *self.bell.rung.lock().unwrap_or_else(PoisonError::into_inner) = true;
        self.bell.ring.notify_one();
    }
}

impl Bell {
    /// Waits until it is rung or a period has passed.
    fn wait(&self) {
        let rung = self.rung.lock().unwrap_or_else(PoisonError::into_inner);
        let (mut rung, _) =
            self.ring.wait_timeout_while(rung, PERIOD, |rung| !*rung).unwrap_or_else(PoisonError::into_inner);
        *rung = false;
    }
}

impl Drop for Keeper {
    fn drop(&mut self) {
        self.bell.stop.store(true, Ordering::Release);
        self.wake();
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            tracing::error!("the upkeep of the history ended in a panic");
        }
    }
}
