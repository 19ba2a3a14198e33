//! What has to be fetched before a query can be evaluated.

use crate::limits::Limits;
use crate::matcher::Matcher;
use crate::parse::{self, ParseError};
use crate::span::{Line, Span};
use crate::tree::{Node, Query, Shift, Subquery};

/// How far back an instant selector looks, in milliseconds.
pub(crate) const LOOKBACK: i64 = 5 * 60 * 1000;

/// The step of a subquery that names none, in milliseconds.
const SUBQUERY_STEP: i64 = 60 * 1000;

/// What one selector wants: samples of these sources that match, in the closed range `[start, end]` of milliseconds since the Unix epoch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Select {
    /// The ids of sources, sorted; when there are none nothing is wanted.
    pub sources: Vec<String>,
    /// What must match beside them; a metric's name is matched as `__name__`.
    pub matchers: Vec<Matcher>,
    /// The earliest time.
    pub start: i64,
    /// The latest time; before `start` when nothing is wanted.
    pub end: i64,
}

/// A selector of series whose samples do not matter: what clients ask for to complete what is typed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SeriesSelector {
    /// The ids of sources, sorted; `None` when it names none.
    pub sources: Option<Vec<String>>,
    /// What must match beside them; a metric's name is matched as `__name__`.
    pub matchers: Vec<Matcher>,
}

impl SeriesSelector {
    /// Reads a selector, which need not name sources.
    ///
    /// # Errors
    ///
    /// Whatever is no selector, and what is beyond the limits.
    pub fn parse(text: &str, limits: &Limits) -> Result<Self, ParseError> {
        parse::selector(text, limits)
    }
}

/// What all selectors of a query want, in their order.
pub(crate) fn windows(query: &Query, span: &Span) -> Vec<Select> {
    let mut selects: Vec<Select> = query
        .selectors
        .iter()
        .map(|selector| Select {
            sources: selector.sources.clone(),
            matchers: selector.matchers.clone(),
            start: 1,
            end: 0,
        })
        .collect();
    each(query, &query.root, span, span.line(), &mut |i, line, shift, back| {
        if line.count > 0 {
            selects[i].start = shift.apply(line.start, span).saturating_sub(back);
            selects[i].end = shift.apply(line.last(), span);
        }
    });
    selects
}

/// Calls `found` with every selector below a node: its index, the steps it is evaluated at, its shift, and how far it looks back.
fn each(query: &Query, node: &Node, span: &Span, line: Line, found: &mut impl FnMut(usize, Line, &Shift, i64)) {
    match node {
        Node::Number(_) | Node::Text(_) => {}
        Node::Selector(i, _) => {
            let selector = &query.selectors[*i];
            found(*i, line, &selector.shift, selector.range.unwrap_or(LOOKBACK));
        }
        // Steps that cannot be counted will not be evaluated either.
        Node::Subquery(subquery) => {
            if let Some(line) = subquery_line(subquery, line, span) {
                each(query, &subquery.node, span, line, found);
            }
        }
        Node::Paren(node) | Node::Negate(node) => each(query, node, span, line, found),
        Node::Binary(binary) => {
            each(query, &binary.left, span, line, found);
            each(query, &binary.right, span, line, found);
        }
        Node::Aggregate(aggregate) => {
            if let Some(parameter) = &aggregate.parameter {
                each(query, parameter, span, line, found);
            }
            each(query, &aggregate.node, span, line, found);
        }
        Node::Call(call) => call.args.iter().for_each(|node| each(query, node, span, line, found)),
    }
}

/// The steps of a subquery: the multiples of its step in all windows that the outer steps look at. `None` if they cannot be counted.
pub(crate) fn subquery_line(subquery: &Subquery, outer: Line, span: &Span) -> Option<Line> {
    let step = subquery.step.unwrap_or(SUBQUERY_STEP).max(1);
    if outer.count == 0 {
        return Some(Line { start: 0, step, count: 0 });
    }
    let begin = subquery.shift.apply(outer.start, span).saturating_sub(subquery.range);
    let end = subquery.shift.apply(outer.last(), span);
    let behind = begin.rem_euclid(step);
    let start = if behind == 0 { begin } else { begin.saturating_add(step - behind) };
    Line::between(start, end, step)
}
