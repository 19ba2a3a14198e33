//! What an envelope costs on its way to a line: reading it and writing its RFC 5424 form.

use std::hint::black_box;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use hydrant_adapters::syslog::config::Options;
use hydrant_adapters::syslog::encode::{Encoder, Parts, Style};
use prost::Message;
use proto::v2;

/// A log of 200 bytes with ten tags.
fn envelope() -> v2::Envelope {
    let names = [
        "app_id",
        "app_name",
        "organization_id",
        "organization_name",
        "space_id",
        "space_name",
        "origin",
        "process_id",
        "job",
    ];
    let log = v2::Envelope::log("c0ffee00-1111-2222-3333-444455556666", vec![b'x'; 200]).at(1_700_000_000_123_456_789);
    let log = log.instance("0").tag("source_type", "APP/PROC/WEB");
    names.into_iter().fold(log, |log, name| log.tag(name, "c0ffee00-1111-2222-3333-444455556666"))
}

fn encode(criterion: &mut Criterion) {
    let envelope = envelope();
    let bytes = envelope.encode_to_vec();
    let mut encoder = Encoder::new(&Options::default(), "org.space.app", true, Style::default());
    let mut out = Vec::with_capacity(4096);
    let mut group = criterion.benchmark_group("syslog");
    group.throughput(Throughput::Elements(1));
    group.bench_function("encode", |bencher| {
        let mut spare = Vec::new();
        let parts = Parts::read(&bytes, &mut spare);
        bencher.iter(|| {
            out.clear();
            parts.as_ref().map(|parts| encoder.encode(black_box(parts), &mut out))
        });
    });
    group.bench_function("read_and_encode", |bencher| {
        let mut spare = Vec::new();
        bencher.iter(|| {
            out.clear();
            Parts::read(black_box(&bytes), &mut spare).map(|parts| encoder.encode(&parts, &mut out))
        });
    });
    group.finish();
}

criterion_group!(benches, encode);
criterion_main!(benches);
