//! What the first hop accepts, and what it counts when it does not.

use crate::reason::Reason;

/// Limits of the first hop. Defaults are those every role has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Envelopes per batch. Default 10 000.
    pub envelopes: usize,
    /// Bytes per envelope. Default 1 MiB.
    pub envelope_bytes: usize,
    /// Tags and deprecated tags of one envelope together. Default 128.
    pub tags: usize,
    /// Bytes of one tag, key and value together with their framing. Default 1 KiB.
    pub tag_bytes: usize,
    /// Bytes of a `source_id`. Default 256. An `instance_id` may take [`Limits::tag_bytes`].
    pub source_id_bytes: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self { envelopes: 10_000, envelope_bytes: 1024 * 1024, tags: 128, tag_bytes: 1024, source_id_bytes: 256 }
    }
}

impl Limits {
    /// No limit but those of the index itself: for streams of peers that have checked already.
    pub const NONE: Self = Self {
        envelopes: usize::MAX,
        envelope_bytes: usize::MAX,
        tags: usize::MAX,
        tag_bytes: usize::MAX,
        source_id_bytes: usize::MAX,
    };
}

/// Envelopes of one message that were not taken, by reason.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Refused {
    /// Not well-formed, or text that is not UTF-8. What follows a broken frame counts as one.
    pub decode_error: u32,
    /// Larger than a limit in bytes.
    pub oversize: u32,
    /// More envelopes in the batch, or more tags in an envelope, than a limit allows.
    pub too_many: u32,
    /// Over the rate of its source.
    pub rate_limited: u32,
    /// With a series that is one too many for its source.
    pub cardinality: u32,
}

impl Refused {
    /// All of them.
    pub fn total(&self) -> u64 {
        self.by_reason().map(|(_, count)| count).sum()
    }

    /// The counts with their reasons, zeros left out.
    pub fn by_reason(&self) -> impl Iterator<Item = (Reason, u64)> {
        let counts = [
            (Reason::DecodeError, self.decode_error),
            (Reason::Oversize, self.oversize),
            (Reason::TooMany, self.too_many),
            (Reason::RateLimited, self.rate_limited),
            (Reason::Cardinality, self.cardinality),
        ];
        counts.into_iter().filter(|(_, count)| *count > 0).map(|(reason, count)| (reason, u64::from(count)))
    }

    /// Counts one more for `reason`; what is neither a matter of size, of number nor of a source's limits is a matter of decoding.
    pub fn count(&mut self, reason: Reason) {
        match reason {
            Reason::Oversize => self.oversize += 1,
            Reason::TooMany => self.too_many += 1,
            Reason::RateLimited => self.rate_limited += 1,
            Reason::Cardinality => self.cardinality += 1,
            _ => self.decode_error += 1,
        }
    }
}

impl std::ops::AddAssign for Refused {
    fn add_assign(&mut self, other: Self) {
        self.decode_error += other.decode_error;
        self.oversize += other.oversize;
        self.too_many += other.too_many;
        self.rate_limited += other.rate_limited;
        self.cardinality += other.cardinality;
    }
}
