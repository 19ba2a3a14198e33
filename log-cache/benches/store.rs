//! The store's cost per envelope: putting batches of 100 log envelopes of some 433 bytes with ten tags, and reading them back.

use std::hint::black_box;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use hydrant_log_cache::{Config, Read, Store};
use prost::Message;
use proto::logcache::v1::ReadRequest;
use proto::raw::{Batch, Selection};
use proto::v2::{Envelope, EnvelopeBatch};

fn envelope(source: usize, timestamp: i64) -> Envelope {
    let id = format!("6a2c7f10-95d1-4f0e-b1a5-{source:012}");
    (0..10).fold(Envelope::log(id, "x".repeat(200)).at(timestamp), |envelope, i| {
        envelope.tag(format!("tag-{i}"), "value-01")
    })
}

fn batch(sources: usize, first: i64) -> Selection {
    let batch = (0..100).map(|i| envelope(i as usize % sources, first + i)).collect();
    Batch::index(EnvelopeBatch { batch }.encode_to_vec().into()).0.into()
}

fn benches(c: &mut Criterion) {
    let mut group = c.benchmark_group("store");
    group.throughput(Throughput::Elements(100));
    for sources in [1, 100] {
        let batches: Vec<Selection> = (0..64).map(|i| batch(sources, i * 100)).collect();
        let store = Store::new(&Config::with_budget(256 << 20));
        let mut next = 0;
        group.bench_function(format!("put/{sources}_sources"), |b| {
            b.iter(|| {
                store.put(black_box(&batches[next % batches.len()]));
                next += 1;
            });
        });
    }
    let store = Store::new(&Config::default());
    (0..1000).for_each(|i| store.put(&batch(1, i * 100)));
    for (limit, descending) in [(100, false), (1000, false), (1000, true)] {
        let request = ReadRequest {
            source_id: format!("6a2c7f10-95d1-4f0e-b1a5-{:012}", 0),
            start_time: if descending { 0 } else { 40_000 },
            end_time: 90_000,
            limit,
            descending,
            ..ReadRequest::default()
        };
        let read = Read::parse(request, 0).expect("a request as it should be");
        group.throughput(Throughput::Elements(limit as u64));
        let order = if descending { "descending" } else { "ascending" };
        group.bench_function(format!("read/{limit}_{order}"), |b| b.iter(|| store.read(black_box(&read))));
    }
    group.finish();
}

criterion_group!(store, benches);
criterion_main!(store);
