//! Channels: lazy, failing, and back after a loss.

use hydrant_transport::{Address, ChannelOptions, Security, TestCerts, bind, channel, connect};
use tokio::io::AsyncReadExt;

use super::support::{ask, grpc_server, listener, patiently};

#[tokio::test]
async fn a_lazy_channel_waits_for_its_first_call_and_comes_back_after_a_loss() {
    let first = listener();
    let addr = first.addr();
    drop(first);
    let channel = channel(&addr.into(), &ChannelOptions::default());
    patiently(ask(&channel, "/peer")).await.unwrap_err();

    for _ in 0..2 {
        let (server, _stats) = grpc_server(bind("test.listen", addr).unwrap(), Security::Plain);
        // The call that meets the old connection may fail; the one after it connects anew.
        let answer = match patiently(ask(&channel, "/peer")).await {
            Ok(answer) => answer,
            Err(_) => patiently(ask(&channel, "/peer")).await.unwrap(),
        };
        assert!(answer.starts_with("200"), "{answer}");
        patiently(server.shutdown()).await.unwrap();
    }
}

#[tokio::test]
async fn a_name_is_looked_up_and_every_address_tried() {
    let (server, _stats) = grpc_server(listener(), Security::Plain);
    let address: Address = format!("localhost:{}", server.addrs().port()).parse().unwrap();
    let channel = patiently(connect(&address, &ChannelOptions::default())).await.unwrap();
    assert!(ask(&channel, "/peer").await.unwrap().starts_with("200"));
}

#[tokio::test]
async fn an_unknown_name_is_an_error() {
    let address: Address = "no-such-host.invalid:8082".parse().unwrap();
    patiently(connect(&address, &ChannelOptions::default())).await.unwrap_err();
}

/// The clock is paused: the connect timeout is the first timer, so the idle runtime jumps to it.
#[tokio::test(start_paused = true)]
async fn a_peer_that_accepts_and_says_nothing_costs_five_seconds() {
    let silent = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = silent.local_addr().unwrap().into();
    let options = ChannelOptions::tls(TestCerts::new().identity("agent"), "doppler");
    let begun = tokio::time::Instant::now();
    let (outcome, peer) = tokio::join!(connect(&address, &options), async {
        let (mut peer, _) = silent.accept().await.unwrap();
        let mut hello = Vec::new();
        peer.read_to_end(&mut hello).await.unwrap();
        hello
    });
    outcome.unwrap_err();
    assert!(!peer.is_empty(), "it had begun a handshake");
    assert_eq!(begun.elapsed().as_secs(), 5);
}
