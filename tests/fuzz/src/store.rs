//! The store's codec and what it is made of, and what must hold of any bytes it is given.
#![expect(dead_code, unused_imports, reason = "of what is compiled here, what only the database needs is not used")]

#[path = "../../../profiler-daemon/src/store/captures.rs"]
mod captures;
#[path = "../../../profiler-daemon/src/store/codec/mod.rs"]
mod codec;
#[path = "../../../profiler-daemon/src/store/merge.rs"]
mod merge;
#[path = "../../../profiler-daemon/src/store/summary.rs"]
mod summary;

use std::io::Write as _;

pub use captures::{CaptureAbout, CaptureResult, StoredCapture};
pub use summary::Summary;

use crate::model::{Profile, ProfileKind};
use codec::{Bundle, Dictionary, Header, Interner};

/// Rows of windows whose times are tried: `read_times` wants to know how many there are.
const ROWS: usize = 8;

/// A message in the wrapping of stored values: fuzzers do not find checksums.
pub fn wrapped(message: &[u8]) -> Vec<u8> {
    let mut encoder = zstd::stream::write::Encoder::new(Vec::new(), 1).unwrap();
    encoder.include_checksum(true).unwrap();
    encoder.write_all(message).unwrap();
    encoder.finish().unwrap()
}

/// A message with the checksum that headers of windows have.
pub fn sealed(message: &[u8]) -> Vec<u8> {
    let mut value = crc32fast::hash(message).to_le_bytes().to_vec();
    value.extend(message);
    value
}

/// Reads a value as each of the kinds that the database has. What is read must be whole: every id leads
/// somewhere, and what is written of it again is read as the same.
pub fn check(value: &[u8]) {
    if let Ok(header) = Header::decode(value) {
        assert_eq!(Header::decode(&header.encode()).unwrap().encode(), header.encode());
    }
    let _ = codec::read_capture(value);
    check_dictionary(value);
    for kind in [ProfileKind::OnCpu, ProfileKind::OffCpu, ProfileKind::Wall] {
        let _ = codec::read_rows(value, kind, 0, |_, _| Ok(()));
        for rows in 0..ROWS {
            if let Ok(times) = codec::read_times(value, kind, 0, rows) {
                assert_eq!(times.rows().count(), rows);
                for span in times.rows().flatten() {
                    let _ = span.within(i64::MIN, i64::MAX);
                }
            }
        }
    }
    let mut bundle = Bundle::default();
    if bundle.append(value).is_ok()
        && let Ok(profile) = bundle.finish()
    {
        check_profile(&profile);
    }
}

fn check_dictionary(value: &[u8]) {
    let mut dictionary = Dictionary::default();
    if dictionary.append(value).is_err() {
        return;
    }
    for id in 0..dictionary.stacks_len() {
        let stack = dictionary.stack(id as u32).unwrap();
        assert!(stack.iter().all(|&frame| (frame as usize) < dictionary.frames().len()));
    }
    for id in 0..dictionary.labels_len() {
        dictionary.labels(id as u32).unwrap();
    }
    assert!(dictionary.stack(dictionary.stacks_len() as u32).is_err());
    if let Ok(pieces) = Interner::pieces_of(&dictionary) {
        let mut again = Dictionary::default();
        for piece in &pieces {
            again.append(&codec::pack(piece, codec::Effort::Quick).unwrap()).unwrap();
        }
        assert_eq!(again.frames(), dictionary.frames());
        assert_eq!(
            (again.stacks_len(), again.labels_len()),
            (dictionary.stacks_len(), dictionary.labels_len())
        );
    }
}

fn check_profile(profile: &Profile) {
    let values = codec::bundle(profile).unwrap();
    let mut bundle = Bundle::default();
    values.iter().for_each(|value| bundle.append(value).unwrap());
    let again = bundle.finish().unwrap();
    assert_eq!((again.total(), again.row_count()), (profile.total(), profile.row_count()));
    assert_eq!((again.quality, &again.loss), (profile.quality, &profile.loss));
}
