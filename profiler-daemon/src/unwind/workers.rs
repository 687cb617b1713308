//! TEMP
use super::{Table, UnwindError, build};
use crate::procs::ObjectFile;
use std::sync::{Arc, mpsc};
#[derive(Default)]
pub struct WorkerOptions;
pub struct Workers(mpsc::Sender<Arc<ObjectFile>>);
impl Workers {
    pub fn start(
        _: WorkerOptions,
        f: impl Fn(u64, Result<Arc<Table>, UnwindError>) + Send + Sync + 'static,
    ) -> std::io::Result<Self> {
        let (s, r) = mpsc::channel::<Arc<ObjectFile>>();
        std::thread::spawn(move || {
            while let Ok(file) = r.recv() {
                f(file.serial(), build(&file).map(Arc::new))
            }
        });
        Ok(Self(s))
    }
    pub fn request(&self, f: Arc<ObjectFile>) -> bool {
        self.0.send(f).is_ok()
    }
}
