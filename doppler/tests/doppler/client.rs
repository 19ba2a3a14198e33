//! A doppler to talk to, the clients that talk to it, and its numbers as `/metrics` gives them.

use std::collections::{HashMap, VecDeque};
use std::net::SocketAddr;
use std::num::NonZeroU32;
use std::time::Duration;

use doppler::{Config, Drained, Handle};
use futures_util::{Stream, StreamExt, stream};
use prost::Message as _;
use proto::codec::{Codec, Wire};
use proto::hydrant::v1::{IngressAck, IngressFrame, Sender};
use proto::raw::Batch;
use proto::v2;
use proto::v2::egress_client::EgressClient;
use proto::v2::selector::Message;
use proto::v2::{Envelope, EnvelopeBatch};
use telemetry::Telemetry;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio::time::timeout;
use tokio_util::task::TaskTracker;
use tonic::client::Grpc;
use tonic::codegen::http::uri::PathAndQuery;
use tonic::metadata::MetadataValue;
use tonic::transport::Channel;
use tonic::{Request, Response, Status, Streaming};
use transport::{ChannelOptions, LinkLimits, TestCerts, install_crypto_provider};

/// Ends a test that would hang.
const PATIENCE: Duration = Duration::from_secs(120);

/// A running doppler, over mutual TLS with the names of contract loggregator v2 §9.2 unless its configuration says otherwise.
pub(crate) struct Doppler {
    handle: Handle,
    telemetry: Telemetry,
    /// How its clients connect.
    options: ChannelOptions,
    _certs: TestCerts,
}

impl Doppler {
    pub(crate) async fn start() -> Self {
        Self::with(|_| {}).await
    }

    /// Starts one whose configuration `change` has changed.
    pub(crate) async fn with(change: impl FnOnce(&mut Config)) -> Self {
        install_crypto_provider();
        let (telemetry, certs) = (Telemetry::default(), TestCerts::new());
        let mut config = Config::for_test();
        config.grpc.tls = Some(certs.files("doppler"));
        change(&mut config);
        let options = match config.grpc.tls {
            Some(_) => ChannelOptions::tls(certs.identity("reverselogproxy"), "doppler"),
            None => ChannelOptions::default(),
        };
        let handle = config.bind(&telemetry).await.unwrap().spawn();
        Self { handle, telemetry, options, _certs: certs }
    }

    pub(crate) fn addr(&self) -> SocketAddr {
        self.handle.addrs().grpc
    }

    /// A channel to the port of its cache alone.
    pub(crate) fn cache_channel(&self) -> Channel {
        channel(self.handle.addrs().cache_grpc.unwrap(), &self.options)
    }

    /// Where it takes syslog into its cache.
    pub(crate) fn cache_syslog(&self) -> SocketAddr {
        self.handle.addrs().cache_syslog.unwrap()
    }

    pub(crate) fn channel(&self) -> Channel {
        channel(self.addr(), &self.options)
    }

    /// A subscription that reads on a connection of its own.
    pub(crate) async fn subscribe(&self, selectors: Vec<v2::Selector>) -> Subscriber {
        self.subscribe_to(request("", "", selectors)).await.unwrap()
    }

    /// A member of the group `shard_id`.
    pub(crate) async fn join(&self, shard_id: &str, name: &str, selectors: Vec<v2::Selector>) -> Subscriber {
        self.subscribe_to(request(shard_id, name, selectors)).await.unwrap()
    }

    pub(crate) async fn subscribe_to(&self, request: v2::EgressBatchRequest) -> Result<Subscriber, Status> {
        subscribe(self.channel(), request).await
    }

    /// Connections that take no more than 64 KiB ahead of the reader.
    fn narrow(&self) -> ChannelOptions {
        let window = NonZeroU32::new(65_535).unwrap();
        let limits =
            LinkLimits { stream_window_bytes: window, connection_window_bytes: window, ..LinkLimits::default() };
        self.options.clone().within(&limits)
    }

    /// A subscription whose connection takes no more than 64 KiB ahead of its reader.
    pub(crate) async fn subscribe_narrow(&self, selectors: Vec<v2::Selector>) -> Subscriber {
        let options = self.narrow();
        subscribe(channel(self.addr(), &options), request("", "", selectors)).await.unwrap()
    }

    /// The same, for a consumer that asks to be told what it loses.
    pub(crate) async fn subscribe_asking(&self, selectors: Vec<v2::Selector>) -> Subscriber {
        let options = self.narrow();
        let mut request = Request::new(request("", "", selectors));
        request.metadata_mut().insert(proto::loss::ASKED, MetadataValue::from_static("true"));
        let answer = EgressClient::new(channel(self.addr(), &options)).batched_receiver(request).await;
        Subscriber { stream: answer.unwrap().into_inner(), ready: VecDeque::new() }
    }

    /// Sends batches on one `BatchSender` stream, finishes it and waits for the answer.
    pub(crate) async fn send(&self, batches: impl IntoIterator<Item = Vec<Envelope>>) {
        let messages: Vec<Wire> = batches.into_iter().map(encode).collect();
        batch_sender(self.channel(), stream::iter(messages)).await.unwrap();
    }

    /// The numbers on the admin port.
    pub(crate) async fn numbers(&self) -> Numbers {
        Numbers::parse(&http_get(self.handle.addrs().admin, "/metrics").await)
    }

    /// Waits until so many subscriptions are open.
    pub(crate) async fn await_subscriptions(&self, open: u64) {
        let reached = async { while self.numbers().await.get("hydrant_subscriptions") != open {} };
        timeout(PATIENCE, reached).await.expect("subscriptions come and go");
    }

    /// Tells it to stop, and does not wait.
    pub(crate) fn stop(&self) {
        self.handle.stop();
    }

    /// Stops it; what it said and its last numbers.
    pub(crate) async fn shutdown(self) -> (Drained, Numbers) {
        let drained = timeout(PATIENCE, self.handle.shutdown()).await.expect("a stop ends").unwrap();
        (drained, Numbers::parse(&self.telemetry.render()))
    }

    /// Stops it while `subscribers` read on; what each got.
    pub(crate) async fn drain<const N: usize>(self, subscribers: [Subscriber; N]) -> ([Vec<Envelope>; N], Numbers) {
        let read = futures_util::future::join_all(subscribers.map(Subscriber::rest));
        let ((_, numbers), rest) = tokio::join!(self.shutdown(), read);
        (rest.try_into().unwrap(), numbers)
    }
}

pub(crate) fn channel(addr: SocketAddr, options: &ChannelOptions) -> Channel {
    transport::channel(&addr.to_string().parse().unwrap(), options)
}

/// One consumer's stream.
pub(crate) struct Subscriber {
    stream: Streaming<Wire>,
    ready: VecDeque<Envelope>,
}

pub(crate) async fn subscribe(channel: Channel, request: v2::EgressBatchRequest) -> Result<Subscriber, Status> {
    let stream = EgressClient::new(channel).batched_receiver(request).await?.into_inner();
    Ok(Subscriber { stream, ready: VecDeque::new() })
}

impl Subscriber {
    /// The next message as it stands on the wire; `None` when the stream has ended with OK.
    pub(crate) async fn message(&mut self) -> Option<Wire> {
        self.try_message().await.unwrap()
    }

    pub(crate) async fn try_message(&mut self) -> Result<Option<Wire>, Status> {
        timeout(PATIENCE, self.stream.message()).await.expect("a message or the end arrives")
    }

    /// The next envelope; `None` when the stream has ended with OK.
    pub(crate) async fn next(&mut self) -> Option<Envelope> {
        while self.ready.is_empty() {
            let Wire(message) = self.message().await?;
            self.ready.extend(EnvelopeBatch::decode(message).unwrap().batch);
        }
        self.ready.pop_front()
    }

    /// So many more envelopes.
    pub(crate) async fn take(&mut self, count: usize) -> Vec<Envelope> {
        let mut all = Vec::with_capacity(count);
        while all.len() < count {
            all.push(self.next().await.expect("the stream is open"));
        }
        all
    }

    /// Everything up to the end of the stream.
    pub(crate) async fn rest(mut self) -> Vec<Envelope> {
        let mut all = Vec::new();
        while let Some(envelope) = self.next().await {
            all.push(envelope);
        }
        all
    }
}

/// A `BatchSender` stream that stays open.
pub(crate) struct Producer {
    messages: mpsc::Sender<Wire>,
    answer: JoinHandle<Result<(), Status>>,
}

impl Producer {
    pub(crate) fn open(channel: Channel) -> Self {
        let (messages, receiver) = mpsc::channel(4);
        let answer = TaskTracker::new().spawn(async move { batch_sender(channel, from(receiver)).await });
        Self { messages, answer }
    }

    pub(crate) async fn send(&self, batch: Vec<Envelope>) {
        self.send_raw(encode(batch)).await;
    }

    pub(crate) async fn send_raw(&self, message: Wire) {
        self.messages.send(message).await.expect("the stream is open");
    }

    /// Waits until the doppler ends the stream; the answer.
    pub(crate) async fn ended(self) -> Result<(), Status> {
        let Self { messages, answer } = self;
        let answer = timeout(PATIENCE, answer).await.expect("the stream is ended").unwrap();
        drop(messages);
        answer
    }

    /// Finishes the stream; the answer.
    pub(crate) async fn finish(self) -> Result<(), Status> {
        drop(self.messages);
        timeout(PATIENCE, self.answer).await.expect("a stream is answered").unwrap()
    }
}

/// An acknowledged stream.
pub(crate) struct Acknowledged {
    frames: mpsc::Sender<IngressFrame>,
    acks: Streaming<IngressAck>,
    sequence: u64,
}

impl Acknowledged {
    pub(crate) async fn open(channel: Channel) -> Self {
        let (frames, receiver) = mpsc::channel(4);
        let path = PathAndQuery::from_static("/hydrant.v1.Ingress/Stream");
        let codec = Codec::<IngressFrame, IngressAck>::default();
        let mut client = ready(channel).await;
        let acks = client.streaming(Request::new(from(receiver)), path, codec).await.unwrap().into_inner();
        Self { frames, acks, sequence: 0 }
    }

    /// Sends a frame with the next number; false when the stream has ended.
    pub(crate) async fn send(&mut self, batch: Vec<Envelope>) -> bool {
        self.sequence += 1;
        self.send_as(self.sequence, batch).await
    }

    pub(crate) async fn send_as(&self, sequence: u64, batch: Vec<Envelope>) -> bool {
        self.frames.send(IngressFrame { sequence, batch: encode(batch).0, ..IngressFrame::default() }).await.is_ok()
    }

    /// Names the sender; the sequence that the doppler has of it.
    pub(crate) async fn greet(&mut self, (process, stream): (u64, u64), sequence: u64) -> Result<u64, Status> {
        let sender = Some(Sender { process, stream });
        let hello = IngressFrame { sequence, sender, ..IngressFrame::default() };
        self.frames.send(hello).await.expect("the stream is open");
        self.ack().await.map(|ack| ack.expect("an answer").sequence)
    }

    /// Asks for what came before to have left.
    pub(crate) async fn flush(&mut self) -> bool {
        self.sequence += 1;
        let flush = IngressFrame { sequence: self.sequence, flush: true, ..IngressFrame::default() };
        self.frames.send(flush).await.is_ok()
    }

    pub(crate) async fn ack(&mut self) -> Result<Option<IngressAck>, Status> {
        timeout(PATIENCE, self.acks.message()).await.expect("an acknowledgement or the end arrives")
    }

    /// Its two ends: where frames go in and where acknowledgements come out.
    pub(crate) fn split(self) -> (mpsc::Sender<IngressFrame>, Streaming<IngressAck>) {
        (self.frames, self.acks)
    }
}

fn from<T>(receiver: mpsc::Receiver<T>) -> impl Stream<Item = T> + Send + 'static
where
    T: Send + 'static,
{
    stream::unfold(receiver, |mut receiver| async move { receiver.recv().await.map(|next| (next, receiver)) })
}

async fn ready(channel: Channel) -> Grpc<Channel> {
    let mut client = Grpc::new(channel);
    client.ready().await.unwrap();
    client
}

/// Sends messages as they are to `BatchSender`.
pub(crate) async fn batch_sender(
    channel: Channel,
    messages: impl Stream<Item = Wire> + Send + 'static,
) -> Result<(), Status> {
    let path = PathAndQuery::from_static("/loggregator.v2.Ingress/BatchSender");
    let codec = Codec::<Wire, v2::BatchSenderResponse>::default();
    let answer = ready(channel).await.client_streaming(Request::new(messages), path, codec).await;
    answer.map(Response::into_inner).map(|v2::BatchSenderResponse {}| ())
}

/// Sends encoded envelopes to `Sender`.
pub(crate) async fn sender(channel: Channel, envelopes: Vec<Wire>) -> Result<(), Status> {
    let path = PathAndQuery::from_static("/loggregator.v2.Ingress/Sender");
    let codec = Codec::<Wire, v2::IngressResponse>::default();
    let answer = ready(channel).await.client_streaming(Request::new(stream::iter(envelopes)), path, codec).await;
    answer.map(Response::into_inner).map(|v2::IngressResponse {}| ())
}

/// Sends one message to `Send`.
pub(crate) async fn send_unary(channel: Channel, message: Wire) -> Result<(), Status> {
    let path = PathAndQuery::from_static("/loggregator.v2.Ingress/Send");
    let codec = Codec::<Wire, v2::SendResponse>::default();
    ready(channel).await.unary(Request::new(message), path, codec).await.map(drop)
}

pub(crate) fn encode(batch: Vec<Envelope>) -> Wire {
    Wire(EnvelopeBatch { batch }.encode_to_vec().into())
}

/// The envelopes of a message, byte for byte.
pub(crate) fn slices(message: &Wire) -> Vec<Vec<u8>> {
    let (batch, refused) = Batch::index(message.0.clone());
    assert_eq!(refused.total(), 0);
    batch.entries().iter().map(|entry| batch.envelope(entry).to_vec()).collect()
}

pub(crate) fn request(shard_id: &str, name: &str, selectors: Vec<v2::Selector>) -> v2::EgressBatchRequest {
    v2::EgressBatchRequest {
        shard_id: shard_id.to_owned(),
        deterministic_name: name.to_owned(),
        selectors,
        ..v2::EgressBatchRequest::default()
    }
}

/// Selectors, short enough for tables. An empty source is any.
pub(crate) fn logs(source_id: &str) -> v2::Selector {
    selector(source_id, Message::Log(v2::LogSelector {}))
}

pub(crate) fn counters(source_id: &str, name: &str) -> v2::Selector {
    selector(source_id, Message::Counter(v2::CounterSelector { name: name.to_owned() }))
}

pub(crate) fn gauges(source_id: &str, names: &[&str]) -> v2::Selector {
    let names = names.iter().map(|name| (*name).to_owned()).collect();
    selector(source_id, Message::Gauge(v2::GaugeSelector { names }))
}

pub(crate) fn timers(source_id: &str) -> v2::Selector {
    selector(source_id, Message::Timer(v2::TimerSelector {}))
}

pub(crate) fn events(source_id: &str) -> v2::Selector {
    selector(source_id, Message::Event(v2::EventSelector {}))
}

pub(crate) fn everything() -> Vec<v2::Selector> {
    vec![logs(""), counters("", ""), gauges("", &[]), timers(""), events("")]
}

fn selector(source_id: &str, message: Message) -> v2::Selector {
    v2::Selector { source_id: source_id.to_owned(), message: Some(message) }
}

/// A gauge with these metrics.
pub(crate) fn gauge(source_id: &str, names: &[&str]) -> Envelope {
    let metrics = names.iter().map(|name| ((*name).to_owned(), v2::GaugeValue::default())).collect();
    let message = Some(v2::envelope::Message::Gauge(v2::Gauge { metrics }));
    Envelope { source_id: source_id.to_owned(), message, ..Envelope::default() }
}

/// The payloads, as text.
pub(crate) fn payloads(envelopes: &[Envelope]) -> Vec<String> {
    envelopes.iter().map(|envelope| String::from_utf8(envelope.payload().to_vec()).unwrap()).collect()
}

/// What stands on `/metrics`, by name with labels.
#[derive(Debug)]
pub(crate) struct Numbers(HashMap<String, f64>);

impl Numbers {
    pub(crate) fn parse(text: &str) -> Self {
        let line = |line: &str| {
            let (name, value) = line.rsplit_once(' ')?;
            Some((name.to_owned(), value.parse().ok()?))
        };
        Self(text.lines().filter(|line| !line.starts_with('#')).filter_map(line).collect())
    }

    pub(crate) fn get(&self, name: &str) -> u64 {
        let value = self.0.get(name).unwrap_or_else(|| panic!("{name} is not among {:#?}", self.0.keys()));
        assert!(*value >= 0.0 && value.fract() == 0.0, "{name} is {value}");
        *value as u64
    }

    pub(crate) fn received(&self) -> u64 {
        self.get("hydrant_received_envelopes_total{stage=\"doppler\"}")
    }

    pub(crate) fn delivered(&self) -> u64 {
        self.get("hydrant_delivered_envelopes_total{stage=\"doppler\"}")
    }

    pub(crate) fn copies(&self) -> u64 {
        self.get("hydrant_router_copies_total")
    }

    pub(crate) fn dropped(&self, reason: &str) -> u64 {
        self.get(&format!("hydrant_dropped_envelopes_total{{stage=\"doppler\",reason=\"{reason}\"}}"))
    }

    pub(crate) fn depth(&self) -> u64 {
        self.get("hydrant_queue_depth_envelopes{queue=\"subscription\"}")
    }

    /// Envelopes that ingress refused.
    pub(crate) fn refused(&self) -> u64 {
        ["decode_error", "oversize", "too_many"].iter().map(|reason| self.dropped(reason)).sum()
    }

    /// Envelopes that a consumer was to get and did not.
    pub(crate) fn lost(&self) -> u64 {
        ["queue_full", "peer_lost", "shutdown_deadline"].iter().map(|reason| self.dropped(reason)).sum()
    }

    /// All reasons together, where there are any.
    fn queue(&self, family: &str) -> u64 {
        let start = format!("hydrant_queue_{family}_total{{queue=\"subscription\"");
        let names: Vec<&String> = self.0.keys().filter(|name| name.starts_with(&start)).collect();
        assert!(!names.is_empty(), "{start} is not among {:#?}", self.0.keys());
        names.into_iter().map(|name| self.get(name)).sum()
    }

    /// The law of accounting, to the envelope, while nothing is on its way.
    #[track_caller]
    pub(crate) fn hold(&self) {
        let routed = self.get("hydrant_router_matched_total") + self.get("hydrant_router_unmatched_total");
        assert_eq!(self.received(), self.refused() + routed, "received = refused + matched + unmatched: {self:#?}");
        self.balance();
    }

    /// The part of the law that is about rings.
    #[track_caller]
    pub(crate) fn balance(&self) {
        let (rejected, evicted) = (self.queue("rejected"), self.queue("evicted"));
        assert_eq!(self.copies(), self.queue("offered"), "copies = offered: {self:#?}");
        assert_eq!(
            self.queue("offered"),
            self.queue("accepted") + rejected,
            "offered = accepted + rejected: {self:#?}"
        );
        let (taken, depth) = (self.queue("taken"), self.depth());
        assert_eq!(self.queue("accepted"), taken + evicted + depth, "accepted = taken + evicted + depth: {self:#?}");
        assert!(taken >= self.delivered(), "what is delivered was taken: {self:#?}");
    }

    /// The same once every subscription has ended: whatever was copied was delivered or dropped for a reason.
    #[track_caller]
    pub(crate) fn hold_to_the_end(&self) {
        self.hold();
        assert_eq!(self.get("hydrant_subscriptions"), 0);
        assert_eq!(self.get("hydrant_ingress_streams"), 0);
        assert_eq!(self.depth(), 0);
        assert_eq!(self.copies(), self.delivered() + self.lost(), "copies = delivered + dropped: {self:#?}");
    }
}

/// The body of an answer over HTTP/1.1.
pub(crate) async fn http_get(addr: SocketAddr, path: &str) -> String {
    let mut socket = TcpStream::connect(addr).await.unwrap();
    let head = format!("GET {path} HTTP/1.1\r\nHost: {addr}\r\nConnection: close\r\n\r\n");
    socket.write_all(head.as_bytes()).await.unwrap();
    let mut answer = String::new();
    socket.read_to_string(&mut answer).await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
    answer.split_once("\r\n\r\n").unwrap().1.to_owned()
}

/// Reads acknowledgements to the end of the stream; the last one.
pub(crate) async fn last_ack(acks: Streaming<IngressAck>) -> IngressAck {
    let all = acks.map(Result::unwrap).collect::<Vec<_>>();
    timeout(PATIENCE, all).await.expect("the stream ends").pop().expect("something was acknowledged")
}
