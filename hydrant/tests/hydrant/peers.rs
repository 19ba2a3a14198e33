//! gRPC stacks that nobody here wrote, as producers and consumers: TLS, flow control, the orderly end.

use std::net::SocketAddr;
use std::path::Path;
use std::process::Stdio;

use tokio::io::{AsyncBufReadExt, BufReader, Lines};
use tokio::process::{Child, ChildStdout, Command};

use crate::harness::{sum, tool, until};
use crate::tls::pipeline_over;

/// Lines that a producer sends: more than fit into the windows of a connection, fewer than into a ring.
const COUNT: &str = "40000";

/// A peer with the certificate of a role.
struct Peer {
    _child: Child,
    said: Lines<BufReader<ChildStdout>>,
}

impl Peer {
    fn start(what: &str, addr: SocketAddr, name: &str, certs: &Path, role: &str) -> Self {
        let mut child = Command::new(tool("venv/bin/python"))
            .arg(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/hydrant/peer.py"))
            .args([what, &addr.to_string(), name])
            .args(["ca.pem", &format!("{role}.pem"), &format!("{role}.key")].map(|file| certs.join(file)))
            .arg(COUNT)
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        let said = BufReader::new(child.stdout.take().unwrap()).lines();
        Self { _child: child, said }
    }

    async fn says(&mut self, expected: &str) {
        let line = self.said.next_line().await.unwrap();
        assert_eq!(line.as_deref(), Some(expected));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_c_core_of_grpc_produces_and_consumes() {
    let dir = tempfile::tempdir().unwrap();
    let certs = dir.path().join("certs");
    let up = pipeline_over(&certs).await;
    let (doppler, controller) = (up.doppler(), up.traffic_controller());
    let mut at_doppler = Peer::start("consume", doppler.grpc, "doppler", &certs, "traffic-controller");
    let mut at_proxy = Peer::start("consume", controller.grpc, "reverselogproxy", &certs, "consumer");
    at_doppler.says("open").await;
    at_proxy.says("open").await;
    until(doppler.admin, |metrics| sum(metrics, "hydrant_subscriptions", "") == 2).await;

    let mut producer = Peer::start("produce", doppler.grpc, "doppler", &certs, "agent");
    producer.says("sent").await;
    for consumer in [&mut at_doppler, &mut at_proxy] {
        consumer.says(&format!("got {COUNT}")).await;
    }
    // A stop ends every stream in order, also those that nobody has finished.
    let stopped = up.shutdown();
    let ends = async {
        for peer in [&mut producer, &mut at_doppler, &mut at_proxy] {
            peer.says("ended OK").await;
        }
    };
    let (drained, ()) = tokio::join!(stopped, ends);
    assert_eq!(drained.unwrap().dropped, 0);
}
