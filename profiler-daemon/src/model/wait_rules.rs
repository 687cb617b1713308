//! Rules that tell from a stack what a blocked thread waits for, and whether it is idle.

use std::collections::HashSet;

use rustc_hash::FxBuildHasher;

use super::{Frame, FrameKind, TaskState, Wait};

/// The rules, each kind in its order: the first that fits decides.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct WaitRules {
    /// What is waited for.
    pub waits: Vec<WaitRule>,
    /// Who is idle.
    pub idle: Vec<IdleRule>,
}

/// A wait for this, if one of these functions of the kernel is on the stack.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WaitRule {
    /// What is waited for.
    pub wait: Wait,
    /// Functions of the kernel.
    pub kernel: Names,
}

/// A thread that sleeps interruptibly is idle, if functions of both lists are on its stack. An
/// empty list asks for nothing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IdleRule {
    /// Functions of the kernel.
    pub kernel: Names,
    /// Functions of the program.
    pub user: Names,
}

/// Names of functions; `*` stands for any text.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Names {
    exact: HashSet<Box<str>, FxBuildHasher>,
    patterns: Vec<Box<str>>,
}

impl Names {
    /// A list of names.
    #[must_use]
    pub fn new<'a>(names: impl IntoIterator<Item = &'a str>) -> Self {
        let mut list = Self::default();
        for name in names {
            if name.contains('*') {
                list.patterns.push(name.into());
            } else {
                list.exact.insert(name.into());
            }
        }
        list
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.exact.is_empty() && self.patterns.is_empty()
    }

    fn holds(&self, name: &str) -> bool {
        self.exact.contains(name) || self.patterns.iter().any(|pattern| matches(pattern, name))
    }
}

impl WaitRules {
    /// What a thread in this state waits for, with this stack (kernel frames included).
    pub fn wait<'a>(&self, state: TaskState, stack: impl Iterator<Item = &'a Frame> + Clone) -> Wait {
        if state == TaskState::Stopped {
            return Wait::Stopped;
        }
        let kernel = stack.filter(|frame| is_kernel(frame));
        let fits = |rule: &&WaitRule| kernel.clone().any(|frame| rule.kernel.holds(&frame.name));
        self.waits.iter().find(fits).map_or_else(|| Wait::of_state(state), |rule| rule.wait)
    }

    /// Whether a thread in this state, with this stack, only waits for work.
    pub fn is_idle<'a>(&self, state: TaskState, stack: impl Iterator<Item = &'a Frame> + Clone) -> bool {
        state == TaskState::Interruptible
            && self.idle.iter().any(|rule| {
                let on_stack = |names: &Names, kernel: bool| {
                    names.is_empty()
                        || stack.clone().any(|frame| is_kernel(frame) == kernel && names.holds(&frame.name))
                };
                on_stack(&rule.kernel, true) && on_stack(&rule.user, false)
            })
    }
}

fn is_kernel(frame: &Frame) -> bool {
    matches!(frame.kind, FrameKind::Kernel | FrameKind::KernelInlined)
}

/// Whether a name fits a pattern in which `*` stands for any text.
fn matches(pattern: &str, name: &str) -> bool {
    let mut parts = pattern.split('*');
    let Some(mut rest) = parts.next().and_then(|first| name.strip_prefix(first)) else { return false };
    let mut last = None;
    for part in parts {
        if let Some(skipped) = last.replace(part) {
            match rest.split_once(skipped) {
                Some((_, behind)) => rest = behind,
                None => return false,
            }
        }
    }
    last.map_or(rest.is_empty(), |last| rest.ends_with(last))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stack(names: &[(&str, FrameKind)]) -> Vec<Frame> {
        let frame = |&(name, kind): &(&str, FrameKind)| Frame {
            name: name.into(),
            kind,
            module: None,
            address: 0,
            source: None,
            named: true,
        };
        names.iter().map(frame).collect()
    }

    #[test]
    fn stars_stand_for_any_text() {
        for (pattern, name, fits) in [
            ("f*", "f", true),
            ("f*", "foo", true),
            ("f*", "of", false),
            ("*wait*", "do_wait_now", true),
            ("a*b*c", "a1b2c", true),
            ("a*b*c", "a1b2", false),
            ("a*b*c", "ac", false),
            ("a*b*b", "ab", false),
            ("*", "", true),
        ] {
            assert_eq!(matches(pattern, name), fits, "{pattern} {name}");
        }
    }

    #[test]
    fn the_first_rule_that_fits_decides() {
        let rule = |wait, names: &[&str]| WaitRule { wait, kernel: Names::new(names.iter().copied()) };
        let rules = WaitRules {
            waits: vec![rule(Wait::PageFault, &["exc_page_fault"]), rule(Wait::Io, &["io_schedule*"])],
            idle: vec![IdleRule { kernel: Names::new(["ep_poll"]), user: Names::new(["park*"]) }],
        };
        let (kernel, user) = (FrameKind::Kernel, FrameKind::User);
        let wait = |state, names: &[(&str, FrameKind)]| rules.wait(state, stack(names).iter());
        let sleeping = TaskState::Interruptible;
        assert_eq!(wait(sleeping, &[("io_schedule", kernel), ("exc_page_fault", kernel)]), Wait::PageFault);
        assert_eq!(wait(sleeping, &[("io_schedule_timeout", kernel)]), Wait::Io);
        assert_eq!(wait(sleeping, &[("io_schedule", user)]), Wait::Other, "any process may call it so");
        assert_eq!(wait(TaskState::Uninterruptible, &[]), Wait::Uninterruptible);
        assert_eq!(wait(TaskState::Stopped, &[("io_schedule", kernel)]), Wait::Stopped);

        let idle = |state, names: &[(&str, FrameKind)]| rules.is_idle(state, stack(names).iter());
        assert!(idle(sleeping, &[("ep_poll", kernel), ("parked", user)]));
        assert!(!idle(sleeping, &[("ep_poll", kernel), ("main", user)]));
        assert!(!idle(TaskState::Uninterruptible, &[("ep_poll", kernel), ("parked", user)]));
    }
}
