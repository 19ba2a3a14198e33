//! A query as text again: canonical spacing and quotes, all else as it was written.
//!
//! What is printed reads back as the same query, but for two things that cannot be written: a selector left without sources prints a
//! matcher that is refused, and an id with `|` among several prints as the ids between its bars.

use std::fmt;

use crate::duration;
use crate::labels::NAME;
use crate::matcher::{MatchOp, Matcher, Name, Quoted};
use crate::tree::{Aggregate, At, Binary, Call, LabelList, Node, Query, SOURCE, Selector, Shift, Side};

impl fmt::Display for Query {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        Printed { query: self, node: &self.root }.fmt(f)
    }
}

struct Printed<'a> {
    query: &'a Query,
    node: &'a Node,
}

impl fmt::Display for Printed<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.node {
            Node::Number(number) => write_number(f, *number),
            Node::Text(text) => Quoted(text).fmt(f),
            Node::Selector(i, _) => selector(f, &self.query.selectors[*i]),
            Node::Subquery(subquery) => {
                let step = subquery.step.map(duration::format).unwrap_or_default();
                write!(f, "{}[{}:{step}]", self.of(&subquery.node), duration::format(subquery.range))?;
                shift(f, &subquery.shift)
            }
            Node::Paren(node) => write!(f, "({})", self.of(node)),
            Node::Negate(node) => write!(f, "-{}", self.of(node)),
            Node::Binary(binary) => self.binary(f, binary),
            Node::Aggregate(aggregate) => self.aggregate(f, aggregate),
            Node::Call(call) => self.call(f, call),
        }
    }
}

impl<'a> Printed<'a> {
    fn of(&self, node: &'a Node) -> Self {
        Self { query: self.query, node }
    }

    fn binary(&self, f: &mut fmt::Formatter<'_>, binary: &'a Binary) -> fmt::Result {
        write!(f, "{} {}", self.of(&binary.left), binary.operator.name())?;
        if binary.bool {
            f.write_str(" bool")?;
        }
        let matching = &binary.matching;
        let side = match matching.side {
            Side::Neither => None,
            Side::Left => Some("group_left"),
            Side::Right => Some("group_right"),
        };
        if matching.labels.is_only() || !matching.labels.labels().is_empty() || side.is_some() {
            let word = if matching.labels.is_only() { "on" } else { "ignoring" };
            write!(f, " {word} ({})", List(matching.labels.labels()))?;
        }
        if let Some(side) = side {
            write!(f, " {side} ({})", List(&matching.include))?;
        }
        write!(f, " {}", self.of(&binary.right))
    }

    fn aggregate(&self, f: &mut fmt::Formatter<'_>, aggregate: &'a Aggregate) -> fmt::Result {
        f.write_str(aggregate.aggregator.name())?;
        match &aggregate.grouping {
            None => {}
            Some(LabelList::Only(labels)) => write!(f, " by ({}) ", List(labels))?,
            Some(LabelList::Except(labels)) => write!(f, " without ({}) ", List(labels))?,
        }
        match &aggregate.parameter {
            None => write!(f, "({})", self.of(&aggregate.node)),
            Some(parameter) => write!(f, "({}, {})", self.of(parameter), self.of(&aggregate.node)),
        }
    }

    fn call(&self, f: &mut fmt::Formatter<'_>, call: &'a Call) -> fmt::Result {
        write!(f, "{}(", call.name)?;
        for (i, arg) in call.args.iter().enumerate() {
            write!(f, "{}{}", if i == 0 { "" } else { ", " }, self.of(arg))?;
        }
        f.write_str(")")
    }
}

fn write_number(f: &mut fmt::Formatter<'_>, number: f64) -> fmt::Result {
    match number {
        n if n.is_nan() => f.write_str("NaN"),
        n if n.is_infinite() => f.write_str(if n > 0.0 { "Inf" } else { "-Inf" }),
        // Plain digits where they are few.
        n if n == 0.0 || (1e-5..1e15).contains(&n.abs()) => write!(f, "{n}"),
        n => write!(f, "{n:e}"),
    }
}

fn selector(f: &mut fmt::Formatter<'_>, selector: &Selector) -> fmt::Result {
    f.write_str(selector.name.as_deref().unwrap_or_default())?;
    match (selector.sources.as_slice(), selector.source_op) {
        ([], _) => write!(f, "{{{SOURCE}!~\".*\"")?,
        ([one], MatchOp::Equal) => write!(f, "{{{SOURCE}={}", Quoted(one))?,
        ([one], _) if one.contains('|') => write!(f, "{{{SOURCE}={}", Quoted(one))?,
        (several, _) => write!(f, "{{{SOURCE}=~{}", Quoted(&several.join("|")))?,
    }
    let named = |matcher: &&Matcher| matcher.label() == NAME && selector.name.is_some();
    for matcher in selector.matchers.iter().filter(|matcher| !named(matcher)) {
        write!(f, ",{matcher}")?;
    }
    f.write_str("}")?;
    if let Some(range) = selector.range {
        write!(f, "[{}]", duration::format(range))?;
    }
    shift(f, &selector.shift)
}

fn shift(f: &mut fmt::Formatter<'_>, shift: &Shift) -> fmt::Result {
    match shift.at {
        None => {}
        Some(At::Start) => f.write_str(" @ start()")?,
        Some(At::End) => f.write_str(" @ end()")?,
        Some(At::Time(at)) => {
            let sign = if at < 0 { "-" } else { "" };
            write!(f, " @ {sign}{}.{:03}", at.unsigned_abs() / 1000, at.unsigned_abs() % 1000)?;
        }
    }
    match shift.offset {
        0 => Ok(()),
        offset if offset < 0 => write!(f, " offset -{}", duration::format(-offset)),
        offset => write!(f, " offset {}", duration::format(offset)),
    }
}

struct List<'a>(&'a [String]);

impl fmt::Display for List<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, label) in self.0.iter().enumerate() {
            write!(f, "{}{}", if i == 0 { "" } else { ", " }, Name(label))?;
        }
        Ok(())
    }
}
