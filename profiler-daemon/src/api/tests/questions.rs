//! Tables, differences, reports and live windows over a real socket.

use std::time::Duration;

use tokio_stream::StreamExt as _;
use tonic::{Code, Status};

use super::harness::{Server, window};
use super::{field, seconds, selection};
use crate::model::Window;
use crate::proto::diff_response::Part;
use crate::proto::profile_service_client::ProfileServiceClient;
use crate::proto::{
    DiffFormat, DiffRequest, DiffSummary, Gate, GroupBy, ListRequest, Normalize, ReportRequest, Selection,
    TimeRange, TopRequest, WatchWindowsRequest,
};

/// The same window, ten minutes earlier.
fn earlier(mut window: Window) -> Window {
    window.range.from -= Duration::from_secs(600);
    window.range.to -= Duration::from_secs(600);
    window
}

/// Between `from` and `to` seconds ago.
fn ago(from: u64, to: u64) -> Option<Selection> {
    let at = |ago| Some((std::time::SystemTime::now() - Duration::from_secs(ago)).into());
    let range = TimeRange { since: None, from: at(from), to: at(to) };
    Some(Selection { range: Some(range), ..Selection::default() })
}

async fn diff(server: &Server, request: DiffRequest) -> Result<(DiffSummary, String), Status> {
    let mut client = ProfileServiceClient::new(server.channel().await);
    let parts: Vec<_> = client.diff(request).await?.into_inner().collect::<Result<Vec<_>, _>>().await?;
    let mut parts = parts.into_iter().map(|message| message.part.expect("a part"));
    let Some(Part::Summary(summary)) = parts.next() else { panic!("the summary comes first") };
    let texts = parts.map(|part| match part {
        Part::Text(text) => text,
        Part::Summary(_) => panic!("two summaries"),
    });
    Ok((*summary, texts.collect()))
}

fn request(format: DiffFormat) -> DiffRequest {
    DiffRequest { base: ago(700, 500), with: ago(60, 0), format: format.into(), ..DiffRequest::default() }
}

#[tokio::test]
async fn two_ranges_are_compared_and_judged() {
    let server = Server::start().await;
    server.store.insert(earlier(window(&[("nginx", 50_000), ("redis", 50_000)])));
    server.store.insert(window(&[("nginx", 50_000), ("redis", 60_000)]));

    let gate = Some(Gate { fail_over: 0.05, min_share: 0.01 });
    let (summary, text) =
        diff(&server, DiffRequest { gate, ..request(DiffFormat::Unspecified) }).await.expect("compared");
    let totals = [summary.base, summary.with].map(|side| side.expect("a side").total);
    assert_eq!((totals, text.as_str()), ([100_000, 110_000], ""));
    // Every stack of the fixture is `main`, which is everything on both sides.
    assert_eq!(summary.verdict.map(|verdict| (verdict.failed.len(), verdict.tested)), Some((0, 0)));

    let (_, folded) = diff(&server, request(DiffFormat::Folded)).await.expect("compared");
    assert_eq!(folded, "nginx;main 55000 50000\nredis;main 55000 60000\n");
    let (_, svg) = diff(&server, request(DiffFormat::Svg)).await.expect("compared");
    assert!(svg.contains("<svg") && svg.ends_with("</svg>"), "{} bytes", svg.len());
    let json = DiffRequest { normalize: Normalize::Work.into(), ..request(DiffFormat::Json) };
    let (summary, json) = diff(&server, json).await.expect("compared");
    let json: serde_json::Value = serde_json::from_str(&json).expect("JSON");
    assert_eq!((&json["normalize"], &json["gate"]), (&"work".into(), &serde_json::Value::Null));
    assert_eq!(summary.rows[0].frame, "main");
    let growth = summary.rows[0].self_.expect("own").growth;
    assert!((growth - 0.1).abs() < 1e-4, "{growth}");
}

#[tokio::test]
async fn bad_comparisons_name_their_field() {
    let server = Server::start().await;
    server.store.insert(window(&[("nginx", 3)]));
    let good = || request(DiffFormat::Unspecified);
    let gate = |fail_over, min_share| Some(Gate { fail_over, min_share });
    for (request, expected) in [
        (DiffRequest { base: selection("comm=a"), ..good() }, "base.where"),
        (DiffRequest { with: selection("host=\"a\""), ..good() }, "with.where"),
        (DiffRequest { with: ago(0, 60), ..good() }, "with.range.from"),
        (DiffRequest { normalize: 9, ..good() }, "normalize"),
        (DiffRequest { format: 9, ..good() }, "format"),
        (DiffRequest { limit: 1 << 30, ..good() }, "limit"),
        (DiffRequest { gate: gate(-1.0, 0.0), ..good() }, "gate.fail_over"),
        (DiffRequest { gate: gate(f64::NAN, 0.0), ..good() }, "gate.fail_over"),
        (DiffRequest { gate: gate(0.1, 2.0), ..good() }, "gate.min_share"),
    ] {
        let status = diff(&server, request).await.expect_err(expected);
        assert_eq!((status.code(), field(&status).as_str()), (Code::InvalidArgument, expected));
    }
    let status = diff(&server, good()).await.expect_err("no base");
    assert_eq!(status.code(), Code::NotFound, "{status}");
}

#[tokio::test]
async fn tables_group_filter_and_show_gaps() {
    let server = Server::start().await;
    server.store.insert(window(&[("nginx", 3), ("redis", 2)]));
    let mut client = ProfileServiceClient::new(server.channel().await);
    let by_process = TopRequest { by: GroupBy::Process.into(), ..TopRequest::default() };
    let top = client.top(by_process).await.expect("rows").into_inner();
    let rows: Vec<_> = top.rows.iter().map(|row| (row.frame.as_str(), row.total)).collect();
    assert_eq!((rows, top.shown), (vec![("nginx[1]", 3), ("redis[2]", 2)], 5));
    let ignored = TopRequest { ignore: "^ma".to_owned(), ..TopRequest::default() };
    let top = client.top(ignored).await.expect("no rows").into_inner();
    assert_eq!((top.rows.len(), top.shown), (0, 0));
    for (request, expected) in [
        (TopRequest { focus: "(".to_owned(), ..TopRequest::default() }, "focus"),
        (TopRequest { ignore: "[".to_owned(), ..TopRequest::default() }, "ignore"),
        (TopRequest { by: 99, ..TopRequest::default() }, "by"),
    ] {
        let status = client.top(request).await.expect_err(expected);
        assert_eq!((status.code(), field(&status).as_str()), (Code::InvalidArgument, expected));
    }

    let list = client.list(ListRequest::default()).await.expect("a list").into_inner();
    assert_eq!((list.kinds.len(), list.containers.len()), (1, 0));
    // Fifteen minutes are asked for and ten seconds are there.
    let [gap] = list.gaps.as_slice() else { panic!("{:?}", list.gaps) };
    let length = gap.to.as_ref().expect("end").seconds - gap.from.as_ref().expect("start").seconds;
    assert!((885..=895).contains(&length), "{length} s");
}

#[tokio::test]
async fn a_report_is_of_the_host_or_of_one_cgroup() {
    let server = Server::start().await;
    server.store.insert(window(&[("nginx", 300), ("redis", 200)]));
    let mut client = ProfileServiceClient::new(server.channel().await);
    let report = client.report(ReportRequest::default()).await.expect("a report").into_inner();
    let texts: Vec<_> = report.lines.iter().map(|line| line.text.as_str()).collect();
    assert_eq!((report.scope.as_str(), report.covered), ("host", seconds(10)));
    assert_eq!(texts[0], "0.50 CPUs busy on average, 25.0 % of the host's 2");
    assert!(texts[1].starts_with("some work waited for io 12.5 %"), "{texts:?}");
    assert_eq!(report.lines[0].stacks[0].frames, ["main"]);

    let nginx = ReportRequest { selection: selection(r#"comm="nginx""#), stacks: 1 };
    let report = client.report(nginx).await.expect("a report").into_inner();
    assert_eq!(report.scope, "/system.slice/nginx.service");
    assert!(report.lines.iter().any(|line| line.measure == "oom_kills" && line.value == 1.0));

    let capture = Some(Selection { capture_id: "x".to_owned(), ..Selection::default() });
    for (request, expected) in [
        (ReportRequest { selection: capture, stacks: 0 }, "selection.capture_id"),
        (ReportRequest { selection: None, stacks: 1000 }, "stacks"),
        (ReportRequest { selection: selection("x"), stacks: 0 }, "selection.where"),
    ] {
        let status = client.report(request).await.expect_err(expected);
        assert_eq!((status.code(), field(&status).as_str()), (Code::InvalidArgument, expected));
    }
    let nobody = ReportRequest { selection: selection(r#"comm="x""#), stacks: 0 };
    assert_eq!(client.report(nobody).await.expect_err("nobody").code(), Code::NotFound);
}

#[tokio::test]
async fn windows_are_watched_as_they_come() {
    let server = Server::start().await;
    let mut client = ProfileServiceClient::new(server.channel().await);
    let request = WatchWindowsRequest { r#where: r#"comm="redis""#.to_owned(), ..Default::default() };
    let mut watch = client.watch(request).await.expect("watches").into_inner();
    assert_eq!(server.windows.send(window(&[("nginx", 3), ("redis", 2)])).expect("watched"), 1);
    let first = watch.next().await.expect("a window").expect("ok");
    assert_eq!((first.summary.expect("a summary").total, first.rows.len(), first.missed), (2, 1, 0));
    // Whoever is too slow is told so; the fixture keeps four windows.
    for _ in 0..100 {
        server.windows.send(window(&[("nginx", 3)])).expect("watched");
    }
    let mut missed = 0;
    let mut seen = 0;
    while missed + seen < 100 {
        let next = watch.next().await.expect("a window").expect("ok");
        assert_eq!(next.summary.expect("a summary").total, 0, "nothing of redis");
        missed += next.missed;
        seen += 1;
    }
    assert_eq!(missed + seen, 100);

    let status = client.watch(WatchWindowsRequest { r#where: "x".to_owned(), ..Default::default() }).await;
    assert_eq!(field(&status.expect_err("bad")), "where");
    let mut watches = Vec::new();
    let refused = loop {
        match client.watch(WatchWindowsRequest::default()).await {
            Ok(watch) => watches.push(watch),
            Err(status) => break status,
        }
        assert!(watches.len() < 100);
    };
    assert_eq!(refused.code(), Code::ResourceExhausted);
}
