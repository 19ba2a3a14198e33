//! statsd lines to encoded envelopes: nanoseconds per line, in datagrams of a hundred.

use std::hint::black_box;
use std::num::NonZeroUsize;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use hydrant_agent::statsd::{Aggregator, Collector, lines, parse_line};

const LINES: u64 = 100;

fn datagram(line: impl Fn(u64) -> String) -> Vec<u8> {
    (0..LINES).map(line).collect::<Vec<_>>().join("\n").into_bytes()
}

fn statsd(c: &mut Criterion) {
    let series = NonZeroUsize::new(10_000).expect("not zero");
    let mut group = c.benchmark_group("statsd line");
    group.throughput(Throughput::Elements(LINES));
    let plain = datagram(|i| format!("checkout.http.requests.{i}:1|c"));
    let tagged =
        datagram(|i| format!("checkout.http.latency.{i}:12.25|ms|@0.5|#method:get,status:200,zone:z1,job:router"));
    for (name, datagram) in [("plain counter", &plain), ("sampled timer, four tags", &tagged)] {
        group.bench_function(format!("parse, {name}"), |b| {
            b.iter(|| lines(black_box(datagram)).filter_map(|line| parse_line(line).ok()).count());
        });
        let (mut aggregator, mut out) = (Aggregator::new(series), Vec::new());
        group.bench_function(format!("parse and encode, {name}"), |b| {
            b.iter(|| {
                out.clear();
                for metric in lines(black_box(datagram)).filter_map(|line| parse_line(line).ok()) {
                    aggregator.apply(metric, 1_790_000_000_000_000_000, &mut out);
                }
                out.len()
            });
        });
        let mut collector = Collector::new(Aggregator::new(series));
        group.bench_function(format!("datagram to batch, {name}"), |b| {
            b.iter(|| {
                collector.add(black_box(datagram), 1_790_000_000_000_000_000, |_, _| ());
                collector.take()
            });
        });
    }
    group.finish();
}

criterion_group!(benches, statsd);
criterion_main!(benches);
