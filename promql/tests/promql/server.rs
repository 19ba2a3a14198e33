//! A Prometheus of our own: loaded with samples, on loopback, gone with the test.

use std::fmt::Write as _;
use std::fs;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

use hydrant_promql::{NAME, Series};
use serde_json::Value;
use tempfile::TempDir;

pub(crate) struct Prometheus {
    child: Child,
    address: SocketAddr,
    _dir: TempDir,
}

impl Prometheus {
    /// Starts one that holds these samples.
    pub(crate) fn with(series: &[Series]) -> Self {
        let dir = tempfile::tempdir().expect("a directory");
        let (text, data, config) =
            (dir.path().join("samples.txt"), dir.path().join("data"), dir.path().join("prometheus.yml"));
        fs::write(&text, open_metrics(series)).expect("samples");
        fs::write(&config, "").expect("configuration");
        let output = Command::new(tool("bin/promtool"))
            .args(["tsdb", "create-blocks-from", "openmetrics"])
            .args([&text, &data])
            .output()
            .expect("promtool");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        // Prometheus takes no port 0: one that was free a moment ago.
        let address = TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr()).expect("a port");
        let child = Command::new(tool("bin/prometheus"))
            .arg(format!("--config.file={}", config.display()))
            .arg(format!("--storage.tsdb.path={}", data.display()))
            .arg("--storage.tsdb.retention.time=100y")
            .arg(format!("--web.listen-address={address}"))
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("prometheus");
        let prometheus = Self { child, address, _dir: dir };
        while prometheus.get("/-/ready", "").is_none_or(|answer| !answer.contains("is Ready")) {
            std::thread::yield_now();
        }
        prometheus
    }

    /// Asks; the parameters are those of the HTTP API.
    pub(crate) fn ask(&self, path: &str, parameters: &[(&str, &str)]) -> Value {
        let mut query = String::new();
        for (name, value) in parameters {
            let _ = write!(query, "&{name}=");
            for byte in value.bytes() {
                let _ = write!(query, "%{byte:02X}");
            }
        }
        let answer = self.get(path, query.trim_start_matches('&')).expect("an answer");
        serde_json::from_str(&answer).unwrap_or_else(|error| panic!("{error}: {answer}"))
    }

    fn get(&self, path: &str, query: &str) -> Option<String> {
        let mut stream = TcpStream::connect(self.address).ok()?;
        // With HTTP/1.0 the answer ends with the connection, in one piece.
        write!(stream, "GET {path}?{query} HTTP/1.0\r\nHost: {}\r\n\r\n", self.address).ok()?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).ok()?;
        answer.split_once("\r\n\r\n").map(|(_, body)| body.to_owned())
    }
}

impl Drop for Prometheus {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn tool(path: &str) -> PathBuf {
    let dir = std::env::var_os("HYDRANT_TOOLS")
        .expect("HYDRANT_TOOLS: run scripts/tools, then export HYDRANT_TOOLS=$PWD/target/tools");
    let tool = PathBuf::from(dir).join(path);
    assert!(tool.exists(), "{} is missing: run scripts/tools prometheus promtool", tool.display());
    tool
}

fn open_metrics(series: &[Series]) -> String {
    let mut text = String::new();
    for series in series {
        let labels: Vec<String> = series
            .labels
            .iter()
            .filter(|(name, _)| *name != NAME)
            .map(|(name, value)| {
                format!("{name}=\"{}\"", value.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n"))
            })
            .collect();
        let name = series.labels.get(NAME).expect("a name");
        for sample in &series.samples {
            let value = match sample.value {
                value if value.is_infinite() => if value > 0.0 { "+Inf" } else { "-Inf" }.to_owned(),
                value => format!("{value:?}"),
            };
            let (seconds, millis) = (sample.at / 1000, sample.at % 1000);
            let _ = writeln!(text, "{name}{{{}}} {value} {seconds}.{millis:03}", labels.join(","));
        }
    }
    text + "# EOF\n"
}
