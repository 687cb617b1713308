//! The public API: gRPC `profiler.v1` and HTTP, over unix sockets and TCP.

mod agent;
mod bearer;
mod captures;
mod convert;
mod diff;
mod error;
mod grpc;
mod heatmap;
mod http;
mod listen;
mod live;
mod profiles;
mod query;
mod report;
mod sending;
mod unix;
mod webhook;

#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{broadcast, watch};
use tokio_util::sync::CancellationToken;

pub use self::listen::{BindError, Bound, Endpoints, Listener, bind};
use self::query::Queries;
use crate::bundle::Bundles;
use crate::capture::Captures;
use crate::config::Secret;
use crate::model::{Finding, HostFacts, Status, Window};
use crate::store::Store;
use crate::trigger::Triggers;

/// How long open requests may go on after the server was told to end.
const GRACE: Duration = Duration::from_secs(5);

/// Reads what the kernel says of pressure, throttling and memory: of the cgroup with this path, of
/// the host without one. Short: it reads a few files.
pub type HostReader = Arc<dyn Fn(Option<&str>) -> HostFacts + Send + Sync>;

/// What the API serves.
#[derive(Clone)]
pub struct Services {
    /// Windows and results of captures.
    pub store: Arc<Store>,
    /// The captures.
    pub captures: Arc<Captures>,
    /// Windows as they are sealed.
    pub windows: broadcast::Sender<Window>,
    /// Reads what the kernel says of a cgroup, or of the host.
    pub host: HostReader,
    /// The bundles of captures.
    pub bundles: Arc<Bundles>,
    /// Alerts that start captures; `None`: there is no webhook.
    pub webhook: Option<Webhook>,
    /// The bearer token for flame graphs over HTTP; `None`: there are none. Every user of the host
    /// reaches a loopback address.
    pub http_token: Option<Secret>,
    /// Takes a snapshot of the agent.
    pub status: Arc<dyn Fn() -> Status + Send + Sync>,
    /// What was found out about the host when the daemon started.
    pub findings: Arc<Vec<Finding>>,
    /// The effective configuration, without secrets.
    pub settings_toml: String,
    /// Writes the metrics as OpenMetrics text, which Prometheus reads and `prometheus-client` writes.
    pub metrics: Arc<dyn Fn() -> String + Send + Sync>,
    /// Whether the agent records: `/readyz` and the gRPC health service follow it.
    pub ready: watch::Receiver<bool>,
}

/// Who may post alerts, and what they start.
#[derive(Clone)]
pub struct Webhook {
    /// The bearer token that callers must show.
    pub token: Secret,
    /// What deals with the alerts.
    pub triggers: Arc<Triggers>,
}

/// Why serving ended before it was told to.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// The gRPC server failed.
    #[error("gRPC server: {0}")]
    Grpc(#[from] tonic::transport::Error),
    /// The HTTP server failed.
    #[error("HTTP server: {0}")]
    Http(std::io::Error),
    /// The service descriptions compiled into the program are damaged.
    #[error("gRPC reflection: {0}")]
    Reflection(#[from] tonic_reflection::server::Error),
}

/// Serves on what [`bind`] opened until `cancel`; requests that are still open then have five
/// seconds. Unix sockets are removed when this returns or is dropped.
///
/// # Errors
/// When a server fails; the others are then ended too.
pub async fn serve(bound: Bound, services: Services, cancel: CancellationToken) -> Result<(), ServeError> {
    // A failure of one server must not leave the others behind.
    let cancel = cancel.child_token();
    let _end_all = cancel.clone().drop_guard();
    let (grpc, http) = bound.into_parts();
    // One for all: what questions may take together is bounded.
    let queries = Queries::new(Arc::clone(&services.store), Arc::clone(&services.captures));
    let servers = async {
        let grpc = grpc::serve(grpc, &services, queries.clone(), cancel.clone());
        let http = http::serve(http, services.clone(), queries, cancel.clone());
        tokio::try_join!(grpc, http).map(|_| ())
    };
    let patience = async {
        cancel.cancelled().await;
        tokio::time::sleep(GRACE).await;
    };
    tokio::select! {
        ended = servers => ended,
        () = patience => {
            tracing::info!("closing the connections that did not end within {} s", GRACE.as_secs());
            Ok(())
        }
    }
}
