//! The text filter of a read: a substring or a regular expression in the payloads of logs.
//!
//! What enters: a text or a pattern, then opened segments. What leaves: the envelopes whose payload has it. A substring is looked for in
//! all of a segment's messages at once, and a hit then put to the payload it is in. Both run in time linear in what they look through.

use memchr::memmem::Finder;
use proto::raw::Kind;
use regex::bytes::Regex;

use crate::filter::{PatternError, compile};
use crate::message;
use crate::opened::Opened;
use crate::segment::KindSet;

/// The longest substring, in bytes.
const MAX_TEXT: usize = 1024;

/// A text filter.
#[derive(Clone, Debug)]
pub(crate) enum TextFilter {
    Substring(Box<Finder<'static>>),
    Regex(Regex),
}

impl TextFilter {
    /// The kinds that have a payload.
    pub(crate) const KINDS: KindSet = Kind::Log.bit();

    /// Payloads that contain `text`, byte for byte.
    pub(crate) fn substring(text: &str) -> Result<Self, PatternError> {
        if text.len() > MAX_TEXT {
            return Err(PatternError::too_large());
        }
        Ok(Self::Substring(Box::new(Finder::new(text).into_owned())))
    }

    /// Payloads in which `pattern` matches somewhere.
    pub(crate) fn regex(pattern: &str) -> Result<Self, PatternError> {
        compile(pattern).map(Self::Regex)
    }

    /// Calls `visit` with the index of every envelope that passes.
    pub(crate) fn each(&self, opened: &Opened, mut visit: impl FnMut(usize)) {
        let payload = |i: usize| (opened.kind(i) == Kind::Log).then(|| message::payload(opened.message(i)));
        match self {
            Self::Regex(regex) => {
                (0..opened.len()).filter(|i| payload(*i).is_some_and(|text| regex.is_match(text))).for_each(visit);
            }
            Self::Substring(finder) => {
                let all = opened.messages();
                let (mut at, mut i) = (0, 0);
                while let Some(hit) = finder.find(&all[at..]) {
                    let hit = at + hit;
                    while i < opened.len() && opened.range(i).end <= hit {
                        i += 1;
                    }
                    if i == opened.len() {
                        return;
                    }
                    // It may reach into the next message, or stand in a name.
                    if payload(i).is_some_and(|text| finder.find(text).is_some()) {
                        visit(i);
                    }
                    at = opened.range(i).end;
                    i += 1;
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use prost::Message as _;
    use proto::v2::Envelope;

    use super::*;
    use crate::sealed::Sealed;
    use crate::segment::Segment;

    fn segment(texts: &[&str]) -> Arc<Sealed> {
        let mut segment = Segment::new();
        for (i, text) in texts.iter().enumerate() {
            let log = Envelope::log("s", text.to_string()).tag("needle", "needle").at(i as i64);
            segment.push(i as i64, Kind::Log, 5 + i as u64, &log.encode_to_vec());
        }
        let counter = Envelope::counter("s", "needle", 1).encode_to_vec();
        segment.push(99, Kind::Counter, 1000, &counter);
        Arc::new(Sealed::plain(segment))
    }

    fn hits(filter: &TextFilter, sealed: &Sealed) -> Vec<usize> {
        let mut found = Vec::new();
        filter.each(&sealed.open(), |i| found.push(i));
        found
    }

    #[test]
    fn payloads_alone_are_looked_into() {
        let plain = segment(&["a needle", "no need", "le", "needleneedle", "", "NEEDLE", "needle"]);
        let packed = plain.pack().unwrap();
        let substring = TextFilter::substring("needle").unwrap();
        let regex = TextFilter::regex("(?i)^need.e").unwrap();
        for sealed in [&*plain, &packed] {
            assert_eq!(hits(&substring, sealed), [0, 3, 6]);
            assert_eq!(hits(&regex, sealed), [3, 5, 6]);
        }
    }

    #[test]
    fn what_cannot_be_used_is_told() {
        assert_eq!(TextFilter::regex("(").unwrap_err().to_string(), "error parsing regexp: missing closing ): `(`");
        assert!(TextFilter::substring(&"x".repeat(1025)).is_err() && TextFilter::substring(&"x".repeat(1024)).is_ok());
    }
}
