//! Tests of the webhook and of bundles over gRPC.

use std::time::Duration;

use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio_stream::StreamExt as _;
use tonic::Code;
use tonic_types::StatusExt as _;

use super::harness::{Server, TOKEN, window};
use crate::proto::capture_service_client::CaptureServiceClient;
use crate::proto::{CaptureState, GetBundleRequest, ListCapturesRequest, StartRequest, WatchRequest};

/// Posts a body with these headers: status code, head and the answer's JSON.
async fn post(server: &Server, headers: &str, body: &[u8]) -> (u16, String, Value) {
    let mut stream = TcpStream::connect(&server.http).await.expect("connects");
    let head = format!(
        "POST /webhook/alertmanager HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n{headers}\
         Content-Type: application/json\r\nContent-Length: {}\r\n\r\n",
        body.len()
    );
    stream.write_all(head.as_bytes()).await.expect("sent");
    // Who is refused for want of a token may be cut off before all is sent.
    let _cut_off = stream.write_all(body).await;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.expect("an answer");
    let (head, body) = answer.split_once("\r\n\r\n").expect("headers");
    let code = head.split(' ').nth(1).and_then(|code| code.parse().ok()).expect("a status line");
    (code, head.to_lowercase(), serde_json::from_str(body).expect(body))
}

async fn authorised(server: &Server, body: &[u8]) -> (u16, String, Value) {
    post(server, &format!("Authorization: Bearer {TOKEN}\r\n"), body).await
}

/// Alertmanager's documented payload, its firing alert about this process.
fn documented() -> String {
    let pid = format!("\"pid\": \"{}\"", std::process::id());
    include_str!("../../../testdata/alertmanager.json").replace("\"pid\": \"42\"", &pid)
}

async fn captures(server: &Server) -> Vec<crate::proto::Capture> {
    let mut client = CaptureServiceClient::new(server.channel().await);
    client.list(ListCapturesRequest {}).await.expect("a list").into_inner().captures
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_alert_starts_one_capture_and_its_bundle_is_fetched() {
    let server = Server::start().await;
    server.store.insert(window(&[("nginx", 3)]));
    let (code, _, answer) = authorised(&server, documented().as_bytes()).await;
    assert_eq!(code, 200, "{answer}");
    let id = answer["alerts"][0]["capture"].as_str().expect("an id").to_owned();
    let expected = json!({"alerts": [
        {"fingerprint": "a9a1ef0bd5f0b1cd", "outcome": "started", "capture": id},
        {"fingerprint": "3a1c33f0d7a0b0e2", "outcome": "ignored", "because": "it is resolved"},
    ]});
    assert_eq!(answer, expected);
    for _ in 0..9 {
        let (code, _, answer) = authorised(&server, documented().as_bytes()).await;
        assert_eq!((code, &answer["alerts"][0]["outcome"]), (200, &"duplicate".into()));
        assert_eq!(answer["alerts"][0]["capture"], *id);
    }
    let listed = captures(&server).await;
    assert_eq!(listed.len(), 1);
    assert_eq!(listed[0].target.as_ref().expect("a target").pids, [std::process::id()]);
    assert_eq!(listed[0].cause, "alert ServiceSlow (a9a1ef0bd5f0b1cd)");
    assert_eq!(listed[0].labels.get("severity").map(String::as_str), Some("page"));

    let mut client = CaptureServiceClient::new(server.channel().await);
    let ask = || GetBundleRequest { id: id.clone() };
    let status = client.get_bundle(ask()).await.expect_err("it runs for a second");
    assert_eq!(status.code(), Code::FailedPrecondition);
    assert!(status.get_error_details().retry_info().is_some());
    let watch = client.watch(WatchRequest { id: id.clone() }).await.expect("watches").into_inner();
    let states: Vec<_> = watch.map(|capture| capture.expect("a capture").state()).collect().await;
    assert_eq!(states.last(), Some(&CaptureState::Done));
    let parts = client.get_bundle(ask()).await.expect("a bundle").into_inner();
    let parts: Vec<_> = parts.map(|part| part.expect("a part")).collect().await;
    assert_eq!(parts[0].file, "report.md");
    let report = String::from_utf8(parts[0].data.clone()).expect("text");
    assert!(report.contains("alert ServiceSlow") && report.len() as u64 == parts[0].size, "{report}");
    assert!(parts.iter().any(|part| part.file == "capture-off-cpu.svg"));
    assert!(server.bundles.join(&id).join("report.md").exists());
    let status = client.get_bundle(GetBundleRequest { id: "../x".to_owned() }).await.expect_err("unknown");
    assert_eq!(status.code(), Code::NotFound);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn strangers_floods_and_rubbish_are_refused() {
    let server = Server::start().await;
    let body = documented();
    for headers in [
        String::new(),
        "Authorization: Bearer\r\n".to_owned(),
        "Authorization: Bearer 0123456789abcdeX\r\n".to_owned(),
        format!("Authorization: Bearer {TOKEN}x\r\n"),
        format!("Authorization: Basic {TOKEN}\r\n"),
    ] {
        let (code, head, answer) = post(&server, &headers, body.as_bytes()).await;
        assert_eq!(code, 401, "{headers}: {answer}");
        assert!(head.contains("www-authenticate: bearer"), "{head}");
    }
    let (code, _, answer) = authorised(&server, &vec![b' '; 10_000_000]).await;
    assert_eq!((code, &answer["field"]), (413, &"body".into()), "{answer}");
    for (body, field) in [
        ("rubbish", "body"),
        (r#"{"version":"4","alerts":[{"status":"firing","labels":{"pid":7}}]}"#, "alerts[0].labels.pid"),
    ] {
        let (code, _, answer) = authorised(&server, body.as_bytes()).await;
        assert_eq!((code, &answer["field"]), (400, &field.into()), "{answer}");
    }
    let (code, _, answer) = authorised(&server, body.replace("\"pid\"", "\"comm\"").as_bytes()).await;
    assert_eq!(code, 422, "{answer}");
    assert!(answer["alerts"][0]["because"].as_str().is_some_and(|text| text.contains("label comm=")));
    assert!(captures(&server).await.is_empty());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_put_off_is_to_be_tried_again() {
    let server = Server::start().await;
    // One may run at a time.
    let mut client = CaptureServiceClient::new(server.channel().await);
    client.start(StartRequest::default()).await.expect("starts");
    let (code, head, answer) = authorised(&server, documented().as_bytes()).await;
    assert_eq!((code, &answer["alerts"][0]["outcome"]), (503, &"deferred".into()));
    assert!(head.contains("retry-after: "), "{head}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_bundle_can_be_asked_for_with_the_capture() {
    let server = Server::start().await;
    let mut client = CaptureServiceClient::new(server.channel().await);
    let duration = Some(prost_types::Duration { seconds: 1, nanos: 0 });
    let request = StartRequest { duration, bundle: true, ..StartRequest::default() };
    let id = client.start(request).await.expect("starts").into_inner().id;
    let report = server.bundles.join(id).join("report.md");
    let made = async {
        while !report.exists() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(30), made).await.expect("it is made");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_a_token_there_is_no_webhook() {
    let server = Server::with_webhook(false).await;
    let (code, _, answer) = authorised(&server, documented().as_bytes()).await;
    assert_eq!(code, 404);
    assert!(answer["error"].as_str().is_some_and(|text| text.contains("webhook.token_file")), "{answer}");
}
