//! Perf's side-band records: which code is mapped, by whom, from when on, from which file.
//!
//! A dummy event on each CPU reports mappings as they are made, so that they are known before their
//! first sample even if the process lives for a millisecond.

use std::collections::BTreeMap;

use perf_event::data::parse::{ParseError, Parser};
use perf_event::data::{Comm, Lost, Mmap2, RecordMetadata, Visitor};
use perf_event::events::Software;
use perf_event::{Builder, Clock, Counter, SampleFlag, Sampler};
use tracing::{debug, warn};

use crate::model::{FileKey, MappedCode, MonoNs, Pid, ProcessChange, ProcessEvent};

/// Bytes of each CPU's ring: about 2 000 records, what a busy build makes in a second.
const RING_BYTES: usize = 256 << 10;
/// Most records taken from one CPU at a time.
const TURN: usize = 4096;
/// `PERF_RECORD_MISC_COMM_EXEC`, include/uapi/linux/perf_event.h.
const COMM_EXEC: u16 = 1 << 13;

/// The rings of all CPUs.
#[derive(Default)]
pub(super) struct SideBand {
    samplers: BTreeMap<u32, Sampler>,
    /// CPUs that were refused, so that it is said once.
    refused: bool,
}

/// What was read in one go.
#[derive(Debug, Default)]
pub(super) struct Read {
    pub(super) events: Vec<ProcessEvent>,
    /// Records the kernel had no room for, or that made no sense.
    pub(super) lost: u64,
}

impl SideBand {
    /// Opens the event on CPUs that have come online, and forgets those that went.
    pub(super) fn follow_cpus(&mut self, online: &[u32]) {
        self.samplers.retain(|cpu, _| online.contains(cpu));
        for &cpu in online {
            if self.samplers.contains_key(&cpu) {
                continue;
            }
            match open(cpu) {
                Ok(sampler) => {
                    self.samplers.insert(cpu, sampler);
                }
                Err(error) if !self.refused => {
                    self.refused = true;
                    warn!(cpu, %error, "new mappings are not reported: they are found in /proc, later");
                }
                Err(error) => debug!(cpu, %error, "no side-band records from this CPU"),
            }
        }
    }

    /// Takes what has been recorded, CPU by CPU: not in the order of time.
    pub(super) fn read(&mut self) -> Read {
        let mut read = Read::default();
        for sampler in self.samplers.values_mut() {
            for _ in 0..TURN {
                let Some(record) = sampler.next_record() else { break };
                // As the kernel writes it: `struct perf_event_header`, then the body.
                let body = record.to_contiguous();
                let size = u16::try_from(body.len() + 8).unwrap_or(u16::MAX);
                let mut bytes = Vec::with_capacity(body.len() + 8);
                bytes.extend(record.ty().to_ne_bytes());
                bytes.extend(record.misc().to_ne_bytes());
                bytes.extend(size.to_ne_bytes());
                bytes.extend_from_slice(&body);
                drop(body);
                drop(record);
                match parse(sampler.as_counter(), &bytes) {
                    Ok(Parsed::Event(event)) => read.events.push(event),
                    Ok(Parsed::Lost(count)) => read.lost += count,
                    Ok(Parsed::Other) => {}
                    Err(error) => {
                        debug!(%error, "a side-band record makes no sense");
                        read.lost += 1;
                    }
                }
            }
        }
        read
    }
}

fn open(cpu: u32) -> std::io::Result<Sampler> {
    let mut builder = Builder::new(Software::DUMMY);
    builder.any_pid().one_cpu(cpu as usize).clockid(Clock::MONOTONIC);
    builder.sample(SampleFlag::TIME).sample_id_all(true);
    builder.mmap(true).mmap2(true).comm(true).comm_exec(true);
    // Nobody is woken: we come by on a timer, and when a process execs.
    builder.wakeup_watermark(RING_BYTES / 2);
    let counter = match builder.build_id(true).build() {
        // Before 5.12 files are told apart by inode only.
        Err(_) => builder.build_id(false).build()?,
        counter => counter?,
    };
    let mut sampler = counter.sampled(RING_BYTES)?;
    sampler.as_counter_mut().enable()?;
    Ok(sampler)
}

enum Parsed {
    Event(ProcessEvent),
    Lost(u64),
    Other,
}

fn parse(counter: &Counter, bytes: &[u8]) -> Result<Parsed, ParseError> {
    Parser::new(bytes, counter.config().clone()).parse_record(Records)
}

struct Records;

impl Visitor<'_> for Records {
    type Output = Parsed;

    fn visit_unimplemented(self, _: RecordMetadata) -> Parsed {
        Parsed::Other
    }

    fn visit_lost(self, record: Lost, _: RecordMetadata) -> Parsed {
        Parsed::Lost(record.lost)
    }

    fn visit_comm(self, record: Comm<'_>, metadata: RecordMetadata) -> Parsed {
        if metadata.misc() & COMM_EXEC == 0 {
            return Parsed::Other;
        }
        let comm = String::from_utf8_lossy(&record.comm).into();
        event(&metadata, ProcessChange::NewImage { pid: Pid(record.pid), comm })
    }

    fn visit_mmap2(self, record: Mmap2<'_>, metadata: RecordMetadata) -> Parsed {
        let file = match record.build_id() {
            Some(id) => {
                FileKey::BuildId(id.iter().map(|byte| format!("{byte:02x}")).collect::<String>().into())
            }
            None => FileKey::Inode {
                device: (record.maj().unwrap_or_default(), record.min().unwrap_or_default()),
                inode: record.ino().unwrap_or_default(),
            },
        };
        let code = MappedCode {
            start: record.addr,
            end: record.addr.saturating_add(record.len),
            offset: record.pgoff,
            path: record.filename.as_ref().into(),
            file,
        };
        event(&metadata, ProcessChange::Map(Pid(record.pid), code))
    }
}

fn event(metadata: &RecordMetadata, change: ProcessChange) -> Parsed {
    match metadata.sample_id().time() {
        Some(time) => Parsed::Event(ProcessEvent { time: MonoNs(time), change }),
        None => Parsed::Other,
    }
}

#[cfg(test)]
mod tests;
