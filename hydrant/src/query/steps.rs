//! Which times a query is asked about. Pure, but for what `now` is.

use promql::{Limits, parse_step, parse_time};

use crate::tail::since;

/// Evenly spaced times, in milliseconds since the Unix epoch: from `start` on every `step`, up to `end`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Steps {
    pub(super) start: i64,
    pub(super) end: i64,
    /// More than zero.
    pub(super) step: i64,
}

/// Where a span begins, in milliseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Begin {
    /// So long before its end, which a step then falls on.
    Before(i64),
    /// At a time.
    At(i64),
}

/// Steps that are chosen where none is given, in seconds; beyond them, whole days.
const USUAL: [i64; 18] =
    [1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1_800, 3_600, 7_200, 10_800, 21_600, 43_200, DAY];
const DAY: i64 = 86_400;

impl Steps {
    /// The times of a span; without a step, `points` of them at most.
    ///
    /// # Errors
    /// The span ends before it begins, or has more steps than a server evaluates.
    pub(super) fn new(begin: Begin, end: i64, step: Option<i64>, points: usize) -> Result<Self, String> {
        let length = match begin {
            Begin::Before(length) => length,
            Begin::At(start) if start > end => return Err("the span ends before it begins".to_owned()),
            Begin::At(start) => end.saturating_sub(start),
        };
        let step = step.unwrap_or_else(|| fitting(length, points)).max(1);
        let start = match begin {
            Begin::Before(length) => end.saturating_sub(length / step * step),
            Begin::At(start) => start,
        };
        let steps = Self { start, end, step };
        let most = Limits::default().points;
        if steps.count() > most {
            return Err(format!("these are more than {most} steps; ask for a longer --step or a shorter span"));
        }
        Ok(steps)
    }

    /// How many times there are.
    pub(super) fn count(&self) -> usize {
        let between = self.end.saturating_sub(self.start) / self.step;
        usize::try_from(between).map_or(0, |between| between.saturating_add(1))
    }

    /// Which of them a time is, from 0.
    pub(super) fn place(&self, at: i64) -> Option<usize> {
        let place = usize::try_from(at.checked_sub(self.start)?.div_euclid(self.step)).ok()?;
        (place < self.count()).then_some(place)
    }
}

/// The shortest usual step with which a span has `points` at most.
fn fitting(length: i64, points: usize) -> i64 {
    let gaps = i64::try_from(points.saturating_sub(1).max(1)).unwrap_or(i64::MAX);
    let least = length.saturating_add(gaps - 1) / gaps;
    let usual = USUAL.into_iter().map(|seconds| seconds * 1000).find(|step| *step >= least);
    usual.unwrap_or_else(|| least.saturating_add(DAY * 1000 - 1) / (DAY * 1000) * (DAY * 1000))
}

/// Reads a moment in milliseconds since the Unix epoch.
pub(super) fn moment(text: &str) -> Result<i64, String> {
    let text = text.trim();
    let ago = if text == "now" { "0s" } else { text.strip_suffix("ago").unwrap_or(text).trim_end() };
    parse_time(text).or_else(|_| since(ago).map(|nanos| nanos.div_euclid(1_000_000))).map_err(|_| {
        "write seconds since 1970, a time such as 2026-11-21T14:00:00Z, or a duration ago such as 5m or 1h30m"
            .to_owned()
    })
}

/// Reads a length of time in milliseconds, more than zero.
pub(super) fn length(text: &str) -> Result<i64, String> {
    match parse_step(text.trim()) {
        Ok(length) if length > 0 => Ok(length),
        _ => Err("write a duration such as 30s or 1h30m, or a number of seconds".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR: i64 = 3_600_000;

    #[test]
    fn a_step_is_chosen_so_that_the_points_fit() {
        let step = |length, points| {
            let steps = Steps::new(Begin::Before(length), 10 * HOUR, None, points).unwrap();
            assert!(steps.count() <= points.max(2), "{steps:?}");
            assert_eq!(steps.place(steps.end), Some(steps.count() - 1), "the last step is at the end: {steps:?}");
            steps.step / 1000
        };
        assert_eq!(step(HOUR, 80), 60);
        assert_eq!(step(HOUR, 121), 30);
        assert_eq!(step(HOUR, 120), 60);
        assert_eq!(step(60_000, 500), 1);
        assert_eq!(step(1, 80), 1);
        assert_eq!(step(365 * 24 * HOUR, 80), 5 * DAY);
        assert_eq!(step(HOUR, 1), 3_600);
    }

    #[test]
    fn times_that_are_given_are_kept() {
        let steps = Steps::new(Begin::At(1_500), 10_000, Some(3_000), 80).unwrap();
        assert_eq!((steps.start, steps.count()), (1_500, 3));
        let places = [0, 1_500, 4_499, 7_500, 10_500, i64::MIN, i64::MAX].map(|at| steps.place(at));
        assert_eq!(places, [None, Some(0), Some(0), Some(2), None, None, None]);
        assert!(Steps::new(Begin::At(2), 1, None, 80).unwrap_err().contains("before it begins"));
        assert!(Steps::new(Begin::At(0), HOUR, Some(1), 80).unwrap_err().contains("11000 steps"));
        assert!(Steps::new(Begin::At(i64::MIN), i64::MAX, None, 80).is_ok());
    }

    #[test]
    fn moments_and_lengths_are_read() {
        assert_eq!(moment("1700000000.5"), Ok(1_700_000_000_500));
        assert_eq!(moment("2023-11-14T22:13:20Z"), Ok(1_700_000_000_000));
        let now = moment("now").unwrap();
        for ago in ["5m", "5m ago", "300s ago"] {
            assert!((299_000..302_000).contains(&(now - moment(ago).unwrap())), "{ago}");
        }
        for wrong in ["", "yesterday", "5 parsecs ago", "NaN", "ago"] {
            assert!(moment(wrong).unwrap_err().contains("such as"), "{wrong}");
        }
        assert_eq!(["90", "1h30m", "0.5"].map(length), [Ok(90_000), Ok(5_400_000), Ok(500)]);
        assert!(["0", "-1m", "", "x"].iter().all(|wrong| length(wrong).is_err()));
    }
}
