//! Sources end here: every front puts its envelopes to the same [`Intake`].

pub(crate) mod cgroup;
mod datagrams;
pub(crate) mod dropsonde;
pub(crate) mod files;
mod grpc;
pub(crate) mod host;
#[cfg(feature = "nats")]
pub(crate) mod nats;
mod readings;
pub(crate) mod scrape;
pub(crate) mod statsd;
pub(crate) mod syslog;
mod unix;

use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use diode::fair;
use proto::raw::{Batch, Limits, Refused, Selection};
use proto::reason::Reason;
use telemetry::Telemetry;

pub(crate) use grpc::IngressService;
pub use scrape::{ScrapeError, TargetError};
pub use statsd::StatsdError;
pub use syslog::SyslogError;
pub use unix::UnixSocketError;

use crate::forward::Forward;
use crate::limits::Limits as SourceLimits;
use crate::metrics::{Metrics, SourceMetrics};
use crate::parcel::{Parcel, Ticket};
use crate::tag::Tagger;

/// The way into the agent's ring. Cloning shares it.
#[derive(Clone)]
pub(crate) struct Intake {
    tagger: Arc<Tagger>,
    ring: fair::Writer<Parcel>,
    pub(crate) metrics: Metrics,
    /// Who else gets everything.
    forward: Option<Forward>,
    /// Nobody takes what is in the ring.
    only_forwards: bool,
    /// Of the front that has this handle.
    source: SourceMetrics,
    /// What one source may send; nothing limits this process's own.
    limits: Option<Arc<SourceLimits>>,
}

impl std::fmt::Debug for Intake {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Intake").field("ring", &self.ring.counters()).finish_non_exhaustive()
    }
}

impl Intake {
    /// A handle for what this process says itself.
    pub(crate) fn new(tagger: Tagger, ring: fair::Writer<Parcel>, metrics: Metrics, telemetry: &Telemetry) -> Self {
        let source = SourceMetrics::register(telemetry, "hydrant");
        Self { tagger: Arc::new(tagger), ring, metrics, source, limits: None, forward: None, only_forwards: false }
    }

    /// The same ring for what others say: within `limits`.
    pub(crate) fn within(&self, limits: Option<Arc<SourceLimits>>) -> Self {
        Self { limits, ..self.clone() }
    }

    /// The same ring for the front called `source`: what it takes and refuses is counted under that name too.
    pub(crate) fn of(&self, telemetry: &Telemetry, source: &'static str) -> Self {
        Self { source: SourceMetrics::register(telemetry, source), ..self.clone() }
    }

    /// The same, with consumers beside the agent; `only` says that there are no dopplers.
    pub(crate) fn forwarding(self, forward: Option<Forward>, only: bool) -> Self {
        Self { forward, only_forwards: only, ..self }
    }

    /// Closes the rings; returns the envelopes in the dopplers'.
    pub(crate) fn close(&self) -> u64 {
        self.forward.iter().for_each(Forward::close);
        self.ring.close();
        self.resident()
    }

    /// Envelopes in the ring.
    pub(crate) fn resident(&self) -> u64 {
        self.ring.counters().envelopes as u64
    }

    /// Takes a checked batch: counts it, adds what is missing, puts it into the ring.
    pub(crate) fn take(&self, checked: (Batch, Refused)) {
        let (batch, _) = self.count(checked);
        self.put(batch.into());
    }

    /// Counts what came and was lost before it could be read.
    fn lost(&self, reason: Reason, count: u64) {
        self.metrics.stage.received(count);
        self.metrics.stage.dropped(reason.as_str(), count);
        self.source.refused(reason, count);
    }

    /// Counts what came and what was refused of it; gives the rest, tagged.
    fn count(&self, (batch, mut refused): (Batch, Refused)) -> (Selection, Refused) {
        let stage = &self.metrics.stage;
        stage.received(batch.len() as u64 + refused.total());
        self.metrics.received_bytes.increment(batch.wire_len() as u64);
        self.source.taken(batch.len() as u64);
        for (reason, count) in refused.by_reason() {
            stage.dropped(reason.as_str(), count);
            self.source.refused(reason, count);
        }
        let (selection, mapped) = self.tagger.tag(batch);
        self.metrics.origin_mappings.increment(mapped);
        let Some(limits) = &self.limits else { return (selection, refused) };
        let (selection, over) = limits.admit(selection);
        for (reason, count) in over.by_reason() {
            stage.dropped(reason.as_str(), count);
        }
        refused += over;
        (selection, refused)
    }

    /// Whether less than `half` is in the ring.
    fn has_room(&self, half: fair::Bounds) -> bool {
        let counters = self.ring.counters();
        counters.envelopes < half.envelopes.get() && counters.bytes < half.bytes.get()
    }

    fn put(&self, parcel: Parcel) {
        if let Some(forward) = &self.forward {
            let taken = forward.offer(&parcel.selection);
            if self.only_forwards {
                let envelopes = parcel.selection.len() as u64;
                return if taken {
                    self.metrics.stage.delivered(envelopes)
                } else {
                    self.drop_all(&parcel, Reason::NoRoute)
                };
            }
        }
        self.push(parcel);
    }

    fn drop_all(&self, parcel: &Parcel, reason: Reason) {
        self.metrics.stage.dropped(reason.as_str(), parcel.selection.len() as u64);
        if let Some(ticket) = &parcel.ticket {
            (0..parcel.selection.len()).for_each(|i| ticket.drop_one(&parcel.selection, i));
        }
    }

    /// Puts envelopes into the dopplers' ring.
    fn push(&self, parcel: Parcel) {
        let mut evicted = 0;
        let pushed = self.ring.push(parcel, |parcel, i| {
            evicted += 1;
            if let Some(ticket) = &parcel.ticket {
                ticket.drop_one(&parcel.selection, i);
            }
        });
        if evicted > 0 {
            self.metrics.stage.dropped(Reason::QueueFull.as_str(), evicted);
        }
        if let Err(diode::Closed(parcel)) = pushed {
            // The ring closes after the last stream has ended: only a deadline cuts in between.
            self.drop_all(&parcel, Reason::ShutdownDeadline);
        }
    }

    /// Takes one frame of an acknowledged stream. Returns what was refused of it.
    fn take_frame(&self, checked: (Batch, Refused), ticket: impl FnOnce(u64) -> Arc<Ticket>) -> Refused {
        let (selection, refused) = self.count(checked);
        let ticket = ticket(selection.len() as u64);
        self.put(Parcel { selection, ticket: Some(ticket) });
        refused
    }

    /// Takes envelopes again that the ring gave up. They were counted as dropped there, so they count as received once more; their source,
    /// its limits and the consumers beside the agent have had them.
    fn take_again(&self, batch: Batch, ticket: Arc<Ticket>) {
        self.metrics.stage.received(batch.len() as u64);
        self.metrics.received_bytes.increment(batch.wire_len() as u64);
        self.push(Parcel { selection: batch.into(), ticket: Some(ticket) });
    }
}

/// Nanoseconds since the Unix epoch.
pub(crate) fn now_ns() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_nanos()).unwrap_or(i64::MAX)
}

/// A source inside the process, such as its own log. Cloning shares it.
#[derive(Clone, Debug)]
pub struct Local(pub(crate) Intake);

impl Local {
    /// Takes an encoded `EnvelopeBatch`; checked like one from a socket. Never waits.
    pub fn send(&self, batch: bytes::Bytes) {
        self.0.take(Batch::check(batch, &Limits::default()));
    }
}
