//! The loop of a drain that pushes requests: its inlet to its maker to its connections.
//!
//! Envelopes gather for as long as the drain's configuration says, or until a request is full; then requests are made, one after the
//! other in each lane, the lanes at once. Meanwhile the ring fills; nothing else is held up. An answer decides: 2xx is delivered; 408, 429,
//! 5xx and no answer are tried again, not before `Retry-After`; what else is answered with 4xx is for good, and dropped. A protocol may
//! have rules of its own ([`Rules`](super::maker::Rules)).

use std::collections::VecDeque;
use std::io;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use futures_util::future::join_all;
use proto::reason::Reason;
use telemetry::Throttle;
use tokio::time::{Instant, sleep, sleep_until};
use tracing::warn;
use transport::Backoff;

use super::attempt::attempt;
use super::maker::{Maker, Request};
use crate::drains::Headers;
use crate::health::{self, Teller};
use crate::inlet::{Inlet, One, Taken};
use crate::metrics::DrainMetrics;
use crate::outcome::Outcome;
use crate::retry::{Retry, Schedule};
use crate::server::Drained;
use crate::subscribe::Queued;
use crate::syslog::client::{Link, Refusal};
use crate::syslog::config::DrainUrl;
use crate::syslog::drain::{Ended, Until};
use crate::syslog::trust::Trust;

/// The most that is kept for a change of the drain, in bytes.
const HELD: usize = 8 * 1024 * 1024;
/// Failures in a row after which a drain that is stopping gives up.
const LAST_ATTEMPTS: u32 = 3;

/// A drain that pushes requests.
pub(crate) struct Push {
    teller: Teller,
    inlet: Inlet,
    maker: Maker,
    lanes: Vec<Lane>,
    gather: Duration,
    /// Taken from the inlet and not put into the maker.
    in_hand: Option<Taken>,
    held: Held,
    until: Until,
    /// The process stops, and the destination did not take everything: the rest stays on disk.
    ended: bool,
    drained: Drained,
}

/// What is in the maker, or in requests that are not made, as it came: for another form of this drain.
#[derive(Default)]
struct Held {
    loads: Vec<Queued>,
    bytes: usize,
    /// More than [`HELD`]: then it is not kept, and would be lost with a change of the drain.
    too_much: bool,
    /// What has become of these envelopes so far. It counts once they are all dealt with.
    tally: Tally,
}

/// What has become of envelopes.
#[derive(Debug, Default)]
struct Tally {
    delivered: u64,
    filtered: u64,
    dropped: Vec<(Reason, u64)>,
}

/// What a [`Push`] is made of.
pub(crate) struct Parts {
    pub(crate) name: String,
    /// The URL, anonymised.
    pub(crate) url: String,
    /// Where the requests of each lane go.
    pub(crate) lanes: Vec<(DrainUrl, Option<Trust>)>,
    /// Goes with every request, besides what the maker says.
    pub(crate) headers: Headers,
    pub(crate) inlet: Inlet,
    pub(crate) maker: Maker,
    pub(crate) gather: Duration,
    pub(crate) retry: Schedule,
    pub(crate) metrics: DrainMetrics,
}

/// Requests that are made one after the other, on one connection.
struct Lane {
    destination: DrainUrl,
    trust: Option<Trust>,
    headers: Headers,
    link: Option<Link>,
    retry: Retry,
    /// How long a request may wait.
    expiry: Option<Duration>,
}

impl Push {
    pub(crate) fn new(parts: Parts, until: Until) -> Self {
        let lane = |(destination, trust)| Lane {
            destination,
            trust,
            headers: parts.headers.clone(),
            link: None,
            expiry: Retry::new(parts.retry, 0).expiry(parts.inlet.is_disk()),
            retry: Retry::new(parts.retry, Backoff::random_seed()),
        };
        Self {
            lanes: parts.lanes.into_iter().map(lane).collect(),
            teller: Teller::new(parts.name, parts.url, parts.metrics),
            inlet: parts.inlet,
            maker: parts.maker,
            gather: parts.gather,
            in_hand: None,
            held: Held::default(),
            until,
            ended: false,
            drained: Drained::default(),
        }
    }

    /// Runs until the inlet is closed and empty, or the hard stop, or until it is replaced.
    pub(crate) async fn run(mut self) -> Ended {
        loop {
            let more = self.gather().await;
            let ends = self.until.hard.is_cancelled() || self.until.replaced.is_cancelled();
            if !ends {
                self.tell_offenders();
                self.deliver(!more).await;
            }
            if ends || self.ended || self.until.hard.is_cancelled() || self.until.replaced.is_cancelled() || !more {
                break;
            }
        }
        if self.until.replaced.is_cancelled() { self.hand_over() } else { self.count_rest().await }
    }

    /// Puts envelopes into the maker until it is time for requests. False when none will come any more.
    async fn gather(&mut self) -> bool {
        let mut due = None;
        loop {
            if self.put() {
                return true;
            }
            if due.is_none() && self.maker.waiting() > 0 {
                due = Some(Instant::now() + self.gather);
            }
            tokio::select! {
                biased;
                () = self.until.hard.cancelled() => return false,
                () = self.until.replaced.cancelled() => return false,
                () = sleep_until(due.unwrap_or_else(Instant::now)), if due.is_some() => return true,
                taken = self.inlet.recv() => match taken {
                    Some(taken) => {
                        self.held.keep(taken.rest());
                        self.in_hand = Some(taken);
                    }
                    None => return false,
                },
            }
        }
    }

    /// Puts what is in hand into the maker. True when that is full.
    fn put(&mut self) -> bool {
        let now = Instant::now();
        while let Some(taken) = &mut self.in_hand {
            if self.maker.is_full() {
                return true;
            }
            let Some(One { bytes, age, .. }) = taken.next(now) else {
                self.in_hand = None;
                break;
            };
            if self.lanes.first().and_then(|lane| lane.expiry).is_some_and(|expiry| age > expiry) {
                self.held.tally.drop(Reason::Expired, 1);
                continue;
            }
            match self.maker.put(&bytes, now_ns()) {
                Outcome::Kept => {}
                Outcome::Ignored => self.held.tally.filtered += 1,
                Outcome::Dropped(reason) => self.held.tally.drop(reason, 1),
            }
        }
        if self.maker.waiting() == 0 && self.in_hand.is_none() && self.held.tally.delivered == 0 {
            // Nothing of it is to be sent.
            self.dealt();
        }
        false
    }

    /// Makes the requests that are due, at the end all there are, and waits for their answers.
    async fn deliver(&mut self, all: bool) {
        let (requests, absorbed) = self.maker.flush(now_ns(), all);
        self.held.tally.delivered += absorbed;
        self.maker.tell(self.teller.metrics());
        let until = &self.until;
        let teller = &self.teller;
        let work = self.lanes.iter_mut().zip(requests).map(|(lane, requests)| lane.deliver(requests, teller, until));
        // In a box: it is what takes most, and only while it is under way.
        let mut left = 0;
        for (tally, requests) in Box::pin(join_all(work)).await {
            self.held.tally.add(tally);
            left += requests.iter().map(|request| request.envelopes).sum::<u64>();
        }
        if left > 0 {
            if self.until.replaced.is_cancelled() && !self.held.too_much {
                // All of it goes to the next form.
                return;
            }
            if self.inlet.stays() {
                // It waits on disk for the next start.
                self.ended = true;
                return;
            }
            // The time of a stop is over, or a change finds more than was kept for it.
            self.held.tally.drop(Reason::ShutdownDeadline, left);
            self.drained.dropped += left;
        }
        // What the maker keeps for later is not dealt with.
        if self.maker.waiting() == 0 {
            self.dealt();
        }
    }

    /// What was put into the maker is dealt with, but for what is in hand.
    fn dealt(&mut self) {
        std::mem::take(&mut self.held).tally.count(self.teller.metrics());
        self.held.keep(self.in_hand.as_ref().and_then(Taken::rest));
        self.inlet.dealt(self.in_hand.as_ref().and_then(Taken::place));
    }

    fn tell_offenders(&mut self) {
        static SAID: Throttle = Throttle::every(Duration::from_secs(10));
        for offender in self.maker.offenders() {
            if let Some(suppressed) = SAID.pass() {
                warn!(
                    drain = %self.teller.name(), metric = offender.metric, source_id = offender.source_id, label = offender.label,
                    refused = offender.refused, suppressed, "A metric has more series than there is room for"
                );
            }
        }
    }

    /// Leaves what was not delivered to whatever goes on in this drain's place. What was delivered of it goes out again: that is the same
    /// value at the same time, or a count that is told twice.
    fn hand_over(mut self) -> Ended {
        let held = std::mem::take(&mut self.held);
        if held.too_much {
            let mut tally = held.tally;
            tally.drop(Reason::ShutdownDeadline, self.maker.waiting());
            tally.count(self.teller.metrics());
            self.drained.dropped += self.maker.waiting();
            self.inlet.put_back(self.in_hand.as_ref().and_then(Taken::rest).into_iter().collect());
        } else {
            self.inlet.put_back(held.loads.into());
        }
        Ended { drained: self.drained, rest: Some(self.inlet) }
    }

    /// Counts what will not be delivered.
    async fn count_rest(mut self) -> Ended {
        self.inlet.close();
        let held = std::mem::take(&mut self.held);
        held.tally.count(self.teller.metrics());
        // What is on disk stays there, or is counted with it; what went past the disk is lost.
        let mut lost = match self.inlet.is_disk() {
            true => held.loads.iter().map(|load| load.selection.len() as u64).sum(),
            false => self.maker.waiting(),
        };
        loop {
            if let Some(mut taken) = self.in_hand.take() {
                while let Some(one) = taken.next(Instant::now()) {
                    lost += u64::from(one.place.is_none());
                }
            }
            match self.inlet.try_recv() {
                Ok(taken) => self.in_hand = Some(taken),
                Err(_) => break,
            }
        }
        if lost > 0 {
            self.teller.metrics().dropped(Reason::ShutdownDeadline, lost);
            self.drained.dropped += lost;
            tracing::error!(drain = %self.teller.name(), url = %self.teller.url(), dropped = lost, "Drain stopped before it was empty");
        }
        self.inlet.finish().await;
        Ended { drained: self.drained, rest: None }
    }
}

impl Lane {
    /// Makes requests in order. Returns those that were not made when it had to end.
    async fn deliver(&mut self, requests: Vec<Request>, teller: &Teller, until: &Until) -> (Tally, VecDeque<Request>) {
        let mut tally = Tally::default();
        let mut requests = VecDeque::from(requests);
        let (mut failures, mut told, begun) = (0, until.soft.is_cancelled(), Instant::now());
        while let Some(request) = requests.front() {
            let outcome = tokio::select! {
                outcome = attempt(&mut self.link, &self.destination, self.trust.as_mut(), &self.headers, request) => outcome,
                () = until.hard.cancelled() => break,
            };
            let error = match outcome {
                Ok(taken) => {
                    teller.succeeded();
                    // Of which envelopes they were is not said: each is at least one.
                    let rejected = taken.rejected.min(request.envelopes);
                    if rejected > 0 || !taken.said.is_empty() {
                        teller.rejected(taken.rejected, &taken.said);
                        tally.drop(Reason::RejectedPermanent, rejected);
                    }
                    tally.delivered += request.envelopes - rejected;
                    self.retry.succeeded();
                    failures = 0;
                    requests.pop_front();
                    continue;
                }
                Err(error) => error,
            };
            let refusal = Refusal::of(&error);
            if refusal.is_none() {
                self.link = None;
            }
            teller.failed(&error, health::needs_a_change(&error));
            if refusal.is_some_and(Refusal::is_ours) {
                tally.drop(Reason::RejectedPermanent, request.envelopes);
                requests.pop_front();
                continue;
            }
            failures += 1;
            if until.soft.is_cancelled() && failures >= LAST_ATTEMPTS {
                break;
            }
            let next = self.retry.failed(error.kind() == io::ErrorKind::ConnectionRefused);
            let wait = refusal.and_then(|refusal| refusal.after).unwrap_or_default().max(next.wait);
            tokio::select! {
                () = sleep(wait) => {}
                () = Trust::renewed(self.trust.as_mut()) => {}
                () = until.soft.cancelled(), if !told => told = true,
                () = until.hard.cancelled() => break,
                () = until.replaced.cancelled() => break,
            }
            let expired = self.expiry.is_some_and(|expiry| begun.elapsed() > expiry);
            if next.give_up || expired {
                let reason = if expired { Reason::Expired } else { Reason::RetryExhausted };
                if let Some(request) = requests.pop_front() {
                    tally.drop(reason, request.envelopes);
                }
            }
        }
        (tally, requests)
    }
}

impl Held {
    fn keep(&mut self, load: Option<Queued>) {
        let Some(load) = load.filter(|_| !self.too_much) else { return };
        self.bytes += load.selection.held();
        self.loads.push(load);
        if self.bytes > HELD {
            (self.loads, self.too_much) = (Vec::new(), true);
        }
    }
}

impl Tally {
    fn drop(&mut self, reason: Reason, envelopes: u64) {
        match self.dropped.iter_mut().find(|(known, _)| *known == reason) {
            Some((_, sum)) => *sum += envelopes,
            None => self.dropped.push((reason, envelopes)),
        }
    }

    fn add(&mut self, other: Self) {
        self.delivered += other.delivered;
        self.filtered += other.filtered;
        other.dropped.into_iter().for_each(|(reason, envelopes)| self.drop(reason, envelopes));
    }

    fn count(self, metrics: &DrainMetrics) {
        metrics.sent(self.delivered);
        metrics.confirmed(self.delivered);
        metrics.delivered(self.delivered);
        metrics.filtered(self.filtered);
        for (reason, envelopes) in self.dropped.into_iter().filter(|(_, envelopes)| *envelopes > 0) {
            metrics.dropped(reason, envelopes);
        }
    }
}

/// Nanoseconds since the Unix epoch, now.
pub(crate) fn now_ns() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_nanos()).unwrap_or(i64::MAX)
}
