//! An envelope in, sooner or later a request out.
//!
//! Sorts envelopes into series and log entries, and says what became of each. Never sends, waits or retries; never reads a clock.
//!
//! *Invariant.* The envelopes of all requests, added up, are those that were [`Outcome::Kept`] before the flush.

use std::hash::BuildHasher;

use proto::raw::Kind;
use proto::reason::Reason;

use super::body::{Bodies, Request, Sizes};
use super::logs::{Log, Logs};
use super::nozzle::Container;
use super::options::{Options, Preset};
use super::series::Store;
use super::wanted::Context;
use crate::outcome::Outcome;
use crate::prometheus::series::Offender;
use crate::read::{self, Counter, Envelope, Event, Gauge, Timer, is_unbounded};

const SECOND: i64 = 1_000_000_000;
/// What is further ahead has no time that could be right, for either intake.
const AHEAD: i64 = 600 * SECOND;
/// What is older is not taken.
const OLDEST_METRIC: i64 = 3_600 * SECOND;
const OLDEST_LOG: i64 = 18 * 3_600 * SECOND;

/// Counts since the start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Points that went into requests.
    pub points: u64,
    /// Values that are no finite number: removed.
    pub not_finite: u64,
    /// Values that had no room for their series.
    pub cardinality: u64,
    /// Messages of logs and events that were cut.
    pub cut: u64,
}

/// Envelopes of one drain on their way.
#[derive(Debug)]
pub struct Encoder {
    context: Context,
    store: Store,
    series: Bodies,
    logs: Logs,
    counts: Counts,
}

impl Encoder {
    /// For one drain; nothing is gathered.
    pub fn new(options: &Options) -> Self {
        Self::with_sizes(options, Sizes::series(options.api), Sizes::LOGS)
    }

    pub(super) fn with_sizes(options: &Options, of_series: Sizes, of_logs: Sizes) -> Self {
        let interval = options.interval.as_secs().max(1);
        Self {
            context: Context::new(options),
            store: Store::new(options.api, interval, of_series, options.limits),
            series: Bodies::series(options.api, options.preset, of_series),
            logs: Logs::new(Bodies::logs(options.preset, of_logs)),
            counts: Counts::default(),
        }
    }

    /// Takes one encoded envelope that has passed a first hop. `now` is nanoseconds since the Unix epoch.
    ///
    /// One log in a thousand, or in 5 MB of them, compresses those before it. Ignored are timers and events that are not asked for, and the
    /// first total of a counter; dropped is what is `DecodeError`, `ConvertError` (no name, no finite number, too old), `Oversize`, or
    /// `Cardinality`.
    pub fn put(&mut self, envelope: &[u8], now: i64) -> Outcome {
        let (mut spare, mut parts) = (Vec::new(), Envelope::default());
        if parts.read(envelope, &mut spare).is_err() {
            return Outcome::Dropped(Reason::DecodeError);
        }
        let Some((kind, message)) = parts.message else { return Outcome::Ignored };
        let oldest = if matches!(kind, Kind::Log | Kind::Event) { OLDEST_LOG } else { OLDEST_METRIC };
        let Some(at) = time(parts.timestamp, now, oldest) else { return Outcome::Dropped(Reason::ConvertError) };
        let times = Times { at, now };
        let is_plain = self.context.preset == Preset::Plain;
        let taken = match kind {
            Kind::Log => read::Log::read(message).map(|log| {
                let text = String::from_utf8_lossy(log.payload);
                self.log(&parts, &Log { message: &text, is_err: log.is_err, at })
            }),
            Kind::Event if is_plain => Event::read(message).map(|event| self.event(&parts, event, at)),
            Kind::Counter => Counter::read(message).map(|counter| self.counter(&parts, counter, times)),
            Kind::Gauge => {
                // A gauge that ends badly has sent what stood before that.
                let (mut sink, read) = self.gauges(&parts, message, times);
                if read.is_err() && sink.kept.is_none() {
                    sink.refused = Some(Reason::DecodeError);
                }
                Ok(self.settle(&sink))
            }
            Kind::Timer if is_plain => Timer::read(message).map(|timer| self.timer(&parts, timer, now)),
            Kind::Timer | Kind::Event | Kind::None => return Outcome::Ignored,
        };
        taken.unwrap_or(Outcome::Dropped(Reason::DecodeError))
    }

    /// True when log entries fill a request: time for [`Encoder::take_full`] or [`Encoder::flush`]. Until then they gather.
    ///
    /// Metrics never ask for it: they add up until the next flush, however many envelopes that takes, and are cut into as many
    /// requests then as they need.
    pub fn is_full(&self) -> bool {
        self.logs.bodies.has_closed()
    }

    /// The requests that are full. Metrics and other log entries wait for the flush.
    pub fn take_full(&mut self) -> Vec<Request> {
        self.logs.bodies.take_closed()
    }

    /// Everything gathered. Call it every [`Options::interval`]; series expire here as well.
    ///
    /// Compresses 5 MB at a time, and once in a while looks at every series.
    pub fn flush(&mut self, now: i64) -> Vec<Request> {
        self.counts.points += self.store.flush(now, &mut self.series);
        let mut requests = self.series.finish();
        requests.append(&mut self.logs.bodies.finish());
        requests
    }

    /// The sources whose metrics had no room since the last call, at most [`OFFENDERS`](super::OFFENDERS). O(series) for each.
    pub fn offenders(&mut self) -> Vec<Offender> {
        self.store.offenders()
    }

    /// Counts since the start.
    pub fn counts(&self) -> Counts {
        Counts { cut: self.logs.cut, ..self.counts }
    }

    /// Series that are remembered, as Datadog counts them.
    pub fn series(&self) -> usize {
        self.store.len()
    }

    fn log(&mut self, envelope: &Envelope<'_>, log: &Log<'_>) -> Outcome {
        if self.logs.push(&self.context, envelope, log) { Outcome::Kept } else { Outcome::Dropped(Reason::Oversize) }
    }

    fn event(&mut self, envelope: &Envelope<'_>, event: Event<'_>, at: i64) -> Outcome {
        let (title, body) = (String::from_utf8_lossy(event.title), String::from_utf8_lossy(event.body));
        let line_feed = if title.is_empty() || body.is_empty() { "" } else { "\n" };
        self.log(envelope, &Log { message: &format!("{title}{line_feed}{body}"), is_err: false, at })
    }

    fn counter(&mut self, envelope: &Envelope<'_>, counter: Counter<'_>, times: Times) -> Outcome {
        let Self { context, store, .. } = self;
        let identity = store.hashes().hash_one((envelope.hash(store.hashes()), 1u8, counter.name));
        let slot = match store.slot(identity, || context.counter(envelope, counter.name)) {
            Ok(slot) => slot,
            Err(reason) => return self.refuse(reason),
        };
        match context.preset {
            Preset::Plain if !store.counter(slot, times.at, times.now, counter) => return Outcome::Ignored,
            Preset::Plain => {}
            Preset::Nozzle => store.total(slot, times.at, times.now, counter),
        }
        store.account(slot);
        Outcome::Kept
    }

    fn timer(&mut self, envelope: &Envelope<'_>, timer: Timer<'_>, now: i64) -> Outcome {
        let is_repeated = timer.name == b"http" && envelope.tag("peer_type").eq_ignore_ascii_case(b"client");
        if is_repeated {
            return Outcome::Ignored;
        }
        let Self { context, store, .. } = self;
        let identity = envelope.hash_of_some(store.hashes(), is_unbounded);
        let identity = store.hashes().hash_one((identity, 3u8, timer.name));
        match store.slot(identity, || context.timer(envelope, timer)) {
            Ok(slot) => {
                store.timer(slot, now, timer.seconds());
                store.account(slot);
                Outcome::Kept
            }
            Err(reason) => self.refuse(reason),
        }
    }

    /// All metrics of a gauge.
    fn gauges(
        &mut self,
        envelope: &Envelope<'_>,
        message: &[u8],
        times: Times,
    ) -> (Sink, Result<(), proto::raw::Malformed>) {
        let mut sink = Sink::default();
        let identity = envelope.hash(self.store.hashes());
        let mut container = Container::default();
        if self.context.preset == Preset::Nozzle {
            let seen = Gauge::each(message, |gauge| container.see(&gauge));
            if seen.is_err() {
                return (sink, seen);
            }
        }
        let read = Gauge::each(message, |gauge| {
            if !gauge.value.is_finite() {
                self.counts.not_finite += 1;
                sink.refused = Some(Reason::ConvertError);
                return;
            }
            let Self { context, store, .. } = self;
            let slot = if container.is_whole() {
                if !Container::has(gauge.name) {
                    return;
                }
                let instance = container.instance.map(f64::to_bits);
                let identity = store.hashes().hash_one((identity, 4u8, gauge.name, instance));
                store.slot(identity, || container.metric(context, envelope, gauge.name))
            } else {
                let identity = store.hashes().hash_one((identity, 2u8, gauge.name));
                store.slot(identity, || context.gauge(envelope, gauge.name, gauge.unit))
            };
            match slot {
                Ok(slot) => {
                    store.gauge(slot, times.at, times.now, gauge.value);
                    sink.kept.get_or_insert(slot);
                }
                Err(reason) => {
                    self.counts.cardinality += u64::from(reason == Reason::Cardinality);
                    sink.refused = Some(reason);
                }
            }
        });
        (sink, read)
    }

    fn settle(&mut self, sink: &Sink) -> Outcome {
        match (sink.kept, sink.refused) {
            (Some(slot), _) => {
                self.store.account(slot);
                Outcome::Kept
            }
            (None, Some(reason)) => Outcome::Dropped(reason),
            (None, None) => Outcome::Ignored,
        }
    }

    fn refuse(&mut self, reason: Reason) -> Outcome {
        self.counts.cardinality += u64::from(reason == Reason::Cardinality);
        Outcome::Dropped(reason)
    }
}

/// When an envelope is of, and when it came.
#[derive(Clone, Copy)]
struct Times {
    at: i64,
    now: i64,
}

/// What became of the metrics of a gauge: the first series that was changed accounts for the envelope.
#[derive(Default)]
struct Sink {
    kept: Option<u32>,
    refused: Option<Reason>,
}

/// The time of an envelope; `None` if it is too old.
fn time(timestamp: i64, now: i64, oldest: i64) -> Option<i64> {
    if timestamp <= 0 || timestamp > now.saturating_add(AHEAD) {
        return Some(now);
    }
    (timestamp >= now.saturating_sub(oldest)).then_some(timestamp)
}
