//! Tests of profiles: rows add up, and profiles merge.

use super::*;
use crate::model::FrameKind;

fn frame(name: &str) -> Arc<Frame> {
    Arc::new(Frame {
        name: name.into(),
        kind: FrameKind::User,
        module: None,
        address: 0,
        source: None,
        named: true,
    })
}

fn profile(kind: ProfileKind, rows: &[(&str, u64)]) -> Profile {
    let mut profile = Profile::new(kind);
    let labels = Arc::new(Labels { comm: "demo".into(), ..Labels::default() });
    for (name, ns) in rows {
        profile.add_row(&labels, Activity::OnCpu, &[frame(name)], Value::exact(1, *ns));
    }
    profile
}

#[test]
fn microseconds_add_up_although_each_row_is_rounded() {
    let profile = profile(ProfileKind::OffCpu, &[("a", 600), ("b", 600), ("c", 900)]);
    assert_eq!(profile.entries().map(|entry| entry.shown).sum::<u64>(), 2);
    assert_eq!(profile.total_shown(), 2);
}

#[test]
fn nobody_can_foresee_how_names_hash() {
    let hash = || Set::<&str>::default().hasher().hash_one("main");
    assert_ne!(hash(), hash());
}

#[test]
fn merging_joins_equal_rows() {
    let mut all = profile(ProfileKind::OnCpu, &[("a", 10), ("b", 10)]);
    all.merge(&profile(ProfileKind::OnCpu, &[("b", 10), ("c", 10)]));
    assert_eq!(all.entries().count(), 3);
    assert_eq!(all.total(), Value::exact(4, 40));
    let b = all.entries().find(|entry| &*all.frame(entry.stack[0]).name == "b");
    assert_eq!(b.map(|entry| entry.shown), Some(2));
}
