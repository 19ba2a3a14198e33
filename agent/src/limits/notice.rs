//! What owners are told, as log lines of their own source. Pure.
//!
//! The first words of an episode are those that the original's executor uses (contract: agents §10.1), so that what looks for them finds
//! them here.

use proto::raw::{Batch, Refused};

use crate::gather::Gather;

/// The tag `source_type` of a notice.
const SOURCE_TYPE: &str = "HYDRANT";

/// Notices of one batch.
#[derive(Debug, Default)]
pub(crate) struct Notices(pub(super) Vec<Notice>);

/// One of them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Notice {
    pub(crate) source_id: Box<[u8]>,
    /// That of the first envelope that was lost.
    pub(crate) instance_id: Box<[u8]>,
    pub(crate) text: Text,
}

/// What a notice says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Text {
    /// Lines are dropped from now on: there were more than so many in a second.
    OverLines(u64),
    /// The same for bytes.
    OverBytes(u64),
    /// The source keeps to its limit again. So much of it was dropped.
    Within { lines: u64, bytes: u64 },
    /// New series are dropped.
    Crowded(Crowded),
}

/// Too many series.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Crowded {
    /// Series that the source may have.
    pub(crate) limit: usize,
    /// Envelopes dropped since the last notice.
    pub(crate) dropped: u64,
    /// The metric whose label has most values; one of them, if there are more metrics than values of any label; empty if nothing is known.
    pub(crate) metric: Box<[u8]>,
    /// Its label; empty if there are more metrics than values.
    pub(crate) label: Box<[u8]>,
}

impl Notices {
    pub(crate) fn push(&mut self, notice: Notice) {
        self.0.push(notice);
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(crate) fn len(&self) -> usize {
        self.0.len()
    }

    /// The sources with too many series.
    pub(crate) fn crowded(&self) -> impl Iterator<Item = (&[u8], &Crowded)> {
        self.0.iter().filter_map(|notice| match &notice.text {
            Text::Crowded(crowded) => Some((&*notice.source_id, crowded)),
            _ => None,
        })
    }

    /// As envelopes, at `now_ns` nanoseconds since the Unix epoch.
    pub(crate) fn write(&self, now_ns: i64) -> Vec<(Batch, Refused)> {
        let mut gather = Gather::default();
        let mut batches = Vec::new();
        for notice in &self.0 {
            let (source_id, instance_id) =
                (String::from_utf8_lossy(&notice.source_id), String::from_utf8_lossy(&notice.instance_id));
            let mut draft = gather.envelope(&source_id, &instance_id, now_ns);
            draft.tag("source_type", SOURCE_TYPE);
            draft.log(notice.text.to_string().as_bytes(), true);
            if gather.is_full() {
                batches.extend(gather.take());
            }
        }
        batches.extend(gather.take());
        batches
    }
}

impl std::fmt::Display for Text {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Text::OverLines(limit) => {
                write!(f, "app instance exceeded log rate limit ({limit} log-lines/sec) set by platform operator")
            }
            Text::OverBytes(limit) => {
                write!(f, "app instance exceeded log rate limit ({limit} bytes/sec) set by platform operator")
            }
            Text::Within { lines, bytes } => {
                write!(f, "log rate is within its limit again; {lines} lines ({bytes} bytes) were dropped")
            }
            Text::Crowded(Crowded { limit, dropped, metric, label }) => {
                write!(f, "source exceeded its limit of {limit} metric series in an hour set by platform operator; ")?;
                write!(f, "{dropped} envelopes with new ones were dropped")?;
                let (name, key) = (metric.escape_ascii(), label.escape_ascii());
                match (metric.is_empty(), label.is_empty()) {
                    (true, _) => Ok(()),
                    (false, true) => write!(f, "; it has many metrics, such as {name}"),
                    (false, false) => write!(f, "; tag {key} of {name} has most values"),
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use prost::Message as _;
    use proto::v2;

    use super::*;

    #[test]
    fn a_notice_is_a_line_of_its_source() {
        let crowded = |metric: &[u8], label: &[u8]| {
            Text::Crowded(Crowded { limit: 10, dropped: 3, metric: metric.into(), label: label.into() })
        };
        let texts = [
            (Text::OverLines(100), "app instance exceeded log rate limit (100 log-lines/sec) set by platform operator"),
            (Text::OverBytes(4096), "app instance exceeded log rate limit (4096 bytes/sec) set by platform operator"),
            (
                Text::Within { lines: 7, bytes: 700 },
                "log rate is within its limit again; 7 lines (700 bytes) were dropped",
            ),
            (
                crowded(b"http\n", b"user_id"),
                "source exceeded its limit of 10 metric series in an hour set by platform operator; 3 envelopes with new ones were \
                 dropped; tag user_id of http\\n has most values",
            ),
            (
                crowded(b"", b""),
                "source exceeded its limit of 10 metric series in an hour set by platform operator; 3 envelopes with new ones were \
                 dropped",
            ),
            (
                crowded(b"user_17", b""),
                "source exceeded its limit of 10 metric series in an hour set by platform operator; 3 envelopes with new ones were \
                 dropped; it has many metrics, such as user_17",
            ),
        ];
        let mut notices = Notices::default();
        for (text, _) in &texts {
            notices.push(Notice { source_id: (*b"shop").into(), instance_id: (*b"2").into(), text: text.clone() });
        }
        assert_eq!((notices.len(), notices.crowded().count()), (6, 3));
        let batches = notices.write(9);
        let (batch, refused) = &batches[0];
        assert_eq!((batches.len(), batch.len(), refused.total()), (1, 6, 0));
        for (entry, (_, text)) in batch.entries().iter().zip(&texts) {
            let envelope = v2::Envelope::decode(batch.envelope(entry)).unwrap();
            let expected = v2::Envelope::log("shop", *text).at(9).err().tag("source_type", "HYDRANT");
            assert_eq!(envelope, v2::Envelope { instance_id: "2".into(), ..expected });
        }
    }
}
