//! The durable consumer of a source: found as it is, or made.
//!
//! A connection and an entry of the configuration enter; a consumer to pull from leaves. One that is there is never changed: it is looked
//! at, and refused if reading from it would lose envelopes or repeat them without end.

use std::error::Error as _;
use std::time::Duration;

use tracing::info;
use transport::nats::async_nats::datetime::{self, DateTime};
use transport::nats::async_nats::jetstream::consumer::{AckPolicy, Config, DeliverPolicy, PullConsumer, pull};
use transport::nats::async_nats::jetstream::context::{GetStreamErrorKind, RequestError, RequestErrorKind};
use transport::nats::async_nats::jetstream::stream::{ConsumerCreateStrictErrorKind, ConsumerErrorKind};
use transport::nats::async_nats::jetstream::{self, ErrorCode};
use transport::nats::{Link, NatsError};

use super::WITHIN;
use crate::nats::config::{From, NatsConfig};

/// After which a consumer that is made here gives a message out again that nobody acknowledged: what an agent that was killed had open
/// holds up others for so long at most. One that waits for a doppler asks for more time.
const ACK_WAIT: Duration = Duration::from_secs(10);
/// What a server takes for an `ack_wait` of zero.
const USUAL_ACK_WAIT: Duration = Duration::from_secs(30);
/// The shortest within which more time can be asked for.
const SHORTEST_ACK_WAIT: Duration = Duration::from_secs(1);

/// A consumer that is there.
pub(super) struct There {
    pub(super) consumer: PullConsumer,
    /// When its stream was made.
    pub(super) created: DateTime,
    /// After which it gives a message out again; at least a second.
    pub(super) ack_wait: Duration,
}

/// Finds the consumer, or makes it.
///
/// # Errors
/// There is no stream, no answer, or a consumer that is of no use.
pub(super) async fn ensure(config: &NatsConfig, link: &Link) -> Result<There, NatsError> {
    let mut api = jetstream::new(link.client().clone());
    api.set_timeout(WITHIN);
    let (stream, consumer, filter) = (&config.url.stream, &config.consumer, config.filter());
    let found = api.get_stream(stream).await.map_err(|error| {
        let request = error.source().and_then(|source| source.downcast_ref::<RequestError>());
        match error.kind() {
            GetStreamErrorKind::JetStream(fault) if fault.error_code() == ErrorCode::STREAM_NOT_FOUND => {
                NatsError::lasting(format!("the stream {stream} is missing; a drain to it makes it"))
            }
            GetStreamErrorKind::JetStream(fault) => NatsError::passing(fault.to_string()),
            _ if request.is_some_and(|request| request.kind() == RequestErrorKind::NoResponders) => {
                NatsError::passing("the server has no JetStream, or it is not there yet; start it with nats-server -js")
            }
            _ => NatsError::passing(format!("no answer about the stream {stream}: {error}")),
        }
    })?;
    let there = match api.get_consumer_from_stream::<pull::Config, _, _>(consumer, stream).await {
        Ok(there) => there,
        Err(error) => match error.kind() {
            ConsumerErrorKind::JetStream(fault) if fault.error_code() == ErrorCode::CONSUMER_NOT_FOUND => {
                let made = found.create_consumer_strict(wanted(config, &filter)?).await;
                let made = made.map_err(|error| match error.kind() {
                    ConsumerCreateStrictErrorKind::AlreadyExists => {
                        NatsError::passing(format!("the consumer {consumer} was made by somebody else just now"))
                    }
                    _ => NatsError::passing(format!("the consumer {consumer} cannot be made: {error}")),
                })?;
                info!(stream, consumer, filter, "Made a consumer");
                made
            }
            ConsumerErrorKind::InvalidConsumerType => {
                return Err(NatsError::lasting(unfit_text(consumer, "pushes; it has to be one to pull from")));
            }
            _ => return Err(NatsError::passing(format!("no answer about the consumer {consumer}: {error}"))),
        },
    };
    let has = &there.cached_info().config;
    let ack_wait = ack_wait(has);
    match unfit(has, &filter) {
        Some(fault) => Err(NatsError::lasting(unfit_text(consumer, &fault))),
        None => Ok(There { consumer: there, created: found.cached_info().created, ack_wait }),
    }
}

fn unfit_text(consumer: &str, fault: &str) -> String {
    format!("the consumer {consumer} is there and {fault}; delete it, or set consumer to another name")
}

/// After which a consumer gives a message out again, at the earliest.
fn ack_wait(has: &Config) -> Duration {
    let usual = if has.ack_wait.is_zero() { USUAL_ACK_WAIT } else { has.ack_wait };
    has.backoff.iter().copied().fold(usual, Duration::min)
}

/// Why a consumer that is there is of no use, and what would be.
fn unfit(has: &Config, filter: &str) -> Option<String> {
    let several = has.filter_subjects.join(", ");
    let reads = [&has.filter_subject, &several].into_iter().find(|subject| !subject.is_empty());
    if let Some(reads) = reads.filter(|reads| *reads != filter) {
        return Some(format!("reads {reads}, and this agent is to read {filter}"));
    }
    if has.ack_policy != AckPolicy::Explicit {
        return Some("does not wait for each acknowledgement; its ack_policy has to be explicit".to_owned());
    }
    if has.max_deliver > 0 {
        return Some(format!(
            "gives up a message after {} attempts, which loses it; its max_deliver has to be -1, without a limit",
            has.max_deliver
        ));
    }
    let wait = ack_wait(has);
    if wait < SHORTEST_ACK_WAIT {
        return Some(format!(
            "gives a message out again after {} ms, before more time can be asked for; its ack_wait and backoff have to be a second or more",
            wait.as_millis()
        ));
    }
    has.headers_only.then(|| "gives out headers alone; its headers_only has to be false".to_owned())
}

/// What a consumer is like that is made.
fn wanted(config: &NatsConfig, filter: &str) -> Result<pull::Config, NatsError> {
    let deliver_policy = match config.from {
        From::New => DeliverPolicy::New,
        From::All => DeliverPolicy::All,
        From::Time(time) => {
            let start_time = datetime::from_nanos(time.as_nanosecond());
            DeliverPolicy::ByStartTime {
                start_time: start_time.map_err(|error| NatsError::lasting(error.to_string()))?,
            }
        }
        From::Sequence(start_sequence) => DeliverPolicy::ByStartSequence { start_sequence },
    };
    Ok(pull::Config {
        durable_name: Some(config.consumer.clone()),
        deliver_policy,
        ack_policy: AckPolicy::Explicit,
        ack_wait: ACK_WAIT,
        filter_subject: filter.to_owned(),
        max_ack_pending: i64::try_from(config.max_ack_pending.get()).unwrap_or(i64::MAX),
        ..pull::Config::default()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn made() -> Config {
        Config {
            ack_policy: AckPolicy::Explicit,
            ack_wait: ACK_WAIT,
            max_deliver: -1,
            filter_subject: "hydrant.>".to_owned(),
            ..Config::default()
        }
    }

    #[test]
    fn a_consumer_is_taken_as_it_is_made_or_wider() {
        assert_eq!(unfit(&made(), "hydrant.>"), None);
        assert_eq!(unfit(&Config { filter_subject: String::new(), ..made() }, "hydrant.>"), None);
        let one = vec!["hydrant.>".to_owned()];
        assert_eq!(unfit(&Config { filter_subject: String::new(), filter_subjects: one, ..made() }, "hydrant.>"), None);
        assert_eq!(ack_wait(&Config { ack_wait: Duration::ZERO, ..made() }), USUAL_ACK_WAIT);
    }

    #[test]
    fn a_consumer_that_would_lose_or_repeat_is_refused_with_what_is_right() {
        let several = vec!["hydrant.log.>".to_owned(), "hydrant.event.>".to_owned()];
        let (short, none) = (Duration::from_millis(200), String::new());
        for (has, text) in [
            (Config { max_deliver: 5, ..made() }, "max_deliver has to be -1"),
            (Config { ack_wait: short, ..made() }, "after 200 ms"),
            (Config { backoff: vec![ACK_WAIT, short], ..made() }, "after 200 ms"),
            (Config { filter_subject: none, filter_subjects: several, ..made() }, "hydrant.log.>, hydrant.event.>"),
            (Config { filter_subject: "hydrant.log.>".to_owned(), ..made() }, "is to read hydrant.>"),
            (Config { ack_policy: AckPolicy::All, ..made() }, "ack_policy has to be explicit"),
            (Config { headers_only: true, ..made() }, "headers_only has to be false"),
        ] {
            let fault = unfit(&has, "hydrant.>").unwrap();
            assert!(fault.contains(text), "{fault}");
        }
    }
}
