//! SIGTERM to each role under load: what was accepted is delivered or counted.

use std::net::SocketAddr;

use proto::v2;
use tokio::io::AsyncReadExt;
use tokio::net::TcpListener;

use crate::harness::{Process, Producer, logs, metrics, next, subscribe, sum, until};

/// Line `i` of the load.
fn line(i: u64) -> v2::Envelope {
    v2::Envelope::log("app", i.to_string()).at(1).instance("0")
}

fn numbers(envelopes: &[v2::Envelope]) -> impl Iterator<Item = u64> {
    envelopes.iter().map(|envelope| std::str::from_utf8(envelope.payload()).unwrap().parse().unwrap())
}

async fn doppler(listen: &str) -> Process {
    Process::start_with("doppler", "", &[("HYDRANT_DOPPLER__GRPC__LISTEN", listen.to_owned())]).await
}

async fn agent(doppler: SocketAddr) -> Process {
    Process::start("agent", &format!("[[agent.dopplers]]\naddresses = [\"{doppler}\"]\n")).await
}

/// Sends `count` lines, a hundred a frame, from `first` on. Ends early when the server ends the stream.
async fn send(producer: &mut Producer, first: u64, count: u64) -> bool {
    for frame in (first..first + count).step_by(100) {
        if !producer.send((frame..frame + 100).map(line).collect()).await {
            return false;
        }
    }
    true
}

#[tokio::test(flavor = "multi_thread")]
async fn an_agent_told_to_stop_delivers_what_it_acknowledged() {
    let doppler = doppler("127.0.0.1:0").await;
    let agent = agent(doppler.addr("grpc")).await;
    let mut consumer = subscribe(doppler.addr("grpc"), &[logs()]).await;
    let mut producer = Producer::connect(agent.addr("grpc")).await;
    assert!(send(&mut producer, 0, 10_000).await);
    producer.settled().await;
    agent.terminate();
    // The load goes on until the agent ends the stream.
    let mut first = 10_000;
    while send(&mut producer, first, 100).await {
        first += 100;
    }
    producer.finish().await;
    assert_eq!(agent.ended().await.code(), Some(0));

    let acknowledged = producer.last.delivered;
    assert!(acknowledged >= 10_000, "{:?}", producer.last);
    let router = metrics(doppler.addr("admin")).await;
    let at_doppler = sum(&router, "hydrant_received_envelopes_total", "");
    assert_eq!(at_doppler, acknowledged, "acknowledged is what the doppler got, no more and no less");
    let mut received = Vec::new();
    while (received.len() as u64) < acknowledged {
        received.extend(numbers(&next(&mut consumer).await.unwrap()));
    }
    assert_eq!(received, (0..acknowledged).collect::<Vec<_>>());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_doppler_told_to_stop_delivers_what_it_took_and_its_agent_keeps_the_rest() {
    let first = doppler("127.0.0.1:0").await;
    let addr = first.addr("grpc");
    let agent = agent(addr).await;
    let mut consumer = subscribe(addr, &[logs()]).await;
    let mut producer = Producer::connect(agent.addr("grpc")).await;
    let mut load = tokio::task::JoinSet::new();
    load.spawn(async move {
        assert!(send(&mut producer, 0, 200_000).await);
        producer.settled().await;
        producer
    });
    let mut received: Vec<u64> = numbers(&next(&mut consumer).await.unwrap()).collect();
    first.terminate();
    // Its stream ends in order once the ring is empty.
    while let Some(envelopes) = next(&mut consumer).await {
        received.extend(numbers(&envelopes));
    }
    assert_eq!(first.ended().await.code(), Some(0));
    let confirmed = sum(&metrics(agent.addr("admin")).await, "hydrant_link_confirmed_total", "");
    assert_eq!(received.len() as u64, confirmed, "what the doppler confirmed, its consumer got");
    assert_eq!(received, (0..confirmed).collect::<Vec<_>>());

    // Another doppler takes its place: the agent sends on where the first one left off.
    let second = doppler(&addr.to_string()).await;
    let producer = load.join_next().await.unwrap().unwrap();
    assert_eq!((producer.sent, producer.last.delivered, producer.last.dropped.len()), (200_000, 200_000, 0));
    let router = metrics(second.addr("admin")).await;
    assert_eq!(sum(&router, "hydrant_received_envelopes_total", ""), 200_000 - confirmed);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_traffic_controller_told_to_stop_delivers_what_it_took() {
    let doppler = doppler("127.0.0.1:0").await;
    let grpc = doppler.addr("grpc");
    let proxy =
        Process::start("traffic-controller", &format!("[[traffic_controller.dopplers]]\naddresses = [\"{grpc}\"]\n"))
            .await;
    let mut consumer = subscribe(proxy.addr("grpc"), &[logs()]).await;
    until(doppler.addr("admin"), |metrics| sum(metrics, "hydrant_subscriptions", "") == 1).await;
    let mut producer = Producer::connect(grpc).await;
    assert!(send(&mut producer, 0, 5_000).await);
    producer.settled().await;
    // All of it has reached the traffic controller; its consumer has read nothing yet.
    until(proxy.addr("admin"), |metrics| sum(metrics, "hydrant_queue_offered_total", "") == 5_000).await;
    proxy.terminate();
    let mut received = Vec::new();
    while let Some(envelopes) = next(&mut consumer).await {
        received.extend(numbers(&envelopes));
    }
    assert_eq!(received, (0..5_000).collect::<Vec<_>>());
    assert_eq!(proxy.ended().await.code(), Some(0));
}

#[tokio::test(flavor = "multi_thread")]
async fn adapters_told_to_stop_deliver_what_they_took() {
    let doppler = doppler("127.0.0.1:0").await;
    let grpc = doppler.addr("grpc");
    let destination = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = destination.local_addr().unwrap();
    let config = format!(
        "[[adapters.dopplers]]\naddresses = [\"{grpc}\"]\n[[adapters.drains]]\nname = \"test\"\nurl = \"syslog://{url}\"\nannounce = false\n"
    );
    let adapters = Process::start("adapters", &config).await;
    until(doppler.addr("admin"), |metrics| sum(metrics, "hydrant_subscriptions", "") == 1).await;
    let mut producer = Producer::connect(grpc).await;
    assert!(send(&mut producer, 0, 5_000).await);
    producer.settled().await;
    until(adapters.addr("admin"), |metrics| sum(metrics, "hydrant_queue_offered_total", "") == 5_000).await;
    adapters.terminate();
    let (mut socket, _) = destination.accept().await.unwrap();
    let mut written = String::new();
    socket.read_to_string(&mut written).await.unwrap();
    let received: Vec<u64> = written.lines().map(|line| line.rsplit(' ').next().unwrap().parse().unwrap()).collect();
    assert_eq!(received, (0..5_000).collect::<Vec<_>>());
    assert_eq!(adapters.ended().await.code(), Some(0));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_service_manager_is_told_and_grace_passes_before_ports_close() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("notify");
    let manager = tokio::net::UnixDatagram::bind(&path).unwrap();
    let told = async || {
        let mut text = [0; 256];
        let read = manager.recv(&mut text).await.unwrap();
        String::from_utf8_lossy(&text[..read]).trim().to_owned()
    };
    let variables = [
        ("NOTIFY_SOCKET", path.display().to_string()),
        ("WATCHDOG_USEC", "200000".to_owned()),
        ("HYDRANT_STOP__GRACE", "1s".to_owned()),
    ];
    let role = Process::start_with("doppler", "", &variables).await;
    assert_eq!(told().await, "READY=1");
    assert_eq!(told().await, "WATCHDOG=1");
    let (admin, grpc) = (role.addr("admin"), role.addr("grpc"));
    assert_eq!(crate::harness::get(admin, "/ready").await.status, 200);
    let stopped = tokio::time::Instant::now();
    role.terminate();
    while told().await != "STOPPING=1" {}
    // Not ready at once, and still served.
    let answer = crate::harness::get(admin, "/ready").await;
    assert_eq!((answer.status, answer.body.trim()), (503, "not ready: stopping"));
    let mut producer = Producer::connect(grpc).await;
    assert!(send(&mut producer, 0, 100).await);
    producer.settled().await;
    assert_eq!(producer.last.delivered, 100);
    drop(producer);
    assert_eq!(role.ended().await.code(), Some(0));
    assert!(stopped.elapsed() >= std::time::Duration::from_secs(1), "{:?}", stopped.elapsed());
}
