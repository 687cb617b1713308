//! Tables and reports on a terminal of 80 columns, with names and numbers that do not fit.

use super::check;
use crate::client::{diff, fit, list, report, summary, top};
use crate::proto::*;
use crate::render::{Change, Share};

const COLUMNS: usize = 80;

/// A name as C++ compilers make them.
const TEMPLATE: &str = "std::__1::basic_ostream<char, std::__1::char_traits<char> >& \
                        std::__1::operator<< <std::__1::char_traits<char> >(std::__1::basic_ostream<char, \
                        std::__1::char_traits<char> >&, char const*)";

/// A day of 300 threads, us.
const LARGE: u64 = 25_920_000_000_000;

/// Compares with the golden file, none of whose lines is wider than the terminal or steers it.
fn check_narrow(file: &str, text: &str) {
    for line in text.lines() {
        assert!(fit::width(line) <= COLUMNS, "{file}: {} columns: {line}", fit::width(line));
        assert!(!line.contains('\x1b'), "{file}: {line}");
    }
    check(file, text);
}

fn facts(total: u64) -> ProfileSummary {
    ProfileSummary { kind: 2, total, unit: "microseconds".to_owned(), ..ProfileSummary::default() }
}

#[test]
fn top_keeps_to_the_terminal() {
    let row = |frame: &str, own: u64, total: u64| TopRow {
        frame: frame.to_owned(),
        self_: own,
        total,
        self_error: own as f64 / 50.0,
        total_error: total as f64 / 90.0,
        waits: Vec::new(),
    };
    let rows = [
        row(TEMPLATE, LARGE / 2, LARGE),
        row("main", 1, LARGE),
        row("関数の名前は長い長い長い長い長い", 7, 8),
    ];
    let wait = WaitTimes {
        what: format!("blocked: {TEMPLATE}"),
        count: 1e15,
        p50_ns: 1_250,
        p90_ns: 45_600_000,
        p99_ns: 3_600_000_000_000,
        max_ns: 86_400_000_000_000,
        still: 1e9,
        longest_still_ns: 86_400_000_000_000,
        ..WaitTimes::default()
    };
    let columns = Some(COLUMNS);
    let mut text = top::as_table(&facts(LARGE), &rows, "FRAME", columns);
    text.push_str(&top::as_table(&facts(LARGE), &rows, "PROCESS", columns));
    text.push_str(&top::waits_table(&[wait], columns));
    check_narrow("narrow-top.txt", &text);
    // The largest numbers that there are leave no room for names, and still do not wrap.
    let largest = top::as_table(&facts(u64::MAX), &[row(TEMPLATE, u64::MAX, u64::MAX)], "FRAME", columns);
    check_narrow("narrow-top-largest.txt", &largest);
}

#[test]
fn list_keeps_to_the_terminal() {
    let process = |comm: &str, pod: &str, container: &str, unit: &str| ProcessRow {
        pid: 4_194_304,
        comm: comm.to_owned(),
        exe: "/opt/vendor/with/a/long/path/to/the/executable/bin/server".to_owned(),
        value: LARGE,
        container: container.to_owned(),
        pod: pod.to_owned(),
        unit: unit.to_owned(),
    };
    let (pod, container) = ("checkout-service-7f9c6d5b8-x2x7k", "checkout-service-sidecar");
    let answer = ListResponse {
        processes: vec![
            process("fifteen letters", pod, container, ""),
            process("sh", "", "", "systemd-networkd-wait-online.service"),
        ],
        containers: vec![ContainerRow {
            container: container.to_owned(),
            pod: pod.to_owned(),
            namespace: "a-namespace-of-some-customer".to_owned(),
            value: LARGE,
        }],
        ..ListResponse::default()
    };
    check_narrow("narrow-list.txt", &list::as_tables(&facts(LARGE), &answer, Some(COLUMNS)));
}

#[test]
fn diff_keeps_to_the_terminal() {
    let share = |base: f64, with: f64| Share {
        base_share: base,
        with_share: with,
        growth: with / base - 1.0,
        error: 0.01,
        ..Share::default()
    };
    let change = |frame: &str, own, total| Change { frame: frame.to_owned(), own, total };
    let changes = [
        change(TEMPLATE, share(0.0001, 0.9999), share(0.0001, 1.0)),
        change("main", share(0.5, 0.01), share(1.0, 1.0)),
    ];
    check_narrow("narrow-diff.txt", &diff::as_table(&changes, Some(COLUMNS)));
}

#[test]
fn report_and_summary_keep_to_the_terminal() {
    let stack = HotStack {
        share: 1.0,
        comm: "fifteen letters".to_owned(),
        frames: vec![TEMPLATE.to_owned(), TEMPLATE.to_owned()],
    };
    let line = ReportLine {
        aspect: Aspect::Utilization.into(),
        resource: "cpu".to_owned(),
        text: format!("{LARGE} CPUs busy on average, because of {}", "f".repeat(200)),
        stacks: vec![stack],
        ..ReportLine::default()
    };
    let answer = ReportResponse {
        scope: format!(
            "/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod{}",
            "0123456789_".repeat(8)
        ),
        lines: vec![line],
        ..ReportResponse::default()
    };
    check_narrow("narrow-report.txt", &report::as_text(&answer, Some(COLUMNS)));

    let loss = Loss { stage: "kernel".to_owned(), reason: "off-CPU ring full".to_owned(), count: u64::MAX };
    let facts = ProfileSummary { losses: vec![loss.clone(), loss], ..facts(u64::MAX) };
    let text = fit::wrap("", &summary::line(&facts), 2, Some(COLUMNS)) + "\n";
    check_narrow("narrow-summary.txt", &text);
}
