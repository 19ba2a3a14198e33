//! The parts of a date in UTC, by the Gregorian calendar without end.

/// A time as days and what is left of the last.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Civil {
    /// Since 1970-01-01.
    days: i64,
    /// Of that day.
    seconds: i64,
}

const DAY: i64 = 86_400;

/// 146,097 days are 400 years, after which the calendar repeats.
const ERA: i64 = 146_097;

impl Civil {
    /// Of seconds since the Unix epoch, cut off toward it; `None` for what is no time: NaN, and beyond what 63 bits hold.
    pub(crate) fn new(seconds: f64) -> Option<Self> {
        let whole = seconds.trunc();
        // NaN is in no range; the bounds are exact in a float.
        if !(-9.2e18..=9.2e18).contains(&whole) {
            return None;
        }
        let whole = whole as i64;
        Some(Self { days: whole.div_euclid(DAY), seconds: whole.rem_euclid(DAY) })
    }

    pub(crate) fn minute(self) -> f64 {
        (self.seconds / 60 % 60) as f64
    }

    pub(crate) fn hour(self) -> f64 {
        (self.seconds / 3600) as f64
    }

    /// From 0, which is Sunday.
    pub(crate) fn day_of_week(self) -> f64 {
        // The epoch was a Thursday.
        (self.days + 4).rem_euclid(7) as f64
    }

    pub(crate) fn day_of_month(self) -> f64 {
        self.date().2 as f64
    }

    /// From 1.
    pub(crate) fn day_of_year(self) -> f64 {
        let (year, ..) = self.date();
        (self.days - days_before(year, 1) + 1) as f64
    }

    pub(crate) fn days_in_month(self) -> f64 {
        let (year, month, _) = self.date();
        let next = if month == 12 { days_before(year + 1, 1) } else { days_before(year, month + 1) };
        (next - days_before(year, month)) as f64
    }

    pub(crate) fn month(self) -> f64 {
        self.date().1 as f64
    }

    pub(crate) fn year(self) -> f64 {
        self.date().0 as f64
    }

    /// Year, month from 1, day from 1.
    fn date(self) -> (i64, i64, i64) {
        // The estimate is within a year.
        let mut year = 1970 + (self.days.div_euclid(ERA)) * 400 + self.days.rem_euclid(ERA) * 400 / ERA;
        while days_before(year, 1) > self.days {
            year -= 1;
        }
        while days_before(year + 1, 1) <= self.days {
            year += 1;
        }
        let month = (2..=12).rev().find(|month| days_before(year, *month) <= self.days).unwrap_or(1);
        (year, month, self.days - days_before(year, month) + 1)
    }
}

/// Days from the epoch to the first of a month.
fn days_before(year: i64, month: i64) -> i64 {
    let full = year - 1;
    // Day 1 of year 1 is 719,162 days before the epoch.
    let before_year = full * 365 + full.div_euclid(4) - full.div_euclid(100) + full.div_euclid(400) - 719_162;
    let leap = year.rem_euclid(4) == 0 && (year.rem_euclid(100) != 0 || year.rem_euclid(400) == 0);
    let before_month = [0, 31, 59, 90, 120, 151, 181, 212, 243, 273, 304, 334][month as usize - 1];
    before_year + before_month + i64::from(leap && month > 2)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_are_those_of_the_calendar() {
        for seconds in (-200_000_000_000..200_000_000_000_i64).step_by(86_399 * 911) {
            let expected = jiff::Timestamp::from_second(seconds).unwrap().to_zoned(jiff::tz::TimeZone::UTC);
            let civil = Civil::new(seconds as f64).unwrap();
            let parts = [civil.year(), civil.month(), civil.day_of_month(), civil.hour(), civil.minute()];
            let date = expected.date();
            let wanted = [
                f64::from(date.year()),
                f64::from(date.month()),
                f64::from(date.day()),
                f64::from(expected.hour()),
                f64::from(expected.minute()),
            ];
            assert_eq!(parts, wanted, "{seconds}");
            assert_eq!(civil.day_of_week(), f64::from(date.weekday().to_sunday_zero_offset()), "{seconds}");
            assert_eq!(civil.day_of_year(), f64::from(date.day_of_year()), "{seconds}");
            assert_eq!(civil.days_in_month(), f64::from(date.days_in_month()), "{seconds}");
        }
    }

    #[test]
    fn what_is_no_time_has_no_date() {
        assert!([f64::NAN, f64::INFINITY, -1e300].iter().all(|seconds| Civil::new(*seconds).is_none()));
        assert_eq!(Civil::new(-0.5).map(Civil::year), Some(1970.0));
        for seconds in [9.2e18, -9.2e18] {
            let civil = Civil::new(seconds).unwrap();
            assert!(civil.year().abs() > 2e11 && (1.0..=31.0).contains(&civil.day_of_month()));
        }
    }
}
