//! The single task that owns the loaded eBPF object: drains its rings and carries out requests.

use std::os::fd::OwnedFd;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::sync::{mpsc, oneshot};
use tokio::time::{Instant, sleep, sleep_until};
use tracing::{debug, warn};

use super::events::Events;
use super::program_cost::{ProgramCost, ProgramTime};
use crate::decode::{self, Join, Record};
use crate::kernel::{self, Counters, Kernel, KernelError};
use crate::model::{Detail, KindLoss, Measure, MonoNs, ProcessChange, RawBatch, Stage, Target};

/// How long after a drain the next one follows when nothing wakes us. A wake-up for each record would
/// cost more than the records.
const DRAIN_EVERY: Duration = Duration::from_millis(50);
/// A host at rest is drained after as long as it has been at rest, up to this: the wake-ups of all
/// stages would be the most that an idle host does.
const DRAIN_AT_REST: Duration = Duration::from_millis(200);
/// On-CPU samples in a drain from which on the host is not at rest.
const BUSY: usize = 2;
/// After an exec the rings are drained again so soon, so often: the new program maps its libraries
/// in its first millisecond, and may not live long.
const AFTER_EXEC: (Duration, u32) = (Duration::from_millis(1), 4);
/// Woken more often than this, we wait: a storm of execs must not cost more than the timer would.
const REST: Duration = Duration::from_millis(1);
/// How often counters are read and CPUs that came online are looked for.
const LOOK_AROUND_EVERY: Duration = Duration::from_secs(1);
/// Turns that empty rings which were full when they began: what comes in meanwhile must not keep a
/// session from ending. The largest ring holds some 250 000 of the smallest records, the off-CPU
/// ring 70 000; a turn takes 4 096 of each.
const FULL_RINGS: usize = 64;
const FULL_OFF_CPU_RING: usize = 18;
/// So long before a window ends, what is still blocked is written into it.
const SWEEP_BEFORE: Duration = Duration::from_millis(200);

/// Why a record is lost that is in a ring of others.
const STRAY: &str = "record in a wrong ring";

/// What can be asked of the task.
enum Request {
    StartOnCpu { frequency_hz: u32, target: Target, reply: Reply<MonoNs> },
    StartOffCpu { session: u64, target: Target, detail: Detail, reply: Reply<MonoNs> },
    SetFrequency { frequency_hz: u32, reply: Reply<()> },
    SetClock { clock: Option<Clock>, reply: Reply<()> },
    End { session: u64, on_cpu: bool, reply: Reply<()> },
}

/// The off-CPU clocks of all threads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Clock {
    /// Off-CPU time between two ticks; zero takes every interval.
    pub(super) period: Duration,
    /// Length of the windows that what they record goes into.
    pub(super) window: Duration,
    /// They look at one thread in `1 << thread_share`.
    pub(super) thread_share: u32,
}

type Reply<T> = oneshot::Sender<Result<T, KernelError>>;

/// What the task knows of itself, for status and metrics.
#[derive(Clone, Debug, Default)]
pub(super) struct Snapshot {
    pub(super) counters: Counters,
    /// Memory of our maps, bytes. All of them exist from the start.
    pub(super) map_bytes: u64,
    pub(super) off_cpu_active: bool,
    /// On-CPU sampling frequency, Hz; 0 while not sampling.
    pub(super) frequency_hz: u32,
    /// The off-CPU clocks, while they run.
    pub(super) clock: Option<Clock>,
    /// What the programs cost; `None` where that is not known.
    pub(super) programs: Option<ProgramTime>,
    /// When the rings were last drained.
    pub(super) drained: Option<Instant>,
}

/// Asks things of the task.
#[derive(Clone)]
pub(super) struct KernelHandle {
    requests: mpsc::Sender<Request>,
    snapshot: Arc<Mutex<Snapshot>>,
}

/// The task has ended, or it answered with an error.
pub(super) type Answer<T> = Result<T, Option<KernelError>>;

impl KernelHandle {
    /// Starts the on-CPU sampler; returns the instant from which it is complete.
    pub(super) async fn start_on_cpu(&self, frequency_hz: u32, target: Target) -> Answer<MonoNs> {
        self.ask(|reply| Request::StartOnCpu { frequency_hz, target, reply }).await
    }

    /// Starts recording off-CPU intervals for a session.
    pub(super) async fn start_off_cpu(&self, session: u64, target: Target, detail: Detail) -> Answer<MonoNs> {
        self.ask(|reply| Request::StartOffCpu { session, target, detail, reply }).await
    }

    /// Changes the frequency of the on-CPU sampler.
    pub(super) async fn set_frequency(&self, frequency_hz: u32) -> Answer<()> {
        self.ask(|reply| Request::SetFrequency { frequency_hz, reply }).await
    }

    /// Gives every thread an off-CPU clock, changes the period of those that run, or takes them
    /// away.
    pub(super) async fn set_clock(&self, clock: Option<Clock>) -> Answer<()> {
        self.ask(|reply| Request::SetClock { clock, reply }).await
    }

    /// Ends a session (and the on-CPU sampler with it, if asked): its last records go out, then
    /// its number in [`RawBatch::ended`].
    pub(super) async fn end(&self, session: u64, on_cpu: bool) -> Answer<()> {
        self.ask(|reply| Request::End { session, on_cpu, reply }).await
    }

    /// What the task last knew of itself.
    pub(super) fn snapshot(&self) -> Snapshot {
        self.snapshot.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    async fn ask<T>(&self, request: impl FnOnce(Reply<T>) -> Request) -> Answer<T> {
        let (reply, answer) = oneshot::channel();
        self.requests.send(request(reply)).await.map_err(|_| None)?;
        answer.await.map_err(|_| None)?.map_err(Some)
    }
}

/// Makes the task. Its future runs until every handle is dropped; the object goes with it.
pub(super) fn start(
    kernel: Kernel,
    events: Events,
    output: mpsc::Sender<RawBatch>,
) -> Result<(KernelHandle, impl Future<Output = ()> + Send), std::io::Error> {
    let (requests, incoming) = mpsc::channel(16);
    let snapshot = Arc::new(Mutex::new(Snapshot { map_bytes: kernel.map_bytes(), ..Snapshot::default() }));
    let [control, on_cpu, off_cpu] = kernel.ring_fds()?;
    #[expect(
        deprecated,
        reason = "the replacement is unsafe for types whose descriptor can change; OwnedFd's cannot"
    )]
    let watch = |fd: OwnedFd| AsyncFd::with_interest(fd, Interest::READABLE);
    let wakers = [watch(control)?, watch(on_cpu)?, watch(off_cpu)?];
    let task = Task {
        kernel,
        events,
        output,
        join: Join::default(),
        frequency_hz: 0,
        clock: None,
        cost: ProgramCost::default(),
        swept_slot: 0,
        execs: 0,
        busy: Instant::now(),
        snapshot: Arc::clone(&snapshot),
        reported: KindLoss::default(),
        unsent: KindLoss::default(),
    };
    Ok((KernelHandle { requests, snapshot }, task.run(incoming, wakers)))
}

struct Task {
    kernel: Kernel,
    events: Events,
    output: mpsc::Sender<RawBatch>,
    join: Join,
    frequency_hz: u32,
    clock: Option<Clock>,
    cost: ProgramCost,
    /// Number of the window for which what is still blocked was last written.
    swept_slot: u128,
    /// Drains that still follow an exec.
    execs: u32,
    /// When the host was last not at rest.
    busy: Instant,
    snapshot: Arc<Mutex<Snapshot>>,
    /// Kernel-side losses that were passed on.
    reported: KindLoss,
    /// Losses that are known here but not passed on yet.
    unsent: KindLoss,
}

impl Task {
    async fn run(mut self, mut requests: mpsc::Receiver<Request>, wakers: [AsyncFd<OwnedFd>; 3]) {
        let (mut looked_around, mut drained) = (Instant::now(), Instant::now());
        loop {
            tokio::select! {
                request = requests.recv() => match request {
                    Some(request) => self.answer(request).await,
                    None => {
                        self.finish().await;
                        break;
                    }
                },
                () = sleep_until((drained + self.pause()).min(self.sweep_due())) => {}
                () = sleep(AFTER_EXEC.0), if self.execs > 0 => self.execs -= 1,
                () = any_readable(&wakers) => sleep_until(drained + REST).await,
            }
            drained = Instant::now();
            self.sweep_for_window();
            let programs = self.cost.step(&self.kernel);
            self.snapshot.lock().unwrap_or_else(PoisonError::into_inner).programs = programs;
            let mut loss = std::mem::take(&mut self.unsent);
            let mut also_empty = false;
            if looked_around.elapsed() >= LOOK_AROUND_EVERY {
                looked_around = Instant::now();
                self.kernel.follow_cpus();
                self.kernel.flush_log();
                loss.merge(&self.look_around());
                also_empty = true;
            }
            // Where the next stage lags behind, records wait in the ring: what no longer fits
            // there is counted by the program that wanted to write it.
            if self.output.is_closed() {
                break;
            }
            if self.output.capacity() == 0 {
                // What processes map must be known all the same.
                self.watch(&mut loss);
                self.unsent.merge(&loss);
            } else {
                self.forward(loss, also_empty).await;
            }
        }
        debug!("the kernel task ends");
    }

    /// How long after a drain the next one follows. Only who records for ever rests: what is recorded
    /// for some seconds wants its tables at once.
    fn pause(&self) -> Duration {
        let longest = if self.clock.is_some() { DRAIN_AT_REST } else { DRAIN_EVERY };
        self.busy.elapsed().clamp(DRAIN_EVERY, longest)
    }

    /// Sends what is in the rings, at most one turn; where nothing is, that goes only if asked.
    async fn forward(&mut self, loss: KindLoss, also_empty: bool) {
        let (batch, _) = self.read(loss);
        if also_empty || !batch.samples.is_empty() || batch.loss != KindLoss::default() {
            // An error means that the next stage has ended; the loop notices.
            let _ended = self.output.send(batch).await;
        }
    }

    /// Decodes one turn of records; whether there may be more.
    fn read(&mut self, loss: KindLoss) -> (RawBatch, bool) {
        self.snapshot.lock().unwrap_or_else(PoisonError::into_inner).drained = Some(Instant::now());
        let mut batch = RawBatch { loss, ..RawBatch::default() };
        let begun = kernel::now();
        let join = &mut self.join;
        let more = self.kernel.drain_samples(|bytes| match decode::record(bytes) {
            Ok(Record::Sample(mut sample)) => {
                join.give_waker(&mut sample);
                batch.samples.push(*sample);
            }
            Ok(Record::Woken(woken)) => join.woken(*woken),
            Ok(Record::Half(half)) => join.half(*half, |sample| batch.samples.push(sample)),
            Ok(Record::UserStack(stack)) => join.user_stack(*stack, |sample| batch.samples.push(sample)),
            Ok(Record::Event(_)) => lose(&mut batch.loss, STRAY),
            Err(refused) => lose(&mut batch.loss, refused.reason()),
        });
        join.release(kernel::now(), |sample| batch.samples.push(sample));
        batch.loss.off_cpu.add(Stage::Decode, "waker without its interval", join.take_wakers_lost());
        let changed = self.watch(&mut batch.loss);
        batch.events_before = self.events.last();
        let on_cpu = batch.samples.iter().filter(|sample| matches!(sample.measure, Measure::OnCpu { .. }));
        if changed || on_cpu.take(BUSY).count() == BUSY {
            self.busy = Instant::now();
        }
        if !more {
            batch.complete_to = begun;
        }
        (batch, more)
    }

    /// Passes on what happened to processes; whether anything did.
    fn watch(&mut self, loss: &mut KindLoss) -> bool {
        let watched = self.kernel.watched(|bytes| {
            let reason = match decode::record(bytes) {
                Ok(Record::Event(event)) => return Some(event),
                Ok(_) => STRAY,
                Err(refused) => refused.reason(),
            };
            lose(loss, reason);
            None
        });
        if watched.events.iter().any(|event| matches!(event.change, ProcessChange::Exec(_))) {
            self.execs = AFTER_EXEC.1;
        }
        let any = !watched.events.is_empty() || watched.lost > 0;
        if any {
            self.events.send(watched);
        }
        any
    }

    async fn answer(&mut self, request: Request) {
        // Nobody waits for an answer any more if a send fails: nothing to do about it.
        match request {
            Request::StartOnCpu { frequency_hz, target, reply } => {
                let started = self.kernel.start_on_cpu(frequency_hz, &target).map(|()| kernel::now());
                self.frequency_hz = if started.is_ok() { frequency_hz } else { 0 };
                let _gone = reply.send(started);
            }
            Request::StartOffCpu { session, target, detail, reply } => {
                let _gone = reply.send(self.kernel.start_off_cpu(session, target, detail));
            }
            Request::SetFrequency { frequency_hz, reply } => {
                let set = self.kernel.set_frequency(frequency_hz);
                self.frequency_hz = self.kernel.frequency_hz();
                let _gone = reply.send(set);
            }
            Request::SetClock { clock, reply } => {
                let share = self.kernel.set_thread_share(clock.map_or(0, |clock| clock.thread_share));
                let set = share.and(self.kernel.set_clock(clock.map(|clock| clock.period)));
                if set.is_ok() {
                    self.clock = clock;
                }
                let _gone = reply.send(set);
            }
            Request::End { session, on_cpu, reply } => {
                let _gone = reply.send(self.end(session, on_cpu).await);
            }
        }
        self.look_around_snapshot();
    }

    /// Stops a session and sends all it recorded, then its number.
    async fn end(&mut self, session: u64, on_cpu: bool) -> Result<(), KernelError> {
        let mut result = Ok(());
        if on_cpu {
            result = self.kernel.stop_on_cpu();
            self.frequency_hz = 0;
        }
        let mut batch = RawBatch::default();
        if self.kernel.off_cpu_active() {
            // What is in the ring goes first, so that the sweep finds room.
            self.flush().await;
            result = result.and(self.kernel.sweep_off_cpu());
            // Open intervals count for the session that ends with their batch, so the swept ones
            // must be in it.
            for _ in 0..FULL_OFF_CPU_RING {
                let (more, again) = self.read(KindLoss::default());
                batch.samples.extend(more.samples);
                batch.events_before = more.events_before;
                batch.loss.merge(&more.loss);
                if !again {
                    break;
                }
            }
            self.join.release_all(|sample| batch.samples.push(sample));
            result = result.and(self.kernel.stop_off_cpu(session));
        } else {
            self.flush().await;
        }
        batch.loss.merge(&self.look_around());
        batch.ended.push(session);
        let _ended = self.output.send(batch).await;
        result
    }

    /// Sends everything that is in the rings now, turn by turn.
    async fn flush(&mut self) {
        for _ in 0..FULL_RINGS {
            let (batch, more) = self.read(KindLoss::default());
            if !batch.samples.is_empty() {
                if self.output.send(batch).await.is_err() {
                    return;
                }
            } else {
                self.unsent.merge(&batch.loss);
            }
            if !more {
                return;
            }
        }
    }

    /// Sends what is there when the task ends: nothing that was recorded goes without a word.
    async fn finish(&mut self) {
        self.flush().await;
        let mut batch = RawBatch { loss: std::mem::take(&mut self.unsent), ..RawBatch::default() };
        self.join.release_all(|sample| batch.samples.push(sample));
        batch.loss.merge(&self.look_around());
        // The next stage may have ended first.
        let _ended = self.output.send(batch).await;
    }

    /// Reads the counters; returns what was lost since the last time.
    fn look_around(&mut self) -> KindLoss {
        match self.kernel.counters() {
            Ok(counters) => {
                if let Err(error) = self.kernel.judge_user_stacks(&counters) {
                    warn!(%error, "cannot change how user stacks are read");
                }
                let lost = counters.loss.since(&self.reported);
                self.reported = counters.loss.clone();
                let mut snapshot = self.snapshot.lock().unwrap_or_else(PoisonError::into_inner);
                snapshot.counters = counters;
                lost
            }
            Err(error) => {
                warn!(%error, "cannot read the loss counters: losses in the kernel are not known");
                KindLoss::default()
            }
        }
    }

    fn look_around_snapshot(&mut self) {
        let mut snapshot = self.snapshot.lock().unwrap_or_else(PoisonError::into_inner);
        snapshot.off_cpu_active = self.kernel.off_cpu_active();
        snapshot.clock = self.clock;
        snapshot.frequency_hz = self.frequency_hz;
    }

    /// When what is still blocked is due in the ring, if nothing else is sooner; passed if it is late.
    fn sweep_due(&self) -> Instant {
        let Some(clock) = self.clock else { return Instant::now() + DRAIN_AT_REST };
        let next = (self.swept_slot + 1) * clock.window.as_nanos().max(1);
        Instant::now() + Duration::from_nanos_u128(next.saturating_sub(before_sweeps().as_nanos()))
    }

    /// Writes what is still blocked into the ring, once a window, shortly before it ends.
    fn sweep_for_window(&mut self) {
        let Some(clock) = self.clock else { return };
        let slot = before_sweeps().as_nanos() / clock.window.as_nanos().max(1);
        if slot == self.swept_slot {
            return;
        }
        let first = std::mem::replace(&mut self.swept_slot, slot) == 0;
        if !first && let Err(error) = self.kernel.sweep_off_cpu() {
            warn!(%error, "threads that are still blocked are missing from this window");
        }
    }
}

/// Counts a record that says nothing: whose it was cannot be known.
fn lose(loss: &mut KindLoss, reason: &'static str) {
    loss.on_cpu.add(Stage::Decode, reason, 1);
    loss.off_cpu.add(Stage::Decode, reason, 1);
}

/// Time since the epoch by a clock on which windows begin when their sweep is due.
fn before_sweeps() -> Duration {
    SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default() + SWEEP_BEFORE
}

/// Waits until a ring is half full, and takes the readiness.
async fn any_readable(wakers: &[AsyncFd<OwnedFd>; 3]) {
    let [control, on_cpu, off_cpu] = wakers;
    let ready = tokio::select! {
        ready = control.readable() => ready,
        ready = on_cpu.readable() => ready,
        ready = off_cpu.readable() => ready,
    };
    match ready {
        Ok(mut guard) => guard.clear_ready(),
        // Without wake-ups the timer still drains.
        Err(_) => std::future::pending().await,
    }
}
