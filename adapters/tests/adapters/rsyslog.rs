//! rsyslog as the judge: it receives a drain, and the fields that it reads are those of the golden lines.

use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use proto::v2;
use proto::v2::envelope::Message;
use tokio::io::{AsyncBufReadExt, BufReader};

use crate::support::{Rig, receiver};

/// A running rsyslogd that ends with the test.
struct Rsyslog(Child);

impl Drop for Rsyslog {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn rsyslogd() -> PathBuf {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/tools/bin/rsyslogd");
    assert!(path.exists(), "rsyslogd is missing; get it with: scripts/tools rsyslogd");
    path
}

impl Rsyslog {
    /// Starts it so that it takes octet-counted TCP on `port`, and forwards what it read, field by field, to `judge`.
    fn start(dir: &Path, port: u16, judge: u16) -> Self {
        let config = format!(
            "global(workDirectory=\"{dir}\")\n\
             module(load=\"imtcp\")\n\
             input(type=\"imtcp\" port=\"{port}\" address=\"127.0.0.1\")\n\
             template(name=\"fields\" type=\"string\" string=\"%pri%|%protocol-version%|%timestamp:::date-rfc3339%|%hostname%|%app-name%|%procid%|%msgid%|%structured-data%|%msg%|\\n\")\n\
             action(type=\"omfwd\" target=\"127.0.0.1\" port=\"{judge}\" protocol=\"tcp\" template=\"fields\")\n",
            dir = dir.display(),
        );
        let file = dir.join("rsyslog.conf");
        std::fs::write(&file, config).unwrap();
        let child = Command::new(rsyslogd())
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
fn golden() -> Vec<(v2::Envelope, &'static str)> {
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

#[tokio::test]
async fn rsyslog_reads_the_fields_of_the_golden_lines() {
    let (judge, judge_addr) = receiver().await;
    // rsyslog wants a port by number; the drain tries until it answers there.
    let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let dir = tempfile::tempdir().unwrap();
    let _rsyslog = Rsyslog::start(dir.path(), port, judge_addr.port());
    let rig = Rig::start(([127, 0, 0, 1], port).into(), "?drain-data=all", |config| {
        config.drains[0].hostname = "org.space.app-host".to_owned();
    })
    .await;
    let golden = golden();
    rig.send(&golden.iter().map(|(envelope, _)| envelope.clone()).collect::<Vec<_>>()).await;
    let (stream, _) = judge.accept().await.unwrap();
    let mut read = BufReader::new(stream).lines();
    for (envelope, fields) in &golden {
        let line = read.next_line().await.unwrap().unwrap_or_else(|| panic!("rsyslog closed before {envelope:?}"));
        assert_eq!(line, *fields);
    }
}
