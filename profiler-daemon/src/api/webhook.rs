//! `POST /webhook/alertmanager`: checks who calls and how much, and says what became of each alert.

use std::time::{Duration, SystemTime};

use axum::Json;
use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde_json::{Value, json};
use tokio_stream::StreamExt as _;

use super::Webhook;
use super::bearer::authorised;
use crate::trigger::{Handled, Outcome};

/// Largest payload, bytes: some thousand alerts.
const MAX_BODY: usize = 1 << 20;
/// How much of a larger one is read and thrown away, so that its sender gets to read the answer.
const MAX_DRAINED: usize = 32 << 20;
/// How long a body may take.
const PATIENCE: Duration = Duration::from_secs(10);

/// Deals with a payload of Alertmanager.
pub(super) async fn alertmanager(State(webhook): State<Option<Webhook>>, request: Request) -> Response {
    let Some(webhook) = webhook else {
        let problem = "the webhook is off: set webhook.token_file or webhook.token";
        return refusal(StatusCode::NOT_FOUND, None, problem);
    };
    // Before anything of the body is read: strangers cost next to nothing.
    if !authorised(request.headers(), &webhook.token) {
        tracing::warn!("a webhook call without the right token was refused");
        let answer = refusal(StatusCode::UNAUTHORIZED, None, "show the token: Authorization: Bearer TOKEN");
        return ([(header::WWW_AUTHENTICATE, "Bearer")], answer).into_response();
    }
    let payload = match tokio::time::timeout(PATIENCE, read(request.into_body())).await {
        Ok(Ok(payload)) => payload,
        Ok(Err(refused)) => return refused,
        Err(_) => return refusal(StatusCode::REQUEST_TIMEOUT, Some("body"), "takes longer than 10 s"),
    };
    // Finding targets reads files.
    let work = tokio::task::spawn_blocking(move || webhook.triggers.alertmanager(&payload));
    match work.await {
        Ok(Ok(handled)) => answer(&handled),
        Ok(Err(error)) => refusal(StatusCode::BAD_REQUEST, Some(&error.field), &error.problem),
        Err(error) => {
            tracing::error!(%error, "a webhook call was not finished");
            refusal(StatusCode::INTERNAL_SERVER_ERROR, None, "the call was not finished")
        }
    }
}

/// The whole body, unless it is too large.
async fn read(body: Body) -> Result<Vec<u8>, Response> {
    let mut chunks = body.into_data_stream();
    let (mut payload, mut length) = (Vec::new(), 0);
    while let Some(chunk) = chunks.next().await {
        let chunk =
            chunk.map_err(|error| refusal(StatusCode::BAD_REQUEST, Some("body"), &error.to_string()))?;
        length += chunk.len();
        if length <= MAX_BODY {
            payload.extend_from_slice(&chunk);
        } else {
            payload = Vec::new();
        }
        if length > MAX_DRAINED {
            break;
        }
    }
    if length > MAX_BODY {
        let problem = format!("is larger than {MAX_BODY} bytes");
        return Err(refusal(StatusCode::PAYLOAD_TOO_LARGE, Some("body"), &problem));
    }
    Ok(payload)
}

/// 422 where no alert led anywhere for want of a target; 503 where all that could have started
/// something is put off, so that Alertmanager tries again; otherwise 200.
fn answer(handled: &[Handled]) -> Response {
    let any = |wanted: fn(&Outcome) -> bool| handled.iter().any(|handled| wanted(&handled.outcome));
    let good = any(|outcome| {
        matches!(outcome, Outcome::Started { .. } | Outcome::Duplicate { .. } | Outcome::CoolingDown { .. })
    });
    let put_off = handled.iter().filter_map(|handled| match &handled.outcome {
        Outcome::Deferred { retry_after, .. } => Some(*retry_after),
        _ => None,
    });
    let retry_after = put_off.min();
    let code = match retry_after {
        Some(_) => StatusCode::SERVICE_UNAVAILABLE,
        None if !good && any(|outcome| matches!(outcome, Outcome::NoTarget { .. })) => {
            StatusCode::UNPROCESSABLE_ENTITY
        }
        None => StatusCode::OK,
    };
    let alerts: Vec<Value> = handled.iter().map(alert).collect();
    let mut response = (code, Json(json!({"alerts": alerts}))).into_response();
    if let Some(wait) = retry_after {
        response.headers_mut().insert(header::RETRY_AFTER, (wait.as_secs() + 1).into());
    }
    response
}

/// What became of an alert, as JSON.
fn alert(handled: &Handled) -> Value {
    let fingerprint = &handled.fingerprint;
    match &handled.outcome {
        Outcome::Started { id } => json!({"fingerprint": fingerprint, "outcome": "started", "capture": id}),
        Outcome::Duplicate { of } => {
            json!({"fingerprint": fingerprint, "outcome": "duplicate", "capture": of})
        }
        Outcome::CoolingDown { of, until } => {
            json!({"fingerprint": fingerprint, "outcome": "cooling-down", "capture": of, "until": time(*until)})
        }
        Outcome::TooMany { until } => {
            json!({"fingerprint": fingerprint, "outcome": "too-many", "until": time(*until)})
        }
        Outcome::Ignored { because } => {
            json!({"fingerprint": fingerprint, "outcome": "ignored", "because": because})
        }
        Outcome::NoTarget { problem } => {
            json!({"fingerprint": fingerprint, "outcome": "no-target", "because": problem})
        }
        Outcome::Deferred { because, .. } => {
            json!({"fingerprint": fingerprint, "outcome": "deferred", "because": because})
        }
    }
}

fn time(at: SystemTime) -> Option<String> {
    let at = jiff::Timestamp::try_from(at).ok()?;
    Some(at.strftime("%Y-%m-%dT%H:%M:%SZ").to_string())
}

fn refusal(code: StatusCode, field: Option<&str>, problem: &str) -> Response {
    (code, Json(json!({"field": field, "error": problem}))).into_response()
}
