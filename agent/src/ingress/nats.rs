//! A stream of NATS JetStream: each message an envelope, acknowledged once it has left the ring for a doppler.
//!
//! ```text
//! stream ──► pull ──► check, mark ──► ring ──► a doppler
//!    ▲                                  │ left, or had to leave
//!    └────────── acknowledged, or asked for again
//! ```
//!
//! Messages enter a few hundred at a time, and only while the ring is less than half full: nothing is lost here that a stream still has.
//! What the ring had to give up all the same is asked for again. A message that is no envelope is refused for good and counted, so that it
//! does not come back for ever. An envelope gets the tag `nats_stream`, appended; nothing else of it changes here. The connection is opened
//! again with waits that grow; what was open then is acknowledged on the next one.

use std::collections::HashMap;
use std::error::Error as _;
use std::future::pending;
use std::num::NonZeroUsize;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use diode::fair::Bounds;
use futures_util::StreamExt;
use proto::raw::{Batch, Limits, Refused, edit};
use proto::subject::STREAM_TAG;
use telemetry::Throttle;
use tokio::sync::mpsc;
use tokio::time::{MissedTickBehavior, interval, sleep, timeout};
use tokio_util::sync::CancellationToken;
use tokio_util::task::task_tracker::TaskTrackerToken;
use tracing::{debug, info, warn};
use transport::nats::async_nats::jetstream::consumer::pull::{self, Batch as Pull};
use transport::nats::async_nats::jetstream::consumer::{AckPolicy, DeliverPolicy, PullConsumer};
use transport::nats::async_nats::jetstream::context::{GetStreamErrorKind, RequestError, RequestErrorKind};
use transport::nats::async_nats::jetstream::{self, AckKind, ErrorCode, Message, stream::ConsumerError};
use transport::nats::async_nats::{Subject, datetime};
use transport::nats::{Link, Login, LoginError, NatsError, Target};
use transport::{Backoff, CertAndKey, ClientTls, ClientTlsError, ClientTlsFiles};

use super::Intake;
use crate::nats::config::{From, NatsConfig};
use crate::parcel::{Fate, Ticket};

/// Messages of one pull, and their bytes.
const PULL: (usize, usize) = (256, 4 * 1024 * 1024);
/// How long one pull waits for messages.
const WAIT: Duration = Duration::from_secs(5);
/// After which a consumer gives a message out again that nobody acknowledged: what an agent that was killed had open holds up others for
/// so long at most. One that waits for a doppler asks for more time.
const ACK_WAIT: Duration = Duration::from_secs(10);
/// Between two looks at a ring that is half full.
const LOOK: Duration = Duration::from_millis(50);
/// For an answer about stream or consumer, and for the last acknowledgements.
const WITHIN: Duration = Duration::from_secs(5);
/// Before a message that the ring gave up comes again.
const AGAIN: Duration = Duration::from_secs(1);
/// The longest wait between two attempts to connect.
const LONGEST: Duration = Duration::from_secs(15);

/// Why a source cannot be.
#[derive(Debug, thiserror::Error)]
pub enum SourceError {
    /// Its login.
    #[error(transparent)]
    Login(#[from] LoginError),
    /// Its certificates.
    #[error(transparent)]
    Tls(#[from] ClientTlsError),
    /// The name that the server must have.
    #[error("tls.server_name {0:?} is no DNS name or address")]
    ServerName(String),
}

/// A stream that is to be read.
#[derive(Debug)]
pub(crate) struct Source {
    config: NatsConfig,
    target: Target,
    /// What may be in the ring when more is read.
    half: Bounds,
}

/// One that runs.
struct Running {
    source: Source,
    intake: Intake,
    /// What is in the ring or on its way, by its number in the stream, with where to acknowledge it.
    open: HashMap<u64, Subject>,
    report: mpsc::Sender<Fate>,
    fates: mpsc::Receiver<Fate>,
    stop: CancellationToken,
    told: CancellationToken,
    /// Held until nothing more is read.
    reading: Option<TaskTrackerToken>,
    well: bool,
}

/// A connection and what is read over it.
struct Session {
    link: Link,
    consumer: PullConsumer,
    /// Messages that were asked for.
    pull: Option<Pull>,
}

/// What a running source waited for.
#[expect(clippy::large_enum_variant, reason = "there is one, and most often it is the large one")]
enum Event {
    Fate(Fate),
    Message(Option<Result<Message, transport::nats::async_nats::Error>>),
    Ended(NatsError),
    Progress,
    Look,
    Stop,
    Told,
}

impl Source {
    /// Reads the files: blocks on the disk.
    ///
    /// # Errors
    /// [`SourceError`].
    pub(crate) fn new(config: NatsConfig, ring: Bounds) -> Result<Self, SourceError> {
        let login = match (&config.creds_file, &config.nkey_file, &config.url.login) {
            (Some(path), _, _) => Login::Credentials(path.clone()),
            (_, Some(path), _) => Login::NKey(path.clone()),
            (_, _, Some((user, Some(password)))) => Login::Password { user: user.clone(), password: password.clone() },
            (_, _, Some((token, None))) => Login::Token(token.clone()),
            (None, None, None) => Login::Nobody,
        };
        login.check()?;
        let tls = config.tls.clone().unwrap_or_default();
        let files = ClientTlsFiles {
            ca: tls.ca,
            shown: tls.cert.zip(tls.key).map(|(cert, key)| CertAndKey { cert, key }),
            skip_verify: false,
        };
        let name = tls.server_name.map(|name| name.clone().try_into().map_err(|_| SourceError::ServerName(name)));
        let target = Target {
            servers: std::iter::once(&config.url.address).chain(&config.servers).cloned().collect(),
            tls: config.url.tls.then(|| ClientTls::load(files)).transpose()?,
            server_name: name.transpose()?,
            login,
            name: "hydrant-agent".to_owned(),
            inbound: 2 * PULL.0,
        };
        let half = |size: NonZeroUsize| NonZeroUsize::new(size.get() / 2).unwrap_or(size);
        Ok(Self { config, target, half: Bounds { envelopes: half(ring.envelopes), bytes: half(ring.bytes) } })
    }

    /// Runs until everything that was read has left the ring after `stop`, or until `told`. `reading` is given back once nothing more is
    /// read.
    pub(crate) async fn run(
        self,
        intake: Intake,
        stop: CancellationToken,
        told: CancellationToken,
        reading: TaskTrackerToken,
    ) {
        let room = self.config.max_ack_pending.get();
        let (report, fates) = mpsc::channel(room);
        let (open, reading) = (HashMap::with_capacity(room.min(4096)), Some(reading));
        Running { source: self, intake, open, report, fates, stop, told, reading, well: true }.run().await;
    }
}

impl Running {
    async fn run(mut self) {
        let mut backoff = Backoff::between(Duration::from_millis(100), LONGEST, Backoff::random_seed());
        let mut turn = 0;
        while !self.is_over() {
            let opened = tokio::select! {
                opened = Box::pin(open(&mut self.source, turn)) => opened,
                () = self.told.cancelled() => break,
                () = self.stop.cancelled(), if self.reading.is_some() => {
                    self.reading = None;
                    continue;
                }
            };
            turn += 1;
            let error = match opened {
                Ok(session) => {
                    backoff.reset();
                    self.recovered(&session);
                    self.intake.metrics.nats_connected.increment(1.0);
                    let ended = self.serve(session).await;
                    self.intake.metrics.nats_connected.decrement(1.0);
                    ended
                }
                Err(error) => Some(error),
            };
            let Some(error) = error else { break };
            self.failed(&error);
            let wait = sleep(backoff.next_wait());
            tokio::select! {
                () = wait => {}
                () = self.told.cancelled() => break,
                () = self.stop.cancelled(), if self.reading.is_some() => self.reading = None,
            }
        }
        self.intake.metrics.nats_open(self.open.len(), 0);
    }

    /// Nothing more is read, and all is told.
    fn is_over(&mut self) -> bool {
        if self.stop.is_cancelled() {
            self.reading = None;
        }
        self.told.is_cancelled() || (self.reading.is_none() && self.open.is_empty())
    }

    /// Reads until the connection ends, which is returned, or the source is to end.
    async fn serve(&mut self, mut session: Session) -> Option<NatsError> {
        let mut progress = interval(ACK_WAIT / 3);
        progress.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut answered = true;
        while !self.is_over() {
            if let Err(error) = self.pull(&mut session, answered).await {
                return Some(error);
            }
            let event = tokio::select! {
                biased;
                Some(fate) = self.fates.recv() => Event::Fate(fate),
                () = self.told.cancelled() => Event::Told,
                () = self.stop.cancelled(), if self.reading.is_some() => Event::Stop,
                error = session.link.ended() => Event::Ended(error),
                message = next(session.pull.as_mut()) => Event::Message(message),
                _ = progress.tick() => Event::Progress,
                () = sleep(LOOK), if session.pull.is_none() && self.reading.is_some() => Event::Look,
            };
            match event {
                Event::Fate(fate) => self.settle(&session, fate).await,
                Event::Message(Some(Ok(message))) => {
                    answered = true;
                    self.take(&session, &message).await;
                }
                Event::Message(Some(Err(error))) => {
                    session.pull = None;
                    // Such as a message that did not fit in with those before it. Without any before, something is wrong.
                    if !std::mem::take(&mut answered) {
                        return Some(NatsError::passing(error.to_string()));
                    }
                }
                Event::Message(None) => (session.pull, answered) = (None, true),
                Event::Ended(error) => return Some(error),
                Event::Progress => self.ask_for_time(&session).await,
                Event::Look => {}
                // What was asked for and comes now goes to another agent, or comes again later.
                Event::Stop => (self.reading, session.pull) = (None, None),
                Event::Told => break,
            }
        }
        while let Ok(fate) = self.fates.try_recv() {
            self.settle(&session, fate).await;
        }
        let _late = timeout(WITHIN, session.link.client().flush()).await;
        None
    }

    /// Asks for messages when there is room for them.
    async fn pull(&self, session: &mut Session, answered: bool) -> Result<(), NatsError> {
        let free = self.source.config.max_ack_pending.get() - self.open.len();
        if session.pull.is_some() || self.reading.is_none() || free == 0 || !self.intake.has_room(self.source.half) {
            return Ok(());
        }
        let count = free.min(PULL.0).min(self.source.half.envelopes.get());
        // One message fits whatever its size.
        let bytes = PULL.1.max(session.link.client().max_payload() + 64 * 1024);
        let count = if answered { count } else { 1 };
        let asked = session.consumer.batch().max_messages(count).max_bytes(bytes).expires(WAIT).messages().await;
        session.pull = Some(asked.map_err(|error| NatsError::passing(error.to_string()))?);
        Ok(())
    }

    /// Checks a message, and puts it into the ring.
    async fn take(&mut self, session: &Session, message: &Message) {
        let (Ok(info), Some(reply)) = (message.info(), message.reply.clone()) else { return };
        let sequence = info.stream_sequence;
        if let Some(open) = self.open.get_mut(&sequence) {
            // It is in the ring, and is acknowledged under its newest name.
            *open = reply;
            return;
        }
        let checked = marked(&message.payload, &self.source.config.url.stream);
        let metrics = &self.intake.metrics;
        let [entry] = checked.0.entries() else {
            metrics.nats_messages.refused.increment(1);
            self.intake.take(checked);
            return self.answer(session, reply, AckKind::Term).await;
        };
        if !self.source.config.wants(entry.kind, checked.0.source_id(entry)) {
            metrics.nats_messages.filtered.increment(1);
            return self.answer(session, reply, AckKind::Ack).await;
        }
        self.intake.metrics.nats_open(self.open.len(), self.open.len() + 1);
        self.open.insert(sequence, reply);
        let report = self.report.clone();
        self.intake.take_frame(checked, |envelopes| Ticket::new(sequence, envelopes, report));
    }

    /// An envelope has left the ring.
    async fn settle(&mut self, session: &Session, fate: Fate) {
        let (sequence, arrived) = match fate {
            Fate::Settled { sequence, dropped, .. } => (sequence, dropped == 0),
            // The agent stops with it.
            Fate::Unknown { sequence } => (sequence, false),
        };
        let Some(reply) = self.open.remove(&sequence) else { return };
        let metrics = &self.intake.metrics;
        metrics.nats_open(self.open.len() + 1, self.open.len());
        let kind = if arrived {
            metrics.nats_messages.accepted.increment(1);
            AckKind::Ack
        } else {
            metrics.nats_messages.again.increment(1);
            AckKind::Nak(Some(AGAIN))
        };
        self.answer(session, reply, kind).await;
    }

    /// What waits for a doppler is not to be given out again.
    async fn ask_for_time(&self, session: &Session) {
        for reply in self.open.values() {
            self.answer(session, reply.clone(), AckKind::Progress).await;
        }
    }

    async fn answer(&self, session: &Session, reply: Subject, kind: AckKind) {
        // A connection that has ended answers nothing: the message comes again.
        tokio::select! {
            _answered = session.link.client().publish(reply, kind.into()) => {}
            _ended = session.link.ended() => {}
        }
    }

    fn failed(&mut self, error: &NatsError) {
        static SAID: Throttle = Throttle::every(Duration::from_secs(10));
        self.intake.metrics.nats_failures.increment(1);
        if let Some(suppressed) = SAID.pass() {
            self.well = false;
            let (stream, consumer) = (&self.source.config.url, &self.source.config.consumer);
            if error.lasting {
                tracing::error!(%stream, consumer, %error, suppressed, "Stream cannot be read until somebody changes something");
            } else {
                warn!(%stream, consumer, %error, suppressed, "Stream cannot be read, trying again");
            }
        }
    }

    fn recovered(&mut self, session: &Session) {
        let (stream, consumer, server) = (&self.source.config.url, &self.source.config.consumer, session.link.server());
        if std::mem::replace(&mut self.well, true) {
            debug!(%stream, consumer, %server, "Stream is read");
        } else {
            info!(%stream, consumer, %server, "Stream is read again");
        }
    }
}

/// The next message, if some were asked for; else never.
///
/// # Cancel safety
/// Nothing is lost: a message is removed only by the poll that returns it.
async fn next(pull: Option<&mut Pull>) -> Option<Result<Message, transport::nats::async_nats::Error>> {
    match pull {
        Some(pull) => pull.next().await,
        None => pending().await,
    }
}

/// An envelope checked as it came, with the mark of its stream.
fn marked(payload: &Bytes, stream: &str) -> (Batch, Refused) {
    let limits = Limits::default();
    // Before anything is appended: the end of a broken one would swallow it.
    let checked = Batch::check_one(payload.clone(), &limits);
    if checked.1.total() > 0 {
        return checked;
    }
    let mut whole = BytesMut::with_capacity(payload.len() + STREAM_TAG.len() + stream.len() + 8);
    whole.extend_from_slice(payload);
    edit::put_tag(&mut whole, STREAM_TAG.as_bytes(), stream.as_bytes());
    Batch::check_one(whole.freeze(), &limits)
}

/// Connects, and makes sure of the consumer.
async fn open(source: &mut Source, turn: usize) -> Result<Session, NatsError> {
    let link = source.target.open(turn).await?;
    let looked = tokio::select! {
        looked = ensure(&source.config, &link) => looked,
        error = link.ended() => return Err(error),
    };
    let consumer = looked.map_err(|error| NatsError { text: format!("{}: {}", link.server(), error.text), ..error })?;
    Ok(Session { link, consumer, pull: None })
}

async fn ensure(config: &NatsConfig, link: &Link) -> Result<PullConsumer, NatsError> {
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
    let fault = |error: ConsumerError| NatsError::passing(format!("the consumer {consumer}: {error}"));
    let there = match found.get_consumer::<pull::Config>(consumer).await {
        Ok(there) => there,
        Err(_absent) => {
            let wanted = wanted(config, &filter)?;
            let made = found.create_consumer(wanted).await.map_err(fault)?;
            info!(stream, consumer, filter, "Made a consumer");
            made
        }
    };
    let has = &there.cached_info().config;
    let same = has.filter_subject == filter || has.filter_subject.is_empty();
    if !same || has.ack_policy != AckPolicy::Explicit {
        let kept = if has.filter_subject.is_empty() { ">" } else { &has.filter_subject };
        return Err(NatsError::lasting(format!(
            "the consumer {consumer} is there and reads {kept}, and this agent is to read {filter}; delete it, or set consumer to another name"
        )));
    }
    Ok(there)
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
    use prost::Message as _;
    use proto::v2;

    use super::*;

    #[test]
    fn an_envelope_is_marked_and_nothing_else_of_it_changes() {
        let envelope = v2::Envelope::log("app", "x").tag("a", "1").encode_to_vec();
        let (batch, refused) = marked(&envelope.clone().into(), "LOGS");
        assert_eq!(refused.total(), 0);
        let marked = batch.envelope(&batch.entries()[0]);
        assert!(marked.starts_with(&envelope));
        assert_eq!(v2::Envelope::decode(marked).unwrap().tags["nats_stream"], "LOGS");
    }

    #[test]
    fn what_is_no_envelope_is_refused_with_its_reason() {
        let refused = |payload: Vec<u8>| super::marked(&payload.into(), "LOGS").1;
        assert_eq!(refused(b"{\"json\": true}".to_vec()).decode_error, 1);
        // A field whose length reaches past the end would take in what is appended.
        assert_eq!(refused(vec![9 << 3 | 2, 20]).decode_error, 1);
        assert_eq!(refused(v2::Envelope::log("s".repeat(257), "x").encode_to_vec()).oversize, 1);
        let crowded = (0..129).fold(v2::Envelope::log("s", "x"), |envelope, i| envelope.tag(i.to_string(), "v"));
        assert_eq!(refused(crowded.encode_to_vec()).too_many, 1);
    }
}
