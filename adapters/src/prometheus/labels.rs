//! The labels of a series: sorted, unique, valid, and encoded once.
//!
//! Tags as they stand in an envelope enter; labels leave as the fields of a remote-write `TimeSeries` (contract: syslog drains §8.2),
//! without `__name__`, and one by one for a page. Never holds an empty name or value, a name that begins with `__`, or one name twice.
//!
//! # Which tag becomes a label
//! When several have the same label name: a label of our own (`source_id`, `instance_id`, `unit`, `environment`), else the tag whose key
//! is that very name, else the first of the others in order of their keys, else a copy of another tag ([`Naming::copies`]).

use std::borrow::Cow;

use proto::raw::wire::{put_bytes, varint_len};

use super::names::{self, Naming};

/// Bytes of a label's value; longer ones are cut at a character.
pub const MAX_VALUE: usize = 1024;
/// Tags of an envelope that become labels; those after them in order of their keys are left out.
pub const MAX_TAGS: usize = 60;

/// Where the labels that a series adds to the common ones belong in their order.
const INSERTED: [&str; 3] = ["__name__", "le", "quantile"];

/// Sorted labels, encoded as `repeated Label labels = 1`.
#[derive(Debug, PartialEq, Eq)]
pub struct Labels {
    packed: Box<[u8]>,
    /// Where `__name__`, `le` and `quantile` would stand.
    at: [u32; 3],
}

/// A label that series of one family add to the common ones.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Inserted {
    Le,
    Quantile,
}

impl Labels {
    /// Each label, sorted by name.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        let mut rest = &self.packed[..];
        std::iter::from_fn(move || {
            let (_, label) = field(&mut rest)?;
            let mut label = label;
            let (_, name) = field(&mut label)?;
            let (_, value) = field(&mut label)?;
            Some((std::str::from_utf8(name).ok()?, std::str::from_utf8(value).ok()?))
        })
    }

    /// Encoded bytes.
    pub fn packed(&self) -> &[u8] {
        &self.packed
    }

    /// The encoded bytes before and after `__name__`.
    pub(crate) fn around_name(&self) -> (&[u8], &[u8]) {
        self.packed.split_at(self.at[0] as usize)
    }

    /// The encoded bytes before `__name__`, between it and the inserted label, and after that.
    pub(crate) fn around(&self, inserted: Inserted) -> (&[u8], &[u8], &[u8]) {
        let (name, other) = (self.at[0] as usize, self.at[1 + inserted as usize] as usize);
        (&self.packed[..name], &self.packed[name..other], &self.packed[other..])
    }
}

/// One length-delimited field that [`Builder::build`] wrote.
fn field<'a>(rest: &mut &'a [u8]) -> Option<(u8, &'a [u8])> {
    let (&key, mut bytes) = rest.split_first()?;
    let (mut len, mut shift) = (0usize, 0);
    loop {
        let (&byte, more) = bytes.split_first()?;
        bytes = more;
        len |= usize::from(byte & 0x7f) << shift;
        shift += 7;
        if byte < 0x80 {
            break;
        }
    }
    let (value, more) = bytes.split_at_checked(len)?;
    *rest = more;
    Some((key, value))
}

/// Labels on their way to be sorted.
#[derive(Debug, Default)]
pub(crate) struct Builder<'a> {
    labels: Vec<Candidate<'a>>,
}

#[derive(Debug)]
struct Candidate<'a> {
    name: Cow<'a, str>,
    rank: Rank,
    key: &'a str,
    value: Cow<'a, str>,
}

/// Who has a name when several want it: the first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Rank {
    Own,
    Exact,
    Mapped,
    Copy,
}

impl<'a> Builder<'a> {
    /// A label of our own. Its name must be valid.
    pub(crate) fn own(&mut self, name: &'a str, value: &'a [u8]) {
        self.push(name.into(), Rank::Own, name, value);
    }

    /// The tags of an envelope, in wire order: the last of several with one key counts. `reserved` names are left out.
    pub(crate) fn tags(&mut self, tags: &[(&'a [u8], &'a [u8])], naming: Naming, reserved: &[&str]) {
        let mut sorted: Vec<(&str, &[u8])> =
            tags.iter().filter_map(|(key, value)| Some((std::str::from_utf8(key).ok()?, *value))).collect();
        // Stable: of one key, the last stays last.
        sorted.sort_by_key(|(key, _)| *key);
        let mut taken = 0;
        for (i, (key, value)) in sorted.iter().enumerate() {
            let is_last = sorted.get(i + 1).is_none_or(|(next, _)| next != key);
            let Some(name) = is_last.then(|| names::label(key)).flatten() else { continue };
            if value.is_empty() || reserved.contains(&name.as_ref()) {
                continue;
            }
            if taken == MAX_TAGS {
                break;
            }
            taken += 1;
            if let Some((copy, _)) = naming.copies().iter().find(|(_, of)| *of == name) {
                self.push((*copy).into(), Rank::Copy, key, value);
            }
            let rank = if name == *key { Rank::Exact } else { Rank::Mapped };
            self.push(name, rank, key, value);
        }
    }

    fn push(&mut self, name: Cow<'a, str>, rank: Rank, key: &'a str, value: &'a [u8]) {
        let value = String::from_utf8_lossy(&value[..value.len().min(MAX_VALUE + 4)]);
        let value: Cow<'a, str> = match value {
            Cow::Borrowed(value) => names::cut(value, MAX_VALUE).into(),
            Cow::Owned(mut value) => {
                value.truncate(names::cut(&value, MAX_VALUE).len());
                value.into()
            }
        };
        if !value.is_empty() {
            self.labels.push(Candidate { name, rank, key, value });
        }
    }

    pub(crate) fn build(mut self) -> Labels {
        let order = |label: &Candidate<'a>| (label.rank, label.key);
        self.labels.sort_by(|one, other| one.name.cmp(&other.name).then_with(|| order(one).cmp(&order(other))));
        self.labels.dedup_by(|later, first| later.name == first.name);
        let size: usize = self.labels.iter().map(|label| 12 + label.name.len() + label.value.len()).sum();
        let mut packed = Vec::with_capacity(size);
        let mut at = [None; 3];
        for label in &self.labels {
            for (at, name) in at.iter_mut().zip(INSERTED) {
                if at.is_none() && *label.name > *name {
                    *at = Some(packed.len() as u32);
                }
            }
            put_label(&mut packed, &label.name, &label.value);
        }
        let end = packed.len() as u32;
        Labels { packed: packed.into(), at: at.map(|at| at.unwrap_or(end)) }
    }
}

/// Appends one `Label` in field 1.
pub(crate) fn put_label(into: &mut Vec<u8>, name: &str, value: &str) {
    let len = 2 + varint_len(name.len() as u64) + varint_len(value.len() as u64) + name.len() + value.len();
    into.push(1 << 3 | 2);
    proto::raw::wire::put_varint(into, len as u64);
    put_bytes(into, 1, name.as_bytes());
    put_bytes(into, 2, value.as_bytes());
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const FIREHOSE: Naming = Naming::FirehoseExporter { retro_compat: true, enable_delta: false };

    fn labels(own: &[(&'static str, &str)], tags: &[(&str, &str)], naming: Naming) -> Vec<(String, String)> {
        let tags: Vec<_> = tags.iter().map(|(key, value)| (key.as_bytes(), value.as_bytes())).collect();
        let mut builder = Builder::default();
        for (name, value) in own {
            builder.own(name, value.as_bytes());
        }
        builder.tags(&tags, naming, &["le"]);
        builder.build().iter().map(|(name, value)| (name.to_owned(), value.to_owned())).collect()
    }

    fn pairs(of: &[(&str, &str)]) -> Vec<(String, String)> {
        of.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
    }

    #[test]
    fn of_tags_that_become_one_label_the_exact_one_wins_then_the_first_key() {
        let got = labels(
            &[("source_id", "mine")],
            &[("a.b", "2"), ("a-b", "1"), ("c_d", "exact"), ("c-d", "mapped"), ("source_id", "spoofed")],
            Naming::Plain,
        );
        assert_eq!(got, pairs(&[("a_b", "1"), ("c_d", "exact"), ("source_id", "mine")]));
    }

    #[test]
    fn contract_8_1_copies_and_what_is_left_out() {
        let got = labels(
            &[("unit", "")],
            &[
                ("deployment", "cf"),
                ("job", "rep"),
                ("bosh_job_name", "own"),
                ("__x", "1"),
                ("e", ""),
                ("le", "1"),
                ("app_id", "g"),
            ],
            FIREHOSE,
        );
        let expected = [
            ("app_id", "g"),
            ("application_id", "g"),
            ("bosh_deployment", "cf"),
            ("bosh_job_name", "own"),
            ("deployment", "cf"),
            ("job", "rep"),
        ];
        assert_eq!(got, pairs(&expected));
    }

    #[test]
    fn the_last_of_one_key_counts_and_long_values_are_cut_at_a_character() {
        let long = "é".repeat(MAX_VALUE);
        let got = labels(&[], &[("a", "1"), ("a", &long)], Naming::Plain);
        assert_eq!(got[0].1, "é".repeat(MAX_VALUE / 2));
        assert_eq!(labels(&[], &[("a", "1"), ("a", "")], Naming::Plain), []);
    }

    proptest! {
        /// Sorted, unique, valid, not empty; and the inserted labels have their place.
        #[test]
        fn labels_are_sorted_unique_and_valid(tags in prop::collection::vec(("[a-cA-C_.0é-]{0,4}", ".{0,3}"), 0..80)) {
            let raw: Vec<_> = tags.iter().map(|(key, value)| (key.as_bytes(), value.as_bytes())).collect();
            let mut builder = Builder::default();
            builder.own("source_id", b"s");
            builder.tags(&raw, FIREHOSE, &[]);
            let labels = builder.build();
            let names: Vec<_> = labels.iter().map(|(name, _)| name).collect();
            prop_assert!(names.windows(2).all(|pair| pair[0] < pair[1]), "{names:?}");
            prop_assert!(names.len() <= 2 * MAX_TAGS + 1);
            for (name, value) in labels.iter() {
                prop_assert!(!value.is_empty() && name.is_ascii() && !name.starts_with("__"));
                prop_assert!(!name.starts_with(|first: char| first.is_ascii_digit()));
            }
            let (before, after) = labels.around_name();
            let count = |bytes: &[u8]| Labels { packed: bytes.into(), at: [0; 3] }.iter().count();
            prop_assert_eq!(count(before), names.iter().filter(|name| **name < "__name__").count());
            prop_assert_eq!(count(before) + count(after), names.len());
        }
    }
}
