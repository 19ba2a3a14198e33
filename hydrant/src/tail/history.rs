//! The history of several streams, each in the order of time, as one; or the last lines of it. Pure.
//!
//! What enters: envelopes of streams that still send what was held. What leaves: the oldest of all heads, once there is one of every
//! stream; or, when only the last so many of each source are wanted, those, when all of it has come.
//!
//! *Invariant*: a stream that is far ahead is not read ([`History::wants`]), so that little is held here.

use std::collections::{HashMap, VecDeque};

use proto::v2;

/// A stream of which so many wait is not read on.
const AHEAD: usize = 4096;

/// Merges history until every stream has sent it all.
#[derive(Debug)]
pub(super) struct History {
    streams: Vec<Stream>,
    /// Of each source, how many lines are wanted.
    last: Option<usize>,
    tails: HashMap<String, VecDeque<v2::Envelope>>,
}

#[derive(Debug, Default)]
struct Stream {
    waiting: VecDeque<v2::Envelope>,
    over: bool,
}

impl History {
    /// Of so many streams; of each source the `last` lines, or everything.
    pub(super) fn new(streams: usize, last: Option<usize>) -> Self {
        Self { streams: (0..streams).map(|_| Stream::default()).collect(), last, tails: HashMap::new() }
    }

    /// Whether to read on from a stream.
    pub(super) fn wants(&self, stream: usize) -> bool {
        self.streams.get(stream).is_none_or(|stream| stream.waiting.len() < AHEAD)
    }

    /// Takes what a stream has sent.
    pub(super) fn push(&mut self, stream: usize, envelopes: Vec<v2::Envelope>) {
        let Some(last) = self.last else {
            if let Some(stream) = self.streams.get_mut(stream) {
                stream.waiting.extend(envelopes);
            }
            return;
        };
        for envelope in envelopes {
            let tail = match self.tails.get_mut(&envelope.source_id) {
                Some(tail) => tail,
                None => self.tails.entry(envelope.source_id.clone()).or_default(),
            };
            tail.push_back(envelope);
            if tail.len() > last {
                tail.pop_front();
            }
        }
    }

    /// A stream has sent all that was held, or is not waited for.
    pub(super) fn over(&mut self, stream: usize) {
        if let Some(stream) = self.streams.get_mut(stream) {
            stream.over = true;
        }
    }

    /// Whether all streams have, and everything has been taken out.
    pub(super) fn is_over(&self) -> bool {
        let done = |stream: &Stream| stream.over && stream.waiting.is_empty();
        self.streams.iter().all(done) && self.tails.is_empty()
    }

    /// Takes out what can be shown.
    pub(super) fn ready(&mut self) -> Vec<v2::Envelope> {
        let mut ready = Vec::new();
        if self.streams.iter().all(|stream| stream.over) {
            ready.extend(self.tails.drain().flat_map(|(_, tail)| tail));
            ready.sort_by_key(|envelope| envelope.timestamp);
        }
        if let [only] = &mut self.streams[..] {
            ready.extend(only.waiting.drain(..));
            return ready;
        }
        while self.streams.iter().all(|stream| stream.over || !stream.waiting.is_empty()) {
            let heads = self.streams.iter_mut().filter(|stream| !stream.waiting.is_empty());
            let Some(oldest) = heads.min_by_key(|stream| stream.waiting[0].timestamp) else { break };
            ready.extend(oldest.waiting.pop_front());
        }
        ready
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(source: &str, times: &[i64]) -> Vec<v2::Envelope> {
        times.iter().map(|at| v2::Envelope::log(source, "x").at(*at)).collect()
    }

    fn times(envelopes: &[v2::Envelope]) -> Vec<i64> {
        envelopes.iter().map(|envelope| envelope.timestamp).collect()
    }

    #[test]
    fn streams_are_merged_as_far_as_all_have_come() {
        let mut history = History::new(2, None);
        history.push(0, lines("a", &[1, 4, 9]));
        assert!(history.ready().is_empty());
        history.push(1, lines("b", &[2, 5]));
        assert_eq!(times(&history.ready()), [1, 2, 4, 5]);
        history.over(1);
        assert_eq!(times(&history.ready()), [9]);
        assert!(!history.is_over());
        history.over(0);
        assert!(history.is_over() && history.ready().is_empty());
    }

    #[test]
    fn the_last_lines_of_each_source_come_when_all_is_known() {
        let mut history = History::new(2, Some(2));
        history.push(0, lines("a", &[1, 4, 9]));
        history.push(1, lines("b", &[2, 5, 6, 7]));
        history.over(0);
        assert!(history.ready().is_empty());
        history.over(1);
        assert!(!history.is_over());
        assert_eq!(times(&history.ready()), [4, 6, 7, 9]);
        assert!(history.is_over());
        let mut none = History::new(1, Some(0));
        none.push(0, lines("a", &[1]));
        none.over(0);
        assert!(none.ready().is_empty() && none.is_over());
    }

    #[test]
    fn a_stream_far_ahead_is_not_read() {
        let mut history = History::new(2, None);
        assert!(history.wants(0) && history.wants(7));
        history.push(0, lines("a", &[0; AHEAD]));
        assert!(!history.wants(0) && history.wants(1));
    }
}
