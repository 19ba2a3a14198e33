//! Values as they are written: exactly, or briefly for people. Pure.

/// The shortest decimal that gives the same number back, without an exponent, as servers write it.
pub(super) fn exact(value: f64) -> String {
    match value {
        value if value.is_nan() => "NaN".to_owned(),
        value if value.is_infinite() => if value > 0.0 { "+Inf" } else { "-Inf" }.to_owned(),
        value => value.to_string(),
    }
}

/// The first five digits that count: `0.33333`, `1234.6`, `1.2e9`.
pub(super) fn brief(value: f64) -> String {
    let size = value.abs();
    if !value.is_finite() || value == 0.0 {
        return exact(value);
    }
    if !(1e-4..1e7).contains(&size) {
        let text = format!("{value:.3e}");
        let (digits, power) = text.split_once('e').unwrap_or((&text, "0"));
        return format!("{}e{power}", trimmed(digits));
    }
    let whole = size.log10().floor() as i32;
    let decimals = usize::try_from(4 - whole).unwrap_or(0);
    trimmed(&format!("{value:.decimals$}")).to_owned()
}

/// Without zeros that say nothing.
fn trimmed(digits: &str) -> &str {
    if digits.contains('.') { digits.trim_end_matches('0').trim_end_matches('.') } else { digits }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_exact_or_brief() {
        let values = [0.0, -1.0, 1.0 / 3.0, 1234.5678, 98_765.4, 9_999_999.0, 1.25e9, 1e-7, -0.00012, 100.0];
        assert_eq!(
            values.map(brief),
            ["0", "-1", "0.33333", "1234.6", "98765", "9999999", "1.25e9", "1e-7", "-0.00012", "100"]
        );
        assert_eq!([1.0 / 3.0, 1e21, 0.5].map(exact), ["0.3333333333333333", "1000000000000000000000", "0.5"]);
        assert_eq!([f64::NAN, f64::INFINITY, f64::NEG_INFINITY].map(brief), ["NaN", "+Inf", "-Inf"]);
    }
}
