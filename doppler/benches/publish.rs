//! The router's cost per envelope: batches of 100 ten-tag log envelopes of some 433 bytes published to few and many subscriptions, and
//! what a subscription costs to add and remove. Rings are emptied between the measured parts.

// Under the name that the rest of the workspace uses.
extern crate hydrant_doppler as doppler;

use std::hint::black_box;
use std::num::NonZeroUsize;
use std::time::Duration;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use diode::fair::Bounds;
use doppler::{EgressConfig, Request, Router, Subscribed};
use futures_util::FutureExt;
use prost::Message;
use proto::raw::{Batch, Limits};
use proto::selector::{Rule, Selector};
use proto::v2::{Envelope, EnvelopeBatch};
use telemetry::Telemetry;
use tokio::time::Instant;

const ALL: Bounds = Bounds { envelopes: NonZeroUsize::MAX, bytes: NonZeroUsize::MAX };
/// Envelopes in a batch.
const BATCH: usize = 100;
/// Batches published between two emptyings.
const BURST: u64 = 16;

fn source(number: usize) -> String {
    format!("6a2c7f10-95d1-4f0e-b1a5-{number:012}")
}

/// A batch in which sources alternate.
fn batch(first: usize, sources: usize) -> Batch {
    let envelope = |i: usize| {
        let envelope = Envelope::log(source((first + i) % sources), "x".repeat(200)).at(i as i64);
        (0..10).fold(envelope, |envelope, tag| envelope.tag(format!("tag-{tag}"), "value-01"))
    };
    let batch = (0..BATCH).map(envelope).collect();
    Batch::check(EnvelopeBatch { batch }.encode_to_vec().into(), &Limits::default()).0
}

fn logs(shard_id: &str, source_id: Option<String>) -> Request {
    let selectors = vec![Selector { source_id: source_id.map(Into::into), rule: Rule::Log }];
    Request { shard_id: shard_id.to_owned(), deterministic_name: String::new(), selectors, markers: false }
}

fn router() -> Router {
    Router::new(&EgressConfig::default(), None, &Telemetry::default())
}

fn empty(subscribed: &mut [Subscribed]) {
    for subscribed in subscribed {
        while let Some(Some(message)) = subscribed.next(ALL).now_or_never() {
            black_box(message);
        }
    }
}

/// Publishes `batches` in turn; the rings of `open` are emptied outside of the measurement.
fn publish(c: &mut Criterion, name: &str, router: &Router, open: &mut [Subscribed], sources: usize) {
    let mut group = c.benchmark_group("publish");
    group.throughput(Throughput::Elements(BATCH as u64));
    let batches: Vec<Batch> = (0..64).map(|i| batch(i * BATCH, sources)).collect();
    let mut publisher = router.publisher();
    let mut next = 0;
    group.bench_function(name, |b| {
        b.iter_custom(|iterations| {
            let mut took = Duration::ZERO;
            let mut left = iterations;
            while left > 0 {
                let burst = left.min(BURST);
                let start = Instant::now();
                for _ in 0..burst {
                    publisher.publish(black_box(&batches[next % batches.len()]));
                    next += 1;
                }
                took += start.elapsed();
                empty(open);
                left -= burst;
            }
            took
        });
    });
    group.finish();
}

fn publishing(c: &mut Criterion) {
    for count in [0, 1, 16] {
        let router = router();
        let mut open: Vec<Subscribed> = (0..count).map(|_| router.subscribe(logs("", None))).collect();
        publish(c, &format!("{count}_whole"), &router, &mut open, 20);
    }
    {
        let router = router();
        let mut open: Vec<Subscribed> = (0..7).map(|_| router.subscribe(logs("m", None))).collect();
        publish(c, "group_of_7", &router, &mut open, 20);
    }
    for sources in [20, 1_000] {
        let router = router();
        let mut open: Vec<Subscribed> = (0..1_000).map(|i| router.subscribe(logs("", Some(source(i))))).collect();
        publish(c, &format!("1000_by_source/{sources}_alternate"), &router, &mut open, sources);
    }
    // v1 payloads are made once for all that want them, and only then.
    for (name, wanting, others) in
        [("1_whole_and_1_v1", 1, 0), ("1_whole_and_4_v1", 4, 0), ("1_whole_beside_4_v1", 0, 4)]
    {
        let router = router();
        let mut open = vec![router.subscribe(logs("", None))];
        open.extend((0..wanting).map(|_| router.subscribe_v1(logs("", None))));
        open.extend((0..others).map(|i| router.subscribe_v1(logs("", Some(format!("other-{i}"))))));
        publish(c, name, &router, &mut open, 20);
    }
    let router = router();
    let others: Vec<Subscribed> = (0..10_000).map(|i| router.subscribe(logs("", Some(format!("other-{i}"))))).collect();
    let mut open = [router.subscribe(logs("", None))];
    publish(c, "1_whole_beside_10000_others", &router, &mut open, 20);
    drop(others);
}

fn subscribing(c: &mut Criterion) {
    let mut group = c.benchmark_group("subscribe");
    for present in [10, 10_000] {
        let kinds = [("by_source", ""), ("any_source", ""), ("by_source_sharded", "m")];
        for (kind, shard_id) in kinds {
            let of = |i: usize| (kind != "any_source").then(|| source(i));
            let router = router();
            let others: Vec<Subscribed> = (0..present).map(|i| router.subscribe(logs(shard_id, of(i)))).collect();
            group.bench_function(format!("add_and_remove_{kind}/{present}_present"), |b| {
                b.iter(|| drop(router.subscribe(black_box(logs(shard_id, of(present))))));
            });
            drop(others);
        }
    }
    group.finish();
}

criterion_group!(benches, publishing, subscribing);
criterion_main!(benches);
