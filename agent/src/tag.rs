//! What the agent adds to an envelope (contract: agents §1.1 to §1.3): a `source_id` where there is none, deprecated tags as tags,
//! default tags, a counter's total. Pure: encoded envelopes in, encoded envelopes out.
//!
//! An envelope that needs nothing is not touched; otherwise what is new is appended to it, except a counter's total, which is spliced
//! into the counter.

use std::collections::BTreeMap;

use bytes::Bytes;
use parking_lot::Mutex;
use proto::decimal;
use proto::raw::tags::{self, Tag, Value};
use proto::raw::{Batch, Entry, Kind, Selection, counter_name, edit, wire};

use crate::aggregate::Totals;
use crate::config::TagsConfig;

/// Adds what is missing.
#[derive(Debug)]
pub(crate) struct Tagger {
    defaults: Vec<(String, String)>,
    force: bool,
    /// Guards the totals of all counters: taken once for a batch that has counters.
    totals: Mutex<Totals>,
}

impl Tagger {
    pub(crate) fn new(config: &TagsConfig) -> Self {
        let defaults = config.set.iter().map(|(key, value)| (key.clone(), value.clone())).collect();
        Self { defaults, force: config.force, totals: Mutex::default() }
    }

    /// The batch with everything added, and how many envelopes got their `source_id` from a tag. The batch itself when it needs
    /// nothing.
    pub(crate) fn tag(&self, batch: Batch) -> (Selection, u64) {
        let mut mapped = 0;
        if !batch.entries().iter().any(|entry| self.concerns(&batch, entry)) {
            return (Selection::from(batch), mapped);
        }
        let counters = batch.entries().iter().any(|entry| entry.kind == Kind::Counter);
        let mut totals = counters.then(|| self.totals.lock());
        let mut out = Vec::with_capacity(batch.wire_len() * 3 / 2);
        let (mut added, mut counter) = (Vec::new(), Vec::new());
        for entry in batch.entries() {
            let envelope = batch.envelope(entry);
            added.clear();
            let origin = self.add(&mut added, envelope, batch.source_id(entry));
            mapped += u64::from(origin.is_some());
            let body = match &mut totals {
                Some(totals) if entry.kind == Kind::Counter => {
                    counter.clear();
                    let source_id = origin.unwrap_or(batch.source_id(entry));
                    total(&mut counter, totals, envelope, &added, source_id);
                    counter.as_slice()
                }
                _ => envelope,
            };
            wire::put_varint(&mut out, 1 << 3 | 2);
            wire::put_varint(&mut out, (body.len() + added.len()) as u64);
            out.extend_from_slice(body);
            out.extend_from_slice(&added);
        }
        drop(totals);
        (Selection::from(Batch::index(Bytes::from(out)).0), mapped)
    }

    /// True if this envelope may need something. Cheap: most batches need nothing when there are no default tags.
    fn concerns(&self, batch: &Batch, entry: &Entry) -> bool {
        entry.kind == Kind::Counter
            || !self.defaults.is_empty()
            || batch.source_id(entry).is_empty()
            || !tags::Form::Preferred.fits(batch.envelope(entry))
    }

    /// Writes the fields to append to `envelope`; the `source_id` if that is among them.
    fn add<'a>(&self, into: &mut Vec<u8>, envelope: &'a [u8], source_id: &[u8]) -> Option<&'a [u8]> {
        let mut origin = None;
        let mut present = 0_u64;
        let mut deprecated = 0;
        tags::each(envelope, |tag| {
            if let Some(i) = self.defaults.iter().position(|(key, _)| key.as_bytes() == tag.key) {
                // Past 64 default tags a present one may be added again, which `missing` looks up.
                present |= 1_u64.checked_shl(i as u32).unwrap_or(0);
            }
            deprecated += usize::from(tag.deprecated);
            if tag.key == b"origin" && source_id.is_empty() {
                origin = better_origin(origin.take(), tag);
            }
        });
        if deprecated > 0 {
            put_deprecated(into, envelope);
        }
        for (i, (key, value)) in self.defaults.iter().enumerate() {
            let known = if i < 64 { present >> i & 1 == 1 } else { tags::get(envelope, key.as_bytes()).is_some() };
            if self.force || !known {
                edit::put_tag(into, key.as_bytes(), value.as_bytes());
            }
        }
        match origin {
            Some(Tag { value: Value::Text(text), .. }) => {
                edit::put_source_id(into, text);
                Some(text)
            }
            _ => None,
        }
    }
}

/// A tag beats a deprecated tag, whose text alone counts; the last of each wins.
fn better_origin<'a>(known: Option<Tag<'a>>, tag: Tag<'a>) -> Option<Tag<'a>> {
    match known {
        Some(known) if tag.deprecated && !known.deprecated => Some(known),
        _ => Some(tag),
    }
}

/// Appends each deprecated tag as a tag. One without a value becomes an empty one.
fn put_deprecated(into: &mut Vec<u8>, envelope: &[u8]) {
    tags::each(envelope, |tag| {
        if tag.deprecated {
            let text = tag.value.text(decimal::plain).unwrap_or_default();
            edit::put_tag(into, tag.key, &text);
        }
    });
}

/// Writes the counter with its running total.
fn total(into: &mut Vec<u8>, totals: &mut Totals, envelope: &[u8], added: &[u8], source_id: &[u8]) {
    let (delta, given) = edit::counter_values(envelope);
    let total = totals.add(&series(envelope, added, source_id), delta, given);
    if total == given {
        into.extend_from_slice(envelope);
    } else {
        edit::put_with_total(into, envelope, total);
    }
}

/// A counter's identity: its name, its source and all its tags after tagging. The instance is not part of it.
fn series(envelope: &[u8], added: &[u8], source_id: &[u8]) -> Vec<u8> {
    let mut all: BTreeMap<&[u8], &[u8]> = BTreeMap::new();
    for part in [envelope, added] {
        tags::each(part, |tag| {
            if let (false, Value::Text(text)) = (tag.deprecated, tag.value) {
                all.insert(tag.key, text);
            }
        });
    }
    let parts =
        [counter_name(envelope), source_id].into_iter().chain(all.into_iter().flat_map(|(key, value)| [key, value]));
    let mut series = Vec::with_capacity(256);
    for part in parts {
        wire::put_varint(&mut series, part.len() as u64);
        series.extend_from_slice(part);
    }
    series
}

#[cfg(test)]
mod tests;
