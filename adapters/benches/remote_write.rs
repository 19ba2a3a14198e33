//! What an envelope costs on its way to a remote store, and a page with many series.
//!
//! 10 000 series of ten tags each. `one_each`: every series changes once between two rounds of requests, the worst case, as each sample
//! then has its labels beside it; `ten_each`: ten times. From encoded envelopes to compressed bodies.

use std::hint::black_box;

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use hydrant_adapters::prometheus::exposition::Page;
use hydrant_adapters::prometheus::remote_write::{self, Queue};
use hydrant_adapters::prometheus::series::{Limits, Options, Store};
use prost::Message;
use proto::v2;

const SERIES: usize = 10_000;
const START: i64 = 1_700_000_000_000_000_000;

/// Gauges, one a series, each with room for its timestamp at its start.
fn envelopes(count: usize) -> Vec<Vec<u8>> {
    let tags = ["deployment", "job", "index", "ip", "origin", "app_name", "organization_name", "space_name"];
    let one = |i: usize| {
        let guid = format!("c0ffee00-1111-2222-3333-{i:012}");
        let gauge =
            v2::Envelope::gauge(guid.clone(), "memory", i as f64, "bytes").at(START).instance((i % 10).to_string());
        let gauge = gauge.tag("app_id", guid).tag("process_id", format!("deadbeef-{i:04}"));
        tags.iter().fold(gauge, |gauge, tag| gauge.tag(*tag, format!("{tag}-{}", i % 100))).encode_to_vec()
    };
    (0..count).map(one).collect()
}

/// Writes another timestamp over that of an envelope.
fn set_time(envelope: &mut [u8], mut at: i64) {
    for (i, byte) in envelope[1..10].iter_mut().enumerate() {
        *byte = (at & 0x7f) as u8 | if i < 8 { 0x80 } else { 0 };
        at >>= 7;
    }
}

struct Rig {
    envelopes: Vec<Vec<u8>>,
    store: Store,
    queue: Queue,
    now: i64,
}

impl Rig {
    fn new() -> Self {
        let mut rig = Self {
            envelopes: envelopes(SERIES),
            store: Store::new(&Options::default()),
            queue: Queue::new(remote_write::Options::default()),
            now: START,
        };
        rig.put();
        rig.send();
        rig
    }

    fn put(&mut self) {
        self.now += 1_000_000_000;
        for envelope in &mut self.envelopes {
            set_time(envelope, self.now);
            let queue = &mut self.queue;
            self.store.put(black_box(envelope), self.now, |slot, series| queue.push(slot, series));
        }
    }

    /// Bytes of bodies, and samples in them.
    fn send(&mut self) -> (usize, usize) {
        let mut sent = (0, 0);
        while let Some(request) = self.queue.next(0, true) {
            sent = (sent.0 + request.body.len(), sent.1 + request.samples);
        }
        sent
    }
}

fn remote_write(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("remote_write");
    for (name, rounds) in [("one_each", 1), ("ten_each", 10)] {
        let mut rig = Rig::new();
        group.throughput(Throughput::Elements((SERIES * rounds) as u64));
        group.bench_function(BenchmarkId::from_parameter(name), |bencher| {
            bencher.iter(|| {
                (0..rounds).for_each(|_| rig.put());
                let (bytes, samples) = rig.send();
                assert_eq!(samples, SERIES * rounds);
                bytes
            });
        });
    }
    let mut rig = Rig::new();
    group.throughput(Throughput::Elements(SERIES as u64));
    group.bench_function("store_only", |bencher| {
        bencher.iter(|| {
            rig.now += 1_000_000_000;
            for envelope in &mut rig.envelopes {
                set_time(envelope, rig.now);
                rig.store.put(black_box(envelope), rig.now, |_, _| {});
            }
        });
    });
    group.finish();
}

fn page(criterion: &mut Criterion) {
    let limits = Limits { series_per_source: usize::MAX, ..Limits::default() };
    let mut store = Store::new(&Options { limits, ..Options::default() });
    for envelope in envelopes(100_000) {
        store.put(&envelope, START, |_, _| {});
    }
    assert_eq!(store.series(), 100_000);
    let mut group = criterion.benchmark_group("page_of_100_000_series");
    group.sample_size(20);
    group.bench_function("snapshot", |bencher| bencher.iter(|| store.snapshot()));
    group.bench_function("text", |bencher| {
        bencher.iter_batched(
            || store.snapshot(),
            |snapshot| Page::new(snapshot).map(|piece| black_box(piece).len()).sum::<usize>(),
            criterion::BatchSize::PerIteration,
        );
    });
    group.finish();
}

criterion_group!(benches, remote_write, page);
criterion_main!(benches);
