//! Receivers over TLS that read, close, reset or are not who they should be: as over plain TCP, every line arrives or is counted.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use hydrant_adapters::syslog::client::Link;
use hydrant_adapters::syslog::trust::Trust;
use hydrant_adapters::{Config, DrainConfig, DrainTls};
use proto::v2;
use rustls::ServerConfig;
use rustls::crypto::aws_lc_rs;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use telemetry::Telemetry;
use tokio::io::{AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use transport::{TestCerts, TlsFiles};

use crate::support::{Rig, check_laws, frame, line, lines, number, receiver, reset};

/// A receiver over TLS with a certificate of its own authority.
struct Receiver {
    listener: TcpListener,
    addr: SocketAddr,
    acceptor: TlsAcceptor,
    certs: TestCerts,
}

impl Receiver {
    /// Asks for no certificate.
    async fn start() -> Self {
        let certs = TestCerts::new();
        let (listener, addr) = receiver().await;
        let acceptor = certs.identity("receiver").https_config().into();
        Self { listener, addr, acceptor, certs }
    }

    /// The next connection, once hands are shaken.
    async fn accept(&self) -> TlsStream<TcpStream> {
        let (stream, _) = self.listener.accept().await.unwrap();
        self.acceptor.accept(stream).await.unwrap()
    }

    /// The `tls` table of a drain that trusts it.
    fn trusting(&self) -> DrainTls {
        DrainTls { ca: Some(self.certs.files("drain").ca), ..DrainTls::default() }
    }

    /// Adapters with a drain to it.
    async fn rig(&self, adjust: impl FnOnce(&mut Config)) -> Rig {
        Rig::start(self.addr, "", |config| {
            over_tls(config, self.addr, self.trusting());
            adjust(config);
        })
        .await
    }
}

/// Turns the rig's drain into one over TLS.
pub(crate) fn over_tls(config: &mut Config, receiver: SocketAddr, tls: DrainTls) {
    config.drains[0].url = format!("syslog-tls://{receiver}?drain-data=all").parse().unwrap();
    config.drains[0].tls = Some(tls);
}

/// What connecting says when the receiver has this configuration, or none for a receiver without TLS.
async fn refusal(server: Option<Arc<ServerConfig>>, tls: &DrainTls, name: &'static str) -> String {
    let (listener, addr) = receiver().await;
    let mut trust = Trust::load(tls, ServerName::try_from(name).unwrap()).unwrap();
    let accept = async {
        let (mut stream, _) = listener.accept().await.unwrap();
        match server {
            Some(server) => drop(TlsAcceptor::from(server).accept(stream).await),
            None => stream.write_all(b"220 mail.example ready\r\n").await.unwrap(),
        }
    };
    let url = format!("syslog-tls://{addr}").parse().unwrap();
    let (opened, ()) = tokio::join!(Link::open(&url, Some(&mut trust), 0, None), accept);
    let error = opened.unwrap_err().to_string();
    error.strip_prefix(&format!("{addr}: ")).unwrap_or_else(|| panic!("{error} does not name {addr}")).to_owned()
}

/// A server with these files, whatever their dates.
pub(crate) fn server_of(files: &TlsFiles) -> Arc<ServerConfig> {
    let chain = CertificateDer::pem_file_iter(&files.cert).unwrap().map(Result::unwrap).collect();
    let key = PrivateKeyDer::from_pem_file(&files.key).unwrap();
    let server = ServerConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(chain, key)
        .unwrap();
    Arc::new(server)
}

fn trusting(ca: &Path) -> DrainTls {
    DrainTls { ca: Some(ca.to_owned()), ..DrainTls::default() }
}

#[tokio::test]
async fn a_receiver_that_is_not_the_right_one_is_refused_in_words() {
    let (ours, theirs) = (TestCerts::new(), TestCerts::new());
    let files = ours.files("receiver");
    let ca = trusting(&files.ca);
    let at = |secs| UNIX_EPOCH + Duration::from_secs(secs);

    let strangers = theirs.files("receiver");
    assert_eq!(
        refusal(Some(server_of(&strangers)), &ca, "127.0.0.1").await,
        format!("the server's certificate is of no authority in {}", files.ca.display())
    );
    let expired = ours.files_valid("old", at(1_000_000_000), at(1_100_000_000));
    assert_eq!(
        refusal(Some(server_of(&expired)), &ca, "127.0.0.1").await,
        "the server's certificate expired at 2004-11-09T11:33:20Z"
    );
    let future = ours.files_valid("new", at(4_000_000_000), at(4_100_000_000));
    assert!(
        refusal(Some(server_of(&future)), &ca, "127.0.0.1").await.contains("not valid before 2096-10-02T07:06:40Z")
    );
    assert_eq!(
        refusal(Some(server_of(&files)), &ca, "logs.example").await,
        "the server's certificate is not for logs.example, but for receiver, localhost, 127.0.0.1"
    );
    assert_eq!(refusal(None, &ca, "127.0.0.1").await, "the server does not speak TLS");
}

#[tokio::test]
async fn a_receiver_that_refuses_us_is_understood() {
    let (ours, theirs) = (TestCerts::new(), TestCerts::new());
    let server = ours.identity("receiver").server_config();
    let ca = trusting(&ours.files("drain").ca);
    assert_eq!(
        refusal(Some(Arc::clone(&server)), &ca, "127.0.0.1").await,
        "the server wants to see a certificate, and none is configured (alert CertificateRequired)"
    );
    let wrong = theirs.files("drain");
    let shows_wrong = DrainTls { cert: Some(wrong.cert.clone()), key: Some(wrong.key), ..ca.clone() };
    let text = refusal(Some(server), &shows_wrong, "127.0.0.1").await;
    assert!(text.starts_with(&format!("the server does not take our certificate {}", wrong.cert.display())), "{text}");
}

#[tokio::test]
async fn no_drain_trusts_what_only_another_one_names() {
    let (one, other) = (Receiver::start().await, Receiver::start().await);
    let mut trust = Trust::load(&one.trusting(), ServerName::try_from("127.0.0.1").unwrap()).unwrap();
    let url = format!("syslog-tls://{}", one.addr).parse().unwrap();
    let (opened, stream) = tokio::join!(Link::open(&url, Some(&mut trust), 0, None), one.accept());
    opened.unwrap();
    drop(stream);
    let text = refusal(Some(other.certs.identity("receiver").https_config()), &one.trusting(), "127.0.0.1").await;
    assert!(text.contains("of no authority in"), "{text}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn lines_of_all_sizes_arrive_once_and_in_order_and_a_stop_says_farewell() {
    const LINES: usize = 10_000;
    let receiver = Receiver::start().await;
    let rig = receiver.rig(|_| {}).await;
    let large = |size: usize| v2::Envelope::log("app", vec![b'x'; size]);
    for size in [16_300, 16_384, 100_000, 900_000] {
        rig.send(&[large(size)]).await;
    }
    let mut stream = BufReader::new(receiver.accept().await);
    for size in [16_300, 16_384, 100_000, 900_000] {
        let frame = frame(&mut stream).await.unwrap();
        assert_eq!(frame.bytes().filter(|byte| *byte == b'x').count(), size);
    }
    let mut sent = 0;
    for expected in 0..LINES {
        while sent < LINES && sent < expected + 4_000 {
            rig.send(&lines(sent..sent + 100)).await;
            sent += 100;
        }
        assert_eq!(line(&mut stream).await, Some(expected));
    }
    let farewell = async {
        // An end without TLS's own word for it would be an error.
        assert_eq!(stream.read(&mut [0]).await.unwrap(), 0);
        stream.shutdown().await.unwrap();
        drop(stream);
    };
    let ((), (drained, telemetry)) = tokio::join!(farewell, rig.shutdown());
    assert_eq!(drained.dropped, 0);
    assert_eq!(number(&telemetry, "hydrant_link_confirmed_total{link=\"drain\"}"), LINES as u64 + 4);
    assert_eq!(number(&telemetry, "hydrant_link_uncertain_total{link=\"drain\"}"), 0);
    assert_eq!(number(&telemetry, "hydrant_drain_connects_total"), 1);
    check_laws(&telemetry);
}

#[tokio::test]
async fn a_receiver_that_closes_after_each_line_or_at_once_gets_every_line() {
    const LINES: usize = 30;
    let receiver = Receiver::start().await;
    let rig = receiver.rig(|_| {}).await;
    let mut received = 0;
    for i in 0..LINES {
        rig.send(&lines(i..i + 1)).await;
        if i % 10 == 5 {
            drop(receiver.accept().await);
        }
        let mut stream = receiver.accept().await;
        loop {
            received += 1;
            // A line of an earlier connection may come again.
            if line(&mut stream).await.unwrap() == i {
                break;
            }
        }
        if i % 2 == 0 {
            stream.shutdown().await.unwrap();
        }
    }
    drop(receiver);
    let (_, telemetry) = rig.shutdown().await;
    let requeued = number(&telemetry, "hydrant_link_requeued_total{link=\"drain\"}");
    assert!(received - LINES as u64 <= requeued, "{received} lines, {requeued} requeued");
    assert_eq!(number(&telemetry, "hydrant_delivered_envelopes_total{stage=\"drain\"}"), LINES as u64);
    check_laws(&telemetry);
}

#[tokio::test]
async fn a_half_close_while_idle_costs_no_line() {
    let receiver = Receiver::start().await;
    let rig = receiver.rig(|_| {}).await;
    for i in 0..6 {
        rig.send(&lines(i..i + 1)).await;
        let mut stream = receiver.accept().await;
        assert_eq!(line(&mut stream).await, Some(i));
        if i % 2 == 0 {
            // Its farewell alone, with an open socket: it gets ours.
            stream.get_mut().1.send_close_notify();
            stream.flush().await.unwrap();
            assert_eq!(stream.read(&mut [0]).await.unwrap(), 0);
        } else {
            // Both, and the drain closes its side at once, without a line to send.
            stream.shutdown().await.unwrap();
            assert_eq!(stream.get_mut().0.read(&mut [0]).await.unwrap(), 0);
        }
    }
    drop(receiver);
    let (_, telemetry) = rig.shutdown().await;
    assert_eq!(number(&telemetry, "hydrant_link_requeued_total{link=\"drain\"}"), 0);
    assert_eq!(number(&telemetry, "hydrant_link_confirmed_total{link=\"drain\"}"), 6);
    check_laws(&telemetry);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_reset_in_full_flow_costs_no_line() {
    const LINES: usize = 9_000;
    let receiver = Receiver::start().await;
    let rig = receiver.rig(|_| {}).await;
    for start in (0..LINES).step_by(100) {
        rig.send(&lines(start..start + 100)).await;
    }
    let mut received = BTreeSet::new();
    let mut count = 0;
    for read_before_reset in [500, 1, 0, 1000] {
        let mut stream = receiver.accept().await;
        for _ in 0..read_before_reset {
            received.insert(line(&mut stream).await.unwrap());
            count += 1;
        }
        stream.read_exact(&mut [0; 10]).await.unwrap();
        reset(stream.into_inner().0);
    }
    let mut stream = BufReader::new(receiver.accept().await);
    while received.len() < LINES {
        received.insert(line(&mut stream).await.unwrap());
        count += 1;
    }
    assert_eq!(received, (0..LINES).collect());
    drop((stream, receiver));
    let (_, telemetry) = rig.shutdown().await;
    let requeued = number(&telemetry, "hydrant_link_requeued_total{link=\"drain\"}");
    assert!(requeued > 0 && (count - LINES) as u64 <= requeued, "{count} lines, {requeued} requeued");
    check_laws(&telemetry);
}

#[tokio::test]
async fn what_a_receiver_says_is_thrown_away() {
    let receiver = Receiver::start().await;
    let rig = receiver.rig(|_| {}).await;
    rig.send(&lines(0..1)).await;
    let mut stream = receiver.accept().await;
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
    let mut receiver = Receiver::start().await;
    (receiver.listener, receiver.addr) = (socket.listen(16).unwrap(), addr);
    let rig = receiver.rig(|config| config.flush_timeout = Duration::from_millis(50)).await;
    let large = v2::Envelope::log("app", vec![b'x'; 100_000]);
    rig.send(&vec![large; 70]).await;
    let mut stream = receiver.accept().await;
    stream.read_exact(&mut [0; 10]).await.unwrap();
    let (drained, telemetry) = rig.shutdown().await;
    assert!(drained.dropped > 0, "{drained:?}");
    assert_eq!(number(&telemetry, "hydrant_received_envelopes_total{stage=\"drain\"}"), 70);
    check_laws(&telemetry);
    drop(stream);
}

#[tokio::test]
async fn skipping_the_check_takes_anybody_and_shows() {
    let receiver = Receiver::start().await;
    let rig = receiver
        .rig(|config| {
            config.drains[0].tls = Some(DrainTls {
                server_name: Some("somebody.else".to_owned()),
                insecure_skip_verify: true,
                ..DrainTls::default()
            });
        })
        .await;
    rig.send(&lines(0..1)).await;
    assert_eq!(line(&mut receiver.accept().await).await, Some(0));
    assert_eq!(rig.number("hydrant_insecure_mode{choice=\"adapters.drains.tls.insecure_skip_verify\"}"), 1);
}

#[tokio::test]
async fn files_are_checked_before_anything_runs_and_their_end_shows() {
    let certs = TestCerts::new();
    let until = UNIX_EPOCH + Duration::from_secs(4_000_000_000);
    let files = certs.files_valid("drain", SystemTime::now() - Duration::from_secs(60), until);
    let config = |tls: DrainTls| {
        let mut drain = DrainConfig::new("papertrail", "syslog-tls://user:canary@127.0.0.1:1".parse().unwrap());
        drain.tls = Some(tls);
        Config { drains: vec![drain], ..Config::for_test() }
    };
    let good =
        DrainTls { ca: Some(files.ca), cert: Some(files.cert.clone()), key: Some(files.key), ..DrainTls::default() };
    let gone = certs.dir().join("gone.pem");
    let bad = DrainTls { ca: Some(gone.clone()), ..good.clone() };
    let error = config(bad).bind(&Telemetry::default()).await.unwrap_err().to_string();
    assert!(
        error.starts_with(&format!("adapters.drains: tls of the drain \"papertrail\": ca {}: ", gone.display()))
            && error.contains("must be a PEM file")
            && !error.contains("canary"),
        "{error}"
    );
    let bad = DrainTls { key: Some(certs.files("other").key), ..good.clone() };
    let error = config(bad).bind(&Telemetry::default()).await.unwrap_err().to_string();
    assert!(error.contains("\"papertrail\"") && error.contains("does not belong to cert"), "{error}");

    let telemetry = Telemetry::default();
    let server = config(good).bind(&telemetry).await.unwrap();
    let handle = server.spawn();
    let family = "hydrant_certificate_not_after_timestamp_seconds{certificate=\"drain_";
    let shown = loop {
        let shown = telemetry.render();
        if shown.contains(family) {
            break shown;
        }
        tokio::task::yield_now().await;
    };
    let line = shown.lines().find(|line| line.starts_with(family)).unwrap_or_else(|| panic!("{shown}"));
    let label = line.strip_prefix(family).and_then(|rest| rest.split('"').next()).unwrap();
    assert!(line.ends_with(" 4000000000"), "{line}");
    assert!(shown.contains(&format!("hydrant_drain_state{{drain=\"{label}\"}}")), "{label} is the drain's label");
    handle.shutdown().await.unwrap();
}
