//! Where the API listens: binding, apart from serving, so that errors come before start-up.

use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;

use tokio::net::TcpListener;

use super::unix::UnixSocket;

/// A place to listen at for gRPC.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Listener {
    /// A unix socket, mode 0660. Its directory is created with mode 0750 if missing.
    Unix(PathBuf),
    /// A TCP address; port 0 lets the system choose.
    Tcp(SocketAddr),
}

/// Everything the API listens at.
#[derive(Clone, Debug, Default)]
pub struct Endpoints {
    /// For gRPC.
    pub grpc: Vec<Listener>,
    /// For HTTP.
    pub http: Option<SocketAddr>,
    /// Allows TCP addresses other than loopback. Nothing on them is encrypted or authorised.
    pub allow_remote: bool,
}

/// Open sockets that nobody serves yet; connections wait in their backlog. Dropping it closes
/// them and removes the unix sockets.
#[derive(Debug)]
pub struct Bound {
    grpc: Vec<BoundGrpc>,
    http: Option<TcpListener>,
}

#[derive(Debug)]
pub(super) enum BoundGrpc {
    Unix(UnixSocket),
    Tcp(TcpListener),
}

impl Bound {
    /// The TCP addresses gRPC listens at, with the port the system chose.
    #[must_use]
    pub fn grpc_addresses(&self) -> Vec<SocketAddr> {
        let addresses = self.grpc.iter().filter_map(|listener| match listener {
            BoundGrpc::Unix(_) => None,
            BoundGrpc::Tcp(listener) => listener.local_addr().ok(),
        });
        addresses.collect()
    }

    /// The address HTTP listens at, with the port the system chose.
    #[must_use]
    pub fn http_address(&self) -> Option<SocketAddr> {
        self.http.as_ref().and_then(|listener| listener.local_addr().ok())
    }

    pub(super) fn into_parts(self) -> (Vec<BoundGrpc>, Option<TcpListener>) {
        (self.grpc, self.http)
    }
}

/// Why an endpoint could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum BindError {
    /// Another daemon has the socket.
    #[error("{} is in use by another daemon; stop it or choose another path with --listen", path.display())]
    InUse {
        /// The socket.
        path: PathBuf,
    },
    /// Something else has the name.
    #[error("{} exists and is not a socket; remove it or choose another path with --listen", path.display())]
    NotASocket {
        /// The path.
        path: PathBuf,
    },
    /// The path has no file name, or its directory cannot be made.
    #[error("cannot listen on {}: {source}", path.display())]
    Unix {
        /// The socket.
        path: PathBuf,
        /// What failed.
        source: io::Error,
    },
    /// The address is taken, not ours or not permitted.
    #[error("cannot listen on {address}: {source}")]
    Tcp {
        /// The address.
        address: SocketAddr,
        /// What failed.
        source: io::Error,
    },
    /// The address can be reached from other hosts.
    #[error(
        "refusing to listen on {address}: it can be reached from other hosts, and what is served there is neither encrypted nor authorised; use a loopback address or allow remote access explicitly"
    )]
    Remote {
        /// The address.
        address: SocketAddr,
    },
}

/// Opens all endpoints, or none: if one fails, those before it are closed again. Must be called
/// within a tokio runtime.
///
/// # Errors
/// Says which endpoint failed and why.
pub async fn bind(endpoints: &Endpoints) -> Result<Bound, BindError> {
    let mut grpc = Vec::new();
    for listener in &endpoints.grpc {
        grpc.push(match listener {
            Listener::Unix(path) => BoundGrpc::Unix(UnixSocket::bind(path)?),
            Listener::Tcp(address) => BoundGrpc::Tcp(bind_tcp(*address, endpoints.allow_remote).await?),
        });
    }
    let http = match endpoints.http {
        Some(address) => Some(bind_tcp(address, endpoints.allow_remote).await?),
        None => None,
    };
    Ok(Bound { grpc, http })
}

async fn bind_tcp(address: SocketAddr, allow_remote: bool) -> Result<TcpListener, BindError> {
    if !allow_remote && !address.ip().to_canonical().is_loopback() {
        return Err(BindError::Remote { address });
    }
    TcpListener::bind(address).await.map_err(|source| BindError::Tcp { address, source })
}
