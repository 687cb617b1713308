//! Adds stored rows to a profile, one segment at a time.

use super::codec::{Damaged, Dictionary, Row, Table};
use crate::model::{Key, NO_ROOM, Profile, ProfileKind, Selector, Stage, Value, WakerIds};

/// Most memory of an answer, in about bytes: 150 000 rows of as many stacks of 25 frames. Records of
/// further rows are counted as lost. Callers reckon with it when they hold several.
pub const MAX_BYTES: usize = 48 << 20;
/// What a row takes, with its place in a hash table that is half full; and a stack, a frame and
/// labels without their contents, with what is known of their stacks.
const ROW: usize = 96;
const STACK: usize = 80;
const FRAME: usize = 200;
const LABELS: usize = 600;
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
        let mut known = Known {
            dictionary,
            frames: vec![None; dictionary.frames().len()],
            stacks: vec![None; dictionary.stacks_len()],
            labels: vec![None; dictionary.labels_len()],
            ids: Vec::new(),
            bytes: 0,
        };
        let mut left_out = 0_u64;
        for (row, &value) in &table.rows {
            if self.bytes >= MAX_BYTES {
                if !self.add_to_known(dictionary, row, value)? {
                    left_out = left_out.saturating_add(value.count);
                }
                continue;
            }
            let waker = match row.waker {
                Some(waker) => Some(known.of(&mut self.profile, waker)?),
                None => None,
            };
            let place = WakerIds { labels: row.labels, stack: row.stack };
            let WakerIds { labels, stack } = known.of(&mut self.profile, place)?;
            let rows = self.profile.row_count();
            self.profile.add_known(Key { labels, stack, activity: row.activity, waker }, value);
            self.bytes += std::mem::take(&mut known.bytes) + ROW * (self.profile.row_count() - rows);
        }
        let mut missing = None;
        let no_room = self.profile.merge_distributions(&table.distributions, |at| {
            dictionary.labels(at).map_err(|damaged| missing = Some(damaged)).ok()
        });
        if self.bytes < MAX_BYTES {
            let before = self.profile.label_table().len();
            self.profile.merge_quality_by_labels(&table.quality, &table.quality_by_labels, |at| {
                dictionary.labels(at).map_err(|damaged| missing = Some(damaged)).ok()
            });
            self.bytes += LABELS * (self.profile.label_table().len() - before);
        } else {
            // Whose they are has no room any more.
            self.profile.quality.merge(&table.quality);
        }
        if let Some(damaged) = missing {
            return Err(damaged);
        }
        self.profile.loss.add(Stage::Pipeline, NO_ROOM, no_room);
        self.profile.loss.merge(&table.loss);
        self.profile.loss.add(Stage::Store, TOO_LARGE, left_out);
        Ok(())
    }

    /// Adds to a row that is there already, so that a full answer is still about the whole range.
    fn add_to_known(&mut self, dictionary: &Dictionary, row: &Row, value: Value) -> Result<bool, Damaged> {
        if row.waker.is_some() {
            return Ok(false);
        }
        let labels = dictionary.labels(row.labels)?;
        let frames = dictionary.stack(row.stack)?.iter();
        let frames = frames.filter_map(|&frame| dictionary.frames().get(frame as usize));
        let known = self.profile.known_row(labels, row.activity, frames);
        if let Some(key) = known {
            self.profile.add_known(key, value);
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

/// What of a dictionary has ids of the profile's own by now.
struct Known<'a> {
    dictionary: &'a Dictionary,
    frames: Vec<Option<u32>>,
    stacks: Vec<Option<u32>>,
    labels: Vec<Option<u32>>,
    ids: Vec<u32>,
    /// About what the profile has grown by.
    bytes: usize,
}

impl Known<'_> {
    /// The profile's ids of labels and a stack of the dictionary.
    fn of(&mut self, profile: &mut Profile, place: WakerIds) -> Result<WakerIds, Damaged> {
        let (who, stack) = (place.labels as usize, place.stack as usize);
        let labels = match self.labels.get(who).copied().flatten() {
            Some(known) => known,
            None => {
                let before = profile.label_table().len();
                let id = profile.labels_id(self.dictionary.labels(place.labels)?);
                self.bytes += LABELS * (profile.label_table().len() - before);
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
                    let before = profile.frames().len();
                    let id = profile.frame_id(named);
                    self.bytes += (profile.frames().len() - before) * (FRAME + named.name.len());
                    remember(&mut self.frames, frame as usize, id);
                    id
                }
                (None, None) => return Err(Damaged("a stack has no such frame".to_owned())),
            });
        }
        let before = profile.stack_table().len();
        let id = profile.stack_id(&self.ids);
        let new = profile.stack_table().len() - before;
        self.bytes += new * (STACK + size_of_val(self.ids.as_slice()));
        Ok(id)
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
            let key = Key { labels, stack, activity: Activity::OnCpu, waker: None };
            recorded.add_known(key, Value::exact(1, 1));
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
