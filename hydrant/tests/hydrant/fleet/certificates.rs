//! Certificates and authorities that are replaced while lines flow.

use std::net::SocketAddr;
use std::path::Path;
use std::process::Command;

use serde_json::json;

use super::load::Load;
use super::{Certs, agent, controller, counted, doppler, linked, listed};
use crate::harness::{Process, sum, until};

/// Runs `hydrant certs init` into `dir`, with more arguments.
fn init(dir: &Path, more: &[&str]) {
    let made =
        Command::new(env!("CARGO_BIN_EXE_hydrant")).args(["certs", "init", "--dir"]).arg(dir).args(more).output();
    let made = made.unwrap();
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
}

/// Puts a file in the place of another, at once as a whole.
fn put(from: &[&Path], to: &Path) {
    let text: String = from.iter().map(|path| std::fs::read_to_string(path).unwrap()).collect();
    let new = to.with_extension("new");
    std::fs::write(&new, text).unwrap();
    std::fs::rename(new, to).unwrap();
}

const ROLES: [&str; 4] = ["agent", "doppler", "traffic-controller", "consumer"];

/// Waits until every identity of every process has been read again `times` times.
async fn reloaded(processes: &[&Process], times: u64) {
    for process in processes {
        until(process.addr("admin"), |metrics| {
            let all = metrics.iter().filter(|(series, _)| series.starts_with("hydrant_certificate_reloads_total"));
            let counts: Vec<u64> = all.map(|(_, count)| *count as u64).collect();
            !counts.is_empty() && counts.iter().all(|count| *count >= times)
        })
        .await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn certificates_and_their_authority_change_under_load() {
    let certs = Certs::make();
    let (dir, next) = (certs.dir(), certs.dir().join("next"));
    let dopplers = [doppler(&certs, "127.0.0.1:0").await, doppler(&certs, "127.0.0.1:0").await];
    let entry = [listed(&dopplers)];
    let controller = controller(&certs, &entry).await;
    // Connections do not get old by themselves here but every second, so that each uses what is there now.
    let agent = agent(&certs, &entry, "agent.egress.link_age = \"1s\"").await;
    linked(&agent, 2).await;
    let addrs: [SocketAddr; 1] = [agent.addr("grpc")];
    let load = Load::start(&certs, (&addrs, &dopplers.each_ref(), &[controller.addr("grpc")]), (4, 500)).await;
    load.flows(50).await;
    let processes = [&dopplers[0], &dopplers[1], &controller, &agent];

    // Both authorities are trusted, then the new one signs, then the old one is forgotten.
    init(&next, &[]);
    let old = dir.join("old-ca.pem");
    std::fs::copy(dir.join("ca.pem"), &old).unwrap();
    put(&[&old, &next.join("ca.pem")], &dir.join("ca.pem"));
    reloaded(&processes, 1).await;
    load.flows(100).await;
    for role in ROLES {
        for kind in ["key", "pem"] {
            let file = format!("{role}.{kind}");
            put(&[&next.join(&file)], &dir.join(&file));
        }
    }
    reloaded(&processes, 2).await;
    load.flows(100).await;
    put(&[&next.join("ca.pem")], &dir.join("ca.pem"));
    reloaded(&processes, 3).await;
    load.flows(300).await;

    // A broken file keeps what is there, and says so.
    let good = std::fs::read(dir.join("doppler.pem")).unwrap();
    std::fs::write(dir.join("doppler.pem"), "-----BEGIN CERTIFICATE-----\nnot one\n").unwrap();
    let failed = |process: &Process| process.addr("admin");
    for doppler in &dopplers {
        until(failed(doppler), |metrics| sum(metrics, "hydrant_certificate_reload_failed", "") >= 1).await;
    }
    load.flows(200).await;
    std::fs::write(dir.join("doppler.pem"), good).unwrap();
    for doppler in &dopplers {
        until(failed(doppler), |metrics| sum(metrics, "hydrant_certificate_reload_failed", "") == 0).await;
    }
    // Whoever comes now is served with the new ones: a certificate of the old authority is not taken.
    let outcome = load.end().await;
    let (requeued, uncertain) = (
        counted(std::slice::from_ref(&agent), "hydrant_link_requeued_total").await,
        counted(std::slice::from_ref(&agent), "hydrant_link_uncertain_total").await,
    );
    outcome.tell("F43 certificates and authority change", &json!({ "requeued": requeued }));
    assert_eq!((outcome.missing(0), outcome.seen[0].reordered, outcome.dropped.len(), uncertain), (0, 0, 0, 0));
    assert!(outcome.seen[0].duplicates <= requeued);
}
