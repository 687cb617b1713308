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

use super::{Failure, capture, diff, flamegraph, list, report, top, watch};

mod narrow;

/// Compares with a file in `golden/`; with `BLESS=1` in the environment writes it instead.
pub(super) fn check(file: &str, actual: &str) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/client/golden").join(file);
    if std::env::var_os("BLESS").is_some() {
        return std::fs::write(path, actual).expect("written");
    }
    let expected = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(expected == actual, "{file} differs; BLESS=1 writes it anew. Now it is:\n{actual}");
}

/// Answers by the selector's text: `comm="none"` has no data, `comm="broken"` fails half way.
struct Canned;

#[tonic::async_trait]
impl ProfileService for Canned {
    type QueryStream = Pin<Box<dyn Stream<Item = Result<QueryResponse, Status>> + Send>>;
    type DiffStream = Pin<Box<dyn Stream<Item = Result<DiffResponse, Status>> + Send>>;
    type HeatmapStream = Self::QueryStream;
    type WatchStream = Pin<Box<dyn Stream<Item = Result<WatchWindowsResponse, Status>> + Send>>;

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
        Ok(Response::new(ListResponse::default()))
    }

    async fn diff(&self, request: Request<DiffRequest>) -> Result<Response<Self::DiffStream>, Status> {
        Ok(Response::new(Box::pin(tokio_stream::iter(canned_diff(request.into_inner())))))
    }

    async fn watch(&self, _: Request<WatchWindowsRequest>) -> Result<Response<Self::WatchStream>, Status> {
        let windows = [1, 2].map(|missed| Ok(WatchWindowsResponse { missed, ..Default::default() }));
        Ok(Response::new(Box::pin(tokio_stream::iter(windows))))
    }

    async fn heatmap(&self, _: Request<HeatmapRequest>) -> Result<Response<Self::HeatmapStream>, Status> {
        Err(Status::unimplemented("not canned"))
    }

    async fn report(&self, _: Request<ReportRequest>) -> Result<Response<ReportResponse>, Status> {
        Ok(Response::new(ReportResponse { scope: "host".to_owned(), ..ReportResponse::default() }))
    }
}

/// A difference in which `slow` grew by 50 %.
fn canned_diff(request: DiffRequest) -> Vec<Result<DiffResponse, Status>> {
    let share = DiffShare { base: 20, with: 30, base_share: 0.2, with_share: 0.3, growth: 0.5, error: 0.01 };
    let row = DiffRow { frame: "slow".to_owned(), self_: Some(share), total: Some(share) };
    let summary = ProfileSummary { total: 3, unit: "samples".to_owned(), ..ProfileSummary::default() };
    let verdict = request.gate.map(|gate| Verdict {
        failed: if gate.fail_over < 0.5 { vec![row.clone()] } else { Vec::new() },
        tested: 2,
        bound: 3.0,
        ..Verdict::default()
    });
    let summary = DiffSummary { base: Some(summary.clone()), with: Some(summary), rows: vec![row], verdict };
    let part = |part| Ok(DiffResponse { part: Some(part) });
    let texts = ["a;slow 20 ", "30\n"].map(|text| part(diff_response::Part::Text(text.to_owned())));
    std::iter::once(part(diff_response::Part::Summary(Box::new(summary)))).chain(texts).collect()
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
        Command::Diff(args) => diff(&args).await,
        Command::Watch(args) => watch(&args).await,
        Command::Report(args) => report(&args).await,
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
async fn a_gate_exits_with_1_and_names_the_frame() {
    let directory = tempfile::tempdir().expect("a directory");
    let socket = directory.path().join("s");
    serve(&socket);
    let connect = format!("--connect unix://{}", socket.display());
    let base = directory.path().display();

    // Both in the daemon.
    let stored = format!("diff --base -2h.. --with 5m {connect}");
    run(&stored).await.expect("a table");
    run(&format!("{stored} --fail-over 60%")).await.expect("passes");
    let failure = run(&format!("{stored} --fail-over 5%")).await.expect_err("grew");
    assert_eq!(
        (failure.exit, failure.message.as_str()),
        (Exit::Failure, "1 frame grew by more than 5%: slow")
    );
    run(&format!("{stored} -o {base}/d.folded")).await.expect("written");
    let written = std::fs::read_to_string(directory.path().join("d.folded")).expect("read");
    assert_eq!(written, "a;slow 20 30\n");

    // Files need no daemon.
    let write = |name: &str, text: &str| std::fs::write(directory.path().join(name), text).expect("written");
    write("a.folded", "p;main;f 20000\np;main;g 20000\n");
    write("b.folded", "p;main;f 20000\np;main;g 24000\n");
    let files = format!("diff {base}/a.folded {base}/b.folded --connect unix:///nonexistent");
    let failure = run(&format!("{files} --fail-over 5%")).await.expect_err("grew");
    assert_eq!((failure.exit, failure.message.as_str()), (Exit::Failure, "1 frame grew by more than 5%: g"));
    run(&format!("{files} --fail-over 30%")).await.expect("passes");
    run(&format!("diff {base}/a.folded {base}/a.folded --fail-over 0%")).await.expect("equal");
    for (format, part) in [("svg", "<svg"), ("json", "\"failed\""), ("folded", "p;main;g 22000 24000")] {
        let file = format!("d.{format}");
        run(&format!("{files} --fail-over 99% -o {base}/{file}")).await.expect("written");
        let text = std::fs::read_to_string(directory.path().join(&file)).expect("read");
        assert!(text.contains(part), "{format}: {text}");
    }
    let failure = run(&format!("{files} --normalize time")).await.expect_err("no time in it");
    assert!(failure.exit == Exit::Usage && failure.message.contains("does not say how long"), "{failure}");
    let failure = run(&format!("diff {base}/a.folded {base}/no.json")).await.expect_err("no file");
    assert!(failure.message.contains("no.json: No such file"), "{failure}");
    write("c.json", "{}");
    let failure = run(&format!("diff {base}/a.folded {base}/c.json")).await.expect_err("no profile");
    assert!(failure.message.contains("c.json: not a profile in JSON"), "{failure}");
}

#[tokio::test]
async fn windows_are_watched_and_reports_shown() {
    let directory = tempfile::tempdir().expect("a directory");
    let socket = directory.path().join("s");
    serve(&socket);
    let connect = format!("--connect unix://{}", socket.display());
    run(&format!("watch {connect}")).await.expect("until the daemon ends it");
    run(&format!("watch --windows 1 --output json {connect}")).await.expect("one window");
    for layout in ["text", "json", "markdown"] {
        run(&format!("report --output {layout} {connect}")).await.expect(layout);
    }
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
