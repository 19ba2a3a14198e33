//! The drains of the adapters, as their admin ports tell.
//!
//! What enters: addresses. What leaves: one row per drain, and who could not be asked. An answer is bounded in time and bytes; what is no
//! list of drains counts as no answer.

use std::collections::BTreeMap;
use std::pin::pin;
use std::time::Duration;

use axum::body::Bytes;
use futures_util::future::join_all;
use http::{Method, Request};
use http_body_util::{BodyExt, Empty, Limited};
use hyper_util::rt::TokioIo;
use proto::hydrant::v1;
use serde::Deserialize;
use telemetry::Throttle;
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout_at};
use tracing::warn;
use transport::Address;

/// The largest answer.
const MAX_ANSWER: usize = 16 * 1024 * 1024;

/// What was answered.
#[derive(Default)]
pub(super) struct Answers {
    pub(super) drains: Vec<v1::DrainInfo>,
    /// Those that could not be asked.
    pub(super) missing: Vec<Address>,
}

#[derive(Deserialize)]
struct List {
    drains: Vec<Drain>,
}

/// As much of a drain as is shown.
#[derive(Deserialize)]
struct Drain {
    name: String,
    state: String,
    #[serde(default)]
    url: Option<String>,
    delivered: u64,
    #[serde(default)]
    backlog: Count,
    #[serde(default)]
    disk: Option<Count>,
    #[serde(default)]
    dropped: BTreeMap<String, u64>,
    #[serde(default)]
    last_error: Option<Said>,
}

#[derive(Default, Deserialize)]
struct Count {
    envelopes: u64,
}

#[derive(Deserialize)]
struct Said {
    text: String,
}

/// Asks all of `adapters` at once.
pub(super) async fn ask_all(adapters: &[Address], deadline: Instant) -> Answers {
    let each = adapters.iter().map(|address| timeout_at(deadline, ask(address)));
    let mut all = Answers::default();
    for (address, answer) in adapters.iter().zip(join_all(each).await) {
        let problem = match answer {
            Ok(Ok(list)) => {
                all.drains.extend(list.drains.into_iter().map(|drain| drain.row(address)));
                continue;
            }
            Ok(Err(error)) => error.to_string(),
            Err(_) => "no answer in time".to_owned(),
        };
        warn_missing(address, &problem);
        all.missing.push(address.clone());
    }
    all
}

type Problem = Box<dyn std::error::Error + Send + Sync>;

async fn ask(address: &Address) -> Result<List, Problem> {
    let stream = TcpStream::connect((address.host(), address.port())).await?;
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
    let request = Request::builder().method(Method::GET).uri("/v1/drains").header("host", address.to_string());
    let request = request.body(Empty::<Bytes>::new())?;
    let exchange = async {
        let (head, body) = sender.send_request(request).await?.into_parts();
        if !head.status.is_success() {
            return Err(format!("it answers {}", head.status).into());
        }
        let bytes = Limited::new(body, MAX_ANSWER).collect().await?.to_bytes();
        Ok(serde_json::from_slice(&bytes)?)
    };
    let (mut connection, mut exchange) = (pin!(connection), pin!(exchange));
    tokio::select! {
        answer = &mut exchange => answer,
        ended = &mut connection => {
            ended?;
            exchange.await
        }
    }
}

impl Drain {
    fn row(self, address: &Address) -> v1::DrainInfo {
        let on_disk = self.disk.map_or(0, |disk| disk.envelopes);
        v1::DrainInfo {
            name: self.name,
            url: self.url.unwrap_or_default(),
            state: self.state,
            delivered: self.delivered,
            waiting_envelopes: self.backlog.envelopes + on_disk,
            dropped: self.dropped.into_iter().map(|(reason, envelopes)| v1::Dropped { reason, envelopes }).collect(),
            last_error: self.last_error.map(|said| said.text).unwrap_or_default(),
            address: address.to_string(),
        }
    }
}

fn warn_missing(adapters: &Address, problem: &str) {
    static AWAY: Throttle = Throttle::every(Duration::from_secs(60));
    if let Some(suppressed) = AWAY.pass() {
        warn!(%adapters, problem, suppressed, "Adapters could not be asked for their drains");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_drain_as_adapters_describe_it_becomes_a_row() {
        let text = r#"{"drains":[{"name":"web","state":"failing","delivered":1,"url":"syslog://h:1","more":{"a":1},
            "backlog":{"envelopes":345,"bytes":1},"disk":{"envelopes":5,"bytes":70,"dir":"/d"},
            "dropped":{"expired":2},"last_error":{"text":"connection refused","at":"now"}},
            {"name":"p","state":"ok","delivered":0,"url":null,"last_error":null,"disk":null}]}"#;
        let list: List = serde_json::from_str(text).unwrap();
        let rows: Vec<_> = list.drains.into_iter().map(|drain| drain.row(&"a:1".parse().unwrap())).collect();
        assert_eq!((rows[0].waiting_envelopes, rows[0].dropped[0].envelopes), (350, 2));
        assert_eq!((rows[0].last_error.as_str(), rows[0].address.as_str()), ("connection refused", "a:1"));
        assert_eq!((rows[1].state.as_str(), rows[1].url.as_str(), rows[1].waiting_envelopes), ("ok", "", 0));
    }
}
