//! What the tests share: a pipeline on free ports, processes, producers, consumers, metrics.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::{ExitStatus, Stdio};

use bytes::Bytes;
use hydrant::{Config, Up};
use prost::Message;
use proto::codec::Wire;
use proto::hydrant::v1::IngressAck;
use proto::hydrant::v1::ingress_client::IngressClient as AcknowledgedClient;
use proto::raw::{Batch, Outgoing, OutgoingFrame, Selection};
use proto::v2;
use proto::v2::egress_client::EgressClient;
use proto::v2::selector::Message as Select;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader, Lines};
use tokio::net::TcpStream;
use tokio::process::{Child, ChildStdout, Command};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Streaming;
use transport::{Address, ChannelOptions};

/// Every role on any free port of loopback.
pub(crate) const ANY_PORTS: &str = r#"
agent.grpc.listen = "127.0.0.1:0"
agent.statsd.listen = "127.0.0.1:0"
agent.dropsonde.listen = "127.0.0.1:0"
agent.admin.listen = "127.0.0.1:0"
doppler.grpc.listen = "127.0.0.1:0"
doppler.cache_grpc.listen = "127.0.0.1:0"
doppler.admin.listen = "127.0.0.1:0"
traffic_controller.http.listen = "127.0.0.1:0"
traffic_controller.grpc.listen = "127.0.0.1:0"
traffic_controller.gateway.listen = "127.0.0.1:0"
traffic_controller.rest.listen = "127.0.0.1:0"
traffic_controller.admin.listen = "127.0.0.1:0"
adapters.admin.listen = "127.0.0.1:0"
log_cache.grpc.listen = "127.0.0.1:0"
log_cache.syslog.listen = "127.0.0.1:0"
log_cache.rest.listen = "127.0.0.1:0"
log_cache.admin.listen = "127.0.0.1:0"
"#;

/// A pipeline in this process, with `more` configuration.
pub(crate) async fn pipeline(more: &str) -> Up {
    transport::install_crypto_provider();
    let config: Config = toml::from_str(&format!("{ANY_PORTS}{more}")).unwrap();
    Box::pin(hydrant::up(config, None)).await.unwrap()
}

/// A role of the binary.
pub(crate) struct Process {
    child: Child,
    pub(crate) addrs: serde_json::Value,
    /// Standard output after the addresses.
    pub(crate) stdout: Lines<BufReader<ChildStdout>>,
    _config: tempfile::TempDir,
}

impl Process {
    /// Starts `role` with `config` and awaits its addresses.
    pub(crate) async fn start(role: &str, config: &str) -> Self {
        Self::start_with(role, config, &[]).await
    }

    /// The same with environment variables.
    pub(crate) async fn start_with(role: &str, config: &str, variables: &[(&str, String)]) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("hydrant.toml");
        std::fs::write(&file, format!("{ANY_PORTS}{config}")).unwrap();
        let mut child = Command::new(env!("CARGO_BIN_EXE_hydrant"))
            .args([role, "--print-addrs", "--config"])
            .arg(&file)
            .env("XDG_STATE_HOME", dir.path())
            // Tests count envelopes: an agent's own come in between when they ask for them.
            .env("HYDRANT_SELF_METRICS__AGENT_INTERVAL", "1h")
            .envs(variables.iter().map(|(name, value)| (name, value)))
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        let mut stdout = BufReader::new(child.stdout.take().unwrap()).lines();
        let line = stdout.next_line().await.unwrap().unwrap_or_else(|| panic!("{role} ended before it was up"));
        Self { child, addrs: serde_json::from_str(&line).unwrap(), stdout, _config: dir }
    }

    /// One of its addresses.
    pub(crate) fn addr(&self, name: &str) -> SocketAddr {
        let mut at = &self.addrs;
        for key in name.split('.') {
            at = &at[key];
        }
        at.as_str().unwrap_or_else(|| panic!("no address {name} in {}", self.addrs)).parse().unwrap()
    }

    /// Tells it to stop, as a supervisor does.
    pub(crate) fn terminate(&self) {
        self.signal(nix::sys::signal::Signal::SIGTERM);
    }

    /// Ends it without a word, as a crash does.
    pub(crate) async fn kill(mut self) {
        self.child.kill().await.unwrap();
    }

    fn signal(&self, signal: nix::sys::signal::Signal) {
        let pid = i32::try_from(self.child.id().unwrap()).unwrap();
        nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), signal).unwrap();
    }

    /// Awaits its end.
    pub(crate) async fn ended(mut self) -> ExitStatus {
        self.child.wait().await.unwrap()
    }
}

/// A channel to an address of loopback.
pub(crate) async fn channel(addr: SocketAddr) -> tonic::transport::Channel {
    transport::install_crypto_provider();
    transport::connect(&Address::from(addr), &ChannelOptions::default()).await.unwrap()
}

/// An encoded batch.
pub(crate) fn encode(envelopes: impl IntoIterator<Item = v2::Envelope>) -> Bytes {
    v2::EnvelopeBatch { batch: envelopes.into_iter().collect() }.encode_to_vec().into()
}

/// A producer that knows what was acknowledged.
pub(crate) struct Producer {
    frames: Option<mpsc::Sender<OutgoingFrame>>,
    acks: Streaming<IngressAck>,
    sequence: u64,
    pub(crate) sent: u64,
    pub(crate) last: IngressAck,
}

impl Producer {
    /// An acknowledged stream to an agent or a doppler.
    pub(crate) async fn connect(addr: SocketAddr) -> Self {
        Self::over(channel(addr).await).await
    }

    /// The same over a channel.
    pub(crate) async fn over(channel: tonic::transport::Channel) -> Self {
        let (frames, outgoing) = mpsc::channel(1);
        let mut client = AcknowledgedClient::new(channel);
        let acks = client.stream(ReceiverStream::new(outgoing)).await.unwrap().into_inner();
        Self { frames: Some(frames), acks, sequence: 0, sent: 0, last: IngressAck::default() }
    }

    /// Sends one frame. False when the server has ended the stream.
    pub(crate) async fn send(&mut self, envelopes: Vec<v2::Envelope>) -> bool {
        self.sequence += 1;
        self.sent += envelopes.len() as u64;
        let batch = Outgoing::from(Selection::from(Batch::index(encode(envelopes)).0));
        let frame = OutgoingFrame { sequence: self.sequence, batch, ..OutgoingFrame::default() };
        let Some(frames) = &self.frames else { return false };
        loop {
            tokio::select! {
                sent = frames.send(frame.clone()) => return sent.is_ok(),
                ack = self.acks.message() => match ack {
                    Ok(Some(ack)) => self.last = ack,
                    _ => return false,
                },
            }
        }
    }

    /// Awaits the fate of everything sent.
    pub(crate) async fn settled(&mut self) {
        while self.last.sequence < self.sequence {
            self.last = self.acks.message().await.unwrap().expect("acknowledgements go on");
        }
    }

    /// Half-closes and reads acknowledgements to the end of the stream.
    pub(crate) async fn finish(&mut self) {
        self.frames = None;
        while let Ok(Some(ack)) = self.acks.message().await {
            self.last = ack;
        }
    }
}

/// A subscription to everything of a kind, through a doppler or a reverse log proxy.
pub(crate) async fn subscribe(addr: SocketAddr, kinds: &[Select]) -> Streaming<Wire> {
    let selector = |message: &Select| v2::Selector { source_id: String::new(), message: Some(message.clone()) };
    let request = v2::EgressBatchRequest {
        selectors: kinds.iter().map(selector).collect(),
        use_preferred_tags: true,
        ..v2::EgressBatchRequest::default()
    };
    let client = EgressClient::new(channel(addr).await);
    client.max_decoding_message_size(64 << 20).batched_receiver(request).await.unwrap().into_inner()
}

/// All logs.
pub(crate) fn logs() -> Select {
    Select::Log(v2::LogSelector {})
}

/// The envelopes of the next message; `None` at the orderly end.
pub(crate) async fn next(stream: &mut Streaming<Wire>) -> Option<Vec<v2::Envelope>> {
    let Wire(batch) = stream.message().await.unwrap()?;
    Some(v2::EnvelopeBatch::decode(batch).unwrap().batch)
}

/// An HTTP/1.1 answer.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) head: String,
    pub(crate) body: String,
}

/// One request on a connection of its own, with exactly these headers.
pub(crate) async fn request(addr: SocketAddr, method: &str, path: &str, headers: &[(&str, &str)]) -> Answer {
    let mut socket = TcpStream::connect(addr).await.unwrap();
    let mut text = format!("{method} {path} HTTP/1.1\r\n");
    for (name, value) in headers {
        text.push_str(&format!("{name}: {value}\r\n"));
    }
    text.push_str("Connection: close\r\n\r\n");
    socket.write_all(text.as_bytes()).await.unwrap();
    let mut answer = Vec::new();
    socket.read_to_end(&mut answer).await.unwrap();
    let answer = String::from_utf8_lossy(&answer).into_owned();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap_or((&answer, ""));
    let status = head.split(' ').nth(1).unwrap_or_default().parse().unwrap_or(0);
    let chunked = head.to_ascii_lowercase().contains("transfer-encoding: chunked");
    let body = if chunked { unchunk(body) } else { body.to_owned() };
    Answer { status, head: head.to_owned(), body }
}

fn unchunk(mut body: &str) -> String {
    let mut whole = String::new();
    while let Some((size, rest)) = body.split_once("\r\n") {
        let size = usize::from_str_radix(size.trim(), 16).unwrap_or(0);
        if size == 0 || size > rest.len() {
            break;
        }
        whole.push_str(&rest[..size]);
        body = rest[size..].trim_start_matches("\r\n");
    }
    whole
}

/// A `GET` as a local client makes it.
pub(crate) async fn get(addr: SocketAddr, path: &str) -> Answer {
    request(addr, "GET", path, &[("Host", &addr.to_string())]).await
}

/// What a role counts: sample by series, as `/metrics` has it.
pub(crate) async fn metrics(admin: SocketAddr) -> BTreeMap<String, f64> {
    let answer = get(admin, "/metrics").await;
    assert_eq!(answer.status, 200, "{}", answer.head);
    let samples = answer.body.lines().filter(|line| !line.starts_with('#'));
    samples
        .filter_map(|line| line.rsplit_once(' '))
        .map(|(series, value)| (series.to_owned(), value.parse().unwrap()))
        .collect()
}

/// The sum of all series of a family whose labels contain `labels`.
pub(crate) fn sum(metrics: &BTreeMap<String, f64>, family: &str, labels: &str) -> u64 {
    let of = |series: &str| series.split('{').next() == Some(family) && series.contains(labels);
    metrics.iter().filter(|(series, _)| of(series)).map(|(_, value)| *value as u64).sum()
}

/// Looks at a role's metrics until `done` says so; for a minute at most.
pub(crate) async fn until(admin: SocketAddr, done: impl Fn(&BTreeMap<String, f64>) -> bool) -> BTreeMap<String, f64> {
    let mut look = tokio::time::interval(std::time::Duration::from_millis(5));
    for _ in 0..12_000 {
        look.tick().await;
        let now = metrics(admin).await;
        if done(&now) {
            return now;
        }
    }
    panic!("a minute has passed, and it is still not so: {:#?}", metrics(admin).await);
}

/// Asserts that every queue of a role obeys the law to the envelope.
pub(crate) fn assert_queue_law(metrics: &BTreeMap<String, f64>) {
    let family = |name: &str| sum(metrics, &format!("hydrant_queue_{name}"), "");
    let (offered, accepted, rejected) = (family("offered_total"), family("accepted_total"), family("rejected_total"));
    let (taken, evicted, depth) = (family("taken_total"), family("evicted_total"), family("depth_envelopes"));
    assert_eq!(offered, accepted + rejected, "{metrics:#?}");
    assert_eq!(accepted, taken + evicted + depth, "{metrics:#?}");
}

/// A tool that `scripts/tools` fetches.
pub(crate) fn tool(path: &str) -> PathBuf {
    let workspace = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../target/tools");
    let tool = std::env::var_os("HYDRANT_TOOLS").map_or(workspace, PathBuf::from).join(path);
    assert!(tool.exists(), "{} is missing: run scripts/tools", tool.display());
    tool
}
