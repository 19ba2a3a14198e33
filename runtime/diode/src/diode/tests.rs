//! The diode against a naive model, and its life cycle.

use std::collections::VecDeque;

use proptest::prelude::*;

use super::*;

fn of<T>(capacity: usize) -> (Writer<T>, Reader<T>) {
    channel(NonZeroUsize::new(capacity).unwrap())
}

#[test]
fn a_full_diode_gives_back_its_oldest() {
    let (writer, mut reader) = of(2);
    assert_eq!(writer.push('a'), Ok(None));
    assert_eq!(writer.push('b'), Ok(None));
    assert_eq!(writer.push('c'), Ok(Some('a')));
    assert_eq!((writer.len(), writer.capacity()), (2, 2));
    assert_eq!(reader.try_recv(), Ok('b'));
    assert_eq!(reader.try_recv(), Ok('c'));
    assert_eq!(reader.try_recv(), Err(TryRecvError::Empty));
}

#[tokio::test]
async fn the_reader_drains_then_ends_when_the_writers_are_gone() {
    let (writer, mut reader) = of(4);
    let other = writer.clone();
    assert_eq!(writer.push(1), Ok(None));
    drop(writer);
    assert_eq!(other.push(2), Ok(None));
    drop(other);
    assert_eq!(reader.recv().await, Some(1));
    assert_eq!(reader.recv().await, Some(2));
    assert_eq!(reader.recv().await, None);
    assert_eq!(reader.try_recv(), Err(TryRecvError::Closed));
}

#[test]
fn a_writer_gets_its_item_back_when_the_reader_is_gone() {
    let (writer, reader) = of(4);
    assert_eq!(writer.push(1), Ok(None));
    drop(reader);
    assert_eq!(writer.push(2), Err(Closed(2)));
    assert_eq!(writer.len(), 0, "what was inside went with the reader");
}

#[tokio::test]
async fn a_closed_reader_receives_what_is_inside() {
    let (writer, mut reader) = of(4);
    assert_eq!(writer.push(1), Ok(None));
    reader.close();
    assert_eq!(writer.push(2), Err(Closed(2)));
    assert_eq!(reader.recv().await, Some(1));
    assert_eq!(reader.recv().await, None);
}

#[tokio::test]
async fn a_waiting_reader_is_woken_by_an_item_and_by_the_end() {
    let (writer, mut reader) = of(4);
    let received = async {
        let mut all = Vec::new();
        while let Some(item) = reader.recv().await {
            all.push(item);
        }
        all
    };
    let sent = async move {
        for i in 0..3 {
            tokio::task::yield_now().await;
            assert_eq!(writer.push(i), Ok(None));
        }
        tokio::task::yield_now().await;
    };
    let (received, ()) = tokio::join!(received, sent);
    assert_eq!(received, [0, 1, 2]);
}

#[tokio::test]
async fn a_receive_that_is_dropped_takes_nothing() {
    let (writer, mut reader) = of(4);
    {
        let mut waiting = std::pin::pin!(reader.recv());
        assert!(std::future::poll_fn(|cx| Poll::Ready(waiting.as_mut().poll(cx).is_pending())).await);
        assert_eq!(writer.push(1), Ok(None));
    }
    assert_eq!(reader.recv().await, Some(1));
}

proptest! {
    /// Items leave in order, and each is received or given back, as a plain bounded list would do it.
    #[test]
    fn behaves_as_a_list(capacity in 1_usize..8, pushes in prop::collection::vec(any::<bool>(), 0..200)) {
        let (writer, mut reader) = of(capacity);
        let mut model = VecDeque::new();
        for (i, push) in pushes.into_iter().enumerate() {
            if push {
                let displaced = if model.len() == capacity { model.pop_front() } else { None };
                model.push_back(i);
                prop_assert_eq!(writer.push(i), Ok(displaced));
            } else {
                prop_assert_eq!(reader.try_recv().ok(), model.pop_front());
            }
            prop_assert_eq!(reader.len(), model.len());
        }
    }
}
