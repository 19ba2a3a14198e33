//! Evaluation: a query, samples and times give an answer.
//!
//! Every node is evaluated once for all steps. Between nodes travel columns: a series each, with one value for each step. What enters
//! has been fetched; here is no I/O and no clock. Every allocation is taken from a meter first, and every loop over samples counts its
//! work there, so that limits and cancelling hold everywhere.

mod aggregate;
mod binary;
mod call;
mod column;
pub(crate) mod date;
mod histogram;
mod input;
mod meter;
mod over;
mod rank;
mod relabel;
mod set;
mod window;

use column::{Column, distinct, is_absent};
use input::Input;
use meter::{Held, Meter};

use crate::labels::Labels;
use crate::limits::Limits;
use crate::span::{Line, Span};
use crate::tree::{Kind, Node, Query};
use crate::value::{Element, Sample, Series, Value};

/// Why a query has no answer.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum EvalError {
    /// The query gives something that has no value at a step.
    #[error("invalid expression type {0:?} for range query, must be Scalar or instant Vector")]
    Kind(&'static str),
    /// Two elements of a vector would have the same labels.
    #[error("vector cannot contain metrics with the same labelset")]
    SameLabels,
    /// The elements of two vectors do not make pairs.
    #[error("{0}")]
    Matching(String),
    /// A parameter is out of its range.
    #[error("{0}")]
    Parameter(String),
    /// Too many samples would be held at a time.
    #[error("query processing would load too many samples into memory in query execution: more than {limit}")]
    Samples {
        /// How many there may be.
        limit: usize,
    },
    /// Too much memory would be held at a time.
    #[error("query would need more than {limit} bytes of memory: select fewer series or fewer steps")]
    Memory {
        /// How much there may be.
        limit: usize,
    },
    /// It was told to stop.
    #[error("query was canceled in expression evaluation")]
    Cancelled,
}

impl EvalError {
    /// The word that Prometheus' HTTP API has for this kind of error; for all that is wrong before evaluation it is `bad_data`.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Kind(_) => "bad_data",
            Self::Cancelled => "canceled",
            _ => "execution",
        }
    }
}

/// See [`Query::evaluate`].
pub(crate) fn evaluate(
    query: &Query,
    span: &Span,
    data: Vec<Vec<Series>>,
    limits: &Limits,
    cancelled: &dyn Fn() -> bool,
) -> Result<Value, EvalError> {
    let kind = query.root.kind();
    if span.is_range() && !matches!(kind, Kind::Scalar | Kind::Vector) {
        return Err(EvalError::Kind(kind.name()));
    }
    let meter = Meter::new(limits, cancelled);
    let input = Input::new(query, data, &meter)?;
    let eval = Eval { query, span, input, meter };
    let line = span.line();
    if let (Kind::Text, Node::Text(text)) = (kind, query.root.bare()) {
        return Ok(Value::Text(line.start, text.clone()));
    }
    if kind == Kind::Range {
        return eval.raw(&query.root, line);
    }
    Ok(match (eval.node(&query.root, line)?, span.is_range()) {
        (Out::Scalar(values), false) => Value::Scalar(Sample { at: line.start, value: values[0] }),
        (Out::Scalar(values), true) if values.is_empty() => Value::Matrix(Vec::new()),
        (Out::Scalar(values), true) => {
            let samples = line.times().zip(values).map(|(at, value)| Sample { at, value }).collect();
            Value::Matrix(vec![Series { labels: Labels::empty(), samples }])
        }
        (Out::Vector(columns), false) => Value::Vector(columns.iter().map(|column| element(column, line)).collect()),
        (Out::Vector(columns), true) => Value::Matrix(eval.matrix(columns, line)?),
    })
}

/// One evaluation.
struct Eval<'a> {
    query: &'a Query,
    span: &'a Span,
    input: Input<'a>,
    meter: Meter<'a>,
}

/// What a node gives at all steps.
#[derive(Clone, Debug)]
enum Out {
    Scalar(Vec<f64>),
    Vector(Vec<Column>),
}

impl Eval<'_> {
    /// Evaluates a node that gives a scalar or a vector.
    fn node(&self, node: &Node, line: Line) -> Result<Out, EvalError> {
        let mark = self.meter.mark();
        // What is the same at every step is evaluated at one.
        let fixed = line.count > 1 && node.is_fixed(&self.query.selectors);
        let mut out = self.at_steps(node, if fixed { line.first() } else { line })?;
        if fixed {
            out = self.repeat(out, line.count)?;
        }
        if let Out::Vector(columns) = &mut out {
            columns.retain(|column| !column.is_empty());
        }
        self.meter.settle(mark, out.held())?;
        Ok(out)
    }

    fn at_steps(&self, node: &Node, line: Line) -> Result<Out, EvalError> {
        match node {
            Node::Number(number) => self.constant(*number, line),
            Node::Paren(node) => self.node(node, line),
            Node::Negate(node) => self.negate(self.node(node, line)?),
            Node::Selector(i, _) => self.selector(*i, line, false).map(Out::Vector),
            Node::Binary(binary) => self.binary(binary, line),
            Node::Aggregate(aggregate) => self.aggregate(aggregate, line).map(Out::Vector),
            Node::Call(call) => self.call(call, line),
            // The grammar lets them stand only where their own code looks for them.
            Node::Text(_) | Node::Subquery(_) => Ok(Out::Vector(Vec::new())),
        }
    }

    /// Evaluates a node that gives a vector.
    fn vector(&self, node: &Node, line: Line) -> Result<Vec<Column>, EvalError> {
        Ok(match self.node(node, line)? {
            Out::Vector(columns) => columns,
            Out::Scalar(_) => Vec::new(),
        })
    }

    /// Evaluates a node that gives a scalar.
    fn scalar(&self, node: &Node, line: Line) -> Result<Vec<f64>, EvalError> {
        Ok(match self.node(node, line)? {
            Out::Scalar(values) => values,
            Out::Vector(_) => vec![f64::NAN; line.count],
        })
    }

    fn constant(&self, number: f64, line: Line) -> Result<Out, EvalError> {
        self.meter.bytes(line.count * size_of::<f64>())?;
        Ok(Out::Scalar(vec![number; line.count]))
    }

    fn repeat(&self, out: Out, count: usize) -> Result<Out, EvalError> {
        Ok(match out {
            Out::Scalar(values) => {
                self.meter.bytes(count * size_of::<f64>())?;
                Out::Scalar(vec![values[0]; count])
            }
            Out::Vector(columns) => {
                let mut repeated = Vec::with_capacity(columns.len());
                for column in columns {
                    let mut wide = Column::new(&self.meter, column.labels, count)?;
                    wide.values.fill(column.values[0]);
                    repeated.push(wide);
                }
                Out::Vector(repeated)
            }
        })
    }

    fn negate(&self, out: Out) -> Result<Out, EvalError> {
        Ok(match out {
            Out::Scalar(mut values) => {
                values.iter_mut().for_each(|value| *value = -*value);
                Out::Scalar(values)
            }
            Out::Vector(mut columns) => {
                for column in &mut columns {
                    self.meter.work(column.values.len())?;
                    column.labels = column.labels.without_name();
                    column.values.iter_mut().filter(|value| !is_absent(**value)).for_each(|value| *value = -*value);
                }
                Out::Vector(distinct(&self.meter, columns)?)
            }
        })
    }

    /// The samples of a range vector as they are: what an instant query for one gives.
    fn raw(&self, node: &Node, line: Line) -> Result<Value, EvalError> {
        let ranged = self.ranged(node, line)?;
        let at = ranged.shift.apply(line.start, self.span);
        let mut series = Vec::new();
        for (labels, samples) in ranged.series {
            let (from, to) = (at.saturating_sub(ranged.range), at);
            let begin = samples.partition_point(|sample| sample.at < from);
            let end = samples.partition_point(|sample| sample.at <= to);
            let window = samples.get(begin..end).unwrap_or_default();
            self.meter.samples(window.len())?;
            self.meter.bytes(size_of_val(window))?;
            self.meter.work(window.len())?;
            if !window.is_empty() {
                series.push(Series { labels: labels.clone(), samples: window.to_vec() });
            }
        }
        Ok(Value::Matrix(sorted(series)))
    }

    fn matrix(&self, columns: Vec<Column>, line: Line) -> Result<Vec<Series>, EvalError> {
        let mut series = Vec::with_capacity(columns.len());
        for column in columns {
            let count = column.present();
            self.meter.bytes(count * size_of::<Sample>())?;
            self.meter.work(column.values.len())?;
            let mut samples = Vec::with_capacity(count);
            let values = line.times().zip(column.values).filter(|(_, value)| !is_absent(*value));
            samples.extend(values.map(|(at, value)| Sample { at, value }));
            series.push(Series { labels: column.labels, samples });
        }
        Ok(sorted(series))
    }
}

impl Out {
    fn held(&self) -> Held {
        match self {
            Self::Scalar(values) => Held { samples: values.len(), bytes: size_of_val(values.as_slice()) },
            Self::Vector(columns) => columns.iter().fold(Held::default(), |sum, column| {
                let held = column.held();
                Held { samples: sum.samples + held.samples, bytes: sum.bytes + held.bytes }
            }),
        }
    }
}

fn element(column: &Column, line: Line) -> Element {
    Element { labels: column.labels.without_name(), sample: Sample { at: line.start, value: column.values[0] } }
}

/// Sorted by all labels, and then without the name.
fn sorted(mut series: Vec<Series>) -> Vec<Series> {
    series.sort_by(|a, b| a.labels.cmp(&b.labels));
    series.iter_mut().for_each(|series| series.labels = series.labels.without_name());
    series
}

#[cfg(test)]
mod tests;
