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
//! again with waits that grow; what was open then is acknowledged on the next one, unless the stream was made anew meanwhile: then its
//! numbers mean other messages, and what was open of the old one is forgotten here, though not in the ring.

use std::collections::HashMap;
use std::future::{pending, ready};
use std::num::NonZeroUsize;
use std::time::Duration;

use bytes::Bytes;
use diode::fair::Bounds;
use futures_util::StreamExt;
use proto::raw::{Batch, Refused};
use telemetry::Throttle;
use tokio::sync::mpsc;
use tokio::time::{Instant, MissedTickBehavior, interval, sleep, timeout};
use tokio_util::sync::CancellationToken;
use tokio_util::task::task_tracker::TaskTrackerToken;
use tracing::{debug, info, warn};
use transport::nats::async_nats::Subject;
use transport::nats::async_nats::datetime::DateTime;
use transport::nats::async_nats::jetstream::consumer::PullConsumer;
use transport::nats::async_nats::jetstream::consumer::pull::Batch as Pull;
use transport::nats::async_nats::jetstream::{AckKind, Message};
use transport::nats::{Link, Login, LoginError, NatsError, Target};
use transport::{Backoff, CertAndKey, ClientTls, ClientTlsError, ClientTlsFiles};

use self::mark::{has_mark, marked};
use super::Intake;
use crate::nats::config::NatsConfig;
use crate::parcel::{Fate, Ticket};

mod consumer;
mod mark;

/// Messages of one pull, and their bytes.
const PULL: (usize, usize) = (256, 4 * 1024 * 1024);
/// How long one pull waits for messages.
const WAIT: Duration = Duration::from_secs(5);
/// Between two looks at a ring that is half full.
const LOOK: Duration = Duration::from_millis(50);
/// For an answer about stream or consumer, and for the last acknowledgements.
const WITHIN: Duration = Duration::from_secs(5);
/// Before a message that the ring gave up comes again.
const AGAIN: Duration = Duration::from_secs(1);
/// After which a connection counts as one that works, though nothing came over it.
const WORKS: Duration = Duration::from_secs(5);
/// Messages for which more time is asked at once; what else happens is looked at in between.
const SLICE: usize = 64;
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
    intake: Intake,
}

/// One that runs.
struct Running {
    source: Source,
    /// What is in the ring or on its way, by its number in the stream, with where to acknowledge it.
    open: HashMap<u64, Open>,
    /// When the stream was made that those numbers are of.
    created: Option<DateTime>,
    /// What became of open ones, and could not be said before a connection ended.
    unsaid: Vec<Fate>,
    /// Open ones that more time is to be asked for.
    due: Vec<u64>,
    report: mpsc::Sender<Fate>,
    fates: mpsc::Receiver<Fate>,
    stop: CancellationToken,
    told: CancellationToken,
    /// Held until nothing more is read.
    reading: Option<TaskTrackerToken>,
    well: bool,
    backoff: Backoff,
    /// Of the lines about failures.
    said: Throttle,
}

/// A message whose envelope is in the ring or on its way.
struct Open {
    /// Where to acknowledge it.
    reply: Subject,
    /// When it came into the stream.
    published: DateTime,
    /// When the server last gave it out, or was asked for more time.
    told: Instant,
}

/// A connection and what is read over it.
struct Session {
    link: Link,
    consumer: PullConsumer,
    /// Messages that were asked for.
    pull: Option<Pull>,
    /// After which the consumer gives a message out again.
    ack_wait: Duration,
    /// When the stream was made.
    created: DateTime,
    begun: Instant,
    /// Something came over it, or it has lasted.
    works: bool,
}

/// What a running source waited for.
#[expect(clippy::large_enum_variant, reason = "there is one, and most often it is the large one")]
enum Event {
    Fate(Fate),
    Message(Option<Result<Message, transport::nats::async_nats::Error>>),
    Ended(NatsError),
    Progress,
    Slice,
    Look,
    Stop,
    Told,
}

impl Source {
    /// Reads the files: blocks on the disk.
    ///
    /// # Errors
    /// [`SourceError`].
    pub(crate) fn new(config: NatsConfig, ring: Bounds, intake: Intake) -> Result<Self, SourceError> {
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
        Ok(Self { config, target, half: Bounds { envelopes: half(ring.envelopes), bytes: half(ring.bytes) }, intake })
    }

    /// Runs until everything that was read has left the ring after `stop`, or until `told`. `reading` is given back once nothing more is
    /// read.
    pub(crate) async fn run(self, stop: CancellationToken, told: CancellationToken, reading: TaskTrackerToken) {
        let room = self.config.max_ack_pending.get();
        let (report, fates) = mpsc::channel(room);
        let (open, reading) = (HashMap::with_capacity(room.min(4096)), Some(reading));
        let backoff = Backoff::between(Duration::from_millis(100), LONGEST, Backoff::random_seed());
        let (said, unsaid, due) = (Throttle::every(Duration::from_secs(10)), Vec::new(), Vec::new());
        let running = Running {
            source: self,
            open,
            created: None,
            unsaid,
            due,
            report,
            fates,
            stop,
            told,
            reading,
            well: true,
            backoff,
            said,
        };
        running.run().await;
    }
}

impl Running {
    async fn run(mut self) {
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
                    self.source.intake.metrics.nats_connected.increment(1.0);
                    let ended = self.serve(session).await;
                    self.source.intake.metrics.nats_connected.decrement(1.0);
                    ended
                }
                Err(error) => Some(error),
            };
            let Some(error) = error else { break };
            self.failed(&error);
            let wait = sleep(self.backoff.next_wait());
            tokio::select! {
                () = wait => {}
                () = self.told.cancelled() => break,
                () = self.stop.cancelled(), if self.reading.is_some() => self.reading = None,
            }
        }
        self.source.intake.metrics.nats_open(self.open.len(), 0);
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
        if self.created.replace(session.created).is_some_and(|created| created != session.created) {
            self.forget();
        }
        for fate in std::mem::take(&mut self.unsaid) {
            self.settle(&session, fate).await;
        }
        let mut progress = interval(session.ack_wait / 30);
        progress.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut answered = true;
        while !self.is_over() {
            if let Err(error) = self.pull(&mut session, answered).await {
                return Some(error);
            }
            self.ask_for_time(&session).await;
            let event = tokio::select! {
                biased;
                // First: what is said to a connection that has ended is not heard.
                error = session.link.ended() => Event::Ended(error),
                Some(fate) = self.fates.recv() => Event::Fate(fate),
                () = self.told.cancelled() => Event::Told,
                () = self.stop.cancelled(), if self.reading.is_some() => Event::Stop,
                message = next(session.pull.as_mut()) => Event::Message(message),
                _ = progress.tick() => Event::Progress,
                () = ready(()), if !self.due.is_empty() => Event::Slice,
                () = sleep(LOOK), if session.pull.is_none() && self.reading.is_some() => Event::Look,
            };
            match event {
                Event::Fate(fate) => self.settle(&session, fate).await,
                Event::Message(Some(Ok(message))) => {
                    answered = true;
                    self.works(&mut session);
                    self.take(&session, &message).await;
                }
                Event::Message(Some(Err(error))) => {
                    session.pull = None;
                    let text = error.to_string();
                    // A message that did not fit in with those before it. Without any before, something is wrong, as it is with
                    // everything else: a consumer that is gone may be there again, of another stream.
                    if !std::mem::take(&mut answered) || !text.contains("Size Exceeds MaxBytes") {
                        return Some(NatsError::passing(text));
                    }
                }
                Event::Message(None) => {
                    (session.pull, answered) = (None, true);
                    if !session.link.has_ended() {
                        self.works(&mut session);
                    }
                }
                Event::Ended(error) => return Some(error),
                Event::Progress => {
                    if session.begun.elapsed() >= WORKS {
                        self.works(&mut session);
                    }
                    self.find_due(session.ack_wait / 3);
                }
                Event::Slice | Event::Look => {}
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
        if session.pull.is_some()
            || self.reading.is_none()
            || free == 0
            || !self.source.intake.has_room(self.source.half)
        {
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
        let (Ok(info), Some(reply)) = (message.info(), message.reply.clone()) else {
            // No stream sent it: there is nobody to answer.
            self.source.intake.metrics.nats_messages.refused.increment(1);
            let refused = Refused { decode_error: 1, ..Refused::default() };
            return self.source.intake.take((Batch::index(Bytes::new()).0, refused));
        };
        let (sequence, published) = (info.stream_sequence, info.published);
        match self.open.get_mut(&sequence) {
            Some(open) if open.published == published => {
                // It is in the ring, and is acknowledged under its newest name.
                (open.reply, open.told) = (reply, Instant::now());
                return;
            }
            Some(_of_another_stream) => self.forget(),
            None => {}
        }
        let checked = marked(&message.payload, &self.source.config.url.stream);
        let metrics = &self.source.intake.metrics;
        let [entry] = checked.0.entries() else {
            metrics.nats_messages.refused.increment(1);
            self.source.intake.take(checked);
            self.answer(session, reply, AckKind::Term).await;
            return;
        };
        let config = &self.source.config;
        let again = has_mark(&message.payload, &config.url.stream);
        if again || !config.wants(entry.kind, checked.0.source_id(entry)) {
            metrics.nats_messages.filtered.increment(1);
            self.answer(session, reply, AckKind::Ack).await;
            return;
        }
        self.source.intake.metrics.nats_open(self.open.len(), self.open.len() + 1);
        self.open.insert(sequence, Open { reply, published, told: Instant::now() });
        let report = self.report.clone();
        self.source.intake.take_frame(checked, |envelopes| Ticket::new(sequence, envelopes, report));
    }

    /// An envelope has left the ring.
    async fn settle(&mut self, session: &Session, fate: Fate) {
        let (sequence, arrived) = match fate {
            Fate::Settled { sequence, dropped, .. } => (sequence, dropped == 0),
            // The agent stops with it.
            Fate::Unknown { sequence } => (sequence, false),
        };
        let Some(reply) = self.open.get(&sequence).map(|open| open.reply.clone()) else { return };
        let kind = if arrived { AckKind::Ack } else { AckKind::Nak(Some(AGAIN)) };
        if !self.answer(session, reply, kind).await {
            return self.unsaid.push(fate);
        }
        self.open.remove(&sequence);
        let metrics = &self.source.intake.metrics;
        metrics.nats_open(self.open.len() + 1, self.open.len());
        if arrived {
            metrics.nats_messages.accepted.increment(1);
        } else {
            metrics.nats_messages.again.increment(1);
        }
    }

    /// The stream was made anew: its numbers mean other messages. The ring keeps what it has, and nobody is told of that.
    fn forget(&mut self) {
        let (stream, open) = (&self.source.config.url, self.open.len());
        if open > 0 {
            warn!(%stream, open, "Stream was made anew, messages of the old one are not acknowledged");
        }
        self.source.intake.metrics.nats_open(open, 0);
        self.open.clear();
        self.unsaid.clear();
        self.due.clear();
        // What becomes of the old ones goes nowhere.
        (self.report, self.fates) = mpsc::channel(self.source.config.max_ack_pending.get());
    }

    /// Looks for what the server has not heard of for `age`.
    fn find_due(&mut self, age: Duration) {
        if self.due.is_empty() {
            let old = self.open.iter().filter(|(_, open)| open.told.elapsed() >= age);
            self.due.extend(old.map(|(sequence, _)| *sequence));
        }
    }

    /// What waits for a doppler is not to be given out again. A slice of it.
    async fn ask_for_time(&mut self, session: &Session) {
        for sequence in self.due.split_off(self.due.len().saturating_sub(SLICE)) {
            let Some(open) = self.open.get_mut(&sequence) else { continue };
            open.told = Instant::now();
            let reply = open.reply.clone();
            self.answer(session, reply, AckKind::Progress).await;
        }
    }

    /// Answers a message. Returns whether the connection was there for it: if not, the message comes again.
    async fn answer(&self, session: &Session, reply: Subject, kind: AckKind) -> bool {
        tokio::select! {
            biased;
            _ended = session.link.ended() => false,
            published = session.link.client().publish(reply, kind.into()) => published.is_ok(),
        }
    }

    /// Something came over a connection, or it has lasted.
    fn works(&mut self, session: &mut Session) {
        if !std::mem::replace(&mut session.works, true) {
            self.backoff.reset();
            self.recovered(session);
        }
    }

    fn failed(&mut self, error: &NatsError) {
        self.source.intake.metrics.nats_failures.increment(1);
        if let Some(suppressed) = self.said.pass() {
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

/// Connects, and makes sure of the consumer.
async fn open(source: &mut Source, turn: usize) -> Result<Session, NatsError> {
    let link = source.target.open(turn).await?;
    let looked = tokio::select! {
        looked = consumer::ensure(&source.config, &link) => looked,
        error = link.ended() => return Err(error),
    };
    let there = looked.map_err(|error| NatsError { text: format!("{}: {}", link.server(), error.text), ..error })?;
    let consumer::There { consumer, created, ack_wait } = there;
    Ok(Session { link, consumer, pull: None, ack_wait, created, begun: Instant::now(), works: false })
}
