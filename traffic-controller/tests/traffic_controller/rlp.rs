//! The reverse log proxy over mutual TLS: what it takes, what it asks of dopplers, what it sends (contract: loggregator v2 §5.1, §6, §7,
//! §9.2).

use std::net::SocketAddr;
use std::num::NonZeroU32;

use prost::Message as _;
use proto::codec::Wire;
use proto::v2;
use proto::v2::egress_client::EgressClient;
use proto::v2::selector::Message;
use proto::v2::value::Data;
use telemetry::Telemetry;
use tonic::metadata::MetadataValue;
use tonic::transport::Channel;
use tonic::{Code, Status, Streaming};
use traffic_controller::{Config, Handle};
use transport::{ChannelOptions, TestCerts, channel};

use crate::doppler::{Doppler, Stream};

/// The same with mutual TLS, and the authority of its certificates.
fn secure(mut config: Config) -> (Config, TestCerts) {
    transport::install_crypto_provider();
    let certs = TestCerts::new();
    config.grpc.tls = Some(certs.files("reverselogproxy"));
    (config, certs)
}

/// A consumer with a certificate, which checks for the name that the contract gives.
fn known_client(addr: SocketAddr, certs: &TestCerts) -> EgressClient<Channel> {
    EgressClient::new(channel(&addr.into(), &ChannelOptions::tls(certs.identity("consumer"), "reverselogproxy")))
}

/// A consumer of the reverse log proxy at `addr`.
pub(crate) fn client(addr: SocketAddr) -> EgressClient<Channel> {
    EgressClient::new(channel(&addr.into(), &ChannelOptions::default()))
}

pub(crate) fn logs(source_id: &str) -> v2::Selector {
    v2::Selector { source_id: source_id.to_owned(), message: Some(Message::Log(v2::LogSelector {})) }
}

/// A request for logs of every source, with tags as new consumers want them.
pub(crate) fn all_logs() -> v2::EgressBatchRequest {
    v2::EgressBatchRequest { selectors: vec![logs("")], use_preferred_tags: true, ..Default::default() }
}

/// The envelopes of the next message.
pub(crate) async fn batch(stream: &mut Streaming<Wire>) -> Vec<v2::Envelope> {
    let Wire(bytes) = stream.message().await.expect("a good status").expect("not the end");
    v2::EnvelopeBatch::decode(bytes).expect("a batch").batch
}

/// The payloads of the next logs, until there are `count`.
pub(crate) async fn payloads(stream: &mut Streaming<Wire>, count: usize) -> Vec<String> {
    let mut payloads = Vec::new();
    while payloads.len() < count {
        payloads.extend(batch(stream).await.iter().map(|log| String::from_utf8_lossy(log.payload()).into_owned()));
    }
    payloads
}

async fn start(config: Config) -> Handle {
    config.bind(&Telemetry::default()).await.unwrap().spawn()
}

/// A traffic controller with a doppler, and a consumer with the stream that the doppler sees of it.
async fn consumer(request: v2::EgressBatchRequest) -> (Handle, Doppler, Stream, Streaming<Wire>) {
    let mut doppler = Doppler::start();
    let (config, certs) = secure(Config::for_test().dopplers([doppler.addr]));
    let controller = start(config).await;
    let received = known_client(controller.addrs().grpc, &certs).batched_receiver(request).await.unwrap().into_inner();
    let stream = doppler.stream().await;
    (controller, doppler, stream, received)
}

fn code_and_message(status: &Status) -> (Code, &str) {
    (status.code(), status.message())
}

#[tokio::test]
async fn requests_without_a_usable_selector_are_refused() {
    let (config, certs) = secure(Config::for_test());
    let controller = start(config).await;
    let mut client = known_client(controller.addrs().grpc, &certs);
    let empty = (Code::InvalidArgument, "Selectors cannot be empty");
    let bare = (Code::InvalidArgument, "Selectors must have a Message");
    let no_message = || v2::Selector { source_id: "a".to_owned(), message: None };

    let refused = client.batched_receiver(v2::EgressBatchRequest::default()).await.unwrap_err();
    assert_eq!(code_and_message(&refused), empty);
    let refused = client.receiver(v2::EgressRequest::default()).await.unwrap_err();
    assert_eq!(code_and_message(&refused), empty);

    let selectors = vec![logs("a"), no_message()];
    let request = v2::EgressBatchRequest { selectors: selectors.clone(), ..Default::default() };
    assert_eq!(code_and_message(&client.batched_receiver(request).await.unwrap_err()), bare);
    let request = v2::EgressRequest { selectors, ..Default::default() };
    assert_eq!(code_and_message(&client.receiver(request).await.unwrap_err()), bare);
    let request = v2::EgressBatchRequest { legacy_selector: Some(no_message()), ..Default::default() };
    assert_eq!(code_and_message(&client.batched_receiver(request).await.unwrap_err()), bare);
}

#[tokio::test]
async fn a_request_reaches_the_doppler_whole() {
    let request = v2::EgressBatchRequest {
        shard_id: "shard".to_owned(),
        legacy_selector: Some(logs("legacy")),
        selectors: vec![logs("a"), logs("b")],
        use_preferred_tags: true,
        deterministic_name: "me".to_owned(),
    };
    let (_controller, _doppler, stream, _received) = consumer(request.clone()).await;
    assert_eq!(stream.request, v2::EgressBatchRequest { legacy_selector: None, ..request });
}

#[tokio::test]
async fn a_legacy_selector_alone_is_the_selector() {
    let request = v2::EgressBatchRequest { legacy_selector: Some(logs("legacy")), ..Default::default() };
    let (_controller, _doppler, stream, mut received) = consumer(request).await;
    assert_eq!(stream.request.selectors, [logs("legacy")]);
    stream.send(&[v2::Envelope::log("legacy", "line")]).await;
    assert_eq!(payloads(&mut received, 1).await, ["line"]);
}

#[tokio::test]
async fn receiver_sends_envelopes_one_by_one_and_forwards_the_deterministic_name() {
    let mut doppler = Doppler::start();
    let (config, certs) = secure(Config::for_test().dopplers([doppler.addr]));
    let controller = start(config).await;
    let request = v2::EgressRequest {
        shard_id: "shard".to_owned(),
        selectors: vec![logs("")],
        use_preferred_tags: true,
        deterministic_name: "me".to_owned(),
        legacy_selector: None,
    };
    let mut received = known_client(controller.addrs().grpc, &certs).receiver(request).await.unwrap().into_inner();
    let stream = doppler.stream().await;
    assert_eq!((stream.request.shard_id.as_str(), stream.request.deterministic_name.as_str()), ("shard", "me"));
    let sent = [v2::Envelope::log("a", "1"), v2::Envelope::log("b", "2"), v2::Envelope::log("a", "3")];
    stream.send(&sent).await;
    for envelope in &sent {
        let Wire(bytes) = received.message().await.unwrap().unwrap();
        assert_eq!(v2::Envelope::decode(bytes).unwrap(), *envelope);
    }
}

#[tokio::test]
async fn envelopes_pass_byte_for_byte_with_unknown_fields() {
    let (_controller, _doppler, stream, mut received) = consumer(all_logs()).await;
    let mut envelope = v2::Envelope::log("a", "line").tag("k", "v").encode_to_vec();
    // Field 999, varint 7.
    envelope.extend([0xb8, 0x3e, 7]);
    let mut sent = Vec::new();
    proto::raw::wire::put_bytes(&mut sent, 1, &envelope);
    stream.send_bytes(&sent).await;
    let Wire(bytes) = received.message().await.unwrap().unwrap();
    assert_eq!(bytes, sent);
}

#[tokio::test]
async fn preferred_tags_are_all_in_tags_and_the_others_all_in_deprecated_tags() {
    let value = |data| v2::Value { data: Some(data) };
    let mut envelope = v2::Envelope::log("a", "line").tag("new", "1").tag("both", "tag");
    envelope.deprecated_tags.extend([
        ("both".to_owned(), value(Data::Text("old".to_owned()))),
        ("integer".to_owned(), value(Data::Integer(-5))),
        ("decimal".to_owned(), value(Data::Decimal(1.5))),
        ("nothing".to_owned(), v2::Value { data: None }),
    ]);

    let (_controller, _doppler, stream, mut received) = consumer(all_logs()).await;
    stream.send(std::slice::from_ref(&envelope)).await;
    let preferred = batch(&mut received).await.remove(0);
    let mut tags: Vec<_> = preferred.tags.iter().map(|(key, value)| (key.as_str(), value.as_str())).collect();
    tags.sort_unstable();
    assert_eq!(tags, [("both", "old"), ("decimal", "1.5"), ("integer", "-5"), ("new", "1")]);
    assert!(preferred.deprecated_tags.is_empty());

    let request = v2::EgressBatchRequest { use_preferred_tags: false, ..all_logs() };
    let (_controller, _doppler, stream, mut received) = consumer(request).await;
    stream.send(&[envelope]).await;
    let deprecated = batch(&mut received).await.remove(0);
    assert!(deprecated.tags.is_empty());
    assert_eq!(deprecated.deprecated_tags["new"], value(Data::Text("1".to_owned())));
    assert_eq!(deprecated.deprecated_tags["both"], value(Data::Text("tag".to_owned())));
    assert_eq!(deprecated.deprecated_tags["integer"], value(Data::Integer(-5)));
    assert_eq!(deprecated.deprecated_tags["decimal"], value(Data::Decimal(1.5)));
}

#[tokio::test]
async fn messages_hold_at_most_a_hundred_envelopes_and_a_mebibyte() {
    let (_controller, _doppler, stream, mut received) = consumer(all_logs()).await;
    let many: Vec<_> = (0..250).map(|i| v2::Envelope::log("a", i.to_string())).collect();
    stream.send(&many).await;
    let large: Vec<_> = (0..5).map(|_| v2::Envelope::log("a", vec![b'x'; 400_000])).collect();
    stream.send(&large).await;
    let mut sizes = Vec::new();
    let mut payloads = Vec::new();
    while payloads.len() < 255 {
        let batch = batch(&mut received).await;
        sizes.push(batch.len());
        payloads.extend(batch.into_iter().map(|envelope| envelope.payload().to_vec()));
    }
    assert_eq!(sizes, [100, 100, 50, 2, 2, 1]);
    let numbers: Vec<_> = (0..250).map(|i: usize| i.to_string().into_bytes()).collect();
    assert_eq!(payloads[..250], numbers);
}

#[tokio::test]
async fn streams_beyond_the_bound_are_refused_until_one_ends() {
    let (mut config, certs) = secure(Config::for_test());
    config.grpc.max_egress_streams = NonZeroU32::new(2).unwrap();
    let telemetry = Telemetry::default();
    let controller = config.bind(&telemetry).await.unwrap().spawn();
    let mut client = known_client(controller.addrs().grpc, &certs);
    let first = client.batched_receiver(all_logs()).await.unwrap();
    let single = v2::EgressRequest { selectors: vec![logs("")], ..Default::default() };
    let _second = client.receiver(single).await.unwrap();
    let refused = client.batched_receiver(all_logs()).await.unwrap_err();
    let text = "unable to create stream, max egress streams reached: 2";
    assert_eq!(code_and_message(&refused), (Code::ResourceExhausted, text));
    assert!(telemetry.render().contains("hydrant_rlp_rejected_streams_total 1"));
    assert!(telemetry.render().contains("hydrant_rlp_subscriptions 2"));

    drop(first);
    // The server learns of it through the connection: ask until it has.
    while let Err(refused) = client.batched_receiver(all_logs()).await {
        assert_eq!(refused.code(), Code::ResourceExhausted);
    }
}

#[tokio::test]
async fn a_consumer_that_goes_closes_its_streams_to_the_dopplers() {
    let (_controller, _doppler, stream, received) = consumer(all_logs()).await;
    drop(received);
    stream.closed().await;
}

#[tokio::test]
async fn a_consumer_that_does_not_read_loses_its_own_envelopes_and_holds_nobody_up() {
    let mut doppler = Doppler::start();
    let telemetry = Telemetry::default();
    let (mut config, certs) = secure(Config::for_test().dopplers([doppler.addr]));
    config.ring.envelopes = 100.try_into().unwrap();
    let controller = config.bind(&telemetry).await.unwrap();
    let (ledger, controller) = (controller.losses(), controller.spawn());
    let mut client = known_client(controller.addrs().grpc, &certs);
    let mut asking = tonic::Request::new(all_logs());
    asking.metadata_mut().insert(proto::loss::ASKED, MetadataValue::from_static("true"));
    let mut stalled = client.batched_receiver(asking).await.unwrap().into_inner();
    let to_stalled = doppler.stream().await;
    let mut reading = client.batched_receiver(all_logs()).await.unwrap().into_inner();
    let to_reading = doppler.stream().await;

    // More than the flow-control windows and the ring hold.
    for i in 0..1000 {
        to_stalled.send(&vec![v2::Envelope::log("loud", vec![b'x'; 1000]); 10]).await;
        to_reading.send(&[v2::Envelope::log("a", i.to_string())]).await;
        assert_eq!(payloads(&mut reading, 1).await, [i.to_string()]);
    }
    to_stalled.send(&[v2::Envelope::log("last", "last")]).await;
    let mut told = 0;
    loop {
        let envelopes = batch(&mut stalled).await;
        let markers = envelopes.iter().filter_map(|envelope| match &envelope.message {
            Some(v2::envelope::Message::Event(event)) if event.title == proto::loss::MARKER => Some(&envelope.tags),
            _ => None,
        });
        for tags in markers {
            assert_eq!((&*tags["stage"], &*tags["reason"]), ("traffic_controller", "queue_full"));
            told += tags["envelopes"].parse::<u64>().unwrap();
        }
        if envelopes.iter().any(|envelope| envelope.payload() == b"last") {
            break;
        }
    }
    let text = telemetry.render();
    let value = |series: &str| -> u64 {
        let line = text.lines().find_map(|line| line.strip_prefix(series)?.strip_prefix(' '));
        line.expect(series).parse().unwrap()
    };
    let dropped = value("hydrant_dropped_envelopes_total{stage=\"traffic_controller\",reason=\"queue_full\"}");
    assert!(dropped > 0);
    assert_eq!(told, dropped, "who loses is told, to the envelope");
    let losses = ledger.take();
    assert!(losses.iter().all(|(consumer, loss)| consumer == "#0" && loss.source_id == "loud"), "{losses:?}");
    assert_eq!(losses.iter().map(|(_, loss)| loss.envelopes).sum::<u64>(), dropped);
    assert!(ledger.take().is_empty());
    assert_eq!(value("hydrant_queue_evicted_total{queue=\"rlp\"}"), dropped);
    let delivered = value("hydrant_delivered_envelopes_total{stage=\"traffic_controller\"}");
    assert_eq!(value("hydrant_received_envelopes_total{stage=\"traffic_controller\"}"), delivered + dropped);
    assert_eq!(delivered + dropped, 1000 * 10 + 1000 + 1);
}
