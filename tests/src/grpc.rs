//! A gRPC client that knows nothing of the API but what the server's reflection tells.

use std::collections::{BTreeMap, BTreeSet};
use std::future::Future;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use prost::Message as _;
use prost_reflect::{DescriptorPool, DynamicMessage, MessageDescriptor};
use prost_types::FileDescriptorProto;
use serde_json::{Value, json};
use tokio_stream::StreamExt as _;
use tonic::codec::{Codec, DecodeBuf, Decoder, EncodeBuf, Encoder};
use tonic::codegen::http::uri::PathAndQuery;
use tonic::transport::{Channel, Endpoint};
use tonic::{Request, Status};
use tonic_reflection::pb::v1::ServerReflectionRequest;
use tonic_reflection::pb::v1::server_reflection_client::ServerReflectionClient;
use tonic_reflection::pb::v1::server_reflection_request::MessageRequest;
use tonic_reflection::pb::v1::server_reflection_response::MessageResponse;

mod json;

/// Longest time one call may take.
const CALL_LIMIT: Duration = Duration::from_secs(90);

/// A client with a runtime of its own, so that tests can be plain functions.
#[derive(Debug)]
pub struct Client {
    runtime: tokio::runtime::Runtime,
    channel: Channel,
    pool: DescriptorPool,
}

impl Client {
    /// Connects to `unix://PATH` or `http://HOST:PORT`.
    ///
    /// # Errors
    /// When nobody listens there.
    pub fn connect(url: &str) -> Result<Self> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let endpoint = Endpoint::new(url.to_owned())?.timeout(CALL_LIMIT);
        let channel = runtime.block_on(endpoint.connect()).with_context(|| format!("nobody at {url}"))?;
        Ok(Self { runtime, channel, pool: DescriptorPool::new() })
    }

    /// The names of all services.
    ///
    /// # Errors
    /// When there is no reflection.
    pub fn services(&self) -> Result<Vec<String>> {
        match self.reflect(MessageRequest::ListServices(String::new()))? {
            MessageResponse::ListServicesResponse(list) => {
                Ok(list.service.into_iter().map(|service| service.name).collect())
            }
            other => bail!("expected a list of services, got {other:?}"),
        }
    }

    /// Fetches the description of every service, and of every file those need.
    ///
    /// # Errors
    /// When the server's description has gaps.
    pub fn learn(&mut self) -> Result<()> {
        let mut files = BTreeMap::new();
        let mut missing = BTreeSet::new();
        for service in self.services()? {
            self.fetch(MessageRequest::FileContainingSymbol(service), &mut files, &mut missing)?;
        }
        while let Some(name) = missing.pop_first() {
            self.fetch(MessageRequest::FileByFilename(name), &mut files, &mut missing)?;
        }
        self.pool.add_file_descriptor_protos(files.into_values()).context("the description has gaps")
    }

    /// Whether the health service says that the server as a whole serves.
    ///
    /// # Errors
    /// When there is no health service.
    pub fn is_serving(&mut self) -> Result<bool> {
        if self.pool.get_service_by_name("grpc.health.v1.Health").is_none() {
            self.learn()?;
        }
        let replies = self.call("grpc.health.v1.Health/Check", json!({}))?;
        Ok(replies.first().is_some_and(|reply| reply["status"] == "SERVING"))
    }

    /// Calls `package.Service/Method` and collects its replies: one, or all of a stream.
    ///
    /// # Errors
    /// The server's status; `Unimplemented` without asking it for a method it never told of, and
    /// `FailedPrecondition` if the request has fields it never told of.
    pub fn call(&self, path: &str, request: Value) -> Result<Vec<Value>, Status> {
        let method = path
            .split_once('/')
            .and_then(|(service, method)| {
                self.pool.get_service_by_name(service)?.methods().find(|known| known.name() == method)
            })
            .ok_or_else(|| Status::unimplemented(format!("reflection knows no {path}")))?;
        let request = json::to_message(&method.input(), &request)
            .map_err(|error| Status::failed_precondition(format!("{path}: {error:#}")))?;
        let replies = self.exchange(path, request, method.output())?;
        Ok(replies.iter().map(json::from_message).collect())
    }

    /// Sends these bytes as the request, whatever they mean.
    ///
    /// # Errors
    /// The server's status.
    pub fn call_with_bytes(&self, path: &str, bytes: Vec<u8>) -> Result<(), Status> {
        // Replies do not matter: any message type skips the fields it does not know.
        self.exchange(path, bytes, MessageDescriptor::clone(&self.empty()?)).map(drop)
    }

    fn empty(&self) -> Result<MessageDescriptor, Status> {
        let empty = self.pool.get_message_by_name("profiler.v1.StatusRequest");
        empty.ok_or_else(|| Status::unimplemented("reflection knows no empty message"))
    }

    fn exchange<T: Wire>(
        &self,
        path: &str,
        request: T,
        reply: MessageDescriptor,
    ) -> Result<Vec<DynamicMessage>, Status> {
        let path: PathAndQuery =
            format!("/{path}").parse().map_err(|_| Status::invalid_argument("not a path"))?;
        self.block_on(async {
            let mut grpc = tonic::client::Grpc::new(self.channel.clone());
            grpc.ready().await.map_err(|error| Status::unavailable(error.to_string()))?;
            let codec = DynamicCodec { reply, request: std::marker::PhantomData };
            // On the wire a single reply is a stream of one.
            let replies = grpc.server_streaming(Request::new(request), path, codec).await?.into_inner();
            replies.collect::<Result<Vec<_>, _>>().await
        })
    }

    fn reflect(&self, request: MessageRequest) -> Result<MessageResponse> {
        let text = format!("{request:?}");
        let request = ServerReflectionRequest { message_request: Some(request), ..Default::default() };
        let response = self.block_on(async {
            let mut client = ServerReflectionClient::new(self.channel.clone());
            let replies = client.server_reflection_info(tokio_stream::once(request)).await?;
            replies.into_inner().message().await
        })?;
        match response.and_then(|response| response.message_response) {
            Some(MessageResponse::ErrorResponse(error)) => bail!("{text}: {}", error.error_message),
            Some(response) => Ok(response),
            None => bail!("{text}: no answer"),
        }
    }

    fn fetch(
        &self,
        request: MessageRequest,
        files: &mut BTreeMap<String, FileDescriptorProto>,
        missing: &mut BTreeSet<String>,
    ) -> Result<()> {
        let MessageResponse::FileDescriptorResponse(reply) = self.reflect(request)? else {
            bail!("expected a file description");
        };
        for bytes in reply.file_descriptor_proto {
            let file = FileDescriptorProto::decode(&*bytes)?;
            missing.extend(file.dependency.iter().cloned());
            files.insert(file.name().to_owned(), file);
        }
        missing.retain(|name| !files.contains_key(name));
        Ok(())
    }

    fn block_on<T>(&self, future: impl Future<Output = Result<T, Status>>) -> Result<T, Status> {
        self.runtime.block_on(async {
            let late = |_| Status::deadline_exceeded(format!("no answer within {CALL_LIMIT:?}"));
            tokio::time::timeout(CALL_LIMIT, future).await.map_err(late)?
        })
    }
}

/// What can be sent as a request.
trait Wire: Send + Sync + 'static {
    fn bytes(&self) -> Vec<u8>;
}

impl Wire for DynamicMessage {
    fn bytes(&self) -> Vec<u8> {
        self.encode_to_vec()
    }
}

impl Wire for Vec<u8> {
    fn bytes(&self) -> Vec<u8> {
        self.clone()
    }
}

struct DynamicCodec<T> {
    reply: MessageDescriptor,
    request: std::marker::PhantomData<T>,
}

impl<T: Wire> Codec for DynamicCodec<T> {
    type Encode = T;
    type Decode = DynamicMessage;
    type Encoder = RequestEncoder<T>;
    type Decoder = ReplyDecoder;

    fn encoder(&mut self) -> Self::Encoder {
        RequestEncoder(std::marker::PhantomData)
    }

    fn decoder(&mut self) -> Self::Decoder {
        ReplyDecoder(self.reply.clone())
    }
}

struct RequestEncoder<T>(std::marker::PhantomData<T>);

impl<T: Wire> Encoder for RequestEncoder<T> {
    type Item = T;
    type Error = Status;

    fn encode(&mut self, item: T, buffer: &mut EncodeBuf<'_>) -> Result<(), Status> {
        prost::bytes::BufMut::put_slice(buffer, &item.bytes());
        Ok(())
    }
}

struct ReplyDecoder(MessageDescriptor);

impl Decoder for ReplyDecoder {
    type Item = DynamicMessage;
    type Error = Status;

    fn decode(&mut self, buffer: &mut DecodeBuf<'_>) -> Result<Option<DynamicMessage>, Status> {
        let message = DynamicMessage::decode(self.0.clone(), buffer);
        message.map(Some).map_err(|error| Status::internal(format!("a reply that does not decode: {error}")))
    }
}
