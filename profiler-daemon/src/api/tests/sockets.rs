//! Tests of who may have a socket, and who removes it.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::time::Duration;

use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_client::HealthClient;

use super::harness::Server;
use crate::api::{BindError, Bound, Endpoints, Listener, bind};

async fn bind_unix(path: &Path) -> Result<Bound, BindError> {
    bind(&Endpoints { grpc: vec![Listener::Unix(path.to_owned())], ..Endpoints::default() }).await
}

fn mode(path: &Path) -> u32 {
    fs::symlink_metadata(path).expect("exists").permissions().mode() & 0o777
}

#[tokio::test]
async fn a_socket_has_narrow_modes_and_leaves_nothing_behind() {
    let directory = tempfile::tempdir().expect("a directory");
    let parent = directory.path().join("new");
    let path = parent.join("profiler.sock");
    let bound = bind_unix(&path).await.expect("binds");
    assert_eq!((mode(&path), mode(&parent)), (0o660, 0o750));
    drop(bound);
    assert_eq!(fs::read_dir(&parent).expect("a directory").count(), 0);
}

#[tokio::test]
async fn a_live_socket_is_refused() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("profiler.sock");
    let first = bind_unix(&path).await.expect("binds");
    let error = bind_unix(&path).await.expect_err("in use");
    assert!(matches!(error, BindError::InUse { .. }), "{error}");
    assert!(error.to_string().contains("in use by another daemon"));
    drop(first);
    bind_unix(&path).await.expect("free again");

    // Someone who takes no lock.
    let _listener = UnixListener::bind(&path).expect("binds");
    let error = bind_unix(&path).await.expect_err("in use");
    assert!(matches!(error, BindError::InUse { .. }), "{error}");
    assert!(path.exists(), "not ours to remove");
}

#[tokio::test]
async fn a_stale_socket_is_replaced_and_other_files_are_not() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("profiler.sock");
    // As after `kill -9`: the socket and the lock file remain, nobody listens, nobody has the lock.
    drop(UnixListener::bind(&path).expect("binds"));
    fs::write(directory.path().join("profiler.sock.lock"), "").expect("written");
    drop(bind_unix(&path).await.expect("replaces it"));

    fs::write(&path, "precious").expect("written");
    let error = bind_unix(&path).await.expect_err("a file");
    assert!(matches!(error, BindError::NotASocket { .. }), "{error}");
    assert_eq!(fs::read(&path).expect("still there"), b"precious");
}

#[tokio::test]
async fn another_socket_of_the_same_name_stays() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("profiler.sock");
    let bound = bind_unix(&path).await.expect("binds");
    fs::rename(&path, directory.path().join("moved")).expect("moved");
    let _other = UnixListener::bind(&path).expect("binds");
    drop(bound);
    assert!(path.exists());
}

#[tokio::test]
async fn addresses_that_others_can_reach_need_permission() {
    let address = ([0, 0, 0, 0], 0).into();
    let mut endpoints = Endpoints { grpc: vec![Listener::Tcp(address)], ..Endpoints::default() };
    let error = bind(&endpoints).await.expect_err("refused");
    assert!(matches!(error, BindError::Remote { .. }), "{error}");
    endpoints.allow_remote = true;
    let bound = bind(&endpoints).await.expect("allowed");
    assert_ne!(bound.grpc_addresses()[0].port(), 0);
    let http = Endpoints { http: Some(address), ..Endpoints::default() };
    assert!(matches!(bind(&http).await, Err(BindError::Remote { .. })));
}

#[tokio::test]
async fn serving_ends_when_told_whoever_is_still_connected() {
    let server = Server::start().await;
    // A stream that has no end of its own.
    let mut health = HealthClient::new(server.channel().await);
    let request = HealthCheckRequest { service: String::new() };
    let mut watch = health.watch(request).await.expect("known").into_inner();
    watch.message().await.expect("a status");
    assert!(server.socket.exists());
    server.cancel.cancel();
    let ended = tokio::time::timeout(Duration::from_secs(20), server.served).await.expect("ends");
    ended.expect("no panic").expect("no error");
    assert!(!server.socket.exists());
}
