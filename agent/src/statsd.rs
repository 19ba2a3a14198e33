//! statsd as bytes: lines of Etsy's and the original's clients (contract: agents §9) and of DogStatsD's become envelopes. Pure.
//!
//! ```text
//! datagram ──► lines ─┬─ c, g, ms, mapping "classic" ─► classic ─► Aggregator: a gauge a line ──────────┐
//!                     ├─ metrics otherwise ───────────► line ────► Native: series, told at every flush ─┼─► batches
//!                     └─ events, service checks ──────► notice ────────────────────────────────────────┘
//! ```
//!
//! *Invariant*: no line costs another one anything, no input panics, nothing is allocated per line but for a series seen for the first
//! time.

mod aggregator;
mod classic;
mod collector;
mod config;
mod fuzz;
mod line;
mod native;
mod notice;
mod summary;
#[cfg(test)]
mod tests;

use proto::reason::Reason;

pub use aggregator::Aggregator;
pub use classic::{Kind, Metric, Sign, Tags, parse_line};
pub use collector::{Collector, Settings, State};
pub use config::{Mapping, NegativeGauges, StatsdConfig};
pub use fuzz::fuzz;
pub use line::{Line, Type};

/// Bytes of one datagram: the most that UDP over IPv4 carries. A larger one is refused whole.
pub const MAX_DATAGRAM: usize = 65_507;
/// Lines of one datagram; blank ones do not count. The rest is refused.
pub const MAX_LINES: usize = 1_000;
/// Bytes of an origin, which becomes a `source_id`.
pub const MAX_ORIGIN: usize = 256;
/// Bytes of a name, without its origin.
pub const MAX_NAME: usize = 512;
/// Tags of one line.
pub const MAX_TAGS: usize = 64;
/// Bytes of one tag, key and value together with their framing.
pub const MAX_TAG: usize = 1_024;

/// Why a line became nothing. The texts say what would be right.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LineError {
    /// A datagram longer than [`MAX_DATAGRAM`] bytes.
    #[error("the datagram is longer than {MAX_DATAGRAM} bytes and was truncated")]
    Truncated,
    /// No `:<number>|` in it.
    #[error("not of the form origin.name:number|type, such as shop.orders:1|c")]
    Form,
    /// Another type.
    #[error("its type is none of c, g, ms, h, d and s")]
    Type,
    /// A name without a dot, or nothing on one side of it.
    #[error(
        "its name has no origin before a dot, as in shop.orders; statsd clients call it prefix. Or set agent.statsd.source_id"
    )]
    NoOrigin,
    /// An origin or a name that is not text.
    #[error("its name is not UTF-8")]
    NotText,
    /// A tag without a colon, which is also what is left of a tag whose key has other characters than letters, digits and `_`.
    #[error(
        "it has a tag that is not key:value, with a key of letters, digits and _; agent.statsd.mapping = \"native\" takes others"
    )]
    Tag,
    /// A counter's step that no counter can be told.
    #[error("its value, divided by the sample rate, is beyond 2^63")]
    Large,
    /// A sample rate that is no number above 0.
    #[error("its sample rate is not a number above 0, as in |@0.1")]
    Rate,
    /// A time that is no number of seconds.
    #[error("its time is not a number of seconds since 1970, as in |T1656581400")]
    Time,
    /// An event whose lengths do not fit it.
    #[error("not of the form _e{{title bytes,text bytes}}:title|text, such as _e{{5,4}}:title|text")]
    Event,
    /// A service check that lacks a part.
    #[error("not of the form _sc|name|status, with a status of 0 to 3, such as _sc|db.up|0")]
    Check,
    /// An origin over [`MAX_ORIGIN`] bytes.
    #[error("its origin is longer than {MAX_ORIGIN} bytes")]
    LongOrigin,
    /// A name over [`MAX_NAME`] bytes.
    #[error("its name is longer than {MAX_NAME} bytes")]
    LongName,
    /// A tag over [`MAX_TAG`] bytes.
    #[error("it has a tag longer than {MAX_TAG} bytes")]
    LongTag,
    /// More than [`MAX_TAGS`] tags.
    #[error("it has more than {MAX_TAGS} tags")]
    ManyTags,
}

/// The lines of a datagram, blank ones left out.
pub fn lines(datagram: &[u8]) -> impl Iterator<Item = &[u8]> {
    datagram
        .split(|&byte| byte == b'\n')
        .map(|line| line.strip_suffix(b"\r").unwrap_or(line))
        .filter(|line| !line.is_empty())
}

impl LineError {
    /// What the line counts as.
    pub fn reason(self) -> Reason {
        match self {
            Self::Form
            | Self::Type
            | Self::NoOrigin
            | Self::NotText
            | Self::Tag
            | Self::Rate
            | Self::Time
            | Self::Event
            | Self::Check => Reason::DecodeError,
            Self::Truncated | Self::Large | Self::LongOrigin | Self::LongName | Self::LongTag => Reason::Oversize,
            Self::ManyTags => Reason::TooMany,
        }
    }
}
