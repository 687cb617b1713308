//! Adds stored rows to a profile, one segment at a time.

use super::codec::{Damaged, Dictionary, Row, Table};
use crate::model::{Profile, ProfileKind, Selector, Stage, Value};

/// Most memory of an answer, in about bytes: 150 000 rows of as many stacks of 25 frames. Records of
/// further rows are counted as lost. Callers reckon with it when they hold several.
pub const MAX_BYTES: usize = 48 << 20;
/// What a row takes, with its place in a hash table that is half full; and a stack, a frame and
/// labels without their contents.
const ROW: usize = 96;
const STACK: usize = 80;
const FRAME: usize = 200;
const LABELS: usize = 400;
const TOO_LARGE: &str = "answer too large, row left out";

/// A profile that grows.
#[derive(Debug)]
pub(super) struct Merger {
    profile: Profile,
    /// About what it takes, bytes.
    bytes: usize,
}

impl Merger {
    pub(super) fn new(kind: ProfileKind) -> Self {
        Self { profile: Profile::new(kind), bytes: 0 }
    }

    /// Adds rows that point into this dictionary.
    pub(super) fn add(&mut self, dictionary: &Dictionary, table: &Table) -> Result<(), Damaged> {
        // Frames compare by content, so each is looked up once a segment and not once a row.
        let mut frames: Vec<Option<u32>> = vec![None; dictionary.frames().len()];
        let mut stacks: Vec<Option<u32>> = vec![None; dictionary.stacks_len()];
        let mut labels: Vec<Option<u32>> = vec![None; dictionary.labels_len()];
        let mut ids = Vec::new();
        let mut left_out = 0_u64;
        for (row, &value) in &table.rows {
            if self.bytes >= MAX_BYTES {
                if !self.add_to_known(dictionary, row, value)? {
                    left_out = left_out.saturating_add(value.count);
                }
                continue;
            }
            let (stack, who) = (row.stack as usize, row.labels as usize);
            let who = match labels.get(who).copied().flatten() {
                Some(known) => known,
                None => {
                    let known = self.profile.label_table().len();
                    let id = self.profile.labels_id(dictionary.labels(row.labels)?);
                    self.bytes += LABELS * (self.profile.label_table().len() - known);
                    remember(&mut labels, who, id);
                    id
                }
            };
            let stack = match stacks.get(stack).copied().flatten() {
                Some(known) => known,
                None => {
                    ids.clear();
                    for &frame in dictionary.stack(row.stack)? {
                        let known = frames.get(frame as usize).copied().flatten();
                        ids.push(match (known, dictionary.frames().get(frame as usize)) {
                            (Some(known), _) => known,
                            (None, Some(named)) => {
                                let known = self.profile.frames().len();
                                let id = self.profile.frame_id(named);
                                let new = self.profile.frames().len() - known;
                                self.bytes += new * (FRAME + named.name.len());
                                remember(&mut frames, frame as usize, id);
                                id
                            }
                            (None, None) => return Err(Damaged("a stack has no such frame".to_owned())),
                        });
                    }
                    let known = self.profile.stack_table().len();
                    let id = self.profile.stack_id(&ids);
                    let new = self.profile.stack_table().len() - known;
                    self.bytes += new * (STACK + size_of_val(ids.as_slice()));
                    remember(&mut stacks, stack, id);
                    id
                }
            };
            let known = self.profile.row_count();
            self.profile.add_known(who, row.activity, stack, value);
            self.bytes += ROW * (self.profile.row_count() - known);
        }
        self.profile.quality.merge(&table.quality);
        self.profile.loss.merge(&table.loss);
        self.profile.loss.add(Stage::Store, TOO_LARGE, left_out);
        Ok(())
    }

    /// Adds to a row that is there already, so that a full answer is still about the whole range.
    fn add_to_known(&mut self, dictionary: &Dictionary, row: &Row, value: Value) -> Result<bool, Damaged> {
        let labels = dictionary.labels(row.labels)?;
        let frames = dictionary.stack(row.stack)?.iter();
        let frames = frames.filter_map(|&frame| dictionary.frames().get(frame as usize));
        let known = self.profile.known_row(labels, row.activity, frames);
        if let Some((labels, stack)) = known {
            self.profile.add_known(labels, row.activity, stack, value);
        }
        Ok(known.is_some())
    }

    /// Counts records that cannot be read.
    pub(super) fn lost(&mut self, reason: &'static str, records: u64) {
        self.profile.loss.add(Stage::Store, reason, records);
    }

    /// Adds the rows of a profile in memory that a selector wants: all of them, or none once there
    /// are too many.
    pub(super) fn add_profile(&mut self, profile: &Profile, selector: &Selector) {
        if self.bytes >= MAX_BYTES {
            self.profile.loss.add(Stage::Store, TOO_LARGE, profile.quality.records);
            return;
        }
        self.profile.merge_selected(profile, selector);
        // Frames and labels are shared with the profile that is in memory anyway.
        self.bytes = self.bytes.max(self.profile.memory_bytes());
    }

    pub(super) fn finish(self) -> Profile {
        self.profile
    }
}

fn remember(table: &mut [Option<u32>], index: usize, id: u32) {
    if let Some(entry) = table.get_mut(index) {
        *entry = Some(id);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::model::{Activity, Frame, FrameKind, Labels};
    use crate::store::codec::{Effort, Interner, pack};

    #[test]
    fn an_answer_is_bounded_and_a_full_one_still_counts_what_it_knows() {
        const ROWS: usize = 120_000;
        let mut recorded = Profile::new(ProfileKind::OnCpu);
        let frames: Vec<u32> = (0..500)
            .map(|name| {
                let name = format!("f{name}").into();
                let frame = Frame {
                    name,
                    kind: FrameKind::User,
                    module: None,
                    address: 0,
                    source: None,
                    named: true,
                };
                recorded.frame_id(&Arc::new(frame))
            })
            .collect();
        let labels = recorded.labels_id(&Arc::new(Labels::default()));
        for row in 0..ROWS {
            let mut stack = vec![frames[0]; 98];
            stack.extend([frames[row % 500], frames[row / 500]]);
            let stack = recorded.stack_id(&stack);
            recorded.add_known(labels, Activity::OnCpu, stack, Value { count: 1, ns: 1 });
        }
        let mut interner = Interner::default();
        let table = interner.table(&recorded);
        let mut dictionary = Dictionary::default();
        for piece in interner.take_pieces() {
            dictionary.append(&pack(&piece, Effort::Quick).expect("small")).expect("just written");
        }
        let mut merger = Merger::new(ProfileKind::OnCpu);
        for _ in 0..3 {
            merger.add(&dictionary, &table).expect("all ids exist");
        }
        let bytes = merger.bytes;
        let merged = merger.finish();
        assert!((MAX_BYTES..MAX_BYTES + 10_000).contains(&bytes), "{bytes}");
        let kept = merged.row_count() as u64;
        assert!(kept > 0 && kept < ROWS as u64, "{kept}");
        assert_eq!(merged.total().count, 3 * kept);
        assert_eq!(merged.loss.total(), 3 * (ROWS as u64 - kept));
    }
}
