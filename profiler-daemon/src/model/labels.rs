//! Who a sample belongs to.

use std::borrow::Cow;
use std::sync::Arc;

use super::Pid;

/// Who a sample belongs to. Every stack of a profile carries one.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Labels {
    /// The process id.
    pub pid: Pid,
    /// The thread's name (`comm`).
    pub comm: Arc<str>,
    /// Path of the process's executable; empty for kernel threads and where it was not readable.
    pub exe: Arc<str>,
    /// Path of the cgroup; empty where unknown.
    pub cgroup: Arc<str>,
}

impl Labels {
    /// Names a selector may ask for.
    pub const NAMES: &'static [&'static str] = &["comm", "pid", "exe", "cgroup"];

    /// The value of a label; `None` for a name that is not in [`Self::NAMES`].
    #[must_use]
    pub fn get(&self, name: &str) -> Option<Cow<'_, str>> {
        Some(match name {
            "comm" => Cow::Borrowed(&*self.comm),
            "pid" => Cow::Owned(self.pid.to_string()),
            "exe" => Cow::Borrowed(&*self.exe),
            "cgroup" => Cow::Borrowed(&*self.cgroup),
            _ => return None,
        })
    }
}
