//! HOSTNAME, APP-NAME and PROCID, made once for each instance and remembered.
//!
//! The lines of an instance have the same names, and making them looks at each byte. So the last names of some instances are kept with
//! what they were made of, and used again while that is the same. Once they have been, so are the tags.

use proto::raw::source_hash;

use super::memo::Memo;
use super::parts::{Parts, Tag, find};
use super::{Unencodable, field, put_hostname, put_log_procid};

/// Instances whose names are remembered at most.
const SLOTS: usize = 64;

/// Names made of more bytes are not remembered: a few would take much memory.
const REMEMBERED: usize = 1024;

/// After tags that were not the known ones, so many lines at most go by until those of one are remembered.
const PATIENCE: u8 = 64;

/// The longest header fields, in bytes (RFC 5424 §6). Longer ones are cut.
const MAX_HOSTNAME: usize = 255;
const MAX_APP_NAME: usize = 48;
pub(super) const MAX_PROCID: usize = 128;

/// The names that were made last.
#[derive(Debug)]
pub(super) struct Names {
    /// For envelopes whose tags name no app, space and organization.
    hostname: String,
    /// One, and twice as many up to [`SLOTS`] whenever two instances want the same one: most drains have few instances.
    slots: Vec<Slot>,
    /// Names that are not remembered.
    other: Slot,
    /// The slot whose names were the known ones, of the envelope at hand.
    hit: Option<usize>,
}

/// The names of an instance.
#[derive(Clone, Debug, Default)]
struct Slot {
    of_log: bool,
    /// Source, instance, source type, organization, space and app, one after the other.
    made_of: Vec<u8>,
    lens: [Option<u32>; 6],
    /// ` HOSTNAME APP-NAME PROCID - `; empty without names.
    text: Vec<u8>,
    memo: Option<Box<Memo>>,
    /// Lines until tags are remembered, and how many it will be the next time.
    wait: u8,
    patience: u8,
}

type Inputs<'a> = [Option<&'a [u8]>; 6];

impl Names {
    pub(super) fn new(hostname: &str) -> Self {
        Self { hostname: hostname.to_owned(), slots: vec![Slot::default()], other: Slot::default(), hit: None }
    }

    /// ` HOSTNAME APP-NAME PROCID - ` of an envelope, and its tags, if both are known.
    pub(super) fn known(&mut self, envelope: &Parts<'_>, of_log: bool) -> Option<(&[u8], &Memo)> {
        let at = hash(envelope, of_log) % self.slots.len();
        let slot = &mut self.slots[at];
        let memo = slot.memo.as_deref()?;
        if slot.of_log != of_log || !slot.is_of_instance(envelope) || !memo.is_of(&envelope.entries) {
            return None;
        }
        slot.patience = 0;
        Some((&slot.text, memo))
    }

    /// Remembers the tags of the envelope whose names were asked for last, if these were known, for the next one.
    pub(super) fn learn(&mut self, envelope: &Parts<'_>, tags: usize, element: &[u8], admits_log: bool) {
        let Some(at) = self.hit else { return };
        let slot = &mut self.slots[at];
        if slot.wait > 0 {
            slot.wait -= 1;
            return;
        }
        slot.patience = (2 * slot.patience).clamp(1, PATIENCE);
        slot.wait = slot.patience;
        // A key that stands twice has an order.
        let memo =
            if tags == envelope.entries.len() { Memo::new(&envelope.entries, element, admits_log) } else { None };
        slot.memo = memo.map(Box::new);
    }

    /// ` HOSTNAME APP-NAME PROCID - ` of an envelope with these tags.
    ///
    /// # Errors
    /// [`Unencodable::Header`].
    pub(super) fn of(&mut self, envelope: &Parts<'_>, tags: &[Tag<'_>], of_log: bool) -> Result<&[u8], Unencodable> {
        let tag = |key| find(tags, key).map(|tag| tag.value);
        let inputs: Inputs<'_> = [
            Some(envelope.source_id),
            Some(envelope.instance_id),
            tag("source_type"),
            tag("organization_name"),
            tag("space_name"),
            tag("app_name"),
        ];
        let hash = hash(envelope, of_log);
        let at = hash % self.slots.len();
        self.hit = self.slots[at].is_of(&inputs, of_log).then_some(at);
        if self.hit.is_some() {
            return Ok(&self.slots[at].text);
        }
        if inputs.iter().flatten().map(|input| input.len()).sum::<usize>() > REMEMBERED {
            self.other.make(&inputs, of_log, &self.hostname)?;
            return Ok(&self.other.text);
        }
        if !self.slots[at].text.is_empty() && self.slots.len() < SLOTS {
            self.slots = vec![Slot::default(); 2 * self.slots.len()];
        }
        let at = hash % self.slots.len();
        self.slots[at].make(&inputs, of_log, &self.hostname)?;
        Ok(&self.slots[at].text)
    }
}

fn hash(envelope: &Parts<'_>, of_log: bool) -> usize {
    let last = envelope.instance_id.last().copied().unwrap_or_default();
    source_hash(envelope.source_id).wrapping_add(u64::from(last) << 1 | u64::from(of_log)) as usize
}

impl Slot {
    fn is_of_instance(&self, envelope: &Parts<'_>) -> bool {
        let ids = [envelope.source_id, envelope.instance_id];
        let [Some(source), Some(instance), ..] = self.lens else { return false };
        let (source, instance) = (source as usize, instance as usize);
        // Both were made of what stands here.
        ids[0].len() == source
            && ids[1].len() == instance
            && self.made_of[..source] == *ids[0]
            && self.made_of[source..source + instance] == *ids[1]
    }

    fn is_of(&self, inputs: &Inputs<'_>, of_log: bool) -> bool {
        if self.text.is_empty() || self.of_log != of_log {
            return false;
        }
        let mut rest = &self.made_of[..];
        for (input, len) in inputs.iter().zip(self.lens) {
            match (input, len) {
                (Some(input), Some(len)) if input.len() == len as usize => {
                    let (known, more) = rest.split_at(input.len());
                    if known != *input {
                        return false;
                    }
                    rest = more;
                }
                (None, None) => {}
                _ => return false,
            }
        }
        true
    }

    fn make(&mut self, inputs: &Inputs<'_>, of_log: bool, hostname: &str) -> Result<(), Unencodable> {
        let mut out = std::mem::take(&mut self.text);
        out.clear();
        self.memo = None;
        let [source_id, instance_id, source_type, names @ ..] = inputs.map(Option::unwrap_or_default);
        let [.., organization, space, app] = inputs;
        let named = organization.or(*space).or(*app).is_some();
        field(&mut out, "HOSTNAME", MAX_HOSTNAME, |out| match named {
            true => put_hostname(out, names),
            false => out.extend_from_slice(hostname.as_bytes()),
        })?;
        field(&mut out, "APP-NAME", MAX_APP_NAME, |out| out.extend_from_slice(source_id))?;
        field(&mut out, "PROCID", MAX_PROCID, |out| {
            if of_log {
                return put_log_procid(out, source_type, instance_id, MAX_PROCID);
            }
            out.push(b'[');
            out.extend_from_slice(instance_id);
            out.push(b']');
        })?;
        out.extend_from_slice(b" - ");
        self.made_of.clear();
        inputs.iter().flatten().for_each(|input| self.made_of.extend_from_slice(input));
        self.lens = inputs.map(|input| input.map(|input| u32::try_from(input.len()).unwrap_or(u32::MAX)));
        (self.of_log, self.text) = (of_log, out);
        Ok(())
    }
}
