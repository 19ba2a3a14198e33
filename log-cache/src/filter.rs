//! The name filter of a read: a regular expression on the names of counters, timers and gauges.
//!
//! What enters: a pattern, then encoded envelopes. What leaves: counters and timers whose name matches, as they are; gauges with only
//! the metrics that match; nothing else (contract `log-cache.md` §2). Patterns are those of the `regex` crate, which shares its syntax
//! with RE2 but for rarities such as `\Q…\E` and `\C`; both run in time linear in the name.

use std::fmt;

use proto::raw::Kind;
use proto::raw::wire::{self, WireType};
use regex::bytes::{Regex, RegexBuilder};
use regex_syntax::ast::ErrorKind;

use crate::message::{content, each_part, for_each, is_member, metrics, text};
use crate::segment::KindSet;

/// The longest pattern, in bytes.
const MAX_PATTERN: usize = 1024;

/// The largest compiled pattern, in bytes.
const MAX_COMPILED: usize = 1024 * 1024;

/// A compiled name filter.
#[derive(Clone, Debug)]
pub(crate) struct NameFilter(Regex);

/// Why a pattern cannot be used, in the words clients know.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("error parsing regexp: {0}")]
pub struct PatternError(String);

impl PatternError {
    pub(crate) fn too_large() -> Self {
        Self("expression too large".to_owned())
    }
}

impl NameFilter {
    /// The kinds that have names.
    pub(crate) const KINDS: KindSet = Kind::Counter.bit() | Kind::Timer.bit() | Kind::Gauge.bit();

    /// Compiles a pattern; it matches anywhere in a name.
    pub(crate) fn new(pattern: &str) -> Result<Self, PatternError> {
        compile(pattern).map(Self)
    }

    /// True when [`NameFilter::apply`] leaves something of an envelope, or of what a packed segment keeps of it.
    pub(crate) fn admits(&self, kind: Kind, message: &[u8]) -> bool {
        let mut admits = false;
        if kind.bit() & Self::KINDS != 0 {
            metrics(kind, message, |metric| admits |= self.0.is_match(metric.name));
        }
        admits
    }

    /// Applies the filter to an envelope that has passed the walker. `None`: it goes. `Some(Some(_))`: it stays as it is.
    /// `Some(None)`: what stays of it has been appended to `out`.
    #[expect(clippy::option_option, reason = "three outcomes, used in one place; an enum would say no more")]
    pub(crate) fn apply<'a>(&self, kind: Kind, envelope: &'a [u8], out: &mut Vec<u8>) -> Option<Option<&'a [u8]>> {
        match kind {
            Kind::Counter | Kind::Timer => {
                let mut name: &[u8] = &[];
                each_part(envelope, kind, |message| name = text(message).unwrap_or(name));
                self.0.is_match(name).then_some(Some(envelope))
            }
            Kind::Gauge => self.gauge(envelope, out),
            Kind::None | Kind::Log | Kind::Event => None,
        }
    }

    #[expect(clippy::option_option, reason = "as `apply`")]
    fn gauge<'a>(&self, envelope: &'a [u8], out: &mut Vec<u8>) -> Option<Option<&'a [u8]>> {
        let mut gauge = Vec::new();
        let (mut kept, mut lost) = (0, 0);
        each_part(envelope, Kind::Gauge, |message| {
            for_each(message, |number, wire_type, field| {
                if (number, wire_type) != (1, WireType::Len) {
                    gauge.extend_from_slice(field);
                    return;
                }
                if self.0.is_match(text(content(field)).unwrap_or_default()) {
                    kept += 1;
                    gauge.extend_from_slice(field);
                } else {
                    lost += 1;
                }
            });
        });
        match (kept, lost) {
            (0, _) => None,
            (_, 0) => Some(Some(envelope)),
            _ => {
                for_each(envelope, |number, _, field| {
                    if !is_member(number) {
                        out.extend_from_slice(field);
                    }
                });
                wire::put_bytes(out, 6, &gauge);
                Some(None)
            }
        }
    }
}

/// Compiles a pattern, within bounds.
///
/// # Errors
/// What is wrong with it.
pub(crate) fn compile(pattern: &str) -> Result<Regex, PatternError> {
    if pattern.len() > MAX_PATTERN {
        return Err(PatternError::too_large());
    }
    if let Err(error) = regex_syntax::ast::parse::Parser::new().parse(pattern) {
        return Err(PatternError(explain(error.kind(), pattern, &pattern[error.span().start.offset..])));
    }
    let compiled = RegexBuilder::new(pattern).size_limit(MAX_COMPILED).dfa_size_limit(MAX_COMPILED).build();
    match compiled {
        Ok(regex) => Ok(regex),
        Err(regex::Error::CompiledTooBig(_)) => Err(PatternError::too_large()),
        // Well-formed, but with a class or a flag that is not known.
        Err(_) => Err(PatternError(format!("invalid character class range: `{pattern}`"))),
    }
}

/// The message that clients know for this kind of error; `rest` is the pattern from the error on.
fn explain(kind: &ErrorKind, pattern: &str, rest: &str) -> String {
    let quoted = |what: &dyn fmt::Display, text: &str| format!("{what}: `{text}`");
    let head = |chars: usize| rest.chars().take(chars).collect::<String>();
    match kind {
        ErrorKind::ClassUnclosed => quoted(&"missing closing ]", rest),
        ErrorKind::ClassRangeInvalid | ErrorKind::ClassRangeLiteral | ErrorKind::ClassEscapeInvalid => {
            quoted(&"invalid character class range", &head(3))
        }
        ErrorKind::GroupUnclosed => quoted(&"missing closing )", pattern),
        ErrorKind::GroupUnopened => quoted(&"unexpected )", pattern),
        ErrorKind::GroupNameInvalid
        | ErrorKind::GroupNameEmpty
        | ErrorKind::GroupNameDuplicate { .. }
        | ErrorKind::GroupNameUnexpectedEof => quoted(&"invalid named capture", rest),
        ErrorKind::UnsupportedLookAround => quoted(&"invalid or unsupported Perl syntax", &look_around(rest)),
        ErrorKind::RepetitionMissing => quoted(&"missing argument to repetition operator", &head(1)),
        ErrorKind::RepetitionCountInvalid => quoted(&"invalid repeat count", rest),
        ErrorKind::EscapeUnexpectedEof => quoted(&"trailing backslash at end of expression", ""),
        ErrorKind::EscapeUnrecognized | ErrorKind::UnsupportedBackreference => {
            quoted(&"invalid escape sequence", &head(2))
        }
        ErrorKind::NestLimitExceeded(_) => "expression nests too deeply".to_owned(),
        other => quoted(other, rest),
    }
}

/// `(?!`, `(?=`, `(?<!` or `(?<=`.
fn look_around(rest: &str) -> String {
    let end = rest.find(['!', '=']).map_or(rest.len(), |at| at + 1);
    rest[..end].to_owned()
}

#[cfg(test)]
mod tests {
    use prost::Message;
    use proto::v2::{Envelope, envelope};

    use super::*;

    fn apply(filter: &str, kind: Kind, envelope: &[u8]) -> Option<Envelope> {
        let mut out = Vec::new();
        let kept = NameFilter::new(filter).unwrap().apply(kind, envelope, &mut out)?;
        Some(Envelope::decode(kept.unwrap_or(&out)).unwrap())
    }

    fn gauge(names: &[&str]) -> Envelope {
        let mut gauge = Envelope::gauge("s", names[0], 1.0, "u").tag("t", "v").at(9);
        let Some(envelope::Message::Gauge(metrics)) = &mut gauge.message else { unreachable!() };
        for name in &names[1..] {
            metrics.metrics.insert((*name).to_owned(), proto::v2::GaugeValue { unit: "u".to_owned(), value: 2.0 });
        }
        gauge
    }

    #[test]
    fn counters_and_timers_match_by_name_anywhere() {
        let counter = Envelope::counter("s", "berths.used", 1).encode_to_vec();
        assert!(apply("ths", Kind::Counter, &counter).is_some());
        assert!(apply("^ths", Kind::Counter, &counter).is_none());
        let timer = Envelope::timer("s", "http", 1, 2).encode_to_vec();
        assert!(apply("^http$", Kind::Timer, &timer).is_some());
        let nameless = Envelope::timer("s", "", 1, 2).encode_to_vec();
        assert!(apply("^$", Kind::Timer, &nameless).is_some() && apply("x", Kind::Timer, &nameless).is_none());
    }

    #[test]
    fn logs_and_events_go() {
        let log = Envelope::log("s", "payload").encode_to_vec();
        assert!(apply(".*", Kind::Log, &log).is_none());
        let event = Envelope::event("s", "title", "body").encode_to_vec();
        assert!(apply(".*", Kind::Event, &event).is_none());
    }

    #[test]
    fn a_gauge_keeps_the_metrics_that_match_and_all_else() {
        let whole = gauge(&["cpu", "memory", "memory_quota"]);
        let encoded = whole.encode_to_vec();
        assert_eq!(apply("cpu|mem", Kind::Gauge, &encoded).unwrap(), whole);
        assert_eq!(apply("^mem", Kind::Gauge, &encoded).unwrap().message, {
            let mut some = gauge(&["memory", "memory_quota"]);
            let Some(envelope::Message::Gauge(metrics)) = &mut some.message else { unreachable!() };
            metrics.metrics.get_mut("memory").unwrap().value = 2.0;
            some.message
        });
        let some = apply("cpu", Kind::Gauge, &encoded).unwrap();
        assert_eq!((some.timestamp, some.tags), (9, whole.tags));
        assert!(apply("disk", Kind::Gauge, &encoded).is_none());
    }

    #[test]
    fn members_that_were_replaced_do_not_count() {
        // A gauge, then a log, then a gauge: the last one is what the envelope is.
        let mut encoded = Envelope::gauge("s", "cpu", 1.0, "u").encode_to_vec();
        encoded.extend(Envelope::log("", "x").encode_to_vec());
        encoded.extend(gauge(&["memory", "disk"]).encode_to_vec());
        assert!(apply("cpu", Kind::Gauge, &encoded).is_none());
        let Some(envelope::Message::Gauge(left)) = apply("memory", Kind::Gauge, &encoded).unwrap().message else {
            panic!("still a gauge")
        };
        assert_eq!(left.metrics.into_keys().collect::<Vec<_>>(), ["memory"]);
    }

    #[test]
    fn bad_patterns_are_explained_in_known_words() {
        let error = |pattern: &str| NameFilter::new(pattern).unwrap_err().to_string();
        assert_eq!(error("["), "error parsing regexp: missing closing ]: `[`");
        assert_eq!(error("(?!x)"), "error parsing regexp: invalid or unsupported Perl syntax: `(?!`");
        assert_eq!(error("a(b"), "error parsing regexp: missing closing ): `a(b`");
        assert_eq!(error("a)b"), "error parsing regexp: unexpected ): `a)b`");
        assert_eq!(error("*a"), "error parsing regexp: missing argument to repetition operator: `*`");
        assert_eq!(error("a\\"), "error parsing regexp: trailing backslash at end of expression: ``");
        assert_eq!(error(&"a".repeat(MAX_PATTERN + 1)), "error parsing regexp: expression too large");
        assert_eq!(error("(\\w{900}){900}"), "error parsing regexp: expression too large");
    }
}
