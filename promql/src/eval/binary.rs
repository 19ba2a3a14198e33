//! Binary operators on numbers, on a vector and a number, and on pairs of elements of two vectors.

use std::cell::LazyCell;
use std::collections::hash_map::Entry;

use super::column::{Column, Map, is_absent, merge, merge_or, present};
use super::{Eval, EvalError, Out};
use crate::labels::{Labels, NAME};
use crate::span::Line;
use crate::tree::{Binary, LabelList, Matching, Side};

impl Eval<'_> {
    pub(super) fn binary(&self, binary: &Binary, line: Line) -> Result<Out, EvalError> {
        let left = self.node(&binary.left, line)?;
        let right = self.node(&binary.right, line)?;
        let operator = binary.operator;
        Ok(match (left, right) {
            (Out::Scalar(mut left), Out::Scalar(right)) => {
                for (left, right) in left.iter_mut().zip(right) {
                    let result = operator.apply(*left, right);
                    // Between numbers a comparison is always `bool`.
                    *left = if operator.is_comparison() { truth(result) } else { result.unwrap_or(f64::NAN) };
                }
                Out::Scalar(left)
            }
            (Out::Vector(columns), Out::Scalar(numbers)) => self.with_numbers(binary, columns, &numbers, false)?,
            (Out::Scalar(numbers), Out::Vector(columns)) => self.with_numbers(binary, columns, &numbers, true)?,
            (Out::Vector(left), Out::Vector(right)) if operator.is_set() => {
                Out::Vector(self.set(operator, &binary.matching.labels, left, right, line)?)
            }
            (Out::Vector(left), Out::Vector(right)) => Out::Vector(self.pairs(binary, left, right, line)?),
        })
    }

    fn with_numbers(
        &self,
        binary: &Binary,
        mut columns: Vec<Column>,
        numbers: &[f64],
        swapped: bool,
    ) -> Result<Out, EvalError> {
        let operator = binary.operator;
        for column in &mut columns {
            self.meter.work(column.values.len())?;
            if !operator.is_comparison() || binary.bool {
                column.labels = column.labels.without_name();
            }
            for (value, number) in column.values.iter_mut().zip(numbers).filter(|(value, _)| !is_absent(**value)) {
                let (left, right) = if swapped { (*number, *value) } else { (*value, *number) };
                let result = operator.apply(left, right);
                // A comparison that holds gives the vector's element, on whichever side it is.
                let result = if operator.is_comparison() { result.map(|_| *value) } else { result };
                *value = outcome(result, binary.bool);
            }
        }
        Ok(Out::Vector(merge(&self.meter, columns)?))
    }

    /// Elements whose labels match make pairs.
    fn pairs(
        &self,
        binary: &Binary,
        left: Vec<Column>,
        right: Vec<Column>,
        line: Line,
    ) -> Result<Vec<Column>, EvalError> {
        let matching = &binary.matching;
        let swapped = matching.side == Side::Right;
        let (many, one) = if swapped { (right, left) } else { (left, right) };
        let ones = self.ones(matching, &one, &many, swapped)?;
        // By the group of the one side, so that each group is checked for itself.
        let mut groups: Vec<Vec<Column>> = vec![Vec::new(); ones.len()];
        let mut matched: Vec<Vec<bool>> = vec![Vec::new(); ones.len()];
        for many in many {
            self.meter.work(64)?;
            let Some((group, members)) = ones.get(&signature(&many.labels, &matching.labels)) else { continue };
            for one in members.iter().map(|i| &one[*i]) {
                self.meter.work(2 * line.count)?;
                let rows = || many.values.iter().zip(&one.values);
                if rows().all(|(a, b)| is_absent(*a) || is_absent(*b)) {
                    continue;
                }
                let labels = result_labels(binary, &many.labels, &one.labels);
                let mut column = Column::new(&self.meter, labels, line.count)?;
                for (result, (a, b)) in column.values.iter_mut().zip(rows()) {
                    if let (Some(a), Some(b)) = (present(*a), present(*b)) {
                        let (left, right) = if swapped { (b, a) } else { (a, b) };
                        *result = outcome(binary.operator.apply(left, right), binary.bool);
                    }
                }
                if matching.side == Side::Neither {
                    self.once(&mut matched[*group], &column)?;
                }
                groups[*group].push(column);
            }
        }
        let mut columns = Vec::new();
        for group in groups {
            columns.extend(merge_or(&self.meter, group, || {
                EvalError::Matching(
                    "multiple matches for labels: grouping labels must ensure unique matches".to_owned(),
                )
            })?);
        }
        merge(&self.meter, columns)
    }

    /// The elements of the one side by their labels that match, numbered; each may be there once at a step.
    fn ones(
        &self,
        matching: &Matching,
        one: &[Column],
        many: &[Column],
        swapped: bool,
    ) -> Result<Map<Labels, (usize, Vec<usize>)>, EvalError> {
        let mut ones: Map<Labels, (usize, Vec<usize>)> = Map::default();
        // Where the many side has nothing, nobody looks.
        let looked = LazyCell::new(|| {
            let mut looked = vec![false; one.first().map_or(0, |column| column.values.len())];
            for many in many {
                looked.iter_mut().zip(&many.values).for_each(|(looked, value)| *looked |= !is_absent(*value));
            }
            looked
        });
        for (i, column) in one.iter().enumerate() {
            self.meter.work(64)?;
            let number = ones.len();
            match ones.entry(signature(&column.labels, &matching.labels)) {
                Entry::Vacant(entry) => drop(entry.insert((number, vec![i]))),
                Entry::Occupied(mut entry) => {
                    let before = entry.get().1.clone();
                    for other in before.iter().map(|other| &one[*other]) {
                        self.meter.work(column.values.len())?;
                        let both = |row: usize| !is_absent(column.values[row]) && !is_absent(other.values[row]);
                        if (0..column.values.len()).any(|row| both(row) && looked[row]) {
                            let side = if swapped { "left" } else { "right" };
                            let (group, labels, other) = (entry.key(), &column.labels, &other.labels);
                            return Err(EvalError::Matching(format!(
                                "found duplicate series for the match group {group} on the {side} hand-side of the operation: \
                                 [{labels}, {other}];many-to-many matching not allowed: matching labels must be unique on one side"
                            )));
                        }
                    }
                    entry.get_mut().1.push(i);
                }
            }
        }
        Ok(ones)
    }

    /// Refuses a second result of a group at a step.
    fn once(&self, matched: &mut Vec<bool>, column: &Column) -> Result<(), EvalError> {
        self.meter.work(column.values.len())?;
        if matched.is_empty() {
            self.meter.bytes(column.values.len())?;
            matched.resize(column.values.len(), false);
        }
        for (matched, value) in matched.iter_mut().zip(&column.values) {
            if is_absent(*value) {
                continue;
            }
            if std::mem::replace(matched, true) {
                return Err(EvalError::Matching(
                    "multiple matches for labels: many-to-one matching must be explicit (group_left/group_right)"
                        .to_owned(),
                ));
            }
        }
        Ok(())
    }
}

/// The labels by which elements make pairs.
pub(super) fn signature(labels: &Labels, list: &LabelList) -> Labels {
    match list {
        LabelList::Only(names) => labels.only(|name| names.iter().any(|other| other == name)),
        LabelList::Except(names) => labels.without(|name| name == NAME || names.iter().any(|other| other == name)),
    }
}

fn result_labels(binary: &Binary, many: &Labels, one: &Labels) -> Labels {
    let Matching { labels: list, side, include } = &binary.matching;
    let mut labels = many.clone();
    if !binary.operator.is_comparison() || binary.bool {
        labels = labels.without_name();
    }
    if *side == Side::Neither {
        let listed = |name: &str| list.labels().iter().any(|other| other == name);
        labels = if list.is_only() { labels.only(listed) } else { labels.without(listed) };
    }
    for name in include {
        labels = labels.with(name, one.get(name).unwrap_or_default());
    }
    if binary.bool { labels.without_name() } else { labels }
}

/// What stands in the result: with `bool` the truth, else the value of what holds.
fn outcome(result: Option<f64>, bool: bool) -> f64 {
    if bool { truth(result) } else { result.unwrap_or(super::column::ABSENT) }
}

fn truth(result: Option<f64>) -> f64 {
    if result.is_some() { 1.0 } else { 0.0 }
}
