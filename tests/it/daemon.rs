//! The daemon over its socket, seen by a client that knows only reflection, and over HTTP.

use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use profiler_tests::daemon::{Daemon, Site};
use profiler_tests::folded::Folded;
use profiler_tests::grpc::Client;
use profiler_tests::pprof::Profile;
use profiler_tests::require_root;
use profiler_tests::run::wait_for;
use profiler_tests::svg::Svg;
use profiler_tests::workload::Workload;
use serde_json::{Value, json};
use tonic::Code;
use tonic_types::StatusExt as _;

const QUERY: &str = "profiler.v1.ProfileService/Query";

/// A window has to end before anything can be asked for.
const WINDOW_LIMIT: Duration = Duration::from_secs(60);

#[test]
fn a_client_that_knows_only_reflection_fetches_flame_graphs() -> Result<()> {
    let _exclusive = require_root!();
    let workload = Workload::new("spin", 100.0)?;
    let running = workload.start()?;
    let site = Site::new()?;
    let daemon = site.start()?;
    let client = daemon.client()?;

    let services = client.services()?;
    for name in ["ProfileService", "CaptureService", "AgentService"] {
        assert!(services.contains(&format!("profiler.v1.{name}")), "{name} is not among {services:?}");
    }
    assert!(services.contains(&"grpc.health.v1.Health".to_owned()), "{services:?}");

    let selection = json!({
        "kind": "PROFILE_KIND_ON_CPU",
        "where": format!("pid=\"{}\"", running.pid()),
        "range": {"since": {"seconds": 60}},
    });
    let (summary, folded) = wait_for("samples of the last minute", WINDOW_LIMIT, || {
        let (summary, text) = query_text(&client, &selection, "FORMAT_FOLDED")?;
        let folded = Folded::parse(&text)?;
        // Enough for the hottest function to be the hottest in them.
        Ok((folded.total() >= 100).then_some((summary, folded)))
    })?;
    assert_eq!(summary["total"], folded.total(), "the summary and the text: {summary}");
    assert_eq!(summary["unit"], "samples");
    assert_eq!(summary["stacks"]["records"], summary["total"], "of what was asked for, not of the host");
    assert!(summary["frequency_hz"].as_f64().is_some_and(|hertz| hertz > 0.0), "{summary}");
    assert_eq!(folded.heaviest_leaf().map(|(leaf, _)| leaf), Some("hot_function"));

    let svg = Svg::parse(&query_text(&client, &selection, "FORMAT_SVG")?.1)?;
    assert!(svg.value_of("hot_function") * 2 > svg.total, "the busy function is not the widest frame");
    let pprof = Profile::decode_gz(&query_data(&client, &selection, "FORMAT_PPROF")?)?;
    assert!(pprof.total("samples")? > 0);
    let top = client.call("profiler.v1.ProfileService/Top", json!({"selection": selection}))?;
    assert_eq!(top[0]["rows"][0]["frame"], "hot_function", "{}", top[0]);
    let list = client.call("profiler.v1.ProfileService/List", json!({"selection": selection}))?;
    assert_eq!(list[0]["processes"][0]["pid"], running.pid(), "{}", list[0]);
    assert_eq!(list[0]["processes"][0]["comm"], "spin", "{}", list[0]);

    // Counters are read once a second, and a window takes its time to end.
    wait_for("a status that has counted", WINDOW_LIMIT, || {
        let status = client.call("profiler.v1.AgentService/Status", json!({}))?;
        let counts = ["rss_bytes", "bpf_map_bytes", "on_cpu_samples", "windows"]
            .map(|field| status[0][field].as_u64().unwrap_or(0));
        Ok(counts.iter().all(|&count| count > 0).then_some(()))
    })?;
    let settings = client.call("profiler.v1.AgentService/Settings", json!({}))?;
    assert!(settings[0]["toml"].as_str().is_some_and(|toml| toml.contains('=')), "{}", settings[0]);
    let findings = client.call("profiler.v1.AgentService/Findings", json!({}))?;
    assert!(findings[0]["findings"].as_array().is_some_and(|all| !all.is_empty()), "{}", findings[0]);
    Ok(())
}

#[test]
fn an_off_cpu_capture_of_one_process_gives_a_flame_graph() -> Result<()> {
    const SECONDS: u64 = 3;
    let _exclusive = require_root!();
    let workload = Workload::new("sleepers", 100.0)?.arg("3").arg("20");
    let running = workload.start()?;
    let site = Site::new()?;
    let daemon = site.start()?;
    let client = daemon.client()?;

    let request = json!({
        "kind": "PROFILE_KIND_OFF_CPU",
        "target": {"pids": [running.pid()]},
        "duration": {"seconds": SECONDS},
    });
    let started = client.call("profiler.v1.CaptureService/Start", request)?;
    let id = started[0]["id"].as_str().context("a capture without id")?.to_owned();
    let seen = client.call("profiler.v1.CaptureService/Watch", json!({"id": id}))?;
    let last = seen.last().context("a watch without answers")?;
    assert_eq!(last["state"], "CAPTURE_STATE_DONE", "{last}");

    let selection = json!({"capture_id": id});
    let folded = Folded::parse(&query_text(&client, &selection, "FORMAT_FOLDED")?.1)?;
    for comm in ["sl-0", "sl-1", "sl-2"] {
        let off_cpu = folded.off_cpu(comm);
        let share = (off_cpu.blocked + off_cpu.run_queue) as f64 / (SECONDS as f64 * 1e6);
        assert!((0.95..1.1).contains(&share), "{comm} slept all the time, recorded: {off_cpu:?}");
    }
    assert!(
        folded.roots().iter().all(|root| root.starts_with("sl")),
        "other processes: {:?}",
        folded.roots()
    );
    let svg = Svg::parse(&query_text(&client, &selection, "FORMAT_SVG")?.1)?;
    assert_eq!(svg.total, folded.total());

    let list = client.call("profiler.v1.CaptureService/List", json!({}))?;
    assert_eq!(list[0]["captures"][0]["id"], *id, "{}", list[0]);
    // Stopping a capture that has ended changes nothing.
    let stopped = client.call("profiler.v1.CaptureService/Stop", json!({"id": id}))?;
    assert_eq!(stopped[0]["state"], "CAPTURE_STATE_DONE", "{}", stopped[0]);
    Ok(())
}

#[test]
fn bad_requests_are_refused_and_do_no_harm() -> Result<()> {
    let _exclusive = require_root!();
    let site = Site::new()?;
    let mut daemon = site.start()?;
    let client = daemon.client()?;

    let start = "profiler.v1.CaptureService/Start";
    let get = "profiler.v1.CaptureService/Get";
    let second = json!({"seconds": 1});
    let refused = [
        (QUERY, json!({"selection": {"where": "comm="}}), Code::InvalidArgument, "where"),
        (QUERY, json!({"selection": {"where": "host=\"x\""}}), Code::InvalidArgument, "where"),
        (QUERY, json!({"selection": {"range": {"since": {"seconds": -1}}}}), Code::InvalidArgument, "since"),
        (QUERY, json!({"selection": {"capture_id": "no-such-capture"}}), Code::NotFound, ""),
        (start, json!({"duration": {"seconds": 100_000}}), Code::InvalidArgument, "duration"),
        (start, json!({"kind": "PROFILE_KIND_ON_CPU"}), Code::InvalidArgument, "kind"),
        (start, json!({"target": {"pids": [4_000_000_000u32]}, "duration": second}), Code::NotFound, ""),
        (get, json!({"id": "no-such-capture"}), Code::NotFound, ""),
        ("profiler.v1.CaptureService/Stop", json!({"id": ""}), Code::NotFound, ""),
    ];
    for (path, request, code, field) in refused {
        let Err(status) = client.call(path, request.clone()) else { bail!("{path} took {request}") };
        assert_eq!(status.code(), code, "{path} {request}: {status}");
        if !field.is_empty() {
            let details =
                status.get_details_bad_request().with_context(|| format!("no details: {status}"))?;
            let named = details.field_violations.iter().any(|violation| violation.field.ends_with(field));
            assert!(named, "{path} {request} names {details:?}");
        }
    }
    for bytes in [vec![0xff; 64], vec![0x0a, 0xff, 0xff, 0xff, 0xff, 0x0f], b"GET / HTTP/1.1\r\n".to_vec()] {
        let status = client.call_with_bytes(QUERY, bytes.clone());
        assert!(status.is_err(), "{bytes:?} was taken for a query");
    }
    assert!(Client::connect(&site.url())?.is_serving()?, "the daemon serves no more");
    assert!(daemon.running.is_running()?);
    Ok(())
}

#[test]
fn http_serves_health_metrics_and_flame_graphs() -> Result<()> {
    let _exclusive = require_root!();
    let workload = Workload::new("spin", 100.0)?;
    let _running = workload.start()?;
    let site = Site::new()?;
    let secrets = tempfile::tempdir()?;
    let file = secrets.path().join("token");
    let token = "0123456789abcdef";
    std::fs::write(&file, token)?;
    let file = file.to_str().context("a temporary directory with a name that is no text")?;
    let _daemon: Daemon<'_> = site.start_with(&["--http-token-file", file])?;
    assert_eq!(site.get("/healthz")?.0, 200);
    assert_eq!(site.get("/readyz")?.0, 200);
    let (code, metrics) = site.get("/metrics")?;
    assert_eq!(code, 200);
    assert!(metrics.lines().any(|line| line.starts_with("# TYPE profiler_")), "{metrics}");
    assert_eq!(metrics.trim_end().lines().last(), Some("# EOF"), "not OpenMetrics text");

    let path = "/flamegraph?kind=on-cpu&since=1m&where=comm%3D%22spin%22";
    let text = wait_for("a flame graph over HTTP", WINDOW_LIMIT, || {
        let (code, body) = site.get_with(path, token)?;
        Ok((code == 200).then_some(body))
    })?;
    let svg = Svg::parse(&text)?;
    assert!(svg.value_of("hot_function") * 2 > svg.total);
    assert_eq!(site.get_with("/flamegraph?where=comm", token)?.0, 400);
    assert_eq!(site.get(path)?.0, 401);
    assert_eq!(site.get("/no-such-page")?.0, 404);
    Ok(())
}

/// A query for text: the summary, and the text's parts put together.
fn query_text(client: &Client, selection: &Value, format: &str) -> Result<(Value, String)> {
    let parts = client.call(QUERY, json!({"selection": selection, "format": format}))?;
    let (first, rest) = parts.split_first().context("an answer without parts")?;
    let summary = first.get("summary").context("the first part is no summary")?.clone();
    Ok((summary, rest.iter().filter_map(|part| part["text"].as_str()).collect()))
}

/// A query for data: its parts put together.
fn query_data(client: &Client, selection: &Value, format: &str) -> Result<Vec<u8>> {
    let parts = client.call(QUERY, json!({"selection": selection, "format": format}))?;
    let bytes = parts.iter().filter_map(|part| part["data"].as_array()).flatten();
    bytes.map(|byte| Ok(u8::try_from(byte.as_u64().context("not a byte")?)?)).collect()
}
