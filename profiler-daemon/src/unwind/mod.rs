//! `.eh_frame` to unwinding tables that the kernel half can walk, built aside and cached on disk.
//!
//! What cannot be expressed has no rule ([`Rule::NONE`](profiler_common::unwind::Rule::NONE)), and
//! is counted in [`Report`] by [`Form`]. No address takes over the rule of a neighbour. The forms
//! that cannot be expressed:
//!
//! - a CFA in a register that is not one of the sixteen general ones;
//! - a CFA expression other than that of lazy PLT entries, of signal frames, and `*(sp + n) + m`,
//!   `*(bp + n) + m` or `*(sp + 8 * register + n) + m`;
//! - an offset beyond 32 bits, or beyond 16 where a rule holds two;
//! - a return address that is not at `CFA - 8`, unless it is undefined: the outermost frame;
//! - a frame pointer in another register, or found by an expression other than `bp + n` and
//!   `sp + n`: the row keeps its CFA, and the frame pointer is said to be lost.
//!
//! A CFA in another register than stack and frame pointer (hand-written assembly; stack probes of very
//! large frames) is certain only where the thread was: further out, the functions that were called may
//! have changed the register, and the kernel half marks the stack as guessed.
//!
//! Code that no frame description speaks of gets a rule only where its bytes or its place tell what
//! must hold: see `unclaimed.rs`. Elsewhere there is no rule.
//!
//! Between two functions there is no rule, but for less than 16 bytes of padding before an aligned
//! function: there the rule that holds at the first instruction of any function is in force, which
//! saves a row a function.

mod arch;
mod build;
pub mod cache;
mod evidence;
mod frames;
mod image;
mod program;
mod report;
mod table;
mod unclaimed;
mod workers;

pub use build::{Built, build, build_from_bytes, build_from_file};
pub use evidence::Evidence;
pub use report::{Form, Report};
pub use table::{PageRows, Table};
pub use workers::{Answer, Requested, Workers, WorkersOptions};

use std::io;
use std::sync::Arc;

/// Why a file has no unwinding table.
#[derive(Debug, thiserror::Error)]
#[error("{path}{}: no unwinding table: {problem}", build_id.as_deref().map(|id| format!(" (build id {id})")).unwrap_or_default())]
pub struct UnwindError {
    /// The file, as people know it.
    pub path: Arc<str>,
    /// Its build id, if it has one.
    pub build_id: Option<Arc<str>>,
    /// What is the matter.
    #[source]
    pub problem: Problem,
}

/// What is the matter with a file.
#[derive(Debug, thiserror::Error)]
pub enum Problem {
    /// Not an ELF file, or cut within its header.
    #[error("it is not an ELF file")]
    NotElf,
    /// It is for another machine.
    #[error("it is for another architecture (class {class}, machine {machine}); x86_64 only is unwound")]
    Architecture {
        /// `e_ident[EI_CLASS]`.
        class: u8,
        /// `e_machine`.
        machine: u16,
    },
    /// It has neither `.eh_frame` nor `.debug_frame`, or nothing in them is about its code.
    #[error("it has no unwinding information: build it with -fasynchronous-unwind-tables")]
    NoInformation,
    /// Something exceeds what this daemon is ready to take.
    #[error("{what} is {size}, more than {limit}")]
    TooLarge {
        /// What it is.
        what: &'static str,
        /// How large it says it is.
        size: u64,
        /// The most that is taken.
        limit: u64,
    },
    /// It ends before what its headers announce.
    #[error("it ends before byte {offset} + {size} that its headers speak of: it is truncated")]
    Truncated {
        /// Where something should have been.
        offset: u64,
        /// Bytes it should have had.
        size: u64,
    },
    /// It could not be read.
    #[error("it cannot be read: {0}")]
    Read(#[source] io::Error),
    /// It was written over after it was opened: it no longer says what processes have mapped.
    #[error("it was changed in place while processes have it mapped: restart them")]
    Changed,
    /// Building panicked, which is a fault of ours that cost this file only.
    #[error("the table builder panicked ({0}): please report it")]
    Panicked(String),
}

#[cfg(test)]
mod tests;
