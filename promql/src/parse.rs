//! From the text of a query to its tree.
//!
//! `lex` splits the text into words; `canon` bounds nesting, checks what can be told with a place, and writes the words again so that
//! the generated grammar of `promql-parser` reads them without surprises: its own reading of numbers, durations, strings and
//! keywords differs from Prometheus' or panics. `lower` makes its tree ours. Nothing recurses before nesting has been bounded.

mod canon;
mod lex;
mod lower;

use std::fmt;

use promql_parser::parser::Expr;

use crate::limits::Limits;
use crate::pattern::Pattern;
use crate::select::SeriesSelector;
use crate::tree::Query;

/// Why a query is none.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ParseError {
    /// The text is too long.
    #[error("query is longer than {limit} bytes")]
    TooLong {
        /// How long it may be.
        limit: usize,
    },
    /// Brackets or operators nest too deeply.
    #[error("query nests deeper than {limit} brackets or {} operators", limit * 8)]
    TooDeep {
        /// How deeply brackets may nest.
        limit: usize,
    },
    /// A regular expression is too long, too large when compiled, or one too many.
    #[error(
        "regular expression too large: at most {limit} bytes each, and {} in a query",
        crate::pattern::MAX_PATTERNS
    )]
    LargePattern {
        /// How long one may be.
        limit: usize,
    },
    /// A selector does not say whose samples it selects.
    #[error(
        "metric '{metric}' does not have a 'source_id' label: name sources, as in {{source_id=\"a\"}} or {{source_id=~\"a|b\"}}"
    )]
    NoSource {
        /// The metric's name; empty when the selector has none.
        metric: String,
    },
    /// All else.
    #[error(transparent)]
    Syntax(#[from] SyntaxError),
}

/// What is wrong with a query, and where that is known.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SyntaxError {
    place: Option<Place>,
    what: String,
}

/// A line and a column, in characters, both from 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Place {
    line: usize,
    column: usize,
}

/// Reads a query; a selector that names no sources selects those of `usual`, if there are any.
pub(crate) fn parse(text: &str, usual: &[String], limits: &Limits) -> Result<Query, ParseError> {
    let (tree, patterns) = read(text, limits)?;
    lower::lower(tree, patterns, usual, limits)
}

/// The regular expressions of a query, those compiled that can be.
type Patterns = Vec<(String, Option<Pattern>)>;

/// The grammar's tree, and the regular expressions that it refers to.
fn read(text: &str, limits: &Limits) -> Result<(Expr, Patterns), ParseError> {
    if text.len() > limits.query_bytes {
        return Err(ParseError::TooLong { limit: limits.query_bytes });
    }
    let canon = canon::rewrite(&lex::lex(text)?, limits)?;
    let tree = promql_parser::parser::parse(&canon.text).map_err(|error| SyntaxError::of_grammar(&error))?;
    Ok((tree, canon.patterns))
}

/// Reads one selector of series, which need not name sources.
pub(crate) fn selector(text: &str, limits: &Limits) -> Result<SeriesSelector, ParseError> {
    let (tree, patterns) = read(text, limits)?;
    lower::lower_selector(tree, patterns, limits)
}

impl SyntaxError {
    fn at(place: Place, what: impl Into<String>) -> Self {
        Self { place: Some(place), what: what.into() }
    }

    /// An error whose place is not known.
    fn somewhere(what: impl Into<String>) -> Self {
        Self { place: None, what: what.into() }
    }

    /// An error of the grammar, which quotes in another way than Prometheus does and calls types by other names.
    fn of_grammar(what: &str) -> Self {
        let mut what = what.replace('\'', "\"");
        for (theirs, ours) in [("vector", "instant vector"), ("matrix", "range vector")] {
            what = what.replace(&format!("type {theirs}"), &format!("type {ours}"));
            what = what.replace(&format!("got {theirs}"), &format!("got {ours}"));
        }
        Self::somewhere(what)
    }
}

impl std::error::Error for SyntaxError {}

impl fmt::Display for SyntaxError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.place {
            Some(Place { line, column }) => write!(f, "{line}:{column}: parse error: {}", self.what),
            None => write!(f, "parse error: {}", self.what),
        }
    }
}

#[cfg(test)]
mod tests;
