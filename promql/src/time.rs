//! The times and steps of a request, as text.

use jiff::Timestamp;

use crate::duration;

/// Why a time or a step cannot be read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TimeError {
    /// Neither seconds nor RFC 3339.
    #[error(
        "cannot parse {0:?} to a valid timestamp: seconds such as 1700000000.5, or RFC 3339 such as 2023-11-14T22:13:20.5Z"
    )]
    Time(String),
    /// Neither seconds nor a duration.
    #[error("cannot parse {0:?} to a valid duration: seconds such as 15 or 0.5, or a duration such as 1m30s")]
    Step(String),
}

/// Reads a time in milliseconds: seconds since the Unix epoch with a fraction, rounded, or RFC 3339 with up to nanoseconds, cut off.
///
/// # Errors
///
/// Text that is neither, and times that milliseconds cannot hold.
pub fn parse_time(text: &str) -> Result<i64, TimeError> {
    let error = || TimeError::Time(text.to_owned());
    if let Some(seconds) = number(text) {
        return millis(seconds).ok_or_else(error);
    }
    // RFC 3339 alone: jiff reads more of ISO 8601 than that.
    let strict = text.len() >= 20 && matches!(text.as_bytes()[10], b'T' | b't') && !text.contains('[');
    let time: Timestamp = text.parse().ok().filter(|_| strict).ok_or_else(error)?;
    Ok(time.as_nanosecond().div_euclid(1_000_000) as i64)
}

/// Reads a step: seconds with a fraction, or a duration such as `1m30s`. Milliseconds; zero and less pass, a range refuses them.
///
/// # Errors
///
/// Text that is neither, and steps that milliseconds cannot hold.
pub fn parse_step(text: &str) -> Result<i64, TimeError> {
    let step = match number(text) {
        Some(seconds) => millis(seconds),
        None => duration::parse(text).ok(),
    };
    step.ok_or_else(|| TimeError::Step(text.to_owned()))
}

/// A finite number as clients write it; not the words that Rust takes for numbers.
fn number(text: &str) -> Option<f64> {
    let plain = text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'+' | b'-' | b'.' | b'e' | b'E'));
    text.parse().ok().filter(|number: &f64| plain && number.is_finite())
}

fn millis(seconds: f64) -> Option<i64> {
    let whole = (seconds * 1e3).round();
    // The bounds are exact in a float.
    (-9.2e18..=9.2e18).contains(&whole).then_some(whole as i64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_seconds_or_rfc_3339() {
        let cases = [
            ("0", 0),
            ("1700000000", 1_700_000_000_000),
            ("1700000000.123", 1_700_000_000_123),
            ("1700000000.1239", 1_700_000_000_124),
            ("1.001", 1_001),
            ("-1.5", -1_500),
            ("1e3", 1_000_000),
            ("2023-11-14T22:13:20Z", 1_700_000_000_000),
            ("2023-11-14T22:13:20.123456789Z", 1_700_000_000_123),
            ("2023-11-15T00:13:20.5+02:00", 1_700_000_000_500),
            ("1969-12-31T23:59:59.9999Z", -1),
        ];
        for (text, millis) in cases {
            assert_eq!(parse_time(text), Ok(millis), "{text}");
        }
        for text in [
            "",
            "now",
            "NaN",
            "inf",
            "1e300",
            "9.3e15",
            "2023-11-14",
            "2023-11-14 22:13:20Z",
            "2023-11-14T22:13:20",
            "0x10",
        ] {
            assert_eq!(parse_time(text), Err(TimeError::Time(text.to_owned())), "{text}");
        }
    }

    #[test]
    fn steps_are_seconds_or_durations() {
        for (text, millis) in [
            ("15", 15_000),
            ("0.5", 500),
            ("1m30s", 90_000),
            ("250ms", 250),
            ("1d", 86_400_000),
            ("-1", -1000),
            ("0", 0),
        ] {
            assert_eq!(parse_step(text), Ok(millis), "{text}");
        }
        for text in ["", "x", "1.5m", "1e300", "NaN", "400y", "5m1h"] {
            assert_eq!(parse_step(text), Err(TimeError::Step(text.to_owned())), "{text}");
        }
    }
}
