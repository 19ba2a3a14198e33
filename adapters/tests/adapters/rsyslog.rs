//! rsyslog as the judge: it receives a drain, and the fields that it reads are those of the golden lines.

use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use hydrant_adapters::syslog::client::Link;
use hydrant_adapters::syslog::preset::Preset;
use hydrant_adapters::syslog::trust::Trust;
use hydrant_adapters::{DrainConfig, DrainTls};
use proto::v2;
use proto::v2::envelope::Message;
use rustls::pki_types::ServerName;
use tokio::io::{AsyncBufReadExt, BufReader};
use transport::{TestCerts, TlsFiles};

use crate::support::{Rig, receiver};
use crate::tls::over_tls;

/// A running rsyslogd that ends with the test.
struct Rsyslog(Child);

impl Drop for Rsyslog {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

pub(crate) fn tool(name: &str) -> PathBuf {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/tools/bin").join(name);
    assert!(path.exists(), "{name} is missing; get it with: scripts/tools {name}");
    path
}

impl Rsyslog {
    /// Starts it so that it takes octet-counted TCP on `port`, and forwards what it read, field by field, to `judge`.
    fn start(dir: &Path, port: u16, judge: u16) -> Self {
        Self::start_as("rsyslogd", "", "imtcp", "", dir, port, judge)
    }

    /// The same over UDP.
    fn start_udp(dir: &Path, port: u16, judge: u16) -> Self {
        Self::start_as("rsyslogd", "", "imudp", "", dir, port, judge)
    }

    /// The same over TLS, as `receiver`. `mode` is rsyslog's `streamDriver.authMode`: `anon`, or `x509/certvalid` for mutual TLS.
    fn start_tls(receiver: &TlsFiles, mode: &str, dir: &Path, port: u16, judge: u16) -> Self {
        let global = format!(
            "defaultNetstreamDriverCAFile=\"{ca}\" defaultNetstreamDriverCertFile=\"{cert}\" defaultNetstreamDriverKeyFile=\"{key}\"",
            ca = receiver.ca.display(),
            cert = receiver.cert.display(),
            key = receiver.key.display(),
        );
        let imtcp = format!("streamDriver.name=\"ossl\" streamDriver.mode=\"1\" streamDriver.authMode=\"{mode}\"");
        Self::start_as("rsyslogd-tls", &global, "imtcp", &imtcp, dir, port, judge)
    }

    fn start_as(name: &str, global: &str, input: &str, options: &str, dir: &Path, port: u16, judge: u16) -> Self {
        let config = format!(
            "global(workDirectory=\"{dir}\" {global})\n\
             module(load=\"{input}\" {options})\n\
             input(type=\"{input}\" port=\"{port}\" address=\"127.0.0.1\")\n\
             template(name=\"fields\" type=\"string\" string=\"%pri%|%protocol-version%|%timestamp:::date-rfc3339%|%hostname%|%app-name%|%procid%|%msgid%|%structured-data%|%msg%|\\n\")\n\
             if $app-name startswith \"app-\" then action(type=\"omfwd\" target=\"127.0.0.1\" port=\"{judge}\" protocol=\"tcp\" template=\"fields\")\n",
            dir = dir.display(),
        );
        let file = dir.join("rsyslog.conf");
        std::fs::write(&file, config).unwrap();
        let child = Command::new(tool(name))
            .args(["-n", "-i", "NONE", "-f"])
            .arg(&file)
            .current_dir(dir)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(std::fs::File::create(dir.join("stderr")).unwrap())
            .spawn()
            .unwrap();
        Self(child)
    }
}

/// The envelopes of the contract's observed lines, and what stands in the fields of those lines.
pub(crate) fn golden() -> Vec<(v2::Envelope, &'static str)> {
    let at = |envelope: v2::Envelope, instance: &str| envelope.at(1_700_000_000_123_456_789).instance(instance);
    let mut counter = at(v2::Envelope::counter("app-tls", "requests", 3), "3");
    if let Some(Message::Counter(counter)) = &mut counter.message {
        counter.total = 10;
    }
    let hello = at(v2::Envelope::log("app-tcp", "hello world"), "0")
        .tag("app_name", "café-app-")
        .tag("deployment", "cf")
        .tag("organization_id", "o-1")
        .tag("organization_name", "my org")
        .tag("origin", "rep")
        .tag("source_type", "APP/PROC/WEB")
        .tag("space_name", "dev_space");
    vec![
        (
            hello,
            "14|1|2023-11-14T22:13:20.123456+00:00|my-org.devspace.caf-app|app-tcp|[APP/PROC/WEB/0]|-|[tags@47450 app_name=\"café-app-\" deployment=\"cf\" organization_id=\"o-1\" organization_name=\"my org\" origin=\"rep\" source_type=\"APP/PROC/WEB\" space_name=\"dev_space\"]|hello world|",
        ),
        (
            at(v2::Envelope::log("app-tcp", "err\0nul\nmulti\n"), "1").err().tag("source_type", "APP"),
            "11|1|2023-11-14T22:13:20.123456+00:00|org.space.app-host|app-tcp|[APP/1]|-|[tags@47450 source_type=\"APP\"]|errnul#012multi|",
        ),
        (
            at(v2::Envelope::log("app-tcp", ""), ""),
            "14|1|2023-11-14T22:13:20.123456+00:00|org.space.app-host|app-tcp|[]|-|-||",
        ),
        (
            at(v2::Envelope::gauge("app-tls", "cpu", 0.25, "percentage"), "2").tag("origin", "rep"),
            "14|1|2023-11-14T22:13:20.123456+00:00|org.space.app-host|app-tls|[2]|-|[gauge@47450 name=\"cpu\" value=\"0.25\" unit=\"percentage\"][tags@47450 origin=\"rep\"]||",
        ),
        (
            counter,
            "14|1|2023-11-14T22:13:20.123456+00:00|org.space.app-host|app-tls|[3]|-|[counter@47450 name=\"requests\" total=\"10\" delta=\"3\"]||",
        ),
        (
            at(v2::Envelope::timer("app-tls", "http", 1, 2), "4").tag("peer_type", "Client"),
            "14|1|2023-11-14T22:13:20.123456+00:00|org.space.app-host|app-tls|[4]|-|[timer@47450 name=\"http\" start=\"1\" stop=\"2\"][tags@47450 peer_type=\"Client\"]||",
        ),
        (
            at(v2::Envelope::event("app-tls", "t\"x", "b]y\\z"), "5"),
            "14|1|2023-11-14T22:13:20.123456+00:00|org.space.app-host|app-tls|[5]|-|[event@47450 title=\"t\\\"x\" body=\"b\\]y\\\\z\"]||",
        ),
        (
            v2::Envelope::log("app-a", "a").instance("0").tag("source_type", "APP"),
            "14|1|1970-01-01T00:00:00+00:00|org.space.app-host|app-a|[APP/0]|-|[tags@47450 source_type=\"APP\"]|a|",
        ),
    ]
}

/// A port for rsyslog, which wants it by number; the drain tries until it answers there.
pub(crate) fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

/// Sends the golden envelopes, and compares what rsyslog read with the golden fields.
async fn compare(rig: &Rig, judge: &tokio::net::TcpListener) {
    compare_with(rig, judge, str::to_owned).await;
}

/// The same, where `change` makes of the golden fields what a drain's style makes of them.
pub(crate) async fn compare_with(rig: &Rig, judge: &tokio::net::TcpListener, change: impl Fn(&str) -> String) {
    let golden = golden();
    rig.send(&golden.iter().map(|(envelope, _)| envelope.clone()).collect::<Vec<_>>()).await;
    let (stream, _) = judge.accept().await.unwrap();
    let mut read = BufReader::new(stream).lines();
    for (envelope, fields) in &golden {
        for expected in change(fields).split('\n') {
            let line =
                read.next_line().await.unwrap().unwrap_or_else(|| panic!("the judge closed before {envelope:?}"));
            assert_eq!(line, expected);
        }
    }
}

#[tokio::test]
async fn rsyslog_reads_the_fields_of_the_golden_lines() {
    let (judge, judge_addr) = receiver().await;
    let port = free_port();
    let dir = tempfile::tempdir().unwrap();
    let _rsyslog = Rsyslog::start(dir.path(), port, judge_addr.port());
    let rig = Rig::start(([127, 0, 0, 1], port).into(), "?drain-data=all", |config| {
        config.drains[0].hostname = "org.space.app-host".to_owned();
    })
    .await;
    compare(&rig, &judge).await;
}

#[tokio::test]
async fn rsyslog_reads_them_out_of_datagrams() {
    let (judge, judge_addr) = receiver().await;
    let addr: SocketAddr = ([127, 0, 0, 1], free_port()).into();
    let dir = tempfile::tempdir().unwrap();
    let _rsyslog = Rsyslog::start_udp(dir.path(), addr.port(), judge_addr.port());
    let rig = Rig::start(addr, "", |config| {
        config.drains[0].url = format!("syslog-udp://{addr}?drain-data=all").parse().unwrap();
        config.drains[0].hostname = "org.space.app-host".to_owned();
    })
    .await;
    // A datagram has no line feed at its end that rsyslog would write as one.
    compare(&rig, &judge).await;
}

#[tokio::test]
async fn rsyslog_reads_them_in_the_style_of_each_preset() {
    let zulu = |fields: &str| fields.replace("+00:00|", "Z|");
    let token = |fields: &str| {
        let element = "[token-1@41058 tag=\"prod\" tag=\"web\"]";
        let (before, elements) = fields.split_once("|-|").unwrap();
        zulu(&format!("{before}|-|{element}{}", elements.strip_prefix('-').unwrap_or(elements)))
    };
    let loggly = "token = \"token-1\"\nlabels = [\"prod\", \"web\"]";
    for (preset, more) in [(Preset::Splunk, ""), (Preset::Papertrail, ""), (Preset::Loggly, loggly)] {
        let (judge, judge_addr) = receiver().await;
        let port = free_port();
        let dir = tempfile::tempdir().unwrap();
        let _rsyslog = Rsyslog::start(dir.path(), port, judge_addr.port());
        let rig = Rig::start(([127, 0, 0, 1], port).into(), "?drain-data=all", |config| {
            let text = format!("name = \"test\"\nurl = \"{}\"\n{more}", config.drains[0].url);
            let named: DrainConfig = toml::from_str(&text).unwrap();
            let drain = &mut config.drains[0];
            drain.hostname = "org.space.app-host".to_owned();
            (drain.preset, drain.token, drain.labels) = (Some(preset), named.token, named.labels);
        })
        .await;
        let changed = |fields: &str| match preset {
            Preset::Papertrail => zulu(fields),
            Preset::Loggly => token(fields),
            _ => fields.to_owned(),
        };
        compare_with(&rig, &judge, changed).await;
    }
}

#[tokio::test]
async fn rsyslog_reads_them_over_tls() {
    let certs = TestCerts::new();
    let files = certs.files("receiver");
    let (judge, judge_addr) = receiver().await;
    let addr: SocketAddr = ([127, 0, 0, 1], free_port()).into();
    let dir = tempfile::tempdir().unwrap();
    let _rsyslog = Rsyslog::start_tls(&files, "anon", dir.path(), addr.port(), judge_addr.port());
    let rig = Rig::start(addr, "", |config| {
        let tls = DrainTls { ca: Some(files.ca), server_name: Some("receiver".to_owned()), ..DrainTls::default() };
        over_tls(config, addr, tls);
        config.drains[0].hostname = "org.space.app-host".to_owned();
    })
    .await;
    compare(&rig, &judge).await;
    assert_eq!(rig.number("hydrant_link_requeued_total{link=\"drain\"}"), 0);
}

#[tokio::test]
async fn rsyslog_refuses_a_drain_until_it_shows_the_right_certificate_and_then_gets_every_line() {
    let (certs, strangers) = (TestCerts::new(), TestCerts::new());
    let files = certs.files("receiver");
    let (judge, judge_addr) = receiver().await;
    let addr: SocketAddr = ([127, 0, 0, 1], free_port()).into();
    let dir = tempfile::tempdir().unwrap();
    let _rsyslog = Rsyslog::start_tls(&files, "x509/certvalid", dir.path(), addr.port(), judge_addr.port());

    let without = DrainTls { ca: Some(files.ca.clone()), ..DrainTls::default() };
    assert_eq!(
        refusal(addr, &without).await,
        "the server wants to see a certificate, and none is configured (alert CertificateRequired)"
    );
    let wrong = strangers.files("drain");
    let tls = DrainTls { cert: Some(wrong.cert.clone()), key: Some(wrong.key.clone()), ..without };
    let text = refusal(addr, &tls).await;
    assert!(text.starts_with(&format!("the server does not take our certificate {}", wrong.cert.display())), "{text}");

    let rig = Rig::start(addr, "", |config| {
        over_tls(config, addr, tls);
        config.drains[0].hostname = "org.space.app-host".to_owned();
    })
    .await;
    let right = certs.files("drain");
    let replace = async {
        while !rig.telemetry.render().contains("hydrant_drain_state{drain=\"f9e6e6ef197c2b25\"} 3") {
            tokio::task::yield_now().await;
        }
        std::fs::rename(&right.cert, &wrong.cert).unwrap();
        std::fs::rename(&right.key, &wrong.key).unwrap();
    };
    tokio::join!(compare(&rig, &judge), replace);
    assert_eq!(rig.number("hydrant_delivered_envelopes_total{stage=\"drain\"}"), 8, "none was dropped");
    assert_eq!(rig.number("hydrant_link_requeued_total{link=\"drain\"}"), 0, "none was written to a refusing receiver");
}

/// What rsyslog's refusal is in words, once it is there.
async fn refusal(addr: SocketAddr, tls: &DrainTls) -> String {
    let mut trust = Trust::load(tls, ServerName::try_from("127.0.0.1").unwrap()).unwrap();
    let url = format!("syslog-tls://{addr}").parse().unwrap();
    loop {
        match Link::open(&url, Some(&mut trust), 0, None).await {
            Ok(_) => panic!("rsyslog took it"),
            Err(error) if error.kind() == std::io::ErrorKind::ConnectionRefused => tokio::task::yield_now().await,
            Err(error) => {
                let error = error.to_string();
                return error.strip_prefix(&format!("{addr}: ")).unwrap_or(&error).to_owned();
            }
        }
    }
}
