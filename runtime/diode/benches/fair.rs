//! The fair ring: time per envelope offered, for push and take of loads of 100 envelopes of 300 bytes.
//!
//! - `below_half`: push, take.
//! - `above_half`: the same in a ring that is three quarters full, 100 sources in every load.
//! - `overflow/envelopes`: a full ring. Each round pushes a load of one loud source and one of 100 quiet sources, and takes 100
//!   envelopes.
//! - `overflow/bytes`: the same against the bound in bytes, so room is made by whole loads of the loud source.
//! - `overflow/mixed`: the same, but half of every load is of the loud source, so that every load must be copied out.
//! - `overflow/nobody`: the worst case. All 100 sources are equally loud, so what goes is spread over loads that were copied out before.
//!
//! Building the loads is part of the time: an index is shared, as a subscription shares a batch.

use std::hint::black_box;
use std::num::NonZeroUsize;
use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Waker};

use criterion::measurement::WallTime;
use criterion::{BenchmarkGroup, Criterion, Throughput, criterion_group, criterion_main};
use hydrant_diode::fair::{Bounds, Load, Reader, Writer, channel};

const ENVELOPES: usize = 100;
const SIZE: usize = 300;
const LOUD: u64 = 1_000;

/// A batch: shared bytes with a shared index, and what is kept of it.
#[derive(Clone)]
struct Batch {
    bytes: Arc<Vec<u8>>,
    index: Arc<[Entry]>,
    keep: Option<Vec<u32>>,
}

#[derive(Clone, Copy)]
struct Entry {
    start: u32,
    len: u32,
    source: u64,
}

impl Batch {
    fn new(sources: impl Iterator<Item = u64>) -> Self {
        let of = |(i, source)| Entry { start: (i * SIZE) as u32, len: SIZE as u32, source };
        let index: Arc<[Entry]> = sources.enumerate().map(of).collect();
        Self { bytes: vec![0; index.len() * SIZE].into(), index, keep: None }
    }

    fn entry(&self, i: usize) -> &Entry {
        &self.index[self.keep.as_ref().map_or(i, |keep| keep[i] as usize)]
    }
}

impl Load for Batch {
    fn len(&self) -> usize {
        self.keep.as_ref().map_or(self.index.len(), Vec::len)
    }
    fn source(&self, i: usize) -> u64 {
        self.entry(i).source
    }
    fn weight(&self, i: usize) -> usize {
        self.entry(i).len as usize + size_of::<Entry>()
    }
    fn held(&self) -> usize {
        self.bytes.len() + size_of_val::<[Entry]>(&self.index)
    }
    fn retain(&mut self, keep: &mut dyn FnMut(usize) -> bool) {
        let all = self.keep.take().unwrap_or_else(|| (0..self.index.len() as u32).collect());
        self.keep = Some(all.into_iter().enumerate().filter(|(i, _)| keep(*i)).map(|(_, at)| at).collect());
    }
    fn copy_out(&self, kept: &[usize]) -> Self {
        let mut bytes = Vec::with_capacity(kept.iter().map(|i| self.entry(*i).len as usize).sum());
        let copy = |i: &usize| {
            let Entry { start, len, source } = *self.entry(*i);
            let at = bytes.len() as u32;
            bytes.extend_from_slice(&self.bytes[start as usize..(start + len) as usize]);
            Entry { start: at, len, source }
        };
        let index = kept.iter().map(copy).collect();
        Self { bytes: bytes.into(), index, keep: None }
    }
}

fn ring(envelopes: usize, bytes: usize) -> (Writer<Batch>, Reader<Batch>) {
    let bound = |n| NonZeroUsize::new(n).expect("positive");
    channel(Bounds { envelopes: bound(envelopes), bytes: bound(bytes) })
}

fn push(writer: &Writer<Batch>, load: &Batch) {
    writer
        .push(load.clone(), |load, i| {
            black_box(load.entry(i).source);
        })
        .expect("the reader is there");
}

fn fair(criterion: &mut Criterion) {
    let quiet = Batch::new(0..ENVELOPES as u64);
    let loud = Batch::new(std::iter::repeat_n(LOUD, ENVELOPES));
    let mixed = Batch::new((0..ENVELOPES as u64).map(|i| if i % 2 == 0 { LOUD } else { i }));
    let mut group = criterion.benchmark_group("fair");

    group.throughput(Throughput::Elements(ENVELOPES as u64));
    steady(&mut group, "below_half", &quiet, 0);
    steady(&mut group, "above_half", &quiet, 750);

    // 1,000 loads fill either ring.
    let held = 1_000 * quiet.held();
    group.throughput(Throughput::Elements(2 * ENVELOPES as u64));
    overflow(&mut group, "overflow/envelopes", ring(100_000, 10 * held), [&loud, &quiet]);
    overflow(&mut group, "overflow/bytes", ring(10_000_000, held), [&loud, &quiet]);
    overflow(&mut group, "overflow/mixed", ring(10_000_000, held), [&mixed, &mixed]);
    overflow(&mut group, "overflow/nobody", ring(10_000_000, held), [&quiet, &quiet]);
    group.finish();
}

fn steady(group: &mut BenchmarkGroup<'_, WallTime>, name: &str, load: &Batch, depth: usize) {
    let (writer, mut reader) = ring(100_000, 1_000 * load.held());
    (0..depth).for_each(|_| push(&writer, load));
    group.bench_function(name, |bencher| {
        bencher.iter(|| {
            push(&writer, load);
            reader.try_recv()
        });
    });
}

fn overflow(
    group: &mut BenchmarkGroup<'_, WallTime>,
    name: &str,
    (writer, mut reader): (Writer<Batch>, Reader<Batch>),
    loads: [&Batch; 2],
) {
    (0..1_000).for_each(|i| push(&writer, loads[i % 2]));
    let limit = Bounds { envelopes: NonZeroUsize::new(ENVELOPES).expect("positive"), bytes: NonZeroUsize::MAX };
    let mut taken = Vec::new();
    group.bench_function(name, |bencher| {
        bencher.iter(|| {
            push(&writer, loads[0]);
            push(&writer, loads[1]);
            let polled = pin!(reader.recv_many(limit, &mut taken)).poll(&mut Context::from_waker(Waker::noop()));
            assert!(polled.is_ready());
            taken.clear();
        });
        assert!(writer.counters().evicted > 0, "the ring was not full");
    });
}

criterion_group!(benches, fair);
criterion_main!(benches);
