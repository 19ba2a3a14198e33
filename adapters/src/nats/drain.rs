//! The loop of a drain to a stream: its inlet to its window to its session.
//!
//! Envelopes leave one after the other without waiting for answers, up to a window of them; an envelope counts as delivered, and leaves
//! the disk, when the stream has answered that it has it. When a stream refuses one that it may take later, nothing more is sent until
//! what is under way is answered; then they go one by one, in order, until the stream takes them again. When a connection ends, what was
//! not answered is sent again on the next one, in order and under the same ids, and the stream leaves out what it has. While the stream is
//! away the ring or the disk fills; nothing else is held up.

use std::future::pending;
use std::sync::Arc;
use std::time::Duration;

use proto::reason::Reason;
use telemetry::Throttle;
use tokio::time::{Instant, sleep, sleep_until, timeout};
use tracing::{debug, error, warn};
use transport::Backoff;
use transport::nats::NatsError;

use super::choice::subject_of;
use super::ids::Ids;
use super::place::Place;
use super::session::{Session, Verdict};
use super::window::{Pending, WINDOW, Window};
use crate::health::Teller;
use crate::inlet::{Inlet, One, Taken};
use crate::metrics::DrainMetrics;
use crate::notice::{self, Losses};
use crate::read::Envelope;
use crate::retry::{Retry, Schedule};
use crate::server::Drained;
use crate::subscribe::Queued;
use crate::syslog::config::LogTypes;
use crate::syslog::drain::{Ended, Until};
use crate::syslog::trust::Trust;

/// For the next answer while messages are under way.
const ANSWER: Duration = Duration::from_secs(10);
/// For answers that are under way when the drain changes.
const SETTLE: Duration = Duration::from_secs(1);
/// Failures in a row after which a drain that is stopping gives up.
const LAST_ATTEMPTS: u32 = 3;

/// A drain to a stream.
pub(crate) struct Nats {
    name: String,
    url: String,
    place: Place,
    trust: Option<Trust>,
    log_types: LogTypes,
    inlet: Inlet,
    /// Taken from the inlet and not in the window.
    in_hand: Option<Taken>,
    /// Nothing more will come from the inlet.
    closed: bool,
    ids: Ids,
    window: Window,
    session: Option<Session>,
    /// Connections that were tried.
    turn: usize,
    /// What may be under way: the whole window, or less after a refusal.
    limit: usize,
    /// Why the stream does not take more now, and whether to look at it anew: when nothing is under way, it is time to wait.
    refused: Option<(NatsError, bool)>,
    /// When the last answer came, or the first message went after it.
    heard: Instant,
    retry: Retry,
    teller: Teller,
    metrics: DrainMetrics,
    losses: Arc<Losses>,
    until: Until,
    /// The soft stop has been seen, and failures in a row since.
    stopping: (bool, u32),
    drained: Drained,
}

/// What a [`Nats`] is made of.
pub(crate) struct Parts {
    pub(crate) name: String,
    /// The URL, anonymised.
    pub(crate) url: String,
    pub(crate) place: Place,
    pub(crate) trust: Option<Trust>,
    pub(crate) log_types: LogTypes,
    pub(crate) inlet: Inlet,
    pub(crate) retry: Schedule,
    pub(crate) losses: Arc<Losses>,
    pub(crate) metrics: DrainMetrics,
}

/// Whether the loop goes on.
#[derive(PartialEq, Eq)]
enum Flow {
    On,
    End,
}

/// What the loop waited for.
enum Event {
    Answer(Result<(u64, Verdict), NatsError>),
    Taken(Option<Taken>),
    Silent,
    End,
}

impl Nats {
    pub(crate) fn new(parts: Parts, until: Until) -> Self {
        let Parts { name, url, place, trust, log_types, inlet, retry, losses, metrics } = parts;
        let ids = Ids::new(&name, Backoff::random_seed());
        let teller = Teller::new(name.clone(), url.clone(), metrics.clone());
        Self {
            name,
            url,
            place,
            trust,
            log_types,
            inlet,
            in_hand: None,
            closed: false,
            ids,
            window: Window::default(),
            session: None,
            turn: 0,
            limit: WINDOW.0,
            refused: None,
            heard: Instant::now(),
            retry: Retry::new(retry, Backoff::random_seed()),
            teller,
            metrics,
            losses,
            until,
            stopping: (false, 0),
            drained: Drained::default(),
        }
    }

    /// Runs until the inlet is closed and empty, or the hard stop, or until it is replaced.
    pub(crate) async fn run(mut self) -> Ended {
        while self.step().await == Flow::On {}
        if self.until.replaced.is_cancelled() && !self.until.hard.is_cancelled() {
            return self.hand_over().await;
        }
        self.count_rest().await
    }

    async fn step(&mut self) -> Flow {
        if self.until.hard.is_cancelled() || self.until.replaced.is_cancelled() {
            return Flow::End;
        }
        self.fill();
        self.tell_inlet();
        if self.closed && self.window.is_empty() && self.in_hand.is_none() {
            return Flow::End;
        }
        // A drain that is stopping and has nothing needs no connection.
        if self.session.is_none() && !(self.until.soft.is_cancelled() && self.window.is_empty()) {
            return self.connect().await;
        }
        if let Some((error, reopen)) = self.refused.take() {
            if self.window.under_way() == 0 {
                return self.refused(error, reopen).await;
            }
            self.refused = Some((error, reopen));
        } else if let Err(error) = self.send().await {
            return self.lost(error).await;
        }
        match self.wait().await {
            Event::Answer(Ok((number, verdict))) => self.answered(number, verdict),
            Event::Answer(Err(error)) => return self.lost(error).await,
            Event::Taken(Some(taken)) => self.in_hand = Some(taken),
            Event::Taken(None) => self.closed = true,
            Event::Silent => {
                let error = NatsError::passing(format!("the stream has not answered for {} s", ANSWER.as_secs()));
                return self.lost(error).await;
            }
            Event::End => return Flow::End,
        }
        Flow::On
    }

    async fn wait(&mut self) -> Event {
        let (session, inlet) = (self.session.as_mut(), &mut self.inlet);
        let wants = !self.closed && self.in_hand.is_none() && self.window.has_room();
        let silent = self.heard + ANSWER;
        tokio::select! {
            biased;
            () = self.until.hard.cancelled() => Event::End,
            () = self.until.replaced.cancelled() => Event::End,
            answer = answer(session) => Event::Answer(answer),
            taken = inlet.recv(), if wants => Event::Taken(taken),
            () = sleep_until(silent), if self.window.under_way() > 0 => Event::Silent,
        }
    }

    /// Puts what is at hand into the window.
    fn fill(&mut self) {
        let now = Instant::now();
        let mut filtered = 0;
        while self.window.has_room() {
            let Some(taken) = &mut self.in_hand else {
                match self.inlet.try_recv() {
                    Ok(taken) => self.in_hand = Some(taken),
                    Err(_) => break,
                }
                continue;
            };
            let Some(one) = taken.next(now) else {
                self.in_hand = None;
                continue;
            };
            let expiry = self.retry.expiry(one.place.is_some());
            if expiry.is_some_and(|expiry| one.age > expiry) {
                self.lose(&one.bytes, Reason::Expired);
                continue;
            }
            match subject_of(&one.bytes, &self.place, &self.log_types) {
                Ok(Some(subject)) => {
                    let id = self.ids.of(&one);
                    let expires = expiry.map(|expiry| now + expiry.saturating_sub(one.age));
                    let One { bytes, since, place, .. } = one;
                    self.window.push(Pending::new(bytes, subject, id, since, expires, place));
                }
                Ok(None) => filtered += 1,
                Err(_malformed) => self.metrics.dropped(Reason::DecodeError, 1),
            }
        }
        if filtered > 0 {
            self.metrics.filtered(filtered);
        }
    }

    async fn connect(&mut self) -> Flow {
        let opened = tokio::select! {
            // In a box: it is seldom, and takes much.
            opened = Box::pin(Session::open(&mut self.place, self.turn)) => opened,
            () = self.until.hard.cancelled() => return Flow::End,
            () = self.until.replaced.cancelled() => return Flow::End,
        };
        self.turn = self.turn.wrapping_add(1);
        match opened {
            Ok(session) => {
                debug!(drain = %self.name, url = %self.url, "Drain connected");
                self.metrics.connected();
                self.session = Some(session);
                self.refused = None;
                // With nothing to send, a connection whose stream is there is all that can be had.
                if self.window.is_empty() {
                    self.succeeded();
                }
                Flow::On
            }
            Err(error) => self.failed(&error).await,
        }
    }

    /// Sends what may be under way.
    async fn send(&mut self) -> Result<(), NatsError> {
        let before = self.window.under_way();
        let outcome = self.send_all().await;
        let sent = self.window.under_way() - before;
        if sent > 0 {
            self.metrics.sent(sent as u64);
            self.metrics.unconfirmed(before, before + sent);
            if before == 0 {
                self.heard = Instant::now();
            }
        }
        outcome
    }

    async fn send_all(&mut self) -> Result<(), NatsError> {
        let Some(session) = &self.session else { return Ok(()) };
        while self.window.under_way() < self.limit {
            let Some((number, pending)) = self.window.next() else { break };
            if session.size(pending) > session.max_size() {
                if let Some(large) = self.window.done(number) {
                    self.metrics.dropped(Reason::Oversize, 1);
                    record(&self.losses, &large.bytes, Reason::Oversize);
                }
                continue;
            }
            let publish = session.publish(number, &pending.subject, &pending.id, pending.bytes.clone());
            tokio::select! {
                biased;
                sent = publish => sent?,
                () = self.until.hard.cancelled() => break,
                () = sleep(ANSWER) => return Err(NatsError::passing("the server does not read")),
            }
            self.window.sent(number);
        }
        Ok(())
    }

    /// Takes an answer, and those that are at hand.
    fn answered(&mut self, number: u64, verdict: Verdict) {
        self.heard = Instant::now();
        let before = self.window.under_way();
        let (mut next, mut stored) = (Some((number, verdict)), 0);
        let (mut again, mut never, mut repeats) = (0, 0, 0);
        while let Some((number, verdict)) = next {
            match verdict {
                Verdict::Stored { repeat, .. } => {
                    if self.window.done(number).is_some() {
                        stored += 1;
                        repeats += u64::from(repeat);
                    }
                }
                Verdict::Never(reason, text) => {
                    if let Some(pending) = self.window.done(number) {
                        never += 1;
                        static SAID: Throttle = Throttle::every(Duration::from_secs(10));
                        if let Some(suppressed) = SAID.pass() {
                            warn!(drain = %self.name, url = %self.url, error = text, suppressed, "The stream will not take an envelope");
                        }
                        self.metrics.status().failed(format!("the stream will not take an envelope: {text}"));
                        self.lose(&pending.bytes, reason);
                    }
                }
                Verdict::NotNow { error, reopen } => {
                    if self.window.again(number) {
                        again += 1;
                        let reopen = reopen || self.refused.as_ref().is_some_and(|(_, reopen)| *reopen);
                        self.refused = Some((error, reopen));
                    }
                }
            }
            next = self.session.as_mut().and_then(Session::try_answer);
        }
        self.metrics.delivered(stored);
        self.metrics.repeats(repeats);
        self.metrics.confirmed(stored);
        // Taken back, whether to be sent again or not.
        self.metrics.requeued(again + never);
        self.metrics.unconfirmed(before, self.window.under_way());
        if self.until.soft.is_cancelled() {
            self.drained.flushed += stored;
        }
        if stored > 0 && self.refused.is_none() {
            self.limit = self.limit.saturating_mul(2).min(WINDOW.0);
            self.succeeded();
        }
    }

    /// The stream does not take the first that waits, and nothing is under way.
    async fn refused(&mut self, error: NatsError, reopen: bool) -> Flow {
        self.limit = 1;
        if reopen {
            self.session = None;
        }
        self.failed(&error).await
    }

    /// The connection has ended: what was under way waits again.
    async fn lost(&mut self, error: NatsError) -> Flow {
        self.end_session();
        self.failed(&error).await
    }

    fn end_session(&mut self) {
        self.session = None;
        self.refused = None;
        let before = self.window.under_way();
        let again = self.window.all_again();
        self.metrics.requeued(again);
        self.metrics.unconfirmed(before, 0);
    }

    /// An attempt failed: waits as the schedule says, then gives up what the schedule says.
    async fn failed(&mut self, error: &NatsError) -> Flow {
        self.teller.failed(error, error.lasting);
        let next = self.retry.failed(error.refused);
        if self.until.soft.is_cancelled() {
            self.stopping.1 += 1;
            if self.stopping.1 >= LAST_ATTEMPTS {
                return Flow::End;
            }
        }
        tokio::select! {
            () = sleep(next.wait) => {
                if next.give_up && let Some(pending) = self.window.give_up() {
                    self.lose(&pending.bytes, Reason::RetryExhausted);
                }
            }
            // New certificates may be all that was wanting.
            () = Trust::renewed(self.trust.as_mut()) => {}
            () = self.until.soft.cancelled(), if !self.stopping.0 => {
                self.stopping.0 = true;
                self.retry.succeeded();
            }
            () = self.until.hard.cancelled() => return Flow::End,
            () = self.until.replaced.cancelled() => return Flow::End,
        }
        for pending in self.window.expired(Instant::now()) {
            self.lose(&pending.bytes, Reason::Expired);
        }
        Flow::On
    }

    fn succeeded(&mut self) {
        self.retry.succeeded();
        self.stopping.1 = 0;
        self.teller.succeeded();
    }

    /// What is neither in hand nor in the window is dealt with.
    fn tell_inlet(&mut self) {
        if self.inlet.is_disk() {
            let in_hand = self.in_hand.as_ref().and_then(Taken::place);
            self.inlet.dealt(self.window.place().or(in_hand));
        }
    }

    fn lose(&mut self, envelope: &[u8], reason: Reason) {
        self.metrics.dropped(reason, 1);
        if reason == Reason::ShutdownDeadline {
            self.drained.dropped += 1;
        }
        record(&self.losses, envelope, reason);
    }

    /// Leaves what was not delivered to whatever goes on in this drain's place, with the ids under which it was sent.
    async fn hand_over(mut self) -> Ended {
        let hard = self.until.hard.clone();
        let settle = async {
            while self.window.under_way() > 0 {
                match answer(self.session.as_mut()).await {
                    Ok((number, verdict)) => self.answered(number, verdict),
                    Err(_) => break,
                }
            }
        };
        tokio::select! {
            _settled = timeout(SETTLE, settle) => {}
            () = hard.cancelled() => {}
        }
        self.end_session();
        self.tell_inlet();
        let kept = self.window.drain().filter(|pending| pending.place.is_none());
        let mut rest: std::collections::VecDeque<Queued> = kept
            .map(|pending| Queued { sent_as: pending.sent_as, ..One::load(pending.bytes, pending.since) })
            .collect();
        rest.extend(self.in_hand.take().as_ref().and_then(Taken::rest));
        self.inlet.put_back(rest);
        Ended { drained: self.drained, rest: Some(self.inlet) }
    }

    /// Counts what will not be delivered.
    async fn count_rest(mut self) -> Ended {
        self.inlet.close();
        self.end_session();
        self.tell_inlet();
        let left: Vec<Pending> = self.window.drain().collect();
        // What is on disk stays there, or is counted with it; what went past the disk is lost.
        for pending in left.into_iter().filter(|pending| pending.place.is_none()) {
            self.lose(&pending.bytes, Reason::ShutdownDeadline);
        }
        loop {
            if let Some(mut taken) = self.in_hand.take() {
                while let Some(one) = taken.next(Instant::now()) {
                    if one.place.is_none() {
                        self.lose(&one.bytes, Reason::ShutdownDeadline);
                    }
                }
            }
            match self.inlet.try_recv() {
                Ok(taken) => self.in_hand = Some(taken),
                Err(_) => break,
            }
        }
        if self.drained.dropped > 0 {
            error!(drain = %self.name, url = %self.url, dropped = self.drained.dropped, "Drain stopped before it was empty");
        }
        self.inlet.finish().await;
        Ended { drained: self.drained, rest: None }
    }
}

/// Keeps a loss for its owner, unless it is the notice of one.
fn record(losses: &Losses, envelope: &[u8], reason: Reason) {
    let (mut spare, mut parts) = (Vec::new(), Envelope::default());
    if parts.read(envelope, &mut spare).is_ok() && !notice::is_notice_envelope(envelope) {
        losses.record(&String::from_utf8_lossy(parts.source_id), reason, 1);
    }
}

/// The next answer, if there is a session; else never.
///
/// # Cancel safety
/// As [`Session::answer`].
async fn answer(session: Option<&mut Session>) -> Result<(u64, Verdict), NatsError> {
    match session {
        Some(session) => session.answer().await,
        None => pending().await,
    }
}
