//! Consumers beside the agent, found by files as the original's are (contract: agents §3), and what becomes of those that are slow or away.

use std::path::Path;
use std::time::Duration;

use hydrant_agent::Config;
use hydrant_agent::forward::ForwardConfig;
use prost::Message as _;
use proto::v2;
use telemetry::Telemetry;
use tokio::net::TcpListener;
use tokio::sync::mpsc;
use tokio::time::timeout;
use tokio_util::task::TaskTracker;

use super::harness::{doppler, doppler_at};

const PATIENCE: Duration = Duration::from_secs(60);

fn write(dir: &Path, job: &str, text: &str) {
    let at = dir.join(job);
    std::fs::create_dir_all(&at).unwrap();
    // Whole at once, as whatever renders such files does it.
    std::fs::write(dir.join("new"), text).unwrap();
    std::fs::rename(dir.join("new"), at.join("ingress_port.yml")).unwrap();
}

fn found_in(dir: &Path) -> ForwardConfig {
    ForwardConfig {
        ports_glob: Some(format!("{}/*/ingress_port.yml", dir.display())),
        refresh_interval: Duration::from_millis(50),
        ..ForwardConfig::default()
    }
}

fn batch(count: std::ops::Range<usize>) -> bytes::Bytes {
    let batch = count.map(|i| v2::Envelope::log("app", i.to_string()).tag("own", "yes")).collect();
    v2::EnvelopeBatch { batch }.encode_to_vec().into()
}

async fn expect(received: &mut mpsc::Receiver<v2::Envelope>, count: std::ops::Range<usize>) {
    for i in count {
        let envelope = timeout(PATIENCE, received.recv()).await.unwrap_or_else(|_| panic!("{i} never came")).unwrap();
        assert_eq!((envelope.payload(), envelope.tags["deployment"].as_str()), (i.to_string().as_bytes(), "cf"));
    }
}

fn metric(telemetry: &Telemetry, series: &str) -> f64 {
    let page = telemetry.render();
    let value = page.lines().find_map(|line| line.strip_prefix(series)?.strip_prefix(' '));
    value.unwrap_or_else(|| panic!("{series} is missing from\n{page}")).parse().unwrap()
}

/// Looks until a metric is what is expected; for a minute at most.
async fn until(telemetry: &Telemetry, series: &str, done: impl Fn(f64) -> bool) {
    let mut look = tokio::time::interval(Duration::from_millis(5));
    for _ in 0..12_000 {
        look.tick().await;
        if done(metric(telemetry, series)) {
            return;
        }
    }
    panic!("{series} stays {}", metric(telemetry, series));
}

#[tokio::test]
async fn section_3_2_consumers_of_files_get_everything_tagged_and_files_are_followed() {
    let (tasks, telemetry, dir) = (TaskTracker::new(), Telemetry::default(), tempfile::tempdir().unwrap());
    let (router, mut at_router) = doppler(&tasks).await;
    let (first, mut at_first) = doppler(&tasks).await;
    let (second, mut at_second) = doppler(&tasks).await;
    write(dir.path(), "syslog", &format!("ingress: {}\n", first.port()));
    write(dir.path(), "bad", "ingress: [\n");
    write(dir.path(), "none", "protocol: loggregator\n");
    write(dir.path(), "otel", "ingress: 4317\nprotocol: otelcol\n");
    let mut config = Config { forward: found_in(dir.path()), ..Config::for_test(router) };
    config.tags.set.insert("deployment".to_owned(), "cf".to_owned());
    let agent = config.bind(&telemetry).await.unwrap();
    let (local, agent) = (agent.local(), agent.spawn());
    until(&telemetry, "hydrant_forward_destinations", |count| count == 1.0).await;
    assert_eq!(metric(&telemetry, "hydrant_forward_unserved_files"), 3.0);
    local.send(batch(0..100));
    expect(&mut at_first, 0..100).await;
    expect(&mut at_router, 0..100).await;

    write(dir.path(), "more", &format!("ingress: \"{}\"\n", second.port()));
    until(&telemetry, "hydrant_forward_destinations", |count| count == 2.0).await;
    local.send(batch(100..200));
    expect(&mut at_first, 100..200).await;
    expect(&mut at_second, 100..200).await;

    std::fs::remove_file(dir.path().join("syslog/ingress_port.yml")).unwrap();
    until(&telemetry, "hydrant_forward_destinations", |count| count == 1.0).await;
    local.send(batch(200..300));
    expect(&mut at_second, 200..300).await;
    expect(&mut at_router, 100..300).await;
    assert_eq!(agent.shutdown().await.unwrap().dropped, 0);
    assert!(at_first.try_recv().is_err(), "gone");
    for (series, expected) in [
        ("hydrant_forward_sent_envelopes_total", 400.0),
        ("hydrant_queue_offered_total{queue=\"forward\"}", 400.0),
        ("hydrant_queue_taken_total{queue=\"forward\"}", 400.0),
        ("hydrant_queue_evicted_total{queue=\"forward\"}", 0.0),
    ] {
        assert_eq!(metric(&telemetry, series), expected, "{series}");
    }
}

#[tokio::test]
async fn one_that_is_away_or_never_reads_loses_its_own_oldest_and_holds_up_nobody() {
    let (tasks, telemetry) = (TaskTracker::new(), Telemetry::default());
    let (router, mut at_router) = doppler(&tasks).await;
    let (well, mut at_well) = doppler(&tasks).await;
    let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let away = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    let forward = ForwardConfig {
        to: [well, silent.local_addr().unwrap(), away].map(Into::into).to_vec(),
        ring_envelopes: 1_000.try_into().unwrap(),
        ..ForwardConfig::default()
    };
    let mut config = Config { forward, flush_timeout: Duration::from_secs(2), ..Config::for_test(router) };
    config.tags.set.insert("deployment".to_owned(), "cf".to_owned());
    let agent = config.bind(&telemetry).await.unwrap();
    let (local, agent) = (agent.local(), agent.spawn());
    until(&telemetry, "hydrant_forward_destinations", |count| count == 3.0).await;
    for round in 0..30 {
        let range = round * 100..(round + 1) * 100;
        local.send(batch(range.clone()));
        expect(&mut at_router, range.clone()).await;
        expect(&mut at_well, range).await;
    }
    let series = |what: &str| format!("hydrant_queue_{what}{{queue=\"forward\"}}");
    assert_eq!(metric(&telemetry, &series("offered_total")), 9_000.0);
    let [taken, evicted, depth] =
        ["taken_total", "evicted_total", "depth_envelopes"].map(|what| metric(&telemetry, &series(what)));
    assert_eq!(taken + evicted + depth, 9_000.0);
    // Of the one that never reads, what a stream holds has left the ring.
    assert!((2_000.0..=4_000.0).contains(&evicted) && (1_000.0..=2_000.0).contains(&depth), "{evicted}, {depth}");

    // One comes back: it gets what has waited, the newest thousand.
    let (_, mut back) = doppler_at(away, &tasks).await;
    expect(&mut back, 2_000..3_000).await;
    local.send(batch(3_000..3_010));
    expect(&mut back, 3_000..3_010).await;
    agent.shutdown().await.unwrap();
}

#[tokio::test]
async fn an_agent_without_dopplers_forwards_and_does_nothing_else() {
    let (tasks, telemetry) = (TaskTracker::new(), Telemetry::default());
    let (well, mut received) = doppler(&tasks).await;
    let forward = ForwardConfig { to: vec![well.into()], ..ForwardConfig::default() };
    let mut config = Config { forward, dopplers: Vec::new(), ..Config::for_test(well) };
    config.tags.set.insert("deployment".to_owned(), "cf".to_owned());
    let agent = config.bind(&telemetry).await.unwrap();
    let (local, agent) = (agent.local(), agent.spawn());
    until(&telemetry, "hydrant_forward_destinations", |count| count == 1.0).await;
    local.send(batch(0..500));
    let drained = agent.shutdown().await.unwrap();
    assert_eq!(drained.dropped, 0);
    expect(&mut received, 0..500).await;
    assert_eq!(metric(&telemetry, "hydrant_delivered_envelopes_total{stage=\"agent\"}"), 500.0);

    // With nobody to forward to yet, an envelope has no way to go.
    let dir = tempfile::tempdir().unwrap();
    let nobody = Config { forward: found_in(dir.path()), dopplers: Vec::new(), ..Config::for_test(well) };
    let telemetry = Telemetry::default();
    let agent = nobody.bind(&telemetry).await.unwrap();
    agent.local().send(batch(0..3));
    assert_eq!(metric(&telemetry, "hydrant_dropped_envelopes_total{stage=\"agent\",reason=\"no_route\"}"), 3.0);
    drop(agent);

    let nowhere = Config { dopplers: Vec::new(), ..Config::for_test(well) };
    assert!(nowhere.bind(&Telemetry::default()).await.unwrap_err().to_string().contains("agent.dopplers"));
}
