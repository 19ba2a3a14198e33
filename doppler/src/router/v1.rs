//! Between v2 and v1: which envelopes of a batch are made in the other version, and those only.

use bytes::{Bytes, BytesMut};
use prost::Message as _;
use proto::events;
use proto::raw::{Batch, Entry, Kind, Limits, Refused};
use proto::reason::Reason;
use proto::v1::{self, Converted, Decoded, Payload};
use proto::v2::EnvelopeBatch;
use telemetry::StageMetrics;

use crate::subscriptions::Wanted;

/// v1 payloads made of v2 envelopes, and for each the position of its envelope.
#[derive(Debug, Default)]
pub(super) struct Made {
    pub(super) payloads: Vec<Payload>,
    pub(super) origins: Vec<u32>,
}

impl Made {
    /// Makes the v1 payloads of those envelopes that a v1 subscriber may want. What has no v1 form is counted once, however many want
    /// it.
    pub(super) fn of(&mut self, batch: &Batch, wanted: &Wanted<'_>, stage: &StageMetrics) {
        let system = wanted.kinds(v1::SYSTEM.as_bytes());
        let (mut without_form, mut malformed) = (0, 0);
        let mut run = None;
        for (at, entry) in batch.entries().iter().enumerate() {
            let own = match run {
                Some((source, own)) if source == entry.source => own,
                _ => wanted.kinds(batch.source_id(entry)),
            };
            run = Some((entry.source, own));
            if !may_want(batch, entry, (own, system), wanted) {
                continue;
            }
            match v1::to_v1(batch.envelope_bytes(entry), &mut self.payloads) {
                Converted::Payloads(payloads) => self.origins.extend(std::iter::repeat_n(at as u32, payloads)),
                Converted::NoForm => without_form += 1,
                Converted::Malformed => malformed += 1,
            }
        }
        for (reason, envelopes) in [(Reason::ConvertError, without_form), (Reason::DecodeError, malformed)] {
            if envelopes > 0 {
                stage.dropped(reason.as_str(), envelopes);
            }
        }
    }
}

/// The v2 envelopes of those payloads that the cache or a v2 subscriber may take, and for each the position of its payload.
pub(super) fn v2_of(
    payloads: Vec<(&Bytes, Decoded)>,
    wanted: &Wanted<'_>,
    is_cached: bool,
    refused: &mut Refused,
) -> (Batch, Vec<u32>) {
    let (mut bytes, mut origins, mut ends) = (BytesMut::new(), Vec::new(), Vec::new());
    for (at, (_, decoded)) in payloads.into_iter().enumerate() {
        if !is_cached && wanted.kinds(decoded.source_id().as_bytes()) & decoded.kind().bit() == 0 {
            continue;
        }
        let envelope = EnvelopeBatch { batch: vec![decoded.into_v2()] };
        envelope.encode_raw(&mut bytes);
        origins.push(at as u32);
        ends.push(bytes.len());
    }
    let bytes = bytes.freeze();
    let (batch, unfit) = Batch::check(bytes.clone(), &Limits::default());
    if unfit.total() > 0 {
        // Rare: those that do not keep to the limits are found by looking at each alone.
        let starts = std::iter::once(0).chain(ends.iter().copied());
        let fits = |(start, end)| Batch::check(bytes.slice(start..end), &Limits::default()).1.total() == 0;
        let mut fit = starts.zip(ends.iter().copied()).map(fits);
        origins.retain(|_| fit.next().unwrap_or(false));
        *refused += unfit;
    }
    (batch, origins)
}

/// The v1 payloads that may go on, and how many may not.
pub(super) fn check(payloads: &[Bytes]) -> (Vec<(&Bytes, Decoded)>, Refused) {
    let limits = Limits::default();
    let (mut good, mut refused) = (Vec::with_capacity(payloads.len()), Refused::default());
    for payload in payloads {
        match v1::decode(payload) {
            _ if payload.len() > limits.envelope_bytes => refused.oversize += 1,
            Ok(decoded) if decoded.app_id().len() > limits.source_id_bytes => refused.oversize += 1,
            Ok(decoded) => good.push((payload, decoded)),
            Err(_) => refused.decode_error += 1,
        }
    }
    (good, refused)
}

/// Whether a v1 subscriber may want what an envelope becomes. `own` and `system` are the kinds wanted of its own source and of
/// [`v1::SYSTEM`]: which of the two a gauge goes to shows only once it has been converted.
fn may_want(batch: &Batch, entry: &Entry, (own, system): (u8, u8), wanted: &Wanted<'_>) -> bool {
    let (log, metric) = (Kind::Log.bit(), Kind::Gauge.bit());
    match entry.kind {
        Kind::Log => own & log != 0 || system & metric != 0 && v1::may_be_error(batch.envelope(entry)),
        Kind::Gauge => (own | system) & metric != 0,
        Kind::Counter => system & metric != 0,
        // The app of a request is in v1 the UUID in its usual form, whatever the form in v2.
        Kind::Timer => {
            let text = || std::str::from_utf8(batch.source_id(entry)).ok();
            let usual = || text().and_then(events::Uuid::parse).map(|uuid| uuid.to_string());
            (own | system) & metric != 0 || usual().is_some_and(|id| wanted.kinds(id.as_bytes()) & metric != 0)
        }
        // Without a form in v1. Those who take everything are told.
        Kind::Event | Kind::None => wanted.any() != 0,
    }
}
