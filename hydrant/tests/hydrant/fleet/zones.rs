//! Two zones: lines stay in theirs, leave it when it is gone, and come back when it is well.

use std::net::SocketAddr;
use std::time::Duration;

use serde_json::json;
use tokio::time::{Instant, interval, timeout};

use super::load::Load;
use super::{Certs, agent, controller, counted, doppler, linked, listed};
use crate::harness::{Process, metrics, sum};

async fn received(dopplers: &[Process]) -> u64 {
    let mut all = 0;
    for doppler in dopplers {
        all += sum(&metrics(doppler.addr("admin")).await, "hydrant_received_envelopes_total", "stage=\"doppler\"");
    }
    all
}

#[tokio::test(flavor = "multi_thread")]
async fn lines_stay_in_their_zone_while_it_is_well() {
    let certs = Certs::make();
    let mut zones = [Vec::new(), Vec::new()];
    for (zone, dopplers) in zones.iter_mut().enumerate() {
        for doppler_of in 1..=2 {
            dopplers.push(doppler(&certs, &format!("127.0.{}.{doppler_of}:0", zone + 1)).await);
        }
    }
    let entries: Vec<String> =
        zones.iter().enumerate().map(|(i, zone)| format!("zone = \"z{}\"\n{}", i + 1, listed(zone))).collect();
    let controller = controller(&certs, &entries).await;
    let agents =
        [agent(&certs, &entries, "agent.zone = \"z1\"").await, agent(&certs, &entries, "agent.zone = \"z2\"").await];
    for agent in &agents {
        linked(agent, 2).await;
    }
    let addrs: Vec<SocketAddr> = agents.iter().map(|agent| agent.addr("grpc")).collect();
    let load = Load::start(
        &certs,
        (&addrs, &zones.iter().flatten().collect::<Vec<_>>(), &[controller.addr("grpc")]),
        (8, 1_000),
    )
    .await;
    load.flows(100).await;
    let own = |agent: usize| sum_of(&agents[agent], "hydrant_link_confirmed_total");
    // What an agent has had confirmed, the dopplers of its zone have received; and what they have received, it has taken in: read in this
    // order, no line may have crossed.
    for (zone, agent) in zones.iter().zip(&agents) {
        let confirmed = sum_of(agent, "hydrant_link_confirmed_total").await;
        let in_zone = received(zone).await;
        let taken = sum_of(agent, "hydrant_received_envelopes_total").await;
        assert!(confirmed > 0 && confirmed <= in_zone && in_zone <= taken, "{confirmed}, {in_zone}, {taken}");
    }

    // The first zone dies, all of it at once.
    let addrs_z1: Vec<SocketAddr> = zones[0].iter().map(|doppler| doppler.addr("grpc")).collect();
    let killed = Instant::now();
    for doppler in std::mem::take(&mut zones[0]) {
        doppler.kill().await;
    }
    load.flows(100).await;

    // And comes back.
    for addr in addrs_z1 {
        zones[0].push(doppler(&certs, &addr.to_string()).await);
    }
    let healed = Instant::now();
    let mut look = interval(Duration::from_millis(100));
    let back = timeout(Duration::from_secs(60), async {
        loop {
            look.tick().await;
            let (before, sent_before) = (received(&zones[0]).await, own(0).await);
            look.tick().await;
            let (after, sent_after) = (received(&zones[0]).await, own(0).await);
            // All that the agent of the zone sends goes to the zone again.
            if after - before > 0 && (after - before) * 100 >= (sent_after - sent_before) * 95 {
                return healed.elapsed();
            }
        }
    })
    .await
    .expect("its share comes back within a minute");
    load.flows(50).await;
    let outcome = load.end().await;
    let moved = outcome.longest_wait(killed, |(agent, _)| agent == 0);
    let requeued = counted(&agents, "hydrant_link_requeued_total").await;
    let more = json!({ "moved_ms": moved.as_millis(), "back_s": back.as_secs_f64(), "requeued": requeued, "placements": counted(&agents, "hydrant_placements_total").await });
    outcome.tell("F40 a zone dies and comes back", &more);
    assert!(moved < Duration::from_secs(2), "{moved:?} until lines went elsewhere");
    assert!(back >= Duration::from_secs(30), "it comes back by and by, not at once: {back:?}");
    // What the dead dopplers had acknowledged and not handed on is gone with them, and nothing else.
    assert!(outcome.missing(0) <= 400, "{} are missing", outcome.missing(0));
    assert!(outcome.seen[0].duplicates <= requeued);
    assert!(outcome.dropped.is_empty(), "{:?}", outcome.dropped);
}

/// What an agent has counted.
async fn sum_of(agent: &Process, family: &str) -> u64 {
    sum(&metrics(agent.addr("admin")).await, family, "")
}
