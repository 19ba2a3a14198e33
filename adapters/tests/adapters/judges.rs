//! Prometheus and VictoriaMetrics, started for a test and asked over HTTP.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::Stdio;

use http::{Request, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper_util::rt::TokioIo;
use tempfile::TempDir;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio::process::{Child, Command};

/// A judge that listens on loopback; it ends with this.
pub(crate) struct Judge {
    pub(crate) addr: SocketAddr,
    _process: Child,
    _dir: TempDir,
}

impl Judge {
    /// Prometheus, which scrapes `jobs` and takes remote writes.
    pub(crate) async fn prometheus(jobs: &[(&str, SocketAddr)]) -> Self {
        let (dir, addr) = (tempfile::tempdir().unwrap(), free_port());
        let jobs: String = jobs
            .iter()
            .map(|(job, target)| format!("  - {{job_name: {job}, static_configs: [{{targets: ['{target}']}}]}}\n"))
            .collect();
        let config = format!("global: {{scrape_interval: 1s, scrape_timeout: 1s}}\nscrape_configs:\n{jobs}");
        std::fs::write(dir.path().join("prometheus.yml"), config).unwrap();
        let process = Command::new(tool("bin/prometheus"))
            .arg(format!("--config.file={}", dir.path().join("prometheus.yml").display()))
            .arg(format!("--storage.tsdb.path={}", dir.path().join("data").display()))
            .arg(format!("--web.listen-address={addr}"))
            .arg("--web.enable-remote-write-receiver")
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        let judge = Self { addr, _process: process, _dir: dir };
        judge.ready("/-/ready").await
    }

    /// VictoriaMetrics, which takes remote writes.
    pub(crate) async fn victoria_metrics() -> Self {
        let (dir, addr) = (tempfile::tempdir().unwrap(), free_port());
        let process = Command::new(tool("bin/victoria-metrics"))
            .arg(format!("-storageDataPath={}", dir.path().display()))
            .arg(format!("-httpListenAddr={addr}"))
            .arg("-search.latencyOffset=0s")
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        let judge = Self { addr, _process: process, _dir: dir };
        judge.ready("/health").await
    }

    async fn ready(self, path: &str) -> Self {
        loop {
            // Nobody listens yet while it starts.
            if TcpStream::connect(self.addr).await.is_ok() && get(self.addr, path).await.0 == StatusCode::OK {
                return self;
            }
            tokio::task::yield_now().await;
        }
    }

    /// The result of a query at `time`, in milliseconds since the Unix epoch; now if there is none.
    pub(crate) async fn query(&self, query: &str, time: Option<i64>) -> Vec<serde_json::Value> {
        let query: String = query.bytes().map(|byte| format!("%{byte:02X}")).collect();
        let time = time.map_or(String::new(), |time| format!("&time={}.{:03}", time / 1000, time % 1000));
        let (status, answer) = get(self.addr, &format!("/api/v1/query?query={query}{time}")).await;
        assert_eq!(status, StatusCode::OK, "{answer}");
        let answer: serde_json::Value = serde_json::from_str(&answer).unwrap();
        answer["data"]["result"].as_array().unwrap().clone()
    }

    /// The one value that a query gives, as text; asks until there is one.
    pub(crate) async fn value(&self, query: &str) -> String {
        loop {
            let result = self.query(query, None).await;
            assert!(result.len() <= 1, "{query}: {result:?}");
            if let Some(one) = result.first() {
                return one["value"][1].as_str().unwrap().to_owned();
            }
        }
    }
}

/// What promtool says about a page; nothing if it is content.
pub(crate) async fn promtool(page: &str) -> String {
    let mut promtool = Command::new(tool("bin/promtool"))
        .args(["check", "metrics"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    promtool.stdin.take().unwrap().write_all(page.as_bytes()).await.unwrap();
    let output = promtool.wait_with_output().await.unwrap();
    let said = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
    assert!(output.status.success() || !said.is_empty());
    said
}

/// GETs a path.
pub(crate) async fn get(addr: SocketAddr, path: &str) -> (StatusCode, String) {
    request(addr, Request::get(path), Vec::new()).await
}

/// Sends one request on a connection of its own.
pub(crate) async fn request(addr: SocketAddr, head: http::request::Builder, body: Vec<u8>) -> (StatusCode, String) {
    let stream = TokioIo::new(TcpStream::connect(addr).await.unwrap());
    let (mut sender, connection) = hyper::client::conn::http1::handshake(stream).await.unwrap();
    let request = head.header("host", addr.to_string()).body(Full::<bytes::Bytes>::from(body)).unwrap();
    let exchange = async move {
        let response = sender.send_request(request).await.unwrap();
        let status = response.status();
        let body = response.into_body().collect().await.unwrap().to_bytes();
        (status, String::from_utf8(body.to_vec()).unwrap())
    };
    // The connection ends once the sender is gone.
    let (answer, ended) = tokio::join!(exchange, connection);
    ended.unwrap();
    answer
}

/// A port that was free a moment ago: the judges take no port 0.
fn free_port() -> SocketAddr {
    std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap()
}

/// A tool that `scripts/tools` fetches.
pub(crate) fn tool(path: &str) -> PathBuf {
    let workspace = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../target/tools");
    let tool = std::env::var_os("HYDRANT_TOOLS").map_or(workspace, PathBuf::from).join(path);
    assert!(tool.exists(), "{} is missing: run scripts/tools", tool.display());
    tool
}
