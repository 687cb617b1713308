//! The kernel's type information (BTF): read when a program is to be loaded, let go soon after.
//!
//! Parsed it takes ten times its size, some 50 MiB, for what a daemon needs a few times in its life.

use std::time::{Duration, Instant};

use aya::Btf;

use super::KernelError;

/// How long it is kept: programs are loaded several at a time.
const LET_GO_AFTER: Duration = Duration::from_secs(2);

/// The kernel's type information, and when it was last asked for.
#[derive(Default)]
pub(super) struct Types(Option<(Btf, Instant)>);

impl Types {
    /// The type information.
    ///
    /// # Errors
    /// Where the kernel has none, or it cannot be read.
    pub(super) fn get(&mut self) -> Result<&Btf, KernelError> {
        let known = match self.0.take() {
            Some((btf, _)) => btf,
            None => Btf::from_sys_fs().map_err(|error| KernelError::Btf(error.to_string()))?,
        };
        let (btf, _) = self.0.insert((known, Instant::now()));
        Ok(btf)
    }

    /// Frees its memory unless it was asked for lately.
    pub(super) fn let_go(&mut self) {
        if self.0.as_ref().is_some_and(|(_, asked)| asked.elapsed() >= LET_GO_AFTER) {
            self.0 = None;
        }
    }
}
