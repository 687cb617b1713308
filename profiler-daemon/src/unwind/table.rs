//! The unwinding table of one file: rules by address, packed as the kernel half walks them.

use profiler_common::unwind::{MAX_ROWS_PER_PAGE, PAGE_SHIFT, Rule, row, row_rule};

use super::report::Report;

/// Bytes of text that a page covers.
pub(super) const PAGE_BYTES: u64 = 1 << PAGE_SHIFT;

/// Which rule is in force at which address of a file.
///
/// The first row of a page repeats what is in force where the page starts to have rules, so that
/// one page answers for all its addresses. An address before the first row has no rule.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Table {
    /// The address, as the file's own headers count it, where the first page starts: a multiple
    /// of 64 KiB.
    pub base: u64,
    /// The pages, one for each 64 KiB from `base` on.
    pub pages: Vec<PageRows>,
    /// The rows of all pages, by page: see [`profiler_common::unwind::row`]. Rule numbers index `rules`.
    pub rows: Vec<u32>,
    /// The distinct rules; the first is [`Rule::NONE`].
    pub rules: Vec<Rule>,
    /// What was found, and what could not be expressed.
    pub report: Report,
}

/// The rows of one page, by ascending address.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PageRows {
    /// Index of the first in [`Table::rows`].
    pub first_row: u32,
    /// How many there are, at most [`MAX_ROWS_PER_PAGE`].
    pub rows: u32,
}

impl Table {
    /// The rule in force at an address of the file.
    #[must_use]
    pub fn lookup(&self, address: u64) -> Rule {
        self.find(address).unwrap_or(Rule::NONE)
    }

    fn find(&self, address: u64) -> Option<Rule> {
        let distance = address.checked_sub(self.base)?;
        let page = self.pages.get(usize::try_from(distance >> PAGE_SHIFT).ok()?)?;
        let first = page.first_row as usize;
        let rows = self.rows.get(first..first.checked_add(page.rows as usize)?)?;
        let low = distance as u16;
        let after = rows.partition_point(|&row| (row >> 16) as u16 <= low);
        self.rules.get(usize::from(row_rule(*rows.get(after.checked_sub(1)?)?))).copied()
    }

    /// Bytes that the table takes in memory.
    #[must_use]
    pub fn memory_bytes(&self) -> usize {
        size_of::<Self>()
            + self.pages.capacity() * size_of::<PageRows>()
            + self.rows.capacity() * size_of::<u32>()
            + self.rules.capacity() * size_of::<Rule>()
    }

    /// Every address where another rule comes into force, with that rule.
    pub fn boundaries(&self) -> impl Iterator<Item = (u64, Rule)> + '_ {
        self.pages.iter().enumerate().flat_map(move |(at, page)| {
            let first = page.first_row as usize;
            let rows = self.rows.get(first..first + page.rows as usize).unwrap_or_default();
            rows.iter().map(move |&row| {
                let rule = self.rules.get(usize::from(row_rule(row))).copied().unwrap_or(Rule::NONE);
                (self.base + ((at as u64) << PAGE_SHIFT) + u64::from(row >> 16), rule)
            })
        })
    }
}

/// Makes the pages of a table from rules given by ascending address.
#[derive(Debug)]
pub(super) struct Writer {
    base: u64,
    pages: Vec<PageRows>,
    rows: Vec<u32>,
    /// Index of the first row of the page being written.
    first_row: usize,
    in_force: u16,
    dropped_pages: u64,
}

impl Writer {
    /// A writer whose first page holds the address `first`.
    pub(super) fn new(first: u64, rows: usize) -> Self {
        Self {
            base: first & !(PAGE_BYTES - 1),
            pages: Vec::new(),
            rows: Vec::with_capacity(rows),
            first_row: 0,
            in_force: 0,
            dropped_pages: 0,
        }
    }

    /// From `address` on, `rule` is in force; 0 stands for none. Addresses must ascend strictly.
    pub(super) fn put(&mut self, address: u64, rule: u16) {
        if rule == self.in_force {
            return;
        }
        let distance = address.saturating_sub(self.base);
        let low = distance as u16;
        while (self.pages.len() as u64) < distance >> PAGE_SHIFT {
            self.close_page();
            // Where the new row is the page's very first, nothing is left to repeat.
            let reached = self.pages.len() as u64 == distance >> PAGE_SHIFT;
            if self.in_force != 0 && !(reached && low == 0) {
                self.rows.push(row(0, self.in_force));
            }
        }
        self.in_force = rule;
        if rule != 0 || self.rows.len() > self.first_row {
            self.rows.push(row(low, rule));
        }
    }

    fn close_page(&mut self) {
        let count = self.rows.len() - self.first_row;
        if count > MAX_ROWS_PER_PAGE as usize {
            self.rows.truncate(self.first_row);
            self.dropped_pages += 1;
        }
        // Neither conversion can fail: the number of rows is limited long before.
        let first_row = u32::try_from(self.first_row).unwrap_or(u32::MAX);
        let rows = u32::try_from(self.rows.len() - self.first_row).unwrap_or_default();
        self.pages.push(PageRows { first_row: if rows == 0 { 0 } else { first_row }, rows });
        self.first_row = self.rows.len();
    }

    /// The table. What is in force at the end must have been ended by [`Writer::put`].
    pub(super) fn finish(mut self, rules: Vec<Rule>, mut report: Report) -> Table {
        self.close_page();
        while self.pages.last().is_some_and(|page| page.rows == 0) {
            self.pages.pop();
        }
        self.rows.shrink_to_fit();
        self.pages.shrink_to_fit();
        report.dropped_pages += self.dropped_pages;
        report.rows = self.rows.len() as u64;
        Table { base: self.base, pages: self.pages, rows: self.rows, rules, report }
    }
}

#[cfg(test)]
mod tests {
    use profiler_common::unwind::cfa;

    use super::*;

    const A: Rule = Rule { cfa: cfa::SP, cfa_offset: 8, ..Rule::NONE };
    const B: Rule = Rule { cfa: cfa::SP, cfa_offset: 16, ..Rule::NONE };

    fn table(rows: &[(u64, u16)]) -> Table {
        let mut writer = Writer::new(rows[0].0, 0);
        for &(address, rule) in rows {
            writer.put(address, rule);
        }
        writer.finish(vec![Rule::NONE, A, B], Report::default())
    }

    #[test]
    fn a_rule_holds_until_the_next_and_none_before_the_first() {
        let table = table(&[(0x40_1010, 1), (0x40_1020, 2), (0x40_1030, 0)]);
        assert_eq!(table.base, 0x40_0000);
        for (address, rule) in [
            (0x3f_ffff, Rule::NONE),
            (0x40_100f, Rule::NONE),
            (0x40_1010, A),
            (0x40_101f, A),
            (0x40_1020, B),
            (0x40_102f, B),
            (0x40_1030, Rule::NONE),
            (0x41_1010, Rule::NONE),
            (u64::MAX, Rule::NONE),
        ] {
            assert_eq!(table.lookup(address), rule, "{address:#x}");
        }
    }

    #[test]
    fn every_page_answers_for_itself() {
        let table =
            table(&[(0xffff, 1), (0x2_8000, 2), (0x3_0000, 1), (0x5_0000, 0), (0x8_0010, 1), (0x8_0011, 0)]);
        let rows: Vec<u32> = table.pages.iter().map(|page| page.rows).collect();
        assert_eq!(rows, [1, 1, 2, 1, 1, 0, 0, 0, 2]);
        for (address, rule) in [
            (0xfffe, Rule::NONE),
            (0xffff, A),
            (0x1_0000, A),
            (0x2_7fff, A),
            (0x2_8000, B),
            (0x2_ffff, B),
            (0x3_0000, A),
            (0x4_ffff, A),
            (0x5_0000, Rule::NONE),
            (0x8_000f, Rule::NONE),
            (0x8_0010, A),
            (0x8_0011, Rule::NONE),
        ] {
            assert_eq!(table.lookup(address), rule, "{address:#x}");
        }
    }

    #[test]
    fn equal_neighbours_are_one_row() {
        let table = table(&[(0x10, 1), (0x20, 1), (0x30, 2), (0x40, 2), (0x50, 0)]);
        assert_eq!(table.rows, [row(0x10, 1), row(0x30, 2), row(0x50, 0)]);
        let boundaries: Vec<(u64, Rule)> = table.boundaries().collect();
        assert_eq!(boundaries, [(0x10, A), (0x30, B), (0x50, Rule::NONE)]);
    }

    #[test]
    fn a_page_with_too_many_rows_has_none_and_is_counted() {
        let mut writer = Writer::new(0, 0);
        for address in 0..=u64::from(MAX_ROWS_PER_PAGE) {
            writer.put(address, 1 + (address % 2) as u16);
        }
        writer.put(0x1_8000, 0);
        let table = writer.finish(vec![Rule::NONE, A, B], Report::default());
        assert_eq!((table.lookup(5), table.report.dropped_pages), (Rule::NONE, 1));
        assert_eq!((table.lookup(0x1_0000), table.lookup(0x1_8000)), (A, Rule::NONE));
    }
}
