//! The three services, as clients see them.

use std::net::SocketAddr;

use log_cache::{Config, Metrics, Store, routes};
use prost::Message;
use proto::hydrant::v1 as hydrant;
use proto::hydrant::v1::follow_client::FollowClient;
use proto::logcache::v1;
use proto::logcache::v1::egress_client::EgressClient;
use proto::logcache::v1::ingress_client::IngressClient;
use proto::v2::{Envelope, EnvelopeBatch};
use telemetry::Telemetry;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tonic::Code;
use tonic::transport::Channel;
use transport::{ChannelOptions, GrpcLimits, Security, bind, channel, server_builder};

struct Cache {
    addr: SocketAddr,
    store: Store,
    telemetry: Telemetry,
    stop: CancellationToken,
    task: JoinHandle<Result<(), tonic::transport::Error>>,
}

impl Cache {
    fn start() -> Self {
        let telemetry = Telemetry::default();
        let store = Store::new(&Config::with_budget(256 << 20));
        let metrics = Metrics::register(&telemetry, &store);
        let listener = bind("test.cache", "127.0.0.1:0".parse().unwrap()).unwrap();
        let addr = listener.addr();
        let (tracker, stop) = (TaskTracker::new(), CancellationToken::new());
        let incoming = listener.incoming(Security::Plain, &tracker, stop.clone());
        let services = routes(&store, &metrics, &stop);
        let server = server_builder(&GrpcLimits::default())
            .add_service(services.ingress)
            .add_service(services.egress)
            .add_service(services.follow);
        let stopped = stop.clone();
        let task =
            tracker.spawn(async move { server.serve_with_incoming_shutdown(incoming, stopped.cancelled()).await });
        Self { addr, store, telemetry, stop, task }
    }

    fn channel(&self) -> Channel {
        channel(&self.addr.into(), &ChannelOptions::default())
    }

    async fn send(&self, envelopes: Vec<Envelope>) {
        let envelopes = EnvelopeBatch { batch: envelopes }.encode_to_vec().into();
        self.send_bytes(v1::SendRequest { envelopes, local_only: false }).await;
    }

    async fn send_bytes(&self, request: v1::SendRequest) {
        let mut ingress = IngressClient::new(self.channel()).max_encoding_message_size(60 << 20);
        ingress.send(request).await.unwrap();
    }

    async fn read(&self, request: v1::ReadRequest) -> Result<Vec<Envelope>, tonic::Status> {
        let mut egress = EgressClient::new(self.channel()).max_decoding_message_size(60 << 20);
        let response = egress.read(request).await?.into_inner();
        Ok(EnvelopeBatch::decode(response.envelopes.unwrap()).unwrap().batch)
    }
}

fn of(source_id: &str) -> v1::ReadRequest {
    v1::ReadRequest { source_id: source_id.to_owned(), ..v1::ReadRequest::default() }
}

#[tokio::test]
async fn what_is_sent_is_read_and_summed_up() {
    let cache = Cache::start();
    cache
        .send(vec![Envelope::log("a", "1").at(1), Envelope::counter("b", "c", 5).at(7), Envelope::log("a", "2").at(9)])
        .await;
    let read = cache.read(of("a")).await.unwrap();
    assert_eq!(read, [Envelope::log("a", "1").at(1), Envelope::log("a", "2").at(9)]);
    let mut egress = EgressClient::new(cache.channel());
    let meta = egress.meta(v1::MetaRequest::default()).await.unwrap().into_inner().meta;
    let info = v1::MetaInfo { count: 2, oldest_timestamp: 1, newest_timestamp: 9, ..v1::MetaInfo::default() };
    assert_eq!((meta.len(), &meta["a"]), (2, &info));
}

/// Clients of the original use `response.envelopes` without asking whether it is there.
#[tokio::test]
async fn an_empty_answer_still_has_its_batch() {
    let cache = Cache::start();
    let mut egress = EgressClient::new(cache.channel());
    let response = egress.read(of("nobody")).await.unwrap().into_inner();
    assert_eq!(response.encode_to_vec(), [0x0a, 0x00]);
}

#[tokio::test]
async fn bad_requests_end_unknown_with_the_known_text() {
    let cache = Cache::start();
    let error = cache.read(v1::ReadRequest { limit: 1001, ..of("a") }).await.unwrap_err();
    assert_eq!((error.code(), error.message()), (Code::Unknown, "limit (1001) must be 1000 or less"));
    let error = cache.read(v1::ReadRequest { start_time: 20, end_time: 10, ..of("a") }).await.unwrap_err();
    assert_eq!((error.code(), error.message()), (Code::Unknown, "StartTime (20) must be before EndTime (10)"));
    let error = cache.read(v1::ReadRequest { name_filter: "(".to_owned(), ..of("a") }).await.unwrap_err();
    assert_eq!(error.code(), Code::Unknown);
}

#[tokio::test]
async fn a_read_by_name_runs_beside_the_others() {
    let cache = Cache::start();
    cache.send(vec![Envelope::counter("a", "x", 1).at(1), Envelope::counter("a", "y", 1).at(2)]).await;
    let found = cache.read(v1::ReadRequest { name_filter: "y".to_owned(), ..of("a") }).await.unwrap();
    assert_eq!(found, [Envelope::counter("a", "y", 1).at(2)]);
}

#[tokio::test]
async fn what_is_broken_is_counted_and_the_rest_stored() {
    let cache = Cache::start();
    let mut bytes = EnvelopeBatch { batch: vec![Envelope::log("a", "good").at(1)] }.encode_to_vec();
    bytes.extend([0x0a, 4, 0x12, 2, 0xff, 0xfe]); // a source_id that is not UTF-8
    bytes.extend(EnvelopeBatch { batch: vec![Envelope::log("a", "good too").at(2)] }.encode_to_vec());
    bytes.extend([0x0a, 200]); // cut short
    cache.send_bytes(v1::SendRequest { envelopes: bytes.into(), local_only: true }).await;
    assert_eq!(cache.read(of("a")).await.unwrap().len(), 2);
    let text = cache.telemetry.render();
    for line in [
        "hydrant_received_envelopes_total{stage=\"cache\"} 4",
        "hydrant_dropped_envelopes_total{stage=\"cache\",reason=\"decode_error\"} 2",
        "hydrant_queue_accepted_total{queue=\"cache\"} 2",
        "hydrant_queue_depth_envelopes{queue=\"cache\"} 2",
        "hydrant_cache_sources 1",
        "log_cache_ingress 2",
        "log_cache_egress 2",
    ] {
        assert!(text.contains(line), "{line} is missing from\n{text}");
    }
}

#[tokio::test]
async fn messages_of_tens_of_megabytes_are_taken_and_an_answer_over_fifty_is_refused() {
    let cache = Cache::start();
    for half in 0..2_i64 {
        let lines = (0..500).map(|i| Envelope::log("a", vec![b'x'; 60_000]).at(half * 500 + i)).collect();
        cache.send(lines).await;
    }
    let error = cache.read(v1::ReadRequest { limit: 1000, ..of("a") }).await.unwrap_err();
    assert_eq!(error.code(), Code::ResourceExhausted);
    assert_eq!(cache.read(v1::ReadRequest { limit: 800, ..of("a") }).await.unwrap().len(), 800);
}

#[tokio::test]
async fn following_sends_history_the_mark_and_what_comes() {
    let cache = Cache::start();
    cache.send(vec![Envelope::log("a", "old").at(1)]).await;
    let request = hydrant::FollowRequest { source_ids: vec!["a".to_owned(), "b".to_owned()], ..Default::default() };
    let mut stream = FollowClient::new(cache.channel()).follow(request).await.unwrap().into_inner();
    let frame = stream.message().await.unwrap().unwrap();
    assert_eq!(EnvelopeBatch::decode(frame.batch).unwrap().batch, [Envelope::log("a", "old").at(1)]);
    assert_eq!(frame.cursor.unwrap().epoch, cache.store.epoch());
    assert!(stream.message().await.unwrap().unwrap().live);
    cache.send(vec![Envelope::log("b", "new").at(2)]).await;
    let frame = stream.message().await.unwrap().unwrap();
    assert_eq!(EnvelopeBatch::decode(frame.batch).unwrap().batch, [Envelope::log("b", "new").at(2)]);

    // A stop ends the stream in form, and the server with it.
    cache.stop.cancel();
    assert_eq!(stream.message().await.unwrap(), None);
    cache.task.await.unwrap().unwrap();
}

#[tokio::test]
async fn following_nothing_or_too_much_is_refused() {
    let cache = Cache::start();
    for count in [0, 65] {
        let source_ids = (0..count).map(|i| i.to_string()).collect();
        let request = hydrant::FollowRequest { source_ids, ..Default::default() };
        let error = FollowClient::new(cache.channel()).follow(request).await.unwrap_err();
        assert_eq!(error.code(), Code::InvalidArgument);
    }
}
