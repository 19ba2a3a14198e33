//! A fake doppler, a fake agent, and the reading end of a drain.

use std::net::SocketAddr;
use std::pin::Pin;

use hydrant_adapters::{Config, DrainConfig, Handle};
use prost::Message;
use proto::codec::Wire;
use proto::raw::{Batch, Limits, Outgoing, Selection};
use proto::v2;
use proto::v2::egress_server::{Egress, EgressServer};
use proto::v2::ingress_server::{Ingress, IngressServer};
use telemetry::Telemetry;
use tokio::io::{AsyncRead, AsyncReadExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio_stream::Stream;
use tokio_util::sync::{CancellationToken, DropGuard};
use tokio_util::task::TaskTracker;
use tonic::{Request, Response, Status, Streaming};
use transport::{DopplerSet, GrpcLimits, Security, bind, server_builder};

/// Adapters with one drain, between a fake doppler and a fake agent.
pub(crate) struct Rig {
    pub(crate) adapters: Handle,
    pub(crate) telemetry: Telemetry,
    /// What the drain asked the doppler for.
    pub(crate) request: v2::EgressBatchRequest,
    to_drain: mpsc::Sender<Outgoing>,
    /// Notices that reached the agent.
    pub(crate) notices: mpsc::Receiver<v2::Envelope>,
    /// Later subscriptions.
    pub(crate) subscriptions: mpsc::Receiver<(v2::EgressBatchRequest, mpsc::Sender<Outgoing>)>,
    _servers: DropGuard,
}

impl Rig {
    /// Starts all, with the drain's URL pointing to `receiver`, and waits for its subscription.
    pub(crate) async fn start(receiver: SocketAddr, query: &str, adjust: impl FnOnce(&mut Config)) -> Self {
        let stop = CancellationToken::new();
        let tracker = TaskTracker::new();
        let (opened, mut subscriptions) = mpsc::channel(16);
        let doppler = serve(EgressServer::new(Doppler { opened }), &tracker, &stop);
        let (heard, notices) = mpsc::channel(1000);
        let agent = serve(IngressServer::new(Agent { heard }), &tracker, &stop);

        let url = format!("syslog://{receiver}{query}").parse().unwrap();
        let drain = DrainConfig::new("test", url);
        let mut config = Config { drains: vec![drain], agent: agent.into(), ..Config::for_test() };
        config.dopplers = vec![DopplerSet::of([doppler])];
        adjust(&mut config);
        let telemetry = Telemetry::default();
        let adapters = config.bind(&telemetry).await.unwrap().spawn();
        let (request, to_drain) = subscriptions.recv().await.unwrap();
        Self { adapters, telemetry, request, to_drain, notices, subscriptions, _servers: stop.drop_guard() }
    }

    /// Sends envelopes as one batch.
    pub(crate) async fn send(&self, envelopes: &[v2::Envelope]) {
        send(&self.to_drain, envelopes).await;
    }

    /// The doppler's end of the subscription.
    pub(crate) fn sender(&mut self) -> &mut mpsc::Sender<Outgoing> {
        &mut self.to_drain
    }

    /// The number of one metric.
    pub(crate) fn number(&self, series: &str) -> u64 {
        number(&self.telemetry, series)
    }

    /// Stops the adapters. The registry can still be read.
    pub(crate) async fn shutdown(self) -> (hydrant_adapters::Drained, Telemetry) {
        (self.adapters.shutdown().await.unwrap(), self.telemetry)
    }
}

pub(crate) async fn send(to: &mpsc::Sender<Outgoing>, envelopes: &[v2::Envelope]) {
    let bytes = v2::EnvelopeBatch { batch: envelopes.to_vec() }.encode_to_vec();
    let (batch, refused) = Batch::check(bytes.into(), &Limits::default());
    assert_eq!(refused.total(), 0);
    to.send(Selection::from(batch).into()).await.unwrap();
}

pub(crate) fn number(telemetry: &Telemetry, series: &str) -> u64 {
    let text = telemetry.render();
    let line = text.lines().find(|line| line.strip_prefix(series).is_some_and(|rest| rest.starts_with(' ')));
    let line = line.unwrap_or_else(|| panic!("{series} is missing from\n{text}"));
    line.rsplit(' ').next().unwrap().parse().unwrap()
}

/// The laws of the accounting, after a stop.
pub(crate) fn check_laws(telemetry: &Telemetry) {
    let n = |series: &str| number(telemetry, series);
    let queue = |name: &str| n(&format!("hydrant_queue_{name}_total{{queue=\"drain\"}}"));
    let evicted = n("hydrant_queue_evicted_total{queue=\"drain\"}");
    let rejected = n("hydrant_queue_rejected_total{queue=\"drain\"}");
    assert_eq!(queue("offered"), queue("accepted") + rejected);
    assert_eq!(queue("accepted"), queue("taken") + evicted, "the ring is empty");
    let dropped = |reason: &str| n(&format!("hydrant_dropped_envelopes_total{{stage=\"drain\",reason=\"{reason}\"}}"));
    assert_eq!(dropped("queue_full"), evicted);
    let reasons = [
        "decode_error",
        "queue_full",
        "convert_error",
        "expired",
        "retry_exhausted",
        "rejected_permanent",
        "oversize",
        "cardinality",
        "disk_corrupt",
        "shutdown_deadline",
    ];
    let delivered = n("hydrant_delivered_envelopes_total{stage=\"drain\"}");
    let all = delivered + n("hydrant_drain_filtered_envelopes_total") + reasons.into_iter().map(dropped).sum::<u64>();
    assert_eq!(
        n("hydrant_received_envelopes_total{stage=\"drain\"}"),
        all,
        "received = delivered + filtered + dropped"
    );
    let link = |name: &str| n(&format!("hydrant_link_{name}_total{{link=\"drain\"}}"));
    assert_eq!(n("hydrant_link_unconfirmed_envelopes{link=\"drain\"}"), 0);
    assert_eq!(link("sent"), link("confirmed") + link("requeued") + link("uncertain"));
    assert_eq!(link("sent"), delivered + link("requeued"));
}

/// Log lines `name 0`, `name 1` and so on, of the source `app`.
pub(crate) fn lines(range: std::ops::Range<usize>) -> Vec<v2::Envelope> {
    range.map(|i| v2::Envelope::log("app", format!("line {i}")).at(i as i64)).collect()
}

/// The next octet-counted frame. Reads not one byte more, so that the rest stays with the kernel.
pub(crate) async fn frame(from: &mut (impl AsyncRead + Unpin)) -> Option<String> {
    let mut length = 0;
    loop {
        match from.read_u8().await.ok()? {
            b' ' => break,
            digit => length = length * 10 + usize::from(digit - b'0'),
        }
    }
    let mut frame = vec![0; length];
    from.read_exact(&mut frame).await.ok()?;
    Some(String::from_utf8(frame).unwrap())
}

/// The number of the next line made by [`lines`].
pub(crate) async fn line(from: &mut (impl AsyncRead + Unpin)) -> Option<usize> {
    Some(frame(from).await?.trim_end().rsplit(' ').next().unwrap().parse().unwrap())
}

/// A receiver, and its address.
pub(crate) async fn receiver() -> (TcpListener, SocketAddr) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addr = listener.local_addr().unwrap();
    (listener, addr)
}

/// Ends a connection as a crash does.
pub(crate) fn reset(stream: TcpStream) {
    socket2::SockRef::from(&stream).set_linger(Some(std::time::Duration::ZERO)).unwrap();
    drop(stream);
}

fn serve<S>(service: S, tracker: &TaskTracker, stop: &CancellationToken) -> SocketAddr
where
    S: tower::Service<
            http::Request<tonic::body::Body>,
            Response = http::Response<tonic::body::Body>,
            Error = std::convert::Infallible,
        > + tonic::server::NamedService
        + Clone
        + Send
        + Sync
        + 'static,
    S::Future: Send + 'static,
{
    let listener = bind("test", "127.0.0.1:0".parse().unwrap()).unwrap();
    let addr = listener.addr();
    let incoming = listener.incoming(Security::Plain, tracker, stop.clone());
    let server = server_builder(&GrpcLimits::default()).add_service(service);
    let stop = stop.clone().cancelled_owned();
    tracker.spawn(async move { server.serve_with_incoming_shutdown(incoming, stop).await.unwrap() });
    addr
}

struct Doppler {
    opened: mpsc::Sender<(v2::EgressBatchRequest, mpsc::Sender<Outgoing>)>,
}

type Output<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

#[tonic::async_trait]
impl Egress for Doppler {
    type ReceiverStream = Output<Wire>;
    type BatchedReceiverStream = Output<Outgoing>;

    async fn receiver(&self, _: Request<v2::EgressRequest>) -> Result<Response<Self::ReceiverStream>, Status> {
        Err(Status::unimplemented("drains read batches"))
    }

    async fn batched_receiver(
        &self,
        request: Request<v2::EgressBatchRequest>,
    ) -> Result<Response<Self::BatchedReceiverStream>, Status> {
        let (sender, mut batches) = mpsc::channel(16);
        self.opened.send((request.into_inner(), sender)).await.map_err(|_| Status::unavailable("the test is over"))?;
        let stream = futures_util::stream::poll_fn(move |cx| batches.poll_recv(cx).map(|batch| batch.map(Ok)));
        Ok(Response::new(Box::pin(stream)))
    }
}

struct Agent {
    heard: mpsc::Sender<v2::Envelope>,
}

#[tonic::async_trait]
impl Ingress for Agent {
    async fn sender(&self, _: Request<Streaming<Wire>>) -> Result<Response<v2::IngressResponse>, Status> {
        Err(Status::unimplemented("notices come in batches"))
    }

    async fn batch_sender(
        &self,
        request: Request<Streaming<Wire>>,
    ) -> Result<Response<v2::BatchSenderResponse>, Status> {
        let mut batches = request.into_inner();
        while let Some(batch) = batches.message().await? {
            for envelope in v2::EnvelopeBatch::decode(batch.0).unwrap().batch {
                self.heard.send(envelope).await.unwrap();
            }
        }
        Ok(Response::new(v2::BatchSenderResponse {}))
    }

    async fn send(&self, _: Request<Wire>) -> Result<Response<v2::SendResponse>, Status> {
        Err(Status::unimplemented("notices come on a stream"))
    }
}
