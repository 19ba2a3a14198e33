//! The router without sockets: fair groups, many subscriptions, and changes while others publish.

use std::num::NonZeroUsize;
use std::sync::atomic::{AtomicBool, Ordering};

use diode::fair::Bounds;
use doppler::{EgressConfig, Publisher, Request, Router, Subscribed};
use futures_util::FutureExt;
use prost::Message as _;
use proto::raw::{Batch, Limits};
use proto::selector::Selector;
use proto::v2;
use proto::v2::{Envelope, EnvelopeBatch};
use telemetry::Telemetry;

use crate::client::{Numbers, logs};

pub(crate) const ALL: Bounds = Bounds { envelopes: NonZeroUsize::MAX, bytes: NonZeroUsize::MAX };

/// A router, and what it counts.
pub(crate) fn router() -> (Router, Telemetry) {
    let telemetry = Telemetry::default();
    (Router::new(&EgressConfig::default(), None, &telemetry), telemetry)
}

pub(crate) fn wanted(shard_id: &str, name: &str, selectors: &[v2::Selector]) -> Request {
    let selectors = selectors.iter().filter_map(Selector::from_wire).collect();
    Request { shard_id: shard_id.to_owned(), deterministic_name: name.to_owned(), selectors, markers: false }
}

pub(crate) fn batch(batch: Vec<Envelope>) -> Batch {
    let (batch, refused) = Batch::check(EnvelopeBatch { batch }.encode_to_vec().into(), &Limits::default());
    assert_eq!(refused.total(), 0);
    batch
}

/// The timestamps of everything that is there now, in order.
pub(crate) fn drain(subscribed: &mut Subscribed) -> Vec<i64> {
    let mut all = Vec::new();
    while let Some(Some(message)) = subscribed.next(ALL).now_or_never() {
        for part in message.parts() {
            all.extend(part.entries().map(|entry| entry.timestamp));
        }
    }
    all
}

fn publish(publisher: &mut Publisher, source: impl Fn(i64) -> String, count: i64, per_batch: i64) {
    for first in (0..count).step_by(per_batch as usize) {
        publisher.publish(&batch((first..first + per_batch).map(|i| Envelope::log(source(i), "x").at(i)).collect()));
    }
}

#[test]
fn groups_share_within_five_percent() {
    for members in [2, 3, 7] {
        for per_batch in [1, 100] {
            for sources in [1, 20] {
                let (router, _telemetry) = router();
                let mut group: Vec<Subscribed> =
                    (0..members).map(|_| router.subscribe(wanted("m", "", &[logs("")]))).collect();
                publish(&mut router.publisher(), |i| format!("app-{}", i % sources), 10_000, per_batch);
                let parts: Vec<usize> = group.iter_mut().map(|member| drain(member).len()).collect();
                assert_eq!(parts.iter().sum::<usize>(), 10_000);
                let even = 10_000.0 / f64::from(members);
                let uneven = parts.iter().map(|part| (*part as f64 - even).abs() / even).fold(0.0, f64::max);
                assert!(uneven <= 0.05, "{members} members, batches of {per_batch}: {parts:?}");
            }
        }
    }
}

#[test]
fn a_group_by_source_shares_as_evenly_when_sources_alternate() {
    let (router, _telemetry) = router();
    let mut group: Vec<Subscribed> =
        (0..3).map(|_| router.subscribe(wanted("m", "", &[logs("app-0"), logs("app-1")]))).collect();
    publish(&mut router.publisher(), |i| format!("app-{}", i % 4), 40_000, 100);
    let parts: Vec<Vec<i64>> = group.iter_mut().map(drain).collect();
    let mut all = parts.concat();
    all.sort_unstable();
    assert_eq!(all, (0..40_000).filter(|i| i % 4 < 2).collect::<Vec<_>>());
    for part in parts {
        assert!(part.is_sorted() && part.len().abs_diff(6_667) <= 333, "{}", part.len());
    }
}

#[test]
fn ten_thousand_subscriptions_come_and_go() {
    let (router, telemetry) = router();
    let mut publisher = router.publisher();
    let of_all = |i: i64| batch((0..10).map(|k| Envelope::log(format!("app-{}", i * 10 + k), "x").at(k)).collect());
    let mut open: Vec<Subscribed> = (0..10_000)
        .map(|i| match i % 3 {
            0 => router.subscribe(wanted("", "", &[logs(&format!("app-{i}"))])),
            1 => router.subscribe(wanted("m", "", &[logs(&format!("app-{i}"))])),
            _ => router.subscribe(wanted("m", "name", &[logs(&format!("app-{i}")), logs("nobody")])),
        })
        .collect();
    (0..1_000).for_each(|i| publisher.publish(&of_all(i)));
    let numbers = Numbers::parse(&telemetry.render());
    numbers.balance();
    assert_eq!((numbers.get("hydrant_subscriptions"), numbers.copies()), (10_000, 10_000));
    for subscribed in &mut open {
        assert_eq!(drain(subscribed).len(), 1);
    }

    // Half of them, in no particular order.
    let mut at = 0;
    open.retain(|_| {
        at += 7;
        at % 10 < 5
    });
    let left = open.len() as u64;
    (0..1_000).for_each(|i| publisher.publish(&of_all(i)));
    let numbers = Numbers::parse(&telemetry.render());
    assert_eq!((numbers.get("hydrant_subscriptions"), numbers.copies()), (left, 10_000 + left));
    assert_eq!(numbers.get("hydrant_router_unmatched_total"), 10_000 - left);
    drop(open);

    (0..1_000).for_each(|i| publisher.publish(&of_all(i)));
    let numbers = Numbers::parse(&telemetry.render());
    numbers.balance();
    assert_eq!((numbers.get("hydrant_subscriptions"), numbers.copies()), (0, 10_000 + left), "nobody gets anything");
    assert_eq!(numbers.copies(), numbers.delivered() + numbers.lost());
    assert_eq!((numbers.dropped("peer_lost"), numbers.depth()), (left, 0));
}

/// Members come and go while two threads publish: each envelope goes to exactly one member or is counted as lost with one that left;
/// nothing is left behind in the table.
#[test]
fn changes_while_others_publish_lose_nothing_uncounted() {
    const BATCHES: i64 = 1_500;
    const SIZE: i64 = 20;
    let (router, telemetry) = router();
    let selectors = [logs(""), logs("a")];
    let mut stays = router.subscribe(wanted("m", "", &selectors[..1]));
    let mut alone = router.subscribe(wanted("", "", &selectors[..1]));
    let done = AtomicBool::new(false);
    let (mut left, mut kept, mut whole) = (Vec::new(), Vec::new(), Vec::new());
    std::thread::scope(|scope| {
        let churn = scope.spawn(|| {
            let mut got = Vec::new();
            while !done.load(Ordering::Relaxed) {
                let mut guests = [
                    router.subscribe(wanted("m", "", &selectors[..1])),
                    router.subscribe(wanted("n", "x", &selectors)),
                    router.subscribe(wanted("", "", &selectors[1..])),
                ];
                std::thread::yield_now();
                got.extend(drain(&mut guests[0]));
            }
            got
        });
        let readers = scope.spawn(|| {
            let (mut kept, mut whole) = (Vec::new(), Vec::new());
            while !done.load(Ordering::Relaxed) {
                kept.extend(drain(&mut stays));
                whole.extend(drain(&mut alone));
            }
            kept.extend(drain(&mut stays));
            whole.extend(drain(&mut alone));
            (kept, whole)
        });
        let publishers = [0, 1].map(|thread| {
            let mut publisher = router.publisher();
            scope.spawn(move || {
                for first in (0..BATCHES).map(|i| (i * 2 + thread) * SIZE) {
                    publisher.publish(&batch((first..first + SIZE).map(|i| Envelope::log("a", "x").at(i)).collect()));
                }
            })
        });
        for publisher in publishers {
            publisher.join().unwrap();
        }
        done.store(true, Ordering::Relaxed);
        left = churn.join().unwrap();
        (kept, whole) = readers.join().unwrap();
    });
    drop((stays, alone));
    let numbers = Numbers::parse(&telemetry.render());
    numbers.balance();
    assert_eq!(numbers.get("hydrant_subscriptions"), 0);
    assert_eq!(numbers.copies(), numbers.delivered() + numbers.lost());
    let sent = 2 * BATCHES * SIZE;
    let mut all = [kept, left].concat();
    all.sort_unstable();
    assert!(all.is_sorted_by(|a, b| a < b), "none goes to two members of a group");
    assert_eq!(numbers.dropped("queue_full"), 0, "all of it fits into a ring");
    whole.sort_unstable();
    assert_eq!(whole, (0..sent).collect::<Vec<_>>(), "who stays gets everything, whoever comes and goes");
}

#[test]
fn what_one_selector_stops_to_admit_and_another_begins_to_is_never_missed_nor_twice() {
    const BATCHES: i64 = 20_000;
    const SIZE: i64 = 5;
    let (router, _telemetry) = router();
    let both = [logs(""), logs("a")].map(|selector| wanted("", "", &[selector]).selectors);
    for shard in ["", "m"] {
        let mut changing = router.subscribe(wanted(shard, "", &[logs("")]));
        let done = AtomicBool::new(false);
        let got = std::thread::scope(|scope| {
            let churn = scope.spawn(|| {
                let (mut got, mut changes) = (Vec::new(), 0);
                while !done.load(Ordering::Relaxed) {
                    for (added, removed) in [(1, 0), (0, 1)] {
                        changing.change(both[added].clone(), both[removed].clone()).unwrap();
                        changes += 1;
                        got.extend(drain(&mut changing));
                    }
                }
                got.extend(drain(&mut changing));
                (got, changes)
            });
            let publishers = [0, 1].map(|thread| {
                let mut publisher = router.publisher();
                scope.spawn(move || {
                    for first in (0..BATCHES).map(|i| (i * 2 + thread) * SIZE) {
                        let lines = (first..first + SIZE).map(|i| Envelope::log("a", "x").at(i));
                        publisher.publish(&batch(lines.collect()));
                    }
                })
            });
            for publisher in publishers {
                publisher.join().unwrap();
            }
            done.store(true, Ordering::Relaxed);
            let (got, changes) = churn.join().unwrap();
            assert!(changes > 100, "{changes} changes");
            got
        });
        let mut sorted = got.clone();
        sorted.sort_unstable();
        assert_eq!(sorted, (0..2 * BATCHES * SIZE).collect::<Vec<_>>(), "shard {shard:?}");
        for thread in [0, 1] {
            assert!(got.iter().filter(|number| *number / SIZE % 2 == thread).is_sorted());
        }
    }
}
