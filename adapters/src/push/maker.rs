//! From envelopes to requests.
//!
//! Pure: encoded envelopes enter, bodies of requests leave, in lanes that may be under way at once.

use std::time::Duration;

use bytes::Bytes;
use http::{HeaderName, HeaderValue};

use crate::datadog::{self, DatadogConfig};
use crate::metrics::DrainMetrics;
use crate::otlp::{self, OtlpConfig};
use crate::outcome::Outcome;
use crate::prometheus::MetricsConfig;
use crate::prometheus::remote_write::{self, Queue};
use crate::prometheus::series::{self, Offender, Store};

/// Between two looks at what changes with every request, such as histograms.
const ROLL_UP: i64 = nanoseconds(Duration::from_secs(10));
/// Between two looks for series that have ended.
const EXPIRE: i64 = nanoseconds(Duration::from_secs(60));

/// A request that is to be made.
#[derive(Debug)]
pub(crate) struct Request {
    /// Behind the path of the destination; `None` is that path itself.
    pub(crate) path: Option<&'static str>,
    pub(crate) headers: Vec<(HeaderName, HeaderValue)>,
    pub(crate) body: Bytes,
    /// Who says what its answer means.
    pub(crate) rules: Rules,
    /// Envelopes that count as delivered with it. Those of which nothing is to be sent go with the next.
    pub(crate) envelopes: u64,
}

/// Says what an answer means.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Rules {
    /// Its status alone.
    Status,
    Otlp(otlp::answer::Protocol),
}

/// Makes requests of one kind.
pub(crate) enum Maker {
    RemoteWrite(Box<RemoteWrite>),
    Datadog(Box<Datadog>),
    Otlp(Box<Otlp>),
}

pub(crate) struct RemoteWrite {
    store: Store,
    queue: Queue,
    options: remote_write::Options,
    /// Envelopes that are in no request yet.
    waiting: u64,
    rolled_up_at: i64,
    expired_at: i64,
    /// What `metrics` have been told.
    told: (series::Counts, remote_write::Counts),
}

/// Requests to the intakes of Datadog: metrics in the first lane, logs in the second.
pub(crate) struct Datadog {
    encoder: datadog::Encoder,
    interval: i64,
    waiting: u64,
    flushed_at: i64,
    told: datadog::Counts,
}

/// Requests to a collector: logs in the first lane, metrics in the second, spans in the third.
pub(crate) struct Otlp {
    encoder: otlp::Encoder,
    protocol: otlp::answer::Protocol,
    waiting: u64,
    told: otlp::Counts,
}

impl Maker {
    pub(crate) fn otlp(config: &OtlpConfig, grpc: bool) -> Self {
        Self::Otlp(Box::new(Otlp {
            encoder: otlp::Encoder::new(config, grpc),
            protocol: otlp::answer::Protocol { grpc, original: config.preset.is_some() },
            waiting: 0,
            told: otlp::Counts::default(),
        }))
    }

    pub(crate) fn datadog(config: &DatadogConfig) -> Self {
        let options = config.options();
        Self::Datadog(Box::new(Datadog {
            encoder: datadog::Encoder::new(&options),
            interval: i64::try_from(options.interval.as_nanos()).unwrap_or(i64::MAX),
            waiting: 0,
            flushed_at: 0,
            told: datadog::Counts::default(),
        }))
    }

    pub(crate) fn remote_write(config: &MetricsConfig) -> Self {
        let options = config.requests();
        Self::RemoteWrite(Box::new(RemoteWrite {
            store: Store::new(&config.series()),
            queue: Queue::new(options),
            options,
            waiting: 0,
            rolled_up_at: 0,
            expired_at: 0,
            told: Default::default(),
        }))
    }

    /// Takes an envelope, at `now` in nanoseconds since the Unix epoch.
    pub(crate) fn put(&mut self, envelope: &[u8], now: i64) -> Outcome {
        match self {
            Self::RemoteWrite(maker) => maker.put(envelope, now),
            Self::Datadog(maker) => maker.put(envelope, now),
            Self::Otlp(maker) => maker.put(envelope, now),
        }
    }

    /// Whether a request is to be made at once.
    pub(crate) fn is_full(&self) -> bool {
        match self {
            Self::RemoteWrite(maker) => {
                let options = &maker.options;
                (0..options.shards.get()).any(|shard| maker.queue.pending(shard) >= options.max_samples)
            }
            Self::Datadog(maker) => maker.encoder.is_full(),
            Self::Otlp(maker) => maker.encoder.is_full(),
        }
    }

    /// Requests of what is due, with `all` of all that is there, by lane; each lane's are to be made in order. And how many envelopes need
    /// none: they are in sums that go out later, or other values have taken the place of theirs.
    pub(crate) fn flush(&mut self, now: i64, all: bool) -> (Vec<Vec<Request>>, u64) {
        match self {
            Self::RemoteWrite(maker) => maker.flush(now),
            Self::Datadog(maker) => (maker.flush(now, all), 0),
            Self::Otlp(maker) => (maker.flush(now), 0),
        }
    }

    /// Envelopes that are in no request.
    pub(crate) fn waiting(&self) -> u64 {
        match self {
            Self::RemoteWrite(maker) => maker.waiting,
            Self::Datadog(maker) => maker.waiting,
            Self::Otlp(maker) => maker.waiting,
        }
    }

    /// Counts what became of values since this was last called.
    pub(crate) fn tell(&mut self, metrics: &DrainMetrics) {
        match self {
            Self::RemoteWrite(maker) => {
                let now = (maker.store.counts(), maker.queue.counts());
                let before = std::mem::replace(&mut maker.told, now);
                metrics.stored(before.0, now.0);
                metrics.queued(before.1, now.1);
            }
            Self::Datadog(maker) => {
                let now = maker.encoder.counts();
                let before = std::mem::replace(&mut maker.told, now);
                metrics.pushed(before, now);
            }
            Self::Otlp(maker) => {
                let now = maker.encoder.counts();
                let before = std::mem::replace(&mut maker.told, now);
                metrics.exported(before, now);
            }
        }
    }

    /// Who made more series than there is room for, since this was last asked.
    pub(crate) fn offenders(&mut self) -> Vec<Offender> {
        match self {
            Self::RemoteWrite(maker) => maker.store.offenders(),
            Self::Datadog(maker) => maker.encoder.offenders(),
            Self::Otlp(_) => Vec::new(),
        }
    }
}

impl RemoteWrite {
    fn put(&mut self, envelope: &[u8], now: i64) -> Outcome {
        let Self { store, queue, .. } = self;
        let put = store.put(envelope, now, |slot, series| queue.push(slot, series));
        self.waiting += u64::from(put == Outcome::Kept);
        put
    }

    fn flush(&mut self, now: i64) -> (Vec<Vec<Request>>, u64) {
        if now.saturating_sub(self.rolled_up_at) >= ROLL_UP {
            self.rolled_up_at = now;
            self.queue.roll_up(&self.store, now);
        }
        if now.saturating_sub(self.expired_at) >= EXPIRE {
            self.expired_at = now;
            let Self { store, queue, .. } = self;
            store.expire(now, |slot, series| queue.end(slot, series, now));
        }
        let mut lanes = Vec::with_capacity(self.options.shards.get());
        for shard in 0..self.options.shards.get() {
            let made = std::iter::from_fn(|| self.queue.next(shard, true));
            let request = |made: remote_write::Request| Request {
                path: None,
                headers: headers(),
                body: made.body.into(),
                rules: Rules::Status,
                envelopes: 0,
            };
            lanes.push(made.map(request).collect::<Vec<_>>());
        }
        let waiting = std::mem::take(&mut self.waiting);
        match lanes.iter_mut().flatten().next() {
            Some(first) => {
                first.envelopes = waiting;
                (lanes, 0)
            }
            None => (lanes, waiting),
        }
    }
}

impl Datadog {
    fn put(&mut self, envelope: &[u8], now: i64) -> Outcome {
        let put = self.encoder.put(envelope, now);
        self.waiting += u64::from(put == Outcome::Kept);
        put
    }

    fn flush(&mut self, now: i64, all: bool) -> Vec<Vec<Request>> {
        // Counts add up for an interval, also while logs fill a request before.
        let due = all || !self.encoder.is_full() || now.saturating_sub(self.flushed_at) >= self.interval;
        let made = if due { self.encoder.flush(now) } else { self.encoder.take_full() };
        if due {
            self.flushed_at = now;
        }
        let mut lanes = vec![Vec::new(), Vec::new()];
        for datadog::Request { target, path, headers, body, envelopes } in made {
            self.waiting = self.waiting.saturating_sub(envelopes);
            let header = |(name, value): (&'static str, String)| {
                Some((HeaderName::from_static(name), HeaderValue::try_from(value).ok()?))
            };
            let headers = headers.into_iter().filter_map(header).collect();
            let lane = usize::from(target == datadog::Target::Logs);
            lanes[lane].push(Request { path: Some(path), headers, body: body.into(), rules: Rules::Status, envelopes });
        }
        lanes
    }
}

impl Otlp {
    fn put(&mut self, envelope: &[u8], now: i64) -> Outcome {
        let put = self.encoder.put(envelope, now);
        self.waiting += u64::from(put == Outcome::Kept);
        put
    }

    fn flush(&mut self, now: i64) -> Vec<Vec<Request>> {
        let mut lanes = vec![Vec::new(), Vec::new(), Vec::new()];
        for otlp::Request { signal, path, headers, body, envelopes, .. } in self.encoder.flush(now) {
            self.waiting = self.waiting.saturating_sub(envelopes);
            let rules = Rules::Otlp(self.protocol);
            lanes[signal as usize].push(Request { path: Some(path), headers, body: body.into(), rules, envelopes });
        }
        lanes
    }
}

fn headers() -> Vec<(HeaderName, HeaderValue)> {
    let header = |(name, value)| (HeaderName::from_static(name), HeaderValue::from_static(value));
    remote_write::HEADERS.map(header).to_vec()
}

const fn nanoseconds(duration: Duration) -> i64 {
    duration.as_secs() as i64 * 1_000_000_000
}

#[cfg(test)]
mod tests {
    use prost::Message;
    use proto::reason::Reason;
    use proto::v2;

    use super::*;

    #[test]
    fn every_envelope_kept_is_in_one_request() {
        let config = MetricsConfig { shards: std::num::NonZeroUsize::new(4).unwrap(), ..MetricsConfig::default() };
        let mut maker = Maker::remote_write(&config);
        let now = 1_700_000_000_000_000_000;
        for i in 0..100 {
            let gauge = v2::Envelope::gauge(format!("source-{i}"), "g", f64::from(i), "").at(now);
            assert_eq!(maker.put(&gauge.encode_to_vec(), now), Outcome::Kept);
        }
        assert_eq!(maker.put(&v2::Envelope::log("a", "b").encode_to_vec(), now), Outcome::Ignored);
        assert_eq!(maker.put(b"\xff", now), Outcome::Dropped(Reason::DecodeError));
        assert_eq!(maker.waiting(), 100);
        let (lanes, 0) = maker.flush(now, false) else { panic!("all are in requests") };
        assert!(lanes.len() == 4 && lanes.iter().all(|lane| lane.len() == 1), "each shard has series");
        assert_eq!((lanes.iter().flatten().map(|request| request.envelopes).sum::<u64>(), maker.waiting()), (100, 0));
        assert!(maker.flush(now, true).0.iter().all(Vec::is_empty));
        // The same value once more is no news, and neither is it lost.
        let gauge = v2::Envelope::gauge("source-1", "g", 1.0, "").at(now);
        assert_eq!(maker.put(&gauge.encode_to_vec(), now), Outcome::Kept);
        assert_eq!((maker.flush(now, true).1, maker.waiting()), (1, 0));
    }
}
