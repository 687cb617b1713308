//! Tests of the API over a real unix socket, with a client that knows `profiler.v1`.

mod harness;
mod http;
mod questions;
mod sockets;
mod webhook;

use std::time::Duration;

use tokio_stream::StreamExt as _;
use tonic::{Code, Request, Status};
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_client::HealthClient;
use tonic_types::StatusExt as _;

use self::harness::{Server, window};
use crate::proto::agent_service_client::AgentServiceClient;
use crate::proto::capture_service_client::CaptureServiceClient;
use crate::proto::profile_service_client::ProfileServiceClient;
use crate::proto::query_response::Part;
use crate::proto::{
    self, CaptureState, FindingsRequest, Format, GetRequest, ListRequest, QueryRequest, Selection,
    SettingsRequest, StartRequest, StatusRequest, StopRequest, Target, TimeRange, TopRequest, WatchRequest,
};

fn selection(r#where: &str) -> Option<Selection> {
    Some(Selection { r#where: r#where.to_owned(), ..Selection::default() })
}

fn range(range: TimeRange) -> Option<Selection> {
    Some(Selection { range: Some(range), ..Selection::default() })
}

fn seconds(seconds: i64) -> Option<prost_types::Duration> {
    Some(prost_types::Duration { seconds, nanos: 0 })
}

async fn query(server: &Server, selection: Option<Selection>, format: Format) -> Result<Vec<Part>, Status> {
    let mut client = ProfileServiceClient::new(server.channel().await);
    let stream =
        client.query(QueryRequest { selection, format: format.into(), wakers: false }).await?.into_inner();
    stream.map(|message| message.map(|message| message.part.expect("a part"))).collect().await
}

fn field(status: &Status) -> String {
    let details = status.get_error_details();
    let violations = &details.bad_request().expect("names a field").field_violations;
    violations.iter().map(|violation| violation.field.clone()).collect::<Vec<_>>().join(",")
}

#[tokio::test]
async fn a_query_streams_the_summary_then_the_profile() {
    let server = Server::start().await;
    server.store.insert(window(&[("nginx", 3), ("redis", 2)]));
    let parts = query(&server, None, Format::Unspecified).await.expect("an answer");
    let [Part::Summary(summary), Part::Text(text)] = parts.as_slice() else { panic!("{parts:?}") };
    assert_eq!((summary.unit.as_str(), summary.total, summary.records), ("samples", 5, 5));
    assert!((summary.frequency_hz - 100.0).abs() < 1e-6);
    assert_eq!(summary.covered, seconds(10));
    assert_eq!(summary.losses[0].stage, "kernel");
    let stacks = summary.stacks.as_ref().expect("what the stacks are worth");
    assert_eq!((stacks.user_stacks, stacks.complete, stacks.stopped, stacks.guessed), (5, 3, 2, 1));
    assert_eq!((stacks.frames, stacks.frames_unnamed), (20, 4));
    let reasons: Vec<_> = stacks.stopped_reasons.iter().map(|stop| (&*stop.reason, stop.count)).collect();
    assert_eq!(reasons, [("no unwinding table yet", 2)]);
    assert!(text.contains("nginx") && text.contains("redis"), "{text}");

    let parts = query(&server, selection(r#"comm="redis""#), Format::Pprof).await.expect("an answer");
    let [Part::Summary(summary), Part::Data(data)] = parts.as_slice() else { panic!("{parts:?}") };
    assert_eq!(summary.total, 2);
    assert!(!data.is_empty());
}

#[tokio::test]
async fn tables_have_rows_and_limits() {
    let server = Server::start().await;
    server.store.insert(window(&[("nginx", 3), ("redis", 2)]));
    let mut client = ProfileServiceClient::new(server.channel().await);
    let list = client.list(ListRequest { selection: None, limit: 1 }).await.expect("a list").into_inner();
    let rows: Vec<_> = list.processes.iter().map(|row| (row.comm.as_str(), row.value)).collect();
    assert_eq!(rows, [("nginx", 3)]);
    let top = client.top(TopRequest::default()).await.expect("rows").into_inner();
    assert!(!top.rows.is_empty() && top.summary.is_some());
    let status =
        client.top(TopRequest { limit: 1 << 30, ..TopRequest::default() }).await.expect_err("too many");
    assert_eq!((status.code(), field(&status)), (Code::InvalidArgument, "limit".to_owned()));
}

#[tokio::test]
async fn bad_queries_name_their_field() {
    let server = Server::start().await;
    server.store.insert(window(&[("nginx", 3)]));
    let instant = |seconds| Some(prost_types::Timestamp { seconds, nanos: 0 });
    let since = |seconds_| range(TimeRange { since: seconds(seconds_), from: None, to: None });
    let between = |from, to| range(TimeRange { since: None, from, to });
    let both = range(TimeRange { since: seconds(1), from: instant(1), to: None });
    let cases = [
        (selection(r#"comm="a",host="b""#), "selection.where"),
        (since(0), "selection.range.since"),
        (since(-1), "selection.range.since"),
        (between(instant(5), instant(5)), "selection.range.from"),
        (between(None, instant(5)), "selection.range.from"),
        (between(instant(i64::MAX), None), "selection.range.from"),
        (both, "selection.range"),
        (Some(Selection { kind: 99, ..Selection::default() }), "selection.kind"),
    ];
    for (selection, expected) in cases {
        let status = query(&server, selection, Format::Folded).await.expect_err(expected);
        assert_eq!((status.code(), field(&status).as_str()), (Code::InvalidArgument, expected));
    }
    let status = query(&server, selection("comm=nginx"), Format::Folded).await.expect_err("unquoted");
    assert!(status.message().contains("character 6"), "{}", status.message());
    let request = QueryRequest { selection: None, format: 77, wakers: false };
    let status = ProfileServiceClient::new(server.channel().await).query(request).await.expect_err("77");
    assert_eq!(field(&status), "format");
}

#[tokio::test]
async fn no_data_is_not_found_and_says_what_is_stored() {
    let server = Server::start().await;
    let status = query(&server, None, Format::Pprof).await.expect_err("empty store");
    assert_eq!(status.code(), Code::NotFound);
    assert!(status.message().contains("stored yet"), "{}", status.message());

    server.store.insert(window(&[("nginx", 3)]));
    let instant = |seconds| Some(prost_types::Timestamp { seconds, nanos: 0 });
    let long_ago = range(TimeRange { since: None, from: instant(100), to: instant(200) });
    let status = query(&server, long_ago, Format::Folded).await.expect_err("long ago");
    assert_eq!(status.code(), Code::NotFound);
    assert!(status.message().contains("1970-01-01T00:01:40Z"), "{}", status.message());
    assert!(status.message().contains("stored: 20"), "{}", status.message());
    assert_eq!(
        status.get_error_details().resource_info().map(|info| info.resource_name.clone()),
        Some("on-cpu".into())
    );

    let status = query(&server, selection(r#"comm="x""#), Format::Folded).await.expect_err("no such comm");
    assert!(status.message().contains("matches the selector"), "{}", status.message());
}

#[tokio::test]
async fn a_capture_is_started_watched_stopped_and_queried() {
    let server = Server::start().await;
    let mut client = CaptureServiceClient::new(server.channel().await);
    let target = Some(Target { pids: vec![42], cgroup: String::new() });
    let request = StartRequest { target, duration: seconds(60), ..StartRequest::default() };
    let started = client.start(request).await.expect("starts").into_inner();
    assert_eq!(started.kind(), proto::ProfileKind::OffCpu);
    let id = started.id;

    let result = Some(Selection { capture_id: id.clone(), ..Selection::default() });
    let status = query(&server, result.clone(), Format::Folded).await.expect_err("still runs");
    assert_eq!(status.code(), Code::FailedPrecondition);
    assert!(status.get_error_details().retry_info().is_some());
    assert!(status.get_error_details().precondition_failure().is_some());

    // A watcher that leaves does no harm.
    let watch = client.watch(WatchRequest { id: id.clone() }).await.expect("watches").into_inner();
    drop(watch);
    let mut watch = client.watch(WatchRequest { id: id.clone() }).await.expect("watches").into_inner();
    let first = watch.next().await.expect("at once").expect("a capture");
    assert_ne!(first.state(), CaptureState::Done);
    let stopped = client.stop(StopRequest { id: id.clone() }).await.expect("stops").into_inner();
    assert_eq!((stopped.state(), stopped.reason.as_str()), (CaptureState::Done, "stopped on request"));
    let rest: Vec<_> = watch.collect().await;
    let last = rest.last().expect("the final state").as_ref().expect("a capture");
    assert_eq!(last.state(), CaptureState::Done);
    assert_eq!(last.summary.as_ref().map(|summary| summary.unit.as_str()), Some("microseconds"));

    let parts = query(&server, result, Format::Folded).await.expect("the result");
    assert!(matches!(parts.as_slice(), [Part::Summary(summary), Part::Text(_)] if summary.total == 5000));
    let got = client.get(GetRequest { id: id.clone() }).await.expect("known").into_inner();
    assert_eq!(got.state(), CaptureState::Done);
    let list = client.list(proto::ListCapturesRequest {}).await.expect("a list").into_inner();
    assert_eq!(list.captures.len(), 1);
}

#[tokio::test]
async fn capture_errors_carry_details() {
    let server = Server::start().await;
    let mut client = CaptureServiceClient::new(server.channel().await);
    let pids = |pids: &[u32]| Some(Target { pids: pids.to_vec(), cgroup: String::new() });
    let start = StartRequest::default;

    for (request, expected) in [
        (StartRequest { duration: seconds(0), ..start() }, "duration"),
        (StartRequest { duration: seconds(-3), ..start() }, "duration"),
        (StartRequest { duration: seconds(100_000), ..start() }, "duration"),
        (StartRequest { target: pids(&[0]), ..start() }, "target.pids"),
        (StartRequest { kind: 1, ..start() }, "kind"),
        (StartRequest { kind: 9, ..start() }, "kind"),
    ] {
        let status = client.start(request).await.expect_err(expected);
        assert_eq!((status.code(), field(&status).as_str()), (Code::InvalidArgument, expected));
    }
    let status = client.start(StartRequest { target: pids(&[4242]), ..start() }).await.expect_err("no pid");
    assert_eq!((status.code(), field(&status).as_str()), (Code::NotFound, "target.pids"));
    let status = client.start(StartRequest { target: pids(&[13]), ..start() }).await.expect_err("host");
    assert_eq!(status.code(), Code::FailedPrecondition);
    let details = status.get_error_details();
    let violation = &details.precondition_failure().expect("what to do").violations[0];
    assert_eq!(violation.description, "boot a kernel with BTF");

    client.start(start()).await.expect("the one that may run");
    let status = client.start(start()).await.expect_err("one too many");
    assert_eq!(status.code(), Code::ResourceExhausted);
    let delay = status.get_error_details().retry_info().and_then(|info| info.retry_delay);
    assert!(delay.is_some_and(|delay| delay > Duration::from_secs(20)), "{delay:?}");

    let id = "20200101-000000-dead".to_owned();
    let status = client.get(GetRequest { id: id.clone() }).await.expect_err("unknown");
    assert_eq!((status.code(), field(&status).as_str()), (Code::NotFound, "id"));
    let details = status.get_error_details();
    assert_eq!(details.resource_info().map(|info| info.resource_name.as_str()), Some(id.as_str()));
    let unknown = Some(Selection { capture_id: id, ..Selection::default() });
    let status = query(&server, unknown, Format::Folded).await.expect_err("unknown");
    assert_eq!((status.code(), field(&status).as_str()), (Code::NotFound, "selection.capture_id"));
}

#[tokio::test]
async fn the_agent_answers_and_health_follows_it() {
    let server = Server::start().await;
    let channel = server.channel().await;
    let mut agent = AgentServiceClient::new(channel.clone())
        .accept_compressed(tonic::codec::CompressionEncoding::Gzip)
        .send_compressed(tonic::codec::CompressionEncoding::Gzip);
    let status = agent.status(StatusRequest {}).await.expect("a status").into_inner();
    assert_eq!((status.rss_bytes, status.losses[0].count), (4096, 7));
    assert_eq!(status.version, env!("CARGO_PKG_VERSION"));
    let findings = agent.findings(FindingsRequest {}).await.expect("findings").into_inner().findings;
    assert_eq!((findings[0].check.as_str(), findings[0].severity()), ("btf", proto::Severity::Warning));
    let settings = agent.settings(SettingsRequest {}).await.expect("settings").into_inner();
    assert_eq!(settings.toml, "a = 1\n");

    let mut health = HealthClient::new(channel);
    for (ready, expected) in [(true, 1), (false, 2), (true, 1)] {
        server.ready.send(ready).expect("served");
        for service in ["", "profiler.v1.ProfileService"] {
            let request = || HealthCheckRequest { service: service.to_owned() };
            let mut changes = health.watch(Request::new(request())).await.expect("known").into_inner();
            // 1 is SERVING, 2 NOT_SERVING.
            let reached = async {
                while changes.next().await.expect("goes on").expect("a status").status != expected {}
            };
            tokio::time::timeout(Duration::from_secs(5), reached).await.expect("the status is reached");
        }
    }
}

#[tokio::test]
async fn reflection_describes_the_services_in_both_versions() {
    let server = Server::start().await;
    let expected = ["profiler.v1.AgentService", "profiler.v1.CaptureService", "profiler.v1.ProfileService"];

    let (names, described) = {
        use tonic_reflection::pb::v1::server_reflection_client::ServerReflectionClient;
        use tonic_reflection::pb::v1::server_reflection_request::MessageRequest;
        use tonic_reflection::pb::v1::{
            ServerReflectionRequest, server_reflection_response::MessageResponse,
        };
        let ask = |message| ServerReflectionRequest { host: String::new(), message_request: Some(message) };
        let requests = tokio_stream::iter([
            ask(MessageRequest::ListServices(String::new())),
            ask(MessageRequest::FileContainingSymbol("profiler.v1.ProfileService".to_owned())),
        ]);
        let mut client = ServerReflectionClient::new(server.channel().await);
        let mut answers = client.server_reflection_info(requests).await.expect("v1").into_inner();
        let mut next = async || answers.next().await.expect("an answer").expect("ok").message_response;
        let Some(MessageResponse::ListServicesResponse(list)) = next().await else { panic!("no list") };
        let Some(MessageResponse::FileDescriptorResponse(files)) = next().await else { panic!("no file") };
        let names: Vec<String> = list.service.into_iter().map(|service| service.name).collect();
        (names, files.file_descriptor_proto.len())
    };
    for name in expected {
        assert!(names.iter().any(|known| known == name), "{name} in {names:?}");
    }
    assert!(names.iter().any(|name| name == "grpc.health.v1.Health"));
    assert!(described > 0);

    use tonic_reflection::pb::v1alpha::server_reflection_client::ServerReflectionClient;
    use tonic_reflection::pb::v1alpha::server_reflection_request::MessageRequest;
    use tonic_reflection::pb::v1alpha::{
        ServerReflectionRequest, server_reflection_response::MessageResponse,
    };
    let message_request = Some(MessageRequest::ListServices(String::new()));
    let request = ServerReflectionRequest { host: String::new(), message_request };
    let mut client = ServerReflectionClient::new(server.channel().await);
    let requests = tokio_stream::iter([request]);
    let mut answers = client.server_reflection_info(requests).await.expect("v1alpha").into_inner();
    let answer = answers.next().await.expect("an answer").expect("ok").message_response;
    let Some(MessageResponse::ListServicesResponse(list)) = answer else { panic!("no list") };
    assert!(list.service.iter().any(|service| service.name == expected[2]));
}
