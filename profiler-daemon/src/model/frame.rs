//! A named place in code.

use std::sync::Arc;

/// A named place in code. Frames compare by content, so equal places are one frame in a profile.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Frame {
    /// Function name, demangled, without suffixes; `[binary+0xoffset]` where there is none.
    pub name: Arc<str>,
    /// Where the code lives.
    pub kind: FrameKind,
    /// The file the code was mapped from, where there is one.
    pub module: Option<Arc<Module>>,
    /// Address in the module as its own headers count it (ELF virtual address), or the raw
    /// address where there is no module. Equal functions at different call sites share a frame:
    /// this is the start of the function where it is known.
    pub address: u64,
    /// Source position of the function, where debug information has one.
    pub source: Option<SourceLine>,
    /// Whether `name` came from a symbol; false for `[binary+0xoffset]`.
    pub named: bool,
}

/// Where a frame's code lives.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum FrameKind {
    /// User-space code from a file.
    User,
    /// User-space code that was inlined into its caller.
    UserInlined,
    /// Code generated at run time (perf map).
    Jit,
    /// Kernel code.
    Kernel,
    /// Kernel code that was inlined into its caller.
    KernelInlined,
}

/// A mapped file.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Module {
    /// Path as the process saw it.
    pub path: Arc<str>,
    /// GNU build id in lower-case hex, where the file has one.
    pub build_id: Option<Arc<str>>,
    /// It, or a debug file of it, has a symbol table, debug information or Go's own table: code in
    /// it without a name is a gap. A table of exported functions alone does not count.
    pub has_symbols: bool,
}

/// A position in source code.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct SourceLine {
    /// Path as the debug information has it.
    pub file: Arc<str>,
    /// Line, from 1; 0 where unknown.
    pub line: u32,
}
