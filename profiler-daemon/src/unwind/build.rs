//! From a file to its table: sections to raw rows, spans in order, gaps filled, pages written.

use std::cmp::Reverse;
use std::os::fd::AsFd;

use gimli::{BaseAddresses, DebugFrame, EhFrame, LittleEndian};

use super::evidence::{Evidence, Recorder};
use super::frames::{Frames, Kind, Span};
use super::image::{Image, Source};
use super::table::{PAGE_BYTES, Table, Writer};
use super::unclaimed::{self, covered};
use super::{Problem, UnwindError, arch};
use crate::procs::ObjectFile;

/// Most 64 KiB pages of one table: 4 GiB of text.
const MAX_PAGES: u64 = 1 << 16;

/// A table, and what it was made from.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Built {
    /// The table.
    pub table: Table,
    /// Tells whether another file has the same table; `None` where that cannot be told.
    pub evidence: Option<Evidence>,
}

/// The unwinding table of a mapped file, and what it was made from.
///
/// # Errors
///
/// When the file has no unwinding information, is not for this architecture, or exceeds a limit.
pub fn build(file: &ObjectFile) -> Result<Built, UnwindError> {
    let recorder = Recorder::default();
    let table = build_from(Source::recorded(file, &recorder)).map_err(|problem| UnwindError {
        path: file.path().clone(),
        build_id: file.elf().and_then(|elf| elf.build_id.clone()),
        problem,
    })?;
    Ok(Built { table, evidence: recorder.finish() })
}

/// The unwinding table of an open file.
///
/// # Errors
///
/// As of [`build`].
pub fn build_from_file(file: &impl AsFd) -> Result<Table, Problem> {
    build_from(Source::file(file))
}

/// The unwinding table of a file in memory, such as the vDSO.
///
/// # Errors
///
/// As of [`build`].
pub fn build_from_bytes(bytes: &[u8]) -> Result<Table, Problem> {
    build_from(Source::Bytes(bytes))
}

fn build_from(source: Source<'_>) -> Result<Table, Problem> {
    let image = Image::read(source)?;
    let mut frames = Frames::new();
    add_eh_frame(&mut frames, &image, source)?;
    in_order(&mut frames);
    add_debug_frame(&mut frames, &image, source)?;
    let unclaimed = unclaimed::find(&frames, &image, source);
    frames.report.entry_points = unclaimed.entry_points;
    frames.report.trampolines = unclaimed.trampolines;
    frames.report.plt_slots = unclaimed.plt_slots;
    for (start, end, rule) in unclaimed.rules {
        frames.add_span(start, end, rule);
    }
    in_order(&mut frames);
    if frames.spans.is_empty() {
        return Err(Problem::NoInformation);
    }
    write(frames)
}

fn add_eh_frame(frames: &mut Frames, image: &Image, source: Source<'_>) -> Result<(), Problem> {
    let Some((range, size_known)) = image.eh_frame else { return Ok(()) };
    let bytes = image.read_eh_frame(source, range)?;
    let mut bases = BaseAddresses::default().set_eh_frame(range.address).set_text(image.text);
    if let Some(header) = image.eh_frame_hdr {
        bases = bases.set_eh_frame_hdr(header.address);
    }
    let kind = if size_known { Kind::EhFrame } else { Kind::EhFrameUpToZero };
    frames.add_section(&EhFrame::new(&bytes, LittleEndian), &bytes, kind, &bases, image)
}

/// Adds what `.debug_frame` knows of code that `.eh_frame` does not speak of: Go has that only.
fn add_debug_frame(frames: &mut Frames, image: &Image, source: Source<'_>) -> Result<(), Problem> {
    let before = frames.spans.len();
    let result = image.read_debug_frame(source).and_then(|bytes| {
        let Some(bytes) = bytes else { return Ok(()) };
        let mut section = DebugFrame::new(&bytes, LittleEndian);
        section.set_address_size(8);
        frames.add_section(&section, &bytes, Kind::DebugFrame, &BaseAddresses::default(), image)
    });
    match result {
        Ok(()) => {}
        // A bonus where the other section has been read, all there is where it has not.
        Err(_) if before > 0 => frames.report.truncated += 1,
        Err(problem) => return Err(problem),
    }
    let added = frames.spans.split_off(before);
    let known = &frames.spans;
    let mut new: Vec<Span> = added.into_iter().filter(|span| !covered(known, span.start, span.end)).collect();
    frames.spans.append(&mut new);
    in_order(frames);
    Ok(())
}

/// Sorts spans and makes them disjoint. Where two overlap, the later start wins from there on, as
/// it does for everybody who searches the table of `.eh_frame_hdr`.
fn in_order(frames: &mut Frames) {
    frames.spans.sort_unstable_by_key(|span| (span.start, Reverse(span.end), span.first));
    let before = frames.spans.len();
    frames.spans.dedup_by_key(|span| span.start);
    frames.report.overlapping += (before - frames.spans.len()) as u64;
    let starts: Vec<u64> = frames.spans.iter().skip(1).map(|span| span.start).collect();
    for (span, next) in frames.spans.iter_mut().zip(starts) {
        if span.end > next {
            span.end = next;
            frames.report.overlapping += 1;
        }
    }
}

fn write(mut frames: Frames) -> Result<Table, Problem> {
    let first = frames.spans.first().map_or(0, |span| span.start);
    let last = frames.spans.last().map_or(0, |span| span.end);
    let pages = (last - (first & !(PAGE_BYTES - 1))).div_ceil(PAGE_BYTES);
    if pages > MAX_PAGES {
        return Err(Problem::TooLarge { what: "number of 64 KiB text pages", size: pages, limit: MAX_PAGES });
    }
    let at_entry = frames.rules.number(arch::AT_ENTRY).unwrap_or_default();
    let mut writer = Writer::new(first, frames.rows.len());
    let mut end = first;
    for span in &frames.spans {
        let from = span.first as usize;
        let rows = frames.rows.get(from..from + span.rows as usize).unwrap_or_default();
        let gap = span.start - end;
        if gap > 0 {
            let padding =
                gap < arch::FUNCTION_ALIGNMENT && span.start.is_multiple_of(arch::FUNCTION_ALIGNMENT);
            let entered = rows.first().is_some_and(|row| row.rule == at_entry);
            writer.put(end, if padding && entered { at_entry } else { 0 });
        }
        for row in rows {
            let address = span.start + u64::from(row.offset);
            // An overlapping function may have cut this one short.
            if address < span.end {
                writer.put(address, row.rule);
            }
        }
        end = span.end;
    }
    writer.put(end, 0);
    Ok(writer.finish(frames.rules.into_list(), frames.report))
}
