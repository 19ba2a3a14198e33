//! Stopping is draining: what was accepted is delivered or counted, streams end with OK, and a stop ends.

use std::time::Duration;

use proto::hydrant::v1::IngressFrame;
use proto::v2::Envelope;
use tokio_util::task::TaskTracker;
use tonic::Code;

use crate::client::{Acknowledged, Doppler, Producer, encode, last_ack, logs};

fn lines(from: i64, count: i64) -> Vec<Envelope> {
    (from..from + count).map(|i| Envelope::log("a", vec![b'x'; 200]).at(i)).collect()
}

#[tokio::test]
async fn under_load_everything_acknowledged_is_delivered() {
    let doppler = Doppler::start().await;
    let mut consumer = doppler.subscribe(vec![logs("")]).await;
    let (frames, acks) = Acknowledged::open(doppler.channel()).await.split();
    // Sends until the stream ends.
    let tracker = TaskTracker::new();
    let sending = tracker.spawn(async move {
        for sequence in 1.. {
            let batch = encode(lines(sequence as i64 * 100, 100)).0;
            if frames.send(IngressFrame { sequence, batch, ..IngressFrame::default() }).await.is_err() {
                return;
            }
        }
    });
    let acknowledged = tracker.spawn(last_ack(acks));
    let before = consumer.take(1_000).await.len() as u64;
    let stop = doppler.shutdown();
    let ((drained, numbers), rest) = tokio::join!(stop, consumer.rest());
    let ack = acknowledged.await.unwrap();
    sending.await.unwrap();
    numbers.hold_to_the_end();
    assert_eq!(numbers.received(), ack.delivered, "nothing was taken in that was not acknowledged");
    assert_eq!(ack.delivered, before + rest.len() as u64 + numbers.dropped("queue_full"));
    assert_eq!(numbers.dropped("shutdown_deadline"), 0);
    assert_eq!(drained.dropped, 0);
}

#[tokio::test]
async fn what_is_in_the_rings_is_handed_over_and_streams_end_with_ok() {
    let doppler = Doppler::start().await;
    let mut producer = Producer::open(doppler.channel());
    let slow = doppler.subscribe_narrow(vec![logs("")]).await;
    let idle = doppler.subscribe(vec![logs("somebody else")]).await;
    for i in 0..50 {
        producer.send(lines(i * 100, 100)).await;
    }
    producer.finish().await.unwrap();
    // A stream that its producer leaves open is ended with OK as well.
    producer = Producer::open(doppler.channel());
    producer.send(lines(5_000, 1)).await;
    while doppler.numbers().await.received() < 5_001 {}
    let ((drained, numbers), rest, none, answer) =
        tokio::join!(doppler.shutdown(), slow.rest(), idle.rest(), producer.ended());
    answer.unwrap();
    numbers.hold_to_the_end();
    assert_eq!(numbers.lost(), 0);
    let got: Vec<i64> = rest.iter().map(|envelope| envelope.timestamp).collect();
    assert_eq!(got, (0..5_001).collect::<Vec<_>>());
    assert!(none.is_empty());
    assert!(drained.flushed > 0 && drained.dropped == 0, "{drained:?}");
}

#[tokio::test]
async fn a_consumer_that_never_reads_is_cut_at_the_deadline_and_counted() {
    let doppler = Doppler::with(|config| {
        config.flush_timeout = Duration::from_millis(300);
        // A load is larger than a message: some is taken from the ring and not given out.
        config.egress.batch_envelopes = 10.try_into().unwrap();
    })
    .await;
    let stuck = doppler.subscribe_narrow(vec![logs("")]).await;
    doppler.send((0..50).map(|i| lines(i * 100, 100))).await;
    let (drained, numbers) = doppler.shutdown().await;
    numbers.hold_to_the_end();
    assert_eq!(numbers.copies(), 5_000);
    assert!(numbers.dropped("shutdown_deadline") > 0);
    assert_eq!(numbers.delivered() + numbers.dropped("shutdown_deadline"), 5_000);
    assert_eq!(drained.dropped, numbers.dropped("shutdown_deadline"));
    // What the network holds arrives, and nothing that was counted as dropped.
    let got = stuck.rest().await;
    assert_eq!(got.len() as u64, numbers.delivered());
}

#[tokio::test]
async fn a_producer_that_never_pauses_does_not_hold_up_the_stop() {
    let doppler = Doppler::with(|config| config.flush_timeout = Duration::from_millis(300)).await;
    let producers = [(); 3].map(|()| {
        let channel = doppler.channel();
        TaskTracker::new().spawn(async move {
            let message = encode(lines(0, 100));
            crate::client::batch_sender(channel, futures_util::stream::repeat(message)).await
        })
    });
    while doppler.numbers().await.received() == 0 {}
    let (drained, _) = doppler.shutdown().await;
    assert_eq!((drained.flushed, drained.dropped), (0, 0));
    for producer in producers {
        // Ended by the stop, or still open at the deadline: the process goes, and the connection with it.
        producer.abort();
    }
}

#[tokio::test]
async fn a_stopping_doppler_takes_nobody_new() {
    let doppler = Doppler::with(|config| config.flush_timeout = Duration::from_millis(300)).await;
    // Holds the stop up until its deadline, on a connection of its own.
    let stuck = doppler.subscribe_narrow(vec![logs("")]).await;
    doppler.send((0..50).map(|i| lines(i * 100, 100))).await;
    let addr = doppler.addr();
    let waiting = doppler.subscribe(vec![logs("somebody else")]).await;
    doppler.stop();
    // Its end says that the stop has come to the consumers.
    assert!(waiting.rest().await.is_empty());
    let request = crate::client::request("", "", vec![logs("")]);
    let status = doppler.subscribe_to(request).await.err().expect("nobody listens");
    assert_eq!(status.code(), Code::Unavailable, "{status}");
    let (_, numbers) = doppler.shutdown().await;
    numbers.hold_to_the_end();
    tokio::net::TcpListener::bind(addr).await.expect("the port is free again");
    drop(stuck);
}

#[tokio::test]
async fn what_was_lost_before_the_stop_is_not_the_stops_loss() {
    let doppler = Doppler::start().await;
    let leaver = doppler.subscribe_narrow(vec![logs("")]).await;
    doppler.send((0..50).map(|i| lines(i * 100, 100))).await;
    drop(leaver);
    doppler.await_subscriptions(0).await;
    let (drained, numbers) = doppler.shutdown().await;
    assert!(numbers.dropped("peer_lost") > 0);
    assert_eq!((drained.flushed, drained.dropped), (0, 0));
}
