//! The HTTP server: health, metrics, a flame graph for the browser, and the webhook.

use std::time::SystemTime;

use axum::Router;
use axum::body::Body;
use axum::extract::rejection::QueryRejection;
use axum::extract::{Query, State};
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use serde::Deserialize;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use tonic::{Code, Status};

use super::bearer::authorised;
use super::error::ApiError;
use super::profiles::Pieces;
use super::query::{AskedRange, Need, Queries, Question, Source, Turn, blocking, selector};
use super::sending::sent;
use super::{ServeError, Services, webhook};
use crate::model::ProfileKind;
use crate::render::{Format, View};

#[derive(Clone)]
struct Site {
    services: Services,
    queries: Queries,
}

/// Serves until `cancel`; at once done where there is no listener.
pub(super) async fn serve(
    listener: Option<TcpListener>,
    services: Services,
    queries: Queries,
    cancel: CancellationToken,
) -> Result<(), ServeError> {
    let Some(listener) = listener else { return Ok(()) };
    let server =
        axum::serve(listener, router(services, queries)).with_graceful_shutdown(cancel.cancelled_owned());
    server.await.map_err(ServeError::Http)
}

fn router(services: Services, queries: Queries) -> Router {
    Router::new()
        .route("/healthz", get(async || "ok\n"))
        .route("/readyz", get(ready))
        .route("/metrics", get(metrics))
        .route("/flamegraph", get(flame_graph))
        .route("/webhook/alertmanager", post(webhook::alertmanager).with_state(services.webhook.clone()))
        .with_state(Site { services, queries })
}

async fn ready(State(site): State<Site>) -> Response {
    if *site.services.ready.borrow() {
        "ready\n".into_response()
    } else {
        (StatusCode::SERVICE_UNAVAILABLE, "not recording\n").into_response()
    }
}

async fn metrics(State(site): State<Site>) -> Response {
    // https://prometheus.io/docs/instrumenting/exposition_formats/ (OpenMetrics text).
    let kind = "application/openmetrics-text; version=1.0.0; charset=utf-8";
    ([(header::CONTENT_TYPE, kind)], (site.services.metrics)()).into_response()
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Parameters {
    kind: String,
    r#where: String,
    since: String,
}

async fn flame_graph(
    State(site): State<Site>,
    headers: HeaderMap,
    parameters: Result<Query<Parameters>, QueryRejection>,
) -> Response {
    let Some(token) = &site.services.http_token else {
        let problem = "flame graphs over HTTP are off: set http_token_file; \
                       `profiler flamegraph` asks over the daemon's socket\n";
        return (StatusCode::NOT_FOUND, problem).into_response();
    };
    if !authorised(&headers, token) {
        let challenge = [(header::WWW_AUTHENTICATE, "Bearer")];
        let problem = "show the token of http_token_file: Authorization: Bearer TOKEN\n";
        return (StatusCode::UNAUTHORIZED, challenge, problem).into_response();
    }
    match draw(&site.queries, parameters).await {
        Ok((svg, turn)) => {
            let length = svg.len();
            let headers = [
                (header::CONTENT_TYPE, "image/svg+xml"),
                (header::CACHE_CONTROL, "no-store"),
                (HeaderName::from_static("x-content-type-options"), "nosniff"),
            ];
            let length = [(header::CONTENT_LENGTH, HeaderValue::from(length))];
            let body = Body::from_stream(sent(Pieces::of(svg, false).map(Ok), turn));
            (headers, length, body).into_response()
        }
        Err(error) => {
            let status = Status::from(error);
            (http_code(status.code()), format!("{}\n", status.message())).into_response()
        }
    }
}

async fn draw(
    queries: &Queries,
    parameters: Result<Query<Parameters>, QueryRejection>,
) -> Result<(Vec<u8>, Turn), ApiError> {
    let Query(Parameters { kind, r#where, since }) = parameters
        .map_err(|rejection| ApiError::Invalid { field: "parameters", problem: rejection.body_text() })?;
    let kind = if kind.is_empty() {
        ProfileKind::OnCpu
    } else {
        kind.parse().map_err(|problem| ApiError::Invalid { field: "kind", problem })?
    };
    let since = if since.is_empty() {
        None
    } else {
        let since = humantime::parse_duration(&since);
        Some(since.map_err(|error| ApiError::Invalid { field: "since", problem: error.to_string() })?)
    };
    let range = AskedRange { since, ..AskedRange::default() }.at(SystemTime::now())?;
    let selector = blocking(move || selector(&r#where)).await?;
    let question = Question { source: Source::Windows { kind, range }, selector };
    let drawn = queries.answer(Need::RENDERED, question, |answer| answer.render(Format::Svg, View::Waits));
    let (svg, turn) = drawn.await?;
    let turn = turn.keep(svg.len());
    Ok((svg, turn))
}

/// As `google/rpc/code.proto` maps them.
fn http_code(code: Code) -> StatusCode {
    match code {
        Code::InvalidArgument | Code::FailedPrecondition | Code::OutOfRange => StatusCode::BAD_REQUEST,
        Code::NotFound => StatusCode::NOT_FOUND,
        Code::ResourceExhausted => StatusCode::TOO_MANY_REQUESTS,
        Code::Unavailable => StatusCode::SERVICE_UNAVAILABLE,
        _ => StatusCode::INTERNAL_SERVER_ERROR,
    }
}
