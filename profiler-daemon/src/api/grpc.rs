//! The gRPC server: our services, health and reflection on every listener.

use std::sync::Arc;

use tokio::sync::{Semaphore, watch};
use tokio::task::JoinSet;
use tokio_stream::wrappers::{TcpListenerStream, UnixListenerStream};
use tokio_util::sync::CancellationToken;
use tonic::codec::CompressionEncoding;
use tonic::service::Routes;
use tonic::transport::Server;
use tonic_health::ServingStatus;
use tonic_health::server::HealthReporter;

use super::agent::Agent;
use super::captures::{CaptureApi, TRANSFERS};
use super::listen::BoundGrpc;
use super::live::Watch;
use super::profiles::Profiles;
use super::query::Queries;
use super::{HostReader, ServeError, Services};
use crate::proto;
use crate::proto::agent_service_server::{AgentServiceServer, SERVICE_NAME as AGENT_SERVICE};
use crate::proto::capture_service_server::{CaptureServiceServer, SERVICE_NAME as CAPTURE_SERVICE};
use crate::proto::profile_service_server::{ProfileServiceServer, SERVICE_NAME as PROFILE_SERVICE};

/// Largest request, bytes; compressed ones count unpacked.
const MAX_REQUEST: usize = 4 << 20;
/// Requests of one connection that are worked on at a time; others wait.
const CONCURRENCY: usize = 32;

/// Serves until `cancel`.
pub(super) async fn serve(
    listeners: Vec<BoundGrpc>,
    services: &Services,
    queries: Queries,
    cancel: CancellationToken,
) -> Result<(), ServeError> {
    let (health, routes) = routes(services, queries)?;
    // Not in the tasks: a socket's file goes when this future does, however it ends.
    let mut files = Vec::new();
    let mut tasks: JoinSet<Result<(), ServeError>> = JoinSet::new();
    tasks.spawn(follow(health, services.ready.clone(), cancel.clone()));
    for listener in listeners {
        let server =
            Server::builder().concurrency_limit_per_connection(CONCURRENCY).add_routes(routes.clone());
        let end = cancel.clone().cancelled_owned();
        match listener {
            BoundGrpc::Tcp(listener) => {
                let incoming = TcpListenerStream::new(listener);
                tasks.spawn(async move { Ok(server.serve_with_incoming_shutdown(incoming, end).await?) });
            }
            BoundGrpc::Unix(socket) => {
                files.push(socket.file);
                let incoming = UnixListenerStream::new(socket.listener);
                tasks.spawn(async move { Ok(server.serve_with_incoming_shutdown(incoming, end).await?) });
            }
        }
    }
    while let Some(ended) = tasks.join_next().await {
        // A task that panicked or was aborted has said so itself.
        ended.unwrap_or(Ok(()))?;
    }
    drop(files);
    Ok(())
}

fn routes(services: &Services, queries: Queries) -> Result<(HealthReporter, Routes), ServeError> {
    let watch = Watch::new(services.windows.clone());
    let host = HostReader::clone(&services.host);
    let profiles = ProfileServiceServer::new(Profiles { queries, watch, host })
        .accept_compressed(CompressionEncoding::Gzip)
        .send_compressed(CompressionEncoding::Gzip)
        .max_decoding_message_size(MAX_REQUEST);
    let captures = CaptureServiceServer::new(CaptureApi {
        captures: Arc::clone(&services.captures),
        bundles: Arc::clone(&services.bundles),
        transfers: Arc::new(Semaphore::new(TRANSFERS)),
    })
    .accept_compressed(CompressionEncoding::Gzip)
    .send_compressed(CompressionEncoding::Gzip)
    .max_decoding_message_size(MAX_REQUEST);
    let agent = AgentServiceServer::new(Agent::new(services))
        .accept_compressed(CompressionEncoding::Gzip)
        .send_compressed(CompressionEncoding::Gzip)
        .max_decoding_message_size(MAX_REQUEST);
    let (reporter, health) = tonic_health::server::health_reporter();
    // Older clients, among them most releases of grpcurl, ask for v1alpha.
    let reflection = || {
        tonic_reflection::server::Builder::configure()
            .register_encoded_file_descriptor_set(proto::FILE_DESCRIPTOR_SET)
            .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
    };
    let routes = Routes::new(profiles)
        .add_service(captures)
        .add_service(agent)
        .add_service(health)
        .add_service(reflection().build_v1()?)
        .add_service(reflection().build_v1alpha()?);
    Ok((reporter, routes))
}

/// Keeps the health service at what the agent says of itself.
async fn follow(
    health: HealthReporter,
    mut ready: watch::Receiver<bool>,
    cancel: CancellationToken,
) -> Result<(), ServeError> {
    loop {
        // Once the server has been told to end, load balancers are to look elsewhere.
        let serving = *ready.borrow_and_update() && !cancel.is_cancelled();
        let status = if serving { ServingStatus::Serving } else { ServingStatus::NotServing };
        for service in ["", PROFILE_SERVICE, CAPTURE_SERVICE, AGENT_SERVICE] {
            health.set_service_status(service, status).await;
        }
        if cancel.is_cancelled() {
            return Ok(());
        }
        tokio::select! {
            () = cancel.cancelled() => {}
            changed = ready.changed() => {
                if changed.is_err() {
                    // Nobody will say more: what was said last holds until the end.
                    cancel.cancelled().await;
                }
            }
        }
    }
}
