//! The primitives under both queues: the real ones, and under `cfg(loom)` those that loom can explore.
//!
//! Nothing here has behaviour of its own. The stand-in for crossbeam's queue is a mutex around a `VecDeque`: what is modelled is the
//! wake-up and the close around it, not crossbeam.

pub(crate) use self::imp::{Arc, ArrayQueue, AtomicBool, AtomicUsize, Mutex, fence};
pub(crate) use std::sync::atomic::Ordering;

#[cfg(not(loom))]
mod imp {
    pub(crate) use crossbeam::queue::ArrayQueue;
    pub(crate) use parking_lot::Mutex;
    pub(crate) use std::sync::Arc;
    pub(crate) use std::sync::atomic::{AtomicBool, AtomicUsize, fence};
}

#[cfg(loom)]
mod imp {
    pub(crate) use loom::sync::Arc;
    pub(crate) use loom::sync::MutexGuard;
    pub(crate) use loom::sync::atomic::{AtomicBool, AtomicUsize, fence};
    use std::collections::VecDeque;

    pub(crate) struct Mutex<T>(loom::sync::Mutex<T>);

    impl<T> Mutex<T> {
        pub(crate) fn new(value: T) -> Self {
            Self(loom::sync::Mutex::new(value))
        }

        pub(crate) fn lock(&self) -> MutexGuard<'_, T> {
            self.0.lock().expect("a model that panicked is over")
        }
    }

    pub(crate) struct ArrayQueue<T> {
        capacity: usize,
        items: Mutex<VecDeque<T>>,
    }

    impl<T> ArrayQueue<T> {
        pub(crate) fn new(capacity: usize) -> Self {
            Self { capacity, items: Mutex::new(VecDeque::new()) }
        }

        pub(crate) fn force_push(&self, item: T) -> Option<T> {
            let mut items = self.items.lock();
            let displaced = if items.len() == self.capacity { items.pop_front() } else { None };
            items.push_back(item);
            displaced
        }

        pub(crate) fn pop(&self) -> Option<T> {
            self.items.lock().pop_front()
        }

        pub(crate) fn len(&self) -> usize {
            self.items.lock().len()
        }

        pub(crate) fn capacity(&self) -> usize {
            self.capacity
        }
    }
}
