//! Adds stored rows to a profile, one segment at a time.

use super::codec::{Damaged, Dictionary, Table};
use crate::model::{Key, NO_ROOM, Profile, ProfileKind, Stage, WakerIds};

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
        let mut known = Known {
            dictionary,
            frames: vec![None; dictionary.frames().len()],
            stacks: vec![None; dictionary.stacks_len()],
            labels: vec![None; dictionary.labels_len()],
            ids: Vec::new(),
        };
        let mut left_out = 0_u64;
        for (row, &value) in &table.rows {
            if self.profile.row_count() >= MAX_ROWS {
                left_out = left_out.saturating_add(value.count);
                continue;
            }
            let waker = match row.waker {
                Some(waker) => Some(known.of(&mut self.profile, waker)?),
                None => None,
            };
            let place = WakerIds { labels: row.labels, stack: row.stack };
            let WakerIds { labels, stack } = known.of(&mut self.profile, place)?;
            self.profile.add_known(Key { labels, stack, activity: row.activity, waker }, value);
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

/// What of a dictionary has ids of the profile's own by now.
struct Known<'a> {
    dictionary: &'a Dictionary,
    frames: Vec<Option<u32>>,
    stacks: Vec<Option<u32>>,
    labels: Vec<Option<u32>>,
    ids: Vec<u32>,
}

impl Known<'_> {
    /// The profile's ids of labels and a stack of the dictionary.
    fn of(&mut self, profile: &mut Profile, place: WakerIds) -> Result<WakerIds, Damaged> {
        let (who, stack) = (place.labels as usize, place.stack as usize);
        let labels = match self.labels.get(who).copied().flatten() {
            Some(known) => known,
            None => {
                let id = profile.labels_id(self.dictionary.labels(place.labels)?);
                remember(&mut self.labels, who, id);
                id
            }
        };
        let stack = match self.stacks.get(stack).copied().flatten() {
            Some(known) => known,
            None => {
                let id = self.stack(profile, place.stack)?;
                remember(&mut self.stacks, stack, id);
                id
            }
        };
        Ok(WakerIds { labels, stack })
    }

    fn stack(&mut self, profile: &mut Profile, stack: u32) -> Result<u32, Damaged> {
        self.ids.clear();
        for &frame in self.dictionary.stack(stack)? {
            let known = self.frames.get(frame as usize).copied().flatten();
            self.ids.push(match (known, self.dictionary.frames().get(frame as usize)) {
                (Some(known), _) => known,
                (None, Some(named)) => {
                    let id = profile.frame_id(named);
                    remember(&mut self.frames, frame as usize, id);
                    id
                }
                (None, None) => return Err(Damaged("a stack has no such frame".to_owned())),
            });
        }
        Ok(profile.stack_id(&self.ids))
    }
}

fn remember(table: &mut [Option<u32>], index: usize, id: u32) {
    if let Some(entry) = table.get_mut(index) {
        *entry = Some(id);
    }
}
