//! The newest value of every series that envelopes make.
//!
//! Encoded envelopes enter, with the time it is; changed series leave to whoever sends them on, and a [`Snapshot`] of all to whoever
//! shows them. Logs and events are passed over and counted. Never reads a clock, never keeps an envelope.
//!
//! # Bounds
//! At most [`Limits::series`] series and [`Limits::label_bytes`] of labels; per series at most 60 tags and the labels of our own, their
//! names of 129 and values of 1024 bytes; a name of a metric is cut at 512 bytes before what goes around it. What envelopes are looked
//! up in has at most twice as many entries as there may be series, and is forgotten when it is full.
//!
//! # Cost
//! An envelope of a series that is known is read once and hashed: nothing is sorted, rendered or allocated. Two series whose identity
//! has one 64-bit hash (seeded for each process) would be taken for one: among 100 000 series by a chance of 3 in 10^10.

mod admit;
mod families;
mod http;
mod limits;
mod own;
mod snapshot;
#[cfg(test)]
mod tests;
mod value;

use std::collections::HashMap;
use std::hash::BuildHasher;
use std::sync::Arc;
use std::time::Duration;

use foldhash::fast::RandomState;
use hashbrown::HashTable;
use proto::raw::Kind;
use proto::reason::Reason;

use self::admit::Context;
use self::families::Families;
pub use self::families::Family;
pub use self::http::Http;
use self::limits::Offenders;
pub use self::limits::{Limits, OFFENDERS, Offender};
use self::own::{Own, OwnSeries};
pub use self::snapshot::Snapshot;
pub use self::value::{BUCKETS, Histogram, QUANTILES, Summary, Type, Value};
use super::labels::Labels;
use super::names::{self, Naming, Purpose};
use crate::outcome::Outcome;
use crate::read::{Counter, Envelope, Gauge, Timer, is_unbounded};

/// How envelopes become series.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Options {
    /// How series are named. [`Naming::Plain`].
    pub naming: Naming,
    /// Goes before every name, with a `_`. `None`: `firehose` for [`Naming::FirehoseExporter`], else nothing.
    pub namespace: Option<String>,
    /// The label `environment` of every series. Empty: no such label.
    pub environment: String,
    /// What to make of timers named `http`; `None`: nothing. By app.
    pub http: Option<Http>,
    /// A series without envelopes for this long ends. 10 min.
    pub expiry: Duration,
    /// How many series there may be.
    pub limits: Limits,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            naming: Naming::Plain,
            namespace: None,
            environment: String::new(),
            http: Some(Http::default()),
            expiry: Duration::from_secs(600),
            limits: Limits::default(),
        }
    }
}

/// Counts since the start, of values: a gauge envelope has several.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Changed a series.
    pub updates: u64,
    /// Older than what the series has: passed over.
    pub late: u64,
    /// No room for their series.
    pub cardinality: u64,
    /// Without a name, or one that other types have taken.
    pub unnamed: u64,
}

/// A series and its newest value.
#[derive(Debug)]
pub struct Series {
    pub(crate) family: Arc<Family>,
    pub(crate) labels: Arc<Labels>,
    pub(crate) value: Value,
    /// Of the newest envelope, in nanoseconds.
    pub(crate) timestamp: i64,
    /// The same in every process.
    pub(crate) hash: u64,
    /// Changes with every request: to be sent at intervals, not each time.
    pub(crate) rolled_up: bool,
    updated: i64,
    source: u64,
}

impl Series {
    /// The name.
    pub fn name(&self) -> &str {
        self.family.name()
    }

    /// The labels, without the name.
    pub fn labels(&self) -> &Labels {
        &self.labels
    }

    /// The newest value.
    pub fn value(&self) -> &Value {
        &self.value
    }
}

/// All series of a drain.
#[derive(Debug)]
pub struct Store {
    context: Context,
    expiry: i64,
    limits: Limits,
    hashes: RandomState,
    /// By the hash of what stands in an envelope: the series, or one of [`admit`]'s marks.
    known: HashMap<u64, u32, RandomState>,
    slots: Vec<Option<Series>>,
    free: Vec<u32>,
    by_labels: HashTable<u32>,
    families: Families,
    /// Series by family and hash of the source.
    by_source: HashMap<(u32, u64), usize, RandomState>,
    /// As Prometheus counts them.
    series: usize,
    label_bytes: usize,
    offenders: Offenders,
    counts: Counts,
    own: OwnSeries,
    /// How often series have ended.
    epoch: u64,
}

impl Store {
    /// An empty store.
    pub fn new(options: &Options) -> Self {
        let context = Context::new(options);
        let mut families = Families::default();
        let own = match options.naming {
            Naming::Plain => OwnSeries::default(),
            Naming::FirehoseExporter { .. } => OwnSeries::register(&mut families, context.namespace()),
        };
        Self {
            context,
            expiry: i64::try_from(options.expiry.as_nanos()).unwrap_or(i64::MAX),
            limits: options.limits,
            hashes: RandomState::default(),
            known: HashMap::default(),
            slots: Vec::new(),
            free: Vec::new(),
            by_labels: HashTable::new(),
            families,
            by_source: HashMap::default(),
            series: 0,
            label_bytes: 0,
            offenders: Offenders::default(),
            counts: Counts::default(),
            own,
            epoch: 0,
        }
    }

    /// Takes one encoded envelope that has passed a first hop. Calls `changed` with the number and the new state of each series that it
    /// changes. `now` is nanoseconds since the Unix epoch.
    ///
    /// An envelope without a time, or of the future, is taken as one of `now`. A counter without a total adds its delta to the series,
    /// as of `now` if it is late; a total that falls is passed on: the counter began anew. Gauges and totals older than what the
    /// series has are passed over. Ignored are logs, events, and timers that are not asked for; dropped is what is `DecodeError`,
    /// `ConvertError` (no name that can stand in a series), or `Cardinality`.
    pub fn put(&mut self, envelope: &[u8], now: i64, mut changed: impl FnMut(u32, &Series)) -> Outcome {
        self.own.count(Own::Envelopes, 1, now);
        let (mut spare, mut parts) = (Vec::new(), Envelope::default());
        let outcome = match parts.read(envelope, &mut spare) {
            Ok(()) => self.take(&parts, now, &mut changed),
            Err(_) => Outcome::Dropped(Reason::DecodeError),
        };
        if matches!(outcome, Outcome::Dropped(_)) {
            self.own.count(Own::EnvelopesDropped, 1, now);
        }
        outcome
    }

    fn take(&mut self, envelope: &Envelope<'_>, now: i64, changed: &mut impl FnMut(u32, &Series)) -> Outcome {
        let at = if (1..now).contains(&envelope.timestamp) { envelope.timestamp } else { now };
        let mut sink = Sink { at, now, changed, kept: false, refused: None };
        let read = match envelope.message {
            Some((Kind::Counter, message)) => {
                Counter::read(message).map(|counter| self.counter(envelope, counter, &mut sink))
            }
            Some((Kind::Gauge, message)) => {
                let identity = envelope.hash(&self.hashes);
                Gauge::each(message, |gauge| self.gauge(envelope, identity, gauge, &mut sink))
            }
            Some((Kind::Timer, message)) => match Timer::read(message) {
                Ok(timer) if timer.name == http::NAME => {
                    let Some(http) = self.context.http else { return Outcome::Ignored };
                    if http::is_repeated(envelope, self.context.naming) {
                        return Outcome::Ignored;
                    }
                    self.request(envelope, http, timer, &mut sink);
                    Ok(())
                }
                // The firehose_exporter knows no others.
                Ok(_) if self.context.naming != Naming::Plain => return Outcome::Ignored,
                read => read.map(|timer| self.timer(envelope, timer, &mut sink)),
            },
            _ => return Outcome::Ignored,
        };
        match (read, sink.kept, sink.refused) {
            (Err(_), ..) => Outcome::Dropped(Reason::DecodeError),
            (Ok(()), true, _) => Outcome::Kept,
            (Ok(()), false, Some(reason)) => Outcome::Dropped(reason),
            (Ok(()), false, None) => Outcome::Ignored,
        }
    }

    fn counter<F: FnMut(u32, &Series)>(
        &mut self,
        envelope: &Envelope<'_>,
        counter: Counter<'_>,
        sink: &mut Sink<'_, F>,
    ) {
        let identity = self.hashes.hash_one((envelope.hash(&self.hashes), 1u8, counter.name));
        self.own.count(Own::CounterEvent, 1, sink.now);
        let slot = self.slot(identity, |context| context.metric(envelope, Purpose::Counter, counter.name, b""));
        self.update(slot, sink, counter.is_step(), |value| {
            let Value::Counter(total) = value else { return };
            *total = if counter.is_step() { total.wrapping_add(counter.delta) } else { counter.total };
        });
        if self.context.naming.has_delta() {
            let identity = self.hashes.hash_one((identity, 2u8));
            let slot = self.slot(identity, |context| context.metric(envelope, Purpose::Delta, counter.name, b""));
            self.update(slot, sink, false, |value| *value = Value::Counter(counter.delta));
        }
    }

    fn gauge<F: FnMut(u32, &Series)>(
        &mut self,
        envelope: &Envelope<'_>,
        identity: u64,
        gauge: Gauge<'_>,
        sink: &mut Sink<'_, F>,
    ) {
        let identity = self.hashes.hash_one((identity, gauge.name, gauge.unit));
        if self.context.naming != Naming::Plain {
            let container = std::str::from_utf8(gauge.name).is_ok_and(names::is_container_metric);
            self.own.count(if container { Own::Container } else { Own::ValueMetric }, 1, sink.now);
        }
        let slot = self.slot(identity, |context| context.metric(envelope, Purpose::Gauge, gauge.name, gauge.unit));
        self.update(slot, sink, false, |value| *value = Value::Gauge(gauge.value));
    }

    fn timer<F: FnMut(u32, &Series)>(&mut self, envelope: &Envelope<'_>, timer: Timer<'_>, sink: &mut Sink<'_, F>) {
        let identity = envelope.hash_of_some(&self.hashes, is_unbounded);
        let identity = self.hashes.hash_one((identity, 3u8, timer.name));
        let slot = self.slot(identity, |context| context.metric(envelope, Purpose::Timer, timer.name, b""));
        self.update(slot, sink, true, |value| value.observe(timer.seconds()));
    }

    fn request<F: FnMut(u32, &Series)>(
        &mut self,
        envelope: &Envelope<'_>,
        http: Http,
        timer: Timer<'_>,
        sink: &mut Sink<'_, F>,
    ) {
        self.own.count(Own::Http, 1, sink.now);
        for form in http::forms(self.context.naming) {
            let observation = match form.of {
                Type::Summary => http::content_length(envelope),
                _ => Some(timer.seconds()),
            };
            let Some(observation) = observation else { continue };
            let node_index = self.context.node_index.clone();
            let request = http::Request::read(envelope, self.context.naming, http, &node_index);
            let mut identity = self.hashes.hash_one((4u8, form.name));
            request.identity(form, |part| identity = self.hashes.hash_one((identity, part)));
            let slot = self.slot(identity, |context| Some(context.request(&request, envelope, form)));
            self.update(slot, sink, true, |value| value.observe(observation));
        }
    }

    /// Changes a series. What is no `step` from the value it has must not be older than that value.
    fn update<F: FnMut(u32, &Series)>(
        &mut self,
        slot: Result<u32, Reason>,
        sink: &mut Sink<'_, F>,
        step: bool,
        change: impl FnOnce(&mut Value),
    ) {
        self.own.count(if slot.is_ok() { Own::Metrics } else { Own::MetricsDropped }, 1, sink.now);
        let slot = match slot {
            Ok(slot) => slot,
            Err(reason) => {
                let count =
                    if reason == Reason::Cardinality { &mut self.counts.cardinality } else { &mut self.counts.unnamed };
                *count += 1;
                sink.refused = Some(reason);
                return;
            }
        };
        let Some(series) = &mut self.slots[slot as usize] else { return };
        sink.kept = true;
        series.updated = sink.now;
        if sink.at < series.timestamp && !step {
            self.counts.late += 1;
            return;
        }
        // A late step is of when it came: the total that it makes was not there before.
        let is_late = step && sink.at <= series.timestamp;
        series.timestamp = if is_late { sink.now.max(series.timestamp) } else { sink.at };
        change(&mut series.value);
        self.counts.updates += 1;
        (sink.changed)(slot, series);
    }

    /// Ends the series that have had no envelope for the expiry. Calls `ended` with each. O(series); call it every minute or so.
    pub fn expire(&mut self, now: i64, mut ended: impl FnMut(u32, &Series)) {
        let before = self.free.len();
        for slot in 0..self.slots.len() {
            let expiry = self.expiry;
            if let Some(series) = self.slots[slot].take_if(|series| now.saturating_sub(series.updated) >= expiry) {
                self.forget(slot as u32, &series);
                ended(slot as u32, &series);
            }
        }
        if self.free.len() > before {
            self.epoch += 1;
            // What found no room may have it now.
            self.known.retain(|_, slot| self.slots.get(*slot as usize).is_some_and(Option::is_some));
        }
    }

    /// The sources whose metrics had no room since the last call, at most [`OFFENDERS`]. O(series) for each.
    pub fn offenders(&mut self) -> Vec<Offender> {
        self.offenders.take(&self.slots.iter().flatten())
    }

    /// Envelopes that were lost on their way here, for [`Naming::FirehoseExporter`]'s own count of them.
    pub fn lost(&mut self, envelopes: u64, now: i64) {
        self.own.count(Own::EnvelopesDropped, envelopes, now);
    }

    /// Counts since the start.
    pub fn counts(&self) -> Counts {
        self.counts
    }

    /// Series as Prometheus counts them, without [`Naming::FirehoseExporter`]'s own.
    pub fn series(&self) -> usize {
        self.series
    }

    /// The series with a number that `changed` was called with, until it ends.
    pub(crate) fn get(&self, slot: u32) -> Option<&Series> {
        self.slots.get(slot as usize)?.as_ref()
    }
}

/// Where the values of one envelope go.
struct Sink<'a, F> {
    at: i64,
    now: i64,
    changed: &'a mut F,
    kept: bool,
    refused: Option<Reason>,
}
