//! Through the relay, which loses nothing.

use std::num::NonZeroUsize;
use std::time::Duration;

use hydrant_loadtest::relay::Config;
use hydrant_loadtest::run::{Peer, RunError, Watched};
use hydrant_loadtest::{Plan, Target, run};
use proto::v2;
use proto::v2::egress_client::EgressClient;
use tokio_util::sync::CancellationToken;
use transport::{ChannelOptions, Handle, Identity, TestCerts, TlsFiles};

use crate::{plan, rate, some};

type Relay = Handle<std::net::SocketAddr, (), tonic::transport::Error>;

fn relay(outputs: usize, tls: Option<TlsFiles>) -> Relay {
    let listen = (std::net::Ipv4Addr::LOCALHOST, 0).into();
    let outputs = NonZeroUsize::new(outputs).expect("a test's number");
    let server = Config { listen, tls, outputs }.bind().expect("any free port");
    Handle::spawn(server.addr(), |stop: CancellationToken| server.serve(stop))
}

fn target(relay: &Relay, options: ChannelOptions) -> Target {
    let peer = Peer { address: relay.addrs().into(), options };
    Target { ingress: peer.clone(), egress: peer, socket: None }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_envelope_reaches_every_subscriber_once_and_in_order() {
    transport::install_crypto_provider();
    let certs = TestCerts::new();
    let relay = relay(3, Some(certs.files("doppler")));
    let options = ChannelOptions::tls(Identity::load(&certs.files("loadtest")).unwrap(), "doppler");
    let plan = Plan { senders: some(5), sources: some(2), groups: some(3), ..plan(20_000) };
    let own = Watched { name: "relay".into(), pid: std::process::id(), admin: None, before_groups: |_| true };

    let found = run("relay", &plan, &target(&relay, options), &[own]).await.unwrap();

    assert!(found.is_exact(), "{found:?}");
    assert_eq!((found.issued, found.residual, found.missing()), (20_000, 0, 0));
    assert_eq!(found.groups.len(), 3);
    for group in &found.groups {
        let account = group.account;
        assert_eq!((account.issued, account.received, account.unique), (20_000, 20_000, 20_000));
        assert_eq!((account.duplicates, account.reorders, account.invented, account.corrupt), (0, 0, 0, 0));
        assert_eq!((group.batches, account.foreign), (200, 0), "batches arrive as they were sent");
        assert!(group.latency.p50_ms > 0.0 && group.latency.max_ms >= group.latency.p999_ms);
    }
    assert!(found.per_second > 0.0 && found.errors.is_empty());
    relay.shutdown().await.unwrap();
}

#[tokio::test]
async fn a_schedule_is_sent_whole_and_latency_counts_from_it() {
    let relay = relay(1, None);
    let plan = Plan { rate: rate(50_000), batch: some(10), ..plan(5_001) };
    let found = run("relay", &plan, &target(&relay, ChannelOptions::default()), &[]).await.unwrap();
    assert_eq!((found.issued, found.missing(), found.residual), (5_001, 0, 0));
    assert!(found.seconds >= 0.09, "{} s: faster than its schedule", found.seconds);
    assert!(found.latency().max_ms + 0.01 >= found.behind_ms, "what left late arrived late: {found:?}");
    relay.shutdown().await.unwrap();
}

#[tokio::test]
async fn a_stopped_relay_ends_its_streams() {
    let relay = relay(1, None);
    let channel = transport::channel(&relay.addrs().into(), &ChannelOptions::default());
    let mut client = EgressClient::new(channel);
    let mut stream = client.batched_receiver(v2::EgressBatchRequest::default()).await.unwrap().into_inner();
    relay.stop();
    assert_eq!(stream.message().await.unwrap(), None, "ended with OK");
    relay.shutdown().await.unwrap();
}

#[tokio::test]
async fn a_path_that_stays_shut_is_told() {
    // The second output never comes, so nothing flows.
    let relay = relay(2, None);
    let plan = Plan { open: Duration::from_millis(100), ..plan(10) };
    let error = run("relay", &plan, &target(&relay, ChannelOptions::default()), &[]).await.unwrap_err();
    let addr = relay.addrs();
    let text = format!("no way from {addr} to {addr}: within 100ms nothing from sender 0 reached group 0");
    assert_eq!(error.to_string(), text);
    relay.shutdown().await.unwrap();
}

#[tokio::test]
async fn one_run_after_another_finds_the_relay_as_before() {
    let relay = relay(1, None);
    for _ in 0..2 {
        let found = run("relay", &plan(1_000), &target(&relay, ChannelOptions::default()), &[]).await.unwrap();
        assert_eq!((found.issued, found.missing()), (1_000, 0));
    }
    relay.shutdown().await.unwrap();
}

#[tokio::test]
async fn a_refused_subscription_is_told() {
    let relay = relay(1, None);
    let plan = Plan { groups: some(2), ..plan(10) };
    let error = run("relay", &plan, &target(&relay, ChannelOptions::default()), &[]).await.unwrap_err();
    assert!(matches!(error, RunError::Subscribe { .. }), "{error:?}");
    assert!(error.to_string().contains("the relay has its 1 outputs"), "{error}");
    relay.shutdown().await.unwrap();
}

#[tokio::test]
async fn a_server_that_is_not_there_is_named() {
    let relay = relay(1, None);
    let target = target(&relay, ChannelOptions::default());
    let addr = relay.addrs();
    relay.shutdown().await.unwrap();
    let error = run("relay", &plan(10), &target, &[]).await.unwrap_err();
    assert!(error.to_string().starts_with(&format!("connecting to {addr}: ")), "{error}");
}
