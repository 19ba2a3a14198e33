//! An envelope in, sooner or later a request out.
//!
//! Sorts envelopes into the three signals, and says what became of each. Never sends, waits or retries; never reads a clock.
//!
//! *Invariant.* The envelopes of all requests, added up, are those that were [`Outcome::Kept`] before the flush.

use std::hash::BuildHasher;
use std::num::NonZeroUsize;

use foldhash::fast::RandomState;
use proto::raw::Kind;
use proto::reason::Reason;

use super::batch::{Batch, Data, Form, Metric, Request};
use super::config::{Compression, OtlpConfig, Signal, Timers};
use super::record::{self, Trace};
use super::series::{Counters, Histograms};
use crate::outcome::Outcome;
use crate::read::{self, Counter, Envelope, Event, Gauge, Timer, is_unbounded, known_method};

/// Values of a counter above this are written without it, as the field has a sign.
const TOP_BIT: u64 = 1 << 63;
/// The most that the attributes of all points of one envelope may take, in bytes.
const MAX_GAUGE: u64 = 16 * 1024 * 1024;
/// The field of the attributes of a `NumberDataPoint`, and that of a `HistogramDataPoint`.
const POINT: u32 = 7;
const HISTOGRAM: u32 = 9;
/// Goes behind the name of a timer.
const DURATION: &str = ".duration";

/// Counts since the start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Points that went into requests.
    pub points: u64,
    /// Timers whose histogram had no room.
    pub cardinality: u64,
}

/// Envelopes of one drain on their way.
#[derive(Debug)]
pub struct Encoder {
    context: Context,
    logs: Batch,
    metrics: Batch,
    traces: Batch,
    counters: Counters,
    histograms: Histograms,
    counts: Counts,
    /// A record while it is written.
    record: Vec<u8>,
    /// The attributes of a gauge's points.
    attributes: Vec<u8>,
}

/// What does not change while an encoder lives.
#[derive(Debug)]
struct Context {
    preset: bool,
    logs: bool,
    metrics: bool,
    traces: bool,
    timers: Timers,
    max_items: usize,
    resource: Vec<(String, String)>,
    hasher: RandomState,
}

impl Encoder {
    /// For one drain, over gRPC or HTTP; nothing is gathered. Bounds that are out of bounds are not looked at.
    pub fn new(config: &OtlpConfig, grpc: bool) -> Self {
        let preset = config.preset.is_some();
        let usual = if preset { Compression::None } else { Compression::Gzip };
        let form = Form {
            grpc,
            compression: config.compression.unwrap_or(usual),
            max_items: config.max_items(),
            max_bytes: config.max_bytes(),
            groups: !preset,
        };
        let max = NonZeroUsize::new(config.max_series()).unwrap_or(NonZeroUsize::MIN);
        Self {
            context: Context {
                preset,
                logs: config.sends(Signal::Logs),
                metrics: config.sends(Signal::Metrics),
                traces: config.sends(Signal::Traces),
                timers: config.timers(),
                max_items: form.max_items,
                resource: config.resource.clone().into_iter().collect(),
                hasher: RandomState::default(),
            },
            logs: Batch::new(Signal::Logs, form),
            metrics: Batch::new(Signal::Metrics, form),
            traces: Batch::new(Signal::Traces, form),
            counters: Counters::new(max),
            histograms: Histograms::new(max.get().div_ceil(10)),
            counts: Counts::default(),
            record: Vec::new(),
            attributes: Vec::new(),
        }
    }

    /// Takes an encoded envelope that came at `now`.
    ///
    /// Ignored are kinds and signals that are not asked for, timers of the router as a client, and gauges without metrics; dropped is what is
    /// `DecodeError`, `ConvertError` (identifiers of a trace that are none), `Cardinality`, or `Oversize` (a gauge whose metrics and tags
    /// multiply to more than 16 MiB).
    pub fn put(&mut self, envelope: &[u8], now: i64) -> Outcome {
        let mut spare = Vec::new();
        let mut read = Envelope::default();
        if read.read(envelope, &mut spare).is_err() {
            return Outcome::Dropped(Reason::DecodeError);
        }
        let Some((kind, message)) = read.message else { return Outcome::Ignored };
        let outcome = match kind {
            Kind::Log => self.log(&read, message, now),
            Kind::Event => self.event(&read, message, now),
            Kind::Counter => self.counter(&read, message),
            Kind::Gauge => self.gauge(&read, message),
            Kind::Timer => self.timer(&read, message, now),
            Kind::None => Ok(Outcome::Ignored),
        };
        outcome.unwrap_or(Outcome::Dropped(Reason::DecodeError))
    }

    /// True when a request is to be made at once.
    pub fn is_full(&self) -> bool {
        [&self.logs, &self.metrics, &self.traces].into_iter().any(Batch::is_full)
            || self.histograms.waiting() >= self.context.max_items
    }

    /// Everything, as requests: each signal's are to be made in order.
    pub fn flush(&mut self, now: i64) -> Vec<Request> {
        let Self { histograms, metrics, record, .. } = self;
        let mut points = 0;
        histograms.changed(|histogram| {
            record.clear();
            histogram.point(record);
            let metric = Metric { name: &histogram.name, suffix: DURATION, unit: b"s", data: Data::Histogram };
            let (hash, resource) = &histogram.resource;
            metrics.point((*hash, histogram.metric), || resource.clone(), metric, record, histogram.waiting);
            points += 1;
        });
        self.counts.points += points;
        self.histograms.forget(now);
        [&mut self.logs, &mut self.metrics, &mut self.traces].into_iter().flat_map(Batch::finish).collect()
    }

    /// Counts since the start.
    pub fn counts(&self) -> Counts {
        self.counts
    }

    fn log(&mut self, envelope: &Envelope<'_>, message: &[u8], now: i64) -> Result<Outcome, read::Malformed> {
        let log = read::Log::read(message)?;
        if !self.context.logs {
            return Ok(Outcome::Ignored);
        }
        let Self { context, logs, record, .. } = self;
        record.clear();
        record::log(record, envelope, log, now, context.preset);
        logs.push(context.resource_hash(envelope), || context.resource(envelope), record, 1);
        Ok(Outcome::Kept)
    }

    fn event(&mut self, envelope: &Envelope<'_>, message: &[u8], now: i64) -> Result<Outcome, read::Malformed> {
        let event = Event::read(message)?;
        if !self.context.logs {
            return Ok(Outcome::Ignored);
        }
        let Self { context, logs, record, .. } = self;
        record.clear();
        record::event(record, envelope, event, now, context.preset);
        logs.push(context.resource_hash(envelope), || context.resource(envelope), record, 1);
        Ok(Outcome::Kept)
    }

    fn counter(&mut self, envelope: &Envelope<'_>, message: &[u8]) -> Result<Outcome, read::Malformed> {
        let counter = Counter::read(message)?;
        if !self.context.metrics {
            return Ok(Outcome::Ignored);
        }
        let Self { context, counters, metrics, record, attributes, .. } = self;
        let (start, total) = match context.preset {
            true => (None, counter.total),
            false => {
                let series = context.of(counter.name) ^ envelope.hash(&context.hasher);
                let step = counter.is_step().then_some(counter.delta);
                let (start, total) = counters.put(series, envelope.timestamp, counter.total, step);
                (Some(start), total)
            }
        };
        attributes.clear();
        record::attributes(attributes, POINT, envelope, record::is_id);
        record.clear();
        record::point(record, start, envelope.timestamp, Ok(total & !TOP_BIT), attributes);
        let metric = Metric { name: counter.name, suffix: "", unit: b"", data: Data::Sum };
        let hashes = (context.resource_hash(envelope), context.metric(metric));
        metrics.point(hashes, || context.resource(envelope), metric, record, 1);
        self.counts.points += 1;
        Ok(Outcome::Kept)
    }

    fn gauge(&mut self, envelope: &Envelope<'_>, message: &[u8]) -> Result<Outcome, read::Malformed> {
        let mut left = 0_u64;
        Gauge::each(message, |_| left += 1)?;
        if !self.context.metrics || left == 0 {
            return Ok(Outcome::Ignored);
        }
        let points = left;
        let Self { context, metrics, record, attributes, .. } = self;
        attributes.clear();
        record::attributes(attributes, POINT, envelope, record::is_id);
        // Each point has all attributes, and with the preset a resource: a small envelope could become a very large request.
        let resource = if context.preset { context.resource(envelope).len() } else { 0 };
        if points.saturating_mul((attributes.len() + resource) as u64) > MAX_GAUGE {
            return Ok(Outcome::Dropped(Reason::Oversize));
        }
        let of = context.resource_hash(envelope);
        Gauge::each(message, |gauge| {
            record.clear();
            record::point(record, None, envelope.timestamp, Err(gauge.value), attributes);
            let metric = Metric { name: gauge.name, suffix: "", unit: gauge.unit, data: Data::Gauge };
            left -= 1;
            // One that is in several requests counts with the last.
            let envelopes = u64::from(left == 0);
            metrics.point((of, context.metric(metric)), || context.resource(envelope), metric, record, envelopes);
        })?;
        self.counts.points += points;
        Ok(Outcome::Kept)
    }

    fn timer(&mut self, envelope: &Envelope<'_>, message: &[u8], now: i64) -> Result<Outcome, read::Malformed> {
        let timer = Timer::read(message)?;
        if envelope.tag("peer_type") == b"Client" {
            return Ok(Outcome::Ignored);
        }
        match Trace::of(envelope) {
            Trace::Bad if self.context.traces => Ok(Outcome::Dropped(Reason::ConvertError)),
            Trace::Ids(ids) if self.context.traces => {
                let Self { context, traces, record, .. } = self;
                record.clear();
                record::span(record, envelope, timer, ids, context.preset);
                traces.push(context.resource_hash(envelope), || context.resource(envelope), record, 1);
                Ok(Outcome::Kept)
            }
            _ if !self.context.metrics => Ok(Outcome::Ignored),
            _ => Ok(self.duration(envelope, timer, now)),
        }
    }

    /// A timer that is no span.
    fn duration(&mut self, envelope: &Envelope<'_>, timer: Timer<'_>, now: i64) -> Outcome {
        let Self { context, metrics, histograms, record, .. } = self;
        let data = match context.timers {
            Timers::None => return Outcome::Ignored,
            Timers::Gauge => Data::Gauge,
            Timers::Histogram => Data::Histogram,
        };
        let metric = Metric { name: timer.name, suffix: DURATION, unit: b"s", data };
        let (of, metric_hash) = (context.resource_hash(envelope), context.metric(metric));
        if data == Data::Gauge {
            record.clear();
            record::point(record, None, timer.stop, Err(timer.seconds()), &timing(envelope, POINT));
            metrics.point((of, metric_hash), || context.resource(envelope), metric, record, 1);
            self.counts.points += 1;
            return Outcome::Kept;
        }
        let method = context.hasher.hash_one(known_method(envelope.tag("method")));
        let skipped = |key: &[u8]| is_unbounded(key) || key == b"method";
        let series = metric_hash ^ method.rotate_left(7) ^ envelope.hash_of_some(&context.hasher, skipped);
        let new = || (timer.name.to_vec(), timing(envelope, HISTOGRAM), (of, context.resource(envelope)), metric_hash);
        if histograms.put(series, (timer.stop, timer.seconds(), now), new) {
            return Outcome::Kept;
        }
        self.counts.cardinality += 1;
        Outcome::Dropped(Reason::Cardinality)
    }
}

/// The attributes of a duration: without those that differ with each request, and of methods those that are known.
fn timing(envelope: &Envelope<'_>, number: u32) -> Vec<u8> {
    let mut attributes = Vec::new();
    record::attributes(&mut attributes, number, envelope, |key| is_unbounded(key) || key == b"method");
    let method = known_method(envelope.tag("method"));
    if !method.is_empty() {
        super::wire::put_attribute(&mut attributes, number, b"method", method);
    }
    attributes
}

impl Context {
    /// Tells resources apart.
    fn resource_hash(&self, envelope: &Envelope<'_>) -> u64 {
        if self.preset {
            return 0;
        }
        self.hasher.hash_one((record::service(envelope), envelope.source_id, envelope.instance_id))
    }

    fn resource(&self, envelope: &Envelope<'_>) -> Vec<u8> {
        record::resource(&self.resource, (!self.preset).then_some(envelope))
    }

    fn metric(&self, metric: Metric<'_>) -> u64 {
        self.hasher.hash_one((metric.name, metric.suffix, metric.unit, metric.data))
    }

    fn of(&self, name: &[u8]) -> u64 {
        self.hasher.hash_one(name).rotate_left(31)
    }
}
