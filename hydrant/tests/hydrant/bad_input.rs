//! Bad input costs only itself: everything good around it arrives, and what was bad is counted by reason.

use bytes::Bytes;
use prost::Message;
use proto::codec::Wire;
use proto::v2;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;

use crate::harness::{Producer, channel, logs, metrics, next, pipeline, subscribe, sum, until};

/// A plain producer that sends bytes as they are.
async fn send_raw(addr: std::net::SocketAddr, messages: Vec<Bytes>) -> Result<(), tonic::Status> {
    let mut client = proto::v2::ingress_client::IngressClient::new(channel(addr).await);
    client.sender(tokio_stream::iter(messages.into_iter().map(Wire))).await.map(drop)
}

#[tokio::test(flavor = "multi_thread")]
async fn malformed_envelopes_cost_only_themselves() {
    let up = pipeline("").await;
    let mut consumer = subscribe(up.doppler().grpc, &[logs()]).await;
    let good = |text: &str| Bytes::from(v2::Envelope::log("app", text.to_owned()).encode_to_vec());
    let bad_text = {
        let mut bytes = good("x").to_vec();
        bytes.extend([0x12, 0x02, 0xff, 0xfe]);
        Bytes::from(bytes)
    };
    let unknown = {
        let mut bytes = good("unknown fields stay").to_vec();
        bytes.extend([0xa2, 0x06, 0x03, b'n', b'e', b'w']);
        Bytes::from(bytes)
    };
    let large = Bytes::from(v2::Envelope::log("app", vec![b'x'; 2 << 20]).encode_to_vec());
    let tags = (0..200).fold(v2::Envelope::log("app", "x"), |envelope, i| envelope.tag(format!("k{i}"), "v"));
    let messages = vec![
        good("first"),
        Bytes::from_static(&[0x0a, 0x7f, 0x01]),
        bad_text,
        good("second"),
        large,
        Bytes::from(tags.encode_to_vec()),
        unknown.clone(),
    ];
    send_raw(up.agent().grpc, messages).await.unwrap();
    let mut received = Vec::new();
    while received.len() < 3 {
        received.extend(next(&mut consumer).await.unwrap());
    }
    let texts: Vec<&[u8]> = received.iter().map(v2::Envelope::payload).collect();
    assert_eq!(texts, [&b"first"[..], b"second", b"unknown fields stay"]);
    let agent = metrics(up.agent().admin).await;
    for (reason, count) in [("decode_error", 2), ("oversize", 1), ("too_many", 1)] {
        assert_eq!(sum(&agent, "hydrant_dropped_envelopes_total", reason), count, "{reason}");
    }
    up.shutdown().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_message_over_the_limit_ends_its_own_stream_alone() {
    let up = pipeline("").await;
    let mut other = Producer::connect(up.agent().grpc).await;
    other.send(vec![v2::Envelope::log("app", "before")]).await;
    let status = send_raw(up.agent().grpc, vec![Bytes::from(vec![0; 11 << 20])]).await.expect_err("over 10 MiB");
    assert_eq!(status.code(), tonic::Code::ResourceExhausted, "{status:?}");
    assert_eq!(sum(&metrics(up.agent().admin).await, "hydrant_dropped_envelopes_total", "oversize"), 1);
    other.send(vec![v2::Envelope::log("app", "after")]).await;
    other.settled().await;
    assert_eq!(other.last.delivered, 2);
    up.shutdown().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn half_open_connections_and_noise_disturb_nobody() {
    let up = pipeline("").await;
    let mut held = Vec::new();
    for addr in [up.agent().grpc, up.doppler().grpc, up.traffic_controller().http, up.traffic_controller().grpc] {
        for noise in
            [&b""[..], b"\x00\xff\x00\xff", b"GET / HTTP/9.9\r\n\r\n", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\xff\xff\xff"]
        {
            let mut socket = TcpStream::connect(addr).await.unwrap();
            // Whoever hangs up on noise may do so before it is all written.
            let _hung_up = socket.write_all(noise).await;
            held.push(socket);
        }
    }
    let statsd = tokio::net::UdpSocket::bind("127.0.0.1:0").await.unwrap();
    for garbage in [&b""[..], b"\xff\xfe\x00", b":::|||", b"a.b:1|x", b"a.b:1|c|#tag", b"\n\n\n"] {
        statsd.send_to(garbage, up.agent().statsd.unwrap()).await.unwrap();
    }
    let bad = |metrics: &std::collections::BTreeMap<String, f64>| {
        sum(metrics, "hydrant_source_refused_total", "source=\"statsd\"") >= 4
    };
    until(up.agent().admin, bad).await;
    let mut producer = Producer::connect(up.agent().grpc).await;
    producer.send(vec![v2::Envelope::log("app", "through")]).await;
    producer.settled().await;
    assert_eq!(producer.last.delivered, 1);
    drop(held);
    up.shutdown().await.unwrap();
}
