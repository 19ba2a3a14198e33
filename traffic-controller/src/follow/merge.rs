//! One stream of frames out of those of every doppler.
//!
//! What enters: lanes, and the events on them. What leaves: history merged by timestamp while dopplers still send theirs, then the
//! mark `live` once, then frames as they come. It waits for a doppler that sends history, but a second at most for its next frame; who
//! is later comes out when it comes.
//!
//! **Cursors.** A frame of merged history may end in the middle of some doppler's frame; that doppler's cursor leaves when the last
//! envelope of its frame has. So one who resumes from the cursors it has seen misses nothing, and gets at most one frame of history
//! per doppler again; once live, nothing.

use std::collections::VecDeque;
use std::future::poll_fn;
use std::task::{Context, Poll};
use std::time::Duration;

use proto::hydrant::v1;
use proto::raw::{Batch, wire};
use tokio::sync::mpsc;
use tokio::time::{Instant, timeout_at};

use super::lane::{Event, Lane};

/// How long history waits for a doppler.
const PATIENCE: Duration = Duration::from_secs(1);

/// A frame of merged history is full with this many envelopes, or with this many bytes.
const FRAME_ENVELOPES: usize = 1000;
const FRAME_BYTES: usize = 64 * 1024;

/// Merges the lanes of one consumer.
#[derive(Debug)]
pub(super) struct Merge {
    joining: Option<mpsc::Receiver<Lane>>,
    /// Lanes that have yet to join before history can begin.
    expected: usize,
    began: Instant,
    lanes: Vec<Doppler>,
    /// Which lane is looked at first, so that none is always last.
    first: usize,
    ready: VecDeque<v1::FollowFrame>,
    /// The mark has been sent.
    live: bool,
    history_only: bool,
    ended: bool,
}

#[derive(Debug)]
struct Doppler {
    lane: Lane,
    phase: Phase,
    /// Since when nothing has come.
    quiet: Instant,
    frame: Option<Held>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    /// More of its history is to come: it is waited for.
    History,
    /// Away, late, live or at its end: what comes is taken, nobody waits.
    Open,
}

/// A doppler's frame of which a part has been sent.
#[derive(Debug)]
struct Held {
    batch: Batch,
    next: usize,
    cursor: Option<v1::Cursor>,
}

/// What came: from which lane, what; `None` if the lane has ended.
enum Arrival {
    Joined(Lane),
    NoMoreLanes,
    Event(usize, Option<Event>),
}

impl Merge {
    /// Merges the lanes out of `joining`, of which `expected` come at once, for `request`. First it says that `missing` are.
    pub(super) fn new(
        joining: mpsc::Receiver<Lane>,
        expected: usize,
        missing: Vec<String>,
        request: &v1::FollowRequest,
    ) -> Self {
        let told = (!missing.is_empty()).then(|| v1::FollowFrame { missing, ..v1::FollowFrame::default() });
        Self {
            joining: Some(joining),
            expected,
            began: Instant::now(),
            lanes: Vec::new(),
            first: 0,
            ready: told.into_iter().collect(),
            live: false,
            history_only: request.history_only,
            ended: false,
        }
    }

    /// Waits for the next frame; `None` at the end of history alone, or when no lane can come any more.
    pub(super) async fn next(&mut self) -> Option<v1::FollowFrame> {
        loop {
            if let Some(frame) = self.ready.pop_front() {
                return Some(frame);
            }
            if self.ended {
                return None;
            }
            let waiting = if self.live { None } else { self.waiting_since() };
            if let Some(since) = waiting {
                match timeout_at(since + PATIENCE, self.arrival()).await {
                    Ok(arrival) => self.take(arrival),
                    Err(_) => self.wait_no_longer(since),
                }
            } else if self.lanes.iter().any(|doppler| doppler.frame.is_some()) {
                self.merge();
            } else if !self.live {
                self.live = true;
                self.ended = self.history_only;
                self.ready.push_back(v1::FollowFrame { live: true, ..v1::FollowFrame::default() });
            } else {
                let arrival = self.arrival().await;
                self.take(arrival);
            }
        }
    }

    /// Since when history has been waiting for somebody, if it is.
    fn waiting_since(&self) -> Option<Instant> {
        let joining = (self.expected > 0).then_some(self.began);
        let quiet = self.lanes.iter().filter(|doppler| doppler.is_waited_for()).map(|doppler| doppler.quiet);
        quiet.chain(joining).min()
    }

    /// Goes on without those who have been quiet since `since`.
    fn wait_no_longer(&mut self, since: Instant) {
        if self.expected > 0 && self.began <= since {
            self.expected = 0;
        }
        let mut missing = Vec::new();
        for doppler in self.lanes.iter_mut().filter(|doppler| doppler.is_waited_for() && doppler.quiet <= since) {
            doppler.phase = Phase::Open;
            missing.push(doppler.lane.address.to_string());
        }
        if !missing.is_empty() {
            self.ready.push_back(v1::FollowFrame { missing, ..v1::FollowFrame::default() });
        }
    }

    /// Waits for what comes next on a lane that has nothing waiting here. Cancel safe.
    async fn arrival(&mut self) -> Arrival {
        poll_fn(|cx| self.poll_arrival(cx)).await
    }

    fn poll_arrival(&mut self, cx: &mut Context<'_>) -> Poll<Arrival> {
        if let Some(joining) = &mut self.joining
            && let Poll::Ready(lane) = joining.poll_recv(cx)
        {
            return Poll::Ready(lane.map_or(Arrival::NoMoreLanes, Arrival::Joined));
        }
        let lanes = self.lanes.len();
        for i in (0..lanes).map(|i| (self.first + i) % lanes) {
            let doppler = &mut self.lanes[i];
            if doppler.frame.is_none()
                && let Poll::Ready(event) = doppler.lane.events.poll_recv(cx)
            {
                self.first = i + 1;
                return Poll::Ready(Arrival::Event(i, event));
            }
        }
        Poll::Pending
    }

    fn take(&mut self, arrival: Arrival) {
        match arrival {
            Arrival::Joined(lane) => {
                self.expected = self.expected.saturating_sub(1);
                self.lanes.push(Doppler { lane, phase: Phase::History, quiet: Instant::now(), frame: None });
            }
            Arrival::NoMoreLanes => {
                self.joining = None;
                self.expected = 0;
                self.ended |= self.lanes.is_empty();
            }
            // Its doppler has left the set.
            Arrival::Event(i, None) => {
                self.lanes.remove(i);
                self.ended |= self.lanes.is_empty() && self.joining.is_none();
            }
            Arrival::Event(i, Some(event)) => self.take_event(i, event),
        }
    }

    fn take_event(&mut self, i: usize, event: Event) {
        let doppler = &mut self.lanes[i];
        doppler.quiet = Instant::now();
        let frame = match event {
            Event::Frame(frame) => frame,
            Event::Ended => return doppler.phase = Phase::Open,
            Event::Away => {
                doppler.phase = Phase::Open;
                let missing = vec![doppler.lane.address.to_string()];
                return self.ready.push_back(v1::FollowFrame { missing, ..v1::FollowFrame::default() });
            }
        };
        if frame.live {
            doppler.phase = Phase::Open;
        }
        if self.live || frame.batch.is_empty() {
            let frame = v1::FollowFrame { live: false, ..frame };
            if !frame.batch.is_empty() || frame.gap.is_some() {
                self.ready.push_back(frame);
            }
        } else {
            let batch = Batch::index(frame.batch).0;
            doppler.frame = Some(Held { batch, next: 0, cursor: frame.cursor });
        }
    }

    /// Makes a frame of the envelopes at hand, oldest first, until a doppler is out of history or the frame is full.
    fn merge(&mut self) {
        let mut batch = Vec::new();
        let mut cursors = Vec::new();
        let mut envelopes = 0;
        while envelopes < FRAME_ENVELOPES && batch.len() < FRAME_BYTES {
            let held = self.lanes.iter_mut().filter(|doppler| doppler.frame.is_some());
            let Some(doppler) = held.min_by_key(|doppler| doppler.timestamp()) else { break };
            if let Some(frame) = &mut doppler.frame
                && let Some(entry) = frame.batch.entries().get(frame.next)
            {
                wire::put_bytes(&mut batch, 1, frame.batch.envelope(entry));
                envelopes += 1;
                frame.next += 1;
            }
            if let Some(used_up) = doppler.frame.take_if(|frame| frame.next >= frame.batch.len()) {
                cursors.extend(used_up.cursor);
                doppler.quiet = Instant::now();
                if doppler.phase == Phase::History {
                    break;
                }
            }
        }
        let last = cursors.pop();
        if envelopes > 0 || last.is_some() {
            self.ready.push_back(v1::FollowFrame { batch: batch.into(), cursor: last, ..v1::FollowFrame::default() });
        }
        let only = |cursor| v1::FollowFrame { cursor: Some(cursor), ..v1::FollowFrame::default() };
        self.ready.extend(cursors.into_iter().map(only));
    }
}

impl Doppler {
    fn is_waited_for(&self) -> bool {
        self.phase == Phase::History && self.frame.is_none()
    }

    /// Of its next envelope; the least when there is none, so that an empty frame is put away.
    fn timestamp(&self) -> i64 {
        let held = self.frame.as_ref().and_then(|frame| frame.batch.entries().get(frame.next));
        held.map_or(i64::MIN, |entry| entry.timestamp)
    }
}

#[cfg(test)]
mod tests;
