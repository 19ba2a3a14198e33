//! A consumer of `/v2/stream` that reads the history of all sources, and then on.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use serde_json::Value;
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio_stream::StreamExt as _;
use tokio_tungstenite::client_async;
use tokio_tungstenite::tungstenite::Message;

use super::traffic::{SOURCES, id};

/// What it has been sent.
#[derive(Default)]
pub(super) struct Seen {
    /// How often each line came, by source and number.
    pub(super) lines: BTreeMap<(u64, u64), u32>,
    /// Dopplers that it was told are missing.
    missing: Vec<String>,
    /// What it was told of gaps.
    pub(super) gaps: Vec<Value>,
    /// Where it stands, as it was told last.
    cursor: Option<String>,
}

pub(super) struct Follower {
    seen: watch::Receiver<Seen>,
    task: JoinHandle<()>,
}

impl Follower {
    /// Reads from the beginning, or from where another one stood.
    pub(super) async fn open(gateway: SocketAddr, after: Option<&str>) -> Self {
        let begin = after.map_or_else(|| "start_time=1".to_owned(), |cursor| format!("after={cursor}"));
        let sources: String = (0..SOURCES).map(|source| format!("&source_id={}", id(source))).collect();
        let socket = TcpStream::connect(gateway).await.unwrap();
        let url = format!("ws://{gateway}/v2/stream?log&{begin}{sources}");
        let (mut stream, _) = client_async(url, socket).await.unwrap();
        let (told, seen) = watch::channel(Seen::default());
        let task = tokio_util::task::TaskTracker::new().spawn(async move {
            while let Some(Ok(message)) = stream.next().await {
                if let Message::Text(text) = message {
                    let object: Value = serde_json::from_str(&text).unwrap();
                    told.send_modify(|seen| seen.take(&object));
                }
            }
        });
        Self { seen, task }
    }

    /// Waits until it has seen what `done` says.
    pub(super) async fn until(&self, what: &str, done: impl Fn(&Seen) -> bool) {
        let mut seen = self.seen.clone();
        let waiting = seen.wait_for(done);
        let came = tokio::time::timeout(super::PATIENCE, waiting).await;
        assert!(came.is_ok_and(|came| came.is_ok()), "a follower never saw {what}");
    }

    /// Waits until it is told that `doppler` is missing.
    pub(super) async fn misses(&self, doppler: &str) {
        self.until(doppler, |seen| seen.missing.iter().any(|missing| missing == doppler)).await;
    }

    /// Where it stands.
    pub(super) async fn cursors(&self) -> String {
        self.until("a cursor", |seen| seen.cursor.is_some()).await;
        self.seen().cursor.clone().unwrap()
    }

    pub(super) fn seen(&self) -> watch::Ref<'_, Seen> {
        self.seen.borrow()
    }
}

impl Drop for Follower {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Seen {
    fn take(&mut self, object: &Value) {
        for line in object["batch"].as_array().into_iter().flatten() {
            let text = BASE64_STANDARD.decode(line["log"]["payload"].as_str().unwrap()).unwrap();
            let text = String::from_utf8(text).unwrap();
            let (source, number) = text.split_once(' ').unwrap();
            *self.lines.entry((source.parse().unwrap(), number.parse().unwrap())).or_default() += 1;
        }
        let missing = object["missing"].as_array().into_iter().flatten();
        self.missing.extend(missing.map(|doppler| doppler.as_str().unwrap().to_owned()));
        self.gaps.extend(object.get("gap").cloned());
        if let Some(cursor) = object["cursor"].as_str() {
            self.cursor = Some(cursor.to_owned());
        }
    }
}
