//! Judges stacks against a chain of calls that is known by construction.
//!
//! A walk goes from the leaf outwards, so one that goes wrong loses or invents frames on the root's
//! side. A stack is right if it begins at the process's or thread's entry and holds the chain's
//! functions from the first one on, in order, without a gap and with nothing else between them.
//! Nothing else is forgiven: whatever is not recognised as being elsewhere counts as broken.

use std::collections::HashSet;

use crate::stacks::{Frame, Stack};

/// Functions of the kernel under which a process has no user stack: exec puts another program in its
/// place (fs/exec.c), exit frees it (kernel/exit.c).
const GIVES_UP_MEMORY: [&str; 4] = ["bprm_execve", "begin_new_exec", "load_elf_binary", "do_exit"];

/// A chain of calls, outermost first.
#[derive(Clone, Debug)]
pub struct Chain {
    links: Vec<Link>,
    names: HashSet<String>,
    /// Own functions that may lie on top of the chain, or of a part of it.
    tops: HashSet<String>,
    top_prefixes: Vec<String>,
    root: Root,
    before: usize,
    is_static: bool,
}

/// One step of a chain.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Link {
    /// This function.
    Is(String),
    /// One to so many functions of a library.
    Library(usize),
}

/// Where a stack must begin.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Root {
    /// At the program's `_start`.
    Start,
    /// Where the C library starts a thread.
    Thread,
}

/// What a stack is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Holds the chain to its end.
    Whole,
    /// Holds its first links, and the thread was just there.
    Part,
    /// Complete, in code that is no part of the chain: `main` itself, start-up, the end.
    Elsewhere,
    /// Has no user part, or none any more: the process gives up its memory, in an exec or at its end.
    KernelOnly,
    /// Anything else.
    Broken,
}

/// Records by verdict.
#[derive(Clone, Debug, Default)]
pub struct Judged {
    /// See [`Verdict`].
    pub whole: u64,
    /// See [`Verdict`].
    pub part: u64,
    /// See [`Verdict`].
    pub elsewhere: u64,
    /// See [`Verdict`].
    pub kernel_only: u64,
    /// See [`Verdict`].
    pub broken: u64,
    /// The broken ones, heaviest first.
    pub examples: Vec<(u64, String)>,
}

impl Chain {
    /// A chain from these names; `*` stands for up to six functions of a library.
    #[must_use]
    pub fn new<S: AsRef<str>>(names: impl IntoIterator<Item = S>, root: Root) -> Self {
        let links = names.into_iter().map(|name| match name.as_ref() {
            "*" => Link::Library(6),
            name => Link::Is(name.to_owned()),
        });
        let links: Vec<Link> = links.collect();
        let names = links.iter().filter_map(|link| match link {
            Link::Is(name) => Some(name.clone()),
            Link::Library(_) => None,
        });
        let names = names.collect();
        // `_start`, two functions of the C library, `main`.
        Self {
            links,
            names,
            tops: HashSet::new(),
            top_prefixes: Vec::new(),
            root,
            before: 4,
            is_static: false,
        }
    }

    /// Own functions that may lie on top.
    #[must_use]
    pub fn tops<S: AsRef<str>>(mut self, names: impl IntoIterator<Item = S>) -> Self {
        self.tops.extend(names.into_iter().map(|name| name.as_ref().to_owned()));
        self
    }

    /// Functions that may lie on top, by how their names begin.
    #[must_use]
    pub fn tops_like(mut self, prefixes: &[&str]) -> Self {
        self.top_prefixes.extend(prefixes.iter().map(|&prefix| prefix.to_owned()));
        self
    }

    /// Most frames between the root and the first link, the root included.
    #[must_use]
    pub fn before(mut self, most: usize) -> Self {
        self.before = most;
        self
    }

    /// The libraries are part of the program: any function that is not the chain's may be theirs.
    #[must_use]
    pub fn linked_statically(mut self) -> Self {
        self.is_static = true;
        self
    }

    /// Judges all these stacks.
    #[must_use]
    pub fn judge<'a>(&self, stacks: impl IntoIterator<Item = &'a Stack>) -> Judged {
        let mut judged = Judged::default();
        for stack in stacks {
            let slot = match self.verdict(stack) {
                Verdict::Whole => &mut judged.whole,
                Verdict::Part => &mut judged.part,
                Verdict::Elsewhere => &mut judged.elsewhere,
                Verdict::KernelOnly => &mut judged.kernel_only,
                Verdict::Broken => {
                    judged.examples.push((stack.count, stack.short()));
                    &mut judged.broken
                }
            };
            *slot += stack.count;
        }
        judged.examples.sort_by_key(|&(count, _)| std::cmp::Reverse(count));
        judged
    }

    /// Judges one stack.
    #[must_use]
    pub fn verdict(&self, stack: &Stack) -> Verdict {
        let user = stack.user();
        let Some(&outermost) = user.first() else { return Verdict::KernelOnly };
        if stack.frames.iter().any(|frame| frame.is_kernel() && GIVES_UP_MEMORY.contains(&&*frame.name)) {
            return Verdict::KernelOnly;
        }
        // The kernel's part lies on top of the user's, nowhere else.
        if stack.frames.iter().take(user.len()).any(Frame::is_kernel) {
            return Verdict::Broken;
        }
        let ours = |frame: &&Frame| self.names.contains(&frame.name) || self.tops.contains(&frame.name);
        if !user.iter().any(ours) {
            // The loader runs before `_start`, from an entry of its own.
            let rooted = self.is_root(outermost) || outermost.is_loader();
            return if rooted { Verdict::Elsewhere } else { Verdict::Broken };
        }
        if !self.is_root(outermost) {
            return Verdict::Broken;
        }
        let Some(first) = user.iter().position(|frame| self.is_link(0, frame)) else {
            // In the functions on top alone: a handler that came while `main` was elsewhere.
            let after = user.iter().position(ours).unwrap_or_default();
            let right =
                after <= self.before + 3 && user[after..].iter().all(|frame| self.may_be_on_top(frame));
            return if right { Verdict::Elsewhere } else { Verdict::Broken };
        };
        if first > self.before {
            return Verdict::Broken;
        }
        self.verdict_from(&user[first..])
    }

    /// Judges what lies on top of the way to the first link.
    fn verdict_from(&self, frames: &[&Frame]) -> Verdict {
        let mut at = 0;
        let mut held = 0;
        for (index, link) in self.links.iter().enumerate() {
            let most = match link {
                Link::Is(_) => 1,
                Link::Library(most) => *most,
            };
            let count = frames[at..].iter().take(most).take_while(|frame| self.is_link(index, frame)).count();
            if count == 0 {
                break;
            }
            at += count;
            held += 1;
        }
        match frames[at..].iter().all(|frame| self.may_be_on_top(frame)) {
            true if held == self.links.len() => Verdict::Whole,
            true => Verdict::Part,
            false => Verdict::Broken,
        }
    }

    fn is_link(&self, index: usize, frame: &Frame) -> bool {
        match self.links.get(index) {
            Some(Link::Is(name)) => frame.name == *name,
            Some(Link::Library(_)) => self.is_library(frame),
            None => false,
        }
    }

    fn may_be_on_top(&self, frame: &Frame) -> bool {
        self.tops.contains(&frame.name)
            || self.is_library(frame)
            || self.top_prefixes.iter().any(|prefix| frame.name.starts_with(prefix))
    }

    fn is_library(&self, frame: &Frame) -> bool {
        frame.is_library()
            || self.is_static && !frame.is_unnamed() && !self.names.contains(&frame.name)
            || frame.name == "__restore_rt"
    }

    fn is_root(&self, frame: &Frame) -> bool {
        match self.root {
            Root::Start => frame.name == "_start" && !frame.is_loader(),
            // Without debug information the C library does not name it.
            Root::Thread => {
                ["clone3", "__clone3", "__GI___clone3", "clone", "__clone", "start_thread"]
                    .contains(&frame.name.as_str())
                    || frame.is_unnamed() && frame.file().starts_with("libc.so")
            }
        }
    }
}

impl Judged {
    /// All records.
    #[must_use]
    pub fn total(&self) -> u64 {
        self.whole + self.part + self.elsewhere + self.kernel_only + self.broken
    }

    /// Share of the right ones among those that are not elsewhere.
    #[must_use]
    pub fn right(&self) -> f64 {
        let right = self.whole + self.part;
        right as f64 / ((right + self.broken) as f64).max(1.0)
    }

    /// What is wrong, if fewer than `right` of the judged stacks are right, or fewer than `whole` of
    /// all records hold the whole chain. Prints the figures.
    #[must_use]
    pub fn complaint(&self, what: &str, right: f64, whole: f64) -> Option<String> {
        let whole_share = self.whole as f64 / (self.total() as f64).max(1.0);
        let figures = format!(
            "{what}: {:.2} % right ({} whole, {} in part, {} broken; {} elsewhere, {} in the kernel only)",
            100.0 * self.right(),
            self.whole,
            self.part,
            self.broken,
            self.elsewhere,
            self.kernel_only
        );
        println!("{figures}");
        for (count, stack) in self.examples.iter().take(5) {
            println!("    broken, {count}: {stack}");
        }
        let fails = self.total() == 0 || self.right() < right || whole_share < whole;
        fails.then(|| format!("{figures}: {:?}", self.examples.iter().take(5).collect::<Vec<_>>()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Frames as `name` or `name@file`; `k:name` is the kernel's.
    fn stack(frames: &str) -> Stack {
        let frame = |text: &str| {
            let (name, file) = text.split_once('@').unwrap_or((text, "program"));
            let (name, kind) = name.strip_prefix("k:").map_or((name, "user"), |name| (name, "kernel"));
            Frame { name: name.to_owned(), kind: kind.to_owned(), module: Some(format!("/bin/{file}")) }
        };
        let frames = frames.split(' ').filter(|text| !text.is_empty()).map(frame).collect();
        Stack { comm: "a".to_owned(), pid: 1, frames, value: 1, count: 1, ..Stack::default() }
    }

    #[test]
    fn only_what_begins_at_the_root_and_has_no_gap_is_right() {
        let chain = Chain::new(["f1", "*", "f2", "f3"], Root::Start).tops(["handler"]);
        let verdict = |frames: &str| chain.verdict(&stack(frames));
        assert_eq!(verdict("_start x@libc.so.6 main f1 qsort@libc.so.6 f2 f3"), Verdict::Whole);
        assert_eq!(verdict("_start main f1 qsort@libc.so.6 sort@libc.so.6 f2 f3 k:irq"), Verdict::Whole);
        assert_eq!(verdict("_start main f1 qsort@libc.so.6 f2 f3 r@libc.so.6 handler"), Verdict::Whole);
        assert_eq!(verdict("_start main f1 qsort@libc.so.6"), Verdict::Part);
        assert_eq!(verdict("_start main f1"), Verdict::Part);
        assert_eq!(verdict("_start main clock@libc.so.6"), Verdict::Elsewhere);
        assert_eq!(verdict("_start main r@libc.so.6 handler"), Verdict::Elsewhere);
        assert_eq!(verdict("[ld-linux.so+0x10]@ld-linux.so relocate@ld-linux.so"), Verdict::Elsewhere);
        assert_eq!(verdict("k:exec"), Verdict::KernelOnly);
        assert_eq!(verdict("exit@libc.so.6 k:syscall k:do_exit"), Verdict::KernelOnly);
        for broken in [
            "f2 f3",
            "f3",
            "read@libc.so.6",
            "main f1 qsort@libc.so.6 f2 f3",
            "garbage _start main f1 qsort@libc.so.6 f2 f3",
            "_start main f1 f2 f3",
            "_start main f1 qsort@libc.so.6 f3",
            "_start main f1 qsort@libc.so.6 f2 other f3",
            "_start main f2 f3",
            "_start main f1 qsort@libc.so.6 f2 f3 other",
            "_start@ld-linux.so f1",
            "_start k:irq main f1",
            "_start a b c d e f1",
        ] {
            assert_eq!(verdict(broken), Verdict::Broken, "{broken}");
        }
    }

    #[test]
    fn shares_count_records() {
        let chain = Chain::new(["f"], Root::Thread);
        let stacks = [stack("clone3 start_thread@libc.so.6 f"), stack("f"), stack("clone3 g")];
        let judged = chain.judge(&stacks);
        assert_eq!((judged.whole, judged.broken, judged.elsewhere), (1, 1, 1));
        assert!((judged.right() - 0.5).abs() < 1e-9);
        assert!(
            judged.complaint("a test", 0.5, 0.3).is_none() && judged.complaint("a test", 0.6, 0.3).is_some()
        );
    }
}
