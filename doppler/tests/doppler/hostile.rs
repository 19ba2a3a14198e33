//! Peers that ask for too much, or come and go, or take back what they ask for: the others notice nothing.

use std::net::SocketAddr;
use std::time::Duration;

use futures_util::StreamExt;
use proto::v2::Envelope;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_util::task::TaskTracker;
use tonic::Code;

use crate::client::{Doppler, logs, request, subscribe};

#[tokio::test]
async fn a_request_of_a_hundred_thousand_selectors_is_refused_and_one_at_the_limit_is_not() {
    let doppler = Doppler::start().await;
    let selectors = |count: usize| (0..count).map(|i| logs(&format!("source-{i}"))).collect();
    for count in [10_001, 100_000] {
        let Err(refused) = doppler.subscribe_to(request("", "", selectors(count))).await else { panic!("{count}") };
        let expected = format!("{count} selectors; a request has 10000 at most");
        assert_eq!((refused.code(), refused.message()), (Code::InvalidArgument, expected.as_str()));
    }
    let mut all = doppler.subscribe(selectors(10_000)).await;
    doppler.send([vec![Envelope::log("source-9999", "last"), Envelope::log("source-10000", "beyond")]]).await;
    assert_eq!(all.next().await.unwrap().payload(), b"last");
    drop(all);
    doppler.await_subscriptions(0).await;
}

#[tokio::test]
async fn ten_thousand_that_come_and_go_cost_the_one_that_stays_nothing() {
    let doppler = Doppler::start().await;
    let mut stays = doppler.subscribe(vec![logs("")]).await;
    let channel = doppler.channel();
    let coming = futures_util::stream::iter(0..10_000).map(|i| {
        let shard = if i % 2 == 0 { "" } else { "shard" };
        subscribe(channel.clone(), request(shard, "", vec![logs(&format!("source-{}", i % 100)), logs("")]))
    });
    let going = async {
        let mut coming = coming.buffer_unordered(100);
        let mut came = 0;
        // Each is dropped as soon as it has opened.
        while let Some(opened) = coming.next().await {
            opened.unwrap();
            came += 1;
        }
        came
    };
    let lines = async {
        for i in 0..200 {
            doppler.send([vec![Envelope::log("source-1", i.to_string())]]).await;
            assert_eq!(stays.next().await.unwrap().payload(), i.to_string().as_bytes());
        }
    };
    let (came, ()) = tokio::join!(going, lines);
    assert_eq!(came, 10_000);
    doppler.await_subscriptions(1).await;
    let numbers = doppler.numbers().await;
    numbers.hold();
    assert_eq!(numbers.received(), 200);
}

/// An HTTP/2 frame (RFC 9113 §4.1).
fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let mut frame = u32::try_from(payload.len()).unwrap().to_be_bytes()[1..].to_vec();
    frame.extend([kind, flags]);
    frame.extend(stream.to_be_bytes());
    frame.extend(payload);
    frame
}

/// Opens so many streams on one connection and resets each in the same breath. The error code of the doppler's GOAWAY, if one came before
/// it closed the connection.
async fn reset_rapidly(addr: SocketAddr, streams: u32) -> Option<u32> {
    const SETTINGS: u8 = 4;
    let (mut reading, mut writing) = TcpStream::connect(addr).await.unwrap().into_split();
    let mut bytes = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec();
    bytes.extend(frame(SETTINGS, 0, 0, &[]));
    for stream in (1..).step_by(2).take(streams as usize) {
        // HEADERS with END_HEADERS: POST http / from HPACK's static table. RST_STREAM: CANCEL.
        bytes.extend(frame(1, 4, stream, &[0x83, 0x86, 0x84]));
        bytes.extend(frame(3, 0, stream, &8_u32.to_be_bytes()));
    }
    let written = async {
        // The doppler may close while this is written.
        let _closed = writing.write_all(&bytes).await;
        writing
    };
    let read = async {
        let mut said = None;
        let mut head = [0; 9];
        while reading.read_exact(&mut head).await.is_ok() {
            let mut payload = vec![0; u32::from_be_bytes([0, head[0], head[1], head[2]]) as usize];
            if reading.read_exact(&mut payload).await.is_err() {
                break;
            }
            if let (7, Some(code)) = (head[3], payload.get(4..8)) {
                said = Some(u32::from_be_bytes(code.try_into().unwrap()));
            }
        }
        said
    };
    let (_writing, said) = tokio::join!(written, timeout(Duration::from_secs(30), read));
    said.expect("the doppler ends the connection")
}

#[tokio::test]
async fn a_peer_that_resets_what_it_opens_is_shown_the_door_and_nobody_else_notices() {
    let doppler = Doppler::with(|config| config.grpc.tls = None).await;
    let mut consumer = doppler.subscribe(vec![logs("")]).await;
    let addr = doppler.addr();
    let attack = TaskTracker::new().spawn(async move {
        let mut said = Vec::new();
        for _ in 0..20 {
            said.push(reset_rapidly(addr, 50_000).await);
        }
        said
    });
    let mut lines = 0;
    while !attack.is_finished() || lines < 100 {
        doppler.send([vec![Envelope::log("app", lines.to_string())]]).await;
        assert_eq!(consumer.next().await.unwrap().payload(), lines.to_string().as_bytes());
        lines += 1;
    }
    // ENHANCE_YOUR_CALM, each time, long before the last of the streams.
    assert_eq!(attack.await.unwrap(), [Some(11); 20]);
    doppler.await_subscriptions(1).await;
    doppler.numbers().await.hold();
}
