//! The fair ring's wake-up and close, in every order in which two threads can meet.

use std::num::NonZeroUsize;

use loom::future::block_on;
use loom::thread;

use super::{Bounds, Load, Reader, Writer, channel};

/// One envelope of one byte.
#[derive(Debug, PartialEq)]
struct One(u64);

impl Load for One {
    fn len(&self) -> usize {
        1
    }
    fn source(&self, _: usize) -> u64 {
        self.0
    }
    fn weight(&self, _: usize) -> usize {
        1
    }
    fn held(&self) -> usize {
        1
    }
    fn retain(&mut self, keep: &mut dyn FnMut(usize) -> bool) {
        assert!(keep(0), "an evicted envelope takes this load with it");
    }
    fn copy_out(&self, _: &[usize]) -> Self {
        Self(self.0)
    }
}

fn ring(envelopes: usize) -> (Writer<One>, Reader<One>) {
    let bound = |n| NonZeroUsize::new(n).expect("positive");
    channel(Bounds { envelopes: bound(envelopes), bytes: bound(1_000) })
}

/// Explores every order with at most five switches away from a thread that could go on, which takes seconds; without a bound, hours.
fn explore(model: impl Fn() + Sync + Send + 'static) {
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound.get_or_insert(5);
    builder.check(model);
}

#[test]
fn every_load_wakes_the_reader() {
    explore(|| {
        let (writer, mut reader) = ring(8);
        let writing = thread::spawn(move || {
            assert!(writer.push(One(1), |_, _| ()).is_ok());
            assert!(writer.push(One(2), |_, _| ()).is_ok());
            writer
        });
        assert_eq!(block_on(reader.recv()), Some(One(1)));
        assert_eq!(block_on(reader.recv()), Some(One(2)));
        drop(writing.join().expect("the writer ends"));
        assert_eq!(block_on(reader.recv()), None);
    });
}

#[test]
fn the_last_writer_to_leave_ends_the_reader() {
    explore(|| {
        let (writer, mut reader) = ring(8);
        let other = writer.clone();
        let writing = thread::spawn(move || assert!(writer.push(One(1), |_, _| ()).is_ok()));
        drop(other);
        assert_eq!(block_on(reader.recv()), Some(One(1)));
        assert_eq!(block_on(reader.recv()), None);
        writing.join().expect("the writer ends");
    });
}

#[test]
fn a_close_ends_the_reader() {
    explore(|| {
        let (writer, mut reader) = ring(8);
        let closer = writer.clone();
        let closing = thread::spawn(move || closer.close());
        let pushed = writer.push(One(1), |_, _| ()).is_ok();
        assert_eq!(block_on(reader.recv()).is_some(), pushed);
        assert_eq!(block_on(reader.recv()), None);
        closing.join().expect("the closer ends");
    });
}

#[test]
fn the_sums_hold_while_the_reader_leaves() {
    explore(|| {
        let (writer, reader) = ring(1);
        let watch = writer.clone();
        let writing = thread::spawn(move || {
            let mut evicted = 0;
            let rejected = (0..2).filter(|i| writer.push(One(*i), |_, _| evicted += 1).is_err()).count();
            (evicted, rejected as u64)
        });
        drop(reader);
        let (evicted, rejected) = writing.join().expect("the writer ends");
        let counters = watch.counters();
        assert_eq!((counters.offered, counters.rejected), (2, rejected));
        assert_eq!(counters.accepted, counters.evicted);
        assert!(counters.evicted >= evicted);
        assert_eq!((counters.envelopes, counters.bytes), (0, 0));
    });
}
