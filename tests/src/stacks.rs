//! Reads a profile's JSON form: stacks with the module of every frame, and how good they are.

use anyhow::{Context as _, Result};
use serde_json::Value;

/// A profile.
#[derive(Clone, Debug, Default)]
pub struct Stacks {
    /// What the profiler says of its own stacks.
    pub quality: Quality,
    /// All of them.
    pub stacks: Vec<Stack>,
}

/// The profiler's account of its stacks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Quality {
    /// Records.
    pub records: u64,
    /// Records whose stack was cut at the depth limit.
    pub truncated: u64,
    /// Records whose user stack ends before its outermost frame.
    pub stopped: u64,
    /// Records that ought to have a user stack and have none.
    pub user_missing: u64,
}

/// Records with the same stack.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Stack {
    /// The thread's name.
    pub comm: String,
    /// The process.
    pub pid: u64,
    /// Root first.
    pub frames: Vec<Frame>,
    /// Samples or microseconds.
    pub value: u64,
    /// Records behind the value.
    pub count: u64,
    /// What the thread was doing: `on-cpu`, `blocked: lock`, ...; empty where the form does not say.
    pub activity: String,
    /// Who ended the waits.
    pub waker: Option<Waker>,
}

/// Who ended waits.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Waker {
    /// The thread's name, or `[interrupt]`.
    pub comm: String,
    /// The process; 0 for what is no thread.
    pub pid: u64,
    /// Root first.
    pub frames: Vec<Frame>,
}

/// One frame.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Frame {
    /// Function, or `[binary+0xaddress]`.
    pub name: String,
    /// `user`, `user-inlined`, `jit`, `kernel` or `kernel-inlined`.
    pub kind: String,
    /// File that the code lies in.
    pub module: Option<String>,
}

impl Stacks {
    /// Reads the JSON form.
    ///
    /// # Errors
    /// When it is none.
    pub fn parse(text: &str) -> Result<Self> {
        let document: Value = serde_json::from_str(text)?;
        let quality = &document["quality"];
        let number = |name: &str| quality[name].as_u64().with_context(|| format!("no quality.{name}"));
        let stacks = document["stacks"].as_array().context("no stacks")?;
        Ok(Self {
            quality: Quality {
                records: number("records")?,
                truncated: number("truncated")?,
                stopped: number("stopped")?,
                user_missing: number("user_missing")?,
            },
            stacks: stacks.iter().map(Stack::from_json).collect::<Result<_>>()?,
        })
    }

    /// The stacks of threads with this name.
    #[must_use]
    pub fn of(&self, comm: &str) -> Vec<&Stack> {
        self.stacks.iter().filter(|stack| stack.comm == comm).collect()
    }
}

impl Stack {
    fn from_json(value: &Value) -> Result<Self> {
        let frames = value["frames"].as_array().context("a stack without frames")?;
        Ok(Self {
            comm: value["thread"].as_str().context("a stack without a thread's name")?.to_owned(),
            pid: value["pid"].as_u64().context("a stack without pid")?,
            frames: frames.iter().map(Frame::from_json).collect::<Result<_>>()?,
            value: value["value"].as_u64().context("a stack without value")?,
            count: value["count"].as_u64().context("a stack without count")?,
            activity: value["activity"].as_str().unwrap_or_default().to_owned(),
            waker: value.get("waker").map(Waker::from_json).transpose()?,
        })
    }

    /// Whether a function is in it.
    #[must_use]
    pub fn holds(&self, function: &str) -> bool {
        self.frames.iter().any(|frame| frame.name == function)
    }

    /// Its frames in user space, root first.
    #[must_use]
    pub fn user(&self) -> Vec<&Frame> {
        self.frames.iter().filter(|frame| !frame.is_kernel()).collect()
    }

    /// As one reads it, without the kernel's part; long ones are cut in the middle.
    #[must_use]
    pub fn short(&self) -> String {
        let names: Vec<&str> = self.user().iter().map(|frame| frame.name.as_str()).collect();
        match names.len() {
            0..=24 => names.join(";"),
            count => format!("{};... ;{}", names[..12].join(";"), names[count - 12..].join(";")),
        }
    }
}

impl Waker {
    fn from_json(value: &Value) -> Result<Self> {
        let frames = value["frames"].as_array().context("a waker without frames")?;
        Ok(Self {
            comm: value["thread"].as_str().context("a waker without a thread's name")?.to_owned(),
            pid: value["pid"].as_u64().context("a waker without pid")?,
            frames: frames.iter().map(Frame::from_json).collect::<Result<_>>()?,
        })
    }

    /// Whether a function is in its stack.
    #[must_use]
    pub fn holds(&self, function: &str) -> bool {
        self.frames.iter().any(|frame| frame.name == function)
    }
}

impl Frame {
    fn from_json(value: &Value) -> Result<Self> {
        let text = |name: &str| value[name].as_str().map(str::to_owned);
        Ok(Self {
            name: text("name").context("a frame without name")?,
            kind: text("kind").context("a frame without kind")?,
            module: text("module"),
        })
    }

    /// Whether it lies in the kernel.
    #[must_use]
    pub fn is_kernel(&self) -> bool {
        self.kind.starts_with("kernel")
    }

    /// Whether it has no name but an address.
    #[must_use]
    pub fn is_unnamed(&self) -> bool {
        self.name.starts_with('[') && self.name.contains("+0x")
    }

    /// The last part of its module's path.
    #[must_use]
    pub fn file(&self) -> &str {
        self.module.as_deref().map_or("", |path| path.rsplit('/').next().unwrap_or(path))
    }

    /// Whether it lies in the C or C++ library, the loader or the vDSO.
    #[must_use]
    pub fn is_library(&self) -> bool {
        ["libc.so", "libc-", "ld-linux", "libgcc_s", "libstdc++", "libm.so", "libpthread", "[vdso]"]
            .iter()
            .any(|prefix| self.file().starts_with(prefix))
    }

    /// Whether it lies in the dynamic loader.
    #[must_use]
    pub fn is_loader(&self) -> bool {
        self.file().starts_with("ld-linux")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_keep_their_modules() -> Result<()> {
        let stacks = Stacks::parse(
            r#"{"quality":{"records":3,"truncated":0,"stopped":1,"user_missing":0},"stacks":[
                {"thread":"a","pid":7,"value":3,"count":3,"frames":[
                    {"name":"_start","kind":"user","module":"/bin/a"},
                    {"name":"[libc.so.6+0x10]","kind":"user","module":"/lib/libc.so.6"},
                    {"name":"schedule","kind":"kernel","module":null}]}]}"#,
        )?;
        assert_eq!((stacks.quality.records, stacks.quality.stopped), (3, 1));
        let stack = stacks.of("a")[0];
        assert_eq!(stack.short(), "_start;[libc.so.6+0x10]");
        assert!(
            stack.frames[1].is_unnamed() && stack.frames[1].is_library() && !stack.frames[0].is_library()
        );
        assert!(Stacks::parse("{}").is_err() && stacks.of("b").is_empty());
        Ok(())
    }
}
