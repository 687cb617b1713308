//! The symbol reader: a process that has nothing but the files it is handed, and answers what is at
//! their addresses.

use std::io::{self, Write as _};
use std::os::fd::{AsFd as _, OwnedFd};
use std::os::unix::net::UnixStream;
use std::process::ExitCode;
use std::sync::Arc;

use crate::procs::ObjectFile;

use super::confine;
use super::debug_files::DebugFile;
use super::demangle::{cut, demangle};
use super::elf::{ElfSymbols, Limits, Reason};
use super::wire::{self, Answer, Found, MAX_INLINED, MAX_SOURCE, Request};

/// First argument with which the program runs [`read_symbols`] instead of a command.
pub const SYMBOL_READER: &str = "symbol-reader";

/// What loading a file may take, and then each address, seconds of CPU. Debug information that takes
/// longer would lose its place to the symbol table in any case.
const MAX_CPU: u64 = 3;

/// Answers what comes through standard input, a socket, until the other side hangs up. The process
/// does nothing else, and cannot do much else from then on.
#[must_use]
pub fn read_symbols() -> ExitCode {
    match begin().and_then(|socket| serve(&socket)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // Nobody reads it when the daemon started this; somebody who tried it by hand does.
            let _ = writeln!(io::stderr(), "profiler: {SYMBOL_READER} is for the profiler itself: {error}");
            ExitCode::FAILURE
        }
    }
}

fn begin() -> io::Result<UnixStream> {
    rustix::thread::set_name(c"symbol-reader")?;
    let socket = UnixStream::from(io::stdin().as_fd().try_clone_to_owned()?);
    confine::privileges()?;
    Ok(socket)
}

fn serve(socket: &UnixStream) -> io::Result<()> {
    let mut symbols = None;
    while let Some((request, files)) = wire::receive_request(socket)? {
        let symbols = match &mut symbols {
            Some(symbols) => symbols,
            none => {
                confine::memory(request.memory_bytes)?;
                none.insert(ElfSymbols::new(Limits {
                    memory_bytes: request.memory_bytes,
                    max_debug_info_bytes: request.max_debug_info_bytes,
                    inlined: request.inlined,
                }))
            }
        };
        let mut reasons = Vec::new();
        confine::cpu(MAX_CPU)?;
        load(symbols, &request, files, &mut reasons)?;
        for (index, &address) in request.addresses.iter().enumerate() {
            confine::cpu(MAX_CPU)?;
            let found = symbols.find(request.file, address, |reason| reasons.push(reason));
            let found = found.map(readable);
            let more_symbols = symbols.has_more_symbols(request.file);
            // Each is said once.
            reasons.sort_unstable();
            reasons.dedup();
            // Looked at once for a request: it costs as much as a simple answer.
            let is_last = index + 1 == request.addresses.len();
            let memory_bytes = if is_last { memory_bytes() } else { 0 };
            wire::send_answer(socket, &Answer::new(found, &reasons, more_symbols, memory_bytes))?;
            reasons.clear();
        }
        symbols.sweep();
    }
    Ok(())
}

/// Loads the files of a request, where they are not loaded already.
fn load(
    symbols: &mut ElfSymbols,
    request: &Request,
    files: Vec<OwnedFd>,
    reasons: &mut Vec<Reason>,
) -> io::Result<()> {
    if symbols.has(request.file, request.debug_file) {
        return Ok(());
    }
    let path = Arc::<str>::from("");
    let mut files = files.into_iter();
    let file = files.next().ok_or(io::ErrorKind::InvalidData)?;
    let file = ObjectFile::new(file, Arc::clone(&path), request.file)?;
    let debug_file = match files.next() {
        Some(debug_file) => Some(DebugFile {
            file: ObjectFile::new(debug_file, path, request.debug_file)?,
            trusted: request.trusted,
        }),
        None => None,
    };
    symbols.load(file, debug_file, request.debug_info, |reason| reasons.push(reason));
    Ok(())
}

/// What was found, with names for people, within the bounds of an answer.
fn readable(mut found: Found) -> Found {
    let source = |source: Option<String>| source.map(|path| cut(&path, MAX_SOURCE).to_owned());
    found.name = demangle(&found.name);
    found.source = source(found.source);
    // Innermost last.
    let surplus = found.inlined.len().saturating_sub(MAX_INLINED);
    found.inlined.drain(..surplus);
    found.inlined.retain(|inlined| !inlined.name.is_empty());
    for inlined in &mut found.inlined {
        inlined.name = demangle(&inlined.name);
        inlined.source = source(inlined.source.take());
    }
    found
}

/// Memory without the pages of mapped files, bytes; 0 where `/proc` cannot be read.
fn memory_bytes() -> u64 {
    // Resident pages, and those of them that files are behind: second and third field, proc(5).
    let text = std::fs::read_to_string("/proc/self/statm").unwrap_or_default();
    let mut pages = text.split_whitespace().skip(1).map_while(|word| word.parse::<u64>().ok());
    let (resident, mapped) = (pages.next().unwrap_or_default(), pages.next().unwrap_or_default());
    resident.saturating_sub(mapped) * rustix::param::page_size() as u64
}
