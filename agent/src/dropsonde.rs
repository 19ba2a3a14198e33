//! Dropsonde datagrams to envelopes (contract: agents §2.3, §6, §7). Pure.
//!
//! What enters: one serialised `events.Envelope` a datagram. What leaves: batches of v2 envelopes, and counts of what was none. A
//! datagram that is not understood costs no other anything.

mod config;

use bytes::{Bytes, BytesMut};
use prost::Message as _;
use proto::raw::{Batch, Limits, Refused, wire};
use proto::reason::Reason;
use proto::v1::{Machine, V1Error, decode};

pub use config::DropsondeConfig;

use crate::config::TagsConfig;

/// Bytes of one datagram: the most that UDP over IPv4 carries.
pub const MAX_DATAGRAM: usize = 65_507;

/// Bytes of envelopes after which a batch is full.
const FULL_BYTES: usize = 1024 * 1024;

/// Why a datagram became nothing. The texts say what would be right.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum DatagramError {
    /// Longer than a datagram can be read, so that its end is missing.
    #[error("it is longer than {MAX_DATAGRAM} bytes and was truncated")]
    Truncated,
    /// Not an envelope.
    #[error("{0}; a datagram is one serialised dropsonde events.Envelope, without a length or signature before it")]
    Envelope(#[from] V1Error),
    /// An event type whose body is missing.
    #[error("it has no body of the event type that it names")]
    NoBody,
}

impl DatagramError {
    /// What the datagram counts as.
    pub fn reason(&self) -> Reason {
        match self {
            Self::Truncated => Reason::Oversize,
            Self::Envelope(_) | Self::NoBody => Reason::DecodeError,
        }
    }
}

/// Gathers the envelopes of some datagrams.
#[derive(Debug)]
pub struct Converter {
    machine: Machine,
    /// The encoded `EnvelopeBatch`.
    batch: BytesMut,
    envelopes: usize,
    refused: Refused,
    limits: Limits,
}

impl Converter {
    /// One that says of this machine what the tags `deployment`, `job`, `index` and `ip` are set to.
    pub fn new(tags: &TagsConfig) -> Self {
        let tag = |key: &str| tags.set.get(key).cloned();
        let machine = Machine { deployment: tag("deployment"), job: tag("job"), index: tag("index"), ip: tag("ip") };
        Self { machine, batch: BytesMut::new(), envelopes: 0, refused: Refused::default(), limits: Limits::default() }
    }

    /// Takes a datagram.
    ///
    /// # Errors
    /// It became nothing, and is counted.
    pub fn add(&mut self, datagram: &[u8]) -> Result<(), DatagramError> {
        self.convert(datagram).inspect_err(|error| self.refused.count(error.reason()))
    }

    fn convert(&mut self, datagram: &[u8]) -> Result<(), DatagramError> {
        if datagram.len() > MAX_DATAGRAM {
            return Err(DatagramError::Truncated);
        }
        let decoded = decode(datagram)?;
        if !decoded.has_body() {
            return Err(DatagramError::NoBody);
        }
        let envelope = decoded.on(&self.machine).into_v2();
        wire::put_varint(&mut self.batch, 1 << 3 | 2);
        wire::put_varint(&mut self.batch, envelope.encoded_len() as u64);
        envelope.encode_raw(&mut self.batch);
        self.envelopes += 1;
        Ok(())
    }

    /// True when the batch should be taken before it grows further.
    pub fn is_full(&self) -> bool {
        self.envelopes >= self.limits.envelopes || self.batch.len() >= FULL_BYTES
    }

    /// What has been gathered since the last time, within the limits of every hop; `None` if that is nothing.
    pub fn take(&mut self) -> Option<(Batch, Refused)> {
        let mut refused = std::mem::take(&mut self.refused);
        if self.envelopes == 0 && refused.total() == 0 {
            return None;
        }
        self.envelopes = 0;
        let (batch, over) = Batch::check(Bytes::from(self.batch.split()), &self.limits);
        refused += over;
        Some((batch, refused))
    }
}

/// The property that a fuzz target holds on arbitrary bytes, and that the tests replay.
///
/// # Panics
/// When a datagram is neither an envelope nor counted, or becomes one that a later hop refuses.
pub fn fuzz(datagram: &[u8]) {
    let mut converter = Converter::new(&TagsConfig::default());
    let taken = converter.add(datagram).is_ok();
    let (batch, refused) = converter.take().expect("it counts, whatever it is");
    assert_eq!(batch.len() as u64 + refused.total(), 1, "an envelope, or counted");
    assert!(taken || batch.is_empty());
    for entry in batch.entries() {
        assert!(proto::raw::tags::get(batch.envelope(entry), b"__v1_type").is_some());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_fuzz_seeds_keep_what_is_promised() {
        let seeds = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/seeds/dropsonde_datagram");
        let mut count = 0;
        for seed in std::fs::read_dir(&seeds).unwrap() {
            fuzz(&std::fs::read(seed.unwrap().path()).unwrap());
            count += 1;
        }
        assert!(count >= 20, "{count} seeds in {}", seeds.display());
    }

    #[test]
    fn what_is_no_envelope_is_counted_with_a_reason() {
        let mut converter = Converter::new(&TagsConfig::default());
        assert_eq!(converter.add(&[0; MAX_DATAGRAM + 1]), Err(DatagramError::Truncated));
        assert!(matches!(converter.add(b"shop.orders:1|c"), Err(DatagramError::Envelope(V1Error::Malformed(_)))));
        assert!(matches!(converter.add(b""), Err(DatagramError::Envelope(V1Error::Missing(_)))));
        // origin "a", eventType LogMessage, no body
        assert_eq!(converter.add(&[0x0a, 1, b'a', 0x10, 5]), Err(DatagramError::NoBody));
        let (batch, refused) = converter.take().unwrap();
        assert!(batch.is_empty());
        assert_eq!(refused, Refused { decode_error: 3, oversize: 1, ..Refused::default() });
    }
}
