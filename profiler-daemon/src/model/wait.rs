//! What a blocked thread waits for.

use super::TaskState;

/// What a blocked thread waits for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Wait {
    /// Something that no rule knows.
    #[default]
    Other,
    /// A disk or file system.
    Io,
    /// A lock or condition: a futex, or a lock of the kernel's own.
    Lock,
    /// A socket.
    Network,
    /// A pipe.
    Pipe,
    /// One of several descriptors: epoll, poll, select.
    Poll,
    /// Time to pass.
    Sleep,
    /// Memory: a page that has to be read or made.
    PageFault,
    /// A signal or a tracer that lets it go on.
    Stopped,
    /// Something that no rule knows, in a state that signals do not end: mostly I/O.
    Uninterruptible,
}

impl Wait {
    /// All of them.
    pub const ALL: [Self; 10] = [
        Self::Other,
        Self::Io,
        Self::Lock,
        Self::Network,
        Self::Pipe,
        Self::Poll,
        Self::Sleep,
        Self::PageFault,
        Self::Stopped,
        Self::Uninterruptible,
    ];

    /// What the state alone tells.
    #[must_use]
    pub fn of_state(state: TaskState) -> Self {
        match state {
            TaskState::Stopped => Self::Stopped,
            TaskState::Uninterruptible => Self::Uninterruptible,
            TaskState::Running | TaskState::Interruptible | TaskState::Other => Self::Other,
        }
    }

    /// The name used in rule files and as a label.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Other => "other",
            Self::Io => "io",
            Self::Lock => "lock",
            Self::Network => "network",
            Self::Pipe => "pipe",
            Self::Poll => "poll",
            Self::Sleep => "sleep",
            Self::PageFault => "page fault",
            Self::Stopped => "stopped",
            Self::Uninterruptible => "uninterruptible",
        }
    }

    /// The wait of this name.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|wait| wait.name() == name)
    }

    /// The pseudo frame that renderers put on top of the stack.
    #[must_use]
    pub fn marker(self) -> &'static str {
        match self {
            Self::Other => "[blocked]",
            Self::Io => "[blocked: io]",
            Self::Lock => "[blocked: lock]",
            Self::Network => "[blocked: network]",
            Self::Pipe => "[blocked: pipe]",
            Self::Poll => "[blocked: poll]",
            Self::Sleep => "[blocked: sleep]",
            Self::PageFault => "[blocked: page fault]",
            Self::Stopped => "[blocked: stopped]",
            Self::Uninterruptible => "[blocked: uninterruptible]",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_lead_back() {
        for wait in Wait::ALL {
            assert_eq!(Wait::from_name(wait.name()), Some(wait));
            assert!(wait == Wait::Other || wait.marker() == format!("[blocked: {}]", wait.name()));
        }
        assert_eq!(Wait::from_name("I/O"), None);
    }
}
