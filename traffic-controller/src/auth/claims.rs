//! What a verified token says: when it holds, for whom it is, and what it names. Pure; `now` is an argument.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde_json::{Map, Value};

/// The end of times that are told apart: the year 9999.
const LAST: u64 = 253_402_300_799;

/// The claims of a token (RFC 7519 §4), or what an issuer says of one (RFC 7662).
pub(super) struct Claims(pub(super) Map<String, Value>);

impl Claims {
    /// When it ends. One that does not say ends nowhere, and is not taken.
    pub(super) fn expires(&self) -> Option<SystemTime> {
        self.time("exp")
    }

    /// True when it holds at `now`, which may be off by `leeway`: `exp` is needed and has not come, `nbf`, if there is one, has.
    pub(super) fn holds(&self, now: SystemTime, leeway: Duration) -> bool {
        let ended = self.expires().is_none_or(|end| now >= end + leeway);
        let begun = !self.0.contains_key("nbf") || self.time("nbf").is_some_and(|begin| now + leeway >= begin);
        !ended && begun
    }

    /// A text.
    pub(super) fn text(&self, name: &str) -> Option<&str> {
        self.0.get(name)?.as_str()
    }

    /// The words of a claim: of a text those between its spaces, of a list of texts its entries. `None` when there is neither.
    pub(super) fn words(&self, name: &str) -> Option<Vec<&str>> {
        match self.0.get(name)? {
            Value::String(text) => Some(text.split(' ').filter(|word| !word.is_empty()).collect()),
            Value::Array(list) => list.iter().map(Value::as_str).collect(),
            _ => None,
        }
    }

    /// True when one of the words is `word`.
    pub(super) fn has_word(&self, name: &str, word: &str) -> bool {
        self.words(name).is_some_and(|words| words.contains(&word))
    }

    /// True when it is for `audience`: that text alone, or one of a list (RFC 7519 §4.1.3).
    pub(super) fn is_for(&self, audience: &str) -> bool {
        match self.0.get("aud") {
            Some(Value::String(only)) => only == audience,
            Some(Value::Array(list)) => list.iter().any(|one| one.as_str() == Some(audience)),
            _ => false,
        }
    }

    /// Seconds since the epoch, with or without a fraction (RFC 7519 §2, `NumericDate`).
    fn time(&self, name: &str) -> Option<SystemTime> {
        let value = self.0.get(name)?;
        let whole = value.as_u64();
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "`as` clamps, and so does what follows"
        )]
        let seconds =
            whole.or_else(|| value.as_f64().filter(|seconds| *seconds >= 0.0).map(|seconds| seconds as u64))?;
        Some(UNIX_EPOCH + Duration::from_secs(seconds.min(LAST)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn claims(json: &str) -> Claims {
        Claims(serde_json::from_str(json).unwrap())
    }

    fn holds(json: &str, now: u64, leeway: u64) -> bool {
        claims(json).holds(UNIX_EPOCH + Duration::from_secs(now), Duration::from_secs(leeway))
    }

    #[test]
    fn a_token_holds_until_its_end_and_not_before_its_beginning() {
        assert!(holds(r#"{"exp":100}"#, 99, 0) && !holds(r#"{"exp":100}"#, 100, 0));
        assert!(holds(r#"{"exp":100}"#, 129, 30) && !holds(r#"{"exp":100}"#, 130, 30));
        assert!(holds(r#"{"exp":100.9}"#, 99, 0) && !holds(r#"{"exp":100.9}"#, 100, 0));
        assert!(holds(r#"{"exp":100,"nbf":50}"#, 50, 0) && !holds(r#"{"exp":100,"nbf":50}"#, 49, 0));
        assert!(holds(r#"{"exp":100,"nbf":50}"#, 20, 30) && !holds(r#"{"exp":100,"nbf":50}"#, 19, 30));
        assert!(holds(r#"{"exp":18446744073709551615}"#, 99, 30) && holds(r#"{"exp":1e300}"#, 99, 30));
        for without in ["{}", r#"{"exp":"100"}"#, r#"{"exp":null}"#, r#"{"exp":-1}"#, r#"{"exp":100,"nbf":"1"}"#] {
            assert!(!holds(without, 1, 30), "{without}");
        }
    }

    #[test]
    fn words_stand_in_a_text_or_in_a_list() {
        let words = |json| claims(json).words("scope").map(|words| words.join("|"));
        assert_eq!(words(r#"{"scope":"a  b.c "}"#).as_deref(), Some("a|b.c"));
        assert_eq!(words(r#"{"scope":["a b","c"]}"#).as_deref(), Some("a b|c"));
        for none in ["{}", r#"{"scope":1}"#, r#"{"scope":["a",1]}"#, r#"{"scope":{"a":"b"}}"#] {
            assert_eq!(words(none), None, "{none}");
        }
        assert!(claims(r#"{"scope":"a b"}"#).has_word("scope", "b"));
        assert!(!claims(r#"{"scope":"a bc"}"#).has_word("scope", "b"));
    }

    #[test]
    fn an_audience_is_compared_whole() {
        assert!(claims(r#"{"aud":"x"}"#).is_for("x") && claims(r#"{"aud":["y","x"]}"#).is_for("x"));
        for other in ["{}", r#"{"aud":"x y"}"#, r#"{"aud":["xx"]}"#, r#"{"aud":{"x":1}}"#, r#"{"aud":null}"#] {
            assert!(!claims(other).is_for("x"), "{other}");
        }
    }
}
