//! Several nodes with one list, ours and one as the original's are: who keeps what, who is asked, and what an absent node costs.

use std::collections::HashMap;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::Duration;

use log_cache::{Drained, Handle, NodeConfig, Placement};
use parking_lot::Mutex;
use prost::Message;
use proto::jump;
use proto::logcache::v1;
use proto::logcache::v1::egress_client::EgressClient;
use proto::logcache::v1::egress_server::{Egress, EgressServer};
use proto::logcache::v1::ingress_client::IngressClient;
use proto::logcache::v1::ingress_server::{Ingress, IngressServer};
use proto::v2::{Envelope, EnvelopeBatch};
use telemetry::Telemetry;
use tokio_util::sync::{CancellationToken, DropGuard};
use tokio_util::task::TaskTracker;
use tonic::transport::Channel;
use tonic::{Code, Request, Response, Status};
use transport::{ChannelOptions, GrpcLimits, Identity, Security, TestCerts, bind, channel, server_builder};

/// Addresses that nobody has just now, as a list is written before its nodes are bound; at a host of its own for each list, where nobody
/// else takes one meanwhile.
fn free<const N: usize>() -> [SocketAddr; N] {
    static HOSTS: AtomicU8 = AtomicU8::new(1);
    let host = Ipv4Addr::new(127, 0, 77, HOSTS.fetch_add(1, Ordering::Relaxed));
    let listeners = [(); N].map(|()| TcpListener::bind((host, 0)).unwrap());
    listeners.map(|listener| listener.local_addr().unwrap())
}

/// One of our nodes.
struct Node {
    handle: Handle,
    telemetry: Telemetry,
    options: ChannelOptions,
}

impl Node {
    /// The node at `index` of `list`.
    async fn start(list: &[SocketAddr], index: usize, adjust: impl FnOnce(&mut NodeConfig)) -> Self {
        let mut config = NodeConfig::for_test();
        config.grpc.listen = list[index];
        config.syslog.enabled = false;
        config.cluster.placement = Placement::Jump;
        config.cluster.nodes = list.iter().copied().map(Into::into).collect();
        config.cluster.node_index = Some(index);
        config.cluster.batch_age = Duration::from_millis(5);
        adjust(&mut config);
        let options = config.grpc.tls.as_ref().map_or_else(ChannelOptions::default, |files| {
            ChannelOptions::tls(Identity::load(files).unwrap(), "log-cache")
        });
        let telemetry = Telemetry::default();
        let handle = config.bind(&telemetry).await.unwrap().spawn();
        Self { handle, telemetry, options }
    }

    fn channel(&self) -> Channel {
        channel(&self.handle.addrs().grpc.into(), &self.options)
    }

    async fn send(&self, lines: impl IntoIterator<Item = Envelope>) {
        send(self.channel(), lines, false).await;
    }

    /// Its answer, and the nodes that it says are missing.
    async fn try_read(&self, source_id: &str) -> Result<(Vec<Envelope>, String), Status> {
        read(self.channel(), source_id).await
    }

    /// Reads until there are so many.
    async fn read(&self, source_id: &str, count: usize) -> Vec<Envelope> {
        loop {
            let (found, missing) = self.try_read(source_id).await.unwrap();
            if found.len() >= count {
                assert_eq!((found.len(), missing.as_str()), (count, ""));
                return found;
            }
            tokio::task::yield_now().await;
        }
    }

    async fn meta(&self, local_only: bool) -> (HashMap<String, v1::MetaInfo>, String) {
        let answer = EgressClient::new(self.channel())
            .meta(v1::MetaRequest { local_only, ..v1::MetaRequest::default() })
            .await
            .unwrap();
        let missing = missing(answer.metadata());
        (answer.into_inner().meta, missing)
    }

    fn number(&self, series: &str) -> u64 {
        let text = self.telemetry.render();
        let line = text.lines().find_map(|line| line.strip_prefix(series)?.strip_prefix(' '));
        line.unwrap_or_else(|| panic!("{series} is missing from\n{text}")).parse().unwrap()
    }

    async fn until(&self, series: &str, done: impl Fn(u64) -> bool) {
        while !done(self.number(series)) {
            tokio::task::yield_now().await;
        }
    }

    fn dropped(&self, reason: &str) -> u64 {
        self.number(&format!("hydrant_dropped_envelopes_total{{stage=\"cache_peers\",reason=\"{reason}\"}}"))
    }

    /// After a stop: received is delivered and dropped, and no ring holds anything.
    async fn stop(self) -> (Drained, Telemetry) {
        let drained = self.handle.shutdown().await.unwrap();
        let text = self.telemetry.render();
        let sum = |prefix: &str| -> u64 {
            let lines = text.lines().filter(|line| line.starts_with(prefix));
            lines.map(|line| line.rsplit(' ').next().unwrap().parse::<u64>().unwrap()).sum()
        };
        let stage = |name: &str| sum(&format!("hydrant_{name}_envelopes_total{{stage=\"cache_peers\""));
        assert_eq!(stage("received"), stage("delivered") + stage("dropped"), "{text}");
        assert_eq!(sum("hydrant_queue_depth_envelopes{queue=\"cache_peers\"}"), 0, "{text}");
        (drained, self.telemetry)
    }
}

fn missing(metadata: &tonic::metadata::MetadataMap) -> String {
    metadata.get("x-hydrant-partial").map(|value| value.to_str().unwrap().to_owned()).unwrap_or_default()
}

async fn send(channel: Channel, lines: impl IntoIterator<Item = Envelope>, local_only: bool) {
    let envelopes = EnvelopeBatch { batch: lines.into_iter().collect() }.encode_to_vec().into();
    IngressClient::new(channel).send(v1::SendRequest { envelopes, local_only }).await.unwrap();
}

async fn read(channel: Channel, source_id: &str) -> Result<(Vec<Envelope>, String), Status> {
    let request = v1::ReadRequest { source_id: source_id.to_owned(), limit: 1000, ..v1::ReadRequest::default() };
    let answer = EgressClient::new(channel).read(request).await?;
    let missing = missing(answer.metadata());
    let envelopes = answer.into_inner().envelopes.expect("clients use it without asking whether it is there");
    Ok((EnvelopeBatch::decode(envelopes).unwrap().batch, missing))
}

fn lines(source_id: &str, count: i64) -> Vec<Envelope> {
    (1..=count).map(|i| Envelope::log(source_id.to_owned(), i.to_string()).at(i)).collect()
}

/// A source that the node at `index` of `count` owns.
fn source(index: usize, count: usize) -> String {
    let mut names = (0..).map(|i| format!("app-{i}"));
    names.find(|name| jump::owner(name.as_bytes(), count) == index).unwrap()
}

#[tokio::test]
async fn three_nodes_keep_what_is_theirs_and_each_answers_for_all() {
    let list = free::<3>();
    let nodes =
        [Node::start(&list, 0, |_| {}).await, Node::start(&list, 1, |_| {}).await, Node::start(&list, 2, |_| {}).await];
    let sources: Vec<String> = (0..30).map(|i| format!("app-{i}")).collect();
    // All of it comes to one node, mixed.
    let mixed = (1..=10).flat_map(|i| sources.iter().map(move |id| Envelope::log(id.clone(), i.to_string()).at(i)));
    nodes[1].send(mixed).await;
    for source_id in &sources {
        for node in &nodes {
            assert_eq!(node.read(source_id, 10).await, lines(source_id, 10));
        }
    }
    for (index, node) in nodes.iter().enumerate() {
        let (own, _) = node.meta(true).await;
        let theirs = sources.iter().filter(|id| jump::owner(id.as_bytes(), 3) == index);
        assert_eq!(own.len(), theirs.count());
        let (all, missing) = node.meta(false).await;
        assert_eq!((all.len(), all["app-7"].count, missing.as_str()), (30, 10, ""));
    }
    for node in nodes {
        node.stop().await;
    }
}

#[tokio::test]
async fn a_node_that_is_away_is_named_and_gets_what_is_its_own_once_it_is_back() {
    let list = free::<2>();
    let (here, there) = (Node::start(&list, 0, |_| {}).await, source(1, 2));
    let (found, missing) = here.try_read(&there).await.unwrap();
    assert_eq!((found, missing), (Vec::new(), list[1].to_string()));
    assert_eq!(here.meta(false).await.1, list[1].to_string());
    here.send(lines(&there, 250)).await;
    let own = source(0, 2);
    here.send(lines(&own, 3)).await;
    assert_eq!(here.read(&own, 3).await, lines(&own, 3), "what is its own does not wait");
    here.until("log_cache_send_failures{sender=\"batched_ingress_client\"}", |failures| failures > 0).await;

    let other = Node::start(&list, 1, |_| {}).await;
    assert_eq!(other.read(&there, 250).await, lines(&there, 250));
    assert_eq!(here.read(&there, 250).await, lines(&there, 250));
    for reason in ["queue_full", "retry_exhausted", "rejected_permanent"] {
        assert_eq!(here.dropped(reason), 0, "{reason}");
    }
    assert_eq!(here.number("hydrant_delivered_envelopes_total{stage=\"cache_peers\"}"), 250);
    assert!(here.number("hydrant_cache_passed_reads_total{outcome=\"away\"}") >= 1);
    here.stop().await;
}

#[tokio::test]
async fn what_finds_no_room_is_dropped_from_the_oldest_and_counted() {
    let list = free::<2>();
    let here = Node::start(&list, 0, |config| config.cluster.ring_envelopes = 100.try_into().unwrap()).await;
    let there = source(1, 2);
    for line in lines(&there, 500) {
        here.send([line]).await;
    }
    let dropped = here.dropped("queue_full");
    assert_eq!(here.number("ingress_dropped{node_index=\"1\"}"), dropped);
    // A batch is out of the ring already, and waits with it.
    assert!((300..=400).contains(&dropped), "{dropped}");
    let other = Node::start(&list, 1, |_| {}).await;
    let kept = usize::try_from(500 - dropped).unwrap();
    let found = other.read(&there, kept).await;
    assert_eq!(found.last().map(|envelope| envelope.timestamp), Some(500));
    here.stop().await;
}

#[tokio::test]
async fn a_stop_brings_what_waits_and_counts_what_nobody_takes() {
    let list = free::<2>();
    let there = source(1, 2);
    let other = Node::start(&list, 1, |_| {}).await;
    let here = Node::start(&list, 0, |config| config.cluster.batch_age = Duration::from_secs(3600)).await;
    here.send(lines(&there, 30)).await;
    let (drained, _) = here.stop().await;
    assert_eq!(drained, Drained { flushed: 30, dropped: 0 });
    assert_eq!(other.read(&there, 30).await.len(), 30);
    other.stop().await;

    let here = Node::start(&list, 0, |config| config.flush_timeout = Duration::from_millis(50)).await;
    here.send(lines(&there, 30)).await;
    let (drained, telemetry) = here.stop().await;
    assert_eq!(drained, Drained { flushed: 0, dropped: 30 });
    let line = "hydrant_dropped_envelopes_total{stage=\"cache_peers\",reason=\"shutdown_deadline\"} 30";
    assert!(telemetry.render().contains(line));
}

#[tokio::test]
async fn nodes_meet_over_tls_as_log_caches() {
    let (list, certs) = (free::<2>(), TestCerts::new());
    let files = certs.files("log-cache");
    let here = Node::start(&list, 0, |config| config.grpc.tls = Some(files.clone())).await;
    let other = Node::start(&list, 1, |config| config.grpc.tls = Some(files.clone())).await;
    let there = source(1, 2);
    here.send(lines(&there, 3)).await;
    assert_eq!(other.read(&there, 3).await, lines(&there, 3));
    assert_eq!(here.read(&there, 3).await, lines(&there, 3));
}

/// Lists that differ make each of two nodes believe that the other owns a source.
#[tokio::test]
async fn a_request_goes_no_further_than_one_hop() {
    let list = free::<2>();
    let reversed = [list[1], list[0]];
    let here = Node::start(&list, 0, |_| {}).await;
    let other = Node::start(&reversed, 0, |_| {}).await;
    assert_eq!(here.handle.addrs().grpc, list[0]);
    let there = source(1, 2);
    send(other.channel(), lines(&there, 2), true).await;
    assert_eq!(here.read(&there, 2).await, lines(&there, 2));
    let (found, missing) = other.try_read(&there).await.unwrap();
    assert_eq!((found, missing.as_str()), (Vec::new(), ""), "asked of the first, which has nothing");
}

/// A node as the original's are, built from the contract: it stores what says `local_only`, and answers for its own sources.
#[derive(Clone, Default)]
struct Original {
    shared: Arc<Mutex<Sent>>,
}

#[derive(Default)]
struct Sent {
    batches: Vec<usize>,
    stored: Vec<Envelope>,
    /// What it answers instead, once each.
    refusals: Vec<Code>,
}

#[tonic::async_trait]
impl Ingress for Original {
    async fn send(&self, request: Request<v1::SendRequest>) -> Result<Response<v1::SendResponse>, Status> {
        let request = request.into_inner();
        assert!(request.local_only, "what comes from a node stays");
        let batch = EnvelopeBatch::decode(request.envelopes).unwrap().batch;
        let mut shared = self.shared.lock();
        if let Some(code) = shared.refusals.pop() {
            return Err(Status::new(code, "not this one"));
        }
        shared.batches.push(batch.len());
        shared.stored.extend(batch);
        Ok(Response::new(v1::SendResponse {}))
    }
}

#[tonic::async_trait]
impl Egress for Original {
    async fn read(&self, request: Request<v1::ReadRequest>) -> Result<Response<v1::ReadResponse>, Status> {
        let request = request.into_inner();
        if request.limit > 1000 {
            return Err(Status::unknown("limit (1001) must be 1000 or less"));
        }
        let stored = self.shared.lock().stored.clone();
        let batch = stored.into_iter().filter(|envelope| envelope.source_id == request.source_id).collect();
        let envelopes = Some(EnvelopeBatch { batch }.encode_to_vec().into());
        Ok(Response::new(v1::ReadResponse { envelopes, ..v1::ReadResponse::default() }))
    }

    async fn meta(&self, request: Request<v1::MetaRequest>) -> Result<Response<v1::MetaResponse>, Status> {
        assert!(request.into_inner().local_only, "the other nodes are asked by who was asked");
        let mut meta: HashMap<String, v1::MetaInfo> = HashMap::new();
        for envelope in &self.shared.lock().stored {
            meta.entry(envelope.source_id.clone()).or_default().count += 1;
        }
        Ok(Response::new(v1::MetaResponse { meta }))
    }
}

impl Original {
    fn serve(&self, addr: SocketAddr) -> DropGuard {
        let (tracker, stop) = (TaskTracker::new(), CancellationToken::new());
        let incoming = bind("test.original", addr).unwrap().incoming(Security::Plain, &tracker, stop.clone());
        let server = server_builder(&GrpcLimits::default())
            .add_service(IngressServer::new(self.clone()))
            .add_service(EgressServer::new(self.clone()));
        let stopped = stop.clone();
        tracker.spawn(async move { server.serve_with_incoming_shutdown(incoming, stopped.cancelled()).await });
        stop.drop_guard()
    }

    async fn stored(&self, count: usize) -> Vec<Envelope> {
        loop {
            let stored = self.shared.lock().stored.clone();
            if stored.len() >= count {
                return stored;
            }
            tokio::task::yield_now().await;
        }
    }
}

#[tokio::test]
async fn beside_an_original_node_envelopes_and_reads_go_both_ways() {
    let (list, original) = (free::<2>(), Original::default());
    let _served = original.serve(list[1]);
    let here = Node::start(&list, 0, |_| {}).await;
    let (own, there) = (source(0, 2), source(1, 2));

    // From us to it: in its batches, at its place.
    here.send(lines(&there, 250).into_iter().chain(lines(&own, 5))).await;
    assert_eq!(original.stored(250).await, lines(&there, 250));
    assert!(original.shared.lock().batches.iter().all(|batch| *batch <= 100));
    assert_eq!(here.read(&there, 250).await, lines(&there, 250));
    let (all, _) = here.meta(false).await;
    assert_eq!((all[&there].count, all[&own].count), (250, 5));
    let request = v1::ReadRequest { source_id: there.clone(), limit: 1001, ..v1::ReadRequest::default() };
    let error = EgressClient::new(here.channel()).read(request).await.unwrap_err();
    assert_eq!((error.code(), error.message()), (Code::Unknown, "limit (1001) must be 1000 or less"));

    // From it to us: what it sends stays here, and what it asks of us is what we own.
    send(here.channel(), lines("sent-by-it", 2), true).await;
    assert_eq!(here.meta(true).await.0["sent-by-it"].count, 2);
    assert_eq!(read(here.channel(), &own).await.unwrap().0, lines(&own, 5));
    here.stop().await;
}

#[tokio::test]
async fn a_batch_that_is_refused_for_good_costs_itself_and_one_that_is_not_comes_again() {
    let (list, original) = (free::<2>(), Original::default());
    let _served = original.serve(list[1]);
    let there = source(1, 2);
    let here = Node::start(&list, 0, |_| {}).await;
    original.shared.lock().refusals.push(Code::InvalidArgument);
    here.send(lines(&there, 3)).await;
    here.until("hydrant_dropped_envelopes_total{stage=\"cache_peers\",reason=\"rejected_permanent\"}", |lost| {
        lost == 3
    })
    .await;

    original.shared.lock().refusals.extend([Code::Internal, Code::Unavailable]);
    here.send(lines(&there, 4)).await;
    assert_eq!(original.stored(4).await, lines(&there, 4));
    assert_eq!(here.number("hydrant_link_requeued_total{link=\"cache_peers\"}"), 8);

    original.shared.lock().refusals.extend([Code::Internal; 5]);
    here.send(lines(&there, 2)).await;
    here.until("hydrant_dropped_envelopes_total{stage=\"cache_peers\",reason=\"retry_exhausted\"}", |lost| lost == 2)
        .await;
    here.stop().await;
}
