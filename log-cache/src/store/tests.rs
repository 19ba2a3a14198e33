//! The store's promises: what it keeps, what it evicts and in which order, and what it weighs.

use std::collections::BTreeMap;

use proptest::prelude::*;
use prost::Message;
use proto::logcache::v1::{EnvelopeType, ReadRequest};
use proto::raw::Limits;
use proto::v2::{self, Envelope};

use super::*;
use crate::noise::noise;
use crate::read::Read;

const FAR: i64 = i64::MAX - 1;

fn batch(envelopes: Vec<Envelope>) -> Selection {
    let encoded = v2::EnvelopeBatch { batch: envelopes }.encode_to_vec();
    let (batch, refused) = Batch::check(encoded.into(), &Limits::default());
    assert_eq!(refused.total(), 0);
    batch.into()
}

fn line(source: &str, timestamp: i64, text: impl std::fmt::Display) -> Envelope {
    Envelope::log(source, text.to_string()).at(timestamp)
}

fn store(budget: u64) -> Store {
    Store::new(&Config::with_budget(budget))
}

fn request(source: &str) -> ReadRequest {
    ReadRequest {
        source_id: source.to_owned(),
        start_time: i64::MIN,
        end_time: i64::MAX,
        limit: 1000,
        ..ReadRequest::default()
    }
}

fn envelopes(store: &Store, request: ReadRequest) -> Vec<Envelope> {
    let page = store.read(&Read::parse(request, FAR).unwrap()).unwrap();
    let batch = v2::EnvelopeBatch::decode(page.batch).unwrap().batch;
    assert_eq!(batch.len(), page.envelopes);
    batch
}

fn payloads(store: &Store, request: ReadRequest) -> Vec<String> {
    envelopes(store, request).iter().map(|e| String::from_utf8(e.payload().to_vec()).unwrap()).collect()
}

fn meta(store: &Store, source: &str) -> Option<SourceMeta> {
    store.meta().into_iter().find(|(id, _)| id == source).map(|(_, meta)| meta)
}

#[test]
fn what_is_put_is_read_byte_for_byte() {
    let store = store(1 << 20);
    let mut encoded = line("a", 5, "x").tag("k", "v").encode_to_vec();
    encoded.extend([0xa2, 0x06, 1, 7]); // an unknown field
    let mut message = vec![0x0a, encoded.len() as u8];
    message.extend(&encoded);
    store.put(&Batch::check(message.clone().into(), &Limits::default()).0.into());
    let page = store.read(&Read::parse(request("a"), FAR).unwrap()).unwrap();
    assert_eq!(page.batch, message);
}

#[test]
fn runs_of_several_sources_in_one_batch_find_their_source() {
    let store = store(1 << 20);
    let sources = ["a", "a", "b", "a", "", "", "c", "b"];
    store.put(&batch(sources.iter().enumerate().map(|(i, s)| line(s, i as i64, i)).collect()));
    assert_eq!(payloads(&store, request("a")), ["0", "1", "3"]);
    assert_eq!(payloads(&store, request("b")), ["2", "7"]);
    assert_eq!(payloads(&store, request("")), ["4", "5"]);
    assert_eq!(payloads(&store, request("c")), ["6"]);
    assert!(payloads(&store, request("nobody")).is_empty());
    let numbers = store.numbers();
    assert_eq!((numbers.offered, numbers.accepted, numbers.envelopes, numbers.sources), (8, 8, 8, 4));
}

#[test]
fn a_part_of_a_batch_stores_that_part() {
    let store = store(1 << 20);
    let mut part = batch((0..10).map(|i| line("a", i, i)).collect());
    part.retain(|i| i % 3 == 0);
    store.put(&part);
    assert_eq!(payloads(&store, request("a")), ["0", "3", "6", "9"]);
}

#[test]
fn meta_counts_and_remembers_the_newest_ever_seen() {
    let store = store(1 << 20);
    store.put(&batch(vec![line("a", 50, ""), line("a", -7, ""), line("b", -9, "")]));
    // Each has what its numbers take, whatever that is.
    let bytes = |id| meta(&store, id).map_or(0, |meta| meta.bytes);
    assert!(bytes("a") > bytes("b") && bytes("b") > 0);
    let expected = |id, count, oldest, newest| SourceMeta {
        count,
        expired: 0,
        bytes: bytes(id),
        oldest_timestamp: oldest,
        newest_timestamp: newest,
        recent: count,
        recent_since: oldest,
    };
    let (a, b) = (expected("a", 2, -7, 50), expected("b", 1, -9, 0));
    assert_eq!((meta(&store, "a"), meta(&store, "b")), (Some(a), Some(b)));
    assert_eq!(store.oldest_timestamp(), Some(-9));
}

/// Whatever is put, no more than the budget is held afterwards, and the books balance.
#[test]
fn the_budget_holds_after_every_put() {
    for budget in [0, 1, 1000, 20_000, 1 << 20] {
        let store = store(budget);
        for i in 0..3000_usize {
            let source = format!("source-{}", i * i % 97);
            store.put(&batch(vec![line(&source, i as i64, noise(i * 37 % 900)); 1 + i % 3]));
            let numbers = store.numbers();
            assert!(numbers.bytes as u64 <= budget, "put {i}: {} of {budget}", numbers.bytes);
            assert_eq!(numbers.accepted, numbers.evicted + numbers.envelopes);
        }
        let held: u64 = store.meta().iter().map(|(_, meta)| meta.count).sum();
        assert_eq!(held, store.numbers().envelopes);
        assert_eq!(store.meta().len(), store.numbers().sources);
        assert!(budget < 20_000 || held > 0, "budget {budget}");
    }
}

#[test]
fn most_of_the_budget_is_used() {
    let store = store(1 << 20);
    for i in 0..20_000 {
        store.put(&batch(vec![line(&format!("s{}", i % 3), i, noise(200))]));
    }
    assert!(store.numbers().bytes > (1 << 20) * 8 / 10, "{}", store.numbers().bytes);
}

#[test]
fn a_loud_source_cannot_empty_a_quiet_one() {
    let store = store(1 << 20);
    for i in 0..100_i64 {
        store.put(&batch(vec![line("quiet", i, i)]));
        for _ in 0..10 {
            store.put(&batch((0..100).map(|n| line("loud", i, noise(200 + n))).collect()));
        }
    }
    let quiet: Vec<String> = (0..100).map(|i| i.to_string()).collect();
    assert_eq!(payloads(&store, request("quiet")), quiet);
    assert_eq!(meta(&store, "quiet").unwrap().expired, 0);
    let loud = meta(&store, "loud").unwrap();
    assert!(loud.count > 1000 && loud.expired > 90_000, "{loud:?}");
    assert_eq!(loud.count + loud.expired, 100_000);
}

#[test]
fn many_quiet_sources_outlive_several_loud_ones() {
    let store = store(4 << 20);
    for i in 0..500 {
        store.put(&batch(vec![line(&format!("quiet-{i}"), 0, i)]));
    }
    for i in 0..20_000 {
        store.put(&batch(vec![line(&format!("loud-{}", i % 5), i, noise(1000))]));
    }
    for i in 0..500 {
        assert_eq!(payloads(&store, request(&format!("quiet-{i}"))), [i.to_string()]);
    }
}

/// A source that was over its share and fell silent gives up its old lines before those that came later.
#[test]
fn among_those_over_their_share_the_oldest_arrival_goes_first() {
    let store = store(1 << 20);
    for i in 0..2000 {
        store.put(&batch(vec![line("early", i, noise(300))]));
    }
    for i in 0..2000 {
        store.put(&batch(vec![line("late", i, noise(300))]));
    }
    let (early, late) = (meta(&store, "early").unwrap(), meta(&store, "late").unwrap());
    assert!(early.expired > 0 && late.expired == 0, "{early:?} {late:?}");
    assert!(early.count > 0);
}

#[test]
fn timestamps_play_no_part_in_eviction() {
    for timestamp in [i64::MIN, -1, 0, 1, i64::MAX - 1, i64::MAX] {
        let store = store(50_000);
        for i in 0..5000_i64 {
            // One source's clock is far off; the other's is right.
            store.put(&batch(vec![line("off", timestamp, i), line("right", 1_700_000_000_000_000_000 + i, i)]));
        }
        let (off, right) = (meta(&store, "off").unwrap(), meta(&store, "right").unwrap());
        assert!(off.expired > 0 && right.expired > 0, "{timestamp}: {off:?} {right:?}");
        assert!(off.count.abs_diff(right.count) <= 1100, "{timestamp}: {off:?} {right:?}");
        if timestamp < i64::MAX {
            let newest = payloads(&store, ReadRequest { descending: true, limit: 1, ..request("off") });
            assert_eq!(newest[0], "4999", "the latest arrival is held");
            assert_eq!(newest.len() as u64, off.count, "a run of equal timestamps is not split");
        }
    }
}

#[test]
fn any_number_of_equal_timestamps_is_kept() {
    let store = store(16 << 20);
    for chunk in 0..100_i64 {
        store.put(&batch((0..100).map(|i| line("a", 7, chunk * 100 + i)).collect()));
    }
    let all: Vec<String> = (0..10_000).map(|i| i.to_string()).collect();
    assert_eq!(payloads(&store, ReadRequest { limit: 1, ..request("a") }), all);
    let reverse: Vec<String> = all.into_iter().rev().collect();
    assert_eq!(payloads(&store, ReadRequest { limit: 1, descending: true, ..request("a") }), reverse);
}

#[test]
fn a_source_disappears_with_its_last_envelope() {
    let store = store(60_000);
    store.put(&batch(vec![line("gone", 0, noise(20_000))]));
    for i in 0..500 {
        store.put(&batch(vec![line(&format!("s{i}"), i, noise(100))]));
    }
    assert_eq!(meta(&store, "gone"), None);
    store.put(&batch(vec![line("gone", 9, "back")]));
    assert_eq!(meta(&store, "gone").unwrap().expired, 0, "what it had lost was forgotten with it");
}

#[test]
fn ids_without_end_hold_no_more_than_the_budget() {
    let store = store(1 << 20);
    for i in 0..50_000 {
        store.put(&batch(vec![line(&format!("one-off-source-{i}"), i, "hello")]));
    }
    let numbers = store.numbers();
    assert!(numbers.bytes <= 1 << 20 && numbers.sources > 1000, "{numbers:?}");
    assert_eq!(meta(&store, "one-off-source-49999").unwrap().count, 1);
}

#[test]
fn an_envelope_larger_than_the_budget_goes_at_once() {
    let store = store(10_000);
    store.put(&batch(vec![line("a", 1, noise(50_000))]));
    assert_eq!(store.numbers().evicted, 1);
    assert_eq!(store.numbers().bytes, 0);
    store.put(&batch(vec![line("a", 2, "small")]));
    assert_eq!(payloads(&store, request("a")), ["small"]);
}

/// 100 000 sources with a line each fit in 100 MB.
#[test]
fn small_sources_are_cheap() {
    let store = store(1 << 30);
    for i in 0..1000 {
        let line = |n| line(&format!("6a2c7f10-95d1-4f0e-b1a5-{:012}", i * 100 + n), 1, noise(300)).tag("k", "v");
        store.put(&batch((0..100).map(line).collect()));
    }
    let numbers = store.numbers();
    assert_eq!(numbers.sources, 100_000);
    assert!(numbers.bytes < 100_000_000, "{} bytes", numbers.bytes);
}

#[test]
fn threads_that_put_at_once_keep_the_budget_and_lose_nothing_uncounted() {
    let store = store(300_000);
    std::thread::scope(|scope| {
        for thread in 0..4 {
            let store = store.clone();
            scope.spawn(move || {
                for i in 0..2000 {
                    let source = format!("s{}", (i * 7 + thread) % 50);
                    store.put(&batch(vec![line(&source, i, noise(100)), line(&format!("t{thread}"), i, i)]));
                }
            });
        }
    });
    let numbers = store.numbers();
    assert!(numbers.bytes <= 300_000, "{numbers:?}");
    assert_eq!(numbers.accepted, 16_000);
    let (held, expired) = store.meta().iter().fold((0, 0), |sum, (_, m)| (sum.0 + m.count, sum.1 + m.expired));
    assert_eq!(held, numbers.envelopes);
    assert!(expired <= numbers.evicted);
}

/// One put of the model test.
#[derive(Clone, Debug)]
struct Put {
    source: u8,
    timestamp: i64,
    kind: u8,
    size: usize,
}

impl Put {
    fn envelope(&self, id: usize) -> Envelope {
        let source = format!("s{}", self.source);
        let filler = noise(self.size);
        let envelope = match self.kind {
            0 => Envelope::log(source, filler),
            1 => Envelope::counter(source, filler, 1),
            2 => Envelope::gauge(source, filler, 1.0, "u"),
            3 => Envelope::timer(source, filler, 1, 2),
            4 => Envelope::event(source, "t", filler),
            _ => Envelope { source_id: source, ..Envelope::default() },
        };
        envelope.at(self.timestamp).tag("id", id.to_string())
    }
}

fn puts() -> impl Strategy<Value = Vec<Put>> {
    let timestamp = prop_oneof![8 => -20..20_i64, 1 => Just(i64::MIN), 1 => Just(i64::MAX), 1 => any::<i64>()];
    let put = (0..3_u8, timestamp, 0..6_u8, 0..300_usize).prop_map(|(source, timestamp, kind, size)| Put {
        source,
        timestamp,
        kind,
        size,
    });
    prop::collection::vec(put, 0..400)
}

fn reads() -> impl Strategy<Value = ReadRequest> {
    let time = || prop_oneof![4 => -22..22_i64, 1 => Just(i64::MIN), 1 => Just(i64::MAX), 1 => any::<i64>()];
    (0..4_u8, time(), time(), 1..40_i64, any::<bool>(), prop::collection::vec(0..6_i32, 0..3)).prop_map(
        |(source, a, b, limit, descending, envelope_types)| ReadRequest {
            source_id: format!("s{source}"),
            start_time: a.min(b),
            end_time: a.max(b),
            limit,
            descending,
            envelope_types,
            ..ReadRequest::default()
        },
    )
}

/// What a read gives of `arrived`, the envelopes of one source in order of arrival with their kinds.
fn naive_read(arrived: &[(i64, u8, usize)], read: &ReadRequest) -> Vec<usize> {
    let end = if read.end_time == 0 { FAR } else { read.end_time };
    let wanted: Vec<i32> = read.envelope_types.iter().copied().filter(|t| *t != EnvelopeType::Any as i32).collect();
    let mut ordered = BTreeMap::new();
    for (arrival, (timestamp, kind, id)) in arrived.iter().enumerate() {
        let of_kind = wanted.is_empty() || wanted.contains(&(i32::from(*kind) + 1)) && *kind < 5;
        if of_kind && (read.start_time..end).contains(timestamp) {
            ordered.insert((*timestamp, arrival), *id);
        }
    }
    let all: Vec<(i64, usize)> = ordered.into_iter().map(|((timestamp, _), id)| (timestamp, id)).collect();
    let all: Vec<(i64, usize)> = if read.descending { all.into_iter().rev().collect() } else { all };
    let limit = read.limit as usize;
    let run_goes_on = |i: usize| i < limit || all[i].0 == all[limit - 1].0;
    all.iter().enumerate().take_while(|(i, _)| run_goes_on(*i)).map(|(_, (_, id))| *id).collect()
}

proptest! {
    /// A source holds a suffix of what arrived, and every read of it equals the same read of a sorted map of that suffix.
    #[test]
    fn reads_equal_those_of_a_sorted_map(
        puts in puts(),
        batch_len in 1..30_usize,
        budget in prop_oneof![Just(20_000_u64), Just(60_000), Just(1 << 24)],
        reads in prop::collection::vec(reads(), 1..20),
    ) {
        let store = store(budget);
        let mut arrived: BTreeMap<String, Vec<(i64, u8, usize)>> = BTreeMap::new();
        for (i, put) in puts.iter().enumerate() {
            arrived.entry(format!("s{}", put.source)).or_default().push((put.timestamp, put.kind, i));
        }
        for (chunk, puts) in puts.chunks(batch_len).enumerate() {
            let envelope = |(i, put): (usize, &Put)| put.envelope(chunk * batch_len + i);
            store.put(&batch(puts.iter().enumerate().map(envelope).collect()));
            prop_assert!(store.numbers().bytes as u64 <= budget);
        }
        for (source, all) in &mut arrived {
            let held = meta(&store, source).map_or(0, |meta| meta.count as usize);
            all.drain(..all.len() - held);
        }
        for read in reads {
            let empty = Vec::new();
            let expected = naive_read(arrived.get(&read.source_id).unwrap_or(&empty), &read);
            let ids = |e: &Envelope| e.tags["id"].parse::<usize>().unwrap();
            let found: Vec<usize> = envelopes(&store, read.clone()).iter().map(ids).collect();
            prop_assert_eq!(found, expected, "{:?}", read);
        }
    }
}
