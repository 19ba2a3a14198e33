//! The store's cost per envelope: log envelopes with a payload of 200 bytes that compresses some 6 : 1, and eight tags in an order of
//! their own each; counters for queries. First it prints what an envelope takes in memory, then how long things take.

use std::hint::black_box;

use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use hydrant_log_cache::{Config, Read, Select, SelectLimits, Store};
use prost::Message;
use proto::logcache::v1::ReadRequest;
use proto::raw::{Batch, Selection};
use proto::v2::Envelope;
use tokio::time::Instant;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const BATCH: u64 = 100;

struct Random(u64);

impl Random {
    fn next(&mut self, below: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % below
    }
}

fn source(number: u64) -> String {
    format!("6a2c7f10-95d1-4f0e-b1a5-{number:012}")
}

/// 200 bytes as a web service logs them.
fn payload(random: &mut Random) -> String {
    let method = ["GET", "POST", "PUT", "DELETE"][random.next(4) as usize];
    let path = ["/api/v1/orders", "/api/v1/users", "/health", "/login", "/api/v2/carts"][random.next(5) as usize];
    let status = [200, 200, 200, 404, 500][random.next(5) as usize];
    let (id, took, bytes) = (random.next(10_000), random.next(1000), random.next(65_536));
    let (trace, user) = (random.next(1 << 32), random.next(500));
    let mut text = format!(
        "INFO http.server request completed method={method} path={path}/{id} status={status} duration_ms={took} \
         bytes={bytes} trace_id={trace:08x} user=user-{user} host=app-7d9f8c6b5-x2x4z region=eu-west-1 zone=eu-west-1a"
    );
    while text.len() < 200 {
        text.push('.');
    }
    text.truncate(200);
    text
}

fn log(random: &mut Random, source: String, timestamp: i64, payload: String) -> Vec<u8> {
    tagged(random, &Envelope::log(source, payload).at(timestamp))
}

fn tagged(random: &mut Random, envelope: &Envelope) -> Vec<u8> {
    let mut tags: Vec<u64> = (0..8).collect();
    (1..8).rev().for_each(|i| tags.swap(i, random.next(i as u64 + 1) as usize));
    let mut encoded = envelope.encode_to_vec();
    encoded.extend(Envelope::default().instance("0").encode_to_vec());
    for tag in tags {
        // One field alone: a map would put them in an order of its own.
        encoded.extend(Envelope::default().tag(format!("tag-name-{tag}"), format!("a value {tag}")).encode_to_vec());
    }
    encoded
}

fn batch(envelopes: impl Iterator<Item = Vec<u8>>) -> Selection {
    let mut encoded = Vec::new();
    envelopes.for_each(|envelope| proto::raw::wire::put_bytes(&mut encoded, 1, &envelope));
    Batch::index(encoded.into()).0.into()
}

/// Batches of a hundred lines each, the sources taking turns.
fn batches(sources: u64, count: u64, mut text: impl FnMut(&mut Random) -> String) -> Vec<Selection> {
    let mut random = Random(7);
    let mut line = |i: u64| {
        let text = text(&mut random);
        let timestamp = 1_700_000_000_000_000_000 + i as i64 * 1_013_000 + random.next(1_000_000) as i64;
        log(&mut random, source(i % sources), timestamp, text)
    };
    (0..count).map(|b| batch((b * BATCH..(b + 1) * BATCH).map(&mut line))).collect()
}

fn resident() -> usize {
    let statm = std::fs::read_to_string("/proc/self/statm").expect("Linux");
    statm.split(' ').nth(1).and_then(|pages| pages.parse::<usize>().ok()).expect("a number") * 4096
}

/// Not timed by criterion: it measures memory.
#[expect(clippy::print_stdout, reason = "a figure that criterion does not measure")]
fn memory() {
    for (sources, per_source) in [(1, 1_000_000), (100, 10_000), (1000, 1000), (1000, 4000), (100_000, 5)] {
        let lines = batches(sources, 1000, payload);
        let store = Store::new(&Config::with_budget(4 << 30));
        let (before, began) = (resident(), Instant::now());
        let rounds = sources * per_source / (1000 * BATCH);
        (0..rounds).for_each(|_| lines.iter().for_each(|batch| store.put(batch)));
        let took = began.elapsed();
        let (grown, numbers) = (resident().saturating_sub(before), store.numbers());
        println!(
            "{sources} sources x {per_source}: {} B charged and {} B resident an envelope, {} B as sent, {} ns to put one",
            numbers.bytes as u64 / numbers.envelopes,
            grown as u64 / numbers.envelopes,
            lines[0].batch().entries()[0].size(),
            took.as_nanos() as u64 / numbers.envelopes,
        );
    }
    let mut state = Random(99);
    let noise = move |_: &mut Random| (0..200).map(|_| char::from(b' ' + state.next(95) as u8)).collect();
    let lines = batches(10, 1000, noise);
    let store = Store::new(&Config::with_budget(4 << 30));
    let before = resident();
    lines.iter().for_each(|batch| store.put(batch));
    let (grown, numbers) = (resident().saturating_sub(before), store.numbers());
    println!(
        "10 sources x 10000 of noise: {} B charged and {} B resident an envelope, {} B as sent",
        numbers.bytes as u64 / numbers.envelopes,
        grown as u64 / numbers.envelopes,
        lines[0].batch().entries()[0].size(),
    );
}

fn benches(c: &mut Criterion) {
    memory();
    let mut group = c.benchmark_group("store");
    group.throughput(Throughput::Elements(BATCH));
    for sources in [1, 100, 1000] {
        let lines = batches(sources, 256, payload);
        let store = Store::new(&Config::with_budget(256 << 20));
        let mut next = 0;
        group.bench_function(format!("put/{sources}_sources"), |b| {
            b.iter(|| {
                store.put(black_box(&lines[next % lines.len()]));
                next += 1;
            });
        });
    }
    let store = Store::new(&Config::default());
    batches(1, 1000, payload).iter().for_each(|batch| store.put(batch));
    let now = i64::MAX - 1;
    let request = ReadRequest { source_id: source(0), descending: true, limit: 1000, ..ReadRequest::default() };
    for (name, request) in [
        ("read/1000_newest", request.clone()),
        ("read/1000_oldest", ReadRequest { descending: false, ..request.clone() }),
        ("read/100_newest", ReadRequest { limit: 100, ..request.clone() }),
    ] {
        let read = Read::parse(request, now).expect("a request as it should be");
        group.throughput(Throughput::Elements(read.limit as u64));
        group.bench_function(name, |b| b.iter(|| store.read(black_box(&read)).expect("an answer")));
    }
    // Of payload.
    group.throughput(Throughput::Bytes(100_000 * 200));
    for (name, text, text_regex) in
        [("search/substring", "no such thing anywhere", ""), ("search/regex", "", "status=5[0-9]{2} .*user-4999")]
    {
        let request = ReadRequest { text: text.to_owned(), text_regex: text_regex.to_owned(), ..request.clone() };
        let read = Read::parse(request, now).expect("a request as it should be");
        group.bench_function(name, |b| b.iter(|| store.read(black_box(&read)).expect("an answer")));
    }
    let counters = Store::new(&Config::default());
    let mut random = Random(3);
    for b in 0..1000_u64 {
        let counter = |i: u64| {
            let at = 1_700_000_000_000_000_000 + i as i64 * 10_000_000;
            let mut counter = Envelope::counter(source(0), "requests", 3).at(at);
            if let Some(proto::v2::envelope::Message::Counter(counter)) = &mut counter.message {
                counter.total = i * 3;
            }
            tagged(&mut random, &counter)
        };
        counters.put(&batch((b * BATCH..(b + 1) * BATCH).map(counter)));
    }
    let query = promql::Query::parse(
        &format!("rate(requests{{source_id=\"{}\"}}[1000s])", source(0)),
        &promql::Limits::default(),
    )
    .expect("a query as it should be");
    let span = promql::Span::instant(1_700_000_999_000);
    let wanted = query.selects(&span).remove(0);
    let select = Select {
        source_id: source(0),
        matchers: wanted.matchers,
        start: wanted.start,
        end: wanted.end,
        before: None,
        labels_only: false,
    };
    let limits = SelectLimits { samples: 1_000_000, series: 10_000 };
    group.throughput(Throughput::Elements(100_000));
    group.bench_function("select/100000_samples", |b| {
        b.iter(|| counters.select(black_box(&select), limits).expect("within the limits"));
    });
    group.bench_function("rate/100000_samples", |b| {
        b.iter(|| {
            let found = counters.select(black_box(&select), limits).expect("within the limits");
            let series =
                |found: hydrant_log_cache::Selected| promql::Series { labels: found.labels, samples: found.samples };
            let data = vec![found.into_iter().map(series).collect()];
            query.evaluate(&span, data, &promql::Limits::default(), &|| false).expect("an answer")
        });
    });
    let many = Store::new(&Config::with_budget(1 << 30));
    batches(100_000, 1000, payload).iter().for_each(|batch| many.put(batch));
    group.throughput(Throughput::Elements(100_000));
    group.bench_function("meta/100000_sources", |b| b.iter_batched(|| (), |()| many.meta(), BatchSize::LargeInput));
    group.finish();
}

criterion_group!(store, benches);
criterion_main!(store);
