//! Text forms of doubles, as the original components write them.
//!
//! Three forms are in use on the wire (contract: loggregator v2 §17 no. 13): agents write [`plain`], the reverse log proxy
//! writes [`general`] with exponents from 1e21, syslog lines write [`general`] with exponents from 1e6.

use std::fmt::Write;

/// The threshold of [`general`] from which the reverse log proxy writes an exponent.
pub const TAG_EXPONENT: i32 = 21;

/// The threshold of [`general`] from which syslog lines write an exponent.
pub const SYSLOG_EXPONENT: i32 = 6;

/// The shortest digits that read back as `value`, never with an exponent: `0.0000001`, `1000000000000000000000`.
pub fn plain(value: f64) -> String {
    special(value).map_or_else(|| format!("{value}"), str::to_owned)
}

/// The shortest digits that read back as `value`; with an exponent of at least two digits when the decimal exponent is below -4
/// or has reached `threshold`: `1.5e-09`, `1e+22`, `0.25`.
pub fn general(value: f64, threshold: i32) -> String {
    if let Some(text) = special(value) {
        return text.to_owned();
    }
    let scientific = format!("{value:e}");
    let (digits, exponent) = scientific.split_once('e').expect("`{:e}` always writes an exponent");
    let exponent: i32 = exponent.parse().expect("`{:e}` writes a number after the e");
    if (-4..threshold).contains(&exponent) {
        return format!("{value}");
    }
    let mut text = String::with_capacity(digits.len() + 5);
    text.push_str(digits);
    let sign = if exponent < 0 { '-' } else { '+' };
    write!(text, "e{sign}{:02}", exponent.unsigned_abs()).expect("writing to a String cannot fail");
    text
}

fn special(value: f64) -> Option<&'static str> {
    if value.is_nan() {
        Some("NaN")
    } else if value == f64::INFINITY {
        Some("+Inf")
    } else if value == f64::NEG_INFINITY {
        Some("-Inf")
    } else {
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn general_changes_to_an_exponent_at_the_threshold() {
        for (value, tag, syslog) in [
            (0.25, "0.25", "0.25"),
            (0.0, "0", "0"),
            (-2.5, "-2.5", "-2.5"),
            (1.5e-9, "1.5e-09", "1.5e-09"),
            (0.0001, "0.0001", "0.0001"),
            (0.00001, "1e-05", "1e-05"),
            (1e20, "100000000000000000000", "1e+20"),
            (1e22, "1e+22", "1e+22"),
            (123_456_789_012.0, "123456789012", "1.23456789012e+11"),
            (999_999.0, "999999", "999999"),
            (1e6, "1000000", "1e+06"),
            (f64::NAN, "NaN", "NaN"),
            (f64::INFINITY, "+Inf", "+Inf"),
            (f64::NEG_INFINITY, "-Inf", "-Inf"),
            (1e300, "1e+300", "1e+300"),
        ] {
            assert_eq!(general(value, TAG_EXPONENT), tag);
            assert_eq!(general(value, SYSLOG_EXPONENT), syslog);
        }
    }

    #[test]
    fn plain_never_writes_an_exponent() {
        assert_eq!(plain(1e-7), "0.0000001");
        assert_eq!(plain(1e21), "1000000000000000000000");
        assert_eq!(plain(2.5), "2.5");
    }
}
