//! One connection with its stream: messages go out, one after the other; answers come back, each with the number of its message.
//!
//! A stream that is missing is made, if that is wanted; one that is there is looked at and never changed. Never retries: what an answer,
//! or the end of the connection, means for a message, its caller decides.

use std::error::Error as _;
use std::time::Duration;

use bytes::Bytes;
use futures_util::StreamExt;
use proto::reason::Reason;
use proto::subject;
use transport::nats::async_nats::jetstream::context::{
    CreateStreamError, CreateStreamErrorKind, GetStreamErrorKind, RequestError, RequestErrorKind,
};
use transport::nats::async_nats::jetstream::{self, ErrorCode};
use transport::nats::async_nats::{HeaderMap, HeaderValue, Message, StatusCode, Subject, Subscriber};
use transport::nats::{Link, NatsError};

use super::place::Place;
use super::window::Pending;

/// For an answer about a stream.
const WITHIN: Duration = Duration::from_secs(5);
/// What a message is: draft-ietf-dispatch-mime-protobuf.
const CONTENT_TYPE: &str = "application/protobuf; proto=loggregator.v2.Envelope";
const ID: &str = "Nats-Msg-Id";
const STREAM: &str = "Nats-Expected-Stream";

/// A connection whose stream is there.
#[derive(Debug)]
pub(crate) struct Session {
    link: Link,
    answers: Subscriber,
    inbox: String,
    /// What every message has.
    headers: HeaderMap,
    /// Their bytes, and those of an id's header but for the id.
    headers_bytes: usize,
    /// The name of the stream.
    stream: String,
}

/// What became of a message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// The stream has it.
    Stored {
        /// Its number there.
        sequence: u64,
        /// It was there before.
        repeat: bool,
    },
    /// The stream will never take it.
    Never(Reason, String),
    /// The stream does not take it now.
    NotNow {
        /// Why.
        error: NatsError,
        /// The stream itself is to be looked at anew.
        reopen: bool,
    },
}

/// An answer of the server to a message.
#[derive(Debug, serde::Deserialize)]
struct Answer {
    error: Option<Fault>,
    #[serde(default)]
    stream: String,
    #[serde(default)]
    seq: u64,
    #[serde(default)]
    duplicate: bool,
}

#[derive(Debug, serde::Deserialize)]
struct Fault {
    code: u16,
    #[serde(default)]
    err_code: u64,
    #[serde(default)]
    description: String,
}

impl Session {
    /// Connects to the `turn`-th server and makes sure of the stream.
    ///
    /// # Errors
    /// The server cannot be used, or the stream.
    pub(crate) async fn open(place: &mut Place, turn: usize) -> Result<Self, NatsError> {
        let link = place.target.open(turn).await?;
        let at_server = |error: NatsError| NatsError { text: format!("{}: {}", link.server(), error.text), ..error };
        let looked = tokio::select! {
            looked = ensure(place, &link) => looked.map_err(at_server),
            error = link.ended() => Err(error),
        };
        looked?;
        let inbox = link.client().new_inbox();
        let answers = link.client().subscribe(format!("{inbox}.*")).await;
        let answers = answers.map_err(|error| at_server(NatsError::passing(error.to_string())))?;
        let mut headers = HeaderMap::new();
        headers.insert("Content-Type", CONTENT_TYPE);
        headers.insert(STREAM, place.stream.as_str());
        let line = |name: &str, value: usize| name.len() + value + 4;
        let headers_bytes = "NATS/1.0\r\n\r\n".len()
            + line("Content-Type", CONTENT_TYPE.len())
            + line(STREAM, place.stream.len())
            + line(ID, 0);
        Ok(Self { link, answers, inbox, headers, headers_bytes, stream: place.stream.clone() })
    }

    /// Bytes with which a message counts at the server.
    pub(super) fn size(&self, pending: &Pending) -> usize {
        self.headers_bytes + pending.id.len() + pending.bytes.len()
    }

    /// The most that may be.
    pub(super) fn max_size(&self) -> usize {
        self.link.client().max_payload()
    }

    /// Sends an envelope as message `number` of this connection.
    ///
    /// # Errors
    /// The connection has ended.
    ///
    /// # Cancel safety
    /// When cancelled, it was not sent.
    pub(crate) async fn publish(&self, number: u64, subject: &str, id: &str, payload: Bytes) -> Result<(), NatsError> {
        let mut headers = self.headers.clone();
        let id =
            id.parse::<HeaderValue>().map_err(|_| NatsError::lasting("an id is no header, a defect of hydrant"))?;
        headers.insert(ID, id);
        let (to, reply) = (Subject::from(subject), Subject::from(format!("{}.{number}", self.inbox)));
        let sent = self.link.client().publish_with_reply_and_headers(to, reply, headers, payload).await;
        sent.map_err(|error| match self.link.has_ended() {
            true => self.link.why(),
            false => NatsError::passing(format!("{}: {error}", self.link.server())),
        })
    }

    /// Waits for the next answer.
    ///
    /// # Errors
    /// The connection has ended.
    ///
    /// # Cancel safety
    /// Nothing is lost: an answer is removed only by the poll that returns it.
    pub(crate) async fn answer(&mut self) -> Result<(u64, Verdict), NatsError> {
        loop {
            let message = tokio::select! {
                biased;
                message = self.answers.next() => message,
                error = self.link.ended() => return Err(error),
            };
            let Some(message) = message else { return Err(self.link.why()) };
            if let Some(answer) = read(&message, &self.stream) {
                return Ok(answer);
            }
        }
    }

    /// An answer that is at hand.
    pub(super) fn try_answer(&mut self) -> Option<(u64, Verdict)> {
        use futures_util::FutureExt;
        loop {
            let message = self.answers.next().now_or_never()??;
            if let Some(answer) = read(&message, &self.stream) {
                return Some(answer);
            }
        }
    }
}

/// Makes sure that the stream is there and takes what the drain has.
async fn ensure(place: &Place, link: &Link) -> Result<(), NatsError> {
    let mut api = jetstream::new(link.client().clone());
    api.set_timeout(WITHIN);
    let stream = &place.stream;
    let mut made = false;
    loop {
        let error = match api.get_stream(stream).await {
            Ok(found) => {
                let subjects = &found.cached_info().config.subjects;
                return covered(stream, subjects, place);
            }
            Err(error) => error,
        };
        match (error.kind(), &place.create) {
            (GetStreamErrorKind::JetStream(fault), Some(config))
                if fault.error_code() == ErrorCode::STREAM_NOT_FOUND && !made =>
            {
                match api.create_stream(config.clone()).await {
                    Ok(_) => {
                        tracing::info!(stream, server = %link.server(), "Made a stream");
                    }
                    // Somebody else was faster.
                    Err(error) if is_taken(&error) => {}
                    Err(error) => return Err(not_made(&error, stream, config)),
                }
                made = true;
            }
            (GetStreamErrorKind::JetStream(fault), _) if fault.error_code() == ErrorCode::STREAM_NOT_FOUND && made => {
                return Err(NatsError::passing(format!(
                    "the stream {stream} was made, and its servers do not know it yet"
                )));
            }
            (GetStreamErrorKind::JetStream(fault), _) if fault.error_code() == ErrorCode::STREAM_NOT_FOUND => {
                return Err(NatsError::lasting(format!(
                    "the stream {stream} is missing; make it, or set nats.create = true"
                )));
            }
            (GetStreamErrorKind::JetStream(fault), _) => return Err(api_fault(&fault)),
            _ => {
                let request = error.source().and_then(|source| source.downcast_ref::<RequestError>());
                return Err(match request.map(RequestError::kind) {
                    Some(RequestErrorKind::NoResponders) => no_jetstream(),
                    _ => NatsError::passing(format!("no answer about the stream {stream}: {error}")),
                });
            }
        }
    }
}

/// Whether the stream takes every subject of the drain.
fn covered(stream: &str, subjects: &[String], place: &Place) -> Result<(), NatsError> {
    let missing = place.subjects.iter().find(|wanted| !subjects.iter().any(|one| subject::covers(one, wanted)));
    match missing {
        None => Ok(()),
        Some(wanted) => {
            let has: Vec<_> = subjects.iter().take(8).map(String::as_str).collect();
            let more = if subjects.len() > 8 { " and others" } else { "" };
            Err(NatsError::lasting(format!(
                "the stream {stream} takes the subjects {}{more}, and this drain publishes to {wanted}; add {}.> to the stream's subjects, or set nats.subject_prefix",
                if has.is_empty() { "of other streams only".to_owned() } else { has.join(", ") },
                place.prefix
            )))
        }
    }
}

fn is_taken(error: &CreateStreamError) -> bool {
    matches!(error.kind(), CreateStreamErrorKind::JetStream(fault) if fault.error_code() == ErrorCode::STREAM_NAME_EXIST)
}

fn not_made(error: &CreateStreamError, stream: &str, config: &jetstream::stream::Config) -> NatsError {
    match error.kind() {
        CreateStreamErrorKind::JetStream(fault) => {
            let what = fault.to_string();
            match fault.error_code() {
                ErrorCode::STREAM_SUBJECT_OVERLAP => NatsError::lasting(format!(
                    "the stream {stream} cannot be made: another one takes the subjects {}; name that in the URL, or set nats.subject_prefix",
                    config.subjects.join(", ")
                )),
                _ => NatsError::lasting(format!(
                    "the stream {stream} of {} bytes and {} replicas cannot be made: {what}",
                    config.max_bytes, config.num_replicas
                )),
            }
        }
        CreateStreamErrorKind::JetStreamUnavailable => no_jetstream(),
        _ => NatsError::passing(format!("the stream {stream} cannot be made: {error}")),
    }
}

fn no_jetstream() -> NatsError {
    NatsError::passing("the server has no JetStream, or it is not there yet; start it with nats-server -js")
}

fn api_fault(fault: &jetstream::Error) -> NatsError {
    let what = fault.to_string();
    match fault.error_code() {
        ErrorCode::JETSTREAM_NOT_ENABLED | ErrorCode::JETSTREAM_NOT_ENABLED_FOR_ACCOUNT => {
            NatsError::lasting(format!("{what}; enable JetStream there for this account"))
        }
        _ if fault.code() == 400 => NatsError::lasting(what),
        _ => NatsError::passing(what),
    }
}

/// The number that an answer names, and what it says of `stream`. `None` for what is no answer of ours.
fn read(message: &Message, stream: &str) -> Option<(u64, Verdict)> {
    let number = message.subject.rsplit('.').next()?.parse().ok()?;
    if message.status == Some(StatusCode::NO_RESPONDERS) {
        let error =
            NatsError::passing("no stream takes the message: the stream is gone, or its server is not there yet");
        return Some((number, Verdict::NotNow { error, reopen: true }));
    }
    Some((number, verdict(&message.payload, stream)))
}

/// What an answer says. Only what says that `stream` has the message, under a number, is an acknowledgement; and only a message that is too
/// large is given up: all else that a stream refuses it may take once somebody has changed something.
fn verdict(answer: &[u8], stream: &str) -> Verdict {
    let other = || {
        let error = NatsError::lasting("what answers is not the stream: something else takes the subject");
        Verdict::NotNow { error, reopen: true }
    };
    let Ok(Answer { error, stream: of, seq, duplicate }) = serde_json::from_slice(answer) else { return other() };
    let Some(Fault { code, err_code, description }) = error else {
        return if of == stream && seq > 0 { Verdict::Stored { sequence: seq, repeat: duplicate } } else { other() };
    };
    let not_now = |lasting, reopen| Verdict::NotNow {
        error: NatsError {
            text: format!("the stream does not take the message: {description}"),
            lasting,
            refused: false,
        },
        reopen,
    };
    match ErrorCode(err_code) {
        ErrorCode::STREAM_MESSAGE_EXCEEDS_MAXIMUM | ErrorCode::STREAM_HEADER_EXCEEDS_MAXIMUM => {
            Verdict::Never(Reason::Oversize, description)
        }
        ErrorCode::STREAM_NOT_FOUND => not_now(false, true),
        ErrorCode::STREAM_NOT_MATCH => not_now(true, true),
        // 503 is what a full stream says, and one whose servers have no room; 400 among others that the account has no room left.
        _ => not_now(code == 400, false),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_are_understood() {
        let verdict = |answer: &[u8]| verdict(answer, "S");
        let stored = verdict(br#"{"stream":"S","seq":7}"#);
        assert_eq!(stored, Verdict::Stored { sequence: 7, repeat: false });
        assert_eq!(
            verdict(br#"{"stream":"S","seq":7,"duplicate":true,"domain":"d"}"#),
            Verdict::Stored { sequence: 7, repeat: true }
        );
        let fault = |code: u16, err_code: u64| {
            verdict(
                format!(
                    r#"{{"error":{{"code":{code},"err_code":{err_code},"description":"why"}},"stream":"S","seq":0}}"#
                )
                .as_bytes(),
            )
        };
        assert_eq!(fault(400, 10054), Verdict::Never(Reason::Oversize, "why".to_owned()));
        assert_eq!(fault(400, 10097), Verdict::Never(Reason::Oversize, "why".to_owned()));
        for (code, err_code, lasting, reopen) in [
            (503, 10077, false, false),
            (404, 10059, false, true),
            (400, 10060, true, true),
            (400, 10109, true, false),
            // The account has no room left; something that is not known yet.
            (400, 10002, true, false),
            (400, 19999, true, false),
        ] {
            let Verdict::NotNow { error, reopen: opens } = fault(code, err_code) else { panic!("{err_code}") };
            assert_eq!((error.lasting, opens), (lasting, reopen), "{err_code}");
            assert!(error.text.ends_with("why"));
        }
        let others: [&[u8]; 5] =
            [b"+OK", b"{}", br#"{"ok":true}"#, br#"{"stream":"T","seq":7}"#, br#"{"stream":"S","seq":0}"#];
        for other in others {
            assert!(matches!(verdict(other), Verdict::NotNow { reopen: true, .. }));
        }
    }
}
