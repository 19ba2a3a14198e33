//! Who lost how much: losses by source, as they are counted, told and read.
//!
//! What enters: envelopes that a ring had to give up, one by one or summed up. What leaves: one [`Loss`] per source, as a marker in the
//! stream of who lost them ([`Loss::marker`]) or as a counter for who looks after the pipeline ([`Loss::ledger`]).
//!
//! *Invariant*: exact and bounded. So many sources are told apart; what the others lost is one sum, without a source.

use std::collections::HashMap;
use std::ops::Range;
use std::time::{SystemTime, UNIX_EPOCH};

use foldhash::fast::RandomState;
use prost::Message as _;

use crate::hydrant::v1::Gap;
use crate::raw::{Batch, Entry, Selection};
use crate::reason::Reason;
use crate::v2;

/// The title of a marker.
pub const MARKER: &str = "hydrant.gap";

/// The name of the counters that tell of losses, under the source [`SOURCE`].
pub const LEDGER: &str = "lost_envelopes";

/// The source under which the pipeline speaks of itself.
pub const SOURCE: &str = "hydrant";

/// The key of gRPC metadata with which a consumer of v2 streams asks for markers; its value is `true`.
pub const ASKED: &str = "hydrant-gap-markers";

/// Losses by source, and of all sources beyond its bound together. Refilling it allocates nothing.
#[derive(Clone, Debug)]
pub struct Losses {
    bound: usize,
    entries: Vec<Lost>,
    /// The text of all sources, one after the other.
    names: Vec<u8>,
    by_source: HashMap<u64, usize, RandomState>,
    /// Where the last one was found: what is lost comes in runs.
    recent: usize,
    rest: Sum,
}

#[derive(Clone, Debug)]
struct Lost {
    source: u64,
    name: Range<usize>,
    sum: Sum,
}

/// How many envelopes, and between which times by their senders' clocks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Sum {
    envelopes: u64,
    first: i64,
    last: i64,
}

/// What one source has lost, or several together.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Loss {
    /// The source; empty for several.
    pub source_id: String,
    /// Envelopes.
    pub envelopes: u64,
    /// The earliest of their timestamps, nanoseconds since the Unix epoch.
    pub first: i64,
    /// The latest of them.
    pub last: i64,
    /// Why.
    pub reason: Reason,
}

impl Sum {
    fn add(&mut self, more: Self) {
        if self.envelopes == 0 {
            *self = more;
            return;
        }
        self.envelopes += more.envelopes;
        self.first = self.first.min(more.first);
        self.last = self.last.max(more.last);
    }
}

impl Losses {
    /// An empty table for so many sources.
    pub fn new(bound: usize) -> Self {
        let by_source = HashMap::default();
        Self { bound, entries: Vec::new(), names: Vec::new(), by_source, recent: 0, rest: Sum::default() }
    }

    /// True when nothing has been lost.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty() && self.rest.envelopes == 0
    }

    /// Envelopes lost.
    pub fn total(&self) -> u64 {
        self.entries.iter().map(|lost| lost.sum.envelopes).sum::<u64>() + self.rest.envelopes
    }

    /// Adds one envelope of `batch`. O(1).
    pub fn add(&mut self, batch: &Batch, entry: &Entry) {
        let one = Sum { envelopes: 1, first: entry.timestamp, last: entry.timestamp };
        self.add_sum(entry.source, batch.source_id(entry), one);
    }

    /// Adds what another one has.
    pub fn add_all(&mut self, more: &Self) {
        for lost in &more.entries {
            self.add_sum(lost.source, &more.names[lost.name.clone()], lost.sum);
        }
        if more.rest.envelopes > 0 {
            self.rest.add(more.rest);
        }
    }

    fn add_sum(&mut self, source: u64, name: &[u8], sum: Sum) {
        if let Some(recent) = self.entries.get_mut(self.recent)
            && recent.source == source
        {
            recent.sum.add(sum);
            return;
        }
        if let Some(at) = self.by_source.get(&source) {
            self.recent = *at;
            self.entries[*at].sum.add(sum);
            return;
        }
        if self.entries.len() >= self.bound {
            self.rest.add(sum);
            return;
        }
        let begin = self.names.len();
        self.names.extend_from_slice(name);
        self.recent = self.entries.len();
        self.by_source.insert(source, self.recent);
        self.entries.push(Lost { source, name: begin..self.names.len(), sum });
    }

    /// Adds what a peer has told of.
    pub fn add_gap(&mut self, gap: &Gap) {
        let name = gap.source_id.as_bytes();
        let sum = Sum { envelopes: gap.envelopes, first: gap.first_timestamp, last: gap.last_timestamp };
        if name.is_empty() {
            self.rest.add(sum);
        } else {
            self.add_sum(crate::raw::source_hash(name), name, sum);
        }
    }

    /// Forgets everything, and keeps the room for more.
    pub fn clear(&mut self) {
        self.entries.clear();
        self.names.clear();
        self.by_source.clear();
        self.recent = 0;
        self.rest = Sum::default();
    }

    /// Takes out all there is, each source once, those beyond the bound last.
    pub fn take(&mut self, reason: Reason) -> Vec<Loss> {
        let loss = |source_id, Sum { envelopes, first, last }| Loss { source_id, envelopes, first, last, reason };
        let name = |lost: &Lost| String::from_utf8_lossy(&self.names[lost.name.clone()]).into_owned();
        let mut all: Vec<Loss> = self.entries.iter().map(|lost| loss(name(lost), lost.sum)).collect();
        if self.rest.envelopes > 0 {
            all.push(loss(String::new(), self.rest));
        }
        self.clear();
        all
    }
}

/// Losses of subscriptions that have ended, until they are told. So many are kept one by one, of the rest the number alone.
#[derive(Debug, Default)]
pub struct Untold {
    kept: Vec<(String, Loss)>,
    rest: u64,
}

/// Losses that [`Untold`] keeps.
const KEPT: usize = 1024;

impl Untold {
    /// Keeps what `subscription` has lost.
    pub fn add(&mut self, subscription: &str, losses: impl IntoIterator<Item = Loss>) {
        for loss in losses {
            if self.kept.len() < KEPT {
                self.kept.push((subscription.to_owned(), loss));
            } else {
                self.rest += loss.envelopes;
            }
        }
    }

    /// Takes out all there is, with the name of its subscription; what there are no details of comes last, without one.
    pub fn take(&mut self) -> Vec<(String, Loss)> {
        let mut all = std::mem::take(&mut self.kept);
        let rest = std::mem::take(&mut self.rest);
        if rest > 0 {
            all.push((String::new(), Loss { envelopes: rest, ..Loss::unknown(Reason::QueueFull) }));
        }
        all
    }
}

impl Loss {
    /// A loss of nothing yet, of sources that are not known.
    pub fn unknown(reason: Reason) -> Self {
        Self { source_id: String::new(), envelopes: 0, first: 0, last: 0, reason }
    }

    /// The marker that stands in a stream where envelopes are missing: an event of the source that lost them, or of [`SOURCE`] for
    /// several together. `now` is its time, `stage` where they were lost.
    pub fn marker(&self, stage: &str, now: i64) -> v2::Envelope {
        let (source, whose) = match self.source_id.as_str() {
            "" => (SOURCE, "other sources".to_owned()),
            source => (source, source.to_owned()),
        };
        let (envelopes, reason) = (self.envelopes, self.reason.as_str());
        let plural = if envelopes == 1 { "envelope" } else { "envelopes" };
        let body = format!("{envelopes} {plural} of {whose} lost here: {reason} at the {stage}");
        self.tagged(v2::Envelope::event(source, MARKER, body).tag("envelopes", envelopes.to_string()), stage).at(now)
    }

    /// The counter that tells those who look after the pipeline: under [`SOURCE`], with the source, the subscription, the stage and the
    /// reason as tags. `now` is its time.
    pub fn ledger(&self, stage: &str, subscription: &str, now: i64) -> v2::Envelope {
        let counter = v2::Envelope::counter(SOURCE, LEDGER, self.envelopes)
            .tag("lost_source", &self.source_id)
            .tag("subscription", subscription);
        self.tagged(counter, stage).at(now)
    }

    /// The same for a peer.
    pub fn gap(&self) -> Gap {
        Gap {
            source_id: self.source_id.clone(),
            envelopes: self.envelopes,
            reason: self.reason.as_str().to_owned(),
            first_timestamp: self.first,
            last_timestamp: self.last,
        }
    }

    fn tagged(&self, envelope: v2::Envelope, stage: &str) -> v2::Envelope {
        envelope
            .tag("stage", stage)
            .tag("reason", self.reason.as_str())
            .tag("first_timestamp", self.first.to_string())
            .tag("last_timestamp", self.last.to_string())
    }
}

/// Whether a consumer asks for markers in its stream.
pub fn is_asked(metadata: &tonic::metadata::MetadataMap) -> bool {
    metadata.get(ASKED).is_some_and(|value| value == "true")
}

/// Markers of what was lost at `stage`, as a batch to send; `None` where nothing was. `now` is their time.
pub fn markers(losses: &[Loss], stage: &str, now: SystemTime) -> Option<Selection> {
    if losses.is_empty() {
        return None;
    }
    let now = now.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_nanos() as i64);
    let batch = losses.iter().map(|loss| loss.marker(stage, now)).collect();
    Some(Batch::index(v2::EnvelopeBatch { batch }.encode_to_vec().into()).0.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn batch(lines: &[(&str, i64)]) -> Batch {
        let envelopes = lines.iter().map(|(source, at)| v2::Envelope::log(*source, "x").at(*at));
        Batch::index(v2::EnvelopeBatch { batch: envelopes.collect() }.encode_to_vec().into()).0
    }

    fn add(losses: &mut Losses, lines: &[(&str, i64)]) {
        let batch = batch(lines);
        batch.entries().iter().for_each(|entry| losses.add(&batch, entry));
    }

    fn told(losses: &mut Losses) -> Vec<(String, u64, i64, i64)> {
        let all = losses.take(Reason::QueueFull);
        all.into_iter().map(|loss| (loss.source_id, loss.envelopes, loss.first, loss.last)).collect()
    }

    #[test]
    fn it_is_exact_for_so_many_sources_and_for_the_rest_together() {
        let mut losses = Losses::new(2);
        assert!(losses.is_empty());
        add(&mut losses, &[("a", 5), ("a", 3), ("b", 9), ("c", 7), ("a", 4), ("d", -1), ("", 2)]);
        assert_eq!(losses.total(), 7);
        let mut sum = Losses::new(3);
        add(&mut sum, &[("b", 10), ("z", 1)]);
        sum.add_all(&losses);
        sum.add_all(&losses);
        let one = |source: &str, n, first, last| (source.to_owned(), n, first, last);
        assert_eq!(told(&mut losses), [one("a", 3, 3, 5), one("b", 1, 9, 9), one("", 3, -1, 7)]);
        assert!(losses.is_empty() && told(&mut losses).is_empty());
        assert_eq!(told(&mut sum), [one("b", 3, 9, 10), one("z", 1, 1, 1), one("a", 6, 3, 5), one("", 6, -1, 7)]);
    }

    #[test]
    fn what_a_peer_is_told_is_what_was_lost() {
        let mut losses = Losses::new(1);
        add(&mut losses, &[("a", 5), ("b", 6), ("a", 7)]);
        let gaps: Vec<Gap> = losses.take(Reason::QueueFull).iter().map(Loss::gap).collect();
        let mut there = Losses::new(1);
        gaps.iter().for_each(|gap| there.add_gap(gap));
        assert_eq!(there.take(Reason::QueueFull).iter().map(Loss::gap).collect::<Vec<_>>(), gaps);
    }

    #[test]
    fn a_marker_says_whose_how_many_and_why() {
        let loss = Loss { source_id: "app".to_owned(), envelopes: 1, first: 5, last: 6, reason: Reason::QueueFull };
        let marker = loss.marker("doppler", 9);
        let Some(v2::envelope::Message::Event(event)) = &marker.message else { panic!("an event") };
        assert_eq!((marker.source_id.as_str(), marker.timestamp, event.title.as_str()), ("app", 9, MARKER));
        assert_eq!(event.body, "1 envelope of app lost here: queue_full at the doppler");
        let tags = ["envelopes", "first_timestamp", "last_timestamp", "reason", "stage"].map(|key| &*marker.tags[key]);
        assert_eq!(tags, ["1", "5", "6", "queue_full", "doppler"]);
        let several = Loss { source_id: String::new(), envelopes: 2, ..loss };
        assert_eq!(several.marker("doppler", 9).source_id, SOURCE);
        let ledger = several.ledger("doppler", "#3", 9);
        assert_eq!((ledger.source_id.as_str(), &*ledger.tags["subscription"]), (SOURCE, "#3"));
    }
}
