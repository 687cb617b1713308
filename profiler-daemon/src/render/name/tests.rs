//! What hostile names become.

use proptest::prelude::*;

use super::*;
use crate::model::Pid;

fn user(name: &str) -> Frame {
    Frame { name: name.into(), kind: FrameKind::User, module: None, address: 0, source: None, named: true }
}

fn comm_of(comm: &str) -> String {
    super::comm(&Labels { pid: Pid(7), comm: comm.into(), ..Labels::default() })
}

#[test]
fn ordinary_names_stay() {
    for name in ["main", "operator new(unsigned long)", "<T as core::fmt::Debug>::fmt", "[libc.so.6+0x1f]"] {
        assert_eq!(frame(&user(name)), name);
    }
    assert_eq!(comm_of("kworker/0:1-events"), "kworker/0:1-events");
}

#[test]
fn syntax_of_the_line_is_replaced() {
    assert_eq!(comm_of("a;b\nx&\""), "a:b\u{fffd}x&\"");
    assert_eq!(comm_of("worker 12"), "worker_12");
    assert_eq!(comm_of("load 1 2.5"), "load 1_2.5");
    assert_eq!(comm_of(" a "), "_a_");
    assert_eq!(comm_of("   "), "___");
    assert_eq!(comm_of("# comment"), "_ comment");
    assert_eq!(comm_of("\u{3000}wide\u{a0}"), "_wide_");
    assert_eq!(comm_of(""), "[pid 7]");
    assert_eq!(frame(&user("")), "[unnamed]");
    assert_eq!(frame(&user("[u8; 8]")), "[u8: 8]");
}

#[test]
fn no_name_can_pass_for_another_kind_of_code() {
    assert_eq!(frame(&user("entry_[k]")), "entry_(k)");
    assert_eq!(comm_of("swapper_[k]"), "swapper_(k)");
    let kernel = Frame { kind: FrameKind::Kernel, ..user("do_idle") };
    assert_eq!(frame(&kernel), "do_idle_[k]");
}

#[test]
fn what_cannot_be_seen_is_replaced() {
    assert_eq!(clean("a\u{1b}[31mb\u{7f}c\u{85}d"), "a\u{fffd}[31mb\u{fffd}c\u{fffd}d");
    assert_eq!(
        clean("x\u{202e}y\u{2066}z\u{200b}\u{2028}\u{ffff}"),
        "x\u{fffd}y\u{fffd}z\u{fffd}\u{fffd}\u{fffd}"
    );
    assert!(matches!(clean("größe_計算"), Cow::Borrowed("größe_計算")));
}

#[test]
fn huge_names_are_cut_between_characters() {
    let text = format!("x{}", "é".repeat(MAX_BYTES));
    let cut = clean(&text);
    assert!(cut.len() <= MAX_BYTES + 3 && cut.ends_with("é..."), "{} bytes", cut.len());
}

/// Text of the characters that matter to readers of folded lines, and any others.
fn hostile() -> impl Strategy<Value = String> {
    prop_oneof!["[;# 0-9.a_\\[k\\]\n\r\t\u{85}\u{a0}\u{2028}\u{3000}\u{202e}]{0,12}", any::<String>()]
}

proptest! {
    #[test]
    fn a_name_is_one_word_of_a_line(name in hostile()) {
        let as_user = frame(&user(&name));
        for text in [&as_user, &comm_of(&name)] {
            prop_assert!(!text.is_empty());
            prop_assert_eq!(text.trim(), text);
            prop_assert!(!text.contains([';', '\n', '\r']), "{:?}", text);
            prop_assert!(!text.contains(is_unseen), "{:?}", text);
            prop_assert!(!text.ends_with("_[k]"), "{:?}", text);
        }
        prop_assert!(!comm_of(&name).starts_with('#'));
    }
}
