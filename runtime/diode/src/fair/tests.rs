//! The fair ring: single rules here, the whole of it against a naive model in [`model`].

use std::sync::Arc;

use super::*;

mod model;

/// One envelope of a [`Batch`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Envelope {
    id: u64,
    source: u64,
    weight: usize,
}

/// A load over a pretended storage of `held` bytes. A copy holds what its envelopes weigh, and `overhead`.
#[derive(Clone, Debug)]
struct Batch {
    envelopes: Arc<Vec<Envelope>>,
    kept: Vec<usize>,
    held: usize,
    overhead: usize,
    /// Copies are written down here.
    copies: Arc<std::sync::Mutex<Vec<usize>>>,
}

impl Batch {
    fn new(envelopes: Vec<Envelope>) -> Self {
        let held = envelopes.iter().map(|envelope| envelope.weight).sum();
        Self {
            kept: (0..envelopes.len()).collect(),
            envelopes: Arc::new(envelopes),
            held,
            overhead: 0,
            copies: Arc::default(),
        }
    }

    fn ids(&self) -> Vec<u64> {
        (0..self.len()).map(|i| self.get(i).id).collect()
    }

    fn get(&self, i: usize) -> Envelope {
        self.envelopes[self.kept[i]]
    }
}

impl Load for Batch {
    fn len(&self) -> usize {
        self.kept.len()
    }
    fn source(&self, i: usize) -> u64 {
        self.get(i).source
    }
    fn weight(&self, i: usize) -> usize {
        self.get(i).weight
    }
    fn held(&self) -> usize {
        self.held
    }
    fn retain(&mut self, keep: &mut dyn FnMut(usize) -> bool) {
        let mut i = 0;
        self.kept.retain(|_| (keep(i), i += 1).0);
    }
    fn copy_out(&self, kept: &[usize]) -> Self {
        assert!(!kept.is_empty() && kept.is_sorted());
        let copy = Self::new(kept.iter().map(|i| self.get(*i)).collect());
        self.copies.lock().unwrap().push(copy.held);
        Self { held: copy.held + self.overhead, overhead: self.overhead, copies: self.copies.clone(), ..copy }
    }
}

fn ring(envelopes: usize, bytes: usize) -> (Writer<Batch>, Reader<Batch>) {
    channel(bounds(envelopes, bytes))
}

fn bounds(envelopes: usize, bytes: usize) -> Bounds {
    Bounds { envelopes: NonZeroUsize::new(envelopes).unwrap(), bytes: NonZeroUsize::new(bytes).unwrap() }
}

/// A batch with ids from `first`, of `(source, weight)`s.
fn batch(first: u64, envelopes: &[(u64, usize)]) -> Batch {
    let of = |(id, &(source, weight)): (u64, &(u64, usize))| Envelope { id, source, weight };
    Batch::new((first..).zip(envelopes).map(of).collect())
}

/// Pushes and returns the ids that were evicted.
fn push(writer: &Writer<Batch>, load: Batch) -> Vec<u64> {
    let mut evicted = Vec::new();
    writer.push(load, |load, i| evicted.push(load.get(i).id)).unwrap();
    writer.shared.lock().assert_consistent();
    evicted
}

/// Takes everything and returns the ids.
fn drain(reader: &mut Reader<Batch>) -> Vec<u64> {
    let mut ids = Vec::new();
    while let Ok(load) = reader.try_recv() {
        ids.extend(load.ids());
    }
    ids
}

#[test]
fn the_loudest_source_loses_its_oldest_and_no_more_than_needed() {
    let (writer, mut reader) = ring(6, 10_000);
    assert!(push(&writer, batch(0, &[(1, 10), (7, 10), (7, 10)])).is_empty());
    assert!(push(&writer, batch(3, &[(2, 10), (7, 10), (7, 10)])).is_empty());
    assert_eq!(push(&writer, batch(6, &[(3, 10), (7, 10)])), [1, 2]);
    assert_eq!(drain(&mut reader), [0, 3, 4, 5, 6, 7]);
}

#[test]
fn equal_sources_lose_by_the_lower_hash() {
    let (writer, mut reader) = ring(4, 10_000);
    assert_eq!(push(&writer, batch(0, &[(9, 10), (3, 10), (9, 10), (3, 10)])), [0; 0]);
    assert_eq!(push(&writer, batch(4, &[(5, 10), (5, 10)])), [1, 4], "then 5 and 9 hold most");
    assert_eq!(drain(&mut reader), [0, 2, 3, 5]);
}

#[test]
fn a_load_larger_than_the_ring_keeps_its_newest_part() {
    let (writer, mut reader) = ring(3, 10_000);
    assert_eq!(push(&writer, batch(0, &[(1, 1); 10])), [0, 1, 2, 3, 4, 5, 6]);
    assert_eq!(drain(&mut reader), [7, 8, 9]);

    let (writer, mut reader) = ring(100, 25);
    assert_eq!(push(&writer, batch(0, &[(1, 10); 5])), [0, 1, 2]);
    assert_eq!(writer.counters().bytes, 20);
    assert_eq!(drain(&mut reader), [3, 4]);
}

#[test]
fn an_envelope_larger_than_the_ring_costs_only_its_own_source() {
    let (writer, mut reader) = ring(100, 1_000);
    assert!(push(&writer, batch(0, &[(1, 400), (2, 500)])).is_empty());
    assert_eq!(push(&writer, batch(2, &[(2, 5_000)])), [1, 2]);
    assert_eq!(drain(&mut reader), [0]);
}

#[test]
fn dead_bytes_go_before_envelopes() {
    let (writer, mut reader) = ring(100, 1_000);
    let half = Batch { held: 900, ..batch(0, &[(1, 150), (2, 150), (1, 150)]) };
    assert!(push(&writer, half).is_empty());
    assert_eq!(writer.counters().bytes, 900);
    assert!(push(&writer, batch(3, &[(3, 550)])).is_empty(), "450 dead bytes make room");
    assert_eq!(writer.counters().bytes, 1_000);
    assert_eq!(drain(&mut reader), [0, 1, 2, 3]);
}

#[test]
fn a_load_that_keeps_less_than_a_quarter_is_copied_out() {
    let (writer, mut reader) = ring(100, 100_000);
    let sparse = Batch { held: 404, ..batch(0, &[(1, 50), (2, 50)]) };
    let copies = sparse.copies.clone();
    assert!(push(&writer, sparse).is_empty());
    assert_eq!(writer.counters().bytes, 100);
    let enough = Batch { held: 400, ..batch(2, &[(1, 50), (2, 50)]) };
    assert!(push(&writer, enough).is_empty());
    assert_eq!(writer.counters().bytes, 500);
    assert_eq!(*copies.lock().unwrap(), [100]);
    assert_eq!(drain(&mut reader), [0, 1, 2, 3]);
}

#[test]
fn copies_are_small_after_the_first() {
    let (writer, mut reader) = ring(10_000, 300_000);
    let mixed: Vec<_> = (0..1_000).map(|i| (if i % 2 == 0 { 9_999 } else { i }, 300)).collect();
    let load = batch(0, &mixed);
    let copies = load.copies.clone();
    assert!(push(&writer, load).is_empty());
    assert_eq!(push(&writer, batch(10_000, &[(5_000, 300)])), [0]);
    let first = std::mem::take(&mut *copies.lock().unwrap());
    assert_eq!(first.iter().sum::<usize>(), 999 * 300);
    assert!(first.iter().all(|bytes| *bytes <= PIECE));
    for i in 1..499 {
        assert_eq!(push(&writer, batch(10_000 + i, &[(5_000 + i, 300)])), [2 * i]);
        let copied: usize = std::mem::take(&mut *copies.lock().unwrap()).iter().sum();
        assert!(copied < PIECE, "evicting one envelope copied {copied} bytes");
    }
    // One of the loud source is left, which by now is as quiet as the others.
    let left = (0..1_000).filter(|i| i % 2 == 1 || *i == 998);
    assert_eq!(drain(&mut reader), left.chain(10_000..10_499).collect::<Vec<_>>());
}

#[test]
fn sources_beyond_the_table_count_as_one() {
    let (writer, mut reader) = channel_of(bounds(8, 10_000), 2);
    // 1 and 2 have accounts; 3, 4 and 5 share the remainder and together hold most.
    assert!(push(&writer, batch(0, &[(1, 20), (2, 20), (3, 10), (4, 10), (5, 10), (1, 1), (2, 1), (3, 1)])).is_empty());
    assert_eq!(push(&writer, batch(8, &[(1, 1), (2, 1)])), [2, 0], "the remainder holds 31, then 21 against 22 and 22");
    assert_eq!(drain(&mut reader), [1, 3, 4, 5, 6, 7, 8, 9]);
}

#[test]
fn a_place_in_the_table_is_free_when_its_source_has_left() {
    let (writer, mut reader) = channel_of(bounds(4, 10_000), 1);
    assert!(push(&writer, batch(0, &[(1, 1)])).is_empty());
    assert!(push(&writer, batch(1, &[(2, 5), (3, 5)])).is_empty());
    assert_eq!(reader.try_recv().unwrap().ids(), [0]);
    // 4 gets the place that 1 left; 2 and 3 stay in the remainder, which holds 10 against 8.
    assert_eq!(push(&writer, batch(3, &[(4, 4), (4, 4), (4, 0)])), [1]);
    assert_eq!(drain(&mut reader), [2, 3, 4, 5]);
}

#[test]
fn below_half_there_is_no_table_and_a_quarter_drops_it() {
    let (writer, mut reader) = ring(100, 1_000_000);
    let has_table = |writer: &Writer<Batch>| writer.shared.lock().has_table();
    for i in 0..50 {
        push(&writer, batch(i, &[(i, 1)]));
    }
    assert!(!has_table(&writer), "exactly half");
    push(&writer, batch(50, &[(50, 1)]));
    assert!(has_table(&writer));
    for _ in 0..25 {
        reader.try_recv().unwrap();
    }
    assert!(has_table(&writer), "26 are left");
    reader.try_recv().unwrap();
    assert!(!has_table(&writer), "a quarter is left");
    writer.shared.lock().assert_consistent();
    assert_eq!(drain(&mut reader), (26..51).collect::<Vec<_>>());
}

#[test]
fn loads_forget_what_was_evicted_when_the_table_goes() {
    let (writer, mut reader) = ring(8, 10_000);
    let evens: Vec<_> = (0..8).map(|i| (i % 2, 10 + (i % 2) as usize)).collect();
    push(&writer, batch(0, &evens));
    assert_eq!(push(&writer, batch(8, &[(2, 1), (3, 1)])), [1, 0]);
    assert_eq!(reader.try_recv().unwrap().ids(), [2, 3, 4, 5, 6, 7]);
    assert!(!writer.shared.lock().has_table());
    assert_eq!(drain(&mut reader), [8, 9]);
}

#[test]
fn counters_follow_every_envelope() {
    let (writer, mut reader) = ring(2, 10_000);
    push(&writer, batch(0, &[(1, 10), (1, 10), (2, 10)]));
    let counters = writer.counters();
    assert_eq!((counters.offered, counters.accepted, counters.evicted, counters.envelopes), (3, 3, 1, 2));
    reader.try_recv().unwrap();
    writer.close();
    assert!(writer.is_closed());
    let Err(Closed(back)) = writer.push(batch(3, &[(1, 10), (2, 10)]), |_, _| ()) else { panic!("the ring is closed") };
    assert_eq!(back.ids(), [3, 4]);
    let all = Counters { offered: 5, accepted: 3, rejected: 2, taken: 2, evicted: 1, envelopes: 0, bytes: 0 };
    assert_eq!(reader.counters(), all);
    assert_eq!(reader.try_recv().unwrap_err(), TryRecvError::Closed);
}

#[test]
fn what_is_left_when_the_reader_goes_is_counted() {
    let (writer, reader) = ring(10, 10_000);
    push(&writer, batch(0, &[(1, 10), (2, 10)]));
    drop(reader);
    let all = Counters { offered: 2, accepted: 2, evicted: 2, ..Counters::default() };
    assert_eq!(writer.counters(), all);
    assert!(writer.push(batch(2, &[(1, 10)]), |_, _| ()).is_err());
}

#[test]
fn a_load_without_envelopes_is_nothing() {
    let (writer, mut reader) = ring(10, 100);
    push(&writer, batch(0, &[]));
    assert_eq!(writer.counters(), Counters::default());
    assert_eq!(reader.try_recv().unwrap_err(), TryRecvError::Empty);
}

#[tokio::test]
async fn many_are_received_within_a_limit_and_at_least_one() {
    let (writer, mut reader) = ring(100, 10_000);
    for (first, of) in [(0, vec![(1, 10); 5]), (5, vec![(1, 10); 3]), (8, vec![(1, 10); 2]), (10, vec![(1, 30)])] {
        push(&writer, batch(first, &of));
    }
    let mut loads = Vec::new();
    assert_eq!(reader.recv_many(bounds(4, 10_000), &mut loads).await, 5, "the first is larger, and comes alone");
    assert_eq!(reader.recv_many(bounds(100, 50), &mut loads).await, 5, "3 and 2 are 50 bytes");
    drop(writer);
    assert_eq!(reader.recv_many(bounds(100, 50), &mut loads).await, 1);
    assert_eq!(reader.recv_many(bounds(100, 50), &mut loads).await, 0);
    assert_eq!(loads.iter().flat_map(Batch::ids).collect::<Vec<_>>(), (0..11).collect::<Vec<_>>());
}

#[tokio::test]
async fn a_waiting_reader_is_woken_by_a_load_and_by_the_end() {
    let (writer, mut reader) = ring(100, 10_000);
    let received = async {
        let mut ids = Vec::new();
        while let Some(load) = reader.recv().await {
            ids.extend(load.ids());
        }
        ids
    };
    let sent = async move {
        for i in 0..3 {
            tokio::task::yield_now().await;
            push(&writer, batch(i, &[(1, 1)]));
        }
        tokio::task::yield_now().await;
    };
    let (received, ()) = tokio::join!(received, sent);
    assert_eq!(received, [0, 1, 2]);
}
