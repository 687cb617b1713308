//! Tests of the codec: what is written is read, and no bytes make it panic.

use std::collections::HashMap;
use std::sync::Arc;

use proptest::prelude::*;

use super::*;
use crate::model::{
    Activity, Frame, FrameKind, Labels, Module, Pid, Profile, ProfileKind, QualityByLabels, SourceLine,
    StackQuality, Stage, TimeRange, Value, Wait, Waker,
};

fn activities() -> impl Strategy<Value = Activity> {
    let all = Wait::ALL.map(Activity::Blocked);
    let all = all.into_iter().chain([Activity::OnCpu, Activity::RunQueue, Activity::Preempted]);
    proptest::sample::select(all.collect::<Vec<_>>())
}

fn frames() -> impl Strategy<Value = Arc<Frame>> {
    let kinds = proptest::sample::select(vec![
        FrameKind::User,
        FrameKind::UserInlined,
        FrameKind::Jit,
        FrameKind::Kernel,
        FrameKind::KernelInlined,
    ]);
    let module = proptest::option::of(("[a-c/]{0,3}", proptest::option::of("[0-9a-f]{2}")));
    let source = proptest::option::of(("\\PC{0,3}", any::<u32>()));
    ("\\PC{0,4}", kinds, module, any::<u64>(), source, any::<bool>()).prop_map(
        |(name, kind, module, address, source, named)| {
            let module = module.map(|(path, build_id)| {
                Arc::new(Module { path: path.into(), build_id: build_id.map(Into::into), has_symbols: true })
            });
            let source = source.map(|(file, line)| SourceLine { file: file.into(), line });
            Arc::new(Frame { name: name.into(), kind, module, address, source, named })
        },
    )
}

fn profiles() -> impl Strategy<Value = Profile> {
    let labels =
        (0..5_u32, "[ab]{0,1}", "[ab;\n]{0,2}", "/[ab]{0,2}").prop_map(|(pid, comm, exe, cgroup)| {
            let (process, unit) = (format!("{comm}-main").into(), format!("{exe}.service").into());
            let (container, pod) = (format!("c{pid}").into(), format!("p{pid}").into());
            Arc::new(Labels {
                pid: Pid(pid),
                comm: comm.into(),
                process,
                exe: exe.into(),
                cgroup: cgroup.into(),
                container,
                pod,
                namespace: "default".into(),
                unit,
            })
        });
    // Variances of six bits, also where all rows are one: what is written is rounded to them.
    let values = (0..1_000_000_u64, 0..1_u64 << 40, 0..3_u64).prop_map(|(count, ns, variance_us2)| Value {
        count,
        ns,
        variance_us2,
    });
    let stack = || proptest::collection::vec(frames(), 0..5);
    let waker = (labels.clone(), stack());
    let waker = proptest::option::of(waker.prop_map(|(labels, stack)| Waker { labels, stack: stack.into() }));
    let rows = proptest::collection::vec((labels, activities(), stack(), waker, values), 0..30);
    let kinds = proptest::sample::select(vec![ProfileKind::OnCpu, ProfileKind::OffCpu, ProfileKind::Wall]);
    (kinds, rows, any::<u32>()).prop_map(|(kind, rows, count)| {
        let mut profile = Profile::new(kind);
        let mut parts = QualityByLabels::default();
        for (at, (labels, activity, stack, waker, value)) in (0..).zip(&rows) {
            profile.add_woken(labels, *activity, stack, waker.as_ref(), *value);
            let guessed = value.count / 2;
            parts.add(at, &StackQuality { records: value.count, guessed, ..StackQuality::default() });
        }
        let whole = StackQuality::default();
        profile.merge_quality_by_labels(&whole, &parts, |at| rows.get(at as usize).map(|row| &row.0));
        let count = u64::from(count);
        profile.quality.records = count;
        profile.quality.stopped[5] = count / 2;
        profile.quality.frames_unnamed = count / 3;
        profile.loss.add(Stage::Kernel, "on-CPU ring full", count / 5);
        profile
    })
}

type Rows = HashMap<(Labels, Activity, Vec<Frame>, Option<(Labels, Vec<Frame>)>), Value>;

fn rows(profile: &Profile) -> Rows {
    let row = |entry: crate::model::Entry<'_>| {
        let stack = |ids: &[u32]| ids.iter().map(|&frame| profile.frame(frame).clone()).collect();
        let waker = entry.waker.map(|waker| ((**waker.labels).clone(), stack(waker.stack)));
        (((**entry.labels).clone(), entry.activity, stack(entry.stack), waker), entry.value)
    };
    profile.entries().map(row).collect()
}

fn stacks(profile: &Profile) -> HashMap<Labels, StackQuality> {
    let parts = profile.quality_by_labels().iter();
    parts.map(|(at, part)| ((**profile.labels_at(at).expect("its own")).clone(), *part)).collect()
}

fn read_bundle<'a>(values: impl IntoIterator<Item = &'a Vec<u8>>) -> Result<Profile, Damaged> {
    let mut bundle = Bundle::default();
    values.into_iter().try_for_each(|value| bundle.append(value))?;
    bundle.finish()
}

fn valid(value: &[u8]) {
    // Whatever they make of it, they return.
    let mut bundle = Bundle::default();
    if bundle.append(value).is_ok() && bundle.append(value).is_ok() {
        let _ = bundle.finish();
    }
    let _ = read_capture(value);
    let _ = Header::decode(value);
    let _ = Dictionary::default().append(value);
    let _ = read_rows(value, ProfileKind::OnCpu, 0, |_, _| Ok(()));
}

/// A message that was not written by us, in a wrapping that was.
fn wrapped(message: &[u8]) -> Vec<u8> {
    let mut encoder = zstd::stream::write::Encoder::new(Vec::new(), 1).expect("an encoder");
    std::io::Write::write_all(&mut encoder, message).expect("memory");
    encoder.finish().expect("memory")
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    #[test]
    fn what_is_written_is_read(profile in profiles()) {
        let read = read_bundle(&bundle(&profile).expect("small")).expect("just written");
        prop_assert_eq!(rows(&read), rows(&profile));
        prop_assert_eq!(read.kind(), profile.kind());
        prop_assert_eq!(read.quality, profile.quality);
        prop_assert_eq!(stacks(&read), stacks(&profile));
        prop_assert_eq!(&read.loss, &profile.loss);
    }

    #[test]
    fn a_dictionary_goes_on_where_it_was_left(first in profiles(), second in profiles()) {
        let mut interner = Interner::default();
        let _ = interner.table(&first);
        let mut values = packed(&mut interner);
        let mut dictionary = Dictionary::default();
        for value in &values {
            dictionary.append(value).expect("just written");
        }
        // As after a restart.
        let mut resumed = Interner::of(&dictionary).expect("no entry twice");
        let (one, other) = (interner.table(&second), resumed.table(&second));
        prop_assert_eq!(&one.rows, &other.rows);
        let (more, same) = (packed(&mut interner), packed(&mut resumed));
        prop_assert_eq!(&more, &same);
        values.extend(more);
        for value in &values[values.len() - same.len()..] {
            dictionary.append(value).expect("just written");
        }
        let mut merger = crate::store::merge::Merger::new(second.kind());
        merger.add(&dictionary, &one).expect("all ids exist");
        prop_assert_eq!(rows(&merger.finish()), rows(&second));
    }

    #[test]
    fn any_bytes_give_a_message_or_an_error(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        valid(&bytes);
        valid(&wrapped(&bytes));
    }

    #[test]
    fn changed_values_are_found_out(profile in profiles(), at in any::<prop::sample::Index>(), bit in 0..8_u8) {
        let mut values = bundle(&profile).expect("small");
        let at = at.index(values.iter().map(Vec::len).sum());
        *values.iter_mut().flatten().nth(at).expect("inside") ^= 1_u8 << bit;
        // zstd ignores some bits of its frame's header; what it then gives is what was written.
        if let Ok(read) = read_bundle(&values) {
            prop_assert_eq!(rows(&read), rows(&profile));
        }
    }

    #[test]
    fn changed_messages_do_no_harm(profile in profiles(), at in any::<prop::sample::Index>(), byte in any::<u8>()) {
        let mut interner = Interner::default();
        let table = interner.table(&profile);
        for piece in interner.take_pieces() {
            let mut message = piece.encode_to_vec();
            let at = at.index(message.len());
            message[at] = byte;
            valid(&wrapped(&message));
        }
        let mut message = table.message(0, &table.sorted()).encode_to_vec();
        let at = at.index(message.len());
        message[at] = byte;
        valid(&wrapped(&message));
    }
}

fn packed(interner: &mut Interner) -> Vec<Vec<u8>> {
    interner.take_pieces().iter().map(|piece| pack(piece, Effort::Quick).expect("small")).collect()
}

#[test]
fn stretches_that_meet_are_one_and_gaps_stay() {
    let range = |from: u64, to: u64| TimeRange { from: time(from * 1_000_000), to: time(to * 1_000_000) };
    let joined = coalesce(vec![range(500, 900), range(0, 100), range(105, 200), range(100, 150)]);
    assert_eq!(joined, [range(0, 200), range(500, 900)]);
}

#[test]
fn a_bomb_is_refused_in_bounded_memory() {
    let bomb = wrapped(&vec![0; MAX_RAW as usize + 1]);
    assert!(bomb.len() < 1 << 20);
    assert_eq!(read_bundle([&bomb]).err(), Some(Damaged::new("is too large")));
}

#[test]
fn a_header_is_read_as_written_and_guarded() {
    let range = TimeRange { from: time(5), to: time(10) };
    let part =
        Part { kind: ProfileKind::OffCpu, records: 7, bytes: 9, times_bytes: 3, stretches: vec![range] };
    let header = Header { range, level: 1, segment: 3, parts: vec![part] };
    let mut value = header.encode();
    assert_eq!(Header::decode(&value), Ok(header));
    value[6] ^= 1;
    assert!(Header::decode(&value).is_err());
}
