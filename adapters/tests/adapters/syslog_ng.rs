//! syslog-ng as the judge: it receives a drain over TCP, TLS and mutual TLS, and the fields that it reads are those of the golden lines.

use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use hydrant_adapters::DrainTls;
use transport::{TestCerts, TlsFiles};

use crate::rsyslog::{compare_with, free_port, tool};
use crate::support::{Rig, receiver};
use crate::tls::over_tls;

/// A running syslog-ng that ends with the test.
struct SyslogNg(Child);

impl Drop for SyslogNg {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl SyslogNg {
    /// Starts it so that it takes RFC 5424 in octet-counted frames on `port`, over `transport`, and forwards what it read, field by
    /// field, to `judge`.
    fn start(transport: &str, dir: &Path, port: u16, judge: u16) -> Self {
        let config = format!(
            "@version: 3.35\n\
             options {{ keep-hostname(yes); use-dns(no); stats-freq(0); }};\n\
             source drains {{ syslog(ip(\"127.0.0.1\") port({port}) {transport}); }};\n\
             template fields {{ template(\"${{PRI}}|1|${{S_ISODATE}}|${{HOST}}|${{PROGRAM}}|${{PID}}|${{MSGID}}|${{SDATA}}|${{MSG}}|\\n\"); }};\n\
             destination judge {{ network(\"127.0.0.1\" port({judge}) template(fields) frac-digits(6) time-zone(\"UTC\")); }};\n\
             log {{ source(drains); destination(judge); }};\n",
        );
        let file = dir.join("syslog-ng.conf");
        std::fs::write(&file, config).unwrap();
        let child = Command::new(tool("syslog-ng"))
            .args(["-F", "--no-caps", "-f"])
            .arg(&file)
            .arg("-R")
            .arg(dir.join("persist"))
            .arg("-c")
            .arg(dir.join("control"))
            .arg("--pidfile")
            .arg(dir.join("pid"))
            .current_dir(dir)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(std::fs::File::create(dir.join("stderr")).unwrap())
            .spawn()
            .unwrap();
        Self(child)
    }

    /// The same over TLS, as `receiver`. `verify` is syslog-ng's `peer-verify`.
    fn start_tls(receiver: &TlsFiles, verify: &str, dir: &Path, port: u16, judge: u16) -> Self {
        let (key, cert, ca) = (receiver.key.display(), receiver.cert.display(), receiver.ca.display());
        let tls = format!(
            "transport(\"tls\") tls(key-file(\"{key}\") cert-file(\"{cert}\") ca-file(\"{ca}\") peer-verify({verify}))"
        );
        Self::start(&tls, dir, port, judge)
    }
}

#[tokio::test]
async fn syslog_ng_reads_the_fields_of_the_golden_lines() {
    let (judge, judge_addr) = receiver().await;
    let port = free_port();
    let dir = tempfile::tempdir().unwrap();
    let _syslog_ng = SyslogNg::start("transport(\"tcp\")", dir.path(), port, judge_addr.port());
    let rig = Rig::start(([127, 0, 0, 1], port).into(), "?drain-data=all", |config| {
        config.drains[0].hostname = "org.space.app-host".to_owned();
    })
    .await;
    compare_with(&rig, &judge, as_syslog_ng_writes).await;
}

#[tokio::test]
async fn syslog_ng_reads_them_over_tls_and_mutual_tls() {
    for verify in ["optional-untrusted", "required-trusted"] {
        let certs = TestCerts::new();
        let files = certs.files("receiver");
        let (judge, judge_addr) = receiver().await;
        let addr: SocketAddr = ([127, 0, 0, 1], free_port()).into();
        let dir = tempfile::tempdir().unwrap();
        let _syslog_ng = SyslogNg::start_tls(&files, verify, dir.path(), addr.port(), judge_addr.port());
        let mut tls = DrainTls { ca: Some(files.ca), server_name: Some("receiver".to_owned()), ..DrainTls::default() };
        if verify == "required-trusted" {
            let own = certs.files("drain");
            (tls.cert, tls.key) = (Some(own.cert), Some(own.key));
        }
        let rig = Rig::start(addr, "", |config| {
            over_tls(config, addr, tls);
            config.drains[0].hostname = "org.space.app-host".to_owned();
        })
        .await;
        compare_with(&rig, &judge, as_syslog_ng_writes).await;
        assert_eq!(rig.number("hydrant_delivered_envelopes_total{stage=\"drain\"}"), 8);
        assert_eq!(rig.number("hydrant_link_requeued_total{link=\"drain\"}"), 0);
    }
}

/// The same fields in syslog-ng's spelling: nothing for a nil value, a line feed as it came, and six digits of a second always.
fn as_syslog_ng_writes(fields: &str) -> String {
    fields.replace("|-|", "||").replace("|-|", "||").replace("#012", "\n").replace(":00+00:00", ":00.000000+00:00")
}
