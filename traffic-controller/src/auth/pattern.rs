//! Which source ids a token reads: ids, with `*` for any run of characters. Pure.

use serde::de::Error as _;
use serde::{Deserialize, Deserializer};

/// The longest pattern, as the longest source id.
const MAX_BYTES: usize = 256;

/// One entry of `sources`. It is matched on the whole decoded id; nothing but `*` has a meaning of its own, which may stand for
/// nothing too, and for `/`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Pattern(String);

impl Pattern {
    /// `None` for nothing, and for more than any id has.
    pub(super) fn new(text: String) -> Option<Self> {
        (1..=MAX_BYTES).contains(&text.len()).then_some(Self(text))
    }

    /// True when it stands for `id`. Costs at most the product of their lengths.
    pub(super) fn matches(&self, id: &str) -> bool {
        let (pattern, id) = (self.0.as_bytes(), id.as_bytes());
        let (mut at, mut seen) = (0, 0);
        // Where to go on when the last star has to take one byte more: behind it, and the first byte that it does not have yet.
        let mut retry: Option<(usize, usize)> = None;
        while seen < id.len() {
            match pattern.get(at) {
                Some(b'*') => {
                    at += 1;
                    retry = Some((at, seen));
                }
                Some(byte) if *byte == id[seen] => {
                    at += 1;
                    seen += 1;
                }
                _ => match retry {
                    Some((behind, taken)) => {
                        (at, seen) = (behind, taken + 1);
                        retry = Some((behind, seen));
                    }
                    None => return false,
                },
            }
        }
        pattern[at..].iter().all(|byte| *byte == b'*')
    }
}

impl<'de> Deserialize<'de> for Pattern {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Self::new(String::deserialize(deserializer)?).ok_or_else(|| {
            let problem = format!("a source must be 1 to {MAX_BYTES} bytes: an id such as \"my-app\", or \"shop-*\"");
            D::Error::custom(problem)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn matches(pattern: &str, id: &str) -> bool {
        Pattern(pattern.to_owned()).matches(id)
    }

    #[test]
    fn the_whole_id_counts_and_a_star_is_any_run() {
        assert!(matches("my-app", "my-app"));
        for other in ["my-app2", "xmy-app", "my-ap", "MY-APP", "", "my-app\0", "my-app/../x"] {
            assert!(!matches("my-app", other), "{other}");
        }
        assert!(matches("shop-*", "shop-1") && matches("shop-*", "shop-") && matches("shop-*", "shop-a/b"));
        assert!(!matches("shop-*", "shop") && !matches("shop-*", "my-shop-1"));
        assert!(matches("*-db", "a-db") && !matches("*-db", "a-db-2"));
        assert!(matches("a*c*e", "abcde") && matches("a*c*e", "ace") && matches("a*c*e", "acece"));
        assert!(!matches("a*c*e", "aced") && !matches("a*c*e", "ae"));
        assert!(matches("*", "") && matches("*", "anything") && matches("**", "x"));
    }

    #[test]
    fn nothing_else_is_special() {
        for pattern in ["a.c", "a?c", "[ab]c", "a\\*"] {
            assert!(!matches(pattern, "abc"), "{pattern}");
        }
        assert!(matches("a.c", "a.c") && matches("ä*", "äpp"));
    }

    #[test]
    fn many_stars_take_no_time() {
        assert!(!matches(&"*a".repeat(128), &"a".repeat(127)));
        assert!(matches(&"*a".repeat(120), &"a".repeat(256)));
        assert!(!matches(&format!("{}b", "*a".repeat(120)), &"a".repeat(256)));
    }

    proptest::proptest! {
        /// The same answer as a matcher that tries everything.
        #[test]
        fn as_the_naive_matcher_says(pattern in "[ab*]{0,8}", id in "[ab]{0,10}") {
            fn naive(pattern: &[u8], id: &[u8]) -> bool {
                match pattern.split_first() {
                    None => id.is_empty(),
                    Some((b'*', rest)) => (0..=id.len()).any(|taken| naive(rest, &id[taken..])),
                    Some((byte, rest)) => id.split_first().is_some_and(|(first, id)| first == byte && naive(rest, id)),
                }
            }
            proptest::prop_assert_eq!(matches(&pattern, &id), naive(pattern.as_bytes(), id.as_bytes()));
        }
    }
}
