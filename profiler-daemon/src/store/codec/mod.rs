//! Messages to the bytes of a database value and back: compressed, checksummed, bounded.

mod capture;
mod dictionary;
mod distributions;
mod header;
mod quality;
mod rows;
mod times;

#[cfg(test)]
mod tests;

use std::cell::RefCell;
use std::io::{self, Read as _};
use std::time::{Duration, SystemTime};

use prost::Message;
use zstd::zstd_safe::{DCtx, ResetDirective};

pub(super) use self::capture::{Bundle, bundle, read_capture, write_capture};
pub(super) use self::dictionary::{Dictionary, Interner};
pub(super) use self::header::{Header, Part, belongs, coalesce};
pub(super) use self::rows::{Beside, Row, Table, read_rows};
pub(super) use self::times::{StoredTimes, read_times, write_times};

/// Generated messages of `proto/internal/window.proto`.
#[expect(unreachable_pub, reason = "the generator decides; what a message means stands in the .proto file")]
mod format {
    include!(concat!(env!("OUT_DIR"), "/profiler.store.v1.rs"));
}

/// Largest value before compression, bytes. Writers cut what could become larger; what they cannot
/// cut is [`Unwritable`].
const MAX_RAW: u64 = 64 << 20;
/// log2 of the most bytes that a compressed value may refer back to, which bounds the memory of
/// reading it.
const MAX_WINDOW_LOG: u32 = 24;

/// Stored bytes that are not what was written.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub(super) struct Damaged(pub(super) String);

impl Damaged {
    fn new(what: impl Into<String>) -> Self {
        Self(what.into())
    }
}

/// A message that cannot become a value. It says nothing about what is stored already.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub(super) struct Unwritable(pub(super) String);

/// How hard to compress: what is rewritten rarely is worth more time.
#[derive(Clone, Copy, Debug)]
pub(super) enum Effort {
    /// Values that are written every few seconds and rolled up soon.
    Quick,
    /// Values that stay.
    Thorough,
}

/// The message as a value.
pub(super) fn pack(message: &impl Message, effort: Effort) -> Result<Vec<u8>, Unwritable> {
    let length = message.encoded_len();
    if length as u64 > MAX_RAW {
        return Err(Unwritable(format!("a value of {length} bytes is too large to store")));
    }
    let raw = message.encode_to_vec();
    let level = match effort {
        Effort::Quick => 1,
        Effort::Thorough => 6,
    };
    let compress = || {
        let mut encoder = zstd::stream::write::Encoder::new(Vec::new(), level)?;
        encoder.include_checksum(true)?;
        encoder.window_log(20)?;
        std::io::Write::write_all(&mut encoder, &raw)?;
        encoder.finish()
    };
    compress().map_err(|error: std::io::Error| Unwritable(format!("a value cannot be compressed: {error}")))
}

/// The message of a value. Total: any bytes give a message or an error, in bounded memory.
pub(super) fn unpack<M: Message + Default>(bytes: &[u8]) -> Result<M, Damaged> {
    let raw = CONTEXT
        .with_borrow_mut(|context| decompress(bytes, context))
        .map_err(|error| Damaged::new(format!("cannot be decompressed: {error}")))?;
    if raw.len() as u64 > MAX_RAW {
        return Err(Damaged::new("is too large"));
    }
    M::decode(raw.as_slice()).map_err(|error| Damaged::new(format!("is not a message: {error}")))
}

thread_local! {
    /// What decompression needs. A query reads hundreds of values, and to make one anew costs more
    /// than most of them: it asks the CPU what it can do, which a virtual machine has to answer.
    static CONTEXT: RefCell<Option<DCtx<'static>>> = const { RefCell::new(None) };
}

fn decompress(bytes: &[u8], context: &mut Option<DCtx<'static>>) -> io::Result<Vec<u8>> {
    let context = match context {
        Some(context) => context,
        None => context.insert(DCtx::try_create().ok_or(io::ErrorKind::OutOfMemory)?),
    };
    // What an earlier value that was damaged left behind.
    let reset = context.reset(ResetDirective::SessionOnly);
    reset.map_err(|code| io::Error::other(zstd::zstd_safe::get_error_name(code)))?;
    let mut decoder = zstd::stream::read::Decoder::with_context(bytes, context).single_frame();
    decoder.window_log_max(MAX_WINDOW_LOG)?;
    let mut raw = Vec::new();
    decoder.take(MAX_RAW + 1).read_to_end(&mut raw)?;
    Ok(raw)
}

/// Nanoseconds since 1970; times before it count as 1970, those after 2554 as then.
pub(super) fn nanos(at: SystemTime) -> u64 {
    let since = at.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_nanos()).unwrap_or(u64::MAX)
}

/// The time of [`nanos`].
pub(super) fn time(nanos: u64) -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_nanos(nanos)
}
