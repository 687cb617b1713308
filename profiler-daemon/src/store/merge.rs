//! Adds stored rows to a profile, one segment at a time.

use super::codec::{Damaged, Dictionary, Table};
use crate::model::{NO_ROOM, Profile, ProfileKind, Stage};

/// Most rows of an answer, some 200 MB. Records of further rows are counted as lost.
const MAX_ROWS: usize = 1_000_000;
const TOO_LARGE: &str = "answer too large, row left out";

/// A profile that grows.
#[derive(Debug)]
pub(super) struct Merger {
    profile: Profile,
}

impl Merger {
    pub(super) fn new(kind: ProfileKind) -> Self {
        Self { profile: Profile::new(kind) }
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
            if self.profile.row_count() >= MAX_ROWS {
                left_out = left_out.saturating_add(value.count);
                continue;
            }
            let (stack, who) = (row.stack as usize, row.labels as usize);
            let who = match labels.get(who).copied().flatten() {
                Some(known) => known,
                None => {
                    let id = self.profile.labels_id(dictionary.labels(row.labels)?);
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
                                let id = self.profile.frame_id(named);
                                remember(&mut frames, frame as usize, id);
                                id
                            }
                            (None, None) => return Err(Damaged("a stack has no such frame".to_owned())),
                        });
                    }
                    let id = self.profile.stack_id(&ids);
                    remember(&mut stacks, stack, id);
                    id
                }
            };
            self.profile.add_known(who, row.activity, stack, value);
        }
        let mut missing = None;
        let no_room = self.profile.merge_distributions(&table.distributions, |at| {
            dictionary.labels(at).map_err(|damaged| missing = Some(damaged)).ok()
        });
        if let Some(damaged) = missing {
            return Err(damaged);
        }
        self.profile.loss.add(Stage::Pipeline, NO_ROOM, no_room);
        self.profile.quality.merge(&table.quality);
        self.profile.loss.merge(&table.loss);
        self.profile.loss.add(Stage::Store, TOO_LARGE, left_out);
        Ok(())
    }

    /// Counts records that cannot be read.
    pub(super) fn lost(&mut self, reason: &'static str, records: u64) {
        self.profile.loss.add(Stage::Store, reason, records);
    }

    /// Adds a profile that is in memory.
    pub(super) fn profile(&mut self) -> &mut Profile {
        &mut self.profile
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
