//! Tests of `remote_write`.

use std::collections::BTreeMap;

use proptest::prelude::*;
use prost::Message;
use proto::v2;

use super::*;
use crate::prometheus::series;

const NOW: i64 = 1_700_000_000_000_000_000;
const MS: i64 = 1_000_000;
const NOW_MS: i64 = NOW / MS;

/// `prometheus.WriteRequest` as the contract's table has it.
#[derive(Clone, PartialEq, Message)]
struct WriteRequest {
    #[prost(message, repeated, tag = "1")]
    timeseries: Vec<TimeSeries>,
}

#[derive(Clone, PartialEq, Message)]
struct TimeSeries {
    #[prost(message, repeated, tag = "1")]
    labels: Vec<Label>,
    #[prost(message, repeated, tag = "2")]
    samples: Vec<Sample>,
}

#[derive(Clone, PartialEq, Eq, Message)]
struct Label {
    #[prost(string, tag = "1")]
    name: String,
    #[prost(string, tag = "2")]
    value: String,
}

#[derive(Clone, PartialEq, Message)]
struct Sample {
    #[prost(double, tag = "1")]
    value: f64,
    #[prost(int64, tag = "2")]
    timestamp: i64,
}

struct Rig {
    store: Store,
    queue: Queue,
}

impl Rig {
    fn new(options: Options) -> Self {
        Self { store: Store::new(&series::Options::default()), queue: Queue::new(options) }
    }

    fn put(&mut self, envelope: &v2::Envelope) {
        self.put_at(envelope, NOW);
    }

    fn put_at(&mut self, envelope: &v2::Envelope, now: i64) {
        self.store.put(&envelope.encode_to_vec(), now, |slot, series| self.queue.push(slot, series));
    }

    fn expire(&mut self, now: i64) {
        self.store.expire(now, |slot, series| self.queue.end(slot, series, now));
    }

    /// Every sample of all requests by its series, each request checked against the rules.
    fn sent(&mut self) -> BTreeMap<String, Vec<(i64, f64)>> {
        let mut all: BTreeMap<String, Vec<(i64, f64)>> = BTreeMap::new();
        for shard in 0..self.queue.shards.len() {
            while let Some(request) = self.queue.next(shard, true) {
                for (name, mut samples) in check(&request) {
                    all.entry(name).or_default().append(&mut samples);
                }
            }
        }
        all
    }
}

/// Decodes a body and holds it to §8.2.
fn check(request: &Request) -> Vec<(String, Vec<(i64, f64)>)> {
    let body = snap::raw::Decoder::new().decompress_vec(&request.body).unwrap();
    let decoded = WriteRequest::decode(&body[..]).unwrap();
    // Zeros may be left out, and are not.
    let zeros =
        decoded.timeseries.iter().flat_map(|series| &series.samples).filter(|sample| sample.value == 0.0).count();
    assert_eq!(decoded.encode_to_vec().len() + 9 * zeros, body.len(), "nothing but what the message has");
    assert_eq!(decoded.timeseries.iter().map(|series| series.samples.len()).sum::<usize>(), request.samples);
    let series = decoded.timeseries.iter().map(|series| {
        assert!(series.labels.windows(2).all(|pair| pair[0].name < pair[1].name), "{:?}", series.labels);
        assert!(series.labels.iter().all(|label| !label.name.is_empty() && !label.value.is_empty()));
        assert!(series.samples.windows(2).all(|pair| pair[0].timestamp < pair[1].timestamp));
        assert!(!series.samples.is_empty());
        let (name, labels): (Vec<_>, Vec<_>) = series.labels.iter().partition(|label| label.name == "__name__");
        let labels: Vec<_> = labels.iter().map(|label| format!("{}={}", label.name, label.value)).collect();
        let samples = series.samples.iter().map(|sample| (sample.timestamp, sample.value)).collect();
        (format!("{}{{{}}}", name[0].value, labels.join(",")), samples)
    });
    series.collect()
}

#[test]
fn contract_8_2_samples_are_in_milliseconds_and_in_order() {
    let mut rig = Rig::new(Options::default());
    for (value, at) in [(1.0, 0), (2.0, 1), (2.5, 1), (3.0, 5)] {
        rig.put(&v2::Envelope::gauge("app", "g", value, "bytes").at(NOW - 10 * MS + at * MS + at));
    }
    rig.put(&v2::Envelope::counter("app", "Z", 7).tag("Zone", "z").tag("_x", "1"));
    let sent = rig.sent();
    let start = NOW_MS - 10;
    assert_eq!(sent["g{source_id=app,unit=bytes}"], [(start, 1.0), (start + 1, 2.5), (start + 5, 3.0)]);
    assert_eq!(sent["z_total{Zone=z,_x=1,source_id=app}"], [(NOW_MS, 7.0)]);
    assert_eq!((sent.len(), rig.queue.counts().duplicate, rig.queue.counts().taken), (2, 1, 4));
    assert_eq!(rig.sent(), BTreeMap::new());
}

#[test]
fn what_is_not_newer_than_what_was_sent_is_dropped() {
    let mut rig = Rig::new(Options::default());
    let gauge = |value: f64, at: i64| v2::Envelope::gauge("app", "g", value, "").at(NOW - 100 * MS + at * MS);
    rig.put(&gauge(1.0, 10));
    assert_eq!(rig.sent()["g{source_id=app}"], [(NOW_MS - 90, 1.0)]);
    rig.put(&gauge(2.0, 10));
    assert_eq!(rig.sent(), BTreeMap::new());
    assert_eq!(rig.queue.counts().out_of_order, 1);
}

#[test]
fn a_late_step_of_a_counter_is_sent_as_of_when_it_came() {
    let mut rig = Rig::new(Options::default());
    rig.put(&v2::Envelope::counter("app", "c", 1).at(NOW - 50 * MS));
    assert_eq!(rig.sent()["c_total{source_id=app}"], [(NOW_MS - 50, 1.0)]);
    rig.put(&v2::Envelope::counter("app", "c", 1).at(NOW - 60 * MS));
    assert_eq!(rig.sent()["c_total{source_id=app}"], [(NOW_MS, 2.0)]);
}

#[test]
fn contract_8_2_a_series_that_ends_has_a_stale_marker_and_may_come_back() {
    let mut rig = Rig::new(Options::default());
    rig.put(&v2::Envelope::gauge("app", "g", 1.0, ""));
    rig.put(&v2::Envelope::timer("app", "t", 0, MS));
    let end = NOW + 600_000 * MS;
    rig.expire(end);
    // In the slot of the series that ended, before its marker is sent.
    rig.put_at(&v2::Envelope::gauge("app", "other", 2.0, "").at(end), end);
    let sent = rig.sent();
    let of_g: Vec<_> = sent["g{source_id=app}"].iter().map(|(at, value)| (*at, value.to_bits())).collect();
    assert_eq!(of_g, [(NOW_MS, 1.0f64.to_bits()), (end / MS, STALE)]);
    assert_eq!(sent["other{source_id=app}"], [(end / MS, 2.0)]);
    let histogram: Vec<_> = sent.iter().filter(|(name, _)| name.starts_with("t_duration_seconds")).collect();
    assert_eq!(histogram.len(), 14);
    assert!(histogram.iter().all(|(_, samples)| samples.iter().all(|(_, value)| value.to_bits() == STALE)));
    rig.put_at(&v2::Envelope::gauge("app", "g", 3.0, "").at(end - MS), end + MS);
    rig.put_at(&v2::Envelope::gauge("app", "g", 4.0, "").at(end + MS), end + MS);
    assert_eq!(rig.sent()["g{source_id=app}"], [(end / MS + 1, 4.0)], "not before it ended");
}

#[test]
fn a_nan_of_a_sender_is_no_stale_marker() {
    let mut rig = Rig::new(Options::default());
    rig.put(&v2::Envelope::gauge("app", "g", f64::from_bits(STALE), ""));
    let sent = rig.sent();
    let (_, value) = sent["g{source_id=app}"][0];
    assert!(value.is_nan() && value.to_bits() != STALE);
}

#[test]
fn histograms_go_as_classic_series_when_they_are_rolled_up() {
    let mut rig = Rig::new(Options::default());
    for milliseconds in [4, 30, 30] {
        rig.put(&v2::Envelope::timer("app", "t", 0, milliseconds * MS));
    }
    assert_eq!(rig.sent(), BTreeMap::new());
    rig.queue.roll_up(&rig.store, NOW + 10_000 * MS);
    rig.queue.roll_up(&rig.store, NOW + 20_000 * MS);
    let sent = rig.sent();
    let at = NOW_MS + 10_000;
    assert_eq!(sent["t_duration_seconds_bucket{le=0.005,source_id=app}"], [(at, 1.0)]);
    assert_eq!(sent["t_duration_seconds_bucket{le=0.05,source_id=app}"], [(at, 3.0)]);
    assert_eq!(sent["t_duration_seconds_bucket{le=+Inf,source_id=app}"], [(at, 3.0)]);
    assert_eq!(sent["t_duration_seconds_sum{source_id=app}"], [(at, 0.064)]);
    assert_eq!(sent["t_duration_seconds_count{source_id=app}"], [(at, 3.0)]);
    assert_eq!(sent.len(), 14, "and only once, as nothing has changed since");
}

#[test]
fn a_request_waits_for_enough_samples_and_holds_no_more_than_it_may() {
    let options = Options { min_samples: 10, max_samples: 25, ..Options::default() };
    let mut rig = Rig::new(options);
    for i in 0..9 {
        rig.put(&v2::Envelope::gauge("app", "g", 0.0, "").at(NOW - 1000 * MS + i * MS));
    }
    assert_eq!(rig.queue.next(0, false), None);
    for i in 9..60 {
        rig.put(&v2::Envelope::gauge("app", "g", 0.0, "").at(NOW - 1000 * MS + i * MS));
    }
    let sizes: Vec<_> = std::iter::from_fn(|| rig.queue.next(0, false)).map(|request| request.samples).collect();
    assert_eq!(sizes, [25, 25, 10]);
    assert_eq!(rig.queue.pending(0), 0);
}

#[test]
fn a_body_that_would_be_too_long_is_split() {
    let mut rig = Rig::new(Options { max_bytes: 2000, ..Options::default() });
    for i in 0..200u64 {
        // Hard to compress.
        let mut state = i;
        let letter = |_| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            char::from(b'a' + (state >> 33) as u8 % 26)
        };
        let noise: String = (0..40).map(letter).collect();
        rig.put(&v2::Envelope::gauge(noise, "g", i as f64, ""));
    }
    let requests: Vec<_> = std::iter::from_fn(|| rig.queue.next(0, true)).collect();
    assert!(requests.len() > 1 && requests.iter().all(|request| request.body.len() <= 2000), "{}", requests.len());
    assert_eq!(requests.iter().map(|request| check(request).len()).sum::<usize>(), 200);
}

#[test]
fn when_as_many_wait_as_may_the_newest_value_of_a_series_stays() {
    let mut rig = Rig::new(Options { pending: 3, ..Options::default() });
    for i in 0..10 {
        rig.put(&v2::Envelope::gauge("a", "g", i as f64, "").at(NOW - 100 * MS + i * MS));
    }
    rig.put(&v2::Envelope::gauge("b", "g", 0.0, ""));
    let sent = rig.sent();
    assert_eq!(sent["g{source_id=a}"], [(NOW_MS - 100, 0.0), (NOW_MS - 99, 1.0), (NOW_MS - 91, 9.0)]);
    assert_eq!(sent.len(), 1);
    assert_eq!(rig.queue.counts().queue_full, 8);
}

proptest! {
    /// Over any history: each series in order of time across all requests, in one shard, and every sample accounted for.
    #[test]
    fn every_series_is_in_order_and_every_sample_is_accounted_for(
        steps in prop::collection::vec((0..6u8, 0..5usize, -20..20i64, any::<bool>()), 1..200),
        shards in 1..4usize,
        pending in 20..200usize,
    ) {
        let shards = NonZeroUsize::new(shards).unwrap();
        let mut rig = Rig::new(Options { shards, pending, min_samples: 1, max_samples: 7, ..Options::default() });
        let mut all: BTreeMap<String, Vec<(i64, f64)>> = BTreeMap::new();
        let mut now = NOW;
        for (kind, source, offset, send) in steps {
            now += 3 * MS;
            let source = format!("s{source}");
            let envelope = match kind {
                0 | 1 => v2::Envelope::gauge(source, "g", offset as f64, ""),
                2 => v2::Envelope::counter(source, "c", 1),
                3 => v2::Envelope::timer(source, "t", 0, MS),
                4 => {
                    now += 200_000 * MS;
                    rig.expire(now);
                    rig.queue.roll_up(&rig.store, now);
                    continue;
                }
                _ => v2::Envelope::timer(source, "http", 0, MS).tag("status_code", "200"),
            };
            rig.put_at(&envelope.at(now + offset * MS), now);
            if send {
                rig.sent().into_iter().for_each(|(name, mut samples)| all.entry(name).or_default().append(&mut samples));
            }
        }
        rig.expire(now + 3_600_000 * MS);
        rig.sent().into_iter().for_each(|(name, mut samples)| all.entry(name).or_default().append(&mut samples));
        for (name, samples) in &all {
            prop_assert!(samples.windows(2).all(|pair| pair[0].0 < pair[1].0), "{name}: {samples:?}");
        }
        let counts = rig.queue.counts();
        prop_assert_eq!(counts.offered, counts.taken + counts.duplicate + counts.out_of_order + counts.queue_full);
        prop_assert_eq!(counts.taken, all.values().map(|samples| samples.len() as u64).sum::<u64>());
        prop_assert_eq!(rig.queue.pending, 0);
        prop_assert_eq!(rig.queue.free.len(), rig.queue.tracks.len(), "no track is left");
    }
}
