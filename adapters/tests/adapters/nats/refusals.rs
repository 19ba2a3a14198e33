//! Streams and servers that do not take what they are sent: each has its state and its text, and costs only what it must.

use std::path::Path;

use proto::v2;
use serde_json::{Value, json};
use transport::TestCerts;

use super::server::NatsServer;
use super::{delivered, drain_state, rig};
use crate::drains::until;
use crate::support::{Rig, check_laws, lines};

async fn trouble(rig: &Rig, state: &str) -> String {
    let drain = until(rig.adapters.addrs().admin, "test", drain_state(state)).await;
    drain["last_error"]["text"].as_str().unwrap().to_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_password_is_told() {
    let mut server = NatsServer::start("authorization { user: app, password: \"right\" }").await;
    server.login = "app:canary@".to_owned();
    let rig = rig(&server, "", |_| {}).await;
    rig.send(&lines(0..10)).await;
    // It connects before there is anything to send.
    until(rig.adapters.addrs().admin, "test", |drain| drain["received"] == 10).await;
    let text = trouble(&rig, "broken").await;
    assert!(text.contains("does not let us in") && !text.contains("canary"), "{text}");
    assert!(text.starts_with(&server.addr.to_string()), "{text}");
    let (drained, telemetry) = rig.shutdown().await;
    assert_eq!(drained.dropped, 10, "it had three more attempts");
    check_laws(&telemetry);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_login_with_a_key_is_taken() {
    use transport::nats::nkeys::KeyPair;
    let key = KeyPair::new_user();
    let server = NatsServer::start(&format!("authorization {{ users: [{{ nkey: {} }}] }}", key.public_key())).await;
    let dir = tempfile::tempdir().unwrap();
    let seed = dir.path().join("seed");
    std::fs::write(&seed, key.seed().unwrap()).unwrap();
    let rig = rig(&server, "", |config| config.drains[0].nats.nkey_file = Some(seed)).await;
    rig.send(&lines(0..10)).await;
    delivered(&rig, 10).await;
    let (_, telemetry) = rig.shutdown().await;
    check_laws(&telemetry);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_missing_stream_is_not_made_unless_wanted_and_found_once_it_is_there() {
    let server = NatsServer::start("").await;
    let rig = rig(&server, "", |config| config.drains[0].nats.create = false).await;
    rig.send(&lines(0..10)).await;
    let text = trouble(&rig, "broken").await;
    assert!(text.contains("the stream LOGS is missing; make it, or set nats.create = true"), "{text}");
    let other = json!({ "name": "LOGS", "subjects": ["hydrant.log.*.*"] }).to_string();
    server.judge(&["stream", &other], "").await;
    until(rig.adapters.addrs().admin, "test", |drain| {
        drain["last_error"]["text"].as_str().unwrap().contains(
            "takes the subjects hydrant.log.*.*, and this drain publishes to hydrant.counter.*.*; add hydrant.> to the stream's subjects",
        )
    })
    .await;
    server.judge(&["delete", "LOGS"], "").await;
    server.judge(&["stream", &json!({ "name": "LOGS", "subjects": ["hydrant.*.*.*"] }).to_string()], "").await;
    delivered(&rig, 10).await;
    // A stream that goes while it is in use comes back, where that is wanted, or is asked for.
    server.judge(&["delete", "LOGS"], "").await;
    rig.send(&lines(10..20)).await;
    until(rig.adapters.addrs().admin, "test", drain_state("broken")).await;
    server.judge(&["stream", &json!({ "name": "LOGS", "subjects": ["hydrant.>"] }).to_string()], "").await;
    delivered(&rig, 20).await;
    assert_eq!(server.numbers("LOGS").await, (10..20).collect::<Vec<_>>());
    let (_, telemetry) = rig.shutdown().await;
    check_laws(&telemetry);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_stream_that_discards_the_new_is_waited_for() {
    let server = NatsServer::start("").await;
    let rig = rig(&server, "", |config| {
        config.drains[0].nats.max_bytes = std::num::NonZeroU64::new(1 << 20).unwrap();
        config.drains[0].nats.discard = hydrant_adapters::Discard::New;
    })
    .await;
    const ALL: u64 = 4000;
    let large = |i: u64| v2::Envelope::log("app", format!("{} line {i}", "x".repeat(500))).at(i as i64);
    for start in (0..ALL).step_by(100) {
        rig.send(&(start..start + 100).map(large).collect::<Vec<_>>()).await;
    }
    let text = trouble(&rig, "degraded").await;
    assert!(text.contains("the stream does not take the message: maximum bytes exceeded"), "{text}");
    let admin = rig.adapters.addrs().admin;
    let (mut got, mut purges) = (Vec::new(), 0);
    loop {
        // It is full, or has everything.
        let drain = until(admin, "test", |drain| drain["state"] != "ok" || drain["delivered"] == ALL).await;
        got.extend(server.numbers("LOGS").await);
        let done = drain["delivered"] == ALL;
        server.judge(&["purge", "LOGS"], "").await;
        purges += 1;
        if done {
            break;
        }
        until(admin, "test", |drain| drain["state"] == "ok").await;
    }
    let unique: std::collections::BTreeSet<_> = got.iter().copied().collect();
    let dropped = rig.number("hydrant_dropped_envelopes_total{stage=\"drain\",reason=\"queue_full\"}");
    println!(
        "{{\"id\":\"NATS-FULL\",\"issued\":{ALL},\"unique\":{},\"duplicates\":{},\"queue_full\":{dropped},\"purges\":{purges}}}",
        unique.len(),
        got.len() - unique.len()
    );
    assert_eq!(unique.len() as u64 + dropped, ALL, "every line is accounted for");
    assert!(purges > 1, "it was full");
    let (_, telemetry) = rig.shutdown().await;
    check_laws(&telemetry);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_envelope_that_is_too_large_costs_itself() {
    let server = NatsServer::start("max_payload: 65536").await;
    let limited = json!({ "name": "LOGS", "subjects": ["hydrant.>"], "max_msg_size": 30_000 });
    server.judge(&["stream", &limited.to_string()], "").await;
    let rig = rig(&server, "", |config| config.drains[0].sources = vec!["app".to_owned()]).await;
    let of = |size: usize| v2::Envelope::log("app", "x".repeat(size));
    let mut all = lines(0..3);
    // More than the server takes, and more than the stream does.
    all.insert(1, of(65_500));
    all.insert(3, of(40_000));
    rig.send(&all).await;
    let drain = delivered(&rig, 3).await;
    assert_eq!((&drain["dropped"], &drain["state"]), (&json!({ "oversize": 2 }), &json!("ok")), "{drain}");
    assert_eq!(rig.number("hydrant_drain_connects_total"), 1, "the connection stays");
    let mut rig = rig;
    let notice = rig.notices.recv().await.unwrap();
    assert!(String::from_utf8_lossy(notice.payload()).contains("(oversize "), "its owner is told");
    let (_, telemetry) = rig.shutdown().await;
    assert_eq!(server.numbers("LOGS").await, [0, 1, 2]);
    let n = |series: &str| crate::support::number(&telemetry, series);
    assert_eq!(n("hydrant_link_sent_total{link=\"drain\"}"), 4);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_user_who_may_not_publish_is_told_so() {
    let mut server = NatsServer::start(
        "authorization { users: [
            { user: all, password: p },
            { user: some, password: p, permissions: { publish: [\"$JS.API.>\"], subscribe: \"_INBOX.>\" } } ] }",
    )
    .await;
    server.login = "some:p@".to_owned();
    let rig = rig(&server, "", |_| {}).await;
    rig.send(&lines(0..10)).await;
    let text = trouble(&rig, "broken").await;
    assert!(text.contains("Permissions Violation for Publish") && text.contains("user's permissions"), "{text}");
    rig.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_without_jetstream_is_told_of() {
    let server = NatsServer::without_jetstream().await;
    let rig = rig(&server, "", |_| {}).await;
    let text = trouble(&rig, "degraded").await;
    assert!(text.contains("start it with nats-server -js"), "{text}");
    rig.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn tls_is_that_of_the_drain() {
    let certs = TestCerts::new();
    let files = certs.files("nats.test");
    let quoted = |path: &Path| format!("{:?}", path.display().to_string());
    let server = NatsServer::start(&format!(
        "tls {{ cert_file: {}, key_file: {}, ca_file: {}, verify: true }}",
        quoted(&files.cert),
        quoted(&files.key),
        quoted(&files.ca)
    ))
    .await;
    let client = certs.files("client.test");
    let with = |scheme: &str, tls: Value| {
        let mut drain = json!({ "name": "test", "url": format!("{scheme}://{}/LOGS", server.addr) });
        if !tls.is_null() {
            drain["tls"] = tls;
        }
        serde_json::from_value(drain).unwrap()
    };
    let whole = json!({ "ca": files.ca, "cert": client.cert, "key": client.key, "server_name": "nats.test" });
    let mut misnamed = whole.clone();
    misnamed["server_name"] = json!("other.test");
    let mut shy = whole.clone();
    shy.as_object_mut().unwrap().retain(|key, _| key == "ca" || key == "server_name");
    for (scheme, tls, text) in [
        ("nats", Value::Null, "takes connections over TLS only; write nats-tls://"),
        ("nats-tls", misnamed, "the server's certificate is not for other.test, but for nats.test"),
        ("nats-tls", shy, "wants to see a certificate, and none is configured"),
    ] {
        let rig = rig(&server, "", |config| config.drains[0] = with(scheme, tls)).await;
        let error = trouble(&rig, "broken").await;
        assert!(error.contains(text), "{scheme}: {error}");
        rig.shutdown().await;
    }
    let rig = rig(&server, "", |config| config.drains[0] = with("nats-tls", whole)).await;
    rig.send(&lines(0..100)).await;
    delivered(&rig, 100).await;
    let (_, telemetry) = rig.shutdown().await;
    check_laws(&telemetry);
}
