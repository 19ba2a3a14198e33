//! Records of one signal on their way into requests.
//!
//! Encoded records enter, each with the resource that it is of; bodies leave, compressed and framed for their transport. Records of one
//! resource stand together, and points of one metric too. A body is closed when one more record would make it too long.
//!
//! *Invariant.* No body holds more items than asked for; nor more bytes, but for one item that is longer alone.

use std::io::Write;

use flate2::Compression as Effort;
use flate2::write::GzEncoder;
use foldhash::fast::RandomState;
use hashbrown::HashMap;
use http::{HeaderName, HeaderValue, header};

use super::config::{Compression, Signal};
use super::wire::{field, put_head, put_number, put_text};
use proto::raw::wire::put_bytes;

/// What stands around a group: a resource, a scope and their heads.
const AROUND: usize = 64;
/// `AggregationTemporality`: since the start.
const CUMULATIVE: u64 = 2;

/// A request, but for its host and the headers of the drain.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Request {
    /// What is in it.
    pub signal: Signal,
    /// The path to POST to, of HTTP below whatever the receiver has in front of it.
    pub path: &'static str,
    /// What kind of body it is, and how it is compressed.
    pub headers: Vec<(HeaderName, HeaderValue)>,
    /// Compressed; over gRPC behind the five bytes that stand before a message.
    pub body: Vec<u8>,
    /// The envelopes that were [`Kept`](super::Outcome::Kept) and are in it; each in one request only.
    pub envelopes: u64,
    /// Log records, data points or spans.
    pub items: u64,
}

/// How bodies leave.
#[derive(Clone, Copy, Debug)]
pub(super) struct Form {
    pub(super) grpc: bool,
    pub(super) compression: Compression,
    pub(super) max_items: usize,
    pub(super) max_bytes: usize,
    /// Resources and scopes are told apart; else they are empty, and each record has its own.
    pub(super) groups: bool,
}

/// Of which metric a point is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Metric<'a> {
    pub(super) name: &'a [u8],
    /// Goes behind the name.
    pub(super) suffix: &'static str,
    pub(super) unit: &'a [u8],
    pub(super) data: Data,
}

/// What kind of points a metric has.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Data {
    Gauge = 5,
    Sum = 7,
    Histogram = 9,
}

/// The body of one signal that is being made, and those that are closed.
#[derive(Debug)]
pub(super) struct Batch {
    signal: Signal,
    form: Form,
    groups: Vec<Group>,
    /// Groups by the hash of their resource.
    by_resource: HashMap<u64, usize, RandomState>,
    items: usize,
    /// At most so many.
    bytes: usize,
    envelopes: u64,
    closed: Vec<Request>,
    /// Buffers to be used again: new ones of this size cost more than what is written into them.
    message: Vec<u8>,
    records: Vec<u8>,
}

/// What is of one resource.
#[derive(Debug, Default)]
struct Group {
    /// The `Resource` message.
    resource: Vec<u8>,
    /// Records as fields of their scope. Of metrics none.
    records: Vec<u8>,
    metrics: Vec<Points>,
    by_metric: HashMap<u64, usize, RandomState>,
}

/// A metric with its points.
#[derive(Debug)]
struct Points {
    /// Name and unit.
    head: Vec<u8>,
    data: Data,
    points: Vec<u8>,
}

impl Batch {
    pub(super) fn new(signal: Signal, form: Form) -> Self {
        Self {
            signal,
            form,
            groups: Vec::new(),
            by_resource: HashMap::default(),
            items: 0,
            bytes: 0,
            envelopes: 0,
            closed: Vec::new(),
            message: Vec::new(),
            records: Vec::new(),
        }
    }

    /// Takes a record of `resource`, which has this hash and is asked for if it is new.
    pub(super) fn push(&mut self, hash: u64, resource: impl FnOnce() -> Vec<u8>, record: &[u8], envelopes: u64) {
        let group = self.group(hash, resource, record.len());
        put_bytes(&mut self.groups[group].records, 2, record);
        self.count(envelopes);
    }

    /// Takes a point of a metric, which has its own hash.
    pub(super) fn point(
        &mut self,
        (hash, metric_hash): (u64, u64),
        resource: impl FnOnce() -> Vec<u8>,
        metric: Metric<'_>,
        point: &[u8],
        envelopes: u64,
    ) {
        let more = point.len() + metric.name.len() + metric.unit.len();
        let group = self.group(hash, resource, more);
        let Group { metrics, by_metric, .. } = &mut self.groups[group];
        let place = *by_metric.entry(metric_hash).or_insert_with(|| {
            metrics.push(Points { head: head(metric), data: metric.data, points: Vec::new() });
            metrics.len() - 1
        });
        put_bytes(&mut metrics[place].points, 1, point);
        self.count(envelopes);
    }

    /// The place of a group that has room for `len` bytes more.
    fn group(&mut self, hash: u64, resource: impl FnOnce() -> Vec<u8>, len: usize) -> usize {
        let more = len + AROUND;
        if self.items > 0 && (self.items >= self.form.max_items || self.bytes + more > self.form.max_bytes) {
            self.close();
        }
        self.bytes += more;
        if self.form.groups
            && let Some(known) = self.by_resource.get(&hash)
        {
            return *known;
        }
        let resource = resource();
        if self.items > 0 && self.bytes + resource.len() > self.form.max_bytes {
            self.close();
            self.bytes += more;
        }
        self.bytes += resource.len() + AROUND;
        let records = std::mem::take(&mut self.records);
        self.groups.push(Group { resource, records, ..Group::default() });
        self.by_resource.insert(hash, self.groups.len() - 1);
        self.groups.len() - 1
    }

    fn count(&mut self, envelopes: u64) {
        self.items += 1;
        self.envelopes += envelopes;
    }

    /// True when there are requests that nothing can be added to, or the next record would make one.
    pub(super) fn is_full(&self) -> bool {
        !self.closed.is_empty() || self.items >= self.form.max_items || self.bytes >= self.form.max_bytes
    }

    /// Everything.
    pub(super) fn finish(&mut self) -> Vec<Request> {
        self.close();
        std::mem::take(&mut self.closed)
    }

    fn close(&mut self) {
        if self.items == 0 {
            return;
        }
        let mut message = std::mem::take(&mut self.message);
        message.clear();
        message.reserve(self.bytes);
        for group in self.groups.drain(..) {
            let records = group.finish(&mut message, self.form.groups);
            if records.capacity() > self.records.capacity() {
                self.records = records;
            }
        }
        self.records.clear();
        self.by_resource.clear();
        let (body, headers) = self.form.body(&mut message);
        self.message = message;
        self.closed.push(Request {
            signal: self.signal,
            path: self.form.path(self.signal),
            headers,
            body,
            envelopes: std::mem::take(&mut self.envelopes),
            items: std::mem::take(&mut self.items) as u64,
        });
        self.bytes = 0;
    }
}

impl Group {
    /// Appends it as the field `1` of a request: resource, scope and what is of them. Returns the buffer of the records.
    fn finish(self, into: &mut Vec<u8>, has_scope: bool) -> Vec<u8> {
        let metrics: Vec<u8> = self.metrics.into_iter().fold(Vec::new(), |mut all, metric| {
            metric.finish(&mut all);
            all
        });
        let mut scope = Vec::new();
        if has_scope {
            put_text(&mut scope, 1, b"hydrant");
            put_text(&mut scope, 2, env!("CARGO_PKG_VERSION").as_bytes());
        }
        let scope_len = field(scope.len()) + self.records.len() + metrics.len();
        put_head(into, 1, field(self.resource.len()) + field(scope_len));
        put_bytes(into, 1, &self.resource);
        put_head(into, 2, scope_len);
        put_bytes(into, 1, &scope);
        into.extend_from_slice(&self.records);
        into.extend_from_slice(&metrics);
        self.records
    }
}

impl Points {
    fn finish(self, into: &mut Vec<u8>) {
        let mut after = Vec::new();
        if self.data != Data::Gauge {
            put_number(&mut after, 2, CUMULATIVE);
        }
        if self.data == Data::Sum {
            put_number(&mut after, 3, 1);
        }
        let data = self.points.len() + after.len();
        put_head(into, 2, self.head.len() + field(data));
        into.extend_from_slice(&self.head);
        put_head(into, self.data as u32, data);
        into.extend_from_slice(&self.points);
        into.extend_from_slice(&after);
    }
}

/// Name and unit of a `Metric`.
fn head(metric: Metric<'_>) -> Vec<u8> {
    let mut head = Vec::with_capacity(metric.name.len() + metric.suffix.len() + metric.unit.len() + 8);
    put_text(&mut head, 1, &[metric.name, metric.suffix.as_bytes()].concat());
    if !metric.unit.is_empty() {
        put_text(&mut head, 3, metric.unit);
    }
    head
}

impl Form {
    fn path(&self, signal: Signal) -> &'static str {
        match (self.grpc, signal) {
            (false, Signal::Logs) => "/v1/logs",
            (false, Signal::Metrics) => "/v1/metrics",
            (false, Signal::Traces) => "/v1/traces",
            (true, Signal::Logs) => "/opentelemetry.proto.collector.logs.v1.LogsService/Export",
            (true, Signal::Metrics) => "/opentelemetry.proto.collector.metrics.v1.MetricsService/Export",
            (true, Signal::Traces) => "/opentelemetry.proto.collector.trace.v1.TraceService/Export",
        }
    }

    /// What goes over the wire. A message that does so as it is leaves its buffer.
    fn body(&self, message: &mut Vec<u8>) -> (Vec<u8>, Vec<(HeaderName, HeaderValue)>) {
        let gzip = self.compression == Compression::Gzip;
        let before = if self.grpc { 5 } else { 0 };
        let mut body = vec![0; before];
        match gzip {
            true => {
                // Tags repeat from record to record: little effort finds most of it.
                let mut encoder = GzEncoder::new(body, Effort::fast());
                let finished = encoder.write_all(message).and_then(|()| encoder.finish());
                body = finished.expect("writing to a Vec cannot fail");
            }
            false if self.grpc => body.extend_from_slice(message),
            false => body = std::mem::take(message),
        }
        let mut headers = Vec::with_capacity(3);
        let kind = if self.grpc { "application/grpc" } else { "application/x-protobuf" };
        headers.push((header::CONTENT_TYPE, HeaderValue::from_static(kind)));
        if self.grpc {
            let len = u32::try_from(body.len() - before).expect("a request is bounded far below 4 GiB");
            body[0] = u8::from(gzip);
            body[1..before].copy_from_slice(&len.to_be_bytes());
            headers.push((header::TE, HeaderValue::from_static("trailers")));
        }
        if gzip {
            let name = if self.grpc { HeaderName::from_static("grpc-encoding") } else { header::CONTENT_ENCODING };
            headers.push((name, HeaderValue::from_static("gzip")));
        }
        (body, headers)
    }
}
