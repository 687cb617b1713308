//! The commands against a daemon that plays its part: real sockets, real gRPC, canned answers.

use std::io;
use std::path::Path;
use std::pin::Pin;

use tokio::net::UnixListener;
use tokio_stream::wrappers::UnixListenerStream;
use tokio_stream::{Stream, StreamExt as _};
use tonic::transport::Server;
use tonic::{Request, Response, Status};

use crate::cli::{Cli, Command, Exit};
use crate::proto::capture_service_server::{CaptureService, CaptureServiceServer};
use crate::proto::profile_service_server::{ProfileService, ProfileServiceServer};
use crate::proto::query_response::Part;
use crate::proto::*;

use super::{Failure, capture, flamegraph, list, top};

/// Answers by the selector's text: `comm="none"` has no data, `comm="broken"` fails half way.
struct Canned;

#[tonic::async_trait]
impl ProfileService for Canned {
    type QueryStream = Pin<Box<dyn Stream<Item = Result<QueryResponse, Status>> + Send>>;

    async fn query(&self, request: Request<QueryRequest>) -> Result<Response<Self::QueryStream>, Status> {
        let question = request.into_inner();
        let format = question.format();
        let selector = question.selection.unwrap_or_default().r#where;
        if selector.contains("none") {
            return Err(Status::not_found("no window in the range"));
        }
        let total = if selector.contains("zero") { 0 } else { 3 };
        let summary = ProfileSummary { total, unit: "samples".to_owned(), ..ProfileSummary::default() };
        let part = |part| Ok(QueryResponse { part: Some(part) });
        let mut parts = vec![part(Part::Summary(summary))];
        match format {
            Format::Pprof => parts.push(part(Part::Data(vec![1, 2, 3]))),
            _ => parts.extend(["a;b ", "3\n"].map(|text| part(Part::Text(text.to_owned())))),
        }
        if selector.contains("broken") {
            parts.insert(2, Err(Status::internal("lost my head")));
        }
        Ok(Response::new(Box::pin(tokio_stream::iter(parts))))
    }

    async fn top(&self, _: Request<TopRequest>) -> Result<Response<TopResponse>, Status> {
        Err(Status::invalid_argument("selection.where: no"))
    }

    async fn list(&self, _: Request<ListRequest>) -> Result<Response<ListResponse>, Status> {
        Ok(Response::new(ListResponse { summary: None, processes: Vec::new() }))
    }
}

/// Captures of process 9 fail; all others end well.
#[tonic::async_trait]
impl CaptureService for Canned {
    type WatchStream = Pin<Box<dyn Stream<Item = Result<Capture, Status>> + Send>>;
    type GetBundleStream = Pin<Box<dyn Stream<Item = Result<BundlePart, Status>> + Send>>;

    async fn get_bundle(
        &self,
        request: Request<GetBundleRequest>,
    ) -> Result<Response<Self::GetBundleStream>, Status> {
        let part = |file: &str, data: &str, size| {
            Ok(BundlePart { file: file.to_owned(), size, data: data.as_bytes().to_vec() })
        };
        let mut parts = vec![part("report.md", "ab", 3), part("report.md", "c", 3), part("x.svg", "d", 1)];
        if request.into_inner().id == "c9" {
            parts.insert(1, Err(Status::internal("lost my head")));
        }
        Ok(Response::new(Box::pin(tokio_stream::iter(parts))))
    }

    async fn start(&self, request: Request<StartRequest>) -> Result<Response<Capture>, Status> {
        let pids = request.into_inner().target.unwrap_or_default().pids;
        let id = if pids == [9] { "c9" } else { "c1" };
        Ok(Response::new(canned(id, CaptureState::Pending)))
    }

    async fn get(&self, request: Request<GetRequest>) -> Result<Response<Capture>, Status> {
        match request.into_inner().id.as_str() {
            id @ "c1" => Ok(Response::new(canned(id, CaptureState::Done))),
            id => Err(Status::not_found(format!("no capture {id}"))),
        }
    }

    async fn list(&self, _: Request<ListCapturesRequest>) -> Result<Response<ListCapturesResponse>, Status> {
        Err(Status::unimplemented(""))
    }

    async fn stop(&self, _: Request<StopRequest>) -> Result<Response<Capture>, Status> {
        Err(Status::permission_denied("not yours"))
    }

    async fn watch(&self, request: Request<WatchRequest>) -> Result<Response<Self::WatchStream>, Status> {
        let id = request.into_inner().id;
        let end = if id == "c9" { CaptureState::Failed } else { CaptureState::Done };
        let states = [CaptureState::Running, end].map(|state| Ok(canned(&id, state)));
        Ok(Response::new(Box::pin(tokio_stream::iter(states))))
    }
}

fn canned(id: &str, state: CaptureState) -> Capture {
    let summary = ProfileSummary { total: 7, unit: "microseconds".to_owned(), ..ProfileSummary::default() };
    Capture { id: id.to_owned(), state: state.into(), summary: Some(summary), ..Capture::default() }
}

async fn run(line: &str) -> Result<(), Failure> {
    let words = std::iter::once("profiler").chain(line.split_whitespace()).map(Into::into);
    match Cli::parse_line(words).expect("a valid line").command {
        Command::Flamegraph(args) => flamegraph(&args).await,
        Command::Top(args) => top(&args).await,
        Command::List(args) => list(&args).await,
        Command::Capture(args) => capture(&args).await,
        other => panic!("{other:?}"),
    }
}

fn serve(socket: &Path) {
    let listener = UnixListener::bind(socket).expect("bound");
    let incoming = UnixListenerStream::new(listener).map(|stream| stream as io::Result<_>);
    let server = Server::builder()
        .add_service(ProfileServiceServer::new(Canned))
        .add_service(CaptureServiceServer::new(Canned));
    tokio::spawn(server.serve_with_incoming(incoming));
}

#[tokio::test]
async fn files_are_whole_or_absent() {
    let directory = tempfile::tempdir().expect("a directory");
    let socket = directory.path().join("s");
    serve(&socket);
    let base = directory.path().display();
    let at = |name: &str| directory.path().join(name);
    let flamegraph = |rest: String| async move { run(&format!("flamegraph {rest}")).await };
    let connect = format!("--connect unix://{}", socket.display());

    flamegraph(format!("{connect} -o {base}/a.folded")).await.expect("written");
    assert_eq!(std::fs::read_to_string(at("a.folded")).expect("read"), "a;b 3\n");
    flamegraph(format!("{connect} -o {base}/a.pb.gz")).await.expect("written");
    assert_eq!(std::fs::read(at("a.pb.gz")).expect("read"), [1, 2, 3]);

    for (selector, exit, message) in [
        ("none", Exit::NoData, "no window in the range"),
        ("zero", Exit::NoData, "no on-cpu data in the range matches"),
        ("broken", Exit::Failure, "lost my head"),
    ] {
        let line = format!("{connect} --where comm=\"{selector}\" -o {base}/b.folded");
        let failure = flamegraph(line).await.expect_err(selector);
        assert_eq!(failure.exit, exit, "{failure}");
        assert!(failure.message.contains(message), "{failure}");
        assert!(!at("b.folded").exists());
    }
    let left = std::fs::read_dir(directory.path()).expect("listed").count();
    assert_eq!(left, 3, "the socket and two results, nothing else");
}

#[tokio::test]
async fn refusals_have_their_codes() {
    let directory = tempfile::tempdir().expect("a directory");
    let socket = directory.path().join("s");
    serve(&socket);
    let connect = format!("--connect unix://{}", socket.display());
    let exit = |line: String| async move { run(&line).await.expect_err("must fail").exit };
    assert_eq!(exit(format!("top {connect}")).await, Exit::Usage);
    assert_eq!(exit(format!("list {connect}")).await, Exit::Failure);
    assert_eq!(exit(format!("capture stop c1 {connect}")).await, Exit::Refused);
    assert_eq!(exit(format!("capture show c2 {connect}")).await, Exit::NoData);
    // A daemon that lacks a method is older than this client.
    let failure = run(&format!("capture list {connect}")).await.expect_err("must fail");
    assert!(failure.to_string().contains("does not know this request"), "{failure}");
}

#[tokio::test]
async fn captures_are_followed_to_their_end() {
    let directory = tempfile::tempdir().expect("a directory");
    let socket = directory.path().join("s");
    serve(&socket);
    let connect = format!("--connect unix://{}", socket.display());
    run(&format!("capture start off-cpu --wait {connect}")).await.expect("done");
    let failure = run(&format!("capture start off-cpu -p 9 --wait {connect}")).await.expect_err("failed");
    assert!(failure.message.starts_with("capture c9 failed"), "{failure}");
    // Without --wait nobody sees how it ends.
    run(&format!("capture start off-cpu -p 9 {connect}")).await.expect("started");

    let path = directory.path().join("c1.folded");
    run(&format!("capture show c1 -o {} {connect}", path.display())).await.expect("shown");
    assert_eq!(std::fs::read_to_string(&path).expect("read"), "a;b 3\n");
}

#[tokio::test]
async fn nobody_there() {
    let directory = tempfile::tempdir().expect("a directory");
    let missing = directory.path().join("missing");
    let stale = directory.path().join("stale");
    drop(UnixListener::bind(&stale).expect("bound"));
    for address in [
        format!("unix://{}", missing.display()),
        format!("unix://{}", stale.display()),
        "http://127.0.0.1:1".to_owned(),
    ] {
        let failure = run(&format!("list --connect {address}")).await.expect_err("must fail");
        assert_eq!(failure.exit, Exit::Unreachable, "{failure}");
        let text = failure.to_string();
        assert!(text.starts_with(&format!("cannot reach the daemon at {address}: ")), "{text}");
        assert!(text.contains("is the daemon running? start it with"), "{text}");
    }
}

#[tokio::test]
async fn an_unwritable_output_is_known_first() {
    let line = "flamegraph --connect unix:///nonexistent -o /nonexistent/a.svg";
    let failure = run(line).await.expect_err("must fail");
    assert_eq!(failure.exit, Exit::Failure);
    assert!(failure.message.starts_with("cannot write /nonexistent/a.svg: "), "{failure}");
}

#[tokio::test]
async fn bundles_are_whole_or_absent_and_captures_can_be_followed() {
    let directory = tempfile::tempdir().expect("a directory");
    let socket = directory.path().join("s");
    serve(&socket);
    let place = directory.path().join("bundle");
    let line = |id: &str| {
        format!("capture bundle {id} -o {} --connect unix://{}", place.display(), socket.display())
    };
    let failure = run(&line("c9")).await.expect_err("cut short");
    assert_eq!((failure.exit, place.exists()), (Exit::Failure, false), "{failure}");
    run(&line("c1")).await.expect("a bundle");
    let read = |name: &str| std::fs::read_to_string(place.join(name)).expect("written");
    assert_eq!((read("report.md").as_str(), read("x.svg").as_str()), ("abc", "d"));
    assert_eq!(run(&line("c1")).await.expect_err("exists").exit, Exit::Usage);
    run(&format!("capture watch c1 --connect unix://{}", socket.display()))
        .await
        .expect("followed to its end");
}
