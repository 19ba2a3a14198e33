//! Which envelopes a selector admits (contract: loggregator v2 §5.2), and where the deterministic ones go (§5.3).

use crc::{CRC_64_XZ, Crc};

use crate::raw::{Batch, Entry, Kind, counter_name, gauge_names};
use crate::v2;
use crate::v2::selector::Message;

/// Selectors of one request: each is a change of a doppler's routes, and all are made at once.
pub const MAX_SELECTORS: usize = 10_000;

/// What a request of more selectors than [`MAX_SELECTORS`] is told.
pub fn too_many(selectors: usize) -> Option<String> {
    (selectors > MAX_SELECTORS).then(|| format!("{selectors} selectors; a request has {MAX_SELECTORS} at most"))
}

/// A selector in its normal form: two requests that mean the same are equal. In order, those of one source stand together.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Selector {
    /// Only this source; `None` is any.
    pub source_id: Option<Box<str>>,
    /// Only these envelopes of it.
    pub rule: Rule,
}

/// The type, and the names if any.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Rule {
    /// Any log.
    Log,
    /// Any counter, or those of this name.
    Counter(Option<Box<str>>),
    /// Any gauge, or those with exactly this set of metric names, sorted.
    Gauge(Option<Box<[Box<str>]>>),
    /// Any timer.
    Timer,
    /// Any event.
    Event,
}

impl Selector {
    /// The normal form of a wire selector; `None` when it has no `Message` and so matches nothing.
    pub fn from_wire(selector: &v2::Selector) -> Option<Self> {
        let rule = match selector.message.as_ref()? {
            Message::Log(_) => Rule::Log,
            Message::Counter(counter) => {
                Rule::Counter((!counter.name.is_empty()).then(|| counter.name.as_str().into()))
            }
            Message::Gauge(gauge) if gauge.names.is_empty() => Rule::Gauge(None),
            Message::Gauge(gauge) => {
                let mut names: Vec<Box<str>> = gauge.names.iter().map(|name| name.as_str().into()).collect();
                names.sort_unstable();
                Rule::Gauge(Some(names.into()))
            }
            Message::Timer(_) => Rule::Timer,
            Message::Event(_) => Rule::Event,
        };
        let source_id = (!selector.source_id.is_empty()).then(|| selector.source_id.as_str().into());
        Some(Self { source_id, rule })
    }

    /// As it stands on the wire.
    pub fn to_wire(&self) -> v2::Selector {
        let message = match &self.rule {
            Rule::Log => Message::Log(v2::LogSelector {}),
            Rule::Counter(name) => {
                Message::Counter(v2::CounterSelector { name: name.as_deref().unwrap_or_default().to_owned() })
            }
            Rule::Gauge(names) => {
                let names = names.iter().flatten().map(|name| String::from(&**name)).collect();
                Message::Gauge(v2::GaugeSelector { names })
            }
            Rule::Timer => Message::Timer(v2::TimerSelector {}),
            Rule::Event => Message::Event(v2::EventSelector {}),
        };
        v2::Selector { source_id: self.source_id.as_deref().unwrap_or_default().to_owned(), message: Some(message) }
    }

    /// True when the selector admits `entry` of `batch`. Names are compared in full.
    pub fn admits(&self, batch: &Batch, entry: &Entry) -> bool {
        entry.kind == self.rule.kind()
            && self.source_id.as_ref().is_none_or(|id| batch.source_id(entry) == id.as_bytes())
            && self.rule.admits(batch.envelope(entry))
    }
}

impl Rule {
    /// The kind of envelope that the rule is about.
    pub fn kind(&self) -> Kind {
        match self {
            Rule::Log => Kind::Log,
            Rule::Counter(_) => Kind::Counter,
            Rule::Gauge(_) => Kind::Gauge,
            Rule::Timer => Kind::Timer,
            Rule::Event => Kind::Event,
        }
    }

    /// True when every envelope of the kind is admitted.
    pub fn is_whole_kind(&self) -> bool {
        !matches!(self, Rule::Counter(Some(_)) | Rule::Gauge(Some(_)))
    }

    /// True when the rule admits the names in `envelope`, which must be of the rule's kind.
    ///
    /// A gauge is admitted when its set of names is exactly the selector's: a selector with a name twice admits nothing, one with
    /// only the empty name also admits a gauge without metrics.
    pub fn admits(&self, envelope: &[u8]) -> bool {
        match self {
            Rule::Counter(Some(name)) => counter_name(envelope) == name.as_bytes(),
            Rule::Gauge(Some(wanted)) => {
                let names = gauge_names(envelope);
                if names.is_empty() {
                    return matches!(&**wanted, [only] if only.is_empty());
                }
                names.len() == wanted.len() && names.iter().zip(wanted).all(|(name, wanted)| *name == wanted.as_bytes())
            }
            _ => true,
        }
    }
}

const CRC: Crc<u64> = Crc::<u64>::new(&CRC_64_XZ);

/// The hash that places an envelope among the members of a deterministic group: of a counter's name, or the wrapping sum over a
/// gauge's names. `None` for other kinds, which may go to any member.
pub fn deterministic_hash(batch: &Batch, entry: &Entry) -> Option<u64> {
    match entry.kind {
        Kind::Counter => Some(CRC.checksum(counter_name(batch.envelope(entry)))),
        Kind::Gauge => Some(
            gauge_names(batch.envelope(entry)).iter().fold(0, |sum: u64, name| sum.wrapping_add(CRC.checksum(name))),
        ),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use prost::Message as _;

    use super::*;
    use crate::raw::Limits;

    fn gauge(names: &[&str]) -> Batch {
        let metrics = names.iter().map(|name| ((*name).to_owned(), v2::GaugeValue::default())).collect();
        let message = Some(v2::envelope::Message::Gauge(v2::Gauge { metrics }));
        batch(&v2::Envelope { message, ..v2::Envelope::default() })
    }

    fn counter(name: &str) -> Batch {
        let message =
            Some(v2::envelope::Message::Counter(v2::Counter { name: name.to_owned(), ..v2::Counter::default() }));
        batch(&v2::Envelope { source_id: "s".to_owned(), message, ..v2::Envelope::default() })
    }

    fn batch(envelope: &v2::Envelope) -> Batch {
        let (batch, refused) = Batch::check_one(envelope.encode_to_vec().into(), &Limits::default());
        assert_eq!(refused.total(), 0);
        batch
    }

    fn select(names: &[&str]) -> Selector {
        let names = names.iter().map(|name| (*name).to_owned()).collect();
        let message = Some(Message::Gauge(v2::GaugeSelector { names }));
        Selector::from_wire(&v2::Selector { source_id: String::new(), message }).expect("it has a message")
    }

    #[test]
    fn a_gauge_selector_admits_exactly_its_set_of_names() {
        let admits = |names: &[&str], metrics: &[&str]| {
            let batch = gauge(metrics);
            select(names).admits(&batch, &batch.entries()[0])
        };
        assert!(admits(&[], &["a"]));
        assert!(admits(&[], &[]));
        assert!(admits(&["b", "a"], &["a", "b"]));
        assert!(!admits(&["a"], &["a", "b"]));
        assert!(!admits(&["a", "b"], &["a"]));
        assert!(!admits(&["a", "a"], &["a"]));
        assert!(admits(&[""], &[""]));
        assert!(admits(&[""], &[]));
        assert!(!admits(&["a"], &[]));
    }

    #[test]
    fn a_counter_selector_compares_source_and_name() {
        let batch = counter("cpu");
        let entry = &batch.entries()[0];
        let select = |source_id: &str, name: &str| {
            let message = Some(Message::Counter(v2::CounterSelector { name: name.to_owned() }));
            Selector::from_wire(&v2::Selector { source_id: source_id.to_owned(), message }).expect("it has a message")
        };
        assert!(select("", "").admits(&batch, entry));
        assert!(select("s", "cpu").admits(&batch, entry));
        assert!(!select("other", "cpu").admits(&batch, entry));
        assert!(!select("", "mem").admits(&batch, entry));
    }

    #[test]
    fn a_selector_reads_as_it_was_written() {
        let names = |names: &[&str]| Some(names.iter().map(|name| Box::from(*name)).collect());
        let rules = [Rule::Log, Rule::Timer, Rule::Event, Rule::Counter(None), Rule::Counter(Some("hits".into()))];
        let gauges = [None, names(&[""]), names(&["cpu", "mem"]), names(&["cpu", "cpu"])].map(Rule::Gauge);
        for rule in rules.into_iter().chain(gauges) {
            for source_id in [None, Some("app".into())] {
                let selector = Selector { source_id, rule: rule.clone() };
                assert_eq!(Selector::from_wire(&selector.to_wire()), Some(selector));
            }
        }
    }

    #[test]
    fn a_selector_without_a_message_matches_nothing() {
        assert_eq!(Selector::from_wire(&v2::Selector::default()), None);
    }

    #[test]
    fn deterministic_hashes_are_those_of_the_contract() {
        for (name, hash) in [
            ("", 0),
            ("123456789", 0x995d_c9bb_df19_39fa),
            ("hash", 0x232e_ec78_c114_cc40),
            ("other-hash", 0x3189_6233_e032_cbf1),
            ("cpu", 0x2996_17cc_a885_8044),
        ] {
            let batch = counter(name);
            assert_eq!(deterministic_hash(&batch, &batch.entries()[0]), Some(hash), "{name}");
        }
        let both = gauge(&["cpu", "hash"]);
        let sum = 0x2996_17cc_a885_8044_u64.wrapping_add(0x232e_ec78_c114_cc40);
        assert_eq!(deterministic_hash(&both, &both.entries()[0]), Some(sum));
    }
}
