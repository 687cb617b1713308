//! Joins the stages with bounded channels: kernel -> decode -> symbolize -> aggregate -> windows.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use super::error::AgentError;
use super::kernel_task::{self, KernelHandle};
use super::unwinding::Unwinding;
use crate::aggregate::{self, Opened};
use crate::kernel::{self, Kernel, KernelError};
use crate::model::{Batch, ClockAnchor, Detail, KindLoss, KindQuality, ProfileKind, Target, Window};
use crate::procs::SharedTable;
use crate::store::FreshSource;
use crate::symbolize::{self, Symbolizer};
use crate::unwind::cache::Cache;

/// Batches that may wait between two stages: with one batch per 50 ms, more than a second.
const BATCHES: usize = 32;

/// How long a question waits for what is not stored yet; without it, the answer ends earlier.
const FRESH_PATIENCE: Duration = Duration::from_secs(1);

/// The running stages.
pub(super) struct Pipeline {
    kernel: KernelHandle,
    sessions: aggregate::Handle,
    lost: Arc<Mutex<KindLoss>>,
    stacks: Arc<Mutex<KindQuality>>,
    tasks: Vec<JoinHandle<()>>,
    symbolizer: Symbolizer,
    unwinding: Unwinding,
}

/// What one recording session wants.
#[derive(Clone, Debug)]
pub(super) struct SessionSpec {
    pub(super) session: u64,
    pub(super) kind: ProfileKind,
    pub(super) target: Target,
    pub(super) detail: Detail,
    /// On-CPU frequency, if the session runs the on-CPU sampler itself.
    pub(super) frequency_hz: Option<u32>,
}

/// Starts and ends recording sessions; cheap to clone.
#[derive(Clone)]
pub(super) struct Sessions {
    kernel: KernelHandle,
    aggregate: aggregate::Handle,
}

impl Pipeline {
    /// Starts all stages; nothing is sampled yet. Sealed windows go to `windows`.
    pub(super) fn start(
        mut kernel: Kernel,
        symbols: symbolize::Options,
        cache: Option<Arc<Cache>>,
        windows: aggregate::Options,
        sink: mpsc::Sender<Window>,
    ) -> Result<Self, AgentError> {
        let (raw_out, raw_in) = mpsc::channel(BATCHES);
        let (named_out, named_in) = mpsc::channel(BATCHES);
        let (counted_out, counted_in) = mpsc::channel(BATCHES);
        let procs = SharedTable::default();
        let tables = kernel.take_tables().ok_or(AgentError::PipelineEnded)?;
        // Events first, then what there is: nothing falls between the two.
        kernel.watch_processes();
        let (unwinding, events) = Unwinding::start(procs.clone(), tables, cache)?;
        let (kernel, kernel_task) = kernel_task::start(kernel, events, raw_out)
            .map_err(|source| AgentError::System { doing: "watch the ring buffers", source })?;
        let symbolizer = Symbolizer::spawn(symbols, procs, raw_in, named_out)?;
        let lost = Arc::new(Mutex::new(KindLoss::default()));
        let stacks = Arc::new(Mutex::new(KindQuality::default()));
        let (sessions, aggregator) = aggregate::start(windows, clocks(), counted_in, sink);
        let tasks = vec![
            tokio::spawn(kernel_task),
            tokio::spawn(count(named_in, counted_out, Arc::clone(&lost), Arc::clone(&stacks))),
            tokio::spawn(aggregator),
        ];
        Ok(Self { kernel, sessions, lost, stacks, tasks, symbolizer, unwinding })
    }

    /// A handle on the sessions.
    pub(super) fn sessions(&self) -> Sessions {
        Sessions { kernel: self.kernel.clone(), aggregate: self.sessions.clone() }
    }

    /// What has been recorded and no store may have yet.
    pub(super) fn fresh(&self) -> FreshSource {
        let sessions = self.sessions.clone();
        Arc::new(move || sessions.fresh(FRESH_PATIENCE))
    }

    /// A handle on the kernel task.
    pub(super) fn kernel(&self) -> KernelHandle {
        self.kernel.clone()
    }

    /// The thread that keeps the unwinding tables.
    pub(super) fn unwinding(&self) -> &Unwinding {
        &self.unwinding
    }

    /// All that was lost since start, shared with the status.
    pub(super) fn lost(&self) -> Arc<Mutex<KindLoss>> {
        Arc::clone(&self.lost)
    }

    /// How the stacks of all records since start ended, shared with the status.
    pub(super) fn stacks(&self) -> Arc<Mutex<KindQuality>> {
        Arc::clone(&self.stacks)
    }

    /// Ends all stages in the order of the data; what is under way arrives. Every other handle
    /// must have been dropped.
    pub(super) async fn shut_down(self) {
        let Self { kernel, sessions, tasks, symbolizer, unwinding, .. } = self;
        drop((kernel, sessions));
        for task in tasks {
            if let Err(error) = task.await {
                tracing::error!(%error, "a stage did not end well");
            }
        }
        let ended = tokio::task::spawn_blocking(|| {
            unwinding.stop();
            symbolizer.join()
        });
        if let Err(error) = ended.await.unwrap_or(Ok(())) {
            tracing::error!(%error, "the symbolizer did not end well");
        }
    }
}

impl Sessions {
    /// Starts a session; its profile is there after [`Self::end`].
    pub(super) async fn start(&self, spec: SessionSpec) -> Result<Opened, AgentError> {
        let SessionSpec { session, kind, target, detail, frequency_hz } = spec;
        let opened = self.aggregate.open(session, kind, target.clone(), kernel::now(), detail).await?;
        let started = self.start_samplers(session, kind, target, detail, frequency_hz).await;
        if let Err(error) = started {
            self.aggregate.abandon(session).await;
            return Err(error);
        }
        Ok(opened)
    }

    async fn start_samplers(
        &self,
        session: u64,
        kind: ProfileKind,
        target: Target,
        detail: Detail,
        frequency_hz: Option<u32>,
    ) -> Result<(), AgentError> {
        if kind != ProfileKind::OnCpu {
            self.kernel.start_off_cpu(session, target.clone(), detail).await.map_err(refused)?;
        }
        if let Some(frequency_hz) = frequency_hz {
            self.kernel.start_on_cpu(frequency_hz, target).await.map_err(refused)?;
        }
        Ok(())
    }

    /// Ends a session, with the on-CPU sampler if it was its own.
    pub(super) async fn end(&self, session: u64, on_cpu: bool) -> Result<(), AgentError> {
        self.kernel.end(session, on_cpu).await.map_err(refused)
    }
}

/// Now on both clocks.
fn clocks() -> ClockAnchor {
    ClockAnchor { mono: kernel::now(), wall: SystemTime::now() }
}

/// The error of a kernel task that refused or has ended.
pub(super) fn refused(error: Option<KernelError>) -> AgentError {
    error.map_or(AgentError::PipelineEnded, AgentError::Kernel)
}

/// Keeps the sums of all losses and of what is known of the stacks for the status.
async fn count(
    mut input: mpsc::Receiver<Batch>,
    output: mpsc::Sender<Batch>,
    lost: Arc<Mutex<KindLoss>>,
    stacks: Arc<Mutex<KindQuality>>,
) {
    while let Some(batch) = input.recv().await {
        lost.lock().unwrap_or_else(PoisonError::into_inner).merge(&batch.loss);
        stacks.lock().unwrap_or_else(PoisonError::into_inner).add(&batch);
        if output.send(batch).await.is_err() {
            return;
        }
    }
}
