//! How much came within a second, and how old it was. Pure.
//!
//! *Invariant*: a fixed amount of memory. Ages are told apart by an eighth of themselves.

use std::time::Duration;

use crate::units;

/// Eight to each doubling, from a microsecond on.
const CLASSES: usize = 8 * 40;

/// Counts of a second.
#[derive(Debug)]
pub(super) struct Meter {
    envelopes: u64,
    pub(super) bytes: u64,
    ages: Box<[u64; CLASSES]>,
    oldest: i64,
}

impl Default for Meter {
    fn default() -> Self {
        Self { envelopes: 0, bytes: 0, ages: Box::new([0; CLASSES]), oldest: 0 }
    }
}

impl Meter {
    /// An envelope whose time was so many nanoseconds ago.
    pub(super) fn add(&mut self, age: i64) {
        self.envelopes += 1;
        self.oldest = self.oldest.max(age);
        self.ages[class(age)] += 1;
    }

    /// What there is to say of a time that took so long.
    pub(super) fn line(&self, took: Duration) -> String {
        let seconds = took.as_secs_f64().max(0.001);
        let rate = units::count(self.envelopes as f64 / seconds);
        if self.envelopes == 0 {
            return format!("{rate} envelopes/s");
        }
        let bytes = units::bytes(self.bytes as f64 / seconds);
        let (half, oldest) = (units::span(self.median()), units::span(self.oldest));
        format!("{rate} envelopes/s, {bytes}/s, lag p50 {half}, max {oldest}")
    }

    fn median(&self) -> i64 {
        let mut seen = 0;
        let at = self.ages.iter().position(|count| {
            seen += count;
            seen * 2 >= self.envelopes
        });
        at.map_or(0, |at| value(at).min(self.oldest))
    }
}

fn class(age: i64) -> usize {
    let micros = (age.max(0) as f64 / 1e3).max(1.0);
    ((micros.log2() * 8.0) as usize).min(CLASSES - 1)
}

fn value(class: usize) -> i64 {
    ((class as f64 + 0.5) / 8.0).exp2().mul_add(1e3, 0.0) as i64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn half_of_the_ages_are_below_the_median() {
        let mut meter = Meter::default();
        assert_eq!(meter.line(Duration::from_secs(1)), "0 envelopes/s");
        for age in 1..=1_001 {
            meter.add(age * 1_000_000);
        }
        meter.bytes = 2_000_000;
        let median = meter.median();
        assert!((450_000_000..550_000_000).contains(&median), "{median}");
        let line = meter.line(Duration::from_secs(2));
        assert!(line.starts_with("500 envelopes/s, 1.0 MB/s, lag p50 ") && line.ends_with("max 1.0 s"), "{line}");
    }

    #[test]
    fn clocks_that_are_ahead_and_very_old_envelopes_have_a_class() {
        let mut meter = Meter::default();
        for age in [i64::MIN, -5, 0, i64::MAX] {
            meter.add(age);
        }
        assert!(meter.line(Duration::ZERO).contains("lag p50"));
    }
}
