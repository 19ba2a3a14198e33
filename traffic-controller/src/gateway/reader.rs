//! What one v2 consumer over HTTP reads, step by step: live out of its ring, or out of the caches of all dopplers, history first.
//!
//! What enters: a subscription, or a stream that follows. What leaves: steps, each of which becomes one message of the consumer's protocol.
//! Never waits for a consumer: what it does not take stays in its ring, or in the caches, and what is lost there becomes a step.

use std::collections::VecDeque;
use std::num::NonZeroUsize;
use std::time::{SystemTime, UNIX_EPOCH};

use diode::fair::Bounds;
use prost::Message as _;
use proto::hydrant::v1;
use proto::loss::{self, Loss};
use proto::raw::tags::Form;
use proto::raw::{Batch, Selection};
use proto::reason::Reason;
use proto::selector::{Rule, Selector};
use proto::v2;

use super::cursor::Place;
use super::request::{Start, Wanted};
use crate::fan_in::{FanIn, Subscription};
use crate::follow::{FollowError, Follower, Following};
use crate::metrics::Metrics;

/// What leaves the ring at once: as JSON twice as much, and once more in the connection's buffer.
const TAKE: Bounds = Bounds {
    envelopes: NonZeroUsize::new(256).expect("not zero"),
    bytes: NonZeroUsize::new(64 * 1024).expect("not zero"),
};

/// What comes next.
pub(super) enum Step {
    /// Envelopes, and how many of them count as delivered by this process.
    Batch(Vec<Selection>, u64),
    /// What is missing here.
    Gap(v1::Gap, &'static str),
    /// History is over.
    Live,
    /// Dopplers that cannot be asked.
    Missing(Vec<String>),
    /// Nothing but that the reader stands somewhere else.
    Place,
}

/// Reads for one consumer.
pub(super) struct Reader {
    from: From,
    /// Taken apart and not yet handed out.
    steps: VecDeque<Step>,
    /// Where it stands; of a live one nobody knows.
    place: Place,
    metrics: Metrics,
    left_over: Reason,
}

enum From {
    Live(Subscription, Vec<Selection>),
    Caches(Box<Following>, Vec<Rule>),
}

/// Opens readers.
pub(super) struct Readers {
    pub(super) fan_in: FanIn,
    pub(super) follower: Follower,
    pub(super) metrics: Metrics,
}

impl Readers {
    /// A reader of `wanted`, which its consumer may read; `markers` says that it wants to know what is missing.
    ///
    /// # Errors
    /// Too many read from the caches, or too many sources are named for that.
    pub(super) fn open(&self, wanted: Wanted, markers: bool) -> Result<Reader, FollowError> {
        let Wanted { egress, sources, start, .. } = wanted;
        let Some(start) = start else {
            let subscription = self.fan_in.subscribe(egress, markers, Some(Form::Preferred));
            let from = From::Live(subscription, Vec::new());
            return Ok(self.reader(from, Place::default()));
        };
        let mut rules: Vec<Rule> =
            egress.selectors.iter().filter_map(Selector::from_wire).map(|selector| selector.rule).collect();
        rules.sort_unstable();
        rules.dedup();
        let (start_time, place) = match start {
            // 0 would be everything.
            Start::At(time) => (if time == 0 { i64::MIN } else { time }, Place::default()),
            Start::After(place) => (0, place),
        };
        let request = v1::FollowRequest {
            source_ids: sources,
            start_time,
            envelope_types: rules.iter().map(|rule| kind(rule).into()).collect(),
            after: place.cursors(),
            history_only: false,
        };
        let from = From::Caches(Box::new(self.follower.open(request)?), rules);
        Ok(self.reader(from, place))
    }

    fn reader(&self, from: From, place: Place) -> Reader {
        let (steps, metrics, left_over) = (VecDeque::new(), self.metrics.clone(), Reason::PeerLost);
        Reader { from, steps, place, metrics, left_over }
    }
}

impl Reader {
    /// Waits for the next step; `None` when the server is stopping and everything has been taken.
    ///
    /// # Cancel safety
    /// Nothing is taken but by the poll that returns it.
    pub(super) async fn next(&mut self) -> Option<Step> {
        loop {
            if let Some(step) = self.steps.pop_front() {
                return Some(step);
            }
            match &mut self.from {
                From::Live(subscription, taken) => {
                    let ended = subscription.take(TAKE, taken).await == 0;
                    let lost = subscription.gaps();
                    self.steps.extend(lost.iter().map(|loss| Step::Gap(loss.gap(), "traffic_controller")));
                    if ended {
                        // What was lost last is told too.
                        return self.steps.pop_front();
                    }
                    let parts: Vec<Selection> = taken.drain(..).map(|part| subscription.in_form(&part)).collect();
                    let count = parts.iter().map(Selection::len).sum::<usize>() as u64;
                    self.steps.push_back(Step::Batch(parts, count));
                }
                From::Caches(following, rules) => {
                    let frame = following.next().await?;
                    self.place.take(&frame, rules, &mut self.steps);
                }
            }
        }
    }

    /// Where it stands after the last step, as a text to come back with; `None` when it cannot come back.
    pub(super) fn place(&self) -> Option<String> {
        (!self.place.is_unknown()).then(|| self.place.text())
    }

    /// The consumer has gone: what it has not taken counts as dropped for `reason` instead of as lost with the peer.
    pub(super) fn cut(mut self, reason: Reason) {
        self.left_over = reason;
        if let From::Live(subscription, _) = &mut self.from {
            subscription.count_left_as(reason);
        }
    }
}

impl Drop for Reader {
    fn drop(&mut self) {
        let counted = |step: &Step| if let Step::Batch(_, counted) = step { *counted } else { 0 };
        self.metrics.dropped(self.left_over, self.steps.iter().map(counted).sum());
    }
}

impl Place {
    /// Takes a frame apart, and goes on to where it ends.
    fn take(&mut self, frame: &v1::FollowFrame, rules: &[Rule], steps: &mut VecDeque<Step>) {
        if let Some(gap) = &frame.gap {
            let stage = if gap.reason.is_empty() { "cache" } else { "doppler" };
            steps.push_back(Step::Gap(gap.clone(), stage));
        }
        if !frame.missing.is_empty() {
            steps.push_back(Step::Missing(frame.missing.clone()));
        }
        let moved = frame.cursor.is_some();
        if let Some(cursor) = frame.cursor.clone() {
            self.advance(cursor);
        }
        let mut whole = Selection::from(Batch::index(frame.batch.clone()).0);
        if !rules.iter().all(Rule::is_whole_kind) {
            let batch = whole.batch().clone();
            let wanted = |at: usize| {
                let entry = &batch.entries()[at];
                rules.iter().any(|rule| rule.kind() == entry.kind && rule.admits(batch.envelope(entry)))
            };
            whole.retain(wanted);
        }
        match whole.is_empty() {
            false => steps.push_back(Step::Batch(vec![Form::Preferred.convert(&whole)], 0)),
            true if moved => steps.push_back(Step::Place),
            true => {}
        }
        if frame.live {
            steps.push_back(Step::Live);
        }
    }
}

fn kind(rule: &Rule) -> proto::logcache::v1::EnvelopeType {
    use proto::logcache::v1::EnvelopeType;
    match rule {
        Rule::Log => EnvelopeType::Log,
        Rule::Counter(_) => EnvelopeType::Counter,
        Rule::Gauge(_) => EnvelopeType::Gauge,
        Rule::Timer => EnvelopeType::Timer,
        Rule::Event => EnvelopeType::Event,
    }
}

/// About the room that `parts` take as JSON.
pub(super) fn json_room(parts: &[Selection]) -> usize {
    parts.iter().flat_map(Selection::entries).map(|entry| 192 + 2 * entry.size()).sum()
}

/// A marker envelope for `gap`, for consumers whose protocol has nothing but envelopes.
pub(super) fn marker(gap: &v1::Gap, stage: &str) -> Selection {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let now = i64::try_from(now.as_nanos()).unwrap_or(i64::MAX);
    let loss = |reason| Loss {
        source_id: gap.source_id.clone(),
        envelopes: gap.envelopes,
        first: gap.first_timestamp,
        last: gap.last_timestamp,
        reason,
    };
    let reason = Reason::ALL.into_iter().find(|reason| reason.as_str() == gap.reason);
    let marker = match reason {
        Some(reason) => loss(reason).marker(stage, now),
        None => {
            let source = if gap.source_id.is_empty() { loss::SOURCE } else { &gap.source_id };
            let body = format!("{} envelopes of {source} left the cache before they could be sent", gap.envelopes);
            v2::Envelope::event(source, loss::MARKER, body).tag("envelopes", gap.envelopes.to_string()).at(now)
        }
    };
    Batch::index(v2::EnvelopeBatch { batch: vec![marker] }.encode_to_vec().into()).0.into()
}

#[cfg(test)]
mod tests {
    use proto::raw::wire;

    use super::*;

    fn frame(envelopes: &[v2::Envelope], cursor: Option<u64>) -> v1::FollowFrame {
        let mut batch = Vec::new();
        envelopes.iter().for_each(|envelope| wire::put_bytes(&mut batch, 1, &envelope.encode_to_vec()));
        let cursor = cursor.map(|sequence| v1::Cursor { doppler: "d".to_owned(), epoch: 1, sequence });
        v1::FollowFrame { batch: batch.into(), cursor, ..v1::FollowFrame::default() }
    }

    fn steps(frame: &v1::FollowFrame, rules: &[Rule]) -> Vec<String> {
        let (mut place, mut steps) = (Place::default(), VecDeque::new());
        place.take(frame, rules, &mut steps);
        let show = |step: Step| match step {
            Step::Batch(parts, counted) => format!("{} of {counted}", parts[0].len()),
            Step::Gap(gap, stage) => format!("gap {} {stage}", gap.envelopes),
            Step::Live => "live".to_owned(),
            Step::Missing(who) => format!("missing {}", who.join(",")),
            Step::Place => "place".to_owned(),
        };
        steps.into_iter().map(show).collect()
    }

    #[test]
    fn a_frame_becomes_what_a_consumer_is_told_in_order() {
        let one = frame(&[v2::Envelope::log("a", "x")], Some(1));
        let gap = Some(v1::Gap { envelopes: 7, ..v1::Gap::default() });
        let all = v1::FollowFrame { gap, live: true, missing: vec!["e".to_owned()], ..one };
        assert_eq!(steps(&all, &[Rule::Log]), ["gap 7 cache", "missing e", "1 of 0", "live"]);
        let live = v1::FollowFrame { live: true, ..v1::FollowFrame::default() };
        assert_eq!(steps(&live, &[Rule::Log]), ["live"]);
    }

    #[test]
    fn names_are_picked_out_and_a_frame_of_others_moves_the_place_all_the_same() {
        let some = frame(&[v2::Envelope::counter("a", "x", 1), v2::Envelope::counter("a", "y", 1)], Some(2));
        assert_eq!(steps(&some, &[Rule::Counter(Some("x".into()))]), ["1 of 0"]);
        assert_eq!(steps(&some, &[Rule::Counter(Some("z".into()))]), ["place"]);
    }
}
