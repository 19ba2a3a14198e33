//! What the ring has to give up of a file goes into it again: to dopplers alone, and counted as read once.

use std::collections::HashSet;

use hydrant_agent::forward::ForwardConfig;
use prost::Message as _;

use super::super::harness::doppler_at;
use super::*;

const LINES: usize = 3_000;
const OTHERS: usize = 7_000;

#[tokio::test(flavor = "multi_thread")]
async fn what_the_ring_gives_up_goes_to_dopplers_again_and_to_nobody_else() {
    let mut machine = Machine::new().await;
    let beside = machine.doppler;
    machine.doppler = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let line = |i: usize| format!("{i} {}", "x".repeat(200));
    let entries = "[[files]]\npaths = [\"DIR/app.log\"]\nformat = \"plain\"\nstart = \"beginning\"";
    let change = |config: &mut Config| {
        config.egress.ring_envelopes = 8_000.try_into().unwrap();
        config.forward = ForwardConfig { to: vec![beside.into()], ..ForwardConfig::default() };
    };
    let agent = machine.agent_with(entries, change).await;
    machine.until("hydrant_forward_destinations", 1).await;
    append(&machine.path("app.log"), &(0..LINES).map(|i| line(i) + "\n").collect::<String>());
    assert_eq!(machine.texts(LINES).await, (0..LINES).map(line).collect::<Vec<_>>());

    // Another source comes, of smaller envelopes: what holds most bytes makes room.
    let local = machine.local.clone().unwrap();
    for _ in 0..OTHERS / 1_000 {
        let batch = (0..1_000).map(|_| v2::Envelope::log("other", "y")).collect();
        local.send(v2::EnvelopeBatch { batch }.encode_to_vec().into());
        assert!(machine.texts(1_000).await.iter().all(|text| text == "y"));
    }
    let evicted = "hydrant_dropped_envelopes_total{stage=\"agent\",reason=\"queue_full\"}";
    assert!(machine.metric(evicted) >= 1_000, "{} had to leave", machine.metric(evicted));

    let tasks = TaskTracker::new();
    let (_, mut received) = doppler_at(machine.doppler, &tasks).await;
    let mut arrived = HashSet::new();
    while arrived.len() < LINES {
        let envelope = timeout(Duration::from_secs(60), received.recv()).await.expect("all lines come").unwrap();
        if envelope.source_id == "app" {
            assert!(arrived.insert(text(&envelope).1), "each once");
        }
    }
    machine.until("hydrant_files_behind_bytes", 0).await;
    assert!(machine.metric("hydrant_files_again_total") >= 1_000);
    assert_eq!(machine.metric("hydrant_source_envelopes_total{source=\"files\"}"), LINES as u64);
    assert_eq!(machine.metric("hydrant_queue_offered_total{queue=\"forward\"}"), (LINES + OTHERS) as u64);
    machine.stop(agent).await;
}
