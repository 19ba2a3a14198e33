//! Dopplers that are added and taken away while lines flow.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use serde_json::json;
use tokio::time::Instant;

use super::load::Load;
use super::{Certs, agent, controller, counted, doppler, linked, subscribed};
use crate::harness::{Process, metrics, sum};

/// Writes the file that names dopplers, at once as a whole.
fn name(file: &std::path::Path, dopplers: &[Process]) {
    let text: String = dopplers.iter().map(|doppler| format!("{}\n", doppler.addr("grpc"))).collect();
    let new = file.with_extension("new");
    std::fs::write(&new, text).unwrap();
    std::fs::rename(new, file).unwrap();
}

/// What each doppler has received.
async fn received(dopplers: &[Process]) -> BTreeMap<SocketAddr, u64> {
    let mut all = BTreeMap::new();
    for doppler in dopplers {
        let numbers = metrics(doppler.addr("admin")).await;
        all.insert(doppler.addr("grpc"), sum(&numbers, "hydrant_received_envelopes_total", "stage=\"doppler\""));
    }
    all
}

#[tokio::test(flavor = "multi_thread")]
async fn dopplers_that_come_share_the_load_and_dopplers_that_go_lose_nothing() {
    let certs = Certs::make();
    let file = certs.dir().join("dopplers");
    let mut dopplers = Vec::new();
    for _ in 0..2 {
        dopplers.push(doppler(&certs, "127.0.0.1:0").await);
    }
    name(&file, &dopplers);
    let entry = [format!("file = '{}'\nrefresh = \"500ms\"", file.display())];
    let controller = controller(&certs, &entry).await;
    let agents = [agent(&certs, &entry, "").await, agent(&certs, &entry, "").await];
    for agent in &agents {
        linked(agent, 2).await;
    }
    // Enough instances that an even spread is one.
    let addrs: Vec<SocketAddr> = agents.iter().map(|agent| agent.addr("grpc")).collect();
    let load =
        Load::start(&certs, (&addrs, &dopplers.iter().collect::<Vec<_>>(), &[controller.addr("grpc")]), (200, 2_000))
            .await;
    load.flows(5).await;

    for _ in 0..2 {
        dopplers.push(doppler(&certs, "127.0.0.1:0").await);
    }
    let added = Instant::now();
    name(&file, &dopplers);
    for agent in &agents {
        linked(agent, 4).await;
    }
    for doppler in &dopplers {
        subscribed(doppler, 1).await;
    }
    let used = added.elapsed();
    let before = received(&dopplers).await;
    load.flows(20).await;
    let after = received(&dopplers).await;
    let shares: Vec<u64> = after.iter().map(|(addr, count)| count - before[addr]).collect();
    let (least, most) = (*shares.iter().min().unwrap(), *shares.iter().max().unwrap());

    // Two go: they are told last, when nobody sends to them any more.
    let gone = dopplers.split_off(2);
    name(&file, &dopplers);
    for agent in &agents {
        linked(agent, 2).await;
    }
    load.flows(5).await;
    for doppler in gone {
        doppler.terminate();
        assert_eq!(doppler.ended().await.code(), Some(0));
    }
    load.flows(5).await;
    let outcome = load.end().await;
    let requeued = counted(&agents, "hydrant_link_requeued_total").await;
    outcome.tell(
        "F37 F38 2 to 4 to 2 dopplers",
        &json!({ "shares": shares, "used_ms": used.as_millis(), "requeued": requeued }),
    );
    assert!(used.as_secs() < 6, "added dopplers are used within one reading and 5 s: {used:?}");
    assert!(most as f64 <= 1.5 * least as f64, "{shares:?}");
    assert_eq!((outcome.missing(0), outcome.seen[0].reordered), (0, 0));
    assert!(outcome.seen[0].duplicates <= requeued);
    assert!(outcome.dropped.is_empty(), "{:?}", outcome.dropped);
}
