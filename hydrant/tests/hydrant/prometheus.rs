//! Prometheus is the judge of every role's `/metrics`.

use std::net::{SocketAddr, TcpListener};
use std::process::Stdio;

use tokio::io::AsyncWriteExt;
use tokio::process::Command;

use crate::harness::{Producer, get, pipeline, tool};

#[tokio::test(flavor = "multi_thread")]
async fn prometheus_scrapes_every_role_and_promtool_finds_nothing() {
    let up = pipeline("").await;
    let mut producer = Producer::connect(up.agent().grpc).await;
    producer.send(vec![proto::v2::Envelope::log("app", "x")]).await;
    producer.settled().await;
    let admins = [
        ("agent", up.agent().admin),
        ("doppler", up.doppler().admin),
        ("traffic-controller", up.traffic_controller().admin),
        ("adapters", up.adapters().admin),
    ];

    for (role, admin) in admins {
        let page = get(admin, "/metrics").await;
        let mut promtool = Command::new(tool("bin/promtool"))
            .args(["check", "metrics"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        promtool.stdin.take().unwrap().write_all(page.body.as_bytes()).await.unwrap();
        let output = promtool.wait_with_output().await.unwrap();
        let said = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
        assert!(output.status.success() && said.is_empty(), "{role}: {said}");
        for path in ["/live", "/ready"] {
            assert_eq!(get(admin, path).await.status, 200, "{role}{path}");
        }
    }

    let dir = tempfile::tempdir().unwrap();
    let jobs: String = admins
        .iter()
        .map(|(role, admin)| format!("  - job_name: {role}\n    static_configs: [{{targets: ['{admin}']}}]\n"))
        .collect();
    let config = format!("global: {{scrape_interval: 1s, scrape_timeout: 1s}}\nscrape_configs:\n{jobs}");
    std::fs::write(dir.path().join("prometheus.yml"), config).unwrap();
    let listen = free_port();
    let _prometheus = Command::new(tool("bin/prometheus"))
        .arg(format!("--config.file={}", dir.path().join("prometheus.yml").display()))
        .arg(format!("--storage.tsdb.path={}", dir.path().join("data").display()))
        .arg(format!("--web.listen-address={listen}"))
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .kill_on_drop(true)
        .spawn()
        .unwrap();
    for (role, _) in admins {
        scraped(listen, &format!("up{{job=\"{role}\"}}==1")).await;
        scraped(listen, &format!("hydrant_received_envelopes_total{{job=\"{role}\"}}")).await;
    }
    up.shutdown().await.unwrap();
}

/// A port that was free a moment ago: Prometheus takes no port 0.
fn free_port() -> SocketAddr {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap()
}

/// Asks Prometheus until it has an answer with a sample.
async fn scraped(prometheus: SocketAddr, query: &str) {
    let encoded: String = query.bytes().map(|byte| format!("%{byte:02X}")).collect();
    let path = format!("/api/v1/query?query={encoded}");
    loop {
        // Not there yet while it starts.
        if tokio::net::TcpStream::connect(prometheus).await.is_err() {
            tokio::task::yield_now().await;
            continue;
        }
        let answer = get(prometheus, &path).await;
        let json: serde_json::Value = serde_json::from_str(&answer.body).unwrap_or_default();
        if json["data"]["result"].as_array().is_some_and(|result| !result.is_empty()) {
            return;
        }
    }
}
