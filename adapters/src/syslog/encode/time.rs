//! Times as RFC 3339 writes them.

/// Writes times, and remembers the second: most lines have that of the line before.
#[derive(Debug)]
pub(super) struct Times {
    zone: &'static str,
    second: i64,
    /// `2023-11-14T22:13:20`, of that second; empty before the first.
    text: Vec<u8>,
}

impl Times {
    pub(super) fn new(zone: &'static str) -> Self {
        Self { zone, second: 0, text: Vec::new() }
    }

    /// `2023-11-14T22:13:20.123456+00:00`: microseconds, cut off and not rounded, without zeros at their end; then the zone.
    pub(super) fn put(&mut self, out: &mut Vec<u8>, nanoseconds: i64) {
        let seconds = nanoseconds.div_euclid(1_000_000_000);
        let micros = nanoseconds.rem_euclid(1_000_000_000) / 1000;
        if self.text.is_empty() || self.second != seconds {
            self.text.clear();
            put_second(&mut self.text, seconds);
            self.second = seconds;
        }
        out.extend_from_slice(&self.text);
        if micros > 0 {
            out.push(b'.');
            put_padded(out, micros, 6);
            while out.last() == Some(&b'0') {
                out.pop();
            }
        }
        out.extend_from_slice(self.zone.as_bytes());
    }
}

fn put_second(out: &mut Vec<u8>, seconds: i64) {
    let (year, month, day) = date(seconds.div_euclid(86_400));
    let second = seconds.rem_euclid(86_400);
    // The years of an i64 of nanoseconds are 1677 to 2262.
    put_padded(out, year, 4);
    out.push(b'-');
    put_padded(out, month, 2);
    out.push(b'-');
    put_padded(out, day, 2);
    out.push(b'T');
    put_padded(out, second / 3600, 2);
    out.push(b':');
    put_padded(out, second / 60 % 60, 2);
    out.push(b':');
    put_padded(out, second % 60, 2);
}

fn put_padded(out: &mut Vec<u8>, value: i64, width: u32) {
    for place in (0..width).rev() {
        out.push(b'0' + (value / 10_i64.pow(place) % 10) as u8);
    }
}

/// Year, month and day of a number of days since 1970-01-01, in the Gregorian calendar.
///
/// Counts from the 1st of March of the year 0, so that the leap day is the last of a year and every 400 years are alike.
pub(super) fn date(days: i64) -> (i64, i64, i64) {
    const DAYS_IN_400_YEARS: i64 = 146_097;
    let days = days + 719_468;
    let era = days.div_euclid(DAYS_IN_400_YEARS);
    let day_of_era = days.rem_euclid(DAYS_IN_400_YEARS);
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    // Months from March on have 31, 30, 31, 30, 31 days, over and over: 153 in five of them.
    let month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month + 2) / 5 + 1;
    let month = if month < 10 { month + 3 } else { month - 9 };
    (era * 400 + year_of_era + i64::from(month <= 2), month, day)
}
