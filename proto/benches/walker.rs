//! The walker beside prost: nanoseconds per batch of a hundred ten-tag envelopes. The bars: indexing at most 5 % of a decode,
//! with the first hop's checks at most 15 %.

use std::hint::black_box;

use bytes::Bytes;
use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use hydrant_proto::raw::{Batch, Limits, Selection, tags::Form};
use hydrant_proto::{json, v2};
use prost::Message;

fn batch() -> Bytes {
    let envelope = |i: usize| {
        let payload = format!("{i:04} GET /checkout/basket/items 200 {}", "x".repeat(164));
        v2::Envelope::log("5b7d1c9e-4c1f-4b0c-9a51-5e3f6c0f7a11", payload)
            .at(1_790_000_000_000_000_000 + i as i64)
            .instance("3")
            .tag("deployment", "harbour")
            .tag("job", "diego-cell")
            .tag("index", "0c5f3b1e-55aa-4c1f")
            .tag("ip", "192.0.2.8")
            .tag("origin", "rep")
            .tag("source_type", "APP/PROC/WEB")
            .tag("app_name", "checkout")
            .tag("space_name", "production")
            .tag("organization_name", "harbour-co")
            .tag("process_type", "web")
    };
    v2::EnvelopeBatch { batch: (0..100).map(envelope).collect() }.encode_to_vec().into()
}

fn walker(c: &mut Criterion) {
    let bytes = batch();
    let mut group = c.benchmark_group("batch of 100");
    group.throughput(Throughput::Elements(100));
    group.bench_function("prost decode", |b| b.iter(|| v2::EnvelopeBatch::decode(black_box(bytes.clone()))));
    group.bench_function("index", |b| b.iter(|| Batch::index(black_box(bytes.clone()))));
    group.bench_function("check", |b| b.iter(|| Batch::check(black_box(bytes.clone()), &Limits::default())));
    let whole = Selection::from(Batch::index(bytes.clone()).0);
    group.bench_function("json, straight", |b| {
        b.iter(|| {
            let mut out = Vec::with_capacity(128 * 1024);
            json::put_batch(&mut out, black_box(&whole).envelopes());
            out
        });
    });
    group.bench_function("json, decoded", |b| {
        b.iter(|| {
            let batch = v2::EnvelopeBatch::decode(black_box(bytes.clone())).expect("made above");
            json::to_vec(&json::JsonBatch(&batch.batch))
        });
    });
    let mut half = whole.clone();
    half.retain(|i| i % 2 == 0);
    group.bench_function("write all", |b| {
        b.iter(|| {
            let mut out = Vec::with_capacity(whole.wire_len());
            whole.put(&mut out);
            out
        });
    });
    group.bench_function("write every other", |b| {
        b.iter(|| {
            let mut out = Vec::with_capacity(half.wire_len());
            half.put(&mut out);
            out
        });
    });
    group.bench_function("tags to deprecated_tags", |b| b.iter(|| Form::Deprecated.convert(black_box(&whole))));
    let deprecated = Form::Deprecated.convert(&whole);
    group.bench_function("deprecated_tags to tags", |b| b.iter(|| Form::Preferred.convert(black_box(&deprecated))));
    group.finish();
}

criterion_group!(benches, walker);
criterion_main!(benches);
