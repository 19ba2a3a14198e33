//! Metric names, as selectors can name them.

use std::borrow::Cow;

/// Makes a name of an envelope into a metric name: every character that cannot stand there becomes `_`, one for one.
///
/// `http.latency` becomes `http_latency`, `9a` becomes `_a`. Names that are fine already are not copied.
pub fn metric_name(name: &str) -> Cow<'_, str> {
    let fits =
        |(i, c): (usize, char)| c == '_' || if i == 0 { c.is_ascii_alphabetic() } else { c.is_ascii_alphanumeric() };
    if name.char_indices().all(fits) {
        return Cow::Borrowed(name);
    }
    name.char_indices().map(|(i, c)| if fits((i, c)) { c } else { '_' }).collect()
}

/// Whether a label name can be written without quotes.
pub(crate) fn is_label_name(name: &str) -> bool {
    !name.is_empty() && metric_name(name) == name
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn characters_are_replaced_one_for_one() {
        let cases = [
            ("cpu", "cpu"),
            ("9a.b", "_a_b"),
            ("1", "_"),
            ("a./b", "a__b"),
            ("", ""),
            ("é1", "_1"),
            ("a:b", "a_b"),
            ("_9", "_9"),
        ];
        for (name, sanitised) in cases {
            assert_eq!(metric_name(name), sanitised);
        }
        assert!(matches!(metric_name("cpu_9"), Cow::Borrowed(_)));
    }
}
