//! The yardstick: a bare tonic server that moves batches from its senders to its outputs and looks at none.
//!
//! What enters: `Ingress.BatchSender` messages. What leaves: the same bytes, to every `Egress.BatchedReceiver` stream, through one
//! bounded channel each. TLS, windows, limits, threads and allocator are those of a doppler, so what a doppler costs beyond this is
//! routing. It never drops: a slow output holds the senders up.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::num::NonZeroUsize;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};

use proto::codec::{Codec, MAX_MESSAGE, Wire};
use proto::v2;
use proto::v2::ingress_server::{Ingress, IngressServer};
use tokio::sync::{mpsc, watch};
use tokio_stream::wrappers::ReceiverStream;
use tokio_stream::{Stream, StreamExt};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tonic::body::Body;
use tonic::codegen::{BoxFuture, Service, http};
use tonic::server::{NamedService, ServerStreamingService};
use tonic::{Request, Response, Status, Streaming};
use transport::{GrpcLimits, Identity, Listener, Security, TlsFiles};

/// Batches that may wait for one output.
const QUEUE: usize = 64;

/// How a relay serves.
#[derive(Clone, Debug)]
pub struct Config {
    /// Address of the gRPC port; port 0 is any free one.
    pub listen: SocketAddr,
    /// Mutual TLS with these files; `None` is plain text.
    pub tls: Option<TlsFiles>,
    /// Senders wait until this many outputs are attached.
    pub outputs: NonZeroUsize,
}

/// A relay that is bound and not yet serving.
#[derive(Debug)]
pub struct Server {
    listener: Listener,
    security: Security,
    outputs: NonZeroUsize,
}

/// Why a relay could not be set up.
#[derive(Debug, thiserror::Error)]
pub enum BindError {
    /// The address could not be bound.
    #[error(transparent)]
    Listen(#[from] transport::BindError),
    /// The TLS files could not be used.
    #[error(transparent)]
    Tls(#[from] transport::TlsError),
}

impl Config {
    /// Binds the port. Must be called within a tokio runtime.
    ///
    /// # Errors
    /// The port is taken, or the TLS files are not usable.
    pub fn bind(self) -> Result<Server, BindError> {
        let security = match &self.tls {
            Some(files) => Security::MutualTls(Identity::load(files)?),
            None => Security::Plain,
        };
        Ok(Server { listener: transport::bind("relay --listen", self.listen)?, security, outputs: self.outputs })
    }
}

impl Server {
    /// The address really bound.
    pub fn addr(&self) -> SocketAddr {
        self.listener.addr()
    }

    /// Moves batches until `stop`, then ends every stream: senders are refused at once, outputs still get what waits for them.
    ///
    /// # Errors
    /// The gRPC server failed.
    pub async fn serve(self, stop: CancellationToken) -> Result<(), tonic::transport::Error> {
        let tracker = TaskTracker::new();
        let incoming = self.listener.incoming(self.security, &tracker, stop.clone());
        let shared = Arc::new(Shared {
            wanted: self.outputs.get(),
            outputs: Mutex::default(),
            attached: watch::Sender::new(0),
            stop: stop.clone(),
        });
        let ingress = IngressServer::new(Relay(Arc::clone(&shared)))
            .max_decoding_message_size(MAX_MESSAGE)
            .max_encoding_message_size(MAX_MESSAGE);
        let served = transport::server_builder(&GrpcLimits::default())
            .add_service(ingress)
            .add_service(Egress(Relay(Arc::clone(&shared))))
            .serve_with_incoming_shutdown(incoming, async move {
                stop.cancelled().await;
                shared.outputs().clear();
            })
            .await;
        tracker.close();
        tracker.wait().await;
        served
    }
}

/// The outputs and who waits for them.
#[derive(Debug)]
struct Shared {
    wanted: usize,
    /// Guards the list, for the moment in which an output joins or a sender takes its copy. Never held across an await.
    outputs: Mutex<Vec<mpsc::Sender<Wire>>>,
    attached: watch::Sender<usize>,
    stop: CancellationToken,
}

impl Shared {
    fn outputs(&self) -> std::sync::MutexGuard<'_, Vec<mpsc::Sender<Wire>>> {
        self.outputs.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[derive(Clone, Debug)]
struct Relay(Arc<Shared>);

impl Relay {
    fn attach(&self) -> Result<ReceiverStream<Wire>, Status> {
        let mut outputs = self.0.outputs();
        if self.0.stop.is_cancelled() {
            return Err(Status::unavailable("the relay is stopping"));
        }
        outputs.retain(|output| !output.is_closed());
        if outputs.len() >= self.0.wanted {
            return Err(Status::resource_exhausted(format!("the relay has its {} outputs", self.0.wanted)));
        }
        let (output, batches) = mpsc::channel(QUEUE);
        outputs.push(output);
        self.0.attached.send_replace(outputs.len());
        Ok(ReceiverStream::new(batches))
    }

    async fn relay(&self, mut batches: Streaming<Wire>) -> Result<(), Status> {
        let mut attached = self.0.attached.subscribe();
        attached
            .wait_for(|count| *count >= self.0.wanted)
            .await
            .map_err(|_| Status::unavailable("the relay is stopping"))?;
        let outputs = self.0.outputs().clone();
        while let Some(batch) = batches.message().await? {
            for output in &outputs {
                // An output that has gone misses what it would have got; the others do not.
                let _ = output.send(batch.clone()).await;
            }
        }
        Ok(())
    }
}

#[tonic::async_trait]
impl Ingress for Relay {
    async fn sender(&self, _: Request<Streaming<Wire>>) -> Result<Response<v2::IngressResponse>, Status> {
        Err(Status::unimplemented("the relay takes batches"))
    }

    async fn batch_sender(
        &self,
        request: Request<Streaming<Wire>>,
    ) -> Result<Response<v2::BatchSenderResponse>, Status> {
        match self.0.stop.run_until_cancelled(self.relay(request.into_inner())).await {
            Some(done) => done.map(|()| Response::new(v2::BatchSenderResponse {})),
            None => Err(Status::unavailable("the relay is stopping")),
        }
    }

    async fn send(&self, _: Request<Wire>) -> Result<Response<v2::SendResponse>, Status> {
        Err(Status::unimplemented("the relay takes streams"))
    }
}

/// `loggregator.v2.Egress` with messages that leave as they came. The generated service writes selections of indexed batches.
#[derive(Clone, Debug)]
struct Egress(Relay);

impl NamedService for Egress {
    const NAME: &'static str = "loggregator.v2.Egress";
}

impl Service<http::Request<Body>> for Egress {
    type Response = http::Response<Body>;
    type Error = Infallible;
    type Future = BoxFuture<Self::Response, Infallible>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        if request.uri().path() != "/loggregator.v2.Egress/BatchedReceiver" {
            return Box::pin(async { Ok(Status::unimplemented("the relay gives batches").into_http()) });
        }
        let method = BatchedReceiver(self.0.clone());
        let codec = Codec::<Wire, v2::EgressBatchRequest>::default();
        Box::pin(async move {
            let mut grpc = tonic::server::Grpc::new(codec).max_encoding_message_size(MAX_MESSAGE);
            Ok(grpc.server_streaming(method, request).await)
        })
    }
}

struct BatchedReceiver(Relay);

type Batches = Pin<Box<dyn Stream<Item = Result<Wire, Status>> + Send>>;

impl ServerStreamingService<v2::EgressBatchRequest> for BatchedReceiver {
    type Response = Wire;
    type ResponseStream = Batches;
    type Future = BoxFuture<Response<Batches>, Status>;

    fn call(&mut self, _: Request<v2::EgressBatchRequest>) -> Self::Future {
        let attached = self.0.attach();
        Box::pin(async move { Ok(Response::new(Box::pin(attached?.map(Ok)) as Batches)) })
    }
}
