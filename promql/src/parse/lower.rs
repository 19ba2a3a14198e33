//! From the grammar's tree to ours.
//!
//! What enters: a tree whose height is bounded and whose types the grammar has checked. What leaves: a query whose selectors stand in
//! one list, each with its sources.

use std::collections::BTreeSet;
use std::time::{Duration, SystemTime};

use promql_parser::label::{MatchOp as TheirOp, Matcher as TheirMatcher};
use promql_parser::parser as theirs;
use promql_parser::parser::value::ValueType;

use super::canon::ESCAPE;
use super::{ParseError, SyntaxError};
use crate::function::Function;
use crate::labels::NAME;
use crate::limits::Limits;
use crate::matcher::{MatchOp, Matcher};
use crate::name::is_label_name;
use crate::operator::{Aggregator, Operator};
use crate::pattern::{MAX_PATTERNS, Pattern, PatternError};
use crate::select::SeriesSelector;
use crate::tree::{
    Aggregate, At, Binary, Call, Kind, LabelList, Matching, Node, Query, SOURCE, Selector, Shift, Side, Subquery,
};

/// Makes a query of a tree.
pub(super) fn lower(
    tree: theirs::Expr,
    patterns: Vec<(String, Option<Pattern>)>,
    usual: &[String],
    limits: &Limits,
) -> Result<Query, ParseError> {
    let mut lowerer = Lowerer { patterns, selectors: Vec::new(), replaces: 0, any_source: false, usual, limits };
    let root = lowerer.node(tree)?;
    Ok(Query { root: root.into(), selectors: lowerer.selectors })
}

/// Makes a selector of a tree that is one, with or without sources.
pub(super) fn lower_selector(
    tree: theirs::Expr,
    patterns: Vec<(String, Option<Pattern>)>,
    limits: &Limits,
) -> Result<SeriesSelector, ParseError> {
    let theirs::Expr::VectorSelector(selector) = tree else {
        return Err(wrong("only a selector of series is taken here, such as requests{code=\"200\"}"));
    };
    let any = !selector.matchers.matchers.iter().any(|matcher| matcher.name == SOURCE);
    let mut lowerer = Lowerer { patterns, selectors: Vec::new(), replaces: 0, any_source: any, usual: &[], limits };
    lowerer.selector(selector, None)?;
    let Selector { matchers, sources, .. } = lowerer.selectors.remove(0);
    Ok(SeriesSelector { sources: (!any).then_some(sources), matchers })
}

struct Lowerer<'a> {
    /// Selectors need not name sources.
    any_source: bool,
    /// Whose samples those select that name none.
    usual: &'a [String],
    patterns: Vec<(String, Option<Pattern>)>,
    selectors: Vec<Selector>,
    /// How many patterns there are beside those of selectors.
    replaces: usize,
    limits: &'a Limits,
}

impl Lowerer<'_> {
    fn node(&mut self, expr: theirs::Expr) -> Result<Node, ParseError> {
        Ok(match expr {
            theirs::Expr::NumberLiteral(literal) => Node::Number(literal.val),
            theirs::Expr::StringLiteral(literal) => Node::Text(literal.val),
            theirs::Expr::VectorSelector(selector) => self.selector(selector, None)?,
            theirs::Expr::MatrixSelector(selector) => self.selector(selector.vs, Some(millis(selector.range)))?,
            theirs::Expr::Paren(paren) => Node::Paren(self.boxed(*paren.expr)?),
            theirs::Expr::Unary(unary) => Node::Negate(self.boxed(*unary.expr)?),
            theirs::Expr::Subquery(subquery) => Node::Subquery(Box::new(Subquery {
                node: self.node(*subquery.expr)?,
                range: millis(subquery.range),
                step: subquery.step.map(millis),
                shift: shift(subquery.offset.as_ref(), subquery.at.as_ref()),
            })),
            theirs::Expr::Binary(binary) => self.binary(binary)?,
            theirs::Expr::Aggregate(aggregate) => self.aggregate(aggregate)?,
            theirs::Expr::Call(call) => self.call(call)?,
            theirs::Expr::Extension(_) => return Err(wrong("extensions are not supported")),
        })
    }

    fn boxed(&mut self, expr: theirs::Expr) -> Result<Box<Node>, ParseError> {
        self.node(expr).map(Box::new)
    }

    fn selector(&mut self, selector: theirs::VectorSelector, range: Option<i64>) -> Result<Node, ParseError> {
        let written = selector.name.map(|name| name.strip_prefix(ESCAPE).map(str::to_owned).unwrap_or(name));
        let mut matchers = Vec::new();
        if let Some(name) = &written {
            matchers.push(Matcher::new(NAME.to_owned(), MatchOp::Equal, name.clone(), None));
        }
        let mut of_source = Vec::new();
        for matcher in selector.matchers.matchers {
            let matcher = self.matcher(matcher)?;
            if matcher.label() == SOURCE { of_source.push(matcher) } else { matchers.push(matcher) }
        }
        let (sources, source_op) = match sources(&of_source) {
            Some(named) => named,
            None if !self.usual.is_empty() => self.usual_sources(&of_source),
            None if self.any_source => (Vec::new(), MatchOp::Equal),
            None => {
                let name = matchers.iter().find(|matcher| matcher.label() == NAME);
                return Err(ParseError::NoSource { metric: name.map_or("", Matcher::value).to_owned() });
            }
        };
        let selects_all = |matcher: &Matcher| matcher.matches(None);
        if matchers.iter().all(selects_all) && sources.iter().any(String::is_empty) {
            return Err(wrong("vector selector must contain at least one non-empty matcher"));
        }
        let shift = shift(selector.offset.as_ref(), selector.at.as_ref());
        self.selectors.push(Selector { name: written, matchers, sources, source_op, range, shift });
        let kind = if range.is_some() { Kind::Range } else { Kind::Vector };
        Ok(Node::Selector(self.selectors.len() - 1, kind))
    }

    /// The usual sources that `matchers`, none of which names any, let through.
    fn usual_sources(&self, matchers: &[Matcher]) -> (Vec<String>, MatchOp) {
        let admitted = |source: &&String| matchers.iter().all(|matcher| matcher.matches(Some(source)));
        let sources: BTreeSet<&String> = self.usual.iter().filter(admitted).collect();
        let op = if sources.len() == 1 { MatchOp::Equal } else { MatchOp::Regex };
        (sources.into_iter().cloned().collect(), op)
    }

    fn matcher(&mut self, matcher: TheirMatcher) -> Result<Matcher, ParseError> {
        let op = match matcher.op {
            TheirOp::Equal => return Ok(Matcher::new(matcher.name, MatchOp::Equal, matcher.value, None)),
            TheirOp::NotEqual => return Ok(Matcher::new(matcher.name, MatchOp::NotEqual, matcher.value, None)),
            TheirOp::Re(_) => MatchOp::Regex,
            TheirOp::NotRe(_) => MatchOp::NotRegex,
        };
        let index = matcher.value.parse::<usize>().ok();
        let (value, pattern) =
            index.and_then(|i| self.patterns.get(i)).cloned().ok_or_else(|| wrong("regular expression expected"))?;
        Ok(Matcher::new(matcher.name, op, value, pattern))
    }

    fn binary(&mut self, binary: theirs::BinaryExpr) -> Result<Node, ParseError> {
        let operator = Operator::named(&binary.op.to_string()).ok_or_else(|| wrong("unknown operator"))?;
        let modifier = binary.modifier.unwrap_or_default();
        let (side, include) = match modifier.card {
            theirs::VectorMatchCardinality::ManyToOne(labels) => (Side::Left, labels.labels),
            theirs::VectorMatchCardinality::OneToMany(labels) => (Side::Right, labels.labels),
            _ => (Side::Neither, Vec::new()),
        };
        let labels = modifier.matching.map_or(LabelList::Except(Vec::new()), label_list);
        Ok(Node::Binary(Box::new(Binary {
            operator,
            left: self.node(*binary.lhs)?,
            right: self.node(*binary.rhs)?,
            bool: modifier.return_bool,
            matching: Matching { labels, side, include },
        })))
    }

    fn aggregate(&mut self, aggregate: theirs::AggregateExpr) -> Result<Node, ParseError> {
        let name = aggregate.op.to_string();
        let aggregator =
            Aggregator::named(&name).ok_or_else(|| wrong(format!("unknown aggregation operator {name:?}")))?;
        let parameter = aggregate.param.map(|parameter| self.node(*parameter)).transpose()?;
        if let (Aggregator::CountValues, Some(Node::Text(label))) = (aggregator, parameter.as_ref().map(Node::bare))
            && !is_label_name(label)
        {
            return Err(wrong(format!("invalid label name {label:?}")));
        }
        Ok(Node::Aggregate(Box::new(Aggregate {
            aggregator,
            parameter,
            node: self.node(*aggregate.expr)?,
            grouping: aggregate.modifier.map(label_list),
        })))
    }

    fn call(&mut self, call: theirs::Call) -> Result<Node, ParseError> {
        let name = call.func.name;
        let (name, function) =
            Function::named(name).ok_or_else(|| wrong(format!("unknown function with name {name:?}")))?;
        let args = call.args.args.into_iter().map(|arg| self.node(*arg)).collect::<Result<Vec<_>, _>>()?;
        // The grammar lets some scalars pass for vectors.
        for (i, arg) in args.iter().enumerate() {
            let wanted = call.func.arg_types[i.min(call.func.arg_types.len().saturating_sub(1))];
            if kind(wanted) != arg.kind() {
                let (wanted, got) = (kind(wanted).name(), arg.kind().name());
                return Err(wrong(format!("expected type {wanted} in call to function {name:?}, got {got}")));
            }
        }
        let text = |i: usize| match args.get(i).map(Node::bare) {
            Some(Node::Text(text)) => text.as_str(),
            _ => "",
        };
        let mut pattern = None;
        match function {
            Function::LabelReplace => {
                if !is_label_name(text(1)) {
                    return Err(wrong(format!("invalid destination label name in label_replace(): {}", text(1))));
                }
                pattern = Some(self.replace_pattern(text(4))?);
            }
            Function::LabelJoin => {
                if !is_label_name(text(1)) {
                    return Err(wrong(format!("invalid destination label name in label_join(): {}", text(1))));
                }
                if let Some(i) = (3..args.len()).find(|i| !is_label_name(text(*i))) {
                    return Err(wrong(format!("invalid source label name in label_join(): {}", text(i))));
                }
            }
            _ => {}
        }
        Ok(Node::Call(Box::new(Call { name, function, args, pattern })))
    }

    fn replace_pattern(&mut self, pattern: &str) -> Result<Pattern, ParseError> {
        let large = ParseError::LargePattern { limit: self.limits.regex_bytes };
        self.replaces += 1;
        if self.patterns.len() + self.replaces > MAX_PATTERNS {
            return Err(large);
        }
        Pattern::new(pattern, self.limits.regex_bytes).map_err(|error| match error {
            PatternError::Large => large,
            PatternError::Syntax(what) => wrong(format!("invalid regular expression in label_replace(): {what}")),
        })
    }
}

/// The sources that all matchers of `source_id` let through, and how the first that names any is written; `None` when none names any.
fn sources(matchers: &[Matcher]) -> Option<(Vec<String>, MatchOp)> {
    let named = |matcher: &Matcher| -> Option<BTreeSet<String>> {
        match matcher.op() {
            MatchOp::Equal => Some(BTreeSet::from([matcher.value().to_owned()])),
            MatchOp::Regex => Some(matcher.value().split('|').map(str::to_owned).collect()),
            MatchOp::NotEqual | MatchOp::NotRegex => None,
        }
    };
    let (mut sources, op) = matchers.iter().find_map(|matcher| Some((named(matcher)?, matcher.op())))?;
    for matcher in matchers {
        sources
            .retain(|source| named(matcher).map_or_else(|| matcher.matches(Some(source)), |set| set.contains(source)));
    }
    Some((sources.into_iter().collect(), op))
}

fn label_list(modifier: theirs::LabelModifier) -> LabelList {
    match modifier {
        theirs::LabelModifier::Include(labels) => LabelList::Only(labels.labels),
        theirs::LabelModifier::Exclude(labels) => LabelList::Except(labels.labels),
    }
}

fn kind(theirs: ValueType) -> Kind {
    match theirs {
        ValueType::Scalar => Kind::Scalar,
        ValueType::String => Kind::Text,
        ValueType::Vector => Kind::Vector,
        ValueType::Matrix => Kind::Range,
    }
}

fn shift(offset: Option<&theirs::Offset>, at: Option<&theirs::AtModifier>) -> Shift {
    let offset = match offset {
        None => 0,
        Some(theirs::Offset::Pos(duration)) => millis(*duration),
        Some(theirs::Offset::Neg(duration)) => -millis(*duration),
    };
    let at = at.map(|at| match at {
        theirs::AtModifier::Start => At::Start,
        theirs::AtModifier::End => At::End,
        theirs::AtModifier::At(time) => At::Time(match time.duration_since(SystemTime::UNIX_EPOCH) {
            Ok(after) => millis(after),
            Err(before) => -millis(before.duration()),
        }),
    });
    Shift { offset, at }
}

/// Durations are bounded before, to 292 years, and times to what 64 bits hold.
fn millis(duration: Duration) -> i64 {
    i64::try_from(duration.as_millis()).unwrap_or(i64::MAX)
}

fn wrong(what: impl Into<String>) -> ParseError {
    SyntaxError::somewhere(what).into()
}
