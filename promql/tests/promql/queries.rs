//! Queries picked by hand, one for each rule and each corner of one.

#[path = "queries/functions.rs"]
mod functions;
#[path = "queries/operators.rs"]
mod operators;

use functions::FUNCTIONS;
use operators::OPERATORS;

/// `{` stands for `{source_id="s",`, as in every selector, unless a `$` is before it.
pub(crate) fn expand(query: &str) -> String {
    query.replace("${", "$\u{0}").replace('{', r#"{source_id="s","#).replace("$\u{0}", "${")
}

/// All of them, as they are written there.
pub(crate) fn picked() -> impl Iterator<Item = &'static str> {
    OPERATORS.iter().chain(FUNCTIONS).copied()
}
