//! The envelopes that a drain has in hand: waiting, under way, or dealt with and not yet let go, as one before them is not.
//!
//! Pure. They enter in order and leave in order; each has a number, by which its answer names it. Bounded by who fills it.

use std::collections::VecDeque;

use bytes::Bytes;
use tokio::time::Instant;

use crate::subscribe::SentAs;

/// What may be under way: envelopes, and their bytes. One larger than that goes alone.
pub(crate) const WINDOW: (usize, usize) = (1024, 1024 * 1024);

/// An envelope in hand.
#[derive(Clone, Debug)]
pub(super) struct Pending {
    pub(super) bytes: Bytes,
    pub(super) subject: String,
    /// What the stream knows repeats by.
    pub(super) id: String,
    pub(super) sent_as: Option<SentAs>,
    pub(super) since: Instant,
    /// When it is given up.
    pub(super) expires: Option<Instant>,
    /// Its place on disk, if it has one.
    pub(super) place: Option<u64>,
    state: State,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Waiting,
    Sent,
    Done,
}

/// All of them.
#[derive(Debug, Default)]
pub(super) struct Window {
    entries: VecDeque<Pending>,
    /// The number of the front.
    first: u64,
    /// No entry before this one waits.
    cursor: usize,
    /// Under way.
    sent: usize,
    bytes: usize,
}

impl Pending {
    pub(super) fn new(
        bytes: Bytes,
        subject: String,
        (id, sent_as): (String, Option<SentAs>),
        since: Instant,
        expires: Option<Instant>,
        place: Option<u64>,
    ) -> Self {
        Self { bytes, subject, id, sent_as, since, expires, place, state: State::Waiting }
    }
}

impl Window {
    pub(super) fn push(&mut self, pending: Pending) {
        self.bytes += pending.bytes.len();
        self.entries.push_back(pending);
    }

    /// Entries, those dealt with too.
    pub(super) fn len(&self) -> usize {
        self.entries.len()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Whether one more may come.
    pub(super) fn has_room(&self) -> bool {
        self.len() < WINDOW.0 && self.bytes < WINDOW.1
    }

    /// How many are under way.
    pub(super) fn under_way(&self) -> usize {
        self.sent
    }

    /// The place on disk of the first that is not dealt with and has one.
    pub(super) fn place(&self) -> Option<u64> {
        self.entries.iter().find_map(|entry| entry.place)
    }

    /// The first that waits, and its number.
    pub(super) fn next(&mut self) -> Option<(u64, &Pending)> {
        while self.entries.get(self.cursor).is_some_and(|entry| entry.state != State::Waiting) {
            self.cursor += 1;
        }
        let number = self.first + self.cursor as u64;
        self.entries.get(self.cursor).map(|entry| (number, entry))
    }

    /// One that waited is under way.
    pub(super) fn sent(&mut self, number: u64) {
        if let Some(entry) = self.at(number).filter(|entry| entry.state == State::Waiting) {
            entry.state = State::Sent;
            self.sent += 1;
        }
    }

    /// One that was under way waits again. False if it was not.
    pub(super) fn again(&mut self, number: u64) -> bool {
        let Some(entry) = self.at(number).filter(|entry| entry.state == State::Sent) else { return false };
        entry.state = State::Waiting;
        self.sent -= 1;
        let at = usize::try_from(number - self.first).unwrap_or(usize::MAX);
        self.cursor = self.cursor.min(at);
        true
    }

    /// Everything that was under way waits again. Returns how many.
    pub(super) fn all_again(&mut self) -> u64 {
        for entry in &mut self.entries {
            if entry.state == State::Sent {
                entry.state = State::Waiting;
            }
        }
        self.cursor = 0;
        std::mem::take(&mut self.sent) as u64
    }

    /// One is dealt with; returns it. `None` if it was so before.
    pub(super) fn done(&mut self, number: u64) -> Option<Pending> {
        let entry = self.at(number).filter(|entry| entry.state != State::Done)?;
        let was_sent = entry.state == State::Sent;
        entry.state = State::Done;
        let done = entry.clone();
        self.sent -= usize::from(was_sent);
        self.let_go();
        Some(done)
    }

    /// Takes out the first that waits.
    pub(super) fn give_up(&mut self) -> Option<Pending> {
        let number = self.next()?.0;
        self.done(number)
    }

    /// Takes out those that wait and have expired at `now`.
    pub(super) fn expired(&mut self, now: Instant) -> Vec<Pending> {
        let late = |entry: &Pending| entry.state == State::Waiting && entry.expires.is_some_and(|at| at <= now);
        let numbers: Vec<u64> =
            (self.first..).zip(&self.entries).filter(|(_, entry)| late(entry)).map(|(number, _)| number).collect();
        numbers.into_iter().filter_map(|number| self.done(number)).collect()
    }

    /// Takes out everything that is not dealt with, in order.
    pub(super) fn drain(&mut self) -> impl Iterator<Item = Pending> {
        let entries = std::mem::take(self).entries;
        entries.into_iter().filter(|entry| entry.state != State::Done)
    }

    fn at(&mut self, number: u64) -> Option<&mut Pending> {
        let at = usize::try_from(number.checked_sub(self.first)?).ok()?;
        self.entries.get_mut(at)
    }

    fn let_go(&mut self) {
        while self.entries.front().is_some_and(|entry| entry.state == State::Done) {
            if let Some(entry) = self.entries.pop_front() {
                self.bytes -= entry.bytes.len();
            }
            self.first += 1;
            self.cursor = self.cursor.saturating_sub(1);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn window(count: u64) -> Window {
        let mut window = Window::default();
        for i in 0..count {
            let bytes = Bytes::from(vec![0; 10]);
            window.push(Pending::new(bytes, String::new(), (i.to_string(), None), Instant::now(), None, Some(i + 1)));
        }
        window
    }

    fn send(window: &mut Window) -> Vec<u64> {
        let mut sent = Vec::new();
        while let Some((number, _)) = window.next() {
            window.sent(number);
            sent.push(number);
        }
        sent
    }

    #[test]
    fn what_is_dealt_with_out_of_order_leaves_in_order() {
        let mut window = window(4);
        assert_eq!(send(&mut window), [0, 1, 2, 3]);
        assert_eq!(window.done(2).unwrap().id, "2");
        assert!(window.done(2).is_none(), "once");
        assert_eq!((window.len(), window.place(), window.under_way()), (4, Some(1), 3));
        window.done(0);
        window.done(1);
        assert_eq!((window.len(), window.place(), window.bytes), (1, Some(4), 10));
        window.done(3);
        assert!(window.is_empty() && window.under_way() == 0 && window.bytes == 0);
        assert!(window.done(3).is_none() && window.done(99).is_none() && !window.again(0));
    }

    #[test]
    fn what_is_refused_or_lost_is_sent_again_in_order() {
        let mut window = window(5);
        send(&mut window);
        window.done(1);
        assert!(window.again(3) && window.again(2) && !window.again(2));
        assert_eq!(send(&mut window), [2, 3]);
        assert_eq!(window.all_again(), 4);
        assert_eq!(send(&mut window), [0, 2, 3, 4], "but not what was dealt with");
        assert_eq!(window.all_again(), 4);
        assert_eq!(window.give_up().unwrap().id, "0");
        assert_eq!(window.drain().map(|pending| pending.id).collect::<Vec<_>>(), ["2", "3", "4"]);
    }

    #[test]
    fn only_what_waits_expires() {
        let mut window = window(3);
        let now = Instant::now();
        window.entries.iter_mut().for_each(|entry| entry.expires = Some(now));
        window.sent(1);
        assert_eq!(window.expired(now).len(), 2);
        assert_eq!((window.len(), window.under_way()), (2, 1));
    }
}
