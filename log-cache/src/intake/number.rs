//! Numbers in the parameters of metrics, as the original reads them (contract `log-cache.md` §7): Go's syntax. Pure.

/// A number that only grows: digits and nothing else.
pub(super) fn unsigned(text: &[u8]) -> Option<u64> {
    text.iter().all(u8::is_ascii_digit).then(|| std::str::from_utf8(text).ok()?.parse().ok())?
}

/// A number with or without a sign.
pub(super) fn signed(text: &[u8]) -> Option<i64> {
    std::str::from_utf8(text).ok()?.parse().ok()
}

/// A floating-point number: decimal or hexadecimal, with `_` between digits; infinity in any case; not a number.
///
/// What is too large for a finite one is none.
pub(super) fn float(text: &[u8]) -> Option<f64> {
    let text = std::str::from_utf8(text).ok()?;
    let unsigned = text.strip_prefix(['+', '-']).unwrap_or(text);
    if unsigned.starts_with(|first: char| first.is_ascii_alphabetic()) {
        let is_signed_nan = unsigned.eq_ignore_ascii_case("nan") && unsigned.len() < text.len();
        return if is_signed_nan { None } else { text.parse().ok() };
    }
    let value = match unsigned.strip_prefix("0x").or_else(|| unsigned.strip_prefix("0X")) {
        Some(digits) => {
            let value = hexadecimal(&without_underscores(digits, true)?)?;
            if text.starts_with('-') { -value } else { value }
        }
        None if unsigned.contains('_') => without_underscores(text, false)?.parse().ok()?,
        None => text.parse().ok()?,
    };
    value.is_finite().then_some(value)
}

/// The digits alone, where every `_` stands between two of them; hexadecimal ones have a prefix, behind which it may also come first.
fn without_underscores(digits: &str, hexadecimal: bool) -> Option<String> {
    let of_base = if hexadecimal { u8::is_ascii_hexdigit } else { u8::is_ascii_digit };
    let is_digit = |at: Option<usize>| at.and_then(|at| digits.as_bytes().get(at)).is_some_and(of_base);
    let placed = |at: usize| (is_digit(at.checked_sub(1)) || (at == 0 && hexadecimal)) && is_digit(Some(at + 1));
    let all_placed = digits.match_indices('_').all(|(at, _)| placed(at));
    all_placed.then(|| digits.replace('_', ""))
}

/// `1.8p-2`: hexadecimal digits with a point among them, and the power of two that is always there.
fn hexadecimal(text: &str) -> Option<f64> {
    let (mantissa, exponent) = text.split_once(['p', 'P'])?;
    let exponent: i32 = exponent.parse().ok()?;
    let (whole, part) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    if whole.len() + part.len() == 0 || whole.len() + part.len() > 64 {
        return None;
    }
    let mut value = 0.0_f64;
    for digit in whole.chars().chain(part.chars()) {
        value = value.mul_add(16.0, f64::from(digit.to_digit(16)?));
    }
    let scale = exponent.checked_sub(4 * i32::try_from(part.len()).ok()?)?;
    // In two steps: the smallest numbers are smaller than the smallest power that one factor can be.
    Some(value * 2.0_f64.powi(scale / 2) * 2.0_f64.powi(scale - scale / 2))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn integers_are_digits() {
        assert_eq!(unsigned(b"18446744073709551615"), Some(u64::MAX));
        for none in ["", "18446744073709551616", "-1", "+1", "1.5", "1_0", " 1"] {
            assert_eq!(unsigned(none.as_bytes()), None, "{none}");
        }
        assert_eq!((signed(b"-100"), signed(b"+7")), (Some(-100), Some(7)));
        assert_eq!((signed(b""), signed(b"1.5"), signed(b"\xff")), (None, None, None));
    }

    #[test]
    fn floats_are_what_the_original_reads() {
        for (text, value) in [
            ("0.25", 0.25),
            ("-1e-05", -1e-05),
            ("1e+20", 1e20),
            (".5", 0.5),
            ("1_000", 1000.0),
            ("-1_0.2_5", -10.25),
            ("0x1p-2", 0.25),
            ("-0X_1.8p1", -3.0),
            ("0x1p-1074", 5e-324),
        ] {
            assert_eq!(float(text.as_bytes()), Some(value), "{text}");
        }
        assert_eq!((float(b"+Inf"), float(b"-infinity")), (Some(f64::INFINITY), Some(f64::NEG_INFINITY)));
        assert!(float(b"NaN").is_some_and(f64::is_nan));
        for none in [
            "", "abc", "1e400", "_1", "1_", "1__0", "1_e5", "0x", "0x1", "0xp1", "0x1p", "0x1p2000", "+nan", "1 ", "e5",
        ] {
            assert_eq!(float(none.as_bytes()), None, "{none}");
        }
    }
}
