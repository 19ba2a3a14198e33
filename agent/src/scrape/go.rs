//! Numbers as the original writes and reads them. Pure.

use std::fmt::Write as _;

/// A number as the original writes it in a label: the shortest digits that say it, with an exponent below 1e-4 and from 1e+06.
pub(super) fn shortest(value: f64, into: &mut String) {
    into.clear();
    if !value.is_finite() {
        into.push_str(if value.is_nan() {
            "NaN"
        } else if value > 0.0 {
            "+Inf"
        } else {
            "-Inf"
        });
        return;
    }
    let exponent = if value == 0.0 { 0 } else { exponent(value) };
    let written = if (-4..6).contains(&exponent) {
        write!(into, "{value}")
    } else {
        let text = format!("{value:e}");
        let mantissa = text.split('e').next().unwrap_or_default();
        write!(into, "{mantissa}e{}{:02}", if exponent < 0 { '-' } else { '+' }, exponent.unsigned_abs())
    };
    written.expect("a string takes everything");
}

/// The power of ten that the shortest digits begin with.
fn exponent(value: f64) -> i32 {
    let text = format!("{value:e}");
    text.split('e').nth(1).and_then(|exponent| exponent.parse().ok()).unwrap_or(0)
}

/// A count: what is below zero, infinite or no number is none; a fraction is cut, and what is too large is the largest.
pub(super) fn count(value: f64) -> Option<u64> {
    // `as` saturates.
    (value >= 0.0 && value.is_finite()).then_some(value as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_written_as_the_original_writes_them() {
        let mut text = String::new();
        for (value, expected) in [
            (0.0, "0"),
            (0.5, "0.5"),
            (1e-5, "1e-05"),
            (1e-4, "0.0001"),
            (100_000.0, "100000"),
            (1e6, "1e+06"),
            (1_234_567.0, "1.234567e+06"),
            (1e21, "1e+21"),
            (-2.5e-7, "-2.5e-07"),
            (1e100, "1e+100"),
            (f64::INFINITY, "+Inf"),
            (f64::NEG_INFINITY, "-Inf"),
            (f64::NAN, "NaN"),
        ] {
            shortest(value, &mut text);
            assert_eq!(text, expected);
        }
    }

    #[test]
    fn counts_are_whole_and_not_below_zero() {
        for (value, expected) in [(12.99, Some(12)), (1e19, Some(10_000_000_000_000_000_000)), (2e19, Some(u64::MAX))] {
            assert_eq!(count(value), expected);
        }
        for value in [-3.0, f64::NAN, f64::INFINITY] {
            assert_eq!(count(value), None);
        }
        assert_eq!(count(-0.0), Some(0));
    }
}
