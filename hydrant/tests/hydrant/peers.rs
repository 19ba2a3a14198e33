//! gRPC stacks that nobody here wrote, as producers and consumers: TLS, flow control, the orderly end, the next server on a channel.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::Path;
use std::process::Stdio;

use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader, Lines};
use tokio::process::{Child, ChildStdin, ChildStdout, Command};

use crate::fleet::{Certs, doppler_with, subscribed};
use crate::harness::{Process, metrics, sum, tool, until};
use crate::tls::pipeline_over;

/// Lines that a producer sends: more than the windows of a connection and its two ends hold, fewer than fit into a ring.
const COUNT: u64 = 40_000;

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
                command.arg(own("grpc-js/peer.js")).env("NODE_PATH", tool("npm/grpc-js/node_modules"));
                command
            }
        }
    }
}

/// A peer with the certificate of a role, all its calls on one channel.
struct Peer {
    _child: Child,
    told: ChildStdin,
    said: Lines<BufReader<ChildStdout>>,
}

impl Peer {
    fn start(stack: Stack, (addr, name): (SocketAddr, &str), certs: &Path, role: &str) -> Self {
        let mut child = stack
            .command()
            .args([&addr.to_string(), name])
            .args(["ca.pem", &format!("{role}.pem"), &format!("{role}.key")].map(|file| certs.join(file)))
            .arg(COUNT.to_string())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        let told = child.stdin.take().unwrap();
        let said = BufReader::new(child.stdout.take().unwrap()).lines();
        Self { _child: child, told, said }
    }

    async fn tell(&mut self, command: &str) {
        self.told.write_all(format!("{command}\n").as_bytes()).await.unwrap();
    }

    async fn says(&mut self, expected: &str) {
        let line = self.said.next_line().await.unwrap();
        assert_eq!(line.as_deref(), Some(expected));
    }

    /// Subscribes, and reads nothing yet.
    async fn opens(&mut self) {
        self.tell("open").await;
        self.says("open").await;
    }

    async fn sends(&mut self) {
        self.tell("send").await;
        self.says("sent").await;
    }

    async fn reads(&mut self) {
        self.tell("read").await;
        self.says(&format!("got {COUNT}")).await;
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
        Peer::start(stack, at_doppler, &certs, "traffic-controller"),
        Peer::start(stack, at_proxy, &certs, "consumer"),
    ];
    for consumer in &mut consumers {
        consumer.opens().await;
    }
    until(doppler.admin, |metrics| sum(metrics, "hydrant_subscriptions", "") == 2).await;

    let mut producer = Peer::start(stack, at_doppler, &certs, "agent");
    producer.sends().await;
    // Both servers have all of it and meet closed windows: nobody reads yet.
    for (admin, queue, consumers) in [(doppler.admin, "subscription", 2), (controller.admin, "rlp", 1)] {
        until(admin, |metrics| offered(metrics, queue) == consumers * COUNT && waiting(metrics, queue) > 0).await;
    }
    for consumer in &mut consumers {
        consumer.reads().await;
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

#[tokio::test(flavor = "multi_thread")]
async fn the_c_core_of_grpc_reads_all_of_a_doppler_that_goes_away_and_goes_on_with_the_next() {
    goes_on_with_the_next(Stack::CCore).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn grpc_js_reads_all_of_a_doppler_that_goes_away_and_goes_on_with_the_next() {
    goes_on_with_the_next(Stack::Js).await;
}

async fn goes_on_with_the_next(stack: Stack) {
    let certs = Certs::make();
    // So small that a client holds several that it has not read when the server has written the last.
    let small = "doppler.egress.batch_envelopes = 100";
    let first = doppler_with(&certs, "127.0.0.1:0", small).await;
    let addr = first.addr("grpc");
    let mut producer = Peer::start(stack, (addr, "doppler"), &certs.dir(), "agent");
    let mut consumer = Peer::start(stack, (addr, "doppler"), &certs.dir(), "traffic-controller");
    goes_away(first, &mut producer, &mut consumer).await;
    let second = doppler_with(&certs, &addr.to_string(), small).await;
    goes_away(second, &mut producer, &mut consumer).await;
}

/// Stops a doppler that has all of the producer's lines, while its consumer does not read.
async fn goes_away(doppler: Process, producer: &mut Peer, consumer: &mut Peer) {
    let admin = doppler.addr("admin");
    consumer.opens().await;
    subscribed(&doppler, 1).await;
    producer.sends().await;
    until(admin, |metrics| offered(metrics, "subscription") == COUNT).await;
    doppler.terminate();
    producer.says("ended OK").await;
    consumer.tell("idle").await;
    consumer.says("idle").await;
    // It has been told GOAWAY, and most of its lines are still to come on that connection.
    let left = waiting(&metrics(admin).await, "subscription");
    assert!(left > COUNT / 4, "{left} lines are left for a consumer that does not read");
    consumer.reads().await;
    consumer.says("ended OK").await;
    assert_eq!(doppler.ended().await.code(), Some(0));
}

/// Lines that were put to the rings of a role's consumers.
fn offered(metrics: &BTreeMap<String, f64>, queue: &str) -> u64 {
    sum(metrics, "hydrant_queue_offered_total", queue)
}

/// Lines that wait there.
fn waiting(metrics: &BTreeMap<String, f64>, queue: &str) -> u64 {
    sum(metrics, "hydrant_queue_depth_envelopes", queue)
}
