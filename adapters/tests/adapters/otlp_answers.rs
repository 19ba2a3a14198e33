//! What a collector's answers mean for a drain to it, and what happens while it is away.

use std::collections::BTreeSet;
use std::time::Duration;

use hydrant_adapters::Buffer;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio::time::{Instant, MissedTickBehavior};

use crate::drains::until;
use crate::otlp::{Collector, log, records, rig, rig_with};
use crate::support::{check_laws, number};

#[tokio::test(flavor = "multi_thread")]
async fn what_is_sent_again_is_delivered_once_it_is_taken() {
    let grpc = ["status:14", "status:4", "status:8/0.7", "status:14/0.7"];
    let http = ["503", "429/1", "502", "504"];
    for (transport, answers, waits) in [("grpc", grpc, [0.0, 0.0, 0.7, 0.7]), ("http", http, [0.0, 1.0, 0.0, 0.0])] {
        let mut collector = Collector::start(transport, &answers).await;
        let rig = rig(&format!("otlp+{transport}"), collector.port, "").await;
        rig.send(&[log("again")]).await;
        let mut before = collector.next().await;
        for wait in waits {
            let next = collector.next().await;
            let between = next["at"].as_f64().unwrap() - before["at"].as_f64().unwrap();
            assert!(between >= wait, "{between} s after {}", before["answer"]);
            assert_eq!(next["message"], before["message"], "the same once more");
            before = next;
        }
        let shown = until(rig.adapters.addrs().admin, "test", |drain| drain["delivered"] == 1).await;
        assert_eq!((&shown["state"], &shown["dropped"]), (&json!("ok"), &json!({})));
        let (_, telemetry) = rig.shutdown().await;
        check_laws(&telemetry);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_refused_for_good_is_counted_and_told_without_a_secret() {
    let grpc = [
        ("status:3", "degraded", "INVALID_ARGUMENT (3): no, <REDACTED>"),
        ("status:8", "degraded", "RESOURCE_EXHAUSTED (8): no, <REDACTED>; if the request is too large"),
        ("status:12", "broken", "UNIMPLEMENTED (12): no, <REDACTED>; is that the collector's port"),
        ("status:16", "broken", "UNAUTHENTICATED (16): no, <REDACTED>; look at token"),
    ];
    let http = [
        ("400", "degraded", "400 Bad Request: no, <REDACTED>"),
        ("401", "broken", "401 Unauthorized: no, <REDACTED>; look at token"),
        ("404", "broken", "404 Not Found: no, <REDACTED>; is that the collector's port"),
        ("413", "degraded", "413 Payload Too Large: no, <REDACTED>; set otlp.max_bytes"),
        ("500", "degraded", "500 Internal Server Error: no, <REDACTED>"),
    ];
    for (transport, all) in [("grpc", &grpc[..]), ("http", &http[..])] {
        for (answer, state, text) in all {
            let collector = Collector::start(transport, &[answer]).await;
            let more = "otlp.headers = { x-canary = \"canary-1234\" }";
            let rig = rig(&format!("otlp+{transport}"), collector.port, more).await;
            let admin = rig.adapters.addrs().admin;
            rig.send(&[log("refused"), log("too")]).await;
            let shown = until(admin, "test", |drain| drain["dropped"]["rejected_permanent"] == 2).await;
            assert_eq!(shown["state"], *state, "{answer}");
            assert!(shown["last_error"]["text"].as_str().unwrap().contains(text), "{answer}: {shown}");
            rig.send(&[log("taken")]).await;
            let shown = until(admin, "test", |drain| drain["delivered"] == 1).await;
            assert_eq!(shown["state"], "ok");
            assert!(!shown.to_string().contains("canary") && !rig.telemetry.render().contains("canary"));
            let (_, telemetry) = rig.shutdown().await;
            check_laws(&telemetry);
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_taken_in_part_is_not_sent_again() {
    for transport in ["grpc", "http"] {
        let answers = ["partial:2:too old, says canary-1234", "partial:0:do update"];
        let mut collector = Collector::start(transport, &answers).await;
        let more = "token = \"canary-1234\"";
        let rig = rig(&format!("otlp+{transport}"), collector.port, more).await;
        let admin = rig.adapters.addrs().admin;
        rig.send(&[log("1"), log("2"), log("3")]).await;
        let shown = until(admin, "test", |drain| drain["delivered"] == 1).await;
        assert_eq!((&shown["dropped"], &shown["state"]), (&json!({ "rejected_permanent": 2 }), &json!("ok")));
        let text = "the destination rejected 2 of a request, for good: too old, says <REDACTED>";
        assert_eq!(shown["last_error"]["text"], text);
        rig.send(&[log("4")]).await;
        let shown = until(admin, "test", |drain| drain["delivered"] == 2).await;
        assert_eq!(shown["last_error"]["text"], "the destination took everything and says: do update");
        assert_eq!(collector.next().await["headers"]["authorization"], "Bearer canary-1234");
        assert_eq!(records(&[collector.next().await], "logs").len(), 1, "the fourth alone");
        let (_, telemetry) = rig.shutdown().await;
        check_laws(&telemetry);
    }
}

/// A kill in the middle of a load: what was not answered goes to the next one, at least once.
#[expect(clippy::print_stdout, reason = "a fault test prints its ledger")]
async fn killed_and_back(id: &str, transport: &str, buffer: Buffer) {
    let dir = tempfile::tempdir().unwrap();
    let mut collector = Collector::start(transport, &[]).await;
    let port = collector.port;
    let rig = rig_with(&format!("otlp+{transport}"), port, "otlp.max_items = 50", |config| {
        config.drains[0].buffer = buffer;
        config.drains[0].disk.keep_free_percent = 0;
        config.state_dir = Some(dir.path().to_owned());
    })
    .await;
    let admin = rig.adapters.addrs().admin;
    let number_of = |(_, log): &(Value, Value)| log["body"]["stringValue"].as_str().unwrap().parse::<usize>().unwrap();
    let mut tick = tokio::time::interval(Duration::from_millis(10));
    tick.set_missed_tick_behavior(MissedTickBehavior::Burst);
    let (mut seen, mut duplicates, mut sent) = (BTreeSet::new(), 0, 0);
    // Ten logs in a tick: a second before the kill, one without a collector, one after it.
    for tenth in 0..30 {
        if tenth == 10 {
            collector.child.kill().await.unwrap();
        }
        if tenth == 20 {
            until(admin, "test", |drain| drain["state"] == "degraded").await;
        }
        for _ in 0..10 {
            tick.tick().await;
            rig.send(&(sent..sent + 10).map(|i| log(i.to_string())).collect::<Vec<_>>()).await;
            sent += 10;
        }
        if tenth == 19 {
            // What it had told of before it died.
            while let Some(line) = collector.told.next_line().await.unwrap() {
                // The last one may have been cut: then it was not answered either.
                let Ok(request) = serde_json::from_str::<Value>(&line) else { break };
                records(&[request], "logs")
                    .iter()
                    .for_each(|log| duplicates += usize::from(!seen.insert(number_of(log))));
            }
        }
        if tenth == 20 {
            collector = Collector::start_at(transport, port, ["-", "-", "-"], &[]).await;
        }
    }
    let back = Instant::now();
    while seen.len() < sent {
        let request = collector.next().await;
        records(&[request], "logs").iter().for_each(|log| duplicates += usize::from(!seen.insert(number_of(log))));
    }
    let caught_up = back.elapsed();
    println!(
        "{{\"id\":\"{id}\",\"transport\":\"{transport}\",\"outage_s\":1,\"rate\":1000,\"issued\":{sent},\"unique\":{},\"duplicates\":{duplicates},\
         \"residual\":{},\"caught_up_ms\":{}}}",
        seen.len(),
        sent - seen.len(),
        caught_up.as_millis()
    );
    assert!(duplicates <= 50, "at most one request comes twice: {duplicates}");
    until(admin, "test", |drain| drain["delivered"] == sent && drain["state"] == "ok").await;
    let (_, telemetry) = rig.shutdown().await;
    if buffer == Buffer::Memory {
        check_laws(&telemetry);
    }
    assert_eq!(number(&telemetry, "hydrant_dropped_envelopes_total{stage=\"drain\",reason=\"queue_full\"}"), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_collector_that_is_killed_and_back_gets_everything() {
    killed_and_back("OTLP-1", "grpc", Buffer::Memory).await;
    killed_and_back("OTLP-2", "http", Buffer::Memory).await;
    killed_and_back("OTLP-3", "grpc", Buffer::Disk).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn answers_without_end_or_sense_do_no_harm() {
    let mut collector = Collector::start("http", &["huge", "nonsense", "301"]).await;
    let rig = rig("otlp+http", collector.port, "").await;
    let admin = rig.adapters.addrs().admin;
    rig.send(&[log("1")]).await;
    until(admin, "test", |drain| drain["delivered"] == 1).await;
    rig.send(&[log("2")]).await;
    until(admin, "test", |drain| drain["delivered"] == 2).await;
    rig.send(&[log("3")]).await;
    let shown = until(admin, "test", |drain| drain["delivered"] == 3).await;
    let text = shown["last_error"]["text"].as_str().unwrap();
    assert!(text.contains("301 Moved Permanently") && text.contains("follows no redirect"), "{text}");
    for _ in 0..4 {
        assert_eq!(collector.next().await["path"], "/v1/logs");
    }
    let (_, telemetry) = rig.shutdown().await;
    check_laws(&telemetry);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_does_not_speak_the_protocol_is_told_apart() {
    let banner = b"SSH-2.0-OpenSSH_9.2 and more than a frame of HTTP/2 has in its head\r\n";
    let refusal = b"HTTP/1.1 400 Bad Request\r\nConnection: close\r\nContent-Length: 0\r\n\r\n";
    // A server of HTTP/2 that is none of gRPC: settings, then the headers `:status: 404` of the first stream, which end it.
    let mut other = vec![0, 0, 0, 4, 0, 0, 0, 0, 0];
    other.extend_from_slice(&[0, 0, 1, 1, 5, 0, 0, 0, 1, 0x8d]);
    for (scheme, answer, expected) in [
        ("otlp+grpc", &banner[..], "does not speak HTTP/2"),
        ("otlp+grpc", &refusal[..], "does not speak HTTP/2"),
        ("otlp+grpc", &other[..], "does not speak gRPC: it answers 404 Not Found"),
        ("otlp+http", &banner[..], "does not speak HTTP/1.1"),
    ] {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let rig = rig_with(scheme, port, "", |config| config.flush_timeout = Duration::from_millis(1)).await;
        rig.send(&[log("never")]).await;
        let serving = async {
            loop {
                let (mut stream, _) = listener.accept().await.unwrap();
                // All of a request's head: what comes before it would be answered to nothing.
                let mut read = 0;
                while read < 150 {
                    read += stream.read(&mut [0; 1024]).await.unwrap();
                }
                let _ = stream.write_all(answer).await;
                // Until they have understood it.
                let _ = stream.read_to_end(&mut Vec::new()).await;
            }
        };
        let admin = rig.adapters.addrs().admin;
        let shown = tokio::select! {
            shown = until(admin, "test", |drain| {
                drain["last_error"]["text"].as_str().is_some_and(|text| text.contains(expected))
            }) => shown,
            () = serving => unreachable!("it serves for ever"),
        };
        assert_eq!((&shown["state"], &shown["delivered"]), (&json!("broken"), &json!(0)));
        rig.adapters.shutdown().await.unwrap();
    }
}
