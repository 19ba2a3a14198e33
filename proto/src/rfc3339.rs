//! Times as RFC 3339 §5.6 writes them, and RFC 5424 §6.2.3 with it, to nanoseconds. Pure.

const NANOS: i64 = 1_000_000_000;

/// Nanoseconds since the Unix epoch. Any number of digits may follow the second; those beyond nine are cut.
///
/// `None` where it is no such time. One before 1677 or after 2262 becomes the first or the last that a 64-bit number of nanoseconds
/// holds. O(its length).
pub fn parse(text: &[u8]) -> Option<i64> {
    let (date, rest) = text.split_at_checked(10)?;
    let (clock, rest) = rest.split_at_checked(9)?;
    let [y1, y2, y3, y4, b'-', m1, m2, b'-', d1, d2] = date else { return None };
    let [b'T', h1, h2, b':', n1, n2, b':', s1, s2] = clock else { return None };
    let year = pair(*y1, *y2)? * 100 + pair(*y3, *y4)?;
    let (month, day) = (pair(*m1, *m2)?, pair(*d1, *d2)?);
    let (hour, minute, second) = (pair(*h1, *h2)?, pair(*n1, *n2)?, pair(*s1, *s2)?);
    if hour > 23 || minute > 59 || second > 59 {
        return None;
    }
    let (nanos, zone) = fraction(rest)?;
    let seconds = ((days(year, month, day)? * 24 + hour) * 60 + minute - offset(zone)?) * 60 + second;
    let time = i128::from(seconds) * i128::from(NANOS) + i128::from(nanos);
    Some(i64::try_from(time).unwrap_or(if time < 0 { i64::MIN } else { i64::MAX }))
}

/// Two digits as a number.
fn pair(tens: u8, ones: u8) -> Option<i64> {
    let both = tens.is_ascii_digit() && ones.is_ascii_digit();
    both.then(|| i64::from(tens - b'0') * 10 + i64::from(ones - b'0'))
}

/// The nanoseconds behind the second, and what follows them.
fn fraction(text: &[u8]) -> Option<(i64, &[u8])> {
    let Some(text) = text.strip_prefix(b".") else { return Some((0, text)) };
    let digits = text.iter().take_while(|byte| byte.is_ascii_digit()).count();
    if digits == 0 {
        return None;
    }
    let (fraction, zone) = text.split_at(digits);
    let padded = fraction.iter().copied().chain(std::iter::repeat(b'0')).take(9);
    Some((padded.fold(0, |nanos, digit| nanos * 10 + i64::from(digit - b'0')), zone))
}

/// Minutes that local time is ahead of UTC.
fn offset(zone: &[u8]) -> Option<i64> {
    match zone {
        b"Z" => Some(0),
        [sign @ (b'+' | b'-'), h1, h2, b':', m1, m2] => {
            let (hours, minutes) = (pair(*h1, *h2)?, pair(*m1, *m2)?);
            let ahead = hours * 60 + minutes;
            (hours <= 23 && minutes <= 59).then_some(if *sign == b'-' { -ahead } else { ahead })
        }
        _ => None,
    }
}

/// Days from the Unix epoch to a day of the Gregorian calendar, if there is such a day.
fn days(year: i64, month: i64, day: i64) -> Option<i64> {
    let is_leap = year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
    let longest = match month {
        1 | 3 | 5 | 7 | 8 | 10 | 12 => 31,
        4 | 6 | 9 | 11 => 30,
        2 => 28 + i64::from(is_leap),
        _ => return None,
    };
    if day < 1 || day > longest {
        return None;
    }
    // Years that begin in March end with the leap day; 400 of them have 146 097 days, and 1970-01-01 is day 719 468.
    let (year, month) = if month > 2 { (year, month - 3) } else { (year - 1, month + 9) };
    let in_year = (153 * month + 2) / 5 + day - 1;
    let leap_days = year.div_euclid(4) - year.div_euclid(100) + year.div_euclid(400);
    Some(year * 365 + leap_days + in_year - 719_468)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn time(text: &str) -> Option<i64> {
        parse(text.as_bytes())
    }

    #[test]
    fn every_precision_is_kept_to_the_nanosecond() {
        let second = 1_712_345_678 * NANOS;
        assert_eq!(time("2024-04-05T19:34:38Z"), Some(second));
        assert_eq!(time("2024-04-05T21:34:38.5+02:00"), Some(second + 500_000_000));
        assert_eq!(time("2024-04-05T14:04:38-05:30"), Some(second));
        assert_eq!(time("2024-04-05T19:34:38.123456Z"), Some(second + 123_456_000));
        assert_eq!(time("2024-04-05T19:34:38.1234567+00:00"), Some(second + 123_456_700));
        assert_eq!(time("2024-04-05T19:34:38.123456789Z"), Some(second + 123_456_789));
        assert_eq!(time("2024-04-05T19:34:38.123456789999999999Z"), Some(second + 123_456_789));
    }

    #[test]
    fn the_calendar_is_the_gregorian_one() {
        assert_eq!(time("1970-01-01T00:00:00Z"), Some(0));
        assert_eq!(time("1969-12-31T23:59:59.999999999Z"), Some(-1));
        assert_eq!(time("2000-02-29T00:00:00Z"), Some(951_782_400 * NANOS));
        assert_eq!(time("2000-03-01T00:00:00Z"), Some(951_868_800 * NANOS));
        assert_eq!(time("2262-04-11T23:47:16.854775807Z"), Some(i64::MAX));
        assert_eq!(time("9999-12-31T23:59:59Z"), Some(i64::MAX));
        assert_eq!(time("1677-09-21T00:12:43.145224Z"), Some(i64::MIN));
        for none in ["1900-02-29", "2023-02-29", "2024-13-05", "2024-00-05", "2024-04-31", "2024-04-00"] {
            assert_eq!(time(&format!("{none}T00:00:00Z")), None, "{none}");
        }
    }

    #[test]
    fn what_is_not_written_so_is_no_time() {
        for text in [
            "",
            "2024",
            "2024-04-05",
            "2024-04-05T19:34:38",
            "2024-04-05t19:34:38Z",
            "2024-04-05T19:34:38z",
            "2024-04-05 19:34:38Z",
            "2024-04-05T19:34:38.Z",
            "2024-04-05T24:00:00Z",
            "2024-04-05T19:60:00Z",
            "2024-04-05T19:34:60Z",
            "2024-04-05T19:34:38+2:00",
            "2024-04-05T19:34:38+24:00",
            "2024-04-05T19:34:38Zx",
            "+024-04-05T19:34:38Z",
        ] {
            assert_eq!(time(text), None, "{text}");
        }
    }
}
