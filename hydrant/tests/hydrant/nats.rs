//! A stream of NATS between two pipelines, or between a pipeline and itself: into it through a drain, out of it through an agent.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use hydrant::Up;
use prost::Message;
use proto::codec::Wire;
use proto::v2;
use serde_json::json;
use tonic::Streaming;

use self::server::NatsServer;
use crate::harness::{Process, Producer, logs, metrics, next, pipeline, subscribe, sum, until};

#[path = "../../../adapters/tests/adapters/nats/server.rs"]
#[allow(dead_code, reason = "shared with the tests of the adapters")]
mod server;

/// A pipeline whose logs go to the stream `LOGS`.
async fn writing(server: &NatsServer, more: &str) -> Up {
    let drain =
        format!("[[adapters.drains]]\nname = \"nats\"\nurl = \"nats://{}/LOGS?drain-data=logs\"\n", server.addr);
    let up = pipeline(&format!("{more}\n{drain}")).await;
    // Its subscription is there once a line has passed.
    let mut producer = Producer::connect(up.agent().grpc).await;
    let delivered = |page: &BTreeMap<String, f64>| sum(page, "hydrant_delivered_envelopes_total", "drain") > 0;
    while !delivered(&metrics(up.adapters().admin).await) {
        producer.send(vec![v2::Envelope::log("probe", "x")]).await;
        producer.settled().await;
    }
    up
}

fn lines(range: std::ops::Range<u64>) -> Vec<v2::Envelope> {
    range.map(|i| v2::Envelope::log("app", format!("line {i}")).at(i as i64).instance("0")).collect()
}

/// Sends lines to an agent, a hundred a frame, and awaits that they are in the stream.
async fn send(up: &Up, range: std::ops::Range<u64>) {
    let received = |page: &BTreeMap<String, f64>| sum(page, "hydrant_delivered_envelopes_total", "drain");
    let before = received(&metrics(up.adapters().admin).await);
    let mut producer = Producer::connect(up.agent().grpc).await;
    for start in range.clone().step_by(100) {
        producer.send(lines(start..range.end.min(start + 100))).await;
    }
    producer.settled().await;
    until(up.adapters().admin, |page| received(page) >= before + (range.end - range.start)).await;
}

/// The numbers of the next lines of `app`, until all of `wanted` were there; how often each came.
async fn read(stream: &mut Streaming<Wire>, wanted: std::ops::Range<u64>) -> BTreeMap<u64, u64> {
    let mut got = BTreeMap::new();
    while !wanted.clone().all(|number| got.contains_key(&number)) {
        for envelope in next(stream).await.expect("it goes on") {
            if envelope.source_id == "app" {
                assert_eq!(envelope.tags.get("nats_stream").map(String::as_str), Some("LOGS"), "{envelope:?}");
                let text = String::from_utf8(envelope.payload().to_vec()).unwrap();
                *got.entry(text.strip_prefix("line ").unwrap().parse().unwrap()).or_default() += 1;
            }
        }
    }
    got
}

/// An agent that sends to this doppler what `sources` have.
fn reading(doppler: SocketAddr, sources: &str) -> String {
    format!("agent.dopplers = [{{ addresses = [\"{doppler}\"] }}]\n{sources}")
}

fn source(server: &NatsServer, more: &str) -> String {
    format!("[[agent.nats]]\nurl = \"nats://{}/LOGS\"\nsources = [\"app\"]\n{more}\n", server.addr)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_is_replayed_from_its_start_from_a_number_and_from_a_time() {
    let server = NatsServer::start("").await;
    let writer = writing(&server, "").await;
    send(&writer, 0..500).await;
    let between = humantime::format_rfc3339_nanos(std::time::SystemTime::now()).to_string();
    send(&writer, 500..1000).await;
    let before = server.info("LOGS").await["messages"].as_u64().unwrap() - 1000;
    writer.shutdown().await.unwrap();
    for (name, from, wanted) in [
        ("all", "\"all\"".to_owned(), 0..1000),
        ("time", format!("\"{between}\""), 500..1000),
        ("number", format!("{}", before + 901), 900..1000),
    ] {
        let reader = pipeline("").await;
        let mut stream = subscribe(reader.doppler().grpc, &[logs()]).await;
        let config = reading(
            reader.doppler().grpc,
            &source(&server, &format!("from = {from}\nconsumer = \"{name}\"\nkinds = [\"log\"]")),
        );
        let agent = Process::start("agent", &config).await;
        let got = read(&mut stream, wanted.clone()).await;
        assert_eq!(got.keys().copied().collect::<Vec<_>>(), wanted.clone().collect::<Vec<_>>(), "{name}");
        let page = until(agent.addr("admin"), |page| {
            sum(page, "hydrant_nats_messages_total", "accepted") == wanted.end - wanted.start
        })
        .await;
        assert_eq!(sum(&page, "hydrant_nats_unacknowledged_messages", ""), 0, "{name}");
        assert_eq!(sum(&page, "hydrant_nats_connected_sources", ""), 1, "{name}");
        agent.terminate();
        assert!(agent.ended().await.success());
        // The consumer knows where it was: nothing comes again.
        let agent = Process::start("agent", &config).await;
        until(agent.addr("admin"), |page| sum(page, "hydrant_nats_connected_sources", "") == 1).await;
        agent.terminate();
        let page = metrics(reader.doppler().admin).await;
        assert_eq!(sum(&page, "hydrant_received_envelopes_total", "doppler"), wanted.end - wanted.start, "{name}");
        agent.ended().await;
        reader.shutdown().await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_agent_that_is_killed_amid_a_replay_loses_nothing() {
    const ALL: u64 = 20_000;
    let server = NatsServer::start("").await;
    let writer = writing(&server, "").await;
    for start in (0..ALL).step_by(2000) {
        send(&writer, start..start + 2000).await;
    }
    writer.shutdown().await.unwrap();
    let reader = pipeline("").await;
    let mut stream = subscribe(reader.doppler().grpc, &[logs()]).await;
    let config = reading(reader.doppler().grpc, &source(&server, "from = \"all\""));
    let reading = async {
        let begun = tokio::time::Instant::now();
        (read(&mut stream, 0..ALL).await, begun.elapsed())
    };
    let killing = async {
        let mut kills = 0;
        for share in [4, 2] {
            let agent = Process::start("agent", &config).await;
            until(reader.doppler().admin, |page| {
                sum(page, "hydrant_received_envelopes_total", "doppler") > ALL / share
            })
            .await;
            agent.kill().await;
            kills += 1;
        }
        (kills, Process::start("agent", &config).await)
    };
    let ((got, took), (kills, agent)) = tokio::join!(reading, killing);
    let repeats: u64 = got.values().map(|count| count - 1).sum();
    println!(
        "{{\"id\":\"NATS-REPLAY-KILL\",\"kills\":{kills},\"issued\":{ALL},\"unique\":{},\"duplicates\":{repeats},\"lost\":{},\"took_ms\":{}}}",
        got.len(),
        ALL - got.len() as u64,
        took.as_millis()
    );
    assert_eq!(got.len() as u64, ALL);
    assert!(repeats <= kills * 1000, "at most what was open: {repeats}");
    agent.terminate();
    agent.ended().await;
    reader.shutdown().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pipeline_that_reads_what_it_writes_does_not_go_round() {
    let server = NatsServer::start("").await;
    let up = writing(&server, "").await;
    send(&up, 0..100).await;
    let probes = server.info("LOGS").await["messages"].as_u64().unwrap() - 100;
    let mut stream = subscribe(up.doppler().grpc, &[logs()]).await;
    // Its own agent would do as well; a second one is started when the stream is there.
    let agent = Process::start("agent", &reading(up.doppler().grpc, &source(&server, "from = \"all\""))).await;
    read(&mut stream, 0..100).await;
    let page = until(up.adapters().admin, |page| sum(page, "hydrant_drain_filtered_envelopes_total", "") >= 100).await;
    assert_eq!(sum(&page, "hydrant_drain_filtered_envelopes_total", ""), 100, "each came out once, and went in once");
    send(&up, 100..200).await;
    until(up.adapters().admin, |page| sum(page, "hydrant_drain_filtered_envelopes_total", "") >= 200).await;
    assert_eq!(server.info("LOGS").await["messages"].as_u64().unwrap(), 200 + probes);
    let page = metrics(up.adapters().admin).await;
    assert_eq!(sum(&page, "hydrant_dropped_envelopes_total", ""), 0, "filtered, not lost");
    agent.terminate();
    agent.ended().await;
    up.shutdown().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn what_others_write_is_checked_and_arrives_byte_for_byte() {
    let server = NatsServer::start("").await;
    server.judge(&["stream", &json!({ "name": "LOGS", "subjects": ["hydrant.>"] }).to_string()], "").await;
    let mut odd = v2::Envelope::log("app", "line 7").at(7).instance("3").tag("zone", "z").encode_to_vec();
    // A field that hydrant does not know.
    odd.extend_from_slice(&[99 << 3 & 0x7f | 0x80 | 2, 6, 2, b'h', b'i']);
    let messages = [
        b"{\"json\": true}".to_vec(),
        odd.clone(),
        v2::Envelope::log("other", "x").encode_to_vec(),
        v2::Envelope::log("app", "line 8").tag("nats_stream", "LOGS").encode_to_vec(),
        Vec::from(*b"\xff"),
    ];
    let input: String = messages
        .iter()
        .map(|bytes| format!("{}\n", json!({ "subject": "hydrant.log.app.3", "payload": STANDARD.encode(bytes) })))
        .collect();
    server.judge(&["publish"], &input).await;
    let reader = pipeline("").await;
    let mut stream = subscribe(reader.doppler().grpc, &[logs()]).await;
    let config = reading(reader.doppler().grpc, &source(&server, "from = \"all\""));
    let agent = Process::start("agent", &config).await;
    let Wire(batch) = stream.message().await.unwrap().unwrap();
    let mut marked = odd.clone();
    proto::raw::edit::put_tag(&mut marked, b"nats_stream", b"LOGS");
    let got = proto::raw::Batch::index(batch).0;
    assert_eq!(got.envelope(&got.entries()[0]), marked);
    let outcome = |page: &BTreeMap<String, f64>, outcome: &str| sum(page, "hydrant_nats_messages_total", outcome);
    let page = until(agent.addr("admin"), |page| outcome(page, "refused") == 2 && outcome(page, "accepted") == 1).await;
    assert_eq!(
        outcome(&page, "filtered"),
        2,
        "of another source, whatever its subject says; and out of this stream before"
    );
    assert_eq!(sum(&page, "hydrant_dropped_envelopes_total", "decode_error"), 2);
    agent.terminate();
    assert!(agent.ended().await.success());
    reader.shutdown().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_waits_while_no_doppler_is_there() {
    const ALL: u64 = 5_000;
    let server = NatsServer::start("").await;
    let writer = writing(&server, "").await;
    send(&writer, 0..ALL).await;
    writer.shutdown().await.unwrap();
    let nobody: SocketAddr = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let config = format!(
        "agent.dopplers = [{{ addresses = [\"{nobody}\"] }}]\nagent.egress = {{ ring_envelopes = 500 }}\n{}",
        source(&server, "from = \"all\"")
    );
    let agent = Process::start("agent", &config).await;
    let admin = agent.addr("admin");
    let page = until(admin, |page| sum(page, "hydrant_nats_unacknowledged_messages", "") >= 250).await;
    assert!(sum(&page, "hydrant_nats_unacknowledged_messages", "") <= 500, "no more than its ring holds");
    let listen = [("HYDRANT_DOPPLER__GRPC__LISTEN", nobody.to_string())];
    let reader = Process::start_with("doppler", "", &listen).await;
    let received = |page: &BTreeMap<String, f64>| sum(page, "hydrant_received_envelopes_total", "doppler");
    let page = until(reader.addr("admin"), |page| received(page) >= ALL).await;
    assert_eq!(received(&page), ALL, "each once");
    let page = until(admin, |page| sum(page, "hydrant_nats_messages_total", "accepted") == ALL).await;
    assert_eq!(sum(&page, "hydrant_dropped_envelopes_total", ""), 0);
    assert_eq!(sum(&page, "hydrant_nats_messages_total", "again"), 0);
    agent.terminate();
    assert!(agent.ended().await.success());
    reader.terminate();
    reader.ended().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_that_is_made_anew_is_read_from_its_start() {
    let server = NatsServer::start("").await;
    let stream = json!({ "name": "LOGS", "subjects": ["hydrant.>"] }).to_string();
    let publish = async |range| {
        let messages = lines(range).into_iter().map(|line| STANDARD.encode(line.encode_to_vec()));
        let input: String = messages
            .map(|payload| format!("{}\n", json!({ "subject": "hydrant.log.app.0", "payload": payload })))
            .collect();
        server.judge(&["publish"], &input).await;
    };
    server.judge(&["stream", &stream], "").await;
    publish(0..10).await;
    let nobody: SocketAddr = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let config = format!("agent.dopplers = [{{ addresses = [\"{nobody}\"] }}]\n{}", source(&server, "from = \"all\""));
    let agent = Process::start("agent", &config).await;
    let admin = agent.addr("admin");
    let open = |page: &BTreeMap<String, f64>| sum(page, "hydrant_nats_unacknowledged_messages", "");
    until(admin, |page| open(page) == 10).await;
    // The same numbers mean other messages now.
    server.judge(&["delete", "LOGS"], "").await;
    server.judge(&["stream", &stream], "").await;
    publish(10..15).await;
    until(admin, |page| open(page) == 5).await;
    let listen = [("HYDRANT_DOPPLER__GRPC__LISTEN", nobody.to_string())];
    let reader = Process::start_with("doppler", "", &listen).await;
    let received = |page: &BTreeMap<String, f64>| sum(page, "hydrant_received_envelopes_total", "doppler");
    let page = until(reader.addr("admin"), |page| received(page) >= 15).await;
    assert_eq!(received(&page), 15, "old and new, each once");
    let page = until(admin, |page| open(page) == 0).await;
    assert_eq!(sum(&page, "hydrant_nats_messages_total", "accepted"), 5, "of the new stream");
    agent.terminate();
    assert!(agent.ended().await.success());
    reader.terminate();
    reader.ended().await;
}

/// Adapters that are killed while they write to a stream from their disk: nothing that was committed is lost, and the stream leaves out
/// what comes again.
#[tokio::test(flavor = "multi_thread")]
async fn adapters_that_are_killed_write_nothing_twice() {
    const LINES: u64 = 4_000;
    const KILLS: u64 = 6;
    let server = NatsServer::start("").await;
    let up = pipeline("").await;
    let state = tempfile::tempdir().unwrap();
    let config = format!(
        "adapters.state_dir = {:?}\nadapters.dopplers = [{{ addresses = [\"{}\"] }}]\n\
         [[adapters.drains]]\nname = \"d\"\nurl = \"nats://{}/LOGS\"\nsources = [\"app\"]\nbuffer = \"disk\"\ndisk.keep_free_percent = 0\n",
        state.path().display().to_string(),
        up.doppler().grpc,
        server.addr,
    );
    let mut producer = Producer::connect(up.agent().grpc).await;
    let committed = |page: &BTreeMap<String, f64>| sum(page, "hydrant_queue_accepted_total", "queue=\"drain_disk\"");
    let delivered = |page: &BTreeMap<String, f64>| sum(page, "hydrant_delivered_envelopes_total", "drain");
    let (mut durable, mut sent, mut repeats) = (BTreeSet::new(), 0_u64, 0);
    for kill in 0..KILLS {
        let adapters = Process::start("adapters", &config).await;
        let admin = adapters.addr("admin");
        // One line alone, until one is on disk: then the drain is subscribed.
        let before = committed(&metrics(admin).await);
        while committed(&metrics(admin).await) == before {
            producer.send(vec![v2::Envelope::log("app", "line 999999;")]).await;
            producer.settled().await;
        }
        let at_rest = |page: &BTreeMap<String, f64>| {
            sum(page, "hydrant_received_envelopes_total", "drain") == committed(page) - before
        };
        let first = committed(&until(admin, at_rest).await);
        for piece in (sent..sent + LINES).collect::<Vec<_>>().chunks(100) {
            let lines = piece.iter().map(|i| v2::Envelope::log("app", format!("line {i};")));
            producer.send(lines.collect()).await;
        }
        producer.settled().await;
        // It is killed when a part has arrived, of which its disk knows less.
        let page = until(admin, |page| delivered(page) > LINES * (kill + 1) / (KILLS + 2)).await;
        repeats += sum(&page, "hydrant_drain_repeats_total", "");
        let seen = committed(&metrics(admin).await) - first;
        adapters.kill().await;
        durable.extend(sent..sent + seen);
        sent += LINES;
    }
    let adapters = Process::start("adapters", &config).await;
    let admin = adapters.addr("admin");
    let empty = |page: &BTreeMap<String, f64>| sum(page, "hydrant_queue_depth_envelopes", "queue=\"drain_disk\"") == 0;
    let page = until(admin, empty).await;
    repeats += sum(&page, "hydrant_drain_repeats_total", "");
    adapters.terminate();
    assert!(adapters.ended().await.success());
    let stored: Vec<u64> = server.numbers("LOGS").await.into_iter().filter(|number| *number != 999_999).collect();
    let unique: BTreeSet<u64> = stored.iter().copied().collect();
    let missing = durable.difference(&unique).count();
    println!(
        "{{\"id\":\"NATS-KILL-ADAPTERS\",\"kills\":{KILLS},\"issued\":{sent},\"durable\":{},\"unique\":{},\"duplicates\":{},\"removed_by_the_stream\":{repeats},\"missing\":{missing}}}",
        durable.len(),
        unique.len(),
        stored.len() - unique.len()
    );
    assert_eq!(missing, 0, "committed and lost");
    assert_eq!(stored.len(), unique.len(), "twice in the stream");
    assert!(stored.is_sorted(), "in order");
    assert!(repeats > 0, "something was sent again");
    up.shutdown().await.unwrap();
}
