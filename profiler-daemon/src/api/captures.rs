//! `CaptureService`: starting, watching and stopping captures, and their bundles.

use std::pin::Pin;
use std::sync::Arc;

use tokio_stream::wrappers::WatchStream;
use tokio_stream::{Stream, StreamExt as _};
use tonic::{Request, Response, Status};

use super::convert;
use super::error::ApiError;
use crate::bundle::{BundleFile, Bundles};
use crate::capture::{CaptureSpec, Captures, Cause, TargetSpec};
use crate::model::{Allowance, Pid, ProfileKind};
use crate::proto::capture_service_server::CaptureService;
use crate::proto::{
    BundlePart, Capture, CaptureLimits, GetBundleRequest, GetRequest, ListCapturesRequest,
    ListCapturesResponse, StartRequest, StopRequest, WatchRequest,
};

/// Largest piece of a bundle's file in one message, bytes.
const MAX_CHUNK: usize = 1 << 20;

pub(super) struct CaptureApi {
    pub(super) captures: Arc<Captures>,
    pub(super) bundles: Arc<Bundles>,
}

#[tonic::async_trait]
impl CaptureService for CaptureApi {
    type WatchStream = Pin<Box<dyn Stream<Item = Result<Capture, Status>> + Send>>;
    type GetBundleStream = Pin<Box<dyn Stream<Item = Result<BundlePart, Status>> + Send>>;

    async fn start(&self, request: Request<StartRequest>) -> Result<Response<Capture>, Status> {
        let request = request.into_inner();
        let bundle = request.bundle;
        let capture = self.captures.start(spec(request)?).map_err(ApiError::Capture)?;
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
        let files = self.bundles.get(&request.into_inner().id).await.map_err(ApiError::Bundle)?;
        let parts = files.into_iter().flat_map(parts).map(Ok);
        Ok(Response::new(Box::pin(tokio_stream::iter(parts))))
    }
}

/// A file in pieces; an empty one is one piece.
fn parts(file: BundleFile) -> impl Iterator<Item = BundlePart> {
    let BundleFile { name, bytes } = file;
    let size = bytes.len();
    let starts = (0..size.max(1)).step_by(MAX_CHUNK);
    starts.map(move |start| BundlePart {
        file: name.clone(),
        size: size as u64,
        data: bytes[start..size.min(start + MAX_CHUNK)].to_vec(),
    })
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
