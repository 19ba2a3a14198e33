//! The tags of an instance as one element, made once.
//!
//! The lines of an instance mostly have the same tags, in whatever order their sender's map had them. Sorting, checking and writing them
//! is most of what a line costs; seeing that they are the known ones is a look into a table and a comparison for each.

/// Places in the table. With 16 tags a free choice of places is found within a few tries.
const PLACES: usize = 64;
/// Tags of an envelope that are remembered at most.
const TAGS: usize = 16;
/// Bytes of them, as they stand on the wire.
const BYTES: usize = 2048;
/// No tag has this place.
const NONE: u8 = u8::MAX;

/// The tags of some envelope.
#[derive(Clone, Debug)]
pub(super) struct Memo {
    /// Makes a place of a tag's digest.
    factor: u64,
    table: [u8; PLACES],
    /// The map entries, one after the other, and where each ends.
    entries: Vec<u8>,
    ends: Vec<u16>,
    /// `[tags@47450 …]`; empty without tags.
    pub(super) element: Vec<u8>,
    /// Whether the drain takes logs with these tags.
    pub(super) admits_log: bool,
}

impl Memo {
    /// Remembers `element` for these map entries, whose keys differ. `None` when they are too many, too long, or too much alike.
    pub(super) fn new(entries: &[&[u8]], element: &[u8], admits_log: bool) -> Option<Self> {
        if entries.len() > TAGS || entries.iter().map(|entry| entry.len()).sum::<usize>() > BYTES {
            return None;
        }
        let (factor, table) = (0..16).find_map(|turn| {
            let factor = 0x9e37_79b9_7f4a_7c15_u64.rotate_left(4 * turn) | 1;
            let mut table = [NONE; PLACES];
            for (i, entry) in (0..).zip(entries) {
                let place = &mut table[place(entry, factor)];
                if *place != NONE {
                    return None;
                }
                *place = i;
            }
            Some((factor, table))
        })?;
        let mut memo = Self {
            factor,
            table,
            entries: Vec::with_capacity(entries.iter().map(|entry| entry.len()).sum()),
            ends: Vec::with_capacity(entries.len()),
            element: element.to_vec(),
            admits_log,
        };
        for entry in entries {
            memo.entries.extend_from_slice(entry);
            memo.ends.push(u16::try_from(memo.entries.len()).ok()?);
        }
        Some(memo)
    }

    /// Whether these are the entries, in any order.
    pub(super) fn is_of(&self, entries: &[&[u8]]) -> bool {
        if entries.len() != self.ends.len() {
            return false;
        }
        let mut seen = 0_u32;
        for entry in entries {
            let i = usize::from(self.table[place(entry, self.factor)]);
            let Some(end) = self.ends.get(i) else { return false };
            let start = if i == 0 { 0 } else { self.ends[i - 1] };
            if self.entries[usize::from(start)..usize::from(*end)] != **entry {
                return false;
            }
            seen |= 1 << i;
        }
        // As many as there are, and none twice: all.
        seen.count_ones() as usize == entries.len()
    }
}

/// Where an entry stands in the table: its length, the length and start of its key, and its end tell it from the others of an envelope.
fn place(entry: &[u8], factor: u64) -> usize {
    let start = entry.get(1..9).and_then(|bytes| bytes.first_chunk()).map_or(0, |bytes| u64::from_le_bytes(*bytes));
    let end = entry.last_chunk().map_or(0, |bytes| u64::from_le_bytes(*bytes));
    let digest = start.rotate_left(23) ^ end ^ (entry.len() as u64) << 32;
    ((digest ^ digest >> 29).wrapping_mul(factor) >> 58) as usize
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(key: &str, value: &str) -> Vec<u8> {
        let len = |text: &str| u8::try_from(text.len()).unwrap();
        [&[10, len(key)], key.as_bytes(), &[18, len(value)], value.as_bytes()].concat()
    }

    #[test]
    fn the_same_tags_in_any_order_are_known_and_no_others() {
        let id = "c0ffee00-1111-2222-3333-444455556666";
        let names =
            ["organization_id", "organization_name", "space_id", "space_name", "app_id", "app_name", "ip", "a", ""];
        let all: Vec<_> = names.iter().map(|name| entry(name, id)).collect();
        let mut entries: Vec<&[u8]> = all.iter().map(Vec::as_slice).collect();
        let memo = Memo::new(&entries, b"[x]", true).unwrap();
        for turn in 0..names.len() {
            entries.rotate_left(1);
            entries.swap(0, turn / 2);
            assert!(memo.is_of(&entries));
        }
        assert!(!memo.is_of(&entries[1..]), "one less");
        let twice = [&entries[1..], &entries[1..2]].concat();
        assert!(!memo.is_of(&twice), "one twice");
        let other = entry("app_id", "c0ffee00-1111-2222-3333-444455556667");
        let at = entries.iter().position(|entry| entry.starts_with(b"\n\x06app_id")).unwrap();
        entries[at] = &other;
        assert!(!memo.is_of(&entries), "another value");
        assert!(Memo::new(&[], b"", true).unwrap().is_of(&[]));
    }

    #[test]
    fn what_is_too_much_or_too_much_alike_is_not_remembered() {
        let long = entry("key", &"x".repeat(250));
        let many: Vec<_> = (0..17).map(|i| entry(&format!("key-{i}"), "value")).collect();
        assert!(Memo::new(&many.iter().map(Vec::as_slice).collect::<Vec<_>>(), b"", true).is_none());
        assert!(Memo::new(&[long.as_slice(); 9], b"", true).is_none());
        let alike = [entry("organization_1", "one and the same"), entry("organization_2", "one and the same")];
        assert!(Memo::new(&[&alike[0], &alike[1]], b"", true).is_none());
    }

    proptest::proptest! {
        /// Whatever is remembered is known again, and a change of one byte is seen.
        #[test]
        fn any_entries(mut entries in proptest::collection::btree_map("[ -~]{0,20}", "[ -~]{0,60}", 1..16), at: usize) {
            let wire = |map: &std::collections::BTreeMap<String, String>| -> Vec<Vec<u8>> {
                map.iter().map(|(key, value)| entry(key, value)).collect()
            };
            let all = wire(&entries);
            let slices: Vec<_> = all.iter().map(Vec::as_slice).collect();
            if let Some(memo) = Memo::new(&slices, b"", true) {
                assert!(memo.is_of(&slices.iter().rev().copied().collect::<Vec<_>>()));
                let at = at % entries.len();
                entries.values_mut().nth(at).unwrap().push('!');
                let changed = wire(&entries);
                assert!(!memo.is_of(&changed.iter().map(Vec::as_slice).collect::<Vec<_>>()));
            }
        }
    }
}
