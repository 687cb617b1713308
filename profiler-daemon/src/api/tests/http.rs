//! Tests of the HTTP side.

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use super::harness::{Server, TOKEN, window};

/// Status code, headers and body.
async fn get(server: &Server, path: &str) -> (u16, String) {
    get_with(server, path, &format!("Authorization: Bearer {TOKEN}\r\n")).await
}

async fn get_with(server: &Server, path: &str, headers: &str) -> (u16, String) {
    let mut stream = TcpStream::connect(&server.http).await.expect("connects");
    let request = format!("GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n{headers}\r\n");
    stream.write_all(request.as_bytes()).await.expect("sent");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.expect("an answer");
    let code = answer.split(' ').nth(1).and_then(|code| code.parse().ok()).expect("a status line");
    (code, answer)
}

#[tokio::test]
async fn health_readiness_and_metrics() {
    let server = Server::start().await;
    assert_eq!(get(&server, "/healthz").await.0, 200);
    assert_eq!(get(&server, "/readyz").await.0, 503);
    server.ready.send(true).expect("served");
    assert_eq!(get(&server, "/readyz").await.0, 200);
    let (code, metrics) = get(&server, "/metrics").await;
    assert!(code == 200 && metrics.ends_with("# EOF\n"), "{metrics}");
    assert_eq!(get(&server, "/nothing").await.0, 404);
}

#[tokio::test]
async fn flame_graphs_are_for_those_who_show_the_token() {
    let server = Server::start().await;
    server.store.insert(window(&[("nginx", 3)]));
    for headers in
        ["", "Authorization: Bearer 0123456789abcdeX\r\n", "Authorization: Basic 0123456789abcdef\r\n"]
    {
        let (code, answer) = get_with(&server, "/flamegraph", headers).await;
        assert!(code == 401 && answer.to_lowercase().contains("www-authenticate: bearer"), "{answer}");
        assert!(!answer.contains("nginx"), "{answer}");
    }
    assert_eq!(get(&server, "/flamegraph").await.0, 200);
    // What says nothing of what runs here needs none.
    assert_eq!(get_with(&server, "/metrics", "").await.0, 200);
    let server = Server::with_webhook(false).await;
    server.store.insert(window(&[("nginx", 3)]));
    let (code, answer) = get(&server, "/flamegraph").await;
    assert!(code == 404 && answer.contains("http_token_file"), "{answer}");
}

#[tokio::test]
async fn flame_graphs_and_their_errors() {
    let server = Server::start().await;
    let (code, answer) = get(&server, "/flamegraph").await;
    assert!(code == 404 && answer.contains("stored yet"), "{answer}");
    server.store.insert(window(&[("nginx", 3)]));
    let (code, answer) = get(&server, "/flamegraph?kind=on-cpu&since=5m&where=comm%3D%22nginx%22").await;
    assert!(code == 200 && answer.contains("image/svg+xml") && answer.contains("<svg"), "{answer}");
    for (query, reason) in [
        ("kind=cpu", "unknown kind"),
        ("since=yesterday", "since"),
        ("since=0s", "longer than 0"),
        ("where=comm", "character 5"),
        ("wher=x", "wher"),
    ] {
        let (code, answer) = get(&server, &format!("/flamegraph?{query}")).await;
        assert!(code == 400 && answer.contains(reason), "{query}: {answer}");
    }
}
