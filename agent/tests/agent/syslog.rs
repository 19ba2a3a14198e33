//! Syslog from rsyslog and syslog-ng's loggen, over TCP, TLS and UDP, to the logs that a doppler gets; and from those who mean no good.

use std::collections::BTreeSet;
use std::net::{SocketAddr, TcpListener, UdpSocket};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use hydrant_agent::Config;
use hydrant_agent::syslog::{SyslogConfig, SyslogProtocol, SyslogTls};
use proto::v2;
use proto::v2::envelope::Message;
use telemetry::Telemetry;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::sync::mpsc;
use tokio::time::timeout;
use tokio_util::task::TaskTracker;
use transport::TestCerts;

use super::harness::{doppler, tool};

const PATIENCE: Duration = Duration::from_secs(60);

struct Rig {
    agent: hydrant_agent::Handle,
    addr: SocketAddr,
    received: mpsc::Receiver<v2::Envelope>,
    telemetry: Telemetry,
    _tasks: TaskTracker,
}

impl Rig {
    async fn start(entry: SyslogConfig) -> Self {
        let tasks = TaskTracker::new();
        let (doppler, received) = doppler(&tasks).await;
        let telemetry = Telemetry::default();
        let any = SyslogConfig { listen: "127.0.0.1:0".parse().unwrap(), ..entry };
        let config = Config { syslog: vec![any], ..Config::for_test(doppler) };
        let agent = config.bind(&telemetry).await.unwrap().spawn();
        let addr = agent.addrs().syslog[0];
        Self { agent, addr, received, telemetry, _tasks: tasks }
    }

    async fn next(&mut self) -> v2::Envelope {
        timeout(PATIENCE, self.received.recv()).await.expect("an envelope").expect("the doppler runs")
    }

    async fn connect(&self) -> TcpStream {
        TcpStream::connect(self.addr).await.unwrap()
    }

    /// Stops the agent: everything that had arrived has been counted. The metrics' lines then.
    async fn stop(self) -> (Vec<String>, Vec<v2::Envelope>) {
        assert_eq!(self.agent.shutdown().await.unwrap().dropped, 0);
        let mut received = self.received;
        let rest = std::iter::from_fn(|| received.try_recv().ok()).collect();
        (self.telemetry.render().lines().map(str::to_owned).collect(), rest)
    }
}

fn expect(metrics: &[String], line: &str) {
    assert!(metrics.iter().any(|found| found == line), "{line} is missing from\n{}", metrics.join("\n"));
}

fn said(envelope: &v2::Envelope) -> &str {
    let Some(Message::Log(log)) = &envelope.message else { panic!("no log: {envelope:?}") };
    std::str::from_utf8(&log.payload).unwrap()
}

/// A running rsyslogd that sends the lines of a file, and ends with the test.
struct Rsyslog {
    process: Child,
    _dir: tempfile::TempDir,
}

impl Drop for Rsyslog {
    fn drop(&mut self) {
        let _gone = self.process.kill();
        let _reaped = self.process.wait();
    }
}

impl Rsyslog {
    /// `forward` is how it sends.
    fn start(name: &str, lines: &str, to: SocketAddr, global: &str, forward: &str) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let (at, input) = (dir.path().display(), dir.path().join("input"));
        std::fs::write(&input, lines).unwrap();
        let config = format!(
            "global(workDirectory=\"{at}\" maxMessageSize=\"64k\" localHostname=\"web-1\" {global})\n\
             module(load=\"imfile\")\n\
             input(type=\"imfile\" file=\"{at}/input\" tag=\"shop[42]:\" severity=\"error\" facility=\"local3\")\n\
             action(type=\"omfwd\" target=\"127.0.0.1\" port=\"{}\" {forward})\n",
            to.port(),
        );
        let file = dir.path().join("rsyslog.conf");
        std::fs::write(&file, config).unwrap();
        let process = Command::new(tool(&format!("bin/{name}")))
            .args(["-n", "-i", "NONE", "-f"])
            .arg(&file)
            .current_dir(dir.path())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(std::fs::File::create(dir.path().join("stderr")).unwrap())
            .spawn()
            .unwrap();
        Self { process, _dir: dir }
    }
}

const COUNT: usize = 2_000;

fn numbered() -> String {
    (0..COUNT).map(|i| format!("order {i} of \u{e4}nna\n")).collect()
}

/// Every line once, in order, with what rsyslog says of it.
async fn expect_numbered(rig: &mut Rig) {
    for i in 0..COUNT {
        let envelope = rig.next().await;
        assert_eq!(said(&envelope), format!("order {i} of \u{e4}nna"));
        assert_eq!((envelope.source_id.as_str(), envelope.instance_id.as_str()), ("shop", "web-1"));
        let Some(Message::Log(log)) = &envelope.message else { unreachable!("said above") };
        assert_eq!(log.r#type, i32::from(v2::log::Type::Err), "severity error");
        for (key, value) in [("proc_id", "42"), ("facility", "local3"), ("severity", "err"), ("host", "web-1")] {
            assert_eq!(envelope.tags.get(key).map(String::as_str), Some(value), "{key} in {:?}", envelope.tags);
        }
    }
}

async fn from_rsyslog(forward: &str) {
    let mut rig = Rig::start(SyslogConfig::default()).await;
    let rsyslog = Rsyslog::start("rsyslogd", &numbered(), rig.addr, "", forward);
    expect_numbered(&mut rig).await;
    drop(rsyslog);
    let (metrics, rest) = rig.stop().await;
    assert!(rest.is_empty());
    expect(&metrics, &format!("hydrant_source_envelopes_total{{source=\"syslog\"}} {COUNT}"));
    expect(&metrics, "hydrant_syslog_unparsed_messages_total 0");
}

#[tokio::test]
async fn rsyslog_over_tcp_with_lengths_in_rfc_5424() {
    from_rsyslog("protocol=\"tcp\" TCP_Framing=\"octet-counted\" template=\"RSYSLOG_SyslogProtocol23Format\"").await;
}

#[tokio::test]
async fn rsyslog_over_tcp_with_line_feeds_in_rfc_3164() {
    from_rsyslog("protocol=\"tcp\" TCP_Framing=\"traditional\" template=\"RSYSLOG_TraditionalForwardFormat\"").await;
}

#[tokio::test]
async fn rsyslog_over_tls_with_and_without_a_certificate_of_its_own() {
    let certs = TestCerts::new();
    let (server, client) = (certs.files("agent"), certs.files("rsyslog"));
    for ca in [None, Some(server.ca.clone())] {
        let tls = SyslogTls { cert: server.cert.clone(), key: server.key.clone(), ca };
        let mut rig = Rig::start(SyslogConfig { tls: Some(tls), ..SyslogConfig::default() }).await;
        let show = |path: &Path| path.display().to_string();
        let global = format!(
            "defaultNetstreamDriverCAFile=\"{}\" defaultNetstreamDriverCertFile=\"{}\" defaultNetstreamDriverKeyFile=\"{}\"",
            show(&client.ca),
            show(&client.cert),
            show(&client.key),
        );
        let forward = "protocol=\"tcp\" TCP_Framing=\"octet-counted\" template=\"RSYSLOG_SyslogProtocol23Format\" \
                       StreamDriver=\"ossl\" StreamDriverMode=\"1\" StreamDriverAuthMode=\"x509/certvalid\"";
        let _rsyslog = Rsyslog::start("rsyslogd-tls", &numbered(), rig.addr, &global, forward);
        expect_numbered(&mut rig).await;
        rig.stop().await;
    }
}

#[tokio::test]
async fn rsyslog_over_udp() {
    let entry = SyslogConfig { protocol: SyslogProtocol::Udp, ..SyslogConfig::default() };
    let mut rig = Rig::start(entry).await;
    let forward = "protocol=\"udp\" template=\"RSYSLOG_SyslogProtocol23Format\"";
    let _rsyslog = Rsyslog::start("rsyslogd", &numbered(), rig.addr, "", forward);
    expect_numbered(&mut rig).await;
    let (metrics, _) = rig.stop().await;
    expect(&metrics, &format!("hydrant_source_datagrams_total{{source=\"syslog\"}} {COUNT}"));
}

#[tokio::test]
async fn loggen_in_every_form() {
    let certs = TestCerts::new();
    let files = certs.files("agent");
    let tls = SyslogTls { cert: files.cert, key: files.key, ca: None };
    let cases: [(&[&str], SyslogConfig); 5] = [
        (&["-i", "-S", "-P"], SyslogConfig::default()),
        (&["-i", "-S", "-P", "-F"], SyslogConfig::default()),
        (&["-i", "-S"], SyslogConfig::default()),
        (&["-U", "-P"], SyslogConfig { tls: Some(tls), ..SyslogConfig::default() }),
        (&["-i", "-D"], SyslogConfig { protocol: SyslogProtocol::Udp, ..SyslogConfig::default() }),
    ];
    for (form, entry) in cases {
        let mut rig = Rig::start(entry).await;
        let (port, form) = (rig.addr.port().to_string(), form.join(" "));
        let arguments: Vec<String> = form.split(' ').map(str::to_owned).collect();
        let send = move || {
            let mut command = Command::new(tool("bin/loggen"));
            command.args(["-n", "500", "-r", "5000", "-s", "300", "-Q"]).args(arguments).args(["127.0.0.1", &port]);
            command.output().unwrap()
        };
        let output = tokio::task::spawn_blocking(send).await.unwrap();
        assert!(output.status.success(), "{form}: {}", String::from_utf8_lossy(&output.stderr));
        let mut sequences = BTreeSet::new();
        for _ in 0..500 {
            let envelope = rig.next().await;
            assert_eq!(
                (envelope.source_id.as_str(), envelope.instance_id.as_str()),
                ("prg00000", "localhost"),
                "{form}"
            );
            let text = said(&envelope);
            let sequence = text.strip_prefix("seq: ").unwrap_or_else(|| panic!("{form}: {text}"));
            sequences.insert(sequence[..10].to_owned());
        }
        assert_eq!(sequences.len(), 500, "{form}");
        let (metrics, rest) = rig.stop().await;
        assert!(rest.is_empty(), "{form}");
        expect(&metrics, "hydrant_syslog_unparsed_messages_total 0");
        expect(&metrics, "hydrant_syslog_connections 0");
    }
}

#[tokio::test]
async fn what_is_odd_costs_only_itself() {
    let entry = SyslogConfig { max_message_bytes: 1_000.try_into().unwrap(), ..SyslogConfig::default() };
    let mut rig = Rig::start(entry).await;
    // One that never says anything, one that stops within a message, and one that is reset.
    let silent = rig.connect().await;
    let mut cut = rig.connect().await;
    cut.write_all(b"100 <14>1 - h a - - - only").await.unwrap();
    cut.shutdown().await.unwrap();
    let mut gone = rig.connect().await;
    gone.write_all(b"<14>1 - h a - - - no end").await.unwrap();
    gone.set_zero_linger().unwrap();
    drop(gone);
    assert_eq!(cut.read(&mut [0; 1]).await.unwrap(), 0, "closed on our side too");

    let mut stream = rig.connect().await;
    let long = "x".repeat(5_000);
    stream.write_all(format!("<14>1 - h a - - - {long}\nnot syslog\n5000 {long}").as_bytes()).await.unwrap();
    stream
        .write_all(b"28 <14>1 - h good - - - counted\n\xff\xfe\n<14>1 - h good - - - line\n<14>1 - h last - - - x")
        .await
        .unwrap();
    stream.shutdown().await.unwrap();
    let mut lines = Vec::new();
    for _ in 0..4 {
        let envelope = rig.next().await;
        let Some(Message::Log(log)) = &envelope.message else { panic!("{envelope:?}") };
        lines.push((envelope.source_id.clone(), log.payload.to_vec()));
    }
    let expected =
        [("127.0.0.1", &b"not syslog"[..]), ("good", b"counted"), ("127.0.0.1", b"\xff\xfe"), ("good", b"line")];
    assert_eq!(
        lines,
        expected.map(|(source, said)| (source.to_owned(), said.to_vec())),
        "the length is taken at its word"
    );
    assert_eq!(rig.next().await.source_id, "last", "without an end of its own");
    drop(silent);
    let (metrics, _) = rig.stop().await;
    expect(&metrics, "hydrant_source_refused_total{source=\"syslog\",reason=\"oversize\"} 2");
    expect(&metrics, "hydrant_source_refused_total{source=\"syslog\",reason=\"peer_lost\"} 2");
    expect(&metrics, "hydrant_syslog_unparsed_messages_total 2");
}

#[tokio::test]
async fn connections_are_bounded_and_idle_ones_are_closed() {
    let entry = SyslogConfig {
        max_connections: 2.try_into().unwrap(),
        idle_timeout: Duration::from_millis(200),
        ..SyslogConfig::default()
    };
    let rig = Rig::start(entry).await;
    let mut first = rig.connect().await;
    let mut second = rig.connect().await;
    let mut third = rig.connect().await;
    // Accepted in order: the third is one too many.
    assert_eq!(timeout(PATIENCE, third.read(&mut [0; 1])).await.unwrap().unwrap_or(0), 0);
    for idle in [&mut first, &mut second] {
        assert_eq!(timeout(PATIENCE, idle.read(&mut [0; 1])).await.unwrap().unwrap_or(0), 0);
    }
    let mut later = rig.connect().await;
    later.write_all(b"<14>1 - h later - - - x\n").await.unwrap();
    let mut rig = rig;
    assert_eq!(rig.next().await.source_id, "later");
    let (metrics, _) = rig.stop().await;
    expect(&metrics, "hydrant_syslog_refused_connections_total 1");
}

#[tokio::test]
async fn a_datagram_over_the_bound_is_said_to_be() {
    let entry = SyslogConfig {
        protocol: SyslogProtocol::Udp,
        max_message_bytes: 100.try_into().unwrap(),
        source_id: Some("rack".into()),
        ..SyslogConfig::default()
    };
    let mut rig = Rig::start(entry).await;
    let client = UdpSocket::bind("127.0.0.1:0").unwrap();
    client.send_to(&[b'x'; 101], rig.addr).unwrap();
    client.send_to(b"<14>1 - h a - - - kept\n", rig.addr).unwrap();
    let kept = rig.next().await;
    assert_eq!((kept.source_id.as_str(), said(&kept)), ("rack", "kept"));
    let (metrics, _) = rig.stop().await;
    expect(&metrics, "hydrant_source_refused_total{source=\"syslog\",reason=\"oversize\"} 1");
}

#[tokio::test]
async fn what_cannot_be_is_named() {
    let nowhere: SocketAddr = "127.0.0.1:9".parse().unwrap();
    let error = async |entry: SyslogConfig| {
        let config = Config { syslog: vec![entry], ..Config::for_test(nowhere) };
        config.bind(&Telemetry::default()).await.unwrap_err().to_string()
    };
    let open = SyslogConfig { listen: "0.0.0.0:0".parse().unwrap(), ..SyslogConfig::default() };
    let text = error(open.clone()).await;
    assert!(text.contains("can be reached from outside") && text.contains("insecure_plaintext"), "{text}");
    let tls = SyslogTls { cert: "no.pem".into(), key: "no.key".into(), ca: None };
    let text = error(SyslogConfig { tls: Some(tls.clone()), ..open }).await;
    assert!(text.starts_with("agent.syslog.tls: ") && text.contains("no.pem"), "{text}");
    let udp = SyslogConfig { tls: Some(tls), protocol: SyslogProtocol::Udp, ..SyslogConfig::default() };
    assert!(error(udp).await.contains("no TLS over UDP"));
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let text = error(SyslogConfig { listen: taken.local_addr().unwrap(), ..SyslogConfig::default() }).await;
    assert!(text.starts_with("agent.syslog.listen: ") && text.contains("in use"), "{text}");
}
