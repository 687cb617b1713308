//! What can go wrong while recording or serving, and with which code the program then ends.

use std::io;

use crate::aggregate::Closed;
use crate::api::{BindError, ServeError};
use crate::cli::{Exit, WriteError};
use crate::config::ConfigError;
use crate::kernel::KernelError;
use crate::model::Finding;
use crate::procs::ProcsError;
use crate::render::RenderError;
use crate::store::StoreError;
use crate::symbolize::SymbolizeError;

/// Why the agent stopped, or did not start.
#[derive(Debug, thiserror::Error)]
pub enum AgentError {
    /// The configuration is wrong.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// A token cannot be had.
    #[error("{key} {}: {problem}", path.display())]
    Token {
        /// The key that names the file.
        key: &'static str,
        /// The file.
        path: std::path::PathBuf,
        /// What is wrong with it.
        problem: String,
    },
    /// The host cannot be profiled.
    #[error("{}; {}", .0.message, .0.fix)]
    Refused(Finding),
    /// The kernel side does not work.
    #[error(transparent)]
    Kernel(#[from] KernelError),
    /// A target is not there.
    #[error(transparent)]
    Target(#[from] ProcsError),
    /// An endpoint cannot be opened.
    #[error(transparent)]
    Bind(#[from] BindError),
    /// A server failed.
    #[error(transparent)]
    Serve(#[from] ServeError),
    /// The symbolizer failed.
    #[error(transparent)]
    Symbolize(#[from] SymbolizeError),
    /// The history on disk cannot be used.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// A stage has ended before its time.
    #[error("a stage of the pipeline has ended early; the log says why")]
    PipelineEnded,
    /// The command to record cannot be started.
    #[error("cannot run {command}: {source}")]
    Command {
        /// The command as given.
        command: String,
        /// Why not.
        source: io::Error,
    },
    /// An output cannot be written.
    #[error(transparent)]
    Write(#[from] WriteError),
    /// A profile cannot be rendered.
    #[error(transparent)]
    Render(#[from] RenderError),
    /// Nothing was recorded.
    #[error("nothing was recorded: {0}")]
    NoData(String),
    /// The operating system refused something the agent needs.
    #[error("cannot {doing}: {source}")]
    System {
        /// What was tried.
        doing: &'static str,
        /// Why not.
        source: io::Error,
    },
}

impl AgentError {
    /// The program's exit code for this error.
    #[must_use]
    pub fn exit(&self) -> Exit {
        match self {
            Self::Config(_) | Self::Token { .. } => Exit::Usage,
            Self::NoData(_) | Self::Render(RenderError::Empty) => Exit::NoData,
            Self::Refused(_) | Self::Kernel(_) | Self::Target(_) | Self::Bind(_) | Self::Store(_) => {
                Exit::Refused
            }
            _ => Exit::Failure,
        }
    }
}

impl From<Closed> for AgentError {
    fn from(_: Closed) -> Self {
        Self::PipelineEnded
    }
}
