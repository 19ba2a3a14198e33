//! Tells the owner of an app, in the app's own stream, what a drain has lost of it (contract: syslog drains §3.2).
//!
//! Counts enter by source and reason; log envelopes leave to the local agent: to standard error, `source_type` `LGR`, instance `0`. At
//! most one notice per source in 10 s. A notice that is lost itself is counted like any envelope and causes no notice. Notices that
//! the agent does not take are put together with later ones. Never shows more of a drain's URL than its anonymised form.

use std::collections::HashMap;
use std::fmt::Write;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use parking_lot::Mutex;
use prost::Message;
use proto::raw::wire::{Fields, WireType};
use proto::raw::{Batch, Limits, Outgoing, Selection};
use proto::reason::Reason;
use proto::v2;
use proto::v2::ingress_client::IngressClient;
use std::sync::Arc;
use tokio::sync::Notify;
use tokio::time::{Instant, sleep_until, timeout};
use tokio_util::sync::CancellationToken;
use tonic::Code;
use tonic::transport::Channel;
use tracing::debug;

use crate::metrics::DrainMetrics;

/// Between two notices to one source.
const INTERVAL: Duration = Duration::from_secs(10);
/// Sources that a drain keeps losses of. Losses of further ones are counted, not announced.
const SOURCES: usize = 1024;
/// For the agent to take notices.
const DEADLINE: Duration = Duration::from_secs(5);
/// What every notice says after its number.
const MARK: &str = " messages lost for application ";

/// What one drain has lost and not yet announced, by source.
#[derive(Debug)]
pub(crate) struct Losses {
    /// Guards what is lost and how it is told. Held per loss and per round of notices.
    told: Mutex<ToTell>,
    /// A source has losses that it had not before.
    more: Notify,
}

#[derive(Debug)]
struct ToTell {
    /// Whether anybody will announce it.
    announced: bool,
    /// The drain's URL, anonymised.
    url: String,
    sources: HashMap<String, Lost>,
}

#[derive(Debug, Default)]
struct Lost {
    pending: Vec<(Reason, u64)>,
    told: Option<Instant>,
}

/// Losses of one source, to be announced.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Loss {
    pub(crate) source_id: String,
    pub(crate) by_reason: Vec<(Reason, u64)>,
}

impl Losses {
    /// None yet. When they are not `announced`, none are kept. `url` is the drain's, anonymised.
    pub(crate) fn new(announced: bool, url: String) -> Self {
        Self { told: Mutex::new(ToTell { announced, url, sources: HashMap::new() }), more: Notify::new() }
    }

    /// From now on they are told like this.
    pub(crate) fn describe(&self, announced: bool, url: String) {
        let mut told = self.told.lock();
        (told.announced, told.url) = (announced, url);
    }

    fn url(&self) -> String {
        self.told.lock().url.clone()
    }

    /// Adds envelopes of one source. Do not call it for notices.
    pub(crate) fn record(&self, source_id: &str, reason: Reason, count: u64) {
        let mut told = self.told.lock();
        if !told.announced || source_id.is_empty() || count == 0 {
            return;
        }
        let sources = &mut told.sources;
        if !sources.contains_key(source_id) {
            if sources.len() >= SOURCES {
                return;
            }
            sources.insert(source_id.to_owned(), Lost::default());
        }
        let Some(lost) = sources.get_mut(source_id) else { return };
        let is_new = lost.pending.is_empty();
        match lost.pending.iter_mut().find(|(known, _)| *known == reason) {
            Some((_, total)) => *total += count,
            None => lost.pending.push((reason, count)),
        }
        drop(told);
        if is_new {
            self.more.notify_one();
        }
    }

    /// Takes what may be announced now. Forgets sources that had no losses for a while.
    pub(crate) fn due(&self, now: Instant) -> Vec<Loss> {
        let mut due = Vec::new();
        self.told.lock().sources.retain(|source_id, lost| {
            let free = lost.told.is_none_or(|told| now.saturating_duration_since(told) >= INTERVAL);
            if free && !lost.pending.is_empty() {
                lost.told = Some(now);
                due.push(Loss { source_id: source_id.clone(), by_reason: std::mem::take(&mut lost.pending) });
                return true;
            }
            !free || !lost.pending.is_empty()
        });
        due
    }

    /// When there will be something to announce.
    fn next_due(&self) -> Option<Instant> {
        let told = self.told.lock();
        let pending = told.sources.values().filter(|lost| !lost.pending.is_empty());
        pending.map(|lost| lost.told.map_or_else(Instant::now, |told| told + INTERVAL)).min()
    }
}

/// Announces one drain's losses.
pub(crate) struct Announcer {
    pub(crate) losses: Arc<Losses>,
    pub(crate) agent: Channel,
    pub(crate) metrics: DrainMetrics,
}

impl Announcer {
    /// Announces until `stop`, then once more.
    pub(crate) async fn run(self, stop: CancellationToken) {
        loop {
            self.announce().await;
            let next = self.losses.next_due();
            tokio::select! {
                () = stop.cancelled() => break,
                () = self.losses.more.notified() => {}
                () = sleep_until(next.unwrap_or_else(Instant::now)), if next.is_some() => {}
            }
        }
        self.announce().await;
    }

    async fn announce(&self) {
        let due = self.losses.due(Instant::now());
        if due.is_empty() {
            return;
        }
        let timestamp = now();
        let url = self.losses.url();
        let batch: Vec<Selection> = due.iter().map(|loss| selection(&notice(loss, &url, timestamp))).collect();
        let count = due.len() as u64;
        // In a box: it is seldom.
        match timeout(DEADLINE, Box::pin(send(&self.agent, batch.into()))).await {
            Ok(Ok(())) => self.metrics.notices_sent(count),
            failed => {
                debug!(?failed, "The agent did not take notices of lost lines");
                self.metrics.notices_failed(count);
                for loss in due {
                    for (reason, count) in loss.by_reason {
                        self.losses.record(&loss.source_id, reason, count);
                    }
                }
            }
        }
    }
}

/// Tells owners what is wrong with a drain of theirs: sources and texts.
///
/// # Errors
/// The agent did not take the lines, all of them.
pub(crate) async fn tell(agent: &Channel, lines: &[(String, String)]) -> Result<(), tonic::Status> {
    let timestamp = now();
    let lines = lines.iter().map(|(source_id, text)| selection(&line(source_id, text.clone(), timestamp)));
    let batch: Vec<Selection> = lines.collect();
    match timeout(DEADLINE, Box::pin(send(agent, batch.into()))).await {
        Ok(sent) => sent,
        Err(_late) => Err(tonic::Status::deadline_exceeded("the agent does not answer")),
    }
}

async fn send(agent: &Channel, batch: Outgoing) -> Result<(), tonic::Status> {
    let mut client = IngressClient::new(agent.clone());
    match client.batch_sender(tokio_stream::once(batch)).await {
        Ok(_) => Ok(()),
        // How the original agents answer a stream that its sender has ended (contract: agents).
        Err(status) if status.code() == Code::Unknown && status.message().contains("EOF") => Ok(()),
        Err(status) => Err(status),
    }
}

/// Nanoseconds since the Unix epoch.
fn now() -> i64 {
    let nanoseconds = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_nanos());
    i64::try_from(nanoseconds).unwrap_or(i64::MAX)
}

/// A line in a source's own stream, as all that is said to owners stands there.
fn line(source_id: &str, text: String, timestamp: i64) -> v2::Envelope {
    v2::Envelope::log(source_id, text).err().at(timestamp).instance("0").tag("source_type", "LGR")
}

/// The notice as an envelope of the source.
fn notice(loss: &Loss, url: &str, timestamp: i64) -> v2::Envelope {
    let total: u64 = loss.by_reason.iter().map(|(_, count)| count).sum();
    let mut text = format!("{total}{MARK}{} in user provided syslog drain with url {url} (", loss.source_id);
    for (i, (reason, count)) in loss.by_reason.iter().enumerate() {
        let comma = if i > 0 { ", " } else { "" };
        write!(text, "{comma}{reason} {count}").expect("writing to a String cannot fail");
    }
    text.push(')');
    line(&loss.source_id, text, timestamp)
}

fn selection(envelope: &v2::Envelope) -> Selection {
    Batch::check_one(envelope.encode_to_vec().into(), &Limits::NONE).0.into()
}

/// Whether a log's payload is a notice: a number, then what every notice says.
pub(crate) fn is_notice(payload: &[u8]) -> bool {
    let digits = payload.iter().take_while(|byte| byte.is_ascii_digit()).count();
    digits > 0 && payload[digits..].starts_with(MARK.as_bytes())
}

/// Whether an encoded log envelope is a notice. Reads keys and lengths only.
pub(crate) fn is_notice_envelope(envelope: &[u8]) -> bool {
    sub_messages(envelope, 4).any(|log| sub_messages(log, 1).any(is_notice))
}

/// The values of one length-delimited field; ends where the message is not well-formed.
fn sub_messages(message: &[u8], field: u32) -> impl Iterator<Item = &[u8]> {
    let mut fields = Fields::new(message);
    std::iter::from_fn(move || {
        while !fields.is_done() {
            let (number, wire_type) = fields.key().ok()?;
            if number == field && wire_type == WireType::Len {
                return fields.bytes().ok();
            }
            fields.skip(number, wire_type).ok()?;
        }
        None
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn losses() -> Losses {
        Losses::new(true, String::new())
    }

    #[test]
    fn a_source_is_told_at_once_and_then_every_10_s() {
        let losses = losses();
        let start = Instant::now();
        let after = |seconds| start + Duration::from_secs(seconds);
        assert!(losses.due(start).is_empty());
        losses.record("app", Reason::QueueFull, 3);
        losses.record("app", Reason::Expired, 1);
        losses.record("app", Reason::QueueFull, 2);
        let by_reason = vec![(Reason::QueueFull, 5), (Reason::Expired, 1)];
        assert_eq!(losses.due(start), [Loss { source_id: "app".to_owned(), by_reason }]);
        losses.record("app", Reason::QueueFull, 1);
        losses.record("other", Reason::QueueFull, 1);
        assert_eq!(losses.due(after(9)).len(), 1, "the other source only");
        assert_eq!(losses.next_due(), Some(after(10)));
        assert_eq!(losses.due(after(10)).len(), 1);
        assert_eq!(losses.next_due(), None);
        losses.due(after(30));
        assert!(losses.told.lock().sources.is_empty(), "quiet sources are forgotten");
    }

    #[test]
    fn sources_are_bounded() {
        let losses = losses();
        for i in 0..SOURCES + 10 {
            losses.record(&i.to_string(), Reason::QueueFull, 1);
        }
        assert_eq!(losses.due(Instant::now()).len(), SOURCES);
        let none = Losses::new(false, String::new());
        none.record("app", Reason::QueueFull, 1);
        assert!(none.due(Instant::now()).is_empty());
    }

    #[test]
    fn a_notice_reads_as_the_contract_says_and_knows_itself() {
        let loss = Loss { source_id: "app".to_owned(), by_reason: vec![(Reason::QueueFull, 12), (Reason::Expired, 3)] };
        let envelope = notice(&loss, "syslog://drain:514", 7);
        let text = "15 messages lost for application app in user provided syslog drain with url syslog://drain:514 (queue_full 12, expired 3)";
        assert_eq!(envelope.payload(), text.as_bytes());
        assert_eq!((envelope.instance_id.as_str(), envelope.tags["source_type"].as_str()), ("0", "LGR"));
        assert!(
            matches!(&envelope.message, Some(v2::envelope::Message::Log(log)) if log.r#type == i32::from(v2::log::Type::Err))
        );
        assert!(is_notice(envelope.payload()));
        assert!(is_notice_envelope(&envelope.encode_to_vec()));
        for other in ["", "15", "15 messages", " messages lost for application ", "x15 messages lost for application a"]
        {
            assert!(!is_notice(other.as_bytes()), "{other}");
            assert!(!is_notice_envelope(&v2::Envelope::log("app", other).encode_to_vec()), "{other}");
        }
        assert!(!is_notice_envelope(b"\x22\xff"), "broken bytes");
        assert_eq!(selection(&envelope).len(), 1);
    }
}
