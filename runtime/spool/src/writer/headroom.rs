//! How many bytes may still be written before too little of the file system is free.
//!
//! Arrival times and sizes enter; a number of bytes leaves. It asks the file system rarely and has no clock: time is when records
//! arrive.

use crate::fs::Space;

/// Bytes between two questions.
const BYTES: u64 = 4 << 20;
/// Milliseconds between two questions.
const AGE_MS: u64 = 1_000;

/// What was left when the file system was asked, less what was taken since.
#[derive(Debug, Default)]
pub(crate) struct Headroom {
    /// Arrival of the record for which it was asked.
    asked_ms: Option<u64>,
    taken: u64,
    left: u64,
}

impl Headroom {
    /// Whether there is room for a record of `size` bytes that arrived at `arrival_ms`.
    ///
    /// `ask` gives what the file system says, the bytes promised and not yet written, and the percent to keep free. A file system that
    /// does not answer has room: writing will show. A no is always a fresh one: the record that was refused comes again, as old as it was.
    pub(crate) fn has_room(
        &mut self,
        arrival_ms: u64,
        size: u64,
        ask: impl FnOnce() -> (Option<Space>, u64, u8),
    ) -> bool {
        let fresh = self.asked_ms.is_some_and(|asked| asked.abs_diff(arrival_ms) < AGE_MS) && self.taken < BYTES;
        if !fresh || self.left.saturating_sub(self.taken) < size {
            let (space, promised, percent) = ask();
            let free = |space: Space| {
                let keep = u128::from(space.total) * u128::from(percent.min(100)) / 100;
                space.available.saturating_sub(promised).saturating_sub(u64::try_from(keep).unwrap_or(u64::MAX))
            };
            self.left = space.map_or(u64::MAX, free);
            self.asked_ms = Some(arrival_ms);
            self.taken = 0;
        }
        self.left.saturating_sub(self.taken) >= size
    }

    /// Takes `bytes` of what is left.
    pub(crate) fn take(&mut self, bytes: u64) {
        self.taken = self.taken.saturating_add(bytes);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn asks_by_bytes_by_time_and_before_it_refuses() {
        const MIB: u64 = 1 << 20;
        let mut headroom = Headroom::default();
        let mut asked = 0;
        // Of 100 MiB 10 stay free, and 1 is promised.
        let mut has_room = |headroom: &mut Headroom, at, size, available| {
            headroom.has_room(at, size, || {
                asked += 1;
                (Some(Space { total: 100 * MIB, available }), MIB, 10)
            })
        };
        assert!(has_room(&mut headroom, 5_000, 9 * MIB, 20 * MIB));
        headroom.take(MIB);
        assert!(has_room(&mut headroom, 5_999, 8 * MIB, 0), "not asked again");
        assert!(!has_room(&mut headroom, 6_000, MIB + 1, 12 * MIB), "asked a second later");
        assert!(has_room(&mut headroom, 6_000, MIB, 0));
        headroom.take(4 * MIB);
        assert!(!has_room(&mut headroom, 6_000, 1, 11 * MIB), "asked 4 MiB later");
        assert!(
            has_room(&mut headroom, 6_000, 88 * MIB, 99 * MIB),
            "there is room again, for a record as old as before"
        );
        assert!(has_room(&mut headroom, 5_000, 9 * MIB, 20 * MIB), "asked when the clock went back");
        assert_eq!(asked, 5);
        assert!(Headroom::default().has_room(1, u64::MAX, || (None, 0, 10)));
    }
}
