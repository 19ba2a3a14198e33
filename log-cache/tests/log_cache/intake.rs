//! The syslog intake over real sockets: what a bad line, a bad frame, a silent sender and a stop cost.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use log_cache::{Config, Framing, Node, Read, Store, SyslogConfig, SyslogKeys, SyslogTls};
use prost::Message;
use proto::logcache::v1;
use proto::v2::{Envelope, EnvelopeBatch};
use rustls::pki_types::ServerName;
use telemetry::Telemetry;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinHandle;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_util::sync::CancellationToken;
use transport::{Identity, TestCerts, TlsFiles};

const KEYS: SyslogKeys = SyslogKeys {
    listen: "log_cache.syslog.listen",
    tls: "log_cache.syslog.tls",
    insecure_plaintext: "log_cache.syslog.insecure_plaintext",
    name: "syslog",
};

/// A running intake in front of a store.
pub(crate) struct Rig {
    pub(crate) addr: SocketAddr,
    pub(crate) store: Store,
    pub(crate) telemetry: Telemetry,
    stop: CancellationToken,
    task: JoinHandle<()>,
}

impl Rig {
    pub(crate) fn start(adjust: impl FnOnce(&mut SyslogConfig)) -> Self {
        let mut config = SyslogConfig::for_test();
        adjust(&mut config);
        let (telemetry, stop) = (Telemetry::default(), CancellationToken::new());
        let store = Store::new(&Config::with_budget(64 << 20));
        let intake = config.bind(KEYS, &telemetry).unwrap().unwrap();
        let addr = intake.addr();
        #[expect(clippy::disallowed_methods, reason = "the root task of a test's server")]
        let task = tokio::spawn(intake.serve(Node::from(store.clone()), stop.clone()));
        Self { addr, store, telemetry, stop, task }
    }

    /// Sends `bytes` on a connection of their own, ends it, and waits until the intake has too: then all is in the store.
    pub(crate) async fn send(&self, bytes: &[u8]) {
        let stream = TcpStream::connect(self.addr).await.unwrap();
        send(stream, bytes).await;
    }

    /// What the store has of a source.
    pub(crate) fn read(&self, source_id: &str) -> Vec<Envelope> {
        let request = v1::ReadRequest {
            source_id: source_id.to_owned(),
            start_time: i64::MIN,
            end_time: i64::MAX,
            limit: 1000,
            ..v1::ReadRequest::default()
        };
        let page = self.store.read(&Read::parse(request, 0).unwrap()).unwrap();
        EnvelopeBatch::decode(page.batch).unwrap().batch
    }

    /// Waits for so many envelopes of a source.
    pub(crate) async fn wait_for(&self, source_id: &str, count: usize) -> Vec<Envelope> {
        loop {
            let found = self.read(source_id);
            if found.len() >= count {
                return found;
            }
            tokio::task::yield_now().await;
        }
    }

    pub(crate) fn number(&self, series: &str) -> u64 {
        let text = self.telemetry.render();
        let line = text.lines().find_map(|line| line.strip_prefix(series)?.strip_prefix(' '));
        line.unwrap_or_else(|| panic!("{series} is missing from\n{text}")).parse().unwrap()
    }

    fn dropped(&self, reason: &str) -> u64 {
        self.number(&format!("hydrant_dropped_envelopes_total{{stage=\"log_cache_syslog\",reason=\"{reason}\"}}"))
    }

    fn ended(&self, reason: &str) -> u64 {
        self.number(&format!("hydrant_syslog_connections_ended_total{{reason=\"{reason}\"}}"))
    }

    /// Received is delivered and dropped, and what was delivered was offered to the store.
    fn check_law(&self) {
        let stage = |name: &str| self.number(&format!("hydrant_{name}_envelopes_total{{stage=\"log_cache_syslog\"}}"));
        let reasons = ["decode_error", "oversize", "too_many", "convert_error", "peer_lost"];
        let dropped: u64 = reasons.into_iter().map(|reason| self.dropped(reason)).sum();
        assert_eq!(stage("received"), stage("delivered") + dropped);
        assert_eq!(stage("delivered"), self.store.numbers().offered);
    }
}

async fn send(mut stream: impl AsyncRead + AsyncWrite + Unpin, bytes: &[u8]) {
    // An intake that is lost closes at once: what it does not take it need not be sent, and it may answer with a reset.
    let _sent = stream.write_all(bytes).await;
    let _ended = stream.shutdown().await;
    let _closed = stream.read_to_end(&mut Vec::new()).await;
}

/// A log line of the instance 0.
fn line(source_id: &str, text: &str) -> String {
    format!("<14>1 2024-04-05T19:34:38.901234Z host {source_id} [APP/0] - - {text}\n")
}

/// With its length before it.
fn framed(line: &str) -> String {
    format!("{} {line}", line.len())
}

fn payloads(envelopes: &[Envelope]) -> Vec<String> {
    envelopes.iter().map(|envelope| String::from_utf8_lossy(envelope.payload()).into_owned()).collect()
}

#[tokio::test]
async fn a_bad_line_costs_only_itself() {
    let rig = Rig::start(|_| {});
    let no_instance = line("a", "x").replace("[APP/0]", "-");
    let no_message = line("a", "").trim_end().to_owned();
    let mut stream = TcpStream::connect(rig.addr).await.unwrap();
    for (i, bad) in ["rubbish", &no_instance, &no_message].into_iter().enumerate() {
        let both = framed(bad) + &framed(&line("a", &format!("good {i}")));
        stream.write_all(both.as_bytes()).await.unwrap();
    }
    assert_eq!(payloads(&rig.wait_for("a", 3).await), ["good 0", "good 1", "good 2"]);
    assert_eq!((rig.dropped("decode_error"), rig.dropped("convert_error")), (1, 2));
    assert_eq!((rig.number("ingress"), rig.number("invalid_ingress")), (6, 3));
    rig.check_law();
}

#[tokio::test]
async fn what_cannot_be_delimited_ends_its_connection_and_no_other() {
    let rig = Rig::start(|_| {});
    let mut other = TcpStream::connect(rig.addr).await.unwrap();
    other.write_all(framed(&line("b", "one")).as_bytes()).await.unwrap();
    rig.wait_for("b", 1).await;
    rig.send(format!("{}no length {}", framed(&line("a", "before")), framed(&line("a", "after"))).as_bytes()).await;
    assert_eq!(payloads(&rig.read("a")), ["before"]);
    assert_eq!((rig.ended("framing"), rig.dropped("decode_error")), (1, 1));
    other.write_all(framed(&line("b", "two")).as_bytes()).await.unwrap();
    assert_eq!(payloads(&rig.wait_for("b", 2).await), ["one", "two"]);
    rig.check_law();
}

#[tokio::test]
async fn a_message_over_the_bound_is_passed_over() {
    for framing in [Framing::OctetCounting, Framing::LineFeed] {
        let rig = Rig::start(|config| config.framing = framing);
        let sent = |text: &str| match framing {
            Framing::OctetCounting => framed(&line("a", text)),
            Framing::LineFeed => line("a", text),
        };
        rig.send([sent("before"), sent(&"x".repeat(300_000)), sent("after")].concat().as_bytes()).await;
        assert_eq!(payloads(&rig.read("a")), ["before", "after"]);
        assert_eq!((rig.dropped("oversize"), rig.ended("framing")), (1, 0));
        rig.check_law();
    }
}

#[tokio::test]
async fn with_line_feeds_the_end_of_the_stream_ends_the_last_message() {
    let rig = Rig::start(|config| config.framing = Framing::LineFeed);
    rig.send(format!("\n{}\r\n{}", line("a", "one"), line("a", "two").trim_end()).as_bytes()).await;
    assert_eq!(payloads(&rig.read("a")), ["one", "two"]);
    rig.check_law();
}

#[tokio::test]
async fn a_message_that_its_sender_did_not_finish_is_counted() {
    let rig = Rig::start(|_| {});
    rig.send(format!("{}200 <14>1 -", framed(&line("a", "one"))).as_bytes()).await;
    assert_eq!((rig.read("a").len(), rig.dropped("peer_lost"), rig.ended("incomplete")), (1, 1, 1));
    rig.check_law();
}

#[tokio::test]
async fn who_sends_no_whole_message_is_not_waited_for() {
    let rig = Rig::start(|config| config.idle_timeout = Duration::from_millis(50));
    let mut stream = TcpStream::connect(rig.addr).await.unwrap();
    stream.write_all(b"50 <14>1").await.unwrap();
    let _closed = stream.read_to_end(&mut Vec::new()).await;
    assert_eq!((rig.ended("idle"), rig.dropped("peer_lost")), (1, 1));
    rig.check_law();
}

#[tokio::test]
async fn connections_over_the_bound_are_closed() {
    let rig = Rig::start(|config| config.max_connections = 1.try_into().unwrap());
    let mut first = TcpStream::connect(rig.addr).await.unwrap();
    first.write_all(framed(&line("a", "one")).as_bytes()).await.unwrap();
    rig.wait_for("a", 1).await;
    rig.send(b"").await;
    assert_eq!(rig.ended("too_many"), 1);
    drop(first);
    while rig.read("b").is_empty() {
        rig.send(framed(&line("b", "two")).as_bytes()).await;
    }
}

#[tokio::test]
async fn a_message_without_a_time_has_that_of_its_receipt() {
    let rig = Rig::start(|_| {});
    rig.send(framed("<14>1 - - a 0 - - x").as_bytes()).await;
    let now = std::time::UNIX_EPOCH.elapsed().unwrap().as_nanos();
    let age = now - u128::try_from(rig.read("a")[0].timestamp).unwrap();
    assert!(age < 60_000_000_000, "{age} ns");
}

#[tokio::test]
async fn a_stop_takes_what_has_arrived() {
    let rig = Rig::start(|_| {});
    let mut stream = TcpStream::connect(rig.addr).await.unwrap();
    stream.write_all(framed(&line("a", "first")).as_bytes()).await.unwrap();
    rig.wait_for("a", 1).await;
    let many: String = (0..5_000).map(|i| framed(&line("a", &i.to_string()))).collect();
    stream.write_all(many.as_bytes()).await.unwrap();
    rig.stop.cancel();
    let Rig { task, store, .. } = rig;
    task.await.unwrap();
    assert_eq!(store.numbers().accepted, 5_001);
}

#[tokio::test]
async fn envelopes_with_more_than_one_may_have_are_counted() {
    let rig = Rig::start(|_| {});
    let tags: String = (0..200).map(|i| format!(" t{i}=\"\"")).collect();
    let not_text = b"<14>1 - h a 0 - [tags@1 a=\"\xff\"] x";
    let mut bytes = framed(&format!("<14>1 - h a 0 - [tags@1{tags}] x")).into_bytes();
    bytes.extend(format!("{} ", not_text.len()).bytes());
    bytes.extend(not_text);
    rig.send(&bytes).await;
    assert_eq!((rig.dropped("too_many"), rig.dropped("decode_error"), rig.read("a").len()), (1, 1, 0));
    rig.check_law();
}

#[tokio::test]
async fn plain_text_from_other_machines_must_be_asked_for() {
    let mut config = SyslogConfig { listen: "0.0.0.0:0".parse().unwrap(), ..SyslogConfig::for_test() };
    let telemetry = Telemetry::default();
    let error = config.bind(KEYS, &telemetry).unwrap_err().to_string();
    assert_eq!(
        error,
        "log_cache.syslog.listen: 0.0.0.0:0 can be reached from outside, and log_cache.syslog.tls is not set; set it, \
         listen on loopback, or say log_cache.syslog.insecure_plaintext = true"
    );
    config.insecure_plaintext = true;
    config.bind(KEYS, &telemetry).unwrap().unwrap();
    let choice = "hydrant_insecure_mode{choice=\"log_cache.syslog.insecure_plaintext\"} 1";
    assert!(telemetry.render().contains(choice));
    config.enabled = false;
    assert!(config.bind(KEYS, &telemetry).unwrap().is_none());
}

/// Connects over TLS to `addr`, as senders do that speak no protocol of TLS's list.
async fn over_tls(addr: SocketAddr, files: &TlsFiles) -> TlsStream<TcpStream> {
    let mut config = (*Identity::load(files).unwrap().client_config()).clone();
    config.alpn_protocols.clear();
    let stream = TcpStream::connect(addr).await.unwrap();
    let name = ServerName::try_from("log-cache").unwrap();
    TlsConnector::from(Arc::new(config)).connect(name, stream).await.unwrap()
}

#[tokio::test]
async fn over_tls_with_authorities_only_their_clients_are_let_in() {
    let (certs, strangers) = (TestCerts::new(), TestCerts::new());
    let own = certs.files("log-cache");
    let tls = SyslogTls { cert: own.cert, key: own.key, ca: Some(own.ca.clone()) };
    let rig = Rig::start(|config| config.tls = Some(tls));
    send(over_tls(rig.addr, &certs.files("agent")).await, framed(&line("a", "ours")).as_bytes()).await;
    assert_eq!(payloads(&rig.read("a")), ["ours"]);
    // They take our certificate; it is we who do not take theirs.
    let stranger = TlsFiles { ca: own.ca, ..strangers.files("agent") };
    send(over_tls(rig.addr, &stranger).await, framed(&line("a", "theirs")).as_bytes()).await;
    assert_eq!(rig.number("hydrant_tls_handshakes_failed_total{listener=\"syslog\"}"), 1);
    assert_eq!(rig.read("a").len(), 1);
}

#[tokio::test]
async fn over_tls_without_authorities_senders_show_nothing() {
    let certs = TestCerts::new();
    let TlsFiles { cert, key, .. } = certs.files("log-cache");
    let rig = Rig::start(|config| config.tls = Some(SyslogTls { cert, key, ca: None }));
    send(over_tls(rig.addr, &certs.files("agent")).await, framed(&line("a", "hello")).as_bytes()).await;
    assert_eq!(payloads(&rig.read("a")), ["hello"]);
}

#[tokio::test]
async fn a_certificate_that_cannot_be_used_is_named() {
    let mut config = SyslogConfig::for_test();
    config.tls = Some(SyslogTls { cert: "/nowhere.pem".into(), key: "/nowhere.key".into(), ca: None });
    let error = config.bind(KEYS, &Telemetry::default()).unwrap_err().to_string();
    assert!(error.starts_with("log_cache.syslog.tls: cert /nowhere.pem: "), "{error}");
}
