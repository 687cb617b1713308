//! The way to a daemon: a channel, and a deadline on every call.

use std::future::Future;
use std::io;
use std::time::Duration;

use tonic::transport::{Channel, Endpoint as TonicEndpoint};
use tonic::{Request, Response, Status};

use crate::cli::{Endpoint, Exit};
use crate::proto::agent_service_client::AgentServiceClient;
use crate::proto::capture_service_client::CaptureServiceClient;
use crate::proto::profile_service_client::ProfileServiceClient;

use super::Failure;

/// How long connecting may take.
const CONNECT_DEADLINE: Duration = Duration::from_secs(5);

/// Largest message that is accepted; the daemon's chunks are smaller.
const MAX_MESSAGE_BYTES: usize = 16 << 20;

/// How long an answer of fixed size may take.
pub(super) const ANSWER_DEADLINE: Duration = Duration::from_secs(15);

/// How long merging and rendering a range may take.
pub(super) const RENDER_DEADLINE: Duration = Duration::from_secs(120);

/// A connected daemon.
#[derive(Clone, Debug)]
pub(super) struct Daemon {
    endpoint: Endpoint,
    channel: Channel,
}

impl Daemon {
    pub(super) async fn connect(endpoint: &Endpoint) -> Result<Self, Failure> {
        let target = TonicEndpoint::from_shared(endpoint.to_string())
            .map_err(|error| Failure::new(Exit::Usage, format!("--connect {endpoint}: {error}")))?
            .connect_timeout(CONNECT_DEADLINE);
        match tokio::time::timeout(CONNECT_DEADLINE, target.connect()).await {
            Ok(Ok(channel)) => Ok(Self { endpoint: endpoint.clone(), channel }),
            Ok(Err(error)) => Err(cannot_connect(endpoint, &error)),
            Err(_) => Err(Failure::unreachable(endpoint, "no connection in time")),
        }
    }

    pub(super) fn profiles(&self) -> ProfileServiceClient<Channel> {
        ProfileServiceClient::new(self.channel.clone()).max_decoding_message_size(MAX_MESSAGE_BYTES)
    }

    pub(super) fn captures(&self) -> CaptureServiceClient<Channel> {
        CaptureServiceClient::new(self.channel.clone()).max_decoding_message_size(MAX_MESSAGE_BYTES)
    }

    pub(super) fn agent(&self) -> AgentServiceClient<Channel> {
        AgentServiceClient::new(self.channel.clone()).max_decoding_message_size(MAX_MESSAGE_BYTES)
    }

    /// The answer to a call, if it comes in time.
    pub(super) async fn answer<T>(
        &self,
        deadline: Duration,
        call: impl Future<Output = Result<Response<T>, Status>>,
    ) -> Result<T, Failure> {
        self.in_time(deadline, call).await.map(Response::into_inner)
    }

    /// What a future gives, if it does so in time.
    pub(super) async fn in_time<T>(
        &self,
        deadline: Duration,
        future: impl Future<Output = Result<T, Status>>,
    ) -> Result<T, Failure> {
        match tokio::time::timeout(deadline, future).await {
            Ok(result) => result.map_err(|status| self.failure(&status)),
            Err(_) => Err(Failure::no_answer(&self.endpoint)),
        }
    }

    pub(super) fn failure(&self, status: &Status) -> Failure {
        Failure::from_status(status, &self.endpoint)
    }
}

/// A request that tells the daemon the deadline too.
pub(super) fn request<T>(message: T, deadline: Duration) -> Request<T> {
    let mut request = Request::new(message);
    request.set_timeout(deadline);
    request
}

fn cannot_connect(endpoint: &Endpoint, error: &tonic::transport::Error) -> Failure {
    let mut cause: &dyn std::error::Error = error;
    while let Some(deeper) = cause.source() {
        cause = deeper;
    }
    match cause.downcast_ref::<io::Error>().map(io::Error::kind) {
        Some(io::ErrorKind::PermissionDenied) => {
            Failure::new(Exit::Refused, format!("no permission to connect to the daemon at {endpoint}"))
                .hint("run as root, or as a member of the group that owns the socket")
        }
        _ => Failure::unreachable(endpoint, &cause.to_string()),
    }
}
