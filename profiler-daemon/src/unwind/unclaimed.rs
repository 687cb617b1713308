//! Code that no frame description speaks of, but of which it is certain what must hold there.
//!
//! - The entry point: nothing calls it, so it is the outermost frame.
//! - The signal trampolines of musl and Go: code that makes the system call `rt_sigreturn` stands on
//!   a signal frame, or the kernel would kill the process.
//! - Procedure linkage tables by lld: their slots are recognised byte by byte.

use memchr::memmem;
use profiler_common::unwind::Rule;

use super::arch::code;
use super::frames::{Frames, Span};
use super::image::{Image, Range, Source};

/// Most bytes of an entry point: the start-up code of every C library is shorter, and what
/// follows it on the stack is no caller.
const MAX_ENTRY: u64 = 64;

/// Most bytes of code of one file that are searched for trampolines. Files with that much code
/// that nothing describes are Go programs, whose trampoline is near the front with the runtime.
const MAX_SEARCH: u64 = 16 << 20;

/// Bytes searched at a time.
const STEP: u64 = 1 << 20;

/// Gaps shorter than this are padding.
const MIN_GAP: u64 = 16;

/// Most bytes of one procedure linkage table.
const MAX_PLT: u64 = 1 << 20;

/// What was found.
#[derive(Debug, Default)]
pub(super) struct Unclaimed {
    /// First address, first address after, and what is in force between.
    pub(super) rules: Vec<(u64, u64, Rule)>,
    pub(super) entry_points: u64,
    pub(super) trampolines: u64,
    pub(super) plt_slots: u64,
}

/// Looks between the spans, which must be in order.
pub(super) fn find(frames: &Frames, image: &Image, source: Source<'_>) -> Unclaimed {
    let mut found = Unclaimed::default();
    found.entry_point(&frames.spans, image, source);
    found.trampolines(&frames.spans, image, source);
    for plt in &image.plts {
        found.plt(&frames.spans, *plt, image, source);
    }
    found
}

/// Whether any of the spans, which must be in order, has an address in `start..end`.
pub(super) fn covered(spans: &[Span], start: u64, end: u64) -> bool {
    let after = spans.partition_point(|span| span.end <= start);
    spans.get(after).is_some_and(|span| span.start < end)
}

impl Unclaimed {
    fn entry_point(&mut self, spans: &[Span], image: &Image, source: Source<'_>) {
        let start = image.entry;
        let Some(code) = image.code_at(start).filter(|_| start != 0) else { return };
        if covered(spans, start, start.saturating_add(1)) {
            return;
        }
        let next = spans.get(spans.partition_point(|span| span.start <= start));
        let end = image
            .next_symbol(source, start, MAX_ENTRY)
            .min(code.end())
            .min(next.map_or(u64::MAX, |span| span.start));
        self.rules.push((start, end, Rule::END));
        self.entry_points += 1;
    }

    fn trampolines(&mut self, spans: &[Span], image: &Image, source: Source<'_>) {
        let mut left = MAX_SEARCH;
        for code in &image.code {
            let first = spans.partition_point(|span| span.end <= code.address);
            let mut start = code.address;
            let inside = spans.get(first..).unwrap_or_default().iter().map(|span| (span.start, span.end));
            for (end, next) in inside.chain([(code.end(), code.end())]) {
                let end = end.min(code.end());
                if end.saturating_sub(start) >= MIN_GAP {
                    left = self.search(code, start, end, source, left);
                }
                start = start.max(next);
                if left == 0 || start >= code.end() {
                    break;
                }
            }
        }
    }

    /// Searches code from `start` to `end`, at most `left` bytes; returns how many may follow.
    fn search(&mut self, code: &Range, start: u64, end: u64, source: Source<'_>, mut left: u64) -> u64 {
        let mut at = start;
        while at < end && left > 0 {
            let size = STEP.min(end - at).min(left);
            let Some(offset) = code.offset.checked_add(at - code.address) else { return left };
            let Ok(bytes) = source.read(offset, size) else { return left };
            for place in memmem::find_iter(&bytes, &code::TRAMPOLINE_END) {
                let Some(length) = bytes.get(..place).and_then(code::trampoline_start) else { continue };
                let first = at + (place - length) as u64;
                let after = at + (place + code::TRAMPOLINE_END.len()) as u64;
                // The handler's return address is the first byte, and is looked up one before.
                self.rules.push((first.saturating_sub(1).max(start), after, code::SIGNAL));
                self.trampolines += 1;
            }
            left -= size;
            if at + size >= end {
                break;
            }
            // A trampoline must not hide between two steps.
            let overlap = (code::TRAMPOLINE_START + code::TRAMPOLINE_END.len()) as u64;
            at += size.saturating_sub(overlap).max(1);
        }
        left
    }

    fn plt(&mut self, spans: &[Span], plt: Range, image: &Image, source: Source<'_>) {
        let slot = code::PLT_SLOT as u64;
        let inside = image.code_at(plt.address).is_some_and(|code| plt.end() <= code.end());
        if !inside || !plt.address.is_multiple_of(slot) || covered(spans, plt.address, plt.end()) {
            return;
        }
        let Ok(bytes) = source.read(plt.offset, plt.size.min(MAX_PLT)) else { return };
        for (at, bytes) in bytes.as_chunks::<{ code::PLT_SLOT }>().0.iter().enumerate() {
            let Some([(_, first), (second_at, second)]) = code::plt_rules(bytes) else { continue };
            let start = plt.address + at as u64 * slot;
            for (from, to, rule) in [(0, second_at, first), (second_at, slot, second)] {
                match self.rules.last_mut() {
                    _ if from == to => {}
                    Some((_, end, last)) if *end == start + from && *last == rule => *end = start + to,
                    _ => self.rules.push((start + from, start + to, rule)),
                }
            }
            self.plt_slots += 1;
        }
    }
}
