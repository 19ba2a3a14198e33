//! A doppler that is cut off in silence: packets to it and from it vanish.
//!
//! The test runs itself again in a network namespace of its own, where it may drop packets (`nft`); nothing outside is touched.

use std::net::SocketAddr;
use std::process::Command;
use std::time::Duration;

use serde_json::json;
use tokio::time::{Instant, sleep_until};

use super::load::{Instance, Load};
use super::{Certs, agent, controller, counted, doppler, linked, listed};
use crate::harness::tool;
use crate::namespace;

/// How long the doppler is cut off.
const CUT_OFF: Duration = Duration::from_secs(30);

/// Gives a command to the packet filter of this namespace.
fn nft(command: &str) {
    let done = Command::new(tool("bin/nft")).args(command.split(' ')).output().unwrap();
    assert!(done.status.success(), "nft {command}: {}", String::from_utf8_lossy(&done.stderr));
}

#[test]
fn a_doppler_cut_off_in_silence_stalls_nobody_and_costs_nothing() {
    if !namespace::inside() {
        return namespace::run("fleet::partition::a_doppler_cut_off_in_silence_stalls_nobody_and_costs_nothing");
    }
    tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap().block_on(cut_off());
}

async fn cut_off() {
    let certs = Certs::make();
    let mut dopplers = Vec::new();
    for i in 1..=3 {
        dopplers.push(doppler(&certs, &format!("127.0.5.{i}:0")).await);
    }
    let entry = [listed(&dopplers)];
    let controller = controller(&certs, &entry).await;
    let agents = [agent(&certs, &entry, "").await];
    linked(&agents[0], 3).await;
    let load = Load::start(
        &certs,
        (&[agents[0].addr("grpc")], &dopplers.iter().collect::<Vec<_>>(), &[controller.addr("grpc")]),
        (12, 1_500),
    )
    .await;
    load.flows(30).await;

    nft("add table inet t");
    for hook in ["input", "output"] {
        nft(&format!("add chain inet t {hook} {{ type filter hook {hook} priority 0; }}"));
    }
    let cut = Instant::now();
    nft("add rule inet t input ip daddr 127.0.5.1 drop");
    nft("add rule inet t output ip saddr 127.0.5.1 drop");
    load.flows(10).await;
    // The fault lasts as long as it lasts.
    sleep_until(cut + CUT_OFF).await;
    nft("delete table inet t");
    linked(&agents[0], 3).await;
    load.flows(30).await;
    let addrs: Vec<SocketAddr> = dopplers.iter().map(|doppler| doppler.addr("grpc")).collect();
    let outcome = load.end().await;
    let on_it = |instance: Instance| super::restarts::placed_at(&addrs, instance) == addrs[0];
    let failover = outcome.longest_wait(cut, on_it);
    let others = outcome.longest_silence(|instance| !on_it(instance));
    let (requeued, duplicates) =
        (counted(&agents, "hydrant_link_requeued_total").await, counted(&dopplers, "hydrant_duplicates_total").await);
    let more = json!({ "failover_ms": failover.as_millis(), "others_silent_ms": others.as_millis(), "requeued": requeued, "taken_out": duplicates });
    outcome.tell("F14 silent partition of one doppler", &more);
    assert_eq!((outcome.missing(0), outcome.dropped.len()), (0, 0));
    assert!(failover < Duration::from_secs(2), "{failover:?} until lines of its instances went on");
    assert!(others < Duration::from_secs(1), "lines of other dopplers' instances stood still for {others:?}");
    assert!(outcome.seen[0].duplicates <= requeued);
}
