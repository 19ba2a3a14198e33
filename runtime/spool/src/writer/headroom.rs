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
    /// Bytes left for a record that arrived at `arrival_ms`.
    ///
    /// `ask` gives what the file system says, the bytes promised and not yet written, and the percent to keep free. A file system that
    /// does not answer has room: writing will show.
    pub(crate) fn left(&mut self, arrival_ms: u64, ask: impl FnOnce() -> (Option<Space>, u64, u8)) -> u64 {
        let fresh = self.asked_ms.is_some_and(|asked| asked.abs_diff(arrival_ms) < AGE_MS) && self.taken < BYTES;
        if !fresh {
            let (space, promised, percent) = ask();
            let free = |space: Space| {
                let keep = u128::from(space.total) * u128::from(percent.min(100)) / 100;
                space.available.saturating_sub(promised).saturating_sub(u64::try_from(keep).unwrap_or(u64::MAX))
            };
            self.left = space.map_or(u64::MAX, free);
            self.asked_ms = Some(arrival_ms);
            self.taken = 0;
        }
        self.left - self.taken.min(self.left)
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
    fn asks_by_bytes_and_by_time() {
        let mut headroom = Headroom::default();
        let mut asked = 0;
        let mut left = |headroom: &mut Headroom, at, available| {
            headroom.left(at, || {
                asked += 1;
                (Some(Space { total: 100 << 20, available }), 1 << 20, 10)
            })
        };
        assert_eq!(left(&mut headroom, 5_000, 20 << 20), 9 << 20);
        headroom.take(1 << 20);
        assert_eq!(left(&mut headroom, 5_999, 0), 8 << 20);
        assert_eq!(left(&mut headroom, 6_000, 12 << 20), 1 << 20, "a second later");
        headroom.take(4 << 20);
        assert_eq!(left(&mut headroom, 6_000, 11 << 20), 0, "4 MiB later");
        assert_eq!(left(&mut headroom, 6_000, 99 << 20), 0, "not yet");
        assert_eq!(left(&mut headroom, 5_000, 99 << 20), 88 << 20, "the clock went back");
        assert_eq!(asked, 4);
        assert_eq!(Headroom::default().left(1, || (None, 0, 10)), u64::MAX);
    }
}
