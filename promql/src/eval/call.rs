//! Functions of instant vectors and of numbers.

use super::column::{ABSENT, Column, is_absent, merge};
use super::date::Civil;
use super::rank::{greatest_first, least_first};
use super::{Eval, EvalError, Out};
use crate::function::Function;
use crate::labels::{Labels, NAME};
use crate::matcher::MatchOp;
use crate::span::Line;
use crate::tree::{Call, Node, SOURCE};

impl Eval<'_> {
    pub(super) fn call(&self, call: &Call, line: Line) -> Result<Out, EvalError> {
        let args = call.args.as_slice();
        Ok(Out::Vector(match (call.function, args) {
            (Function::Time, _) => return self.numbers(line, |row| line.at(row) as f64 / 1000.0),
            (Function::Pi, _) => return self.numbers(line, |_| std::f64::consts::PI),
            (Function::Scalar, [node]) => return self.only_element(node, line),
            (Function::Vector, [node]) => {
                let values = self.scalar(node, line)?;
                vec![self.unlabelled(line, |row| values[row])?]
            }
            (Function::Date(part), []) => vec![self.unlabelled(line, |row| date(part, line.at(row) as f64 / 1000.0))?],
            (Function::Date(part), [node]) => self.mapped(node, line, |_, value| date(part, value))?,
            (Function::Map(map), [node]) => self.mapped(node, line, |_, value| map(value))?,
            (Function::Round, [node]) => self.rounded(node, None, line)?,
            (Function::Round, [node, to]) => self.rounded(node, Some(to), line)?,
            (Function::Clamp, [node, low, high]) => {
                let (low, high) = (self.scalar(low, line)?, self.scalar(high, line)?);
                self.mapped(node, line, |row, value| {
                    // No value is between bounds that have changed places.
                    if high[row] < low[row] { ABSENT } else { greater(low[row], lesser(high[row], value)) }
                })?
            }
            (Function::ClampMax, [node, high]) => {
                let high = self.scalar(high, line)?;
                self.mapped(node, line, |row, value| lesser(high[row], value))?
            }
            (Function::ClampMin, [node, low]) => {
                let low = self.scalar(low, line)?;
                self.mapped(node, line, |row, value| greater(low[row], value))?
            }
            (Function::Timestamp, [node]) => self.timestamps(node, line)?,
            (Function::Sort { descending }, [node]) => {
                let mut columns = self.vector(node, line)?;
                // Over several steps there is no order to tell.
                if line.count == 1 {
                    let order = if descending { greatest_first } else { least_first };
                    columns.sort_by(|a, b| order(a.values[0], b.values[0]));
                }
                columns
            }
            (Function::Absent, [node]) => {
                let columns = self.vector(node, line)?;
                let mut empty = vec![true; line.count];
                for column in columns {
                    self.meter.work(line.count)?;
                    empty.iter_mut().zip(&column.values).for_each(|(empty, value)| *empty &= is_absent(*value));
                }
                vec![self.absent(node, &empty, line)?]
            }
            (Function::AbsentOverTime, [node]) => {
                let empty = self.without_samples(call, line)?;
                vec![self.absent(node, &empty, line)?]
            }
            (Function::Over(over), _) => self.over(over, call, line)?,
            (Function::HistogramQuantile, [q, node]) => self.histogram_quantile(q, node, line)?,
            (Function::LabelReplace, _) => self.label_replace(call, line)?,
            (Function::LabelJoin, _) => self.label_join(call, line)?,
            // Samples that are numbers are no histograms. The grammar lets no other number of arguments pass.
            _ => Vec::new(),
        }))
    }

    fn numbers(&self, line: Line, number: impl Fn(usize) -> f64) -> Result<Out, EvalError> {
        self.meter.bytes(line.count * size_of::<f64>())?;
        Ok(Out::Scalar((0..line.count).map(number).collect()))
    }

    fn unlabelled(&self, line: Line, value: impl Fn(usize) -> f64) -> Result<Column, EvalError> {
        let mut column = Column::new(&self.meter, Labels::empty(), line.count)?;
        column.values.iter_mut().enumerate().for_each(|(row, slot)| *slot = value(row));
        Ok(column)
    }

    /// Each value becomes another; the metric's name goes.
    fn mapped(&self, node: &Node, line: Line, map: impl Fn(usize, f64) -> f64) -> Result<Vec<Column>, EvalError> {
        let mut columns = self.vector(node, line)?;
        for column in &mut columns {
            self.meter.work(4 * column.values.len())?;
            column.labels = column.labels.without_name();
            for (row, value) in column.values.iter_mut().enumerate().filter(|(_, value)| !is_absent(**value)) {
                *value = map(row, *value);
            }
        }
        merge(&self.meter, columns)
    }

    fn rounded(&self, node: &Node, to: Option<&Node>, line: Line) -> Result<Vec<Column>, EvalError> {
        let to = to.map(|to| self.scalar(to, line)).transpose()?;
        self.mapped(node, line, |row, value| {
            // The inverse is what keeps 0.1 exact.
            let inverse = 1.0 / to.as_ref().map_or(1.0, |to| to[row]);
            (value * inverse + 0.5).floor() / inverse
        })
    }

    /// The value of a vector's only element; NaN where there are none or several.
    fn only_element(&self, node: &Node, line: Line) -> Result<Out, EvalError> {
        let columns = self.vector(node, line)?;
        self.meter.bytes(2 * line.count * size_of::<f64>())?;
        let (mut values, mut counts) = (vec![f64::NAN; line.count], vec![0_usize; line.count]);
        for column in columns {
            self.meter.work(line.count)?;
            let rows = values.iter_mut().zip(&mut counts).zip(column.values);
            for ((slot, count), value) in rows.filter(|(_, value)| !is_absent(*value)) {
                *count += 1;
                *slot = if *count == 1 { value } else { f64::NAN };
            }
        }
        Ok(Out::Scalar(values))
    }

    /// Of a selector the times of the samples, of all else those of the steps.
    fn timestamps(&self, node: &Node, line: Line) -> Result<Vec<Column>, EvalError> {
        let Node::Selector(i, _) = node.bare() else {
            return self.mapped(node, line, |row, _| line.at(row) as f64 / 1000.0);
        };
        let mut columns = self.selector(*i, line, true)?;
        columns.iter_mut().for_each(|column| column.labels = column.labels.without_name());
        merge(&self.meter, columns)
    }

    /// One element where there is none, with the labels that a selector asks for by `=` alone.
    fn absent(&self, node: &Node, empty: &[bool], line: Line) -> Result<Column, EvalError> {
        let mut column = self.unlabelled(line, |row| if empty[row] { 1.0 } else { ABSENT })?;
        if let Node::Selector(i, _) = node.bare() {
            let selector = &self.query.selectors[*i];
            let mut pairs = Vec::new();
            if let ([source], MatchOp::Equal) = (selector.sources.as_slice(), selector.source_op) {
                pairs.push((SOURCE, source.as_str()));
            }
            for matcher in selector.matchers.iter().filter(|matcher| matcher.label() != NAME) {
                let again = selector.matchers.iter().filter(|other| other.label() == matcher.label()).count() > 1;
                if matcher.op() == MatchOp::Equal && !again {
                    pairs.push((matcher.label(), matcher.value()));
                }
            }
            column.labels = Labels::new(pairs);
        }
        Ok(column)
    }
}

fn date(part: fn(Civil) -> f64, seconds: f64) -> f64 {
    Civil::new(seconds).map_or(f64::NAN, part)
}

/// The lesser of two numbers; NaN if one is.
fn lesser(a: f64, b: f64) -> f64 {
    if a.is_nan() || b.is_nan() { f64::NAN } else { a.min(b) }
}

/// The greater of two numbers; NaN if one is.
fn greater(a: f64, b: f64) -> f64 {
    if a.is_nan() || b.is_nan() { f64::NAN } else { a.max(b) }
}
