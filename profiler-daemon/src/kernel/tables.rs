//! The unwinding tables in the kernel: installs them, publishes who maps what, reuses old room.
//!
//! Programs read the arrays while we write them. So nothing that a program may be reading is ever
//! written over: a table, or a list of mappings, goes into unused room and is then referred to by
//! one update of the process map. What is no longer referred to is used again only after every
//! program that was running then has ended, and no entry names it any more: children inherit their
//! parent's list in the kernel, without asking us.

use std::collections::HashSet;
use std::hash::{BuildHasher as _, RandomState};
use std::ops::Range;
use std::time::{Duration, Instant};

use aya::Ebpf;
use aya::maps::{HashMap, MapData, MapError};
use profiler_common::unwind::{MAX_MAPPINGS, MAX_RULES, Mapping, ProcessEntry, ROWS_PER_CHUNK, Rule, page};
use range_alloc::RangeAllocator;
use rustc_hash::FxHashMap;
use zerocopy::{FromBytes, IntoBytes};

use super::KernelError;
use super::mapped::MappedArray;
use crate::model::ProcessId;

/// How long room stays unused where the kernel cannot tell us that all programs have ended.
/// Programs run for microseconds.
const BLIND_GRACE: Duration = Duration::from_secs(5);

/// Sizes of the arrays.
#[derive(Clone, Copy, Debug)]
pub(super) struct Sizes {
    pub(super) chunks: u32,
    pub(super) pages: u32,
    pub(super) mappings: u32,
}

/// An installed table: what a mapping needs to refer to it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InstalledTable {
    /// Index of its first page.
    pub first_page: u32,
    /// Number of its pages.
    pub pages: u32,
    /// Where its rows lie: array value, and range of rows in it.
    rows: Vec<(u32, Range<u32>)>,
    /// The rules it uses, by number.
    rules: Vec<u16>,
}

/// What the tables take and hold.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TableStats {
    /// Tables installed.
    pub tables: u64,
    /// Rows of all tables, and how many there is room for.
    pub rows: (u64, u64),
    /// Processes whose mappings are published.
    pub processes: u64,
}

/// There is no room for a table or a list of mappings.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the unwinding tables have no room for {0} more {1}: raise `unwind.table_bytes`")]
pub struct NoRoom(pub u64, pub &'static str);

/// The kernel's unwinding tables; the only writer of their maps.
pub struct Tables {
    processes: HashMap<MapData, u32, [u8; size_of::<ProcessEntry>()]>,
    mappings: MappedArray,
    pages: MappedArray,
    rows: MappedArray,
    rules: MappedArray,
    rule_ids: Rules,
    free_mappings: RangeAllocator<u32>,
    free_pages: RangeAllocator<u32>,
    /// One for each value of the row array: the rows of a page must not straddle two.
    free_rows: Vec<RangeAllocator<u32>>,
    /// Lists by number. Published ones and retired ones.
    lists: FxHashMap<u32, List>,
    /// Published lists by their contents: processes that map the same, as children do at first, share one.
    /// The key is secret, so that nobody can map what collides.
    by_contents: FxHashMap<u64, u32>,
    contents: RandomState,
    published: FxHashMap<u32, u32>,
    retired_lists: Vec<u32>,
    retired_tables: Vec<InstalledTable>,
    retired_at: Option<Instant>,
    next_list: u32,
    stats: TableStats,
}

/// A list of mappings.
#[derive(Debug)]
struct List {
    range: Range<u32>,
    contents: u64,
    /// Processes for which it is published.
    users: u32,
}

/// The numbers of rules, and how many tables use each.
#[derive(Debug, Default)]
struct Rules {
    numbers: FxHashMap<Rule, u16>,
    users: Vec<(Rule, u32)>,
    free: Vec<u16>,
}

impl Tables {
    pub(super) fn take(ebpf: &mut Ebpf, sizes: Sizes) -> Result<Self, KernelError> {
        let mut take = |name| ebpf.take_map(name).ok_or(KernelError::Missing(name));
        let mut array = |name, slot_bytes, slots| MappedArray::new(name, take(name)?, slot_bytes, slots);
        let mappings = array("MAPPINGS", size_of::<Mapping>(), sizes.mappings)?;
        let pages = array("PAGES", 8, sizes.pages)?;
        let rows = array("ROWS", ROWS_PER_CHUNK * 4, sizes.chunks)?;
        let rules = array("RULES", 8, MAX_RULES)?;
        let processes =
            take("PROCESSES")?.try_into().map_err(|source| KernelError::Map { name: "PROCESSES", source })?;
        let mut tables = Self {
            processes,
            free_mappings: RangeAllocator::new(0..mappings.slots()),
            free_pages: RangeAllocator::new(0..pages.slots()),
            free_rows: (0..rows.slots()).map(|_| RangeAllocator::new(0..ROWS_PER_CHUNK as u32)).collect(),
            mappings,
            pages,
            rows,
            rules,
            rule_ids: Rules::default(),
            lists: FxHashMap::default(),
            by_contents: FxHashMap::default(),
            contents: RandomState::new(),
            published: FxHashMap::default(),
            retired_lists: Vec::new(),
            retired_tables: Vec::new(),
            retired_at: None,
            // 0 says that nothing is known.
            next_list: 1,
            stats: TableStats {
                rows: (0, u64::from(sizes.chunks) * ROWS_PER_CHUNK as u64),
                ..TableStats::default()
            },
        };
        // Number 0 is no rule: what is all zero must mean nothing. It never goes.
        let _zero = tables.take_rule(Rule::NONE);
        Ok(tables)
    }

    /// Writes a table: `pages` as (first row, number of rows) into `rows`, whose rule numbers index
    /// `rules`. Nothing refers to it yet.
    ///
    /// # Errors
    /// There is no room; nothing was written then.
    pub fn install(
        &mut self,
        pages: &[(u32, u32)],
        rows: &[u32],
        rules: &[Rule],
    ) -> Result<InstalledTable, NoRoom> {
        let no_rows = NoRoom(rows.len() as u64, "rows");
        let no_pages = NoRoom(pages.len() as u64, "pages");
        let count = u32::try_from(pages.len()).map_err(|_| no_pages)?;
        let page_range =
            if count == 0 { 0..0 } else { self.free_pages.allocate_range(count).map_err(|_| no_pages)? };
        let (rows_at, rules_at) = (Vec::new(), Vec::new());
        let mut table =
            InstalledTable { first_page: page_range.start, pages: count, rows: rows_at, rules: rules_at };
        // One file, made for that, must not take the numbers of all others.
        let few = rules.len() <= MAX_RULES as usize / 8;
        for &rule in rules {
            let Some(id) = few.then(|| self.take_rule(rule)).flatten() else {
                self.free(&table);
                return Err(NoRoom(rules.len() as u64, "rules"));
            };
            table.rules.push(id);
        }
        let mut at = page_range.start;
        for group in groups(pages) {
            let wanted: u32 = group.iter().map(|&(_, rows)| rows).sum();
            let Some((chunk, range)) = self.allocate_rows(wanted) else {
                self.free(&table);
                return Err(no_rows);
            };
            let first_row = chunk * ROWS_PER_CHUNK as u32 + range.start;
            if wanted > 0 {
                table.rows.push((chunk, range));
            }
            // In one piece each: a place of the array is mapped once for many pages.
            let mut global: Vec<u32> = Vec::with_capacity(wanted as usize);
            let mut entries: Vec<u64> = Vec::with_capacity(group.len());
            for &(first, number) in group {
                let own = rows.get(first as usize..(first as usize).saturating_add(number as usize));
                let own = own.unwrap_or_default();
                entries.push(page(first_row + global.len() as u32, own.len() as u32));
                global.extend(own.iter().map(|row| {
                    row & 0xffff_0000
                        | u32::from(table.rules.get((row & 0xffff) as usize).copied().unwrap_or(0))
                }));
            }
            if !(self.rows.write(first_row as usize * 4, global.as_bytes())
                && self.pages.write(at as usize * 8, entries.as_bytes()))
            {
                self.free(&table);
                return Err(no_rows);
            }
            at += group.len() as u32;
        }
        self.stats.tables += 1;
        self.stats.rows.0 += rows.len() as u64;
        Ok(table)
    }

    /// Gives a table's room back. No published list may refer to it any more.
    pub fn remove(&mut self, table: InstalledTable) {
        self.stats.tables = self.stats.tables.saturating_sub(1);
        let rows: u64 = table.rows.iter().map(|(_, range)| u64::from(range.end - range.start)).sum();
        self.stats.rows.0 = self.stats.rows.0.saturating_sub(rows);
        self.retired_tables.push(table);
        self.retired_at = Some(Instant::now());
    }

    /// Says what a process maps, in ascending order; replaces what was said before. Returns how many
    /// mappings were left out because one process may not have as many.
    ///
    /// # Errors
    /// There is no room for the list, or the kernel has none for the process: what was said before
    /// holds no more.
    pub fn publish(&mut self, id: ProcessId, mappings: &[Mapping]) -> Result<usize, NoRoom> {
        let (mappings, left_out) =
            mappings.split_at_checked(MAX_MAPPINGS as usize).unwrap_or((mappings, Default::default()));
        let no_room = NoRoom(mappings.len() as u64, "mappings");
        let count = mappings.len() as u32;
        let contents = self.contents.hash_one(mappings.as_bytes());
        let known = self.by_contents.get(&contents).copied();
        let Some(list) = known.or_else(|| self.write_list(mappings, contents)) else {
            self.forget(id);
            return Err(no_room);
        };
        let Some(List { range, users, .. }) = self.lists.get_mut(&list) else { return Err(no_room) };
        *users += 1;
        let entry = ProcessEntry {
            start_ticks: id.start_ticks,
            first_mapping: range.start,
            mappings: count,
            list,
            padding: 0,
        };
        if let Some(old) = self.published.insert(id.pid.0, list) {
            self.leave(old);
        }
        let mut bytes = [0; size_of::<ProcessEntry>()];
        bytes.copy_from_slice(entry.as_bytes());
        if self.processes.insert(id.pid.0, bytes, 0).is_err() {
            self.published.remove(&id.pid.0);
            self.leave(list);
            return Err(NoRoom(1, "processes"));
        }
        Ok(left_out.len())
    }

    /// Takes back what was said of a process.
    pub fn forget(&mut self, id: ProcessId) {
        // An entry that the kernel took out itself, at an exec or an exit, is gone already.
        if let Ok(bytes) = self.processes.get(&id.pid.0, 0)
            && ProcessEntry::read_from_bytes(&bytes).is_ok_and(|entry| entry.start_ticks == id.start_ticks)
        {
            let _gone = self.processes.remove(&id.pid.0);
        }
        if let Some(list) = self.published.remove(&id.pid.0) {
            self.leave(list);
        }
    }

    /// Makes the room of what was replaced or removed usable again. Waits until every program that
    /// is running now has ended: some milliseconds.
    pub fn collect(&mut self) {
        if self.retired_lists.is_empty() && self.retired_tables.is_empty() {
            return;
        }
        // MEMBARRIER_CMD_GLOBAL waits for a grace period of RCU (kernel/sched/membarrier.c), and
        // programs run inside read-side sections. Not to be had with nohz_full.
        if rustix::thread::membarrier(rustix::thread::MembarrierCommand::Global).is_err()
            && self.retired_at.is_some_and(|at| at.elapsed() < BLIND_GRACE)
        {
            return;
        }
        let Ok(in_use) = self.lists_in_use() else { return };
        let retired = std::mem::take(&mut self.retired_lists);
        let (kept, free): (Vec<u32>, Vec<u32>) = retired.into_iter().partition(|list| in_use.contains(list));
        for list in free {
            if let Some(list) = self.lists.remove(&list) {
                self.free_mappings.free_range(list.range);
            }
        }
        // A retired list that a child inherited may still refer to a removed table.
        if kept.is_empty() {
            for table in std::mem::take(&mut self.retired_tables) {
                self.free(&table);
            }
        }
        self.retired_lists = kept;
    }

    /// What the tables take and hold.
    #[must_use]
    pub fn stats(&self) -> TableStats {
        TableStats { processes: self.published.len() as u64, ..self.stats }
    }

    /// Writes a new list; its number, if there was room.
    fn write_list(&mut self, mappings: &[Mapping], contents: u64) -> Option<u32> {
        // An empty list takes one place all the same, so that it has a range of its own.
        let range = self.free_mappings.allocate_range((mappings.len() as u32).max(1)).ok()?;
        if !self.mappings.write(range.start as usize * size_of::<Mapping>(), mappings.as_bytes()) {
            self.free_mappings.free_range(range);
            return None;
        }
        let number = self.next_list;
        self.next_list = self.next_list.checked_add(1).unwrap_or(1);
        self.lists.insert(number, List { range, contents, users: 0 });
        self.by_contents.insert(contents, number);
        Some(number)
    }

    /// A process leaves a list; the last one retires it.
    fn leave(&mut self, number: u32) {
        let Some(list) = self.lists.get_mut(&number) else { return };
        list.users = list.users.saturating_sub(1);
        if list.users == 0 {
            self.by_contents.remove(&list.contents);
            self.retired_lists.push(number);
            self.retired_at = Some(Instant::now());
        }
    }

    fn lists_in_use(&self) -> Result<HashSet<u32>, MapError> {
        let mut in_use = HashSet::new();
        for item in self.processes.iter() {
            let (_, bytes) = item?;
            if let Ok(entry) = ProcessEntry::read_from_bytes(&bytes) {
                in_use.insert(entry.list);
            }
        }
        Ok(in_use)
    }

    /// The number of a rule, for one more table; `None` once there are more than a row can name.
    fn take_rule(&mut self, rule: Rule) -> Option<u16> {
        let Rules { numbers, users, free } = &mut self.rule_ids;
        if let Some(&number) = numbers.get(&rule) {
            users.get_mut(usize::from(number))?.1 += 1;
            return Some(number);
        }
        let number = free.last().copied().map_or_else(|| u16::try_from(users.len()), Ok).ok()?;
        if !self.rules.write(usize::from(number) * 8, rule.pack().as_bytes()) {
            return None;
        }
        if free.pop().is_none() {
            users.push((rule, 0));
        }
        *users.get_mut(usize::from(number))? = (rule, 1);
        numbers.insert(rule, number);
        Some(number)
    }

    /// A table that used a rule is gone.
    fn leave_rule(&mut self, number: u16) {
        let Rules { numbers, users, free } = &mut self.rule_ids;
        let Some((rule, users)) = users.get_mut(usize::from(number)) else { return };
        *users = users.saturating_sub(1);
        if *users == 0 {
            numbers.remove(rule);
            free.push(number);
        }
    }

    fn allocate_rows(&mut self, wanted: u32) -> Option<(u32, Range<u32>)> {
        if wanted == 0 {
            return Some((0, 0..0));
        }
        self.free_rows
            .iter_mut()
            .zip(0..)
            .find_map(|(chunk, number)| Some((number, chunk.allocate_range(wanted).ok()?)))
    }

    fn free(&mut self, table: &InstalledTable) {
        for &rule in &table.rules {
            self.leave_rule(rule);
        }
        if table.pages > 0 {
            self.free_pages.free_range(table.first_page..table.first_page + table.pages);
        }
        for (chunk, range) in &table.rows {
            if let Some(rows) = self.free_rows.get_mut(*chunk as usize) {
                rows.free_range(range.clone());
            }
        }
    }
}

/// Neighbouring pages whose rows go into one place: few enough to find one, so that a large table
/// fits into the gaps that others left.
fn groups(pages: &[(u32, u32)]) -> impl Iterator<Item = &[(u32, u32)]> {
    const ROWS: u32 = ROWS_PER_CHUNK as u32 / 8;
    let mut rest = pages;
    std::iter::from_fn(move || {
        if rest.is_empty() {
            return None;
        }
        let mut rows = 0_u32;
        let more = rest.iter().take_while(|page| {
            rows = rows.saturating_add(page.1);
            rows <= ROWS
        });
        // One page alone always goes: it has at most as many rows as a group.
        let count = more.count().max(1);
        let (group, tail) = rest.split_at(count);
        rest = tail;
        Some(group)
    })
}

#[cfg(test)]
mod tests;
