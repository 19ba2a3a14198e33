//! The names in a counter or a gauge: read only when a subscription selects by name.

use smallvec::SmallVec;

use super::wire::{Fields, WireType};

/// The name of a counter envelope; empty if it has none or is no counter. The envelope must have passed the walker.
pub fn counter_name(envelope: &[u8]) -> &[u8] {
    let mut name: &[u8] = &[];
    member(envelope, 5, |message| match message {
        None => name = &[],
        Some(message) => each_len(message, 1, |text| name = text),
    });
    name
}

/// The name of a timer envelope; empty if it has none or is no timer. The envelope must have passed the walker.
pub fn timer_name(envelope: &[u8]) -> &[u8] {
    let mut name: &[u8] = &[];
    member(envelope, 7, |message| match message {
        None => name = &[],
        Some(message) => each_len(message, 1, |text| name = text),
    });
    name
}

/// The distinct metric names of a gauge envelope, sorted; empty if it has none or is no gauge. The envelope must have passed the walker.
pub fn gauge_names(envelope: &[u8]) -> SmallVec<[&[u8]; 8]> {
    let mut names: SmallVec<[&[u8]; 8]> = SmallVec::new();
    member(envelope, 6, |message| match message {
        None => names.clear(),
        Some(message) => each_len(message, 1, |entry| {
            let mut key: &[u8] = &[];
            each_len(entry, 1, |text| key = text);
            names.push(key);
        }),
    });
    names.sort_unstable();
    names.dedup();
    names
}

/// Calls `visit` with every occurrence of the oneof member `number`, and with `None` when another member replaces it.
pub(super) fn member<'a>(envelope: &'a [u8], number: u32, mut visit: impl FnMut(Option<&'a [u8]>)) {
    each_field(envelope, |found, bytes| {
        if found == number {
            visit(Some(bytes));
        } else if matches!(found, 4..=7 | 10) {
            visit(None);
        }
    });
}

fn each_len<'a>(message: &'a [u8], number: u32, mut visit: impl FnMut(&'a [u8])) {
    each_field(message, |found, bytes| {
        if found == number {
            visit(bytes);
        }
    });
}

/// Calls `visit` for every length-delimited field; ends silently where the message stops being well-formed.
pub(super) fn each_field<'a>(message: &'a [u8], mut visit: impl FnMut(u32, &'a [u8])) {
    let mut fields = Fields::new(message);
    while !fields.is_done() {
        let Ok((number, wire_type)) = fields.key() else { return };
        if wire_type == WireType::Len {
            let Ok(bytes) = fields.bytes() else { return };
            visit(number, bytes);
        } else if fields.skip(number, wire_type).is_err() {
            return;
        }
    }
}
