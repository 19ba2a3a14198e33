//! The diode's wake-up and close, in every order in which two threads can meet.

use std::num::NonZeroUsize;

use loom::future::block_on;
use loom::thread;

use super::{Closed, channel};

/// Explores every order with at most five switches away from a thread that could go on, which takes seconds; without a bound, hours.
fn explore(model: impl Fn() + Sync + Send + 'static) {
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound.get_or_insert(5);
    builder.check(model);
}

#[test]
fn every_item_wakes_the_reader() {
    explore(|| {
        let (writer, mut reader) = channel(NonZeroUsize::new(4).expect("positive"));
        let writing = thread::spawn(move || {
            assert_eq!(writer.push(1), Ok(None));
            assert_eq!(writer.push(2), Ok(None));
            writer
        });
        assert_eq!(block_on(reader.recv()), Some(1));
        assert_eq!(block_on(reader.recv()), Some(2));
        drop(writing.join().expect("the writer ends"));
        assert_eq!(block_on(reader.recv()), None);
    });
}

#[test]
fn the_last_writer_to_leave_ends_the_reader() {
    explore(|| {
        let (writer, mut reader) = channel(NonZeroUsize::new(2).expect("positive"));
        let other = writer.clone();
        let writing = thread::spawn(move || {
            assert_eq!(writer.push(1), Ok(None));
        });
        drop(other);
        assert_eq!(block_on(reader.recv()), Some(1));
        assert_eq!(block_on(reader.recv()), None);
        writing.join().expect("the writer ends");
    });
}

#[test]
fn what_is_displaced_is_given_back_once() {
    explore(|| {
        let (writer, mut reader) = channel(NonZeroUsize::new(1).expect("positive"));
        let writing =
            thread::spawn(move || (1..=2).filter_map(|i| writer.push(i).expect("the reader is there")).count());
        let mut received = 0;
        while block_on(reader.recv()).is_some() {
            received += 1;
        }
        assert_eq!(received + writing.join().expect("the writer ends"), 2);
    });
}

#[test]
fn nothing_is_left_behind_by_a_close() {
    explore(|| {
        let (writer, mut reader) = channel(NonZeroUsize::new(1).expect("positive"));
        let writing = thread::spawn(move || {
            let mut back = 0;
            for i in 0..2 {
                match writer.push(i) {
                    Ok(displaced) => back += usize::from(displaced.is_some()),
                    Err(Closed(_)) => back += 1,
                }
            }
            back
        });
        reader.close();
        let mut received = 0;
        while block_on(reader.recv()).is_some() {
            received += 1;
        }
        // A writer that was under way may still have put one in, which it takes out again: then nobody has seen it twice or never.
        let back = writing.join().expect("the writer ends");
        assert_eq!(received + back + reader.len(), 2);
        assert_eq!(reader.len(), 0);
    });
}
