//! Numbers as people read them. Pure.

/// A count or a rate: `0`, `0.4`, `12`, `1.2k`, `34k`, `5.6M`.
pub(crate) fn count(number: f64) -> String {
    if number > 0.0 && number < 9.95 && number.fract() != 0.0 {
        return format!("{number:.1}");
    }
    scaled(number, ["", "k", "M", "G", "T"])
}

/// Bytes: `12 B`, `1.2 kB`, `34 MB`.
pub(crate) fn bytes(number: f64) -> String {
    scaled(number, [" B", " kB", " MB", " GB", " TB"])
}

fn scaled(number: f64, units: [&str; 5]) -> String {
    let mut number = number.max(0.0);
    for (i, unit) in units.into_iter().enumerate() {
        let last = i + 1 == units.len();
        if number.round() < 1000.0 || last {
            let digits = usize::from(i > 0 && number < 9.95);
            return format!("{number:.digits$}{unit}");
        }
        number /= 1000.0;
    }
    unreachable!("the last unit takes every number")
}

/// A number with its thousands set apart: `1 234 567`.
pub(crate) fn exact(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::with_capacity(digits.len() * 4 / 3);
    for (i, digit) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            text.push(' ');
        }
        text.push(digit);
    }
    text
}

/// A length of time in nanoseconds, exact enough for a lag: `0.3 ms`, `12 ms`, `1.5 s`, `3 min`.
pub(crate) fn span(nanos: i64) -> String {
    let millis = nanos.max(0) as f64 / 1e6;
    match millis {
        _ if millis < 9.95 => format!("{millis:.1} ms"),
        _ if millis < 999.5 => format!("{millis:.0} ms"),
        _ if millis < 59_950.0 => format!("{:.1} s", millis / 1e3),
        _ => age(nanos),
    }
}

/// How long ago something was, in nanoseconds, in one unit: `0s`, `12s`, `3m`, `5h`, `8d`.
pub(crate) fn age(nanos: i64) -> String {
    let seconds = nanos.max(0) / 1_000_000_000;
    match seconds {
        0..60 => format!("{seconds}s"),
        60..3_600 => format!("{}m", seconds / 60),
        3_600..172_800 => format!("{}h", seconds / 3_600),
        _ => format!("{}d", seconds / 86_400),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_keep_two_or_three_digits() {
        let counts = [0.0, 0.44, 5.0, 999.4, 999.6, 1234.0, 34_567.0, 999_999.0, 5.6e6, 1e15, -1.0];
        let shown = counts.map(count);
        assert_eq!(shown, ["0", "0.4", "5", "999", "1.0k", "1.2k", "35k", "1.0M", "5.6M", "1000T", "0"]);
        assert_eq!([0.0, 1500.0, 2e7].map(bytes), ["0 B", "1.5 kB", "20 MB"]);
        assert_eq!([0, 999, 1000, 1_234_567].map(exact), ["0", "999", "1 000", "1 234 567"]);
    }

    #[test]
    fn times_have_one_unit() {
        assert_eq!([0, 12_000_000, 1_500_000_000, 200_000_000_000].map(span), ["0.0 ms", "12 ms", "1.5 s", "3m"]);
        let seconds = [-5, 0, 59, 60, 7_199, 200_000];
        assert_eq!(seconds.map(|s| age(s * 1_000_000_000)), ["0s", "0s", "59s", "1m", "1h", "2d"]);
    }
}
