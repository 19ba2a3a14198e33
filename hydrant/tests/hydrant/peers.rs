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

/// Whose stack.
#[derive(Clone, Copy)]
enum Stack {
    CCore,
    Js,
}

impl Stack {
    fn command(self) -> Command {
        let own = |file: &str| format!("{}/tests/hydrant/{file}", env!("CARGO_MANIFEST_DIR"));
        match self {
            Self::CCore => {
                let mut command = Command::new(tool("venv/bin/python"));
                command.arg(own("peer.py"));
                command
            }
            Self::Js => {
                let mut command = Command::new(tool("bin/node"));
                command.arg(own("grpc-js/peer.js")).env("NODE_PATH", tool("npm/node_modules"));
                command
            }
        }
    }
}

/// A peer with the certificate of a role.
struct Peer {
    _child: Child,
    said: Lines<BufReader<ChildStdout>>,
}

impl Peer {
    fn start(stack: Stack, what: &str, (addr, name): (SocketAddr, &str), certs: &Path, role: &str) -> Self {
        let mut child = stack
            .command()
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
    produces_and_consumes(Stack::CCore).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn grpc_js_produces_and_consumes() {
    produces_and_consumes(Stack::Js).await;
}

async fn produces_and_consumes(stack: Stack) {
    let dir = tempfile::tempdir().unwrap();
    let certs = dir.path().join("certs");
    let up = pipeline_over(&certs).await;
    let (doppler, controller) = (up.doppler(), up.traffic_controller());
    let (at_doppler, at_proxy) = ((doppler.grpc, "doppler"), (controller.grpc, "reverselogproxy"));
    let mut consumers = [
        Peer::start(stack, "consume", at_doppler, &certs, "traffic-controller"),
        Peer::start(stack, "consume", at_proxy, &certs, "consumer"),
    ];
    for consumer in &mut consumers {
        consumer.says("open").await;
    }
    until(doppler.admin, |metrics| sum(metrics, "hydrant_subscriptions", "") == 2).await;

    let mut producer = Peer::start(stack, "produce", at_doppler, &certs, "agent");
    producer.says("sent").await;
    for consumer in &mut consumers {
        consumer.says(&format!("got {COUNT}")).await;
    }
    // A stop ends every stream in order, also those that nobody has finished.
    let stopped = up.shutdown();
    let ends = async {
        for peer in [&mut producer].into_iter().chain(&mut consumers) {
            peer.says("ended OK").await;
        }
    };
    let (drained, ()) = tokio::join!(stopped, ends);
    assert_eq!(drained.unwrap().dropped, 0);
}
