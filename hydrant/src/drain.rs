//! `hydrant drain`: shows, adds, tests and takes away drains, over the admin port of the adapters.

use std::collections::BTreeMap;
use std::io;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, anyhow, bail};
use bytes::Bytes;
use clap::Subcommand;
use http::{Method, Request, StatusCode};
use http_body_util::{BodyExt, Full, Limited};
use hyper_util::rt::TokioIo;
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use serde_json::{Map, Value, json};
use tokio::net::TcpStream;
use tokio::time::timeout;
use transport::Address;

use crate::cli::{Failure, runtime, say};

/// The adapters' usual admin port.
const ADAPTERS: &str = "127.0.0.1:14827";
/// For an answer. A test may take twenty seconds.
const WITHIN: Duration = Duration::from_secs(60);
/// The largest answer: some 10 000 drains.
const MAX_ANSWER: usize = 64 * 1024 * 1024;

/// What can be done with drains.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// List the drains: where they go, how they do, what they lost
    Ls {
        #[command(flatten)]
        at: At,
        /// Print what the adapters answer, as JSON
        #[arg(long)]
        json: bool,
    },
    /// Add a drain, or give one of this name another form; it is kept for the next start
    ///
    /// `hydrant drain add papertrail syslog-tls://logs1.papertrailapp.com:12345 --preset papertrail --source my-app`
    Add(Box<Add>),
    /// Take a drain away. What it has received it still delivers
    Rm {
        /// The drain
        name: String,
        #[command(flatten)]
        at: At,
    },
    /// Look into the buffer of a drain on disk, file by file, also while it is in use
    Inspect {
        /// The name of a drain, or the directory of a buffer
        #[arg(value_name = "NAME|DIR")]
        what: String,
        #[command(flatten)]
        at: At,
    },
    /// Send one line through a drain, or to a URL, and say what became of it
    Test {
        /// The name of a drain, or a URL
        #[arg(value_name = "NAME|URL")]
        what: String,
        #[command(flatten)]
        at: At,
    },
}

/// Where the adapters are.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct At {
    /// The admin port of the adapters, on this machine
    #[arg(long, value_name = "HOST:PORT", default_value = ADAPTERS)]
    adapters: Address,
}

/// A drain, as it is asked for. The keys of `[[adapters.drains]]` say more.
#[derive(Debug, clap::Args)]
pub(crate) struct Add {
    /// What to call it
    name: String,
    /// Where to: syslog://, syslog-tls://, syslog-udp://, https://, https-batch://, remote-write+https://, prometheus://, datadog://,
    /// otlp+grpc://, otlp+http:// or nats://. With - it is read from standard input, where no one else sees a password in it
    url: String,
    /// A source to send; without any, all. May be given again
    #[arg(long = "source", value_name = "SOURCE")]
    sources: Vec<String>,
    /// Sources to send, with * for any text. May be given again
    #[arg(long = "source-pattern", value_name = "PATTERN")]
    patterns: Vec<String>,
    /// Send only envelopes with this tag; * in the value stands for any text. May be given again
    #[arg(long = "tag", value_name = "KEY=VALUE")]
    tags: Vec<String>,
    /// A receiver that expects more than the standard says: papertrail, loggly, splunk or logz
    #[arg(long, value_name = "NAME")]
    preset: Option<String>,
    /// A file with the token of the account, for a preset that wants one; the adapters read it
    #[arg(long, value_name = "FILE")]
    token_file: Option<PathBuf>,
    /// What a preset marks lines with. May be given again
    #[arg(long = "label", value_name = "LABEL")]
    labels: Vec<String>,
    /// The authorities (PEM) that the receiver's certificate must come from; without it, those of the system
    #[arg(long, value_name = "FILE")]
    ca: Option<PathBuf>,
    /// The certificate (PEM) to show to the receiver
    #[arg(long, value_name = "FILE", requires = "key")]
    cert: Option<PathBuf>,
    /// The private key (PEM) of --cert
    #[arg(long, value_name = "FILE", requires = "cert")]
    key: Option<PathBuf>,
    /// Buffer on disk: what was taken survives the adapters, and a long outage of the destination
    #[arg(long)]
    disk: bool,
    #[command(flatten)]
    at: At,
}

/// Runs the command.
pub(crate) fn run(command: Command) -> Result<(), Failure> {
    runtime()?.block_on(async {
        match command {
            Command::Ls { at, json } => ls(&at, json).await,
            Command::Add(add) => self::add(*add).await,
            Command::Rm { name, at } => {
                at.ask(Method::DELETE, &drain(&name), None).await?;
                say(&mut io::stdout(), &format!("{name} is taken away; what it has received it still delivers"));
                Ok(())
            }
            Command::Test { what, at } => test(&what, &at).await,
            Command::Inspect { what, at } => inspect(&what, &at).await,
        }
    })
}

async fn ls(at: &At, json: bool) -> Result<(), Failure> {
    let answer = at.ask(Method::GET, "/v1/drains", None).await?;
    if json {
        say(&mut io::stdout(), &answer.to_string());
        return Ok(());
    }
    let drains = answer["drains"].as_array().map_or(&[][..], Vec::as_slice);
    if drains.is_empty() {
        say(&mut io::stdout(), "no drains; add one with `hydrant drain add NAME URL`");
    } else {
        say(&mut io::stdout(), table(drains).trim_end());
    }
    Ok(())
}

/// One line for each drain, and under it what is wrong with it.
fn table(drains: &[Value]) -> String {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let mut rows = vec![["NAME", "STATE", "DELIVERED", "WAITING", "DROPPED", "URL"].map(str::to_owned)];
    for drain in drains {
        let dropped: u64 = drain["dropped"].as_object().into_iter().flatten().filter_map(|(_, n)| n.as_u64()).sum();
        rows.push([
            text(&drain["name"]),
            text(&drain["state"]),
            drain["delivered"].to_string(),
            (drain["backlog"]["envelopes"].as_u64().unwrap_or(0) + drain["disk"]["envelopes"].as_u64().unwrap_or(0))
                .to_string(),
            dropped.to_string(),
            text(&drain["url"]),
        ]);
    }
    let mut widths = [0; 6];
    for row in &rows {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = (*width).max(cell.chars().count());
        }
    }
    let mut lines = String::new();
    for (i, row) in rows.iter().enumerate() {
        let [name, state, delivered, waiting, dropped, url] = row;
        let [a, b, c, d, e, _] = widths;
        lines.push_str(&format!("{name:<a$}  {state:<b$}  {delivered:>c$}  {waiting:>d$}  {dropped:>e$}  {url}\n"));
        let Some(drain) = i.checked_sub(1).and_then(|i| drains.get(i)) else { continue };
        for detail in details(drain) {
            lines.push_str(&format!("{:a$}  {detail}\n", ""));
        }
    }
    lines
}

/// Why a drain dropped, and why it does not deliver.
fn details(drain: &Value) -> Vec<String> {
    let mut details = Vec::new();
    if let Some(dropped) = drain["dropped"].as_object().filter(|dropped| !dropped.is_empty()) {
        let reasons: Vec<String> = dropped.iter().map(|(reason, count)| format!("{reason} {count}")).collect();
        details.push(format!("dropped: {}", reasons.join(", ")));
    }
    if let Some(bytes) = drain["disk"]["bytes"].as_u64() {
        let envelopes = drain["disk"]["envelopes"].as_u64().unwrap_or_default();
        let plural = if envelopes == 1 { "" } else { "s" };
        let dir = drain["disk"]["dir"].as_str().unwrap_or_default();
        details.push(format!("on disk: {envelopes} envelope{plural}, {bytes} bytes in {dir}"));
    }
    if let Some(trouble) = drain["disk_trouble"].as_str() {
        details.push(format!("buffers in memory, as the disk cannot be used: {trouble}"));
    }
    if drain["state"] != "ok"
        && let (Some(error), Some(since)) = (drain["last_error"]["text"].as_str(), drain["since"].as_str())
    {
        details.push(format!("since {since}: {error}"));
    }
    details
}

async fn add(add: Add) -> Result<(), Failure> {
    let body = body(&add, || io::read_to_string(io::stdin().lock())).map_err(Failure::Wrong)?;
    let answer = add.at.ask(Method::PUT, &drain(&add.name), Some(&body)).await?;
    let of = match (add.sources.len(), add.patterns.len()) {
        (0, 0) => "of every source".to_owned(),
        _ => format!("of {}", [add.sources, add.patterns].concat().join(", ")),
    };
    let url = answer["url"].as_str().unwrap_or_default();
    say(&mut io::stdout(), &format!("{} drains what comes {of} to {url}", add.name));
    Ok(())
}

/// The drain in JSON.
fn body(add: &Add, input: impl FnOnce() -> io::Result<String>) -> anyhow::Result<Value> {
    let url = match add.url.as_str() {
        "-" => input().context("standard input")?.trim().to_owned(),
        url => url.to_owned(),
    };
    // The adapters may run in another directory.
    let absolute = |path: &PathBuf| std::path::absolute(path).map(|path| json!(path)).context("no current directory");
    let mut body = Map::from_iter([("url".to_owned(), json!(url))]);
    let mut put = |key: &str, value: Value| body.insert(key.to_owned(), value);
    if !add.sources.is_empty() {
        put("sources", json!(add.sources));
    }
    if !add.patterns.is_empty() {
        put("source_patterns", json!(add.patterns));
    }
    if !add.tags.is_empty() {
        let pair = |tag: &'_ String| match tag.split_once('=') {
            Some((key, value)) if !key.is_empty() => Ok((key.to_owned(), value.to_owned())),
            _ => bail!("--tag {tag}: write KEY=VALUE"),
        };
        put("tags", json!(add.tags.iter().map(pair).collect::<anyhow::Result<BTreeMap<_, _>>>()?));
    }
    if let Some(preset) = &add.preset {
        put("preset", json!(preset));
    }
    if let Some(file) = &add.token_file {
        put("token_file", absolute(file)?);
    }
    if !add.labels.is_empty() {
        put("labels", json!(add.labels));
    }
    if add.disk {
        put("buffer", json!("disk"));
    }
    let mut tls = Map::new();
    for (key, file) in [("ca", &add.ca), ("cert", &add.cert), ("key", &add.key)] {
        if let Some(file) = file {
            tls.insert(key.to_owned(), absolute(file)?);
        }
    }
    if !tls.is_empty() {
        put("tls", Value::Object(tls));
    }
    Ok(Value::Object(body))
}

async fn test(what: &str, at: &At) -> Result<(), Failure> {
    let answer = if what.contains("://") {
        at.ask(Method::POST, "/v1/test", Some(&json!({ "url": what }))).await?
    } else {
        at.ask(Method::POST, &format!("{}/test", drain(what)), Some(&json!({}))).await?
    };
    let took = answer["took_ms"].as_u64().unwrap_or_default();
    if answer["ok"] == true {
        let said = answer["said"].as_str().unwrap_or_default();
        say(&mut io::stdout(), &format!("{said} ({took} ms)"));
        return Ok(());
    }
    let (step, error) = (answer["step"].as_str().unwrap_or_default(), answer["error"].as_str().unwrap_or_default());
    Err(Failure::Failed(anyhow!("the line did not arrive: {step} failed after {took} ms: {error}")))
}

async fn inspect(what: &str, at: &At) -> Result<(), Failure> {
    let dir = if what.contains('/') {
        PathBuf::from(what)
    } else {
        let answer = at.ask(Method::GET, &drain(what), None).await?;
        let dir = answer["disk"]["dir"].as_str().map(PathBuf::from);
        dir.ok_or_else(|| Failure::Wrong(anyhow!("{what} has no buffer on disk")))?
    };
    let report = spool::inspect(&spool::fs::Disk, &dir).map_err(|error| Failure::Failed(error.into()))?;
    say(&mut io::stdout(), report.to_string().trim_end());
    Ok(())
}

/// The path of a drain.
fn drain(name: &str) -> String {
    format!("/v1/drains/{}", utf8_percent_encode(name, NON_ALPHANUMERIC))
}

impl At {
    /// One request, and what the adapters answer when they do it.
    async fn ask(&self, method: Method, path: &str, body: Option<&Value>) -> Result<Value, Failure> {
        let asked = timeout(WITHIN, self.exchange(method, path, body)).await;
        let asked = asked.unwrap_or_else(|_| Err(anyhow!("no answer within {} s", WITHIN.as_secs())));
        let (status, answer) = asked.map_err(|error| {
            let next =
                "start them with `hydrant up` or `hydrant adapters`, or name another port with --adapters HOST:PORT";
            Failure::Failed(anyhow!("cannot ask the adapters at {}: {error:#}; {next}", self.adapters))
        })?;
        if status.is_success() {
            return Ok(answer);
        }
        let error = answer["error"].as_str().map_or_else(|| format!("the adapters answer {status}"), str::to_owned);
        Err(if status.is_client_error() { Failure::Wrong(anyhow!(error)) } else { Failure::Failed(anyhow!(error)) })
    }

    async fn exchange(&self, method: Method, path: &str, body: Option<&Value>) -> anyhow::Result<(StatusCode, Value)> {
        let stream = TcpStream::connect((self.adapters.host(), self.adapters.port())).await?;
        let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
        let mut request = Request::builder().method(method).uri(path).header("host", self.adapters.to_string());
        if body.is_some() {
            request = request.header("content-type", "application/json");
        }
        let request = request.body(Full::new(Bytes::from(body.map(Value::to_string).unwrap_or_default())))?;
        let exchange = async {
            let response = sender.send_request(request).await?;
            let (head, body) = response.into_parts();
            let bytes = Limited::new(body, MAX_ANSWER).collect().await.map_err(|error| anyhow!(error))?.to_bytes();
            Ok((head.status, serde_json::from_slice(&bytes).unwrap_or(Value::Null)))
        };
        let mut connection = std::pin::pin!(connection);
        let mut exchange = std::pin::pin!(exchange);
        tokio::select! {
            answer = &mut exchange => answer,
            ended = &mut connection => {
                ended?;
                exchange.await
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_says_what_is_wrong_under_the_drain() {
        let drains = json!([
            { "name": "logs", "state": "ok", "delivered": 12, "backlog": { "envelopes": 0 }, "dropped": {},
              "url": "syslog://h:1", "last_error": { "text": "old" }, "since": "2026-01-02T03:04:05.000Z" },
            { "name": "web", "state": "failing", "delivered": 1, "backlog": { "envelopes": 345 }, "disk": { "envelopes": 1000, "bytes": 70000, "dir": "/var/lib/hydrant/buffers/x" },
              "dropped": { "expired": 2, "queue_full": 5 }, "url": "syslog-tls://other.example:6514",
              "last_error": { "text": "connection refused" }, "since": "2026-01-02T03:04:05.000Z" },
        ]);
        let expected = "\
NAME  STATE    DELIVERED  WAITING  DROPPED  URL
logs  ok              12        0        0  syslog://h:1
web   failing          1     1345        7  syslog-tls://other.example:6514
      dropped: expired 2, queue_full 5
      on disk: 1000 envelopes, 70000 bytes in /var/lib/hydrant/buffers/x
      since 2026-01-02T03:04:05.000Z: connection refused
";
        assert_eq!(table(drains.as_array().expect("a list")), expected);
    }

    #[test]
    fn a_name_may_hold_anything() {
        assert_eq!(drain("a/b c"), "/v1/drains/a%2Fb%20c");
    }
}
