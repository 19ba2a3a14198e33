//! The access log: one line in the Common Event Format for every request, before it is looked at (contract: traffic controller v1 §4,
//! log-cache §6).
//!
//! What enters: the heads of requests. What leaves: lines appended to a file, by a task of its own: a disk that is slow holds nobody up. Lines
//! that do not fit the queue, or cannot be written, are counted. A file that was moved away is made anew. No line holds an authorization.

use std::fmt::Write as _;
use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::net::{IpAddr, SocketAddr};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use axum::Router;
use axum::extract::{Request, State};
use axum::middleware::{Next, from_fn_with_state};
use axum::response::Response;
use metrics::Counter;
use telemetry::Throttle;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::warn;
use transport::ConnInfo;

/// Lines that wait to be written.
const WAITING: usize = 1024;

/// The longest text out of a request.
const MAX_TEXT: usize = 1024;

/// Bytes written at once.
const MAX_WRITE: usize = 256 * 1024;

/// The path whose query holds an authorization.
const SET_COOKIE: &str = "/set-cookie";

/// A log that is written to. Cloning shares it.
#[derive(Clone)]
pub(crate) struct AccessLog {
    lines: mpsc::Sender<String>,
    lost: Counter,
}

/// What stands in every line of one port.
struct Port {
    log: AccessLog,
    product: &'static str,
    addr: SocketAddr,
}

/// A file that is appended to.
pub(crate) struct LogFile {
    path: PathBuf,
    file: File,
}

impl LogFile {
    /// Opens or makes the file at `path`.
    ///
    /// # Errors
    /// What the operating system says.
    pub(crate) fn open(path: &Path) -> io::Result<Self> {
        let file = OpenOptions::new().append(true).create(true).open(path)?;
        Ok(Self { path: path.to_owned(), file })
    }

    fn write(&mut self, lines: &str) -> io::Result<()> {
        let same =
            |there: std::fs::Metadata, own: std::fs::Metadata| (there.dev(), there.ino()) == (own.dev(), own.ino());
        if !std::fs::metadata(&self.path).and_then(|there| Ok(same(there, self.file.metadata()?))).unwrap_or(false) {
            self.file = Self::open(&self.path)?.file;
        }
        self.file.write_all(lines.as_bytes())
    }
}

impl AccessLog {
    /// Writes to `file` until `stop`, and then what is there. `lost` counts lines that were not written.
    pub(crate) fn start(file: LogFile, lost: Counter, tracker: &TaskTracker, stop: CancellationToken) -> Self {
        let (lines, waiting) = mpsc::channel(WAITING);
        let log = Self { lines, lost: lost.clone() };
        tracker.spawn(write(file, waiting, lost, stop));
        log
    }

    /// Logs the requests to `routes`, which are served on `addr` as `product`.
    pub(crate) fn around(&self, routes: Router, product: &'static str, addr: SocketAddr) -> Router {
        let port = Arc::new(Port { log: self.clone(), product, addr });
        routes.layer(from_fn_with_state(port, note))
    }
}

async fn write(mut file: LogFile, mut waiting: mpsc::Receiver<String>, lost: Counter, stop: CancellationToken) {
    loop {
        let next = tokio::select! {
            biased;
            line = waiting.recv() => line,
            () = stop.cancelled() => {
                // Whoever still comes is not logged, and counted; what came before is.
                waiting.close();
                waiting.try_recv().ok()
            }
        };
        let Some(mut lines) = next else { return };
        let mut count = 1;
        while lines.len() < MAX_WRITE
            && let Ok(more) = waiting.try_recv()
        {
            lines.push_str(&more);
            count += 1;
        }
        let written = tokio::task::spawn_blocking(move || {
            let outcome = file.write(&lines);
            (file, outcome)
        });
        // A panic in there was reported where it happened.
        let Ok((back, outcome)) = written.await else { return };
        file = back;
        if let Err(error) = outcome {
            lost.increment(count);
            warn_failed(&file, &error);
        }
    }
}

fn warn_failed(file: &LogFile, error: &io::Error) {
    static FAILED: Throttle = Throttle::every(Duration::from_secs(60));
    if let Some(suppressed) = FAILED.pass() {
        warn!(%error, path = %file.path.display(), suppressed, "Access log cannot be written");
    }
}

async fn note(State(port): State<Arc<Port>>, request: Request, next: Next) -> Response {
    if port.log.lines.try_send(line(&request, port.product, port.addr, SystemTime::now())).is_err() {
        port.log.lost.increment(1);
    }
    next.run(request).await
}

fn line<B>(request: &http::Request<B>, product: &str, addr: SocketAddr, now: SystemTime) -> String {
    let target = match request.uri() {
        // What is to become a cookie stays out, as the cookie does.
        uri if uri.path() == SET_COOKIE => SET_COOKIE,
        uri => uri.path_and_query().map_or("", |target| target.as_str()),
    };
    let target: String = target.chars().take(MAX_TEXT).collect();
    let method = request.method();
    let header = |name: &str| request.headers().get(name).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let peer = request.extensions().get::<ConnInfo>().map(|info| info.remote_addr);
    let (src, spt) = source(header("x-forwarded-for"), peer);
    let millis = now.duration_since(UNIX_EPOCH).unwrap_or_default().as_millis();
    let name = in_header(&format!("{method} {target}"));
    let mut line = format!("CEF:0|cloud_foundry|{product}|1.0|{name}|{name}|0|");
    let request_id: String = header("x-vcap-request-id").chars().take(MAX_TEXT).collect();
    let extensions = [
        ("rt", millis.to_string()),
        ("cs1Label", "userAuthenticationMechanism".to_owned()),
        ("cs1", "oauth-access-token".to_owned()),
        ("cs2Label", "vcapRequestId".to_owned()),
        ("cs2", in_extension(&request_id)),
        ("request", in_extension(&target)),
        ("requestMethod", in_extension(method.as_str())),
        ("src", src),
        ("spt", spt),
        ("dst", addr.ip().to_string()),
        ("dpt", addr.port().to_string()),
    ];
    for (i, (key, value)) in extensions.iter().enumerate() {
        let space = if i == 0 { "" } else { " " };
        write!(line, "{space}{key}={value}").expect("a String takes everything");
    }
    line.push('\n');
    line
}

/// The first address of `X-Forwarded-For`, with its port if it has one, else the peer's. What is no address there is not believed.
fn source(forwarded: &str, peer: Option<SocketAddr>) -> (String, String) {
    let first = forwarded.split(',').next().unwrap_or_default().trim();
    if let Ok(addr) = first.parse::<SocketAddr>() {
        return (addr.ip().to_string(), addr.port().to_string());
    }
    if let Ok(ip) = first.parse::<IpAddr>() {
        return (ip.to_string(), "0".to_owned());
    }
    peer.map_or_else(|| (String::new(), "0".to_owned()), |peer| (peer.ip().to_string(), peer.port().to_string()))
}

/// Text in the part between bars.
fn in_header(text: &str) -> String {
    escaped(text, '|')
}

/// Text behind a key.
fn in_extension(text: &str) -> String {
    escaped(text, '=')
}

/// Safe in a page, as the original has it, and in a line of this format: `special` and `\` behind a `\`, no control character.
fn escaped(text: &str, special: char) -> String {
    let mut out = String::with_capacity(text.len());
    for char in text.chars() {
        match char {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&#34;"),
            '\'' => out.push_str("&#39;"),
            '+' => out.push_str("&#43;"),
            '\\' => out.push_str("\\\\"),
            char if char == special => out.extend(['\\', char]),
            char if char.is_control() => out.push('\u{fffd}'),
            char => out.push(char),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn logged(target: &str, headers: &[(&str, &str)]) -> String {
        let request = http::Request::builder().method("GET").uri(target);
        let request = headers.iter().fold(request, |request, (name, value)| request.header(*name, *value));
        let now = UNIX_EPOCH + Duration::from_millis(1_790_000_000_123);
        line(&request.body(()).unwrap(), "loggregator_trafficcontroller", "127.0.0.1:8081".parse().unwrap(), now)
    }

    #[test]
    fn section_4_a_request_is_one_line() {
        let headers =
            [("x-forwarded-for", "10.0.0.7:99, 10.0.0.8"), ("x-vcap-request-id", "abc"), ("authorization", "secret")];
        assert_eq!(
            logged("/apps/a/stream?x=1", &headers),
            "CEF:0|cloud_foundry|loggregator_trafficcontroller|1.0|GET /apps/a/stream?x=1|GET /apps/a/stream?x=1|0|\
             rt=1790000000123 cs1Label=userAuthenticationMechanism cs1=oauth-access-token cs2Label=vcapRequestId cs2=abc \
             request=/apps/a/stream?x\\=1 requestMethod=GET src=10.0.0.7 spt=99 dst=127.0.0.1 dpt=8081\n"
        );
        assert!(logged("/", &[]).contains(" src= spt=0 "));
        let cookie = logged("/set-cookie?CookieName=authorization&CookieValue=secret", &[]);
        assert!(cookie.contains("|GET /set-cookie|") && cookie.contains(" request=/set-cookie "), "{cookie}");
    }

    #[test]
    fn a_request_cannot_write_fields_or_lines_of_its_own() {
        let line =
            logged("/a|b?'x'&y", &[("x-vcap-request-id", "a src=1.2.3.4 \\"), ("x-forwarded-for", "x dst=9.9.9.9")]);
        assert!(line.contains("GET /a\\|b?&#39;x&#39;&amp;y|"), "{line}");
        assert!(line.contains("cs2=a src\\=1.2.3.4 \\\\ request="), "{line}");
        assert!(line.contains(" src= spt=0 ") && line.matches('\n').count() == 1, "{line}");
    }

    #[test]
    fn a_file_that_was_moved_away_is_made_anew() {
        let dir = tempfile::tempdir().unwrap();
        let (path, moved) = (dir.path().join("access.log"), dir.path().join("access.log.1"));
        let mut file = LogFile::open(&path).unwrap();
        file.write("one\n").unwrap();
        std::fs::rename(&path, &moved).unwrap();
        file.write("two\n").unwrap();
        assert_eq!(
            (std::fs::read_to_string(moved).unwrap(), std::fs::read_to_string(path).unwrap()),
            ("one\n".into(), "two\n".into())
        );
    }
}
