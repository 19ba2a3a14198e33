//! Matchers on labels.

use std::fmt;

use crate::limits::Limits;
use crate::name::is_label_name;
use crate::pattern::{Pattern, PatternError};

/// How a matcher compares.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum MatchOp {
    /// `=`
    Equal,
    /// `!=`
    NotEqual,
    /// `=~`
    Regex,
    /// `!~`
    NotRegex,
}

/// What one label must be. A label that is absent is as one that is empty.
#[derive(Clone, Debug)]
pub struct Matcher {
    label: String,
    op: MatchOp,
    value: String,
    /// With the two operators that take one.
    pattern: Option<Pattern>,
}

impl Matcher {
    /// A matcher that comes from elsewhere than a query.
    ///
    /// # Errors
    ///
    /// What is wrong with a regular expression.
    pub fn compile(label: &str, op: MatchOp, value: &str, limits: &Limits) -> Result<Self, String> {
        let pattern = match op {
            MatchOp::Equal | MatchOp::NotEqual => None,
            MatchOp::Regex | MatchOp::NotRegex => {
                let pattern = Pattern::new(value, limits.regex_bytes);
                Some(pattern.map_err(|error| match error {
                    PatternError::Large => {
                        format!("regular expression too large: at most {} bytes", limits.regex_bytes)
                    }
                    PatternError::Syntax(what) => what,
                })?)
            }
        };
        Ok(Self::new(label.to_owned(), op, value.to_owned(), pattern))
    }

    pub(crate) fn new(label: String, op: MatchOp, value: String, pattern: Option<Pattern>) -> Self {
        Self { label, op, value, pattern }
    }

    /// The label's name.
    pub fn label(&self) -> &str {
        &self.label
    }

    /// How it compares.
    pub fn op(&self) -> MatchOp {
        self.op
    }

    /// The value as it is written: a text, or a regular expression.
    pub fn value(&self) -> &str {
        &self.value
    }

    /// Whether a label's value matches; `None` is a label that is absent.
    pub fn matches(&self, value: Option<&str>) -> bool {
        let value = value.unwrap_or_default();
        let found = self.pattern.as_ref().map_or_else(|| self.value == value, |pattern| pattern.is_match(value));
        found == matches!(self.op, MatchOp::Equal | MatchOp::Regex)
    }
}

impl PartialEq for Matcher {
    fn eq(&self, other: &Self) -> bool {
        (&self.label, self.op, &self.value) == (&other.label, other.op, &other.value)
    }
}

impl Eq for Matcher {}

impl fmt::Display for MatchOp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Equal => "=",
            Self::NotEqual => "!=",
            Self::Regex => "=~",
            Self::NotRegex => "!~",
        })
    }
}

impl fmt::Display for Matcher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{}{}", Name(&self.label), self.op, Quoted(&self.value))
    }
}

/// A label's name, quoted where it must be.
pub(crate) struct Name<'a>(pub(crate) &'a str);

impl fmt::Display for Name<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if is_label_name(self.0) { f.write_str(self.0) } else { Quoted(self.0).fmt(f) }
    }
}

/// A text as a string of PromQL, without characters that would break a line.
pub(crate) struct Quoted<'a>(pub(crate) &'a str);

impl fmt::Display for Quoted<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("\"")?;
        for c in self.0.chars() {
            match c {
                '"' | '\\' => write!(f, "\\{c}")?,
                '\n' => f.write_str("\\n")?,
                '\r' => f.write_str("\\r")?,
                '\t' => f.write_str("\\t")?,
                c if c.is_control() => write!(f, "\\u{:04x}", u32::from(c))?,
                c => write!(f, "{c}")?,
            }
        }
        f.write_str("\"")
    }
}
