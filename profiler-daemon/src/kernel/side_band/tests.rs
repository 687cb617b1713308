//! Records of real programs that this kernel reports.

use std::process::{Command, Stdio};

use super::super::on_cpu::online_cpus;
use super::super::{now, privilege};
use super::*;

/// Runs a program to its end; its pid.
fn run(program: &str) -> Pid {
    let mut child = Command::new(program).stdin(Stdio::null()).stdout(Stdio::null()).spawn().unwrap();
    let pid = Pid(child.id());
    child.wait().unwrap();
    pid
}

fn is_of(event: &ProcessEvent, pid: Pid) -> bool {
    match &event.change {
        ProcessChange::NewImage { pid: of, .. } | ProcessChange::Map(of, _) => *of == pid,
        _ => false,
    }
}

#[test]
fn a_new_program_and_what_it_maps_is_reported_in_order() {
    if privilege::must_skip() {
        return;
    }
    let mut side_band = SideBand::default();
    side_band.follow_cpus(&online_cpus());
    assert!(!side_band.refused);
    let begin = now();
    let pid = run("/bin/true");
    let end = now();
    let mut events: Vec<ProcessEvent> =
        side_band.read().events.into_iter().filter(|event| is_of(event, pid)).collect();
    // It may have moved from CPU to CPU.
    events.sort_by_key(|event| event.time);
    assert!(events.iter().all(|event| begin <= event.time && event.time <= end), "{events:#?}");
    assert!(matches!(events[0].change, ProcessChange::NewImage { .. }), "{:?}", events[0]);
    let mapped: Vec<&MappedCode> = events
        .iter()
        .filter_map(|event| match &event.change {
            ProcessChange::Map(_, code) => Some(code),
            _ => None,
        })
        .collect();
    let path = |code: &MappedCode| String::from_utf8_lossy(&code.path).into_owned();
    assert!(path(mapped[0]).ends_with("/true"), "{mapped:#?}");
    let libc = mapped.iter().find(|code| path(code).contains("/libc.so")).expect("it has a C library");
    for code in &mapped {
        assert!(code.start < code.end && code.start % 4096 == 0, "{code:?}");
    }
    if let FileKey::BuildId(id) = &libc.file {
        assert_eq!(id.len(), 40, "{id}");
        assert!(id.bytes().all(|byte| byte.is_ascii_hexdigit() && !byte.is_ascii_uppercase()), "{id}");
    }
    assert!(!side_band.read().events.iter().any(|event| is_of(event, pid)), "each is reported once");
}

#[test]
fn cpus_come_and_go() {
    if privilege::must_skip() {
        return;
    }
    let online = online_cpus();
    let mut side_band = SideBand::default();
    side_band.follow_cpus(&online);
    assert_eq!(side_band.samplers.keys().copied().collect::<Vec<_>>(), online);
    // No kernel has so many: it is refused, and the others go on.
    side_band.follow_cpus(&[online[0], 1 << 20]);
    assert_eq!(side_band.samplers.keys().copied().collect::<Vec<_>>(), [online[0]]);
    assert!(side_band.refused);
    side_band.follow_cpus(&[]);
    assert!(side_band.samplers.is_empty() && side_band.read().events.is_empty());
}
