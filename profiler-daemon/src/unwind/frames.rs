//! Walks the frame descriptions of a section: which functions there are, and their raw rows.

use gimli::{BaseAddresses, CommonInformationEntry, EndianSlice, LittleEndian, UnwindOffset, UnwindSection};
use profiler_common::unwind::{MAX_RULES, Rule};
use rustc_hash::FxHashMap;

use super::Problem;
use super::arch::Registers;
use super::image::Image;
use super::program::{self, Factors, Malformed};
use super::report::Report;

/// Most functions of one file.
const MAX_FUNCTIONS: usize = 1 << 21;
/// Most rows of one file, before merging.
const MAX_ROWS: usize = 1 << 23;
/// Most bytes of a common entry; compilers write about 30.
const MAX_COMMON: u32 = 4096;
/// Most distinct common entries; a file has a handful.
const MAX_COMMONS: usize = 1 << 14;

type Slice<'a> = EndianSlice<'a, LittleEndian>;

/// Addresses that one frame description speaks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Span {
    /// First address.
    pub(super) start: u64,
    /// First address after.
    pub(super) end: u64,
    /// Its first row in [`Frames::rows`].
    pub(super) first: u32,
    /// How many rows it has.
    pub(super) rows: u32,
}

/// From `start + offset` of its span on, the rule is in force.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct RawRow {
    pub(super) offset: u32,
    pub(super) rule: u16,
}

/// Everything found in the sections of a file.
#[derive(Debug)]
pub(super) struct Frames {
    /// In no order, and possibly overlapping, until sorted.
    pub(super) spans: Vec<Span>,
    pub(super) rows: Vec<RawRow>,
    pub(super) rules: Rules,
    pub(super) report: Report,
}

/// The distinct rules of a file.
#[derive(Debug)]
pub(super) struct Rules {
    list: Vec<Rule>,
    numbers: FxHashMap<u64, u16>,
    last: (Rule, u16),
}

impl Rules {
    fn new() -> Self {
        let numbers = [(Rule::NONE.pack(), 0)].into_iter().collect();
        Self { list: vec![Rule::NONE], numbers, last: (Rule::NONE, 0) }
    }

    /// The number of a rule; `None` when there is none left.
    pub(super) fn number(&mut self, rule: Rule) -> Option<u16> {
        // Most rows take turns between few rules, many repeat the one before.
        if self.last.0 == rule {
            return Some(self.last.1);
        }
        let number = match self.numbers.get(&rule.pack()) {
            Some(&number) => number,
            None if self.list.len() >= MAX_RULES as usize => return None,
            None => {
                let number = u16::try_from(self.list.len()).ok()?;
                self.list.push(rule);
                self.numbers.insert(rule.pack(), number);
                number
            }
        };
        self.last = (rule, number);
        Some(number)
    }

    pub(super) fn into_list(self) -> Vec<Rule> {
        self.list
    }
}

/// Which section it is: they differ in how entries are told apart and where they end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// `.eh_frame` of known size: entries of length zero that a linker left in the middle of it
    /// are stepped over.
    EhFrame,
    /// `.eh_frame` up to the first entry of length zero: nothing else says where it ends.
    EhFrameUpToZero,
    /// `.debug_frame`.
    DebugFrame,
}

/// A common entry, as far as functions need it.
struct Common<'a> {
    entry: CommonInformationEntry<Slice<'a>>,
    factors: Factors,
    initial: Registers,
}

impl Frames {
    pub(super) fn new() -> Self {
        Self { spans: Vec::new(), rows: Vec::new(), rules: Rules::new(), report: Report::default() }
    }

    /// Adds what a section says about code of the file.
    pub(super) fn add_section<'a, S>(
        &mut self,
        section: &S,
        bytes: &[u8],
        kind: Kind,
        bases: &BaseAddresses,
        image: &Image,
    ) -> Result<(), Problem>
    where
        S: UnwindSection<Slice<'a>>,
        S::Offset: UnwindOffset<usize>,
    {
        let mut commons = FxHashMap::default();
        let mut at = 0;
        while at < bytes.len() {
            let Some(entry) = Entry::at(bytes, at) else {
                self.report.truncated += 1;
                break;
            };
            if entry.is_empty() {
                if kind == Kind::EhFrameUpToZero {
                    break;
                }
            } else if !entry.is_common(kind)
                && self.add_function(section, bytes, bases, image, at, &mut commons)?.is_err()
            {
                self.report.malformed += 1;
            }
            at = entry.next;
        }
        Ok(())
    }

    /// The outer error ends the file, the inner one costs the function.
    fn add_function<'a, S>(
        &mut self,
        section: &S,
        bytes: &[u8],
        bases: &BaseAddresses,
        image: &Image,
        at: usize,
        commons: &mut FxHashMap<usize, Option<Common<'a>>>,
    ) -> Result<Result<(), Malformed>, Problem>
    where
        S: UnwindSection<Slice<'a>>,
        S::Offset: UnwindOffset<usize>,
    {
        let Ok(partial) = section.partial_fde_from_offset(bases, at.into()) else {
            return Ok(Err(Malformed));
        };
        let offset: usize = UnwindOffset::into(partial.cie_offset());
        if commons.len() >= MAX_COMMONS && !commons.contains_key(&offset) {
            return Ok(Err(Malformed));
        }
        let common = commons.entry(offset).or_insert_with(|| Common::read(section, bytes, bases, offset));
        let Some(common) = common else { return Ok(Err(Malformed)) };
        let Ok(function) = partial.parse(|_, _, _| Ok(common.entry.clone())) else {
            return Ok(Err(Malformed));
        };

        let (start, len) = (function.initial_address(), function.len());
        let code = image.code_at(start).filter(|_| len > 0);
        let Some(end) = start.checked_add(len).filter(|&end| code.is_some_and(|code| end <= code.end()))
        else {
            self.report.outside += 1;
            return Ok(Ok(()));
        };
        if self.spans.len() >= MAX_FUNCTIONS {
            let (size, limit) = (self.spans.len() as u64 + 1, MAX_FUNCTIONS as u64);
            return Err(Problem::TooLarge { what: "number of functions", size, limit });
        }
        let first = self.rows.len();
        let ran = program::run(
            function.instructions(section, bases),
            common.factors,
            &common.initial,
            start,
            |address, registers| {
                if address >= end || self.rows.len() >= MAX_ROWS {
                    return false;
                }
                let (rule, form, loss) = registers.rule(section);
                self.report.add(form);
                if let Some(loss) = loss {
                    self.report.add(loss);
                }
                let rule = self.rules.number(rule).unwrap_or_else(|| {
                    self.report.dropped_rules += 1;
                    0
                });
                let Ok(offset) = u32::try_from(address - start) else { return false };
                self.rows.push(RawRow { offset, rule });
                true
            },
        );
        if self.rows.len() >= MAX_ROWS {
            let limit = MAX_ROWS as u64;
            return Err(Problem::TooLarge { what: "number of rows", size: limit, limit });
        }
        if ran.is_err() {
            // Whatever came before the mistake is not to be trusted either.
            self.rows.truncate(first);
            self.rows.push(RawRow { offset: 0, rule: 0 });
        } else {
            self.report.functions += 1;
        }
        self.push_span(start, end, first);
        Ok(ran)
    }

    /// Adds a span whose rows are those from `first` on.
    fn push_span(&mut self, start: u64, end: u64, first: usize) {
        let rows = u32::try_from(self.rows.len() - first).unwrap_or_default();
        self.spans.push(Span { start, end, first: u32::try_from(first).unwrap_or_default(), rows });
    }

    /// Adds a span with one rule.
    pub(super) fn add_span(&mut self, start: u64, end: u64, rule: Rule) {
        if self.spans.len() >= MAX_FUNCTIONS || self.rows.len() >= MAX_ROWS {
            return;
        }
        let Some(rule) = self.rules.number(rule) else { return };
        let first = self.rows.len();
        self.rows.push(RawRow { offset: 0, rule });
        self.push_span(start, end, first);
    }
}

impl<'a> Common<'a> {
    fn read<S>(section: &S, bytes: &[u8], bases: &BaseAddresses, offset: usize) -> Option<Self>
    where
        S: UnwindSection<Slice<'a>>,
        S::Offset: UnwindOffset<usize>,
    {
        // Checked before gimli reads it: many functions could each name another huge one.
        let entry = Entry::at(bytes, offset)?;
        if entry.next - offset > MAX_COMMON as usize {
            return None;
        }
        let entry = section.cie_from_offset(bases, offset.into()).ok()?;
        if entry.address_size() != 8 || entry.return_address_register() != super::arch::RETURN_ADDRESS {
            return None;
        }
        let factors = Factors::of(&entry);
        let initial = program::initial(entry.instructions(section, bases), factors).ok()?;
        Some(Self { entry, factors, initial })
    }
}

/// The head of an entry, read by hand: one that cannot be parsed must not hide those behind it.
struct Entry {
    /// What is where the entry's identifier should be: as 4 bytes, and as 8 where its length has 8.
    ids: Option<(u32, Option<u64>)>,
    /// Where the next entry is.
    next: usize,
}

impl Entry {
    /// `None` where the section ends in the middle of it.
    fn at(bytes: &[u8], at: usize) -> Option<Self> {
        let word = |at: usize| bytes.get(at..)?.first_chunk::<4>().map(|word| u32::from_le_bytes(*word));
        let long = |at: usize| bytes.get(at..)?.first_chunk::<8>().map(|long| u64::from_le_bytes(*long));
        let (is_long, len, start) = match word(at)? {
            u32::MAX => (true, long(at + 4)?, at + 12),
            len => (false, u64::from(len), at + 4),
        };
        let next = start.checked_add(usize::try_from(len).ok()?).filter(|&next| next <= bytes.len())?;
        let ids = if len == 0 { None } else { Some((word(start)?, long(start).filter(|_| is_long))) };
        Some(Self { ids, next })
    }

    fn is_empty(&self) -> bool {
        self.ids.is_none()
    }

    /// Whether it is a common entry (CIE), not a frame description (FDE).
    fn is_common(&self, kind: Kind) -> bool {
        match (kind, self.ids) {
            (Kind::DebugFrame, Some((_, Some(id)))) => id == u64::MAX,
            (Kind::DebugFrame, Some((id, None))) => id == u32::MAX,
            (_, Some((id, _))) => id == 0,
            (_, None) => false,
        }
    }
}
