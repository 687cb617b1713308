//! What a table was made from: the places of the file that its builder read, and a digest of them.
//!
//! Build id and size say which file one claims to be, and whoever writes a file can claim anything.
//! A table follows from what its builder read and from nothing else: a file of the same size with
//! the same bytes in the same places has the same table.

use std::cell::RefCell;
use std::os::fd::AsFd;

use sha2::{Digest, Sha256};

use super::Problem;

/// Most places that are remembered; a file whose table takes more shares it with no other.
const MAX_PLACES: usize = 1 << 14;
/// Bytes that are compared at a time.
const STEP: usize = 64 << 10;

/// What a table was made from.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Evidence {
    /// In the order in which they were read.
    pub(super) places: Vec<Place>,
    /// SHA-256 over places and bytes.
    pub(super) digest: [u8; 32],
}

/// Where a file was read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Place {
    /// Where it starts in the file.
    pub(super) offset: u64,
    /// Bytes that were asked for.
    pub(super) size: u64,
    /// The file had them; else it ended before.
    pub(super) there: bool,
}

impl Evidence {
    /// Whether a file, of the size of the one that the table was made from, would give the same
    /// table. Reads as much of it as the builder did.
    #[must_use]
    pub fn holds_of(&self, file: &impl AsFd) -> bool {
        let mut hasher = Sha256::new();
        let mut buffer = vec![0; STEP];
        for &place in &self.places {
            add_place(&mut hasher, place);
            let same = if place.there {
                add_bytes(&mut hasher, file, place, &mut buffer)
            } else {
                ends_before(file, place)
            };
            if !same {
                return false;
            }
        }
        *hasher.finalize() == self.digest
    }
}

/// Whether the file ends before the last byte of a place.
fn ends_before(file: &impl AsFd, place: Place) -> bool {
    let size = rustix::fs::fstat(file).ok().and_then(|stat| u64::try_from(stat.st_size).ok());
    size.is_some_and(|size| place.offset.checked_add(place.size).is_none_or(|end| end > size))
}

/// Adds the bytes of a place; `false` where the file does not have them.
fn add_bytes(hasher: &mut Sha256, file: &impl AsFd, place: Place, buffer: &mut [u8]) -> bool {
    let (mut at, mut left) = (place.offset, place.size);
    while left > 0 {
        let step = usize::try_from(left).unwrap_or(usize::MAX).min(buffer.len());
        let wanted = buffer.get_mut(..step).unwrap_or_default();
        let count = match rustix::io::pread(file, &mut *wanted, at) {
            Err(rustix::io::Errno::INTR) => continue,
            Ok(0) | Err(_) => return false,
            Ok(count) => count,
        };
        hasher.update(wanted.get(..count).unwrap_or_default());
        (at, left) = (at.saturating_add(count as u64), left.saturating_sub(count as u64));
    }
    true
}

fn add_place(hasher: &mut Sha256, place: Place) {
    hasher.update(place.offset.to_le_bytes());
    hasher.update(place.size.to_le_bytes());
    hasher.update([u8::from(place.there)]);
}

/// Writes down what a builder reads.
#[derive(Debug, Default)]
pub(super) struct Recorder(RefCell<Recording>);

#[derive(Debug, Default)]
struct Recording {
    places: Vec<Place>,
    hasher: Sha256,
    incomplete: bool,
}

impl Recorder {
    /// What was read at a place, or why not.
    pub(super) fn note(&self, offset: u64, size: u64, read: &Result<Vec<u8>, Problem>) {
        let mut recording = self.0.borrow_mut();
        let there = match read {
            Ok(_) => true,
            Err(Problem::Truncated { .. }) => false,
            // The next reader may have more luck.
            Err(_) => return recording.incomplete = true,
        };
        if recording.places.len() >= MAX_PLACES {
            return recording.incomplete = true;
        }
        let place = Place { offset, size, there };
        recording.places.push(place);
        add_place(&mut recording.hasher, place);
        if let Ok(bytes) = read {
            recording.hasher.update(bytes);
        }
    }

    /// All of it; `None` where something is missing.
    pub(super) fn finish(self) -> Option<Evidence> {
        let Recording { places, hasher, incomplete } = self.0.into_inner();
        (!incomplete).then(|| Evidence { places, digest: hasher.finalize().into() })
    }
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::io::Write;

    use super::*;
    use crate::unwind::image::Source;

    fn file(bytes: &[u8]) -> File {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(bytes).unwrap();
        file
    }

    #[test]
    fn it_holds_of_files_that_are_equal_where_they_were_read() {
        let recorder = Recorder::default();
        let original = file(b"0123456789");
        let source = Source::recorded(&original, &recorder);
        assert_eq!(source.read(2, 3).unwrap(), b"234");
        assert!(source.read(8, 5).is_err());
        let evidence = recorder.finish().unwrap();
        for (bytes, same) in [
            (b"0123456789", true),
            // Nobody looked there.
            (b"x1xxx56789", false),
            (b"xx234xxxxx", true),
            (b"xx23x56789", false),
        ] {
            assert_eq!(evidence.holds_of(&file(bytes)), same, "{}", String::from_utf8_lossy(bytes));
        }
        assert!(!evidence.holds_of(&file(b"0123456789abc")), "this one has what the other lacks");
        assert!(!evidence.holds_of(&file(b"0123")));
    }

    #[test]
    fn places_are_part_of_it() {
        let evidence = |places: &[(u64, u64)]| {
            let recorder = Recorder::default();
            let original = file(b"aaaaaaaa");
            for &(offset, size) in places {
                Source::recorded(&original, &recorder).read(offset, size).unwrap();
            }
            recorder.finish().unwrap()
        };
        assert_ne!(evidence(&[(0, 4)]).digest, evidence(&[(2, 4)]).digest);
        assert_ne!(evidence(&[(0, 4)]).digest, evidence(&[(0, 2), (2, 2)]).digest);
        assert_eq!(evidence(&[(0, 4)]), evidence(&[(0, 4)]));
    }

    #[test]
    fn too_many_places_prove_nothing() {
        let recorder = Recorder::default();
        for at in 0..=MAX_PLACES as u64 {
            recorder.note(at, 0, &Ok(Vec::new()));
        }
        assert_eq!(recorder.finish(), None);
    }
}
