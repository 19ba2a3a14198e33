//! What the servers themselves say they dropped: `hydrant_dropped_envelopes_total`, read from their admin ports.
//!
//! What enters: an admin address. What leaves: counts by stage and reason. A counter that a server does not have is no error: it is 0.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

const DROPPED: &str = "hydrant_dropped_envelopes_total";

/// An admin port that has not answered by then does not work.
const DEADLINE: Duration = Duration::from_secs(10);

/// More than any exposition of a role takes.
const MAX_ANSWER: u64 = 16 * 1024 * 1024;

/// Dropped envelopes by stage and reason.
pub type Drops = BTreeMap<(String, String), u64>;

/// Why the counters of a server could not be read.
#[derive(Debug, thiserror::Error)]
pub enum ScrapeError {
    /// The connection failed.
    #[error("reading http://{addr}/metrics: {source}")]
    Io {
        /// The admin address.
        addr: SocketAddr,
        /// What the operating system said.
        source: std::io::Error,
    },
    /// The server did not answer in time.
    #[error("http://{addr}/metrics did not answer within 10 s")]
    Late {
        /// The admin address.
        addr: SocketAddr,
    },
    /// The server answered with something else than 200.
    #[error("http://{addr}/metrics answered \"{status}\"")]
    Status {
        /// The admin address.
        addr: SocketAddr,
        /// The first line of its answer.
        status: String,
    },
}

/// Reads the drop counters of the server whose admin port is `addr`.
///
/// # Errors
/// It cannot be reached, or answers anything but 200.
pub async fn drops(addr: SocketAddr) -> Result<Drops, ScrapeError> {
    Ok(parse(&exposition(addr).await?))
}

/// The value of one series, name and labels as they stand there; 0 without it.
///
/// # Errors
/// As [`drops`].
pub async fn number(addr: SocketAddr, series: &str) -> Result<u64, ScrapeError> {
    let text = exposition(addr).await?;
    let value = text.lines().find_map(|line| line.strip_prefix(series)?.strip_prefix(' ')?.parse::<f64>().ok());
    Ok(value.unwrap_or_default() as u64)
}

async fn exposition(addr: SocketAddr) -> Result<String, ScrapeError> {
    let answer = match timeout(DEADLINE, get(addr)).await {
        Ok(answer) => answer.map_err(|source| ScrapeError::Io { addr, source })?,
        Err(_) => return Err(ScrapeError::Late { addr }),
    };
    let (head, body) = answer.split_once("\r\n\r\n").unwrap_or((&answer, ""));
    let status = head.lines().next().unwrap_or_default();
    if status.split_whitespace().nth(1) != Some("200") {
        return Err(ScrapeError::Status { addr, status: status.to_owned() });
    }
    Ok(body.to_owned())
}

/// HTTP/1.0, so that the answer is neither chunked nor kept open.
async fn get(addr: SocketAddr) -> std::io::Result<String> {
    let mut socket = TcpStream::connect(addr).await?;
    socket.write_all(format!("GET /metrics HTTP/1.0\r\nHost: {addr}\r\n\r\n").as_bytes()).await?;
    let mut answer = Vec::new();
    socket.take(MAX_ANSWER).read_to_end(&mut answer).await?;
    Ok(String::from_utf8_lossy(&answer).into_owned())
}

/// The drop counters in a text exposition. Label values are closed sets of plain words: none holds a quote, a comma or a brace.
fn parse(text: &str) -> Drops {
    let mut drops = Drops::new();
    for line in text.lines() {
        let Some((labels, value)) = line.strip_prefix(DROPPED).and_then(|rest| rest.strip_prefix('{')?.split_once('}'))
        else {
            continue;
        };
        let label = |name: &str| {
            labels
                .split(',')
                .find_map(|label| label.trim().strip_prefix(name)?.strip_prefix("=\"")?.strip_suffix('"'))
                .unwrap_or_default()
                .to_owned()
        };
        let count = value.split_whitespace().next().and_then(|count| count.parse::<f64>().ok()).unwrap_or_default();
        *drops.entry((label("stage"), label("reason"))).or_default() += count as u64;
    }
    drops
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counters_are_read_by_stage_and_reason() {
        let text = "# HELP hydrant_dropped_envelopes_total Envelopes dropped.\n\
            # TYPE hydrant_dropped_envelopes_total counter\n\
            hydrant_dropped_envelopes_total{stage=\"egress\",reason=\"queue_full\"} 12\n\
            hydrant_dropped_envelopes_total{reason=\"queue_full\",stage=\"egress\",queue=\"b\"} 3 1700000000000\n\
            hydrant_dropped_envelopes_total{stage=\"ingress\",reason=\"decode_error\"} 1\n\
            hydrant_dropped_envelopes_total_other{stage=\"ingress\",reason=\"decode_error\"} 9\n\
            hydrant_received_envelopes_total{stage=\"ingress\"} 99\n";
        let drops = parse(text);
        let expected = [(("egress", "queue_full"), 15), (("ingress", "decode_error"), 1)];
        assert_eq!(drops, expected.map(|((stage, reason), n)| ((stage.to_owned(), reason.to_owned()), n)).into());
        assert_eq!(parse(""), Drops::new());
    }
}
