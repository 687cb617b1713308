//! What the daemon and its symbol reader say to each other: short messages, each with its length before
//! it; files go over as descriptors.
//!
//! The reader works through files of strangers: what it answers is checked like anything a stranger says.

use std::io::{self, IoSlice, IoSliceMut, Read, Write};
use std::mem::MaybeUninit;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::time::Instant;

use prost::Message;
use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage,
    SendFlags, recvmsg, sendmsg,
};

use super::elf::{BROKEN, NO_ROOM, Reason, TOO_LARGE, TOO_SLOW};

/// Most addresses of one request.
pub(super) const MAX_ADDRESSES: usize = 32;
/// Most functions inlined at one address: the innermost are kept.
pub(super) const MAX_INLINED: usize = 64;
/// Longest name, bytes.
pub(super) const MAX_NAME: usize = 2048;
/// Longest path of a source file, bytes.
pub(super) const MAX_SOURCE: usize = 1024;
/// The file, and its debug file.
const MAX_FILES: usize = 2;
/// Largest request, bytes.
const MAX_REQUEST: usize = 4 << 10;
/// Largest answer, bytes: more than the longest names together.
const MAX_ANSWER: usize = 256 << 10;
/// What may be said of a file; sent as the place in this list.
const REASONS: [Reason; 4] = [TOO_LARGE, NO_ROOM, TOO_SLOW, BROKEN];

/// A question about one file, which comes as a descriptor with it. Each address gets one [`Answer`].
#[derive(Clone, PartialEq, Message)]
pub(super) struct Request {
    /// A number that means this file.
    #[prost(uint64, tag = "1")]
    pub file: u64,
    /// A number that means its debug file, the second descriptor; 0: it has none.
    #[prost(uint64, tag = "2")]
    pub debug_file: u64,
    /// The debug file lies where an administrator put it.
    #[prost(bool, tag = "3")]
    pub trusted: bool,
    /// Read debug information, not only symbol tables.
    #[prost(bool, tag = "4")]
    pub debug_info: bool,
    /// Say which functions were inlined.
    #[prost(bool, tag = "5")]
    pub inlined: bool,
    /// What all that is read may take in memory, bytes.
    #[prost(uint64, tag = "6")]
    pub memory_bytes: u64,
    /// Debug information above this is left alone, bytes.
    #[prost(uint64, tag = "7")]
    pub max_debug_info_bytes: u64,
    /// As the file itself counts them.
    #[prost(uint64, repeated, tag = "8")]
    pub addresses: Vec<u64>,
}

/// What is at one address.
#[derive(Clone, PartialEq, Message)]
pub(super) struct Answer {
    #[prost(message, optional, tag = "1")]
    pub found: Option<Found>,
    /// Why the file gives less than it might, as places in [`REASONS`].
    #[prost(uint32, repeated, tag = "2")]
    reasons: Vec<u32>,
    /// The file has tables of functions that are not among its symbol tables.
    #[prost(bool, tag = "3")]
    pub more_symbols: bool,
    /// Memory that the reader takes now, without the files it maps, bytes; in the last answer to a
    /// request.
    #[prost(uint64, tag = "4")]
    pub memory_bytes: u64,
}

/// A function and what was inlined into it, as found for one address.
#[derive(Clone, PartialEq, Eq, Message)]
pub(super) struct Found {
    /// The function's name.
    #[prost(string, tag = "1")]
    pub name: String,
    /// Its start, as the file counts addresses.
    #[prost(uint64, tag = "2")]
    pub address: u64,
    /// Source file of the function.
    #[prost(string, optional, tag = "3")]
    pub source: Option<String>,
    /// The functions inlined at the address, innermost last.
    #[prost(message, repeated, tag = "4")]
    pub inlined: Vec<Inlined>,
}

/// A function that was inlined.
#[derive(Clone, PartialEq, Eq, Message)]
pub(super) struct Inlined {
    /// Its name.
    #[prost(string, tag = "1")]
    pub name: String,
    /// Its source file.
    #[prost(string, optional, tag = "2")]
    pub source: Option<String>,
}

impl Answer {
    /// An answer; of reasons that have no place in the list none is said.
    pub(super) fn new(
        found: Option<Found>,
        reasons: &[Reason],
        more_symbols: bool,
        memory_bytes: u64,
    ) -> Self {
        let place = |reason: &Reason| REASONS.iter().position(|known| known == reason);
        let reasons = reasons.iter().filter_map(|reason| u32::try_from(place(reason)?).ok()).collect();
        Self { found, reasons, more_symbols, memory_bytes }
    }

    /// Why the file gives less than it might.
    pub(super) fn reasons(&self) -> impl Iterator<Item = Reason> + '_ {
        self.reasons.iter().filter_map(|&place| REASONS.get(usize::try_from(place).ok()?).copied())
    }

    /// Whether it is what a reader may say.
    fn is_sound(&self) -> bool {
        let name = |name: &str| !name.is_empty() && name.len() <= MAX_NAME;
        let source = |source: &Option<String>| source.as_ref().is_none_or(|path| path.len() <= MAX_SOURCE);
        self.reasons.len() <= REASONS.len()
            && self.reasons().count() == self.reasons.len()
            && self.found.as_ref().is_none_or(|found| {
                name(&found.name)
                    && source(&found.source)
                    && found.inlined.len() <= MAX_INLINED
                    && found.inlined.iter().all(|inlined| name(&inlined.name) && source(&inlined.source))
            })
    }
}

/// Sends a request and the files that it is about.
pub(super) fn send_request(
    socket: &UnixStream,
    request: &Request,
    files: &[BorrowedFd<'_>],
) -> io::Result<()> {
    let bytes = framed(request, MAX_REQUEST)?;
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_FILES))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    if !control.push(SendAncillaryMessage::ScmRights(files)) {
        return Err(invalid("too many files"));
    }
    let sent = loop {
        match sendmsg(socket, &[IoSlice::new(&bytes)], &mut control, SendFlags::NOSIGNAL) {
            Err(rustix::io::Errno::INTR) => {}
            other => break other?,
        }
    };
    let mut socket = socket;
    socket.write_all(bytes.get(sent..).unwrap_or_default())
}

/// Waits for a request; `None` when the other side has hung up.
pub(super) fn receive_request(socket: &UnixStream) -> io::Result<Option<(Request, Vec<OwnedFd>)>> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_FILES))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let mut head = [0; 4];
    // The descriptors come with the first byte.
    let got = loop {
        let mut parts = [IoSliceMut::new(&mut head)];
        match recvmsg(socket, &mut parts, &mut control, RecvFlags::CMSG_CLOEXEC) {
            Err(rustix::io::Errno::INTR) => {}
            other => break other?.bytes,
        }
    };
    if got == 0 {
        return Ok(None);
    }
    let mut files = Vec::new();
    for message in control.drain() {
        if let RecvAncillaryMessage::ScmRights(received) = message {
            files.extend(received);
        }
    }
    let mut socket = socket;
    socket.read_exact(head.get_mut(got..).unwrap_or_default())?;
    let mut body = vec![0; body_size(head, MAX_REQUEST)?];
    socket.read_exact(&mut body)?;
    let request = Request::decode(&*body).map_err(|_| invalid("not a request"))?;
    Ok(Some((request, files)))
}

/// Sends an answer.
pub(super) fn send_answer(socket: &UnixStream, answer: &Answer) -> io::Result<()> {
    let mut socket = socket;
    socket.write_all(&framed(answer, MAX_ANSWER)?)
}

/// Waits for an answer, at most until then.
pub(super) fn receive_answer(socket: &UnixStream, until: Instant) -> io::Result<Answer> {
    let mut head = [0; 4];
    read_until(socket, &mut head, until)?;
    let mut body = vec![0; body_size(head, MAX_ANSWER)?];
    read_until(socket, &mut body, until)?;
    Answer::decode(&*body).ok().filter(Answer::is_sound).ok_or_else(|| invalid("what came is no answer"))
}

fn read_until(mut socket: &UnixStream, bytes: &mut [u8], until: Instant) -> io::Result<()> {
    let mut done = 0;
    while let Some(rest) = bytes.get_mut(done..).filter(|rest| !rest.is_empty()) {
        let left = until.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(io::ErrorKind::TimedOut.into());
        }
        socket.set_read_timeout(Some(left))?;
        match socket.read(rest) {
            Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(count) => done += count,
            Err(error) if matches!(error.kind(), io::ErrorKind::Interrupted | io::ErrorKind::WouldBlock) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

fn framed(message: &impl Message, max: usize) -> io::Result<Vec<u8>> {
    let size = message.encoded_len();
    let length = u32::try_from(size).ok().filter(|_| size <= max).ok_or_else(|| invalid("too long"))?;
    let mut bytes = length.to_le_bytes().to_vec();
    bytes.extend(message.encode_to_vec());
    Ok(bytes)
}

fn body_size(head: [u8; 4], max: usize) -> io::Result<usize> {
    let size = usize::try_from(u32::from_le_bytes(head)).unwrap_or(usize::MAX);
    if size <= max { Ok(size) } else { Err(invalid("too long")) }
}

fn invalid(what: &'static str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what)
}

#[cfg(test)]
mod tests;
