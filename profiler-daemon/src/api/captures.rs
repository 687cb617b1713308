//! `CaptureService`: starting, watching and stopping captures, and their bundles.

use std::io::Read as _;
use std::pin::Pin;
use std::sync::Arc;

use tokio::sync::Semaphore;
use tokio_stream::wrappers::WatchStream;
use tokio_stream::{Stream, StreamExt as _};
use tonic::{Request, Response, Status};

use super::convert;
use super::error::ApiError;
use super::query::blocking;
use super::sending::{PATIENCE, Sent, sent};
use crate::bundle::{BundleError, BundleFile, Bundles};
use crate::capture::{CaptureSpec, Captures, Cause, TargetSpec};
use crate::model::{Allowance, Pid, ProfileKind};
use crate::proto::capture_service_server::CaptureService;
use crate::proto::{
    BundlePart, Capture, CaptureLimits, GetBundleRequest, GetRequest, ListCapturesRequest,
    ListCapturesResponse, StartRequest, StopRequest, WatchRequest,
};

/// Largest piece of a bundle's file in one message, bytes.
const MAX_CHUNK: u64 = 1 << 20;
/// Bundles that are fetched at a time; each has its files open.
pub(super) const TRANSFERS: usize = 8;

pub(super) struct CaptureApi {
    pub(super) captures: Arc<Captures>,
    pub(super) bundles: Arc<Bundles>,
    /// [`TRANSFERS`] of them.
    pub(super) transfers: Arc<Semaphore>,
}

#[tonic::async_trait]
impl CaptureService for CaptureApi {
    type WatchStream = Pin<Box<dyn Stream<Item = Result<Capture, Status>> + Send>>;
    type GetBundleStream = Sent<BundlePart>;

    async fn start(&self, request: Request<StartRequest>) -> Result<Response<Capture>, Status> {
        let request = request.into_inner();
        let bundle = request.bundle;
        let (captures, spec) = (Arc::clone(&self.captures), spec(request)?);
        // Finding the target reads files of each of its processes.
        let started = blocking(move || captures.start(spec).map_err(ApiError::Capture));
        let capture = started.await?;
        if bundle {
            self.bundles.follow(&capture.id);
        }
        Ok(Response::new(convert::capture(&capture)))
    }

    async fn get(&self, request: Request<GetRequest>) -> Result<Response<Capture>, Status> {
        let id = request.into_inner().id;
        let capture = self.captures.get(&id).ok_or_else(|| unknown(id))?;
        Ok(Response::new(convert::capture(&capture)))
    }

    async fn list(
        &self,
        _request: Request<ListCapturesRequest>,
    ) -> Result<Response<ListCapturesResponse>, Status> {
        let captures = self.captures.list().iter().map(convert::capture).collect();
        Ok(Response::new(ListCapturesResponse { captures }))
    }

    async fn stop(&self, request: Request<StopRequest>) -> Result<Response<Capture>, Status> {
        let id = request.into_inner().id;
        let capture = self.captures.stop(&id).await.ok_or_else(|| unknown(id))?;
        Ok(Response::new(convert::capture(&capture)))
    }

    async fn watch(&self, request: Request<WatchRequest>) -> Result<Response<Self::WatchStream>, Status> {
        let id = request.into_inner().id;
        let changes = self.captures.watch(&id).ok_or_else(|| unknown(id))?;
        // The stream ends when the capture's task drops its side, after the final state.
        let stream = WatchStream::new(changes).map(|capture| Ok(convert::capture(&capture)));
        Ok(Response::new(Box::pin(stream)))
    }

    async fn get_bundle(
        &self,
        request: Request<GetBundleRequest>,
    ) -> Result<Response<Self::GetBundleStream>, Status> {
        let id = request.into_inner().id;
        let place = tokio::time::timeout(PATIENCE, Arc::clone(&self.transfers).acquire_owned());
        let Ok(Ok(place)) = place.await else { Err(ApiError::Busy { retry_after: PATIENCE })? };
        let files = self.bundles.get(&id).await.map_err(ApiError::Bundle)?;
        let parts = Parts { id, files: files.into_iter(), current: None };
        Ok(Response::new(sent(parts, place)))
    }
}

/// Files in pieces, read when they are sent; an empty file is one piece.
struct Parts {
    id: String,
    files: std::vec::IntoIter<BundleFile>,
    /// The file that is being read, and how much of it is to come.
    current: Option<(BundleFile, u64)>,
}

impl Iterator for Parts {
    type Item = Result<BundlePart, Status>;

    fn next(&mut self) -> Option<Self::Item> {
        let (mut file, left) = match self.current.take() {
            Some(current) => current,
            None => {
                let file = self.files.next()?;
                let size = file.size;
                (file, size)
            }
        };
        let length = left.min(MAX_CHUNK);
        let mut data = vec![0; length as usize];
        if let Err(source) = file.content.read_exact(&mut data) {
            let error = BundleError::Disk { id: self.id.clone(), source };
            return Some(Err(ApiError::Bundle(error).into()));
        }
        let part = BundlePart { file: file.name.clone(), size: file.size, data };
        if left > length {
            self.current = Some((file, left - length));
        }
        Some(Ok(part))
    }
}

fn unknown(id: String) -> ApiError {
    ApiError::NoCapture { field: "id", id }
}

fn spec(request: StartRequest) -> Result<CaptureSpec, ApiError> {
    let StartRequest { kind, target, duration, min_block, bundle: _, wakers, limits } = request;
    let CaptureLimits { events_per_second, bytes, millicpus } = limits.unwrap_or_default();
    let target = target.unwrap_or_default();
    let kind = if kind == 0 { ProfileKind::OffCpu } else { convert::stored_kind("kind", kind)? };
    Ok(CaptureSpec {
        kind,
        target: TargetSpec {
            pids: target.pids.into_iter().map(Pid).collect(),
            cgroup: (!target.cgroup.is_empty()).then_some(target.cgroup),
        },
        duration: convert::duration("duration", duration)?,
        min_block: convert::duration("min_block", min_block)?,
        wakers,
        allowance: Allowance { events_per_second, bytes, millicpus },
        cause: Cause::Request,
    })
}
