//! `hydrant log-cache`: what is brought to a node of its own is read over HTTP; a drain brings it every kind of envelope; who may read.

use std::net::SocketAddr;

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use prost::Message;
use proto::logcache::v1;
use proto::logcache::v1::egress_client::EgressClient;
use proto::logcache::v1::ingress_client::IngressClient;
use proto::v2::{Envelope, EnvelopeBatch, envelope};
use tonic::transport::Channel;
use transport::{Address, ChannelOptions, Identity, TlsFiles};

use crate::commands::run;
use crate::harness::{Process, Producer, channel, encode, get, pipeline, request, until};

async fn send(channel: Channel, envelopes: Vec<Envelope>) {
    let request = v1::SendRequest { envelopes: encode(envelopes), local_only: false };
    IngressClient::new(channel).send(request).await.unwrap();
}

/// The payloads of `/api/v1/read/my-app`.
async fn payloads(rest: SocketAddr) -> Vec<String> {
    let answer = get(rest, "/api/v1/read/my-app").await;
    assert_eq!(answer.status, 200, "{}", answer.body);
    let body: serde_json::Value = serde_json::from_str(&answer.body).unwrap();
    let text = |envelope: &serde_json::Value| {
        String::from_utf8(BASE64_STANDARD.decode(envelope["log"]["payload"].as_str().unwrap()).unwrap()).unwrap()
    };
    body["envelopes"]["batch"].as_array().unwrap().iter().map(text).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_is_ready_serves_and_stops() {
    let node = Process::start("log-cache", "").await;
    let (rest, admin) = (node.addr("rest"), node.addr("admin"));
    until(admin, |_| true).await;
    while get(admin, "/ready").await.status != 200 {}
    send(channel(node.addr("grpc")).await, vec![Envelope::log("my-app", "hello").at(1)]).await;
    assert_eq!(payloads(rest).await, ["hello"]);
    let meta = get(rest, "/api/v1/meta").await.body;
    let expected = r#"{"meta":{"my-app":{"count":"1","expired":"0","oldest_timestamp":"1","newest_timestamp":"1"}}}"#;
    assert_eq!(meta.trim_end(), expected);
    // Nobody is asked who they are, so web pages are kept away.
    assert_eq!(request(rest, "GET", "/api/v1/meta", &[("Host", "logs.example")]).await.status, 403);
    node.terminate();
    assert!(node.ended().await.success());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_drain_brings_every_kind_of_envelope() {
    let node = Process::start("log-cache", "").await;
    let drain = format!(
        "adapters.drains = [{{ name = \"cache\", url = \"syslog://{}?drain-data=all\", sources = [\"my-app\"] }}]\n",
        node.addr("syslog")
    );
    let up = pipeline(&drain).await;
    until(up.doppler().admin, |numbers| numbers["hydrant_subscriptions"] >= 1.0).await;
    // To the microsecond, as drains write it.
    let at =
        |i: i64, envelope: Envelope| envelope.at(1_712_345_678_901_234_000 + i * 1_000).instance("3").tag("a", "\"]\\");
    let mut counter = Envelope::counter("my-app", "requests", 3);
    if let Some(envelope::Message::Counter(counter)) = &mut counter.message {
        counter.total = 10;
    }
    let sent = vec![
        at(0, Envelope::log("my-app", "hello")),
        at(1, Envelope::log("my-app", "oops\nand more").err()),
        at(2, counter),
        at(3, Envelope::gauge("my-app", "heat", -0.5, "C")),
        at(4, Envelope::timer("my-app", "http", 1, -2)),
        at(5, Envelope::event("my-app", "Tide", "turns \"now\"")),
    ];
    let mut producer = Producer::connect(up.doppler().grpc).await;
    assert!(producer.send(sent.clone()).await);
    producer.settled().await;
    let received = |numbers: &std::collections::BTreeMap<String, f64>| {
        numbers["hydrant_delivered_envelopes_total{stage=\"log_cache_syslog\"}"] >= 6.0
    };
    until(node.addr("admin"), received).await;
    let request = v1::ReadRequest { source_id: "my-app".to_owned(), ..v1::ReadRequest::default() };
    let read = EgressClient::new(channel(node.addr("grpc")).await).read(request).await.unwrap().into_inner();
    assert_eq!(EnvelopeBatch::decode(read.envelopes.unwrap()).unwrap().batch, sent);
    up.shutdown().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn with_certificates_the_node_reads_from_itself_over_tls() {
    let dir = tempfile::tempdir().unwrap();
    let certs = dir.path().join("certs");
    let (said, errors, code) = run(&["certs", "init", "--dir", certs.to_str().unwrap()]).await;
    assert_eq!((errors.as_str(), code), ("", 0));
    let (_, lines) = said.split_once("[log_cache]\n").unwrap();
    let lines = lines.split("\nAnd for").next().unwrap().lines().filter(|line| !line.is_empty());
    let config: String = lines.map(|line| format!("log_cache.{line}\n")).collect();
    let node = Process::start("log-cache", &config).await;
    let file = |name: &str| certs.join(name);
    let files = TlsFiles { cert: file("agent.pem"), key: file("agent.key"), ca: file("ca.pem") };
    let options = ChannelOptions::tls(Identity::load(&files).unwrap(), "log-cache");
    let channel = transport::connect(&Address::from(node.addr("grpc")), &options).await.unwrap();
    send(channel, vec![Envelope::log("my-app", "hello").at(1)]).await;
    assert_eq!(payloads(node.addr("rest")).await, ["hello"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn with_an_authorizer_a_token_reads_what_it_may() {
    let dir = tempfile::tempdir().unwrap();
    let tokens = dir.path().join("tokens.toml");
    let digest = traffic_controller::token_sha256(b"let-me-in");
    std::fs::write(&tokens, format!("[[tokens]]\nname = \"me\"\nsha256 = \"{digest}\"\nsources = [\"my-app\"]\n"))
        .unwrap();
    let config =
        format!("traffic_controller.authorizer = \"tokens\"\ntraffic_controller.tokens = \"{}\"\n", tokens.display());
    let node = Process::start("log-cache", &config).await;
    send(
        channel(node.addr("grpc")).await,
        vec![Envelope::log("my-app", "hello").at(1), Envelope::log("other", "secret").at(1)],
    )
    .await;
    let rest = node.addr("rest");
    let ask = |path: &'static str, token: Option<&'static str>| {
        let headers: Vec<(&str, &str)> = token.map(|token| ("Authorization", token)).into_iter().collect();
        async move { request(rest, "GET", path, &[&[("Host", "logs.example")], &headers[..]].concat()).await }
    };
    let mine = ask("/api/v1/read/my-app", Some("Bearer let-me-in")).await;
    assert!(mine.status == 200 && mine.body.contains("aGVsbG8="), "{mine:?}");
    assert_eq!(ask("/api/v1/read/other", Some("Bearer let-me-in")).await.status, 404);
    assert_eq!(ask("/api/v1/read/my-app", None).await.status, 404);
    let meta = ask("/api/v1/meta", Some("Bearer let-me-in")).await.body;
    assert!(meta.contains("my-app") && !meta.contains("other"), "{meta}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_is_named_before_anything_starts() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("hydrant.toml");
    for (config, expected) in [
        (
            "log_cache.rest.listen = \"0.0.0.0:8083\"",
            "log_cache.rest.listen: 0.0.0.0:8083 can be reached from other machines",
        ),
        ("log_cache.grpc.listen = \"0.0.0.0:8080\"", "log_cache.grpc.listen: 0.0.0.0:8080 can be reached from outside"),
        ("log_cache.cache.enabled = false", "log_cache.cache.enabled: "),
        ("log_cache.cluster.placement = \"jump\"", "log_cache.cluster.nodes: 0 nodes;"),
        ("doppler.cache_cluster.nodes = [\"a:1\"]", "doppler.cache_cluster.nodes: with placement = \"arrival\""),
        ("doppler.cache_syslog.listen = \"0.0.0.0:1\"", "doppler.cache_syslog.listen: 0.0.0.0:1 can be reached"),
    ] {
        std::fs::write(&file, config).unwrap();
        let path = file.to_str().unwrap();
        let role = if config.starts_with("doppler") { "doppler" } else { "log-cache" };
        for command in [&["check-config", path][..], &[role, "--config", path]] {
            let (_, said, code) = run(command).await;
            assert!(code == 2 && said.contains(expected), "{command:?} with {config}: {code}, {said}");
        }
    }
    let (help, _, code) = run(&["log-cache", "--help"]).await;
    assert!(code == 0 && help.contains("Keep recent envelopes in a cache node of its own"), "{help}");
}

/// A node of the list that is away is named over HTTP too.
#[tokio::test(flavor = "multi_thread")]
async fn an_answer_that_lacks_a_nodes_envelopes_says_so_over_http() {
    let config =
        "log_cache.cluster = { placement = \"jump\", nodes = [\"127.0.0.1:1\", \"127.0.0.1:2\"], node_index = 1 }\n";
    let node = Process::start("log-cache", config).await;
    let mut names = (0..).map(|i| format!("app-{i}"));
    let away = names.find(|name| proto::jump::owner(name.as_bytes(), 2) == 0).unwrap();
    for path in [format!("/api/v1/read/{away}"), "/api/v1/meta".to_owned()] {
        let answer = get(node.addr("rest"), &path).await;
        assert_eq!(answer.status, 200, "{answer:?}");
        assert!(answer.head.to_ascii_lowercase().contains("x-hydrant-partial: 127.0.0.1:1"), "{}", answer.head);
    }
    node.terminate();
    assert!(node.ended().await.success());
}
