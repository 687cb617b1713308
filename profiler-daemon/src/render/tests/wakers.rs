//! Both views of waits whose wakers are known.

use super::*;
use crate::model::Waker;
use crate::render::{RenderError, View, heaviest, render_view};

/// Waits for one lock, ended by two threads and an interrupt, and one that nobody has ended.
fn woken() -> Profile {
    let mut profile = Profile::new(ProfileKind::OffCpu);
    let wait = stack(&[("futex_wait", FrameKind::Kernel), ("take", FrameKind::User), MAIN]);
    let unlock = stack(&[("wake_up", FrameKind::Kernel), ("give_back", FrameKind::User), MAIN]);
    let timer = stack(&[("hrtimer", FrameKind::Kernel)]);
    let by = |labels, stack: &[Arc<Frame>]| Waker { labels, stack: stack.into() };
    let wakers = [
        (Some(by(labels("holder", 7), &unlock)), 500),
        (Some(by(labels("other", 8), &unlock)), 100),
        (Some(by(Waker::pseudo(Waker::INTERRUPT), &timer)), 30),
        // A name that is to be taken for something else.
        (Some(by(labels("[interrupt]", 9), &[])), 2),
        (None, 1),
    ];
    for (waker, us) in &wakers {
        let value = Value::exact(1, us * 1000);
        profile.add_woken(&labels("demo", 7), Activity::Blocked(Wait::Lock), &wait, waker.as_ref(), value);
    }
    profile
}

fn viewed(profile: &Profile, format: Format, view: View) -> Result<Vec<u8>, RenderError> {
    let mut out = Vec::new();
    render_view(profile, &about(), format, view, &mut out)?;
    Ok(out)
}

fn text(profile: &Profile, format: Format, view: View) -> String {
    String::from_utf8(viewed(profile, format, view).unwrap()).unwrap()
}

#[test]
fn the_waker_stands_on_the_wait_upside_down() {
    let wait = "demo;main;take;futex_wait_[k];[blocked: lock]";
    assert_eq!(text(&woken(), Format::Folded, View::Waits), format!("{wait} 633\n"));
    let folded = text(&woken(), Format::Folded, View::Wakers);
    let mut lines: Vec<&str> = folded.lines().collect();
    lines.sort_unstable();
    let by = format!("{wait};[woken by]");
    assert_eq!(
        lines,
        [
            format!("{wait} 1"),
            format!("{by};[interrupt]_[w] 2"),
            format!("{by};hrtimer_[w];[interrupt] 30"),
            format!("{by};wake_up_[w];give_back_[w];main_[w];holder_[w] 500"),
            format!("{by};wake_up_[w];give_back_[w];main_[w];other_[w] 100"),
        ]
    );
    let svg = text(&woken(), Format::Svg, View::Wakers);
    assert_eq!(all(&boxes(&svg)), 633);
    let speedscope = text(&woken(), Format::Speedscope, View::Wakers);
    assert!(speedscope.contains("\"give_back_[w]\"") && speedscope.contains("\"endValue\":633"));
}

#[test]
fn json_has_the_waker_of_each_row() {
    let json: serde_json::Value = serde_json::from_str(&text(&woken(), Format::Json, View::Waits)).unwrap();
    let waker = &json["stacks"][0]["waker"];
    assert_eq!((&waker["thread"], &waker["pid"]), (&"holder".into(), &7.into()));
    assert_eq!(waker["frames"][1]["name"], "give_back");
    assert!(json["stacks"][4].get("waker").is_none());
}

#[test]
fn nothing_is_shown_where_no_waker_is_known() {
    for (format, ..) in Format::TABLE {
        let answer = viewed(&off_cpu_profile(), format, View::Wakers);
        assert!(matches!(answer, Err(RenderError::NoWakers)), "{format}");
    }
}

#[test]
fn the_heaviest_stacks_are_one_whoever_ended_them() {
    let heaviest = heaviest(&woken(), 5);
    assert_eq!((heaviest.len(), heaviest[0].value), (1, 633));
    let wakers: Vec<_> = heaviest[0].wakers.iter().map(|waker| (waker.comm.as_str(), waker.value)).collect();
    assert_eq!(wakers, [("holder", 500), ("other", 100), ("[interrupt]", 30)]);
}
