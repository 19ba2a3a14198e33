//! Where a subscription to a doppler starts: in the past, where the subscriber would otherwise miss what that doppler took before it
//! came, else live.
//!
//! What enters: since when a consumer has been subscribed, and which lives of a doppler its stream has met. What leaves: the
//! [`Start`] to ask for, and at the doppler how far back to go. Pure: it has no clock and sends nothing.

use std::collections::VecDeque;
use std::time::Duration;

use crate::hydrant::v1::Start;

/// No subscription asks for more of the past, however long it has been open.
pub const MAX_AGE: Duration = Duration::from_secs(10 * 60);

/// What a doppler took this long before its last frame may have been on its way behind it when the stream broke.
const ON_ITS_WAY: Duration = Duration::from_millis(500);

/// Lives remembered of one address: a name may stand for several dopplers, of which each connect meets one.
const REMEMBERED: usize = 16;

/// What a consumer's subscription knows of the doppler behind one address.
#[derive(Clone, Debug)]
pub struct Acquaintance {
    /// Oldest first.
    epochs: VecDeque<u64>,
    /// It was there when the consumer subscribed, and has not failed since: the first stream begins live.
    present: bool,
    /// The life to which the last stream broke, if it broke.
    broken: Option<u64>,
}

impl Acquaintance {
    /// A doppler that was in the set when the consumer subscribed. Its first stream begins live if the first attempt succeeds.
    pub fn present() -> Self {
        Self { epochs: VecDeque::new(), present: true, broken: None }
    }

    /// A doppler that came later. The consumer wants what it has taken since the consumer subscribed.
    pub fn newcomer() -> Self {
        Self { epochs: VecDeque::new(), present: false, broken: None }
    }

    /// What to ask for, `age` after the consumer subscribed and `quiet` after the last frame of a doppler's last stream.
    pub fn start(&self, age: Duration, quiet: Duration) -> Start {
        let milliseconds = |age: Duration| u64::try_from(age.min(MAX_AGE).as_millis()).expect("ten minutes at most");
        Start {
            known_epochs: self.epochs.iter().copied().collect(),
            max_age_ms: milliseconds(if self.present { Duration::ZERO } else { age }),
            broken_epoch: self.broken.unwrap_or(0),
            broken_age_ms: if self.broken.is_some() { milliseconds((quiet + ON_ITS_WAY).min(age)) } else { 0 },
        }
    }

    /// A stream has opened to this life of the doppler.
    pub fn met(&mut self, epoch: u64) {
        (self.present, self.broken) = (false, None);
        self.epochs.retain(|known| *known != epoch);
        if self.epochs.len() == REMEMBERED {
            self.epochs.pop_front();
        }
        self.epochs.push_back(epoch);
    }

    /// An attempt has failed, or a stream has ended in order: whoever answers next may be somebody new.
    pub fn missed(&mut self) {
        self.present = false;
    }

    /// A stream has broken: what was on its way may be lost.
    pub fn broke(&mut self) {
        self.present = false;
        self.broken = self.broken.or(self.epochs.back().copied());
    }
}

impl Start {
    /// How much of its past a doppler in its life `epoch` is to send first; zero is none.
    pub fn age(&self, epoch: u64) -> Duration {
        Duration::from_millis(match self.known_epochs.contains(&epoch) {
            true if epoch == self.broken_epoch => self.broken_age_ms,
            true => 0,
            false => self.max_age_ms,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MINUTE: Duration = Duration::from_secs(60);

    #[test]
    fn a_doppler_that_was_there_starts_live_and_its_next_life_does_not() {
        let mut known = Acquaintance::present();
        assert_eq!(known.start(MINUTE, MINUTE).age(1), Duration::ZERO);
        known.met(1);
        known.missed();
        let start = known.start(MINUTE, MINUTE);
        assert_eq!((start.age(1), start.age(2)), (Duration::ZERO, MINUTE));
        known.met(2);
        let start = known.start(2 * MINUTE, MINUTE);
        assert_eq!((start.age(1), start.age(2), start.age(3)), (Duration::ZERO, Duration::ZERO, 2 * MINUTE));
    }

    #[test]
    fn a_newcomer_and_one_that_was_away_start_where_the_consumer_did() {
        assert_eq!(Acquaintance::newcomer().start(MINUTE, MINUTE).age(1), MINUTE);
        let mut away = Acquaintance::present();
        away.missed();
        assert_eq!(away.start(MINUTE, MINUTE).age(1), MINUTE);
    }

    #[test]
    fn a_stream_that_broke_goes_on_a_little_before_where_it_was() {
        let mut known = Acquaintance::present();
        known.met(1);
        known.broke();
        let quiet = Duration::from_secs(3);
        let start = known.start(MINUTE, quiet);
        assert_eq!((start.age(1), start.age(2)), (Duration::from_millis(3_500), MINUTE));
        known.missed();
        assert_eq!(known.start(MINUTE, 2 * MINUTE).age(1), MINUTE, "not before the consumer subscribed");
        known.met(1);
        known.missed();
        assert_eq!(known.start(MINUTE, quiet).age(1), Duration::ZERO, "an end in order leaves nothing out");
    }

    #[test]
    fn age_and_memory_are_bounded() {
        let mut known = Acquaintance::newcomer();
        (0..100).for_each(|epoch| known.met(epoch));
        let start = known.start(1_000 * MINUTE, MINUTE);
        assert_eq!(start.known_epochs, (84..100).collect::<Vec<_>>());
        assert_eq!(start.age(0), MAX_AGE);
        known.met(84);
        assert_eq!(known.start(MINUTE, MINUTE).known_epochs.last(), Some(&84), "met again is met last");
    }
}
