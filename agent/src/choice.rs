//! Which dopplers get what: those of the agent's own zone, and the others when the zone is down or too small.
//!
//! Pure: what is known of each lane enters, with the time; a [`Placement`] leaves. In short (the figures are those of the constants):
//! without a usable doppler in the zone the others take over at once, with less than half of them after 2 s; when the zone is well again
//! its share comes back after 30 s, a tenth of the source instances a second.

use std::time::Duration;

use proto::placement::{place, score};
use tokio::time::Instant;

/// How long less than half of a zone may be usable before others help, and how long an agent that starts waits for its own zone.
const SHORT: Duration = Duration::from_secs(2);
/// How long a zone must be well before its share comes back.
const WELL: Duration = Duration::from_secs(30);
/// How long coming back takes.
const RETURN: Duration = Duration::from_secs(10);
/// Its steps.
const STEPS: u32 = 10;

/// What is known of one lane.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct View {
    /// [`proto::placement::member`] of its doppler.
    pub(crate) member: u64,
    /// In the agent's zone.
    pub(crate) home: bool,
    /// Connected, and confirming.
    pub(crate) usable: bool,
}

/// Where source instances go.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Placement {
    /// Lanes, by index, and their members.
    home: Members,
    /// Lanes that help.
    help: Members,
    /// How many of [`STEPS`] shares of the source instances go to those that help.
    helped: u32,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Members {
    lanes: Vec<usize>,
    members: Vec<u64>,
}

/// What an agent remembers to choose.
#[derive(Debug)]
pub(crate) struct Choice {
    mode: Mode,
    /// A doppler of the zone has been usable, or the wait for one is over.
    started: bool,
    since: Instant,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Mode {
    /// The zone's own serve alone; if they are too few, since when.
    Home { short: Option<Instant> },
    /// Others help; with the zone's own, if some were usable when it began; well again since when.
    Helped { together: bool, well: Option<Instant> },
}

impl Choice {
    pub(crate) fn new(now: Instant) -> Self {
        Self { mode: Mode::Home { short: None }, started: false, since: now }
    }

    /// Whether dopplers of other zones should be connected.
    pub(crate) fn wants_help(&self) -> bool {
        matches!(self.mode, Mode::Helped { .. })
    }

    /// Whether the answer can change with time alone.
    pub(crate) fn is_moving(&self) -> bool {
        !self.started || !matches!(self.mode, Mode::Home { short: None })
    }

    /// Where to place now. `known` is how many dopplers the zone has in all, `busy` says that they cannot take what there is.
    pub(crate) fn decide(&mut self, lanes: &[View], known: usize, busy: bool, now: Instant) -> Placement {
        let usable = lanes.iter().filter(|lane| lane.home && lane.usable).count();
        self.started |= usable > 0 || now.duration_since(self.since) >= SHORT;
        let well = usable > 0 && 2 * usable >= known && !busy;
        let helped = self.step(usable, well, now);
        let together = matches!(self.mode, Mode::Helped { together: true, .. });
        let home = Members::of(lanes, |lane| lane.usable && lane.home);
        let help = Members::of(lanes, |lane| lane.usable && (together || !lane.home));
        if helped == 0 { Placement { home, ..Placement::default() } } else { Placement { home, help, helped } }
    }

    /// The mode for what is now, and how many shares are helped with.
    fn step(&mut self, usable: usize, is_well: bool, now: Instant) -> u32 {
        if !self.started {
            return 0;
        }
        match &mut self.mode {
            Mode::Home { short } if is_well => *short = None,
            Mode::Home { short } => {
                let since = *short.get_or_insert(now);
                if usable == 0 || now.duration_since(since) >= SHORT {
                    self.mode = Mode::Helped { together: usable > 0, well: None };
                }
            }
            Mode::Helped { well, .. } if !is_well => *well = None,
            Mode::Helped { well, .. } => {
                let since = *well.get_or_insert(now);
                let returning = now.duration_since(since).saturating_sub(WELL);
                let returned = returning.as_millis() * u128::from(STEPS) / RETURN.as_millis();
                let left = STEPS.saturating_sub(u32::try_from(returned).unwrap_or(STEPS));
                if left == 0 {
                    self.mode = Mode::Home { short: None };
                }
                return left;
            }
        }
        if self.wants_help() { STEPS } else { 0 }
    }
}

impl Members {
    fn of(lanes: &[View], is_in: impl Fn(&View) -> bool) -> Self {
        let of = || lanes.iter().enumerate().filter(|(_, lane)| is_in(lane));
        Self { lanes: of().map(|(i, _)| i).collect(), members: of().map(|(_, lane)| lane.member).collect() }
    }

    fn place(&self, instance: u64) -> Option<usize> {
        place(&self.members, instance).map(|at| self.lanes[at])
    }
}

impl Placement {
    /// The lane of a source instance ([`proto::placement::instance`]); `None` when there is none at all.
    pub(crate) fn place(&self, instance: u64) -> Option<usize> {
        // Which share an instance is in must not depend on where it would go.
        let share = score(0, instance) % u64::from(STEPS);
        let (first, second) =
            if share < u64::from(self.helped) { (&self.help, &self.home) } else { (&self.home, &self.help) };
        first.place(instance).or_else(|| second.place(instance))
    }

    /// The only lane there is.
    pub(crate) fn only(&self) -> Option<usize> {
        let mut all = self.lanes();
        all.next().filter(|first| all.all(|lane| lane == *first))
    }

    /// Every lane that something goes to; some may come twice.
    pub(crate) fn lanes(&self) -> impl Iterator<Item = usize> + '_ {
        self.home.lanes.iter().chain(&self.help.lanes).copied()
    }

    /// Whether no lane is there.
    pub(crate) fn is_empty(&self) -> bool {
        self.lanes().next().is_none()
    }

    /// Lane `i` is now lane `places[i]`.
    pub(crate) fn renumber(&mut self, places: &[usize]) {
        let lanes = self.home.lanes.iter_mut().chain(&mut self.help.lanes);
        lanes.for_each(|lane| *lane = places[*lane]);
    }

    /// Whether going from this one to `next` may take a source instance from a lane for which `still_there`: then what that lane has
    /// must have arrived before the next envelope of the instance is sent elsewhere.
    pub(crate) fn moves(&self, next: &Self, still_there: impl Fn(usize) -> bool) -> bool {
        if self.is_empty() || self == next {
            return false;
        }
        let gained = next.lanes().any(|lane| !self.lanes().any(|had| had == lane));
        let left = self.lanes().any(|lane| still_there(lane) && !next.lanes().any(|has| has == lane));
        gained || left || self.helped != next.helped
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn view(member: u64, home: bool, usable: bool) -> View {
        View { member, home, usable }
    }

    /// `home` and `away` say which of each are usable.
    fn lanes(home: &[bool], away: &[bool]) -> Vec<View> {
        let homes = home.iter().enumerate().map(|(i, usable)| view(i as u64 + 1, true, *usable));
        let aways = away.iter().enumerate().map(|(i, usable)| view(i as u64 + 100, false, *usable));
        homes.chain(aways).collect()
    }

    /// The part of 1 000 instances that goes to lanes out of the zone.
    fn away(placement: &Placement, lanes: &[View]) -> usize {
        let out = |i: &u64| placement.place(score(7, *i)).is_some_and(|lane| !lanes[lane].home);
        (0..1_000).filter(out).count()
    }

    struct Clock {
        choice: Choice,
        now: Instant,
    }

    impl Clock {
        fn new() -> Self {
            let now = Instant::now();
            Self { choice: Choice::new(now), now }
        }

        fn after(&mut self, milliseconds: u64, lanes: &[View]) -> Placement {
            self.now += Duration::from_millis(milliseconds);
            let known = lanes.iter().filter(|lane| lane.home).count();
            self.choice.decide(lanes, known, false, self.now)
        }
    }

    #[test]
    fn while_the_zone_is_well_nothing_leaves_it() {
        let (mut clock, lanes) = (Clock::new(), lanes(&[true, true, true], &[true, true]));
        let placement = clock.after(0, &lanes);
        assert_eq!((away(&placement, &lanes), clock.choice.wants_help()), (0, false));
        assert!(!clock.choice.is_moving());
    }

    #[test]
    fn an_agent_that_starts_waits_for_its_zone() {
        let (mut clock, none) = (Clock::new(), lanes(&[false, false], &[true]));
        assert!(clock.after(1_900, &none).is_empty());
        assert!(clock.choice.is_moving());
        let placement = clock.after(200, &none);
        assert_eq!(away(&placement, &none), 1_000);
    }

    #[test]
    fn a_dead_zone_is_left_at_once_and_comes_back_by_and_by() {
        let (well, dead) = (lanes(&[true, true], &[true]), lanes(&[false, false], &[true]));
        let mut clock = Clock::new();
        clock.after(0, &well);
        let placement = clock.after(10, &dead);
        assert_eq!(away(&placement, &dead), 1_000);
        assert!(clock.choice.wants_help());
        // Healed: nothing moves for 30 s, then a tenth a second.
        assert_eq!(away(&clock.after(0, &well), &well), 1_000);
        assert_eq!(away(&clock.after(30_000, &well), &well), 1_000);
        let mut last = 1_000;
        for _ in 0..9 {
            let now = away(&clock.after(1_000, &well), &well);
            assert!((last - 150..last - 50).contains(&now), "{last} to {now}");
            last = now;
        }
        assert_eq!(away(&clock.after(1_000, &well), &well), 0);
        assert!(!clock.choice.wants_help());
    }

    #[test]
    fn a_zone_that_fails_again_on_its_way_back_starts_over() {
        let (well, dead) = (lanes(&[true], &[true]), lanes(&[false], &[true]));
        let mut clock = Clock::new();
        clock.after(0, &well);
        clock.after(0, &dead);
        clock.after(0, &well);
        assert!(away(&clock.after(35_000, &well), &well) < 1_000);
        assert_eq!(away(&clock.after(10, &dead), &dead), 1_000);
        assert_eq!(away(&clock.after(10, &well), &well), 1_000);
    }

    #[test]
    fn less_than_half_a_zone_is_helped_after_two_seconds() {
        let (well, small) = (lanes(&[true; 4], &[true; 2]), lanes(&[true, false, false, false], &[true; 2]));
        let mut clock = Clock::new();
        clock.after(0, &well);
        assert_eq!(away(&clock.after(0, &small), &small), 0);
        assert_eq!(away(&clock.after(1_900, &small), &small), 0);
        let helped = away(&clock.after(200, &small), &small);
        assert!((550..780).contains(&helped), "the one that is left and two others share evenly: {helped}");
        let half = lanes(&[true, true, false, false], &[true; 2]);
        let mut clock = Clock::new();
        clock.after(0, &well);
        clock.after(0, &half);
        assert_eq!(away(&clock.after(10_000, &half), &half), 0);
    }

    #[test]
    fn a_zone_that_cannot_take_more_is_helped() {
        let lanes = lanes(&[true, true], &[true, true]);
        let mut clock = Clock::new();
        clock.after(0, &lanes);
        let busy = |clock: &mut Clock, milliseconds| {
            clock.now += Duration::from_millis(milliseconds);
            clock.choice.decide(&lanes, 2, true, clock.now)
        };
        assert_eq!(away(&busy(&mut clock, 0), &lanes), 0);
        let helped = away(&busy(&mut clock, 2_000), &lanes);
        assert!((400..600).contains(&helped), "{helped}");
    }

    #[test]
    fn only_what_can_overtake_itself_is_a_move() {
        let placed = |usable: &[bool]| {
            let mut clock = Clock::new();
            clock.after(0, &lanes(usable, &[]))
        };
        let (both, first) = (placed(&[true, true]), placed(&[true, false]));
        assert!(!Placement::default().moves(&both, |_| true), "nothing was sent before");
        assert!(!both.moves(&both.clone(), |_| true));
        assert!(first.moves(&both, |_| true), "the second takes from the first");
        assert!(!both.moves(&first, |lane| lane == 0), "the second is gone");
        assert!(both.moves(&first, |_| true), "the second is asked to leave");
        assert_eq!((both.only(), first.only()), (None, Some(0)));
    }
}
