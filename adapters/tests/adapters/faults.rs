//! Receivers that close, reset, or are not there: every line arrives at least once, or is counted.

use std::collections::BTreeSet;
use std::num::NonZeroUsize;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpSocket;

use crate::support::{Rig, check_laws, frame, line, lines, number, receiver, reset};

#[tokio::test]
async fn a_receiver_that_closes_after_each_line_gets_every_line() {
    const LINES: usize = 300;
    let (listener, addr) = receiver().await;
    let rig = Rig::start(addr, "", |_| {}).await;
    rig.send(&lines(0..LINES)).await;
    let mut received = Vec::new();
    while received.last() != Some(&(LINES - 1)) {
        let (mut stream, _) = listener.accept().await.unwrap();
        received.extend(line(&mut stream).await);
    }
    let unique: BTreeSet<_> = received.iter().copied().collect();
    assert_eq!(unique.len(), LINES, "nothing is lost");
    let repeats = (received.len() - LINES) as u64;
    drop(listener);
    let (_, telemetry) = rig.shutdown().await;
    let requeued = number(&telemetry, "hydrant_link_requeued_total{link=\"drain\"}");
    assert!(repeats <= requeued, "{repeats} repeats of {requeued} counted");
    assert_eq!(number(&telemetry, "hydrant_delivered_envelopes_total{stage=\"drain\"}"), LINES as u64);
    check_laws(&telemetry);
}

#[tokio::test]
async fn a_half_close_while_idle_costs_no_line() {
    let (listener, addr) = receiver().await;
    let rig = Rig::start(addr, "", |_| {}).await;
    for i in 0..5 {
        rig.send(&lines(i..i + 1)).await;
        let (mut stream, _) = listener.accept().await.unwrap();
        assert_eq!(line(&mut stream).await, Some(i));
        stream.shutdown().await.unwrap();
        // The drain closes its side at once, without a line to send.
        assert_eq!(stream.read(&mut [0]).await.unwrap(), 0);
    }
    drop(listener);
    let (_, telemetry) = rig.shutdown().await;
    assert_eq!(number(&telemetry, "hydrant_link_requeued_total{link=\"drain\"}"), 0);
    assert_eq!(number(&telemetry, "hydrant_link_confirmed_total{link=\"drain\"}"), 5);
    check_laws(&telemetry);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_reset_in_full_flow_costs_no_line() {
    const LINES: usize = 9_000;
    let (listener, addr) = receiver().await;
    let rig = Rig::start(addr, "", |_| {}).await;
    for start in (0..LINES).step_by(100) {
        rig.send(&lines(start..start + 100)).await;
    }
    let mut received = BTreeSet::new();
    let mut count = 0;
    // The first connections end in the middle of a line, with lines unread and on their way.
    for read_before_reset in [500, 1, 0, 1000] {
        let (mut stream, _) = listener.accept().await.unwrap();
        for _ in 0..read_before_reset {
            received.insert(line(&mut stream).await.unwrap());
            count += 1;
        }
        stream.read_exact(&mut [0; 10]).await.unwrap();
        reset(stream);
    }
    let (stream, _) = listener.accept().await.unwrap();
    let mut stream = BufReader::new(stream);
    while received.len() < LINES {
        received.insert(line(&mut stream).await.unwrap());
        count += 1;
    }
    assert_eq!(received, (0..LINES).collect());
    drop((stream, listener));
    let (_, telemetry) = rig.shutdown().await;
    let requeued = number(&telemetry, "hydrant_link_requeued_total{link=\"drain\"}");
    assert!(requeued > 0 && (count - LINES) as u64 <= requeued, "{count} lines, {requeued} requeued");
    check_laws(&telemetry);
}

#[tokio::test]
async fn without_resend_what_a_reset_cost_is_uncertain() {
    let (listener, addr) = receiver().await;
    let rig = Rig::start(addr, "", |config| config.drains[0].resend = false).await;
    rig.send(&lines(0..10)).await;
    let (mut stream, _) = listener.accept().await.unwrap();
    assert_eq!(line(&mut stream).await, Some(0));
    reset(stream);
    rig.send(&lines(10..11)).await;
    let (mut stream, _) = listener.accept().await.unwrap();
    assert_eq!(line(&mut stream).await, Some(10), "what was written is not written again");
    drop(stream);
    let (_, telemetry) = rig.shutdown().await;
    assert_eq!(number(&telemetry, "hydrant_link_uncertain_total{link=\"drain\"}"), 10);
    assert_eq!(number(&telemetry, "hydrant_link_requeued_total{link=\"drain\"}"), 0);
    check_laws(&telemetry);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn while_the_receiver_is_away_the_ring_drops_counts_and_announces() {
    const LINES: usize = 2_000;
    // Bound, not listening: connections are refused, and the port stays ours.
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let addr = socket.local_addr().unwrap();
    let adjust = |config: &mut hydrant_adapters::Config| {
        config.drains[0].sources = vec!["app".to_owned()];
        config.drains[0].ring.envelopes = NonZeroUsize::new(100).unwrap();
    };
    let mut rig = Rig::start(addr, "", adjust).await;
    for start in (0..LINES).step_by(10) {
        rig.send(&lines(start..start + 10)).await;
    }
    let notice = rig.notices.recv().await.unwrap();
    let text = String::from_utf8(notice.payload().to_vec()).unwrap();
    let (count, rest) = text.split_once(' ').unwrap();
    let expected = format!(
        "messages lost for application app in user provided syslog drain with url syslog://{addr} (queue_full {count})"
    );
    assert_eq!(rest, expected);
    assert_eq!((notice.source_id.as_str(), notice.instance_id.as_str()), ("app", "0"));
    assert_eq!(notice.tags["source_type"], "LGR");

    let listener = socket.listen(16).unwrap();
    rig.send(&lines(LINES..LINES + 1)).await;
    let (mut stream, _) = listener.accept().await.unwrap();
    let mut received = Vec::new();
    while received.last() != Some(&LINES) {
        received.push(line(&mut stream).await.unwrap());
    }
    assert!(received.is_sorted() && received.len() < LINES, "the oldest went, in order");
    drop(stream);
    let (drained, telemetry) = rig.shutdown().await;
    assert_eq!(drained.dropped, 0);
    let dropped = number(&telemetry, "hydrant_dropped_envelopes_total{stage=\"drain\",reason=\"queue_full\"}");
    assert_eq!(received.len() as u64 + dropped, LINES as u64 + 1, "received and dropped are all");
    assert!(count.parse::<u64>().unwrap() <= dropped);
    check_laws(&telemetry);
}

#[tokio::test]
async fn a_stop_while_the_receiver_is_away_counts_what_it_drops() {
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let mut rig = Rig::start(socket.local_addr().unwrap(), "", |config| {
        config.drains[0].sources = vec!["app".to_owned()];
        config.drains[0].ring.envelopes = NonZeroUsize::new(10).unwrap();
    })
    .await;
    rig.send(&lines(0..5000)).await;
    // Once the first loss is announced, the batch is in the ring.
    rig.notices.recv().await.unwrap();
    let (drained, telemetry) = rig.shutdown().await;
    assert_eq!((drained.flushed, drained.dropped), (0, 10));
    assert_eq!(number(&telemetry, "hydrant_dropped_envelopes_total{stage=\"drain\",reason=\"shutdown_deadline\"}"), 10);
    assert_eq!(number(&telemetry, "hydrant_dropped_envelopes_total{stage=\"drain\",reason=\"queue_full\"}"), 4990);
    check_laws(&telemetry);
}

#[tokio::test]
async fn what_a_receiver_says_is_thrown_away() {
    let (listener, addr) = receiver().await;
    let rig = Rig::start(addr, "", |_| {}).await;
    rig.send(&lines(0..1)).await;
    let (mut stream, _) = listener.accept().await.unwrap();
    for i in 0..5 {
        assert_eq!(line(&mut stream).await, Some(i));
        stream.write_all(&[b'x'; 100_000]).await.unwrap();
        rig.send(&lines(i + 1..i + 2)).await;
    }
    assert!(frame(&mut stream).await.is_some());
    drop(stream);
    assert_eq!(rig.number("hydrant_drain_connects_total"), 1);
}

#[tokio::test]
async fn a_receiver_that_does_not_read_cannot_hold_up_a_stop() {
    let socket = TcpSocket::new_v4().unwrap();
    socket.set_recv_buffer_size(64 * 1024).unwrap();
    socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let addr = socket.local_addr().unwrap();
    let listener = socket.listen(16).unwrap();
    let rig = Rig::start(addr, "", |config| config.flush_timeout = Duration::from_millis(50)).await;
    // More than the kernel holds for both sides, less than the ring.
    let large = proto::v2::Envelope::log("app", vec![b'x'; 100_000]);
    rig.send(&vec![large; 70]).await;
    let (mut stream, _) = listener.accept().await.unwrap();
    stream.read_exact(&mut [0; 10]).await.unwrap();
    let (drained, telemetry) = rig.shutdown().await;
    assert!(drained.dropped > 0, "{drained:?}");
    assert_eq!(number(&telemetry, "hydrant_received_envelopes_total{stage=\"drain\"}"), 70);
    check_laws(&telemetry);
    drop(stream);
}
