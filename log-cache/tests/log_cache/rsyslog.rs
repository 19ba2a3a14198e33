//! rsyslog as the sender: plain, over TLS and with a certificate of its own.

use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use log_cache::SyslogTls;
use proto::v2::Envelope;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use transport::{TestCerts, TlsFiles};

use crate::intake::Rig;

/// Each message with its length before it.
const COUNTED: &str = "TCP_Framing=\"octet-counted\"";

/// A running rsyslogd that ends with the test.
struct Rsyslog {
    process: Child,
    dir: tempfile::TempDir,
    port: u16,
}

impl Drop for Rsyslog {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

fn tool(name: &str) -> PathBuf {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/tools/bin").join(name);
    assert!(path.exists(), "{name} is missing; get it with: scripts/tools {name}");
    path
}

impl Rsyslog {
    /// Starts it so that it sends what comes on its port to `to`. `global` and `forward` are more of its configuration.
    fn start(name: &str, to: u16, global: &str, forward: &str) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let config = format!(
            "global(workDirectory=\"{dir}\" maxMessageSize=\"64k\" {global})\n\
             module(load=\"imtcp\")\n\
             input(type=\"imtcp\" port=\"{port}\" address=\"127.0.0.1\")\n\
             action(type=\"omfwd\" target=\"127.0.0.1\" port=\"{to}\" protocol=\"tcp\" \
             template=\"RSYSLOG_SyslogProtocol23Format\" {forward})\n",
            dir = dir.path().display(),
        );
        let file = dir.path().join("rsyslog.conf");
        std::fs::write(&file, config).unwrap();
        let process = Command::new(tool(name))
            .args(["-n", "-i", "NONE", "-f"])
            .arg(&file)
            .current_dir(dir.path())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(std::fs::File::create(dir.path().join("stderr")).unwrap())
            .spawn()
            .unwrap();
        Self { process, dir, port }
    }

    /// Has it send `lines`.
    async fn send(&self, lines: &str) {
        loop {
            if let Ok(mut stream) = TcpStream::connect(("127.0.0.1", self.port)).await {
                stream.write_all(lines.as_bytes()).await.unwrap();
                return stream.shutdown().await.unwrap();
            }
            tokio::task::yield_now().await;
        }
    }
}

/// Lines of several kinds, and what becomes of them.
fn lines() -> (String, Vec<Envelope>) {
    const AT: i64 = 1_712_345_678_901_234_000;
    let head = |priority: u8| format!("<{priority}>1 2024-04-05T19:34:38.901234+00:00 host app-1");
    let lines = [
        format!("{} [APP/PROC/WEB/3] - [tags@47450 a=\"1\" b=\"two \\\"words\\\"\"] hello there", head(14)),
        format!("{} [APP/0] ID47 - oops", head(11)),
        format!("{} 77 - [gauge@47450 name=\"heat\" value=\"0.5\" unit=\"C\"] ", head(14)),
        format!("{} 77 - [event@47450 title=\"Tide\" body=\"turns\"][tags@47450 k=\"v\"] x", head(14)),
    ];
    let envelopes = vec![
        Envelope::log("app-1", "hello there").at(AT).instance("3").tag("a", "1").tag("b", "two \"words\""),
        Envelope::log("app-1", "oops").at(AT).instance("0").err(),
        Envelope::gauge("app-1", "heat", 0.5, "C").at(AT).instance("77"),
        Envelope::event("app-1", "Tide", "turns").at(AT).instance("77").tag("k", "v"),
    ];
    (lines.join("\n") + "\n", envelopes)
}

async fn compare(rig: &Rig, rsyslog: &Rsyslog) {
    let (lines, envelopes) = lines();
    rsyslog.send(&lines).await;
    assert_eq!(rig.wait_for("app-1", envelopes.len()).await, envelopes, "{}", rsyslog.dir.path().display());
}

fn forward(mode: &str) -> String {
    format!("{COUNTED} StreamDriver=\"ossl\" StreamDriverMode=\"1\" StreamDriverAuthMode=\"{mode}\"")
}

fn global(files: &TlsFiles) -> String {
    format!(
        "defaultNetstreamDriverCAFile=\"{}\" defaultNetstreamDriverCertFile=\"{}\" defaultNetstreamDriverKeyFile=\"{}\"",
        files.ca.display(),
        files.cert.display(),
        files.key.display(),
    )
}

#[tokio::test]
async fn what_rsyslog_sends_is_what_is_stored() {
    let rig = Rig::start(|_| {});
    compare(&rig, &Rsyslog::start("rsyslogd", rig.addr.port(), "", COUNTED)).await;
}

#[tokio::test]
async fn what_rsyslog_sends_over_tls_is_what_is_stored() {
    let certs = TestCerts::new();
    for mutual in [false, true] {
        let own = certs.files("log-cache");
        let ca = mutual.then_some(own.ca);
        let rig = Rig::start(|config| config.tls = Some(SyslogTls { cert: own.cert, key: own.key, ca }));
        let global = global(&certs.files("agent"));
        compare(&rig, &Rsyslog::start("rsyslogd-tls", rig.addr.port(), &global, &forward("x509/certvalid"))).await;
    }
}

#[tokio::test]
async fn what_rsyslog_sends_with_line_feeds_is_what_is_stored() {
    let rig = Rig::start(|config| config.framing = log_cache::Framing::LineFeed);
    compare(&rig, &Rsyslog::start("rsyslogd", rig.addr.port(), "", "TCP_Framing=\"traditional\"")).await;
}
