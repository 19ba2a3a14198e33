//! Regular expressions as Prometheus has them: RE2's syntax, anchored at both ends, bounded.
//!
//! What enters: a pattern as it is written in a query. What leaves: something that matches in time linear in the text. The `regex`
//! crate differs from RE2 where RE2 knows ASCII alone (`\d`, `\w`, `\s`), in braces that are no repetition, in set operations within
//! brackets, in `\Q…\E`, octal escapes and some others: `translate` writes those so that both mean the same.

mod translate;

use std::fmt;

use regex::{Regex, RegexBuilder};
use translate::translate;

/// How many regular expressions a query may hold.
pub(crate) const MAX_PATTERNS: usize = 32;

/// The largest compiled pattern, in bytes.
const MAX_COMPILED: usize = 256 * 1024;

/// A compiled pattern.
#[derive(Clone, Debug)]
pub(crate) struct Pattern {
    regex: Regex,
    /// The alternatives, where the pattern is nothing else.
    literals: Option<Vec<Box<str>>>,
}

/// Why a pattern cannot be used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum PatternError {
    Large,
    Syntax(String),
}

impl Pattern {
    /// Compiles a pattern that matches whole texts, of at most `limit` bytes.
    pub(crate) fn new(pattern: &str, limit: usize) -> Result<Self, PatternError> {
        if pattern.len() > limit {
            return Err(PatternError::Large);
        }
        let anchored = format!("^(?:{})$", translate(pattern).map_err(PatternError::Syntax)?);
        let built = RegexBuilder::new(&anchored).size_limit(MAX_COMPILED).dfa_size_limit(MAX_COMPILED).build();
        let regex = built.map_err(|error| match error {
            regex::Error::CompiledTooBig(_) => PatternError::Large,
            _ => PatternError::Syntax(explain(&anchored)),
        })?;
        let plain = !pattern.contains(['\\', '.', '+', '*', '?', '(', ')', '[', ']', '{', '}', '^', '$']);
        Ok(Self { regex, literals: plain.then(|| pattern.split('|').map(Into::into).collect()) })
    }

    /// Whether the whole text matches.
    pub(crate) fn is_match(&self, text: &str) -> bool {
        match &self.literals {
            Some(literals) => literals.iter().any(|literal| **literal == *text),
            None => self.regex.is_match(text),
        }
    }

    /// The groups of a text that matches as a whole.
    pub(crate) fn captures<'t>(&self, text: &'t str) -> Option<regex::Captures<'t>> {
        self.regex.captures(text)
    }
}

impl fmt::Display for PatternError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Large => f.write_str("expression too large"),
            Self::Syntax(what) => f.write_str(what),
        }
    }
}

/// What is wrong, in a few words.
fn explain(pattern: &str) -> String {
    match regex_syntax::Parser::new().parse(pattern) {
        Err(regex_syntax::Error::Parse(error)) => error.kind().to_string(),
        Err(regex_syntax::Error::Translate(error)) => error.kind().to_string(),
        _ => "not supported".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn matches(pattern: &str, text: &str) -> bool {
        Pattern::new(pattern, 256).unwrap_or_else(|error| panic!("{pattern}: {error}")).is_match(text)
    }

    #[test]
    fn whole_texts_match() {
        assert!(matches("a|b", "b") && !matches("a|b", "ab"));
        assert!(matches("a.*", "abc") && !matches(".*a", "abc"));
        assert!(matches("", "") && !matches("", "a") && matches("a|", ""));
        assert!(!matches(".*", "a\nb") && matches("(?s).*", "a\nb") && matches("(?i)ABC", "abc"));
    }

    #[test]
    fn classes_know_ascii_alone() {
        assert!(matches(r"\d+\w\s", "12x ") && !matches(r"\d", "٣") && !matches(r"\w", "é") && matches(r"\W", "é"));
        assert!(matches(r"[\d-]+", "1-2") && matches(r"[^\w]", "é") && matches(r"[\D]", "x"));
        assert!(matches(r".*\bx\b.*", "éx é"));
    }

    #[test]
    fn what_only_looks_like_syntax_is_text() {
        assert!(matches("a{b}c", "a{b}c") && matches("a{,2}", "a{,2}") && matches("a{2}", "aa") && matches("{", "{"));
        assert!(matches("[a[b]", "[") && matches("[a&&b]+", "&a") && matches("[a~~b]", "~") && matches("[]a]", "]"));
        assert!(
            matches("[[:alpha:]_]+", "ab_")
                && matches("[[:]", ":")
                && matches("[[:^digit:]]", "x")
                && matches("[+--]", ",")
                && matches("[a-]", "-")
        );
        assert!(matches(r"\Qa.b\E+", "a.bb") && !matches(r"\Qa.b\E", "axb") && matches(r"\Qa*", "a*"));
        assert!(matches(r"\101\x42\x{43}", "ABC") && matches(r"\<\-\_", "<-_"));
    }

    #[test]
    fn bad_and_large_patterns_are_refused() {
        for pattern in
            ["[", "(", "*a", r"\1", r"\C", "(?!x)", "(?=x)", "a{1001}", r"\", r"\y", "(?x)a", "[b-a]", "[[:nope:]]"]
        {
            assert!(matches!(Pattern::new(pattern, 256), Err(PatternError::Syntax(_))), "{pattern}");
        }
        for pattern in ["((((a{99}){99}){99}){99}){99}", &"a".repeat(257)] {
            assert_eq!(Pattern::new(pattern, 256).unwrap_err(), PatternError::Large, "{pattern}");
        }
    }

    #[test]
    fn matching_is_linear() {
        assert!(!matches("(a*)*(a|aa)+[^a]", &"a".repeat(50_000)));
    }
}
