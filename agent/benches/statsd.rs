//! statsd lines to encoded envelopes: nanoseconds per line, in datagrams of a hundred.

use std::hint::black_box;
use std::num::NonZeroUsize;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use hydrant_agent::statsd::{Collector, Line, Mapping, Settings, State, lines, parse_line};

const LINES: u64 = 100;

fn datagram(line: impl Fn(u64) -> String) -> Vec<u8> {
    (0..LINES).map(line).collect::<Vec<_>>().join("\n").into_bytes()
}

fn collector(mapping: Mapping) -> Collector {
    Collector::new(State::new(Settings { mapping, ..Settings::default() }, NonZeroUsize::MIN))
}

const NOW: i64 = 1_790_000_000_000_000_000;

fn statsd(c: &mut Criterion) {
    let mut group = c.benchmark_group("statsd line");
    group.throughput(Throughput::Elements(LINES));
    let plain = datagram(|i| format!("checkout.http.requests.{i}:1|c"));
    let tagged =
        datagram(|i| format!("checkout.http.latency.{i}:12.25|ms|@0.5|#method:get,status:200,zone:z1,job:router"));
    for (name, datagram) in [("plain counter", &plain), ("sampled timer, four tags", &tagged)] {
        group.bench_function(format!("parse, classic, {name}"), |b| {
            b.iter(|| lines(black_box(datagram)).filter_map(|line| parse_line(line).ok()).count());
        });
        group.bench_function(format!("parse, native, {name}"), |b| {
            b.iter(|| lines(black_box(datagram)).filter_map(|line| Line::parse(line).ok()).count());
        });
        let mut classic = collector(Mapping::Classic);
        group.bench_function(format!("datagram to batch, classic, {name}"), |b| {
            b.iter(|| {
                classic.add(black_box(datagram), NOW, |_, _| ());
                classic.take()
            });
        });
        let mut native = collector(Mapping::Native);
        group.bench_function(format!("datagram to series, native, {name}"), |b| {
            b.iter(|| native.add(black_box(datagram), NOW, |_, _| ()));
        });
    }
    group.finish();
}

criterion_group!(benches, statsd);
criterion_main!(benches);
