//! Durations as Prometheus writes them: `1y2w3d4h5m6s7ms`, the units in this order, each at most once.

use std::fmt::Write;

/// Why a duration cannot be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum DurationError {
    /// It is not written as durations are.
    #[error("not a valid duration string, such as 5m or 1h30m")]
    Syntax,
    /// It is longer than 292 years.
    #[error("duration out of range")]
    Range,
}

const UNITS: [(&str, i64); 7] =
    [("y", 365 * DAY), ("w", 7 * DAY), ("d", DAY), ("h", 3_600_000), ("m", 60_000), ("s", 1_000), ("ms", 1)];
const DAY: i64 = 86_400_000;

/// The longest duration: what nanoseconds can hold, in milliseconds.
pub(crate) const LONGEST: i64 = i64::MAX / 1_000_000;

/// Reads a duration, in milliseconds.
pub(crate) fn parse(text: &str) -> Result<i64, DurationError> {
    if text == "0" {
        return Ok(0);
    }
    let (mut rest, mut total, mut next) = (text, 0_i64, 0);
    while !rest.is_empty() {
        let digits = rest.bytes().take_while(u8::is_ascii_digit).count();
        let number = &rest[..digits];
        rest = &rest[digits..];
        let letters = rest.bytes().take_while(u8::is_ascii_alphabetic).count();
        let unit = UNITS.iter().position(|(name, _)| *name == &rest[..letters]).ok_or(DurationError::Syntax)?;
        rest = &rest[letters..];
        if digits == 0 || unit < next {
            return Err(DurationError::Syntax);
        }
        next = unit + 1;
        let part = number.parse::<i64>().ok().and_then(|number| number.checked_mul(UNITS[unit].1));
        total = part.and_then(|part| total.checked_add(part)).filter(|t| *t <= LONGEST).ok_or(DurationError::Range)?;
    }
    if next == 0 { Err(DurationError::Syntax) } else { Ok(total) }
}

/// Writes a duration of milliseconds that is not negative.
pub(crate) fn format(millis: i64) -> String {
    let (mut rest, mut text) = (millis, String::new());
    for (i, (unit, length)) in UNITS.iter().enumerate() {
        // Years and weeks only when they are whole: 90d reads better than 12w6d.
        if rest >= *length && (i > 1 || rest % length == 0) {
            let _ = write!(text, "{}{unit}", rest / length);
            rest %= length;
        }
    }
    if text.is_empty() { "0s".to_owned() } else { text }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_read_and_written() {
        for text in ["5m", "1h30m", "1y", "2w", "90d", "1d12h", "250ms", "1s1ms", "292y"] {
            assert_eq!(format(parse(text).unwrap()), text);
        }
        assert_eq!(parse("1y2w3d4h5m6s7ms"), Ok((((365 + 14 + 3) * 24 + 4) * 3600 + 5 * 60 + 6) * 1000 + 7));
        assert_eq!((parse("0"), format(0)), (Ok(0), "0s".to_owned()));
    }

    #[test]
    fn what_is_no_duration_is_refused() {
        for text in ["", "5", "m", "5x", "1m1h", "1m1m", "1.5h", "-1m", "5 m", "5mm"] {
            assert_eq!(parse(text), Err(DurationError::Syntax), "{text}");
        }
        for text in ["293y", "99999999999999999999s", "106751d24h"] {
            assert_eq!(parse(text), Err(DurationError::Range), "{text}");
        }
    }
}
