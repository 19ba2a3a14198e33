//! Which envelopes a drain wants: of which sources, of which kinds, and with which tags.
//!
//! Configuration enters, a [`Select`] leaves: what dopplers are asked for, and a test for the rest. Pure. Sources that are named are
//! asked for; patterns and tags are no matter of the protocol, so with them everything of the kinds is asked for and looked at here,
//! before the ring, at a few dozen nanoseconds a tag.

use std::collections::BTreeMap;
use std::fmt::Write;

use proto::raw::{Batch, Entry, Kind, tags};
use proto::v2;
use regex::bytes::Regex;

use crate::syslog::config::Kinds;

/// The most patterns of one drain, and the longest, in bytes.
pub(crate) const PATTERNS: (usize, usize) = (64, 256);

/// What a drain wants.
#[derive(Clone, Debug)]
pub(crate) struct Select {
    selectors: Vec<v2::Selector>,
    sources: Option<Sources>,
    tags: Vec<(String, Regex)>,
}

/// Sources by name and by pattern.
#[derive(Clone, Debug)]
struct Sources {
    named: Vec<String>,
    patterns: Regex,
}

/// Patterns that cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SelectError {
    /// Too many, too long or empty.
    #[error(
        "{what} has {found}; at most {max} patterns of 1 to {longest} bytes are taken, with * for any text",
        max = PATTERNS.0,
        longest = PATTERNS.1
    )]
    Patterns {
        /// The key.
        what: &'static str,
        /// What is wrong with it.
        found: String,
    },
}

impl Select {
    /// The sources that are named or fit a pattern, all when there are neither; of them the envelopes of these kinds whose tags all fit.
    ///
    /// # Errors
    /// [`SelectError`].
    pub(crate) fn new(
        named: &[String],
        patterns: &[String],
        tags: &BTreeMap<String, String>,
        kinds: Kinds,
    ) -> Result<Self, SelectError> {
        let any = [String::new()];
        let asked = if named.is_empty() || !patterns.is_empty() { &any } else { named };
        let selectors = asked.iter().flat_map(|source_id| {
            let of = |message| v2::Selector { source_id: source_id.clone(), message: Some(message) };
            kinds.iter().filter_map(selector).map(of)
        });
        let patterns = (!patterns.is_empty()).then(|| any_of("source_patterns", patterns)).transpose()?;
        let sources = patterns.map(|patterns| Sources { named: named.to_vec(), patterns });
        let tags = tags
            .iter()
            .map(|(key, value)| Ok((key.clone(), any_of("tags", std::slice::from_ref(value))?)))
            .collect::<Result<_, _>>()?;
        Ok(Self { selectors: selectors.collect(), sources, tags })
    }

    /// What dopplers are asked for.
    pub(crate) fn selectors(&self) -> &[v2::Selector] {
        &self.selectors
    }

    /// Whether dopplers send nothing but what is wanted.
    pub(crate) fn is_exact(&self) -> bool {
        self.sources.is_none() && self.tags.is_empty()
    }

    /// Whether one of the envelopes that dopplers send is wanted.
    pub(crate) fn admits(&self, batch: &Batch, entry: &Entry) -> bool {
        self.sources.as_ref().is_none_or(|sources| sources.admit(batch.source_id(entry)))
            && self.tags.iter().all(|(key, wanted)| tag_fits(batch.envelope(entry), key, wanted))
    }
}

impl Sources {
    fn admit(&self, source_id: &[u8]) -> bool {
        self.patterns.is_match(source_id) || self.named.iter().any(|named| named.as_bytes() == source_id)
    }
}

fn tag_fits(envelope: &[u8], key: &str, wanted: &Regex) -> bool {
    let value = tags::get(envelope, key.as_bytes()).and_then(|value| value.text(|number| number.to_string()));
    value.is_some_and(|value| wanted.is_match(&value))
}

/// What matches one of `patterns` as a whole; `*` stands for any text, also none.
fn any_of(what: &'static str, patterns: &[String]) -> Result<Regex, SelectError> {
    let wrong = |found: String| Err(SelectError::Patterns { what, found });
    if patterns.len() > PATTERNS.0 {
        return wrong(format!("{} patterns", patterns.len()));
    }
    let mut text = "(?s-u)^(?:".to_owned();
    for (i, pattern) in patterns.iter().enumerate() {
        if pattern.is_empty() || pattern.len() > PATTERNS.1 {
            return wrong(format!("a pattern of {} bytes", pattern.len()));
        }
        let parts: Vec<String> = pattern.split('*').map(regex::escape).collect();
        write!(text, "{}{}", if i > 0 { "|" } else { "" }, parts.join(".*")).expect("writing to a String cannot fail");
    }
    text.push_str(")$");
    // Escaped text and `.*` always make a regular expression; it may be too large.
    Regex::new(&text).or_else(|error| wrong(error.to_string()))
}

fn selector(kind: Kind) -> Option<v2::selector::Message> {
    use v2::selector::Message;
    Some(match kind {
        Kind::Log => Message::Log(v2::LogSelector {}),
        Kind::Counter => Message::Counter(v2::CounterSelector::default()),
        Kind::Gauge => Message::Gauge(v2::GaugeSelector::default()),
        Kind::Timer => Message::Timer(v2::TimerSelector {}),
        Kind::Event => Message::Event(v2::EventSelector {}),
        Kind::None => return None,
    })
}

#[cfg(test)]
mod tests {
    use prost::Message as _;

    use super::*;

    fn select(named: &[&str], patterns: &[&str], tags: &[(&str, &str)]) -> Select {
        let texts = |texts: &[&str]| texts.iter().map(|text| (*text).to_owned()).collect::<Vec<_>>();
        let tags = tags.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
        Select::new(&texts(named), &texts(patterns), &tags, Kinds::LOGS_AND_EVENTS).unwrap()
    }

    fn admits(select: &Select, envelope: &v2::Envelope) -> bool {
        let (batch, _) = Batch::index(v2::EnvelopeBatch { batch: vec![envelope.clone()] }.encode_to_vec().into());
        select.admits(&batch, &batch.entries()[0])
    }

    #[test]
    fn named_sources_are_asked_for_kind_by_kind() {
        let select = select(&["a", "b"], &[], &[]);
        let named: Vec<_> = select.selectors().iter().map(|selector| selector.source_id.as_str()).collect();
        assert_eq!(named, ["a", "a", "b", "b"]);
        assert!(matches!(select.selectors()[1].message, Some(v2::selector::Message::Event(_))));
        assert!(select.is_exact());
    }

    #[test]
    fn without_sources_everything_of_the_kinds_is_asked_for() {
        let select = select(&[], &[], &[]);
        assert!(select.selectors().iter().all(|selector| selector.source_id.is_empty() && selector.message.is_some()));
        assert!(select.is_exact() && select.selectors().len() == 2);
    }

    #[test]
    fn patterns_match_whole_names_and_stand_beside_names() {
        let select = select(&["exact"], &["web-*", "*.db", "a.c"], &[]);
        assert!(!select.is_exact());
        assert!(select.selectors().iter().all(|selector| selector.source_id.is_empty()), "all are looked at here");
        for (source_id, wanted) in [
            ("web-1", true),
            ("web-", true),
            ("my-web-1", false),
            ("x.db", true),
            ("xdb", false),
            ("exact", true),
            ("exactly", false),
            ("a.c", true),
            ("abc", false),
            ("web-\n", true),
            ("", false),
        ] {
            assert_eq!(admits(&select, &v2::Envelope::log(source_id, "x")), wanted, "{source_id:?}");
        }
    }

    #[test]
    fn every_tag_must_be_there_and_fit() {
        let select = select(&["app"], &[], &[("space_name", "prod"), ("deployment", "cf-*")]);
        assert_eq!(select.selectors()[0].source_id, "app", "named sources are still asked for by name");
        let envelope = v2::Envelope::log("app", "x").tag("space_name", "prod");
        assert!(!admits(&select, &envelope));
        assert!(admits(&select, &envelope.clone().tag("deployment", "cf-1")));
        assert!(!admits(&select, &envelope.clone().tag("deployment", "xcf-1")));
        assert!(!admits(&select, &envelope.tag("deployment", "cf-1").tag("space_name", "prod2")));
    }

    #[test]
    fn patterns_are_bounded() {
        let error = |patterns: &[String]| {
            Select::new(&[], patterns, &BTreeMap::new(), Kinds::ALL).map(|_| ()).unwrap_err().to_string()
        };
        let right = "at most 64 patterns of 1 to 256 bytes are taken, with * for any text";
        assert_eq!(error(&[String::new()]), format!("source_patterns has a pattern of 0 bytes; {right}"));
        assert_eq!(error(&["x".repeat(257)]), format!("source_patterns has a pattern of 257 bytes; {right}"));
        assert_eq!(error(&vec!["x".to_owned(); 65]), format!("source_patterns has 65 patterns; {right}"));
        let many = vec!["*".repeat(128) + &"€".repeat(42); 64];
        let _bounded_either_way = Select::new(&[], &many, &BTreeMap::new(), Kinds::ALL);
    }
}
