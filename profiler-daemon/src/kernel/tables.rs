//! The unwinding tables in the kernel: installs them, publishes who maps what, reuses old room.
//!
//! Programs read the arrays while we write them. So nothing that a program may be reading is ever
//! written over: a table, or a list of mappings, goes into unused room and is then referred to by
//! one update of the process map. What is no longer referred to is used again only after every
//! program that was running then has ended, and no entry names it any more: children inherit their
//! parent's list in the kernel, without asking us.

use std::collections::HashSet;
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
    rule_ids: FxHashMap<Rule, u16>,
    free_mappings: RangeAllocator<u32>,
    free_pages: RangeAllocator<u32>,
    /// One for each value of the row array: the rows of a page must not straddle two.
    free_rows: Vec<RangeAllocator<u32>>,
    /// Lists by number: where they lie. Published ones and retired ones.
    lists: FxHashMap<u32, Range<u32>>,
    published: FxHashMap<u32, u32>,
    retired_lists: Vec<u32>,
    retired_tables: Vec<InstalledTable>,
    retired_at: Option<Instant>,
    next_list: u32,
    stats: TableStats,
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
            rule_ids: FxHashMap::default(),
            lists: FxHashMap::default(),
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
        // Number 0 is no rule: what is all zero must mean nothing.
        tables.rule_id(Rule::NONE);
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
        let mut table = InstalledTable { first_page: page_range.start, pages: count, rows: Vec::new() };
        let ids: Vec<u16> = rules.iter().map(|&rule| self.rule_id(rule)).collect();
        let mut at = page_range.start;
        for group in groups(pages) {
            let wanted: u32 = group.iter().map(|&(_, rows)| rows).sum();
            let Some((chunk, range)) = self.allocate_rows(wanted) else {
                self.free(&table);
                return Err(no_rows);
            };
            let mut next = range.start;
            if wanted > 0 {
                table.rows.push((chunk, range));
            }
            for &(first, number) in group {
                let own = rows.get(first as usize..(first as usize).saturating_add(number as usize));
                let own = own.unwrap_or_default();
                let global: Vec<u32> = own
                    .iter()
                    .map(|row| {
                        row & 0xffff_0000 | u32::from(ids.get((row & 0xffff) as usize).copied().unwrap_or(0))
                    })
                    .collect();
                let first_row = chunk * ROWS_PER_CHUNK as u32 + next;
                self.rows.write(first_row as usize * 4, global.as_bytes());
                self.pages.write(at as usize * 8, page(first_row, global.len() as u32).as_bytes());
                next += number;
                at += 1;
            }
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
        // An empty list takes one place all the same, so that it has a range of its own.
        let Ok(range) = self.free_mappings.allocate_range(count.max(1)) else {
            self.forget(id);
            return Err(no_room);
        };
        self.mappings.write(range.start as usize * size_of::<Mapping>(), mappings.as_bytes());
        let list = self.next_list;
        self.next_list = self.next_list.checked_add(1).unwrap_or(1);
        let entry = ProcessEntry {
            start_ticks: id.start_ticks,
            first_mapping: range.start,
            mappings: count,
            list,
            padding: 0,
        };
        self.lists.insert(list, range);
        if let Some(old) = self.published.insert(id.pid.0, list) {
            self.retire(old);
        }
        let mut bytes = [0; size_of::<ProcessEntry>()];
        bytes.copy_from_slice(entry.as_bytes());
        if self.processes.insert(id.pid.0, bytes, 0).is_err() {
            self.published.remove(&id.pid.0);
            self.retire(list);
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
            self.retire(list);
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
            if let Some(range) = self.lists.remove(&list) {
                self.free_mappings.free_range(range);
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

    fn retire(&mut self, list: u32) {
        self.retired_lists.push(list);
        self.retired_at = Some(Instant::now());
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

    /// The number of a rule; 0, which is no rule, once there are more than a row can name.
    fn rule_id(&mut self, rule: Rule) -> u16 {
        if let Some(&id) = self.rule_ids.get(&rule) {
            return id;
        }
        let Ok(id) = u16::try_from(self.rule_ids.len()) else { return 0 };
        self.rules.write(usize::from(id) * 8, rule.pack().as_bytes());
        self.rule_ids.insert(rule, id);
        id
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
