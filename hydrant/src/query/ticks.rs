//! What stands at axes: round numbers and round times. Pure.

use jiff::Timestamp;
use jiff::tz::TimeZone;

use super::steps::Steps;

/// Distances between times at an axis, in seconds; beyond them, whole days.
const DISTANCES: [i64; 16] = [1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1_800, 3_600, 7_200, 21_600, 43_200];
const DAY: i64 = 86_400;

/// Round numbers from `low` to `high`, about `wanted` of them.
pub(super) fn values(low: f64, high: f64, wanted: u32) -> Vec<f64> {
    let raw = (high - low) / f64::from(wanted.max(1));
    if !(raw.is_normal() && raw > 0.0) {
        return vec![low];
    }
    let power = 10_f64.powf(raw.log10().floor());
    let step = [1.0, 2.0, 2.5, 5.0, 10.0].into_iter().map(|factor| factor * power).find(|step| *step >= raw);
    let step = step.unwrap_or(raw);
    let first = (low / step).ceil();
    let all = (0..=wanted * 3).map(|i| (first + f64::from(i)) * step);
    all.take_while(|value| *value <= high + step * 1e-9).collect()
}

/// Round times of a zone within a span, at most `wanted` of them and one, each with how it is written.
pub(super) fn times(steps: &Steps, wanted: u32, zone: &TimeZone) -> Vec<(i64, String)> {
    let length = steps.end.saturating_sub(steps.start);
    let least = length / i64::from(wanted.max(1)) / 1000;
    let distance = DISTANCES.into_iter().find(|distance| *distance >= least);
    let distance = distance.unwrap_or_else(|| (least + DAY - 1) / DAY * DAY);
    let format = match distance {
        _ if length > DAY * 1000 => "%m-%d %H:%M",
        ..60 => "%H:%M:%S",
        _ => "%H:%M",
    };
    // Whole hours and days are those of the zone.
    let offset = zoned(steps.start, zone).map_or(0, |time| i64::from(time.offset().seconds()) * 1000);
    let distance = distance * 1000;
    let local = steps.start.saturating_add(offset);
    let behind = local.rem_euclid(distance);
    let first = if behind == 0 { steps.start } else { steps.start.saturating_add(distance - behind) };
    let all = (0..=i64::from(wanted)).map(|i| first.saturating_add(distance.saturating_mul(i)));
    all.take_while(|at| *at <= steps.end).map(|at| (at, time(at, zone, format))).collect()
}

/// A time in milliseconds, as `format` has it in a zone.
pub(super) fn time(at: i64, zone: &TimeZone, format: &str) -> String {
    zoned(at, zone).map_or_else(|| "?".to_owned(), |time| time.strftime(format).to_string())
}

/// A time in UTC, to the millisecond.
pub(super) fn rfc3339(at: i64) -> String {
    time(at, &TimeZone::UTC, "%Y-%m-%dT%H:%M:%S%.3fZ")
}

fn zoned(at: i64, zone: &TimeZone) -> Option<jiff::Zoned> {
    Some(Timestamp::from_millisecond(at).ok()?.to_zoned(zone.clone()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_at_an_axis_are_round_and_few() {
        assert_eq!(values(0.0, 10.0, 4), [0.0, 2.5, 5.0, 7.5, 10.0]);
        assert_eq!(values(0.3, 1.1, 4), [0.4, 0.6000000000000001, 0.8, 1.0]);
        assert_eq!(values(-30.0, 50.0, 4), [-20.0, 0.0, 20.0, 40.0]);
        for (low, high) in [(1.0, 1.0), (2.0, 1.0), (f64::MIN, f64::MAX), (0.0, f64::INFINITY), (f64::NAN, 1.0)] {
            assert!(values(low, high, 4).len() <= 13, "{low} {high}");
        }
        assert!(values(1e300, 1.000_000_1e300, 4).len() <= 13);
    }

    #[test]
    fn times_at_an_axis_are_round_in_the_zone() {
        let written = |start: i64, end: i64, zone: &TimeZone| {
            let times = times(&Steps { start: start * 1000, end: end * 1000, step: 1000 }, 5, zone);
            times.into_iter().map(|(_, text)| text).collect::<Vec<_>>()
        };
        let utc = TimeZone::UTC;
        assert_eq!(written(100, 3_700, &utc), ["00:15", "00:30", "00:45", "01:00"]);
        assert_eq!(written(0, 60, &utc), ["00:00:00", "00:00:15", "00:00:30", "00:00:45", "00:01:00"]);
        assert_eq!(written(0, 5 * 86_400, &utc)[1], "01-02 00:00");
        let half = TimeZone::fixed(jiff::tz::Offset::from_seconds(19_800).unwrap());
        assert_eq!(written(0, 36_000, &half), ["06:00", "08:00", "10:00", "12:00", "14:00"]);
        assert_eq!(rfc3339(-1), "1969-12-31T23:59:59.999Z");
        assert_eq!(rfc3339(i64::MAX), "?");
        assert!(written(i64::MIN / 2000, i64::MAX / 2000, &utc).len() <= 6);
    }
}
