//! Who is let in, who is not, and that neither concerns the others.

use std::sync::Arc;
use std::time::Duration;

use hydrant_transport::{Budget, ChannelOptions, Identity, Refused, Security, TestCerts, TlsFiles, connect};
use rustls::pki_types::ServerName;
use rustls::pki_types::pem::PemObject;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::support::{ask, grpc_server, listener, patiently, until};

#[tokio::test]
async fn a_client_of_our_authority_is_served_and_known() {
    let certs = TestCerts::new();
    let (server, stats) = grpc_server(listener(), Security::MutualTls(certs.identity("doppler")));
    let options = ChannelOptions::tls(certs.identity("agent"), "doppler");
    let channel = connect(&server.addrs().into(), &options).await.unwrap();
    assert_eq!(ask(&channel, "/peer").await.unwrap(), "200 tls=true cert=true from=127.0.0.1");
    assert_eq!((stats.accepted(), stats.open(), stats.handshake_failed()), (1, 1, 0));
    drop(channel);
    server.shutdown().await.unwrap();
    assert_eq!(stats.open(), 0);
}

#[tokio::test]
async fn a_plain_client_is_served_on_a_plain_port() {
    let (server, _stats) = grpc_server(listener(), Security::Plain);
    let channel = connect(&server.addrs().into(), &ChannelOptions::default()).await.unwrap();
    assert_eq!(ask(&channel, "/peer").await.unwrap(), "200 tls=false cert=false from=127.0.0.1");
}

#[tokio::test]
async fn a_client_of_another_authority_is_refused() {
    let (ours, theirs) = (TestCerts::new(), TestCerts::new());
    let (server, stats) = grpc_server(listener(), Security::MutualTls(ours.identity("doppler")));
    // It trusts us, so that only our side can refuse.
    let stranger = TlsFiles { ca: ours.files("x").ca, ..theirs.files("agent") };
    let options = ChannelOptions::tls(Identity::load(&stranger).unwrap(), "doppler");
    // In TLS 1.3 the client's own handshake ends before the server has judged: the refusal may come at the first request.
    if let Ok(channel) = connect(&server.addrs().into(), &options).await {
        ask(&channel, "/peer").await.unwrap_err();
    }
    until(|| stats.handshake_failed() >= 1).await;
    let options = ChannelOptions::tls(ours.identity("agent"), "doppler");
    let channel = connect(&server.addrs().into(), &options).await.unwrap();
    assert!(ask(&channel, "/peer").await.unwrap().starts_with("200"), "others are not affected");
}

#[tokio::test]
async fn a_client_without_a_certificate_is_refused() {
    let certs = TestCerts::new();
    let (server, stats) = grpc_server(listener(), Security::MutualTls(certs.identity("doppler")));
    let client = client_config(&certs, rustls::DEFAULT_VERSIONS);
    let socket = TcpStream::connect(server.addrs()).await.unwrap();
    let name = ServerName::try_from("doppler").unwrap();
    let refused = async {
        let mut stream = TlsConnector::from(Arc::new(client)).connect(name, socket).await?;
        stream.read_u8().await
    };
    let error = patiently(refused).await.unwrap_err();
    assert!(error.to_string().contains("CertificateRequired"), "{error}");
    until(|| stats.handshake_failed() == 1).await;
}

#[tokio::test]
async fn a_server_of_another_authority_or_name_is_not_believed() {
    let (ours, theirs) = (TestCerts::new(), TestCerts::new());
    let (server, _stats) = grpc_server(listener(), Security::MutualTls(ours.identity("doppler")));
    let address = server.addrs().into();
    connect(&address, &ChannelOptions::tls(theirs.identity("agent"), "doppler")).await.unwrap_err();
    connect(&address, &ChannelOptions::tls(ours.identity("agent"), "metron")).await.unwrap_err();
    connect(&address, &ChannelOptions::tls(ours.identity("agent"), "doppler")).await.unwrap();
}

#[tokio::test]
async fn tls_1_2_works_with_the_contracts_suites_only() {
    let certs = TestCerts::new();
    let (server, _stats) = grpc_server(listener(), Security::Https(certs.server_identity("doppler")));
    let shake = async |client: rustls::ClientConfig| {
        let socket = TcpStream::connect(server.addrs()).await.unwrap();
        let name = ServerName::try_from("doppler").unwrap();
        patiently(TlsConnector::from(Arc::new(client)).connect(name, socket)).await
    };
    let stream = shake(client_config(&certs, &[&rustls::version::TLS12])).await.unwrap();
    let suite = stream.get_ref().1.negotiated_cipher_suite().unwrap();
    assert!(format!("{suite:?}").contains("GCM"), "{suite:?}");

    use rustls::crypto::aws_lc_rs::{cipher_suite, default_provider};
    let chacha_only = rustls::crypto::CryptoProvider {
        cipher_suites: vec![cipher_suite::TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256],
        ..default_provider()
    };
    let client = rustls::ClientConfig::builder_with_provider(Arc::new(chacha_only))
        .with_protocol_versions(&[&rustls::version::TLS12])
        .unwrap()
        .with_root_certificates(roots(&certs))
        .with_no_client_auth();
    shake(client).await.unwrap_err();
}

#[tokio::test]
async fn half_open_and_garbage_connections_hold_up_nobody() {
    let certs = TestCerts::new();
    let (server, stats) = grpc_server(listener(), Security::MutualTls(certs.identity("doppler")));
    let mut silent = Vec::new();
    for _ in 0..100 {
        silent.push(TcpStream::connect(server.addrs()).await.unwrap());
    }
    let mut garbage = TcpStream::connect(server.addrs()).await.unwrap();
    garbage.write_all(b"GET / HTTP/1.1\r\n\r\n").await.unwrap();
    until(|| stats.handshake_failed() == 1).await;

    let options = ChannelOptions::tls(certs.identity("agent"), "doppler");
    let channel = connect(&server.addrs().into(), &options).await.unwrap();
    assert!(ask(&channel, "/peer").await.unwrap().starts_with("200"));
    assert_eq!(stats.open(), 101, "100 in their handshake and the one served");
    server.shutdown().await.unwrap();
    assert_eq!(stats.open(), 0, "a stop does not wait for handshakes");
    drop(silent);
}

/// The clock is paused: the handshake's deadline is the only timer, so the idle runtime jumps to it.
#[tokio::test(start_paused = true)]
async fn a_handshake_has_ten_seconds() {
    let certs = TestCerts::new();
    let (server, stats) = grpc_server(listener(), Security::MutualTls(certs.identity("doppler")));
    let begun = tokio::time::Instant::now();
    let mut silent = TcpStream::connect(server.addrs()).await.unwrap();
    assert_eq!(silent.read(&mut [0; 16]).await.unwrap(), 0, "the server hangs up");
    assert_eq!(begun.elapsed().as_secs(), 10);
    until(|| stats.handshake_failed() == 1 && stats.open() == 0).await;
}

#[tokio::test]
async fn connections_beyond_the_budget_are_refused_and_places_come_back() {
    let budget = Budget::new(2, 64);
    let (server, stats) = grpc_server(listener().with_budget(budget.clone()), Security::Plain);
    let first = TcpStream::connect(server.addrs()).await.unwrap();
    let _second = TcpStream::connect(server.addrs()).await.unwrap();
    until(|| budget.held() == 2).await;
    let mut third = TcpStream::connect(server.addrs()).await.unwrap();
    let closed = patiently(third.read(&mut [0; 16])).await;
    assert!(matches!(closed, Ok(0) | Err(_)), "{closed:?}");
    assert_eq!(stats.refused(Refused::Connections), 1);
    assert_eq!(stats.refused(Refused::Source), 0);

    drop(first);
    until(|| budget.held() == 1).await;
    let channel = connect(&server.addrs().into(), &ChannelOptions::default()).await.unwrap();
    assert!(ask(&channel, "/peer").await.unwrap().starts_with("200"));
}

/// A client that goes on writing hears the last word and no error; one that never closes is not waited for for long.
#[tokio::test]
async fn the_last_word_arrives() {
    let (listener, tracker, stop) = (listener(), TaskTracker::new(), CancellationToken::new());
    let addr = listener.addr();
    let mut incoming = listener.incoming(Security::Plain, &tracker, stop.clone());
    let mut client = TcpStream::connect(addr).await.unwrap();
    let mut conn = patiently(incoming.next()).await.unwrap();
    let serving = tracker.spawn(async move {
        conn.write_all(b"bye").await.unwrap();
        conn.shutdown().await.unwrap();
    });
    let mut said = String::new();
    patiently(client.read_to_string(&mut said)).await.unwrap();
    assert_eq!(said, "bye");
    // More than sockets hold: somebody reads it.
    patiently(client.write_all(&vec![1; 16 << 20])).await.unwrap();
    // It has not closed, and will not.
    patiently(serving).await.unwrap();
}

/// Reads frames until the last GOAWAY has come, and answers pings as the graceful end of a connection asks (RFC 9113 §6.7, §6.8).
async fn until_told_to_go(client: &mut TcpStream) {
    const PING: u8 = 6;
    const GOAWAY: u8 = 7;
    loop {
        let mut head = [0; 9];
        patiently(client.read_exact(&mut head)).await.unwrap();
        let mut payload = vec![0; u32::from_be_bytes([0, head[0], head[1], head[2]]) as usize];
        patiently(client.read_exact(&mut payload)).await.unwrap();
        match head[3] {
            PING if head[4] == 0 => {
                head[4] = 1;
                client.write_all(&[&head[..], &payload].concat()).await.unwrap();
            }
            // The first one names the highest number that a stream may have: more may come.
            GOAWAY if !payload.starts_with(&i32::MAX.to_be_bytes()) => return,
            _ => {}
        }
    }
}

/// At a stop a gRPC client that is told to go closes when it has read what it has, not when the server has written it.
#[tokio::test]
async fn a_grpc_client_is_told_to_go_and_closes_first() {
    for closes in [true, false] {
        let (server, stats) = grpc_server(listener(), Security::Plain);
        let mut client = TcpStream::connect(server.addrs()).await.unwrap();
        // The preface and empty SETTINGS.
        client.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0").await.unwrap();
        until(|| stats.open() == 1).await;
        let stopped = TaskTracker::new().spawn(server.shutdown());
        until_told_to_go(&mut client).await;
        let mut rest = [0; 64];
        if closes {
            // Long enough for what the server does by itself to have happened; frames may come, the end does not.
            let read = async { while client.read(&mut rest).await.unwrap() > 0 {} };
            assert!(tokio::time::timeout(Duration::from_secs(1), read).await.is_err(), "the server closed first");
            client.shutdown().await.unwrap();
        }
        while patiently(client.read(&mut rest)).await.unwrap() > 0 {}
        patiently(stopped).await.unwrap().unwrap();
        assert_eq!(stats.open(), 0);
    }
}

#[tokio::test]
async fn stopping_or_dropping_closes_the_socket() {
    for by_token in [true, false] {
        let (listener, tracker, stop) = (listener(), TaskTracker::new(), CancellationToken::new());
        let addr = listener.addr();
        let mut incoming = listener.incoming(Security::Plain, &tracker, stop.clone());
        let _client = TcpStream::connect(addr).await.unwrap();
        let served = patiently(incoming.next()).await.unwrap();
        if by_token {
            stop.cancel();
            assert!(patiently(incoming.next()).await.is_none());
        } else {
            drop(incoming);
        }
        tracker.close();
        patiently(tracker.wait()).await;
        assert!(TcpStream::connect(addr).await.is_err(), "nobody listens");
        drop(served);
    }
}

fn roots(certs: &TestCerts) -> rustls::RootCertStore {
    let mut roots = rustls::RootCertStore::empty();
    roots.add(rustls::pki_types::CertificateDer::from_pem_file(certs.dir().join("ca.pem")).unwrap()).unwrap();
    roots
}

fn client_config(certs: &TestCerts, versions: &[&'static rustls::SupportedProtocolVersion]) -> rustls::ClientConfig {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    rustls::ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(versions)
        .unwrap()
        .with_root_certificates(roots(certs))
        .with_no_client_auth()
}

#[tokio::test]
async fn where_a_client_certificate_is_optional_a_foreign_one_is_refused_all_the_same() {
    let (ours, theirs) = (TestCerts::new(), TestCerts::new());
    let (server, stats) = grpc_server(listener(), Security::OptionalClientTls(ours.identity("doppler")));
    let address = server.addrs().into();
    connect(&address, &ChannelOptions::tls(ours.identity("agent"), "doppler")).await.unwrap();

    let name = ServerName::try_from("doppler").unwrap();
    let client = Arc::new(client_config(&ours, &[&rustls::version::TLS13]));
    let socket = TcpStream::connect(server.addrs()).await.unwrap();
    // An HTTP/2 server speaks first: a byte says that the handshake was accepted.
    let mut without = patiently(TlsConnector::from(client).connect(name, socket)).await.unwrap();
    patiently(without.read_u8()).await.unwrap();

    let stranger = TlsFiles { ca: ours.files("x").ca, ..theirs.files("agent") };
    let options = ChannelOptions::tls(Identity::load(&stranger).unwrap(), "doppler");
    if let Ok(channel) = connect(&address, &options).await {
        ask(&channel, "/peer").await.unwrap_err();
    }
    until(|| stats.handshake_failed() >= 1).await;
}
