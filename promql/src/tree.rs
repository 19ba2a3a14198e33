//! A query as a tree, checked: what it selects, and what it makes of that.
//!
//! What enters: text. What leaves: the sources and the windows that are to be fetched, and with the samples the answer. A query never
//! changes; rewriting gives another, which shares all but the selectors.

use std::collections::BTreeSet;
use std::sync::Arc;

use crate::eval::{self, EvalError};
use crate::function::Function;
use crate::limits::Limits;
use crate::matcher::{MatchOp, Matcher};
use crate::operator::{Aggregator, Operator};
use crate::parse::{self, ParseError};
use crate::pattern::Pattern;
use crate::select::{Select, windows};
use crate::span::Span;
use crate::value::{Series, Value};

/// The label that every selector has to match, by literals.
pub(crate) const SOURCE: &str = "source_id";

/// A query, parsed and checked.
#[derive(Clone, Debug)]
pub struct Query {
    pub(crate) root: Arc<Node>,
    pub(crate) selectors: Vec<Selector>,
}

impl Query {
    /// Reads a query.
    ///
    /// # Errors
    ///
    /// Whatever Prometheus refuses before it looks at samples, a selector without `source_id`, and what is beyond the limits.
    pub fn parse(text: &str, limits: &Limits) -> Result<Self, ParseError> {
        parse::parse(text, &[], limits)
    }

    /// Reads a query, in which a selector that names no sources selects those of `sources`.
    ///
    /// # Errors
    ///
    /// Those of [`parse`](Self::parse).
    pub fn parse_of(text: &str, sources: &[String], limits: &Limits) -> Result<Self, ParseError> {
        parse::parse(text, sources, limits)
    }

    /// Every source id that a selector names; sorted, without repeats.
    pub fn sources(&self) -> impl Iterator<Item = &str> {
        let sources: BTreeSet<&str> =
            self.selectors.iter().flat_map(|selector| &selector.sources).map(String::as_str).collect();
        sources.into_iter()
    }

    /// The query with each source id replaced by those that `map` gives for it. A selector that is left without any selects nothing.
    #[must_use]
    pub fn with_sources(&self, map: impl Fn(&str) -> Vec<String>) -> Self {
        let mut query = self.clone();
        for selector in &mut query.selectors {
            let sources: BTreeSet<String> = selector.sources.iter().flat_map(|source| map(source)).collect();
            selector.sources = sources.into_iter().collect();
        }
        query
    }

    /// What is to be fetched: one entry for each selector, in the order in which they are written.
    pub fn selects(&self, span: &Span) -> Vec<Select> {
        windows(self, span)
    }

    /// Evaluates the query over what was fetched: `data[i]` answers `selects(span)[i]`, and may hold more than was asked for.
    ///
    /// `cancelled` is asked every few thousand samples. Costs time in proportion to the samples in all windows of all steps.
    ///
    /// # Errors
    ///
    /// Whatever Prometheus finds wrong while it evaluates, the limits, and having been cancelled.
    pub fn evaluate(
        &self,
        span: &Span,
        data: Vec<Vec<Series>>,
        limits: &Limits,
        cancelled: &dyn Fn() -> bool,
    ) -> Result<Value, EvalError> {
        eval::evaluate(self, span, data, limits, cancelled)
    }
}

/// What a node gives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Scalar,
    Text,
    Vector,
    Range,
}

#[derive(Debug)]
pub(crate) enum Node {
    Number(f64),
    Text(String),
    /// An index into the query's selectors.
    Selector(usize, Kind),
    Subquery(Box<Subquery>),
    /// Kept to print the query as it was written.
    Paren(Box<Node>),
    Negate(Box<Node>),
    Binary(Box<Binary>),
    Aggregate(Box<Aggregate>),
    Call(Box<Call>),
}

/// What one selector selects.
#[derive(Clone, Debug)]
pub(crate) struct Selector {
    /// The metric's name where it stands before the braces; it is among the matchers as well.
    pub(crate) name: Option<String>,
    /// All but those of `source_id`.
    pub(crate) matchers: Vec<Matcher>,
    /// The sources that all matchers of `source_id` let through; sorted.
    pub(crate) sources: Vec<String>,
    /// How the first of those matchers was written.
    pub(crate) source_op: MatchOp,
    /// The window of a range vector, in milliseconds.
    pub(crate) range: Option<i64>,
    pub(crate) shift: Shift,
}

/// How a selector or a subquery is moved in time.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct Shift {
    /// In milliseconds; back in time.
    pub(crate) offset: i64,
    pub(crate) at: Option<At>,
}

/// What stands after `@`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum At {
    Time(i64),
    Start,
    End,
}

#[derive(Debug)]
pub(crate) struct Subquery {
    pub(crate) node: Node,
    /// In milliseconds, as all times here.
    pub(crate) range: i64,
    pub(crate) step: Option<i64>,
    pub(crate) shift: Shift,
}

#[derive(Debug)]
pub(crate) struct Binary {
    pub(crate) operator: Operator,
    pub(crate) left: Node,
    pub(crate) right: Node,
    pub(crate) bool: bool,
    pub(crate) matching: Matching,
}

/// Which labels make a pair of two vectors' elements.
#[derive(Debug)]
pub(crate) struct Matching {
    pub(crate) labels: LabelList,
    pub(crate) side: Side,
    /// Labels that come from the one side.
    pub(crate) include: Vec<String>,
}

/// Which side may have many elements for one of the other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Side {
    Neither,
    Left,
    Right,
}

/// Labels that count, or all but some; `__name__` never counts in the latter.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum LabelList {
    Only(Vec<String>),
    Except(Vec<String>),
}

#[derive(Debug)]
pub(crate) struct Aggregate {
    pub(crate) aggregator: Aggregator,
    pub(crate) parameter: Option<Node>,
    pub(crate) node: Node,
    /// `None`: all elements are one group.
    pub(crate) grouping: Option<LabelList>,
}

#[derive(Debug)]
pub(crate) struct Call {
    pub(crate) name: &'static str,
    pub(crate) function: Function,
    pub(crate) args: Vec<Node>,
    /// That of `label_replace`.
    pub(crate) pattern: Option<Pattern>,
}

impl Shift {
    /// The time that a step at `at` looks at.
    pub(crate) fn apply(&self, at: i64, span: &Span) -> i64 {
        let at = match self.at {
            None => at,
            Some(At::Time(at)) => at,
            Some(At::Start) => span.start(),
            Some(At::End) => span.end(),
        };
        at.saturating_sub(self.offset)
    }
}

impl Node {
    pub(crate) fn kind(&self) -> Kind {
        match self {
            Self::Number(_) => Kind::Scalar,
            Self::Text(_) => Kind::Text,
            Self::Selector(_, kind) => *kind,
            Self::Subquery(_) => Kind::Range,
            Self::Paren(node) | Self::Negate(node) => node.kind(),
            Self::Binary(binary) => match (binary.left.kind(), binary.right.kind()) {
                (Kind::Scalar, Kind::Scalar) => Kind::Scalar,
                _ => Kind::Vector,
            },
            Self::Aggregate(_) => Kind::Vector,
            Self::Call(call) => call.function.gives(),
        }
    }

    /// The node without parentheses around it.
    pub(crate) fn bare(&self) -> &Self {
        match self {
            Self::Paren(node) => node.bare(),
            node => node,
        }
    }

    /// Whether it gives the same at every step.
    pub(crate) fn is_fixed(&self, selectors: &[Selector]) -> bool {
        match self {
            Self::Number(_) | Self::Text(_) => true,
            Self::Selector(i, _) => selectors[*i].shift.at.is_some(),
            Self::Subquery(subquery) => subquery.shift.at.is_some(),
            Self::Paren(node) | Self::Negate(node) => node.is_fixed(selectors),
            Self::Binary(binary) => binary.left.is_fixed(selectors) && binary.right.is_fixed(selectors),
            Self::Aggregate(aggregate) => {
                aggregate.node.is_fixed(selectors)
                    && aggregate.parameter.as_ref().is_none_or(|node| node.is_fixed(selectors))
            }
            Self::Call(call) => {
                !call.function.tells_time(&call.args) && call.args.iter().all(|node| node.is_fixed(selectors))
            }
        }
    }
}

impl Kind {
    /// As Prometheus names it.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Scalar => "scalar",
            Self::Text => "string",
            Self::Vector => "instant vector",
            Self::Range => "range vector",
        }
    }
}

impl LabelList {
    pub(crate) fn labels(&self) -> &[String] {
        match self {
            Self::Only(labels) | Self::Except(labels) => labels,
        }
    }

    pub(crate) fn is_only(&self) -> bool {
        matches!(self, Self::Only(_))
    }
}
