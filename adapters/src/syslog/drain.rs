//! The loop of one syslog drain: its ring to its encoder to its connection.
//!
//! Envelopes enter from the ring, a few hundred at a time; lines leave on one connection, opened when there is something to say. While
//! the destination is away the ring fills and evicts; nothing else is held up. Every envelope taken from the ring is delivered,
//! filtered, dropped for a reason, or uncertain, and counted as that. It never waits longer than the stop allows.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use bytes::BytesMut;
use proto::reason::Reason;
use tokio::time::{Instant, sleep, sleep_until};
use tokio_util::sync::CancellationToken;
use tracing::{debug, info, warn};

use self::lines::{LastSource, REQUEST};
use super::client::{End, Link, Refusal};
use super::config::DrainUrl;
use super::encode::Encoder;
use super::trust::Trust;
use super::window::Window;
use crate::health::{self, Change, Health};
use crate::inlet::{Inlet, Taken};
use crate::metrics::DrainMetrics;
use crate::notice::Losses;
use crate::policy::AddressPolicy;
use crate::retry::Retry;
use crate::server::Drained;
use crate::status::State;

mod lines;

/// For a receiver to acknowledge everything and close.
const SETTLE: Duration = Duration::from_secs(1);
/// How long lines wait for others to go with them in one request.
const GATHERED_FOR: Duration = Duration::from_secs(1);
/// Failures in a row after which a drain that is stopping gives up.
const LAST_ATTEMPTS: u32 = 3;

/// One drain, ready to run.
pub(crate) struct Drain {
    name: String,
    /// The destination, anonymised.
    url: String,
    destination: DrainUrl,
    /// For a drain over TLS.
    trust: Option<Trust>,
    /// For a drain of an app.
    policy: Option<Arc<AddressPolicy>>,
    inlet: Inlet,
    /// What was taken from the inlet and is not encoded.
    in_hand: Option<Taken>,
    encoder: Encoder,
    last_source: LastSource,
    chunk: BytesMut,
    window: Window,
    /// How many envelopes go into one request, since one of more was refused for good.
    narrow: Option<usize>,
    link: Option<Open>,
    /// Connections that broke.
    broken: usize,
    retry: Retry,
    health: Health,
    losses: Arc<Losses>,
    metrics: DrainMetrics,
    /// What `metrics` have been told of [`Window::unconfirmed`].
    unconfirmed: usize,
    stop: Stop,
    drained: Drained,
}

/// What a [`Drain`] is made of.
pub(crate) struct Parts {
    pub(crate) name: String,
    pub(crate) url: String,
    pub(crate) destination: DrainUrl,
    pub(crate) trust: Option<Trust>,
    pub(crate) policy: Option<Arc<AddressPolicy>>,
    pub(crate) inlet: Inlet,
    pub(crate) encoder: Encoder,
    pub(crate) resend: bool,
    pub(crate) retry: Retry,
    pub(crate) losses: Arc<Losses>,
    pub(crate) metrics: DrainMetrics,
}

/// An open connection.
struct Open {
    link: Link,
    /// Something was written to it.
    used: bool,
}

/// When a drain is to end.
#[derive(Clone, Debug)]
pub(crate) struct Until {
    /// No more comes into the ring; deliver what is there.
    pub(crate) soft: CancellationToken,
    /// The time for that is over.
    pub(crate) hard: CancellationToken,
    /// Another form of this drain goes on with what is there: write nothing more.
    pub(crate) replaced: CancellationToken,
}

/// What is left of a drain that has ended.
pub(crate) struct Ended {
    pub(crate) drained: Drained,
    /// Of a drain that was replaced: what it has not written.
    pub(crate) rest: Option<Inlet>,
}

/// What is known of the end.
struct Stop {
    until: Until,
    /// The soft stop has been seen.
    seen: bool,
    /// Failures in a row since.
    failures: u32,
}

/// Whether the loop goes on.
#[derive(PartialEq, Eq)]
enum Flow {
    On,
    End,
}

impl Drain {
    pub(crate) fn new(parts: Parts, until: Until) -> Self {
        Self {
            name: parts.name,
            url: parts.url,
            destination: parts.destination,
            trust: parts.trust,
            policy: parts.policy,
            inlet: parts.inlet,
            in_hand: None,
            encoder: parts.encoder,
            last_source: LastSource::default(),
            chunk: BytesMut::new(),
            window: Window::new(parts.resend),
            narrow: None,
            link: None,
            broken: 0,
            retry: parts.retry,
            health: Health::default(),
            losses: parts.losses,
            metrics: parts.metrics,
            unconfirmed: 0,
            stop: Stop { until, seen: false, failures: 0 },
            drained: Drained::default(),
        }
    }

    /// Runs until the ring is closed and empty, or the hard stop, or until it is replaced.
    pub(crate) async fn run(mut self) -> Ended {
        loop {
            let flow = if self.fill().await { self.deliver().await } else { self.settle_last().await };
            if flow == Flow::End {
                break;
            }
        }
        if self.stop.until.replaced.is_cancelled() {
            return self.hand_over();
        }
        self.count_rest();
        self.inlet.finish().await;
        Ended { drained: self.drained, rest: None }
    }

    /// Waits until there is something to write. `false` when nothing will come any more.
    async fn fill(&mut self) -> bool {
        loop {
            self.encode();
            self.tell_inlet();
            let due = self.due();
            if due.is_some_and(|due| due <= Instant::now()) {
                return !self.stop.until.hard.is_cancelled() && !self.stop.until.replaced.is_cancelled();
            }
            let prune_at = self.window.prune_at();
            tokio::select! {
                biased;
                () = self.stop.until.hard.cancelled() => return false,
                () = self.stop.until.replaced.cancelled() => return false,
                end = ended(self.link.as_mut()) => self.link_ended(end).await,
                taken = self.inlet.recv() => match taken {
                    Some(taken) => self.in_hand = Some(taken),
                    None => return due.is_some(),
                },
                () = sleep_until(due.unwrap_or_else(Instant::now)), if due.is_some() => {}
                () = sleep_until(prune_at.unwrap_or_else(Instant::now)), if prune_at.is_some() => {
                    self.let_go(|window| window.prune(Instant::now()));
                }
            }
        }
    }

    /// When the lines in hand are to be written: at once, or when as many are there as a request should hold, or the first has waited for
    /// [`GATHERED_FOR`]. `None` without lines.
    fn due(&self) -> Option<Instant> {
        let first = self.window.unsent().front()?;
        if self.destination.scheme.gathers() && self.has_room() {
            Some(first.since + GATHERED_FOR)
        } else {
            Some(Instant::now())
        }
    }

    /// Whether there is a connection whose receiver answers.
    fn answers(&self) -> bool {
        self.link.as_ref().is_some_and(|open| open.link.answers())
    }

    /// How many envelopes to write next, at once.
    fn burst(&self) -> usize {
        let burst = if self.destination.scheme.gathers() { self.window.unsent().len() } else { self.window.burst() };
        burst.min(self.narrow.unwrap_or(usize::MAX))
    }

    /// One step towards the destination: connects, or writes one burst.
    async fn deliver(&mut self) -> Flow {
        let burst = self.burst();
        let Some(open) = &mut self.link else { return self.connect().await };
        if let Err(end) = open.link.check() {
            return self.link_lost(end).await;
        }
        let mut written = 0;
        open.used = true;
        let outcome = tokio::select! {
            outcome = open.link.write(self.window.unsent(), burst, &mut written) => outcome,
            () = self.stop.until.hard.cancelled() => Err(io::Error::new(io::ErrorKind::TimedOut, "the stop did not wait longer")),
        };
        self.wrote(written);
        if let Err(error) = outcome {
            // A receiver that answered for some of it is well.
            if written > 0 && self.answers() {
                self.succeeded();
            }
            return match Refusal::of(&error) {
                Some(refusal) if refusal.permanent => self.refused(burst - written, &error),
                Some(_) => self.failed(&error).await,
                None => self.link_lost(End::Broken(error)).await,
            };
        }
        self.narrow = self.narrow.map(|narrow| 2 * narrow).filter(|narrow| *narrow < REQUEST.0);
        if self.window.is_careful() {
            let pause = self.link.as_ref().map_or(Duration::ZERO, |open| open.link.pause());
            tokio::select! {
                end = ended(self.link.as_mut()) => return self.link_lost(end).await,
                () = sleep(pause) => self.let_go(Window::quiet),
                () = self.stop.until.hard.cancelled() => return Flow::End,
                () = self.stop.until.replaced.cancelled() => return Flow::End,
            }
        }
        self.succeeded();
        // A receiver that always has room never makes this task wait.
        tokio::task::yield_now().await;
        Flow::On
    }

    /// The receiver will never take the first lines in hand, `count` envelopes, as they are: looks for the one that is to blame, and
    /// gives that up.
    fn refused(&mut self, count: usize, error: &io::Error) -> Flow {
        if self.destination.scheme.gathers() && count > 1 {
            self.narrow = Some(count / 2);
        } else if let Some(frame) = self.window.pop() {
            self.unhealthy(error);
            self.lose_frame(&frame, Reason::RejectedPermanent);
        }
        Flow::On
    }

    async fn connect(&mut self) -> Flow {
        let policy = self.policy.as_deref();
        let opened = tokio::select! {
            // In a box: it is seldom, and takes much.
            opened = Box::pin(Link::open(&self.destination, self.trust.as_mut(), self.broken, policy)) => opened,
            () = self.stop.until.hard.cancelled() => return Flow::End,
            () = self.stop.until.replaced.cancelled() => return Flow::End,
        };
        match opened {
            Ok(link) => {
                debug!(drain = %self.name, url = %self.url, "Drain connected");
                self.metrics.connected();
                self.link = Some(Open { link, used: false });
                Flow::On
            }
            Err(error) => self.failed(&error).await,
        }
    }

    /// The connection ended while lines wait: decides whether that was a failure.
    async fn link_lost(&mut self, end: End) -> Flow {
        let in_order = matches!(end, End::Closed) && self.link.as_ref().is_some_and(|open| open.used);
        let before = self.window.unsent().len();
        let error = match &end {
            End::Closed => io::Error::other("the destination closed the connection"),
            End::Broken(error) => io::Error::new(error.kind(), error.to_string()),
        };
        let answers = self.answers();
        self.link_ended(end).await;
        if in_order && self.window.unsent().len() == before {
            // It took what it was sent, and closed. The next line goes through a new connection, at once. Where there are answers, they
            // have said whether it took it.
            if !answers {
                self.succeeded();
            }
            return Flow::On;
        }
        self.failed(&error).await
    }

    /// The connection ended: what was written to it is confirmed, or comes back.
    async fn link_ended(&mut self, end: End) {
        let Some(open) = self.link.take() else { return };
        let end = match end {
            End::Closed => open.link.settle(SETTLE).await,
            broken => broken,
        };
        debug!(drain = %self.name, ?end, "Connection ended");
        match end {
            End::Closed => self.let_go(Window::closed),
            End::Broken(_) => self.link_broke(),
        }
    }

    /// The connection broke: what it had not certainly delivered comes back.
    fn link_broke(&mut self) {
        self.broken = self.broken.wrapping_add(1);
        let uncertain = self.window.reset();
        self.metrics.uncertain(uncertain);
        self.tell_unconfirmed();
    }

    /// Shows, and says in the log, that something does not work.
    fn unhealthy(&mut self, error: &io::Error) {
        self.metrics.status().failed(error.to_string());
        if let Some(Change { state, tell }) = self.health.failed(Instant::now(), health::needs_a_change(error)) {
            self.metrics.state(state);
            match state {
                _ if !tell => {}
                State::Broken => {
                    tracing::error!(drain = %self.name, url = %self.url, %error, "Drain does not deliver until somebody changes something");
                }
                State::Failing => {
                    tracing::error!(drain = %self.name, url = %self.url, %error, "Drain does not deliver")
                }
                _ => warn!(drain = %self.name, url = %self.url, %error, "Drain does not deliver, retrying"),
            }
        }
    }

    /// An attempt failed: waits as the schedule says, or as the receiver asks, then gives up what the schedule says.
    async fn failed(&mut self, error: &io::Error) -> Flow {
        self.unhealthy(error);
        let mut next = self.retry.failed(error.kind() == io::ErrorKind::ConnectionRefused);
        next.wait = Refusal::of(error).and_then(|refusal| refusal.after).unwrap_or_default().max(next.wait);
        if self.stop.until.soft.is_cancelled() {
            self.stop.failures += 1;
            if self.stop.failures >= LAST_ATTEMPTS {
                return Flow::End;
            }
        }
        tokio::select! {
            () = sleep(next.wait) => {
                // What went together is given up together.
                let together = if self.destination.scheme.gathers() { self.burst() } else { 1 };
                let count = if next.give_up { together } else { 0 };
                for _ in 0..count {
                    if let Some(frame) = self.window.pop() {
                        self.lose_frame(&frame, Reason::RetryExhausted);
                    }
                }
            }
            // New certificates may be all that was wanting.
            () = Trust::renewed(self.trust.as_mut()) => {}
            () = self.stop.until.soft.cancelled(), if !self.stop.seen => {
                self.stop.seen = true;
                self.retry.succeeded();
            }
            () = self.stop.until.hard.cancelled() => return Flow::End,
            () = self.stop.until.replaced.cancelled() => return Flow::End,
        }
        while let Some(frame) = self.window.pop_expired(Instant::now()) {
            self.lose_frame(&frame, Reason::Expired);
        }
        Flow::On
    }

    fn succeeded(&mut self) {
        self.retry.succeeded();
        self.stop.failures = 0;
        if let Some(Change { state, tell }) = self.health.succeeded() {
            self.metrics.state(state);
            if tell {
                info!(drain = %self.name, url = %self.url, "Drain delivers again");
            }
        }
    }

    fn wrote(&mut self, count: usize) {
        let wrote = self.window.wrote(count, Instant::now());
        self.metrics.sent(count as u64);
        self.metrics.delivered(wrote.first);
        self.metrics.requeued(wrote.again);
        self.metrics.confirmed(wrote.let_go);
        self.tell_unconfirmed();
        if self.answers() {
            self.let_go(Window::closed);
        }
        if self.stop.until.soft.is_cancelled() {
            self.drained.flushed += wrote.first;
        }
    }

    fn let_go(&mut self, what: impl FnOnce(&mut Window) -> u64) {
        let confirmed = what(&mut self.window);
        self.metrics.confirmed(confirmed);
        self.tell_unconfirmed();
    }

    /// What is neither in hand nor in the window is dealt with.
    pub(super) fn tell_inlet(&mut self) {
        // In memory nothing has a place to be looked for.
        if !self.inlet.is_disk() {
            return;
        }
        let in_hand = self.in_hand.as_ref().and_then(Taken::place);
        self.inlet.dealt(self.window.place().or(in_hand));
    }

    fn tell_unconfirmed(&mut self) {
        let now = self.window.unconfirmed();
        self.metrics.unconfirmed(std::mem::replace(&mut self.unconfirmed, now), now);
    }

    /// Everything is written, or time is up: closes the connection. Lines that come back are delivered first.
    async fn settle_last(&mut self) -> Flow {
        let Some(open) = self.link.take() else { return Flow::End };
        let within = if self.stop.until.hard.is_cancelled() { Duration::ZERO } else { SETTLE };
        match open.link.settle(within).await {
            End::Closed => self.let_go(Window::closed),
            // It need not close because we do. Most likely it has it all.
            End::Broken(error) if error.kind() == io::ErrorKind::TimedOut => {}
            End::Broken(error) => {
                self.link_broke();
                if !self.window.unsent().is_empty() {
                    return self.failed(&error).await;
                }
            }
        }
        Flow::End
    }
}

/// The end of the connection, if there is one; else never.
///
/// # Cancel safety
/// As [`Link::ended`].
async fn ended(open: Option<&mut Open>) -> End {
    match open {
        Some(open) => open.link.ended().await,
        None => std::future::pending().await,
    }
}

#[cfg(test)]
mod tests;
