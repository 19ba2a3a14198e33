//! Aggregation: the elements of each group become one, at every step.

use std::collections::hash_map::Entry;

use super::column::{ABSENT, Column, Map, is_absent, present};
use super::rank::{greatest_first, least_first, quantile};
use super::{Eval, EvalError};
use crate::json;
use crate::labels::{Labels, NAME};
use crate::operator::Aggregator;
use crate::span::Line;
use crate::tree::{Aggregate, LabelList, Node};

/// Columns and the group of each.
struct Groups {
    columns: Vec<Column>,
    /// Of every column.
    group: Vec<usize>,
    /// Of every group, in the order in which they were met.
    labels: Vec<Labels>,
}

impl Eval<'_> {
    /// Aggregates the elements of a vector.
    pub(super) fn aggregate(&self, aggregate: &Aggregate, line: Line) -> Result<Vec<Column>, EvalError> {
        let parameter = match &aggregate.parameter {
            Some(node) if !matches!(node.bare(), Node::Text(_)) => self.scalar(node, line)?,
            _ => Vec::new(),
        };
        let columns = self.vector(&aggregate.node, line)?;
        let grouping = aggregate.grouping.as_ref();
        match aggregate.aggregator {
            Aggregator::CountValues => {
                let label = match aggregate.parameter.as_ref().map(Node::bare) {
                    Some(Node::Text(label)) => label.as_str(),
                    _ => "",
                };
                self.count_values(columns, label, grouping, line)
            }
            Aggregator::Quantile => self.quantiles(self.groups(columns, grouping)?, &parameter, line),
            Aggregator::Topk | Aggregator::Bottomk => {
                let greatest = aggregate.aggregator == Aggregator::Topk;
                self.ranked(self.groups(columns, grouping)?, greatest, &parameter, line)
            }
            aggregator => self.folded(self.groups(columns, grouping)?, aggregator, line),
        }
    }

    fn groups(&self, columns: Vec<Column>, grouping: Option<&LabelList>) -> Result<Groups, EvalError> {
        let (mut labels, mut by_labels, mut group) = (Vec::new(), Map::default(), Vec::with_capacity(columns.len()));
        for column in &columns {
            self.meter.work(64)?;
            match by_labels.entry(grouped(&column.labels, grouping)) {
                Entry::Occupied(entry) => group.push(*entry.get()),
                Entry::Vacant(entry) => {
                    self.meter.bytes(entry.key().bytes())?;
                    group.push(labels.len());
                    labels.push(entry.key().clone());
                    entry.insert(labels.len() - 1);
                }
            }
        }
        Ok(Groups { columns, group, labels })
    }

    /// All aggregators that look at one value at a time.
    fn folded(&self, groups: Groups, aggregator: Aggregator, line: Line) -> Result<Vec<Column>, EvalError> {
        let Groups { columns, group, labels } = groups;
        let mut folded = Vec::with_capacity(labels.len());
        for labels in labels {
            self.meter.bytes(line.count * size_of::<Fold>())?;
            folded.push((Column::new(&self.meter, labels, line.count)?, vec![Fold::default(); line.count]));
        }
        for (column, group) in columns.iter().zip(group) {
            self.meter.work(2 * column.values.len())?;
            let folds = folded[group].1.iter_mut().zip(&column.values).filter(|(_, value)| !is_absent(**value));
            match aggregator {
                Aggregator::Sum => folds.for_each(|(fold, value)| fold.sum(*value)),
                Aggregator::Avg => folds.for_each(|(fold, value)| fold.mean(*value)),
                Aggregator::Min => folds.for_each(|(fold, value)| fold.least(*value)),
                Aggregator::Max => folds.for_each(|(fold, value)| fold.most(*value)),
                Aggregator::Stddev | Aggregator::Stdvar => folds.for_each(|(fold, value)| fold.square(*value)),
                _ => folds.for_each(|(fold, _)| fold.count += 1.0),
            }
        }
        let result = |fold: &Fold| match aggregator {
            Aggregator::Count => fold.count,
            Aggregator::Group => 1.0,
            Aggregator::Stdvar => fold.squares / fold.count,
            Aggregator::Stddev => (fold.squares / fold.count).sqrt(),
            _ => fold.value,
        };
        let columns = folded.into_iter().map(|(mut column, folds)| {
            let rows = column.values.iter_mut().zip(&folds).filter(|(_, fold)| fold.count > 0.0);
            rows.for_each(|(value, fold)| *value = result(fold));
            column
        });
        Ok(columns.collect())
    }

    fn quantiles(&self, groups: Groups, parameter: &[f64], line: Line) -> Result<Vec<Column>, EvalError> {
        let members = groups.members();
        let mut columns = Vec::with_capacity(members.len());
        let mut values = Vec::new();
        for (labels, members) in groups.labels.into_iter().zip(members) {
            let mut column = Column::new(&self.meter, labels, line.count)?;
            for (row, result) in column.values.iter_mut().enumerate() {
                self.meter.work(8 * members.len())?;
                values.clear();
                values.extend(members.iter().filter_map(|i| present(groups.columns[*i].values[row])));
                if !values.is_empty() {
                    *result = quantile(parameter[row], &mut values);
                }
            }
            columns.push(column);
        }
        Ok(columns)
    }

    /// The greatest or the least elements of each group, which keep their labels.
    fn ranked(&self, groups: Groups, greatest: bool, parameter: &[f64], line: Line) -> Result<Vec<Column>, EvalError> {
        if let Some(k) = parameter.iter().find(|k| !(-9.223_372_036_854_776e18..9.223_372_036_854_776e18).contains(*k))
        {
            let text = decimal(*k);
            return Err(EvalError::Parameter(format!("Scalar value {text} overflows int64")));
        }
        let order = if greatest { greatest_first } else { least_first };
        let (members, mut columns) = (groups.members(), groups.columns);
        let (mut ranks, mut kept) = (Vec::new(), Vec::new());
        for members in members {
            for (row, k) in parameter.iter().enumerate() {
                self.meter.work(16 * members.len())?;
                ranks.clear();
                ranks.extend(members.iter().filter_map(|i| Some((present(columns[*i].values[row])?, *i))));
                // Of equals the one that came first: columns are in order.
                ranks.sort_unstable_by(|a, b| order(a.0, b.0).then(a.1.cmp(&b.1)));
                let k = (k.max(0.0) as usize).min(ranks.len());
                ranks[k..].iter().for_each(|(_, i)| columns[*i].values[row] = ABSENT);
                if line.count == 1 {
                    kept.extend(ranks[..k].iter().map(|(_, i)| *i));
                }
            }
        }
        if line.count != 1 {
            return Ok(columns);
        }
        // An answer at one time keeps the order.
        Ok(kept.into_iter().map(|i| columns[i].clone()).collect())
    }

    fn count_values(
        &self,
        columns: Vec<Column>,
        label: &str,
        grouping: Option<&LabelList>,
        line: Line,
    ) -> Result<Vec<Column>, EvalError> {
        let (mut counted, mut places): (Vec<Column>, Map<Labels, usize>) = (Vec::new(), Map::default());
        let listed = matches!(grouping, Some(LabelList::Except(labels)) if labels.iter().any(|other| other == label));
        for column in columns {
            let base = grouped(&column.labels, grouping).without(|name| name == label);
            // Most series do not change at every step.
            let mut last: Option<(f64, usize)> = None;
            for (row, value) in column.values.into_iter().enumerate() {
                let Some(value) = present(value) else { continue };
                let place = match last {
                    Some((before, place)) if before.to_bits() == value.to_bits() => place,
                    _ => {
                        self.meter.work(256)?;
                        let text = decimal(value);
                        let labels = if listed { base.clone() } else { base.with(label, &text) };
                        match places.entry(labels) {
                            Entry::Occupied(entry) => *entry.get(),
                            Entry::Vacant(entry) => {
                                self.meter.bytes(2 * entry.key().bytes() + text.len() + label.len())?;
                                counted.push(Column::new(&self.meter, entry.key().clone(), line.count)?);
                                *entry.insert(counted.len() - 1)
                            }
                        }
                    }
                };
                last = Some((value, place));
                let count = &mut counted[place].values[row];
                *count = present(*count).unwrap_or(0.0) + 1.0;
            }
        }
        Ok(counted)
    }
}

impl Groups {
    /// The columns of every group.
    fn members(&self) -> Vec<Vec<usize>> {
        let mut members = vec![Vec::new(); self.labels.len()];
        self.group.iter().enumerate().for_each(|(i, group)| members[*group].push(i));
        members
    }
}

/// The labels of the group that labels belong to.
fn grouped(labels: &Labels, grouping: Option<&LabelList>) -> Labels {
    match grouping {
        None => Labels::empty(),
        Some(LabelList::Only(names)) => labels.only(|name| names.iter().any(|other| other == name)),
        Some(LabelList::Except(names)) => {
            labels.without(|name| name == NAME || names.iter().any(|other| other == name))
        }
    }
}

/// A number as Prometheus writes it.
fn decimal(number: f64) -> String {
    let mut text = String::new();
    // A string takes whatever is written.
    let _ = json::number(&mut text, number);
    text
}

/// What one group has come to at one step.
#[derive(Clone, Default)]
struct Fold {
    count: f64,
    /// The sum, the mean, the least or the greatest.
    value: f64,
    squares: f64,
}

impl Fold {
    fn sum(&mut self, value: f64) {
        self.count += 1.0;
        self.value = if self.count == 1.0 { value } else { self.value + value };
    }

    /// The mean, which does not overflow where the sum would.
    fn mean(&mut self, value: f64) {
        self.count += 1.0;
        if self.count == 1.0 {
            self.value = value;
            return;
        }
        let same = value.is_infinite() && (self.value > 0.0) == (value > 0.0);
        if self.value.is_infinite() && (same || value.is_finite()) {
            return;
        }
        self.value += value / self.count - self.value / self.count;
    }

    fn least(&mut self, value: f64) {
        self.count += 1.0;
        if self.count == 1.0 || value < self.value || self.value.is_nan() {
            self.value = value;
        }
    }

    fn most(&mut self, value: f64) {
        self.count += 1.0;
        if self.count == 1.0 || value > self.value || self.value.is_nan() {
            self.value = value;
        }
    }

    /// The squares of the distances from the mean (Welford). One element has none, even if it is no number.
    fn square(&mut self, value: f64) {
        self.count += 1.0;
        if self.count == 1.0 {
            self.value = value;
            return;
        }
        let delta = value - self.value;
        self.value += delta / self.count;
        self.squares += delta * (value - self.value);
    }
}
