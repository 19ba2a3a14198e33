//! A doppler for tests: it does what the test says on each stream that is opened, and nothing by itself.

use std::net::{Ipv4Addr, SocketAddr};
use std::pin::Pin;
use std::sync::atomic::{AtomicU8, Ordering};

use prost::Message as _;
use proto::codec::Wire;
use proto::raw::{Batch, Limits, Outgoing, Selection};
use proto::v2;
use proto::v2::egress_server::{Egress, EgressServer};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tonic::{Request, Response, Status};
use transport::{GrpcLimits, Security, bind, server_builder};

/// A running doppler.
pub(crate) struct Doppler {
    pub(crate) addr: SocketAddr,
    streams: mpsc::Receiver<Stream>,
    stop: CancellationToken,
    task: JoinHandle<()>,
}

/// A stream that somebody opened on it.
pub(crate) struct Stream {
    /// What was asked for.
    pub(crate) request: v2::EgressBatchRequest,
    out: mpsc::Sender<Result<Outgoing, Status>>,
}

impl Doppler {
    /// Starts one on any free port of an address of its own: once it has died, nobody else takes its place by chance.
    pub(crate) fn start() -> Self {
        static NEXT: AtomicU8 = AtomicU8::new(1);
        let own = Ipv4Addr::new(127, 0, 7, NEXT.fetch_add(1, Ordering::Relaxed));
        Self::start_on((own, 0).into())
    }

    /// Starts one on `addr`.
    pub(crate) fn start_on(addr: SocketAddr) -> Self {
        let listener = bind("test.doppler", addr).unwrap();
        let addr = listener.addr();
        let (opened, streams) = mpsc::channel(64);
        let (tracker, stop) = (TaskTracker::new(), CancellationToken::new());
        let incoming = listener.incoming(Security::Plain, &tracker, stop.clone());
        let stopped = stop.clone();
        let task = tracker.spawn(async move {
            let service = EgressServer::new(Service { opened });
            let server = server_builder(&GrpcLimits::default()).add_service(service);
            server.serve_with_incoming_shutdown(incoming, stopped.cancelled()).await.unwrap();
        });
        Self { addr, streams, stop, task }
    }

    /// The next stream that is opened.
    pub(crate) async fn stream(&mut self) -> Stream {
        self.streams.recv().await.expect("the doppler runs")
    }

    /// Closes everything. The streams must have been dropped.
    pub(crate) async fn die(self) -> SocketAddr {
        self.stop.cancel();
        drop(self.streams);
        self.task.await.unwrap();
        self.addr
    }
}

impl Stream {
    /// Sends `envelopes` as one batch.
    pub(crate) async fn send(&self, envelopes: &[v2::Envelope]) {
        self.send_bytes(&encoded(envelopes)).await;
    }

    /// Sends bytes that say they are a batch.
    pub(crate) async fn send_bytes(&self, batch: &[u8]) {
        let (batch, refused) = Batch::check(batch.to_vec().into(), &Limits::NONE);
        assert_eq!(refused.total(), 0);
        self.out.send(Ok(Outgoing::from(Selection::from(batch)))).await.expect("the stream is open");
    }

    /// Ends the stream with an error.
    pub(crate) async fn fail(self, status: Status) {
        self.out.send(Err(status)).await.expect("the stream is open");
    }

    /// Waits until the other side has closed the stream.
    pub(crate) async fn closed(&self) {
        self.out.closed().await;
    }
}

/// The encoded batch.
pub(crate) fn encoded(envelopes: &[v2::Envelope]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for envelope in envelopes {
        proto::raw::wire::put_bytes(&mut bytes, 1, &envelope.encode_to_vec());
    }
    bytes
}

struct Service {
    opened: mpsc::Sender<Stream>,
}

#[tonic::async_trait]
impl Egress for Service {
    type ReceiverStream = Pin<Box<dyn tokio_stream::Stream<Item = Result<Wire, Status>> + Send>>;
    type BatchedReceiverStream = ReceiverStream<Result<Outgoing, Status>>;

    async fn receiver(&self, _: Request<v2::EgressRequest>) -> Result<Response<Self::ReceiverStream>, Status> {
        Err(Status::unimplemented("the traffic controller asks for batches"))
    }

    async fn batched_receiver(
        &self,
        request: Request<v2::EgressBatchRequest>,
    ) -> Result<Response<Self::BatchedReceiverStream>, Status> {
        let (out, batches) = mpsc::channel(1024);
        let stream = Stream { request: request.into_inner(), out };
        self.opened.send(stream).await.map_err(|_| Status::unavailable("the doppler is dying"))?;
        Ok(Response::new(ReceiverStream::new(batches)))
    }
}
