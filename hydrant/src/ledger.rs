//! Who lost how much, as the pipeline tells it: counters `lost_envelopes` of the source `hydrant`, summed up.
//!
//! What enters: envelopes out of the caches. What leaves: one sum for each stage, source, consumer and reason.
//!
//! *Invariant*: exact as far as it is told, and bounded: what exceeds [`ROWS`] is one sum for each reason.

use std::collections::BTreeMap;

use anyhow::anyhow;
use proto::hydrant::v1::FollowRequest;
use proto::hydrant::v1::follow_client::FollowClient;
use proto::loss::{LEDGER, SOURCE};
use proto::v2;
use proto::v2::envelope::Message;
use tonic::Code;
use tonic::transport::Channel;
use transport::reason;

use crate::cli::Failure;
use crate::client::MAX;
use crate::filter::Kind;
use crate::tail::stream::{self, Event};
use crate::token::Bearer;

/// Losses told apart.
const ROWS: usize = 100_000;

/// Whose loss it is, and why. Empty where it is of several together.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Of {
    /// Where it happened.
    pub(crate) stage: String,
    pub(crate) source: String,
    /// Who did not get it.
    pub(crate) consumer: String,
    pub(crate) reason: String,
}

/// How many, and between which times by their senders' clocks, in nanoseconds since the Unix epoch; 0 where it is not known.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Lost {
    pub(crate) envelopes: u64,
    pub(crate) first: i64,
    pub(crate) last: i64,
}

/// All that has been told.
#[derive(Clone, Debug, Default)]
pub(crate) struct Ledger {
    rows: BTreeMap<Of, Lost>,
    /// Envelopes of the source `hydrant` that were evicted before they could be read: some may have told of losses.
    pub(crate) unread: u64,
}

impl Lost {
    /// Adds another sum.
    pub(crate) fn add(&mut self, more: Self) {
        self.envelopes = self.envelopes.saturating_add(more.envelopes);
        if more.first != 0 && (self.first == 0 || more.first < self.first) {
            self.first = more.first;
        }
        self.last = self.last.max(more.last);
    }
}

impl Ledger {
    /// Adds what an envelope tells, if it tells of a loss.
    pub(crate) fn add(&mut self, envelope: &v2::Envelope) {
        let Some(Message::Counter(counter)) = &envelope.message else { return };
        if counter.name != LEDGER || envelope.source_id != SOURCE {
            return;
        }
        let tag = |name: &str| envelope.tags.get(name).cloned().unwrap_or_default();
        let time = |name: &str| tag(name).parse().unwrap_or(0);
        let lost = Lost { envelopes: counter.delta, first: time("first_timestamp"), last: time("last_timestamp") };
        let mut of = Of {
            stage: tag("stage"),
            source: tag("lost_source"),
            consumer: tag("subscription"),
            reason: tag("reason"),
        };
        if self.rows.len() >= ROWS && !self.rows.contains_key(&of) {
            of = Of { stage: of.stage, reason: of.reason, ..Of::default() };
        }
        self.rows.entry(of).or_default().add(lost);
    }

    /// Each loss, by stage, source, consumer and reason.
    pub(crate) fn rows(&self) -> impl Iterator<Item = (&Of, &Lost)> {
        self.rows.iter()
    }

    /// What a source has lost.
    pub(crate) fn by_source(&self) -> BTreeMap<&str, u64> {
        let mut sums = BTreeMap::new();
        for (of, lost) in &self.rows {
            let sum: &mut u64 = sums.entry(of.source.as_str()).or_default();
            *sum = sum.saturating_add(lost.envelopes);
        }
        sums
    }

    /// Asks for all that was told since `since`, nanoseconds since the Unix epoch.
    ///
    /// # Errors
    /// It cannot be asked. `None` when this caller may not read what the pipeline says about itself.
    pub(crate) async fn read(connection: (Channel, Bearer), since: i64) -> Result<Option<Self>, Failure> {
        let mut ledger = Self::default();
        let read = own(connection, since, Kind::Counter, |envelope| ledger.add(envelope)).await?;
        Ok(read.map(|unread| Self { unread, ..ledger }))
    }
}

/// Reads what is held of the pipeline's own source; gives the number of envelopes that were evicted meanwhile, or `None` when this caller
/// may not read it.
pub(crate) async fn own(
    (channel, bearer): (Channel, Bearer),
    since: i64,
    kind: Kind,
    mut take: impl FnMut(&v2::Envelope),
) -> Result<Option<u64>, Failure> {
    let client = FollowClient::with_interceptor(channel, bearer).max_decoding_message_size(MAX);
    let request = FollowRequest {
        source_ids: vec![SOURCE.to_owned()],
        start_time: since,
        envelope_types: vec![kind.wire().into()],
        history_only: true,
        ..FollowRequest::default()
    };
    let (events, mut received) = stream::queue();
    let mut unread = 0;
    let reading = stream::read(client, request, events);
    let taking = async {
        while let Some(event) = received.recv().await {
            match event {
                Event::Frame(envelopes, gap) => {
                    unread += gap.map_or(0, |gap| gap.envelopes);
                    envelopes.iter().for_each(&mut take);
                }
                Event::Refused(status) if matches!(status.code(), Code::NotFound | Code::PermissionDenied) => {
                    return Ok(None);
                }
                Event::Refused(status) => {
                    return Err(Failure::Failed(anyhow!("the traffic controller refused: {}", reason(&status))));
                }
                Event::Away(why) => {
                    return Err(Failure::Failed(anyhow!("the traffic controller went away ({why}); try again")));
                }
                Event::Unreadable | Event::Missing(_) | Event::Live | Event::Back => {}
            }
        }
        Ok(Some(()))
    };
    let ((), taken) = tokio::join!(reading, taking);
    Ok(taken?.map(|()| unread))
}

#[cfg(test)]
mod tests {
    use proto::loss::Loss;
    use proto::reason::Reason;

    use super::*;

    fn told(source: &str, consumer: &str, envelopes: u64, first: i64, last: i64) -> v2::Envelope {
        let loss = Loss { source_id: source.to_owned(), envelopes, first, last, reason: Reason::QueueFull };
        loss.ledger("doppler", consumer, 9)
    }

    #[test]
    fn what_is_told_is_summed_up_to_the_envelope() {
        let mut ledger = Ledger::default();
        for envelope in [
            told("app", "#1", 5, 30, 40),
            told("app", "#1", 7, 20, 35),
            told("app", "#2", 1, 1, 1),
            told("", "", 3, 0, 0),
            v2::Envelope::counter(SOURCE, "other", 99),
            v2::Envelope::counter("liar", LEDGER, 99),
            v2::Envelope::log(SOURCE, LEDGER),
        ] {
            ledger.add(&envelope);
        }
        let rows: Vec<_> = ledger.rows().map(|(of, lost)| (of.consumer.as_str(), *lost)).collect();
        let lost = |envelopes, first, last| Lost { envelopes, first, last };
        assert_eq!(rows, [("", lost(3, 0, 0)), ("#1", lost(12, 20, 40)), ("#2", lost(1, 1, 1))]);
        assert_eq!(ledger.by_source().into_iter().collect::<Vec<_>>(), [("", 3), ("app", 13)]);
    }
}
