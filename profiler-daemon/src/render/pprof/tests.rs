//! What a decoder that knows only the published schema finds.

use std::collections::{BTreeMap, HashSet};
use std::io::Read;

use super::*;
use crate::model::FrameKind;
use crate::render::tests::{about, hostile_profile, off_cpu_profile, on_cpu_profile};
use crate::render::{Format, render};

fn decoded(profile: &Profile) -> pprof::Profile {
    let mut bytes = Vec::new();
    render(profile, &about(), Format::Pprof, &mut bytes).unwrap();
    let mut message = Vec::new();
    flate2::read::GzDecoder::new(&*bytes).read_to_end(&mut message).unwrap();
    pprof::Profile::decode(&*message).unwrap()
}

fn text(message: &pprof::Profile, index: i64) -> &str {
    &message.string_table[usize::try_from(index).unwrap()]
}

fn label<'a>(message: &'a pprof::Profile, sample: &pprof::Sample, key: &str) -> &'a str {
    let label = sample.label.iter().find(|label| text(message, label.key) == key).unwrap();
    text(message, label.str)
}

/// The function names of a sample, root first, through every reference.
fn stack<'a>(message: &'a pprof::Profile, sample: &pprof::Sample) -> Vec<&'a str> {
    let mut names: Vec<&str> = Vec::new();
    for id in &sample.location_id {
        let location = message.location.iter().find(|location| location.id == *id).unwrap();
        for line in &location.line {
            let function = message.function.iter().find(|function| function.id == line.function_id).unwrap();
            names.push(text(message, function.name));
        }
    }
    names.reverse();
    names
}

#[test]
fn every_reference_resolves() {
    for profile in [on_cpu_profile(), off_cpu_profile(), hostile_profile()] {
        let message = decoded(&profile);
        assert_eq!(message.string_table[0], "");
        assert_eq!(message.string_table.iter().collect::<HashSet<_>>().len(), message.string_table.len());
        let ids = |ids: Vec<u64>| {
            assert!(!ids.contains(&0));
            let distinct: HashSet<u64> = ids.iter().copied().collect();
            assert_eq!(distinct.len(), ids.len());
            distinct
        };
        let mappings = ids(message.mapping.iter().map(|mapping| mapping.id).collect());
        let functions = ids(message.function.iter().map(|function| function.id).collect());
        let locations = ids(message.location.iter().map(|location| location.id).collect());
        for location in &message.location {
            assert!(location.mapping_id == 0 || mappings.contains(&location.mapping_id));
            assert!(!location.line.is_empty());
            assert!(location.line.iter().all(|line| functions.contains(&line.function_id)));
            let mapping = message.mapping.iter().find(|mapping| mapping.id == location.mapping_id);
            assert!(mapping.is_none_or(|mapping| location.address < mapping.memory_limit));
        }
        for sample in &message.sample {
            assert_eq!(sample.value.len(), message.sample_type.len());
            assert!(!sample.location_id.is_empty());
            assert!(sample.location_id.iter().all(|id| locations.contains(id)));
        }
    }
}

#[test]
fn totals_and_stacks_are_those_of_the_folded_lines() {
    for (profile, value, divisor) in [(on_cpu_profile(), 0, 1), (off_cpu_profile(), 1, 1000)] {
        let message = decoded(&profile);
        let total: i64 = message.sample.iter().map(|sample| sample.value[value]).sum();
        assert_eq!(total / divisor, i64::try_from(profile.total_shown()).unwrap());

        let mut folded = Vec::new();
        render(&profile, &about(), Format::Folded, &mut folded).unwrap();
        let mut expected: BTreeMap<String, i64> = BTreeMap::new();
        for line in String::from_utf8(folded).unwrap().lines() {
            let (stack, value) = line.rsplit_once(' ').unwrap();
            let stack = stack.replace("_[k]", "").replace("_[i]", "").replace("_[j]", "");
            *expected.entry(stack).or_default() += value.parse::<i64>().unwrap();
        }
        let mut actual: BTreeMap<String, i64> = BTreeMap::new();
        for sample in &message.sample {
            let mut names = vec![label(&message, sample, "thread")];
            names.extend(stack(&message, sample).into_iter().filter(|name| *name != name::NO_STACK));
            *actual.entry(names.join(";")).or_default() += sample.value[value] / divisor;
        }
        assert_eq!(actual, expected);
    }
}

#[test]
fn inlined_functions_are_lines_of_the_place_that_holds_them() {
    let message = decoded(&on_cpu_profile());
    let inlined = |name: &str| {
        let lines = message.location.iter().map(|location| {
            let functions = location.line.iter().map(|line| &message.function[line.function_id as usize - 1]);
            functions.map(|function| text(&message, function.name)).collect::<Vec<_>>()
        });
        lines.filter(|lines| lines.contains(&name)).collect::<Vec<_>>()
    };
    assert_eq!(inlined("core::cmp::max"), [["core::cmp::max", "demo::step", "demo::run"]]);
    assert_eq!(inlined("main"), [["main"]]);
    let holder = message.location.iter().find(|location| location.line.len() == 3).unwrap();
    let mapping = &message.mapping[holder.mapping_id as usize - 1];
    assert_eq!(text(&message, mapping.filename), "/usr/bin/demo");
    assert_eq!(text(&message, mapping.build_id), "00c0ffee");
    assert!(mapping.has_functions && mapping.has_inline_frames && mapping.has_filenames);
    assert_eq!(holder.address, 0x2000);
}

#[test]
fn inlined_frames_without_their_holder_stay_by_themselves() {
    let profile = on_cpu_profile();
    let index =
        |name: &str| u32::try_from(profile.frames().position(|frame| &*frame.name == name).unwrap()).unwrap();
    let (inlined, kernel) = (index("core::cmp::max"), index("do_syscall_64"));
    assert_eq!(profile.frame(inlined).kind, FrameKind::UserInlined);
    let builder = Builder::new(&profile, View::Waits);
    assert_eq!(builder.physical(&[inlined]), 1);
    assert_eq!(builder.physical(&[inlined, kernel]), 1);
    assert_eq!(builder.physical(&[kernel, inlined]), 1);
}

#[test]
fn units_and_times_are_stated() {
    let on = decoded(&on_cpu_profile());
    let types = |message: &pprof::Profile| {
        let name = |value: &pprof::ValueType| {
            format!("{}/{}", text(message, value.r#type), text(message, value.unit))
        };
        let mut names: Vec<String> = message.sample_type.iter().map(name).collect();
        names.extend(message.period_type.iter().map(name));
        names
    };
    assert_eq!(types(&on), ["samples/count", "cpu/nanoseconds", "cpu/nanoseconds"]);
    assert_eq!(on.period, 10_000_000);
    assert_eq!(on.time_nanos, 1_000_000_000_000_000_000);
    assert_eq!(on.duration_nanos, 10_000_000_000);
    let off = decoded(&off_cpu_profile());
    assert_eq!(types(&off), ["off_cpu_intervals/count", "off_cpu/nanoseconds", "off_cpu/nanoseconds"]);
    let blocked = off.sample.iter().find(|sample| stack(&off, sample).ends_with(&["[blocked]"])).unwrap();
    assert_eq!(label(&off, blocked, "activity"), "blocked");
    assert_eq!(label(&off, blocked, "exe"), "/usr/bin/demo");
}
