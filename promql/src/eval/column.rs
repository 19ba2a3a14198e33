//! Results while they are computed: one column of values for each series, one row for each step.

use std::collections::HashMap;
use std::collections::hash_map::Entry;

use foldhash::fast::RandomState;

use super::EvalError;
use super::meter::{Held, Meter};
use crate::labels::Labels;

/// Stands where a series has no value at a step: a NaN that no arithmetic gives, and that samples are cleared of.
pub(crate) const ABSENT: f64 = f64::from_bits(0x7ff0_0000_0000_0002);

pub(crate) fn is_absent(value: f64) -> bool {
    value.to_bits() == ABSENT.to_bits()
}

/// The value, unless it is absent.
pub(crate) fn present(value: f64) -> Option<f64> {
    (!is_absent(value)).then_some(value)
}

/// A map with a seed of its own: labels are chosen by strangers.
pub(crate) type Map<K, V> = HashMap<K, V, RandomState>;

/// One series at all steps.
#[derive(Clone, Debug)]
pub(crate) struct Column {
    pub(crate) labels: Labels,
    pub(crate) values: Vec<f64>,
}

impl Column {
    /// A column without any value yet.
    pub(crate) fn new(meter: &Meter<'_>, labels: Labels, count: usize) -> Result<Self, EvalError> {
        meter.bytes(Self::cost(&labels, count))?;
        meter.work(count)?;
        Ok(Self { labels, values: vec![ABSENT; count] })
    }

    pub(crate) fn present(&self) -> usize {
        self.values.iter().filter(|value| !is_absent(**value)).count()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.values.iter().all(|value| is_absent(*value))
    }

    pub(crate) fn held(&self) -> Held {
        Held { samples: self.present(), bytes: Self::cost(&self.labels, self.values.len()) }
    }

    fn cost(labels: &Labels, count: usize) -> usize {
        size_of::<Self>() + labels.bytes() + count * size_of::<f64>()
    }
}

/// Makes one column of those with equal labels, which must not have values at the same step.
pub(crate) fn merge(meter: &Meter<'_>, columns: Vec<Column>) -> Result<Vec<Column>, EvalError> {
    merge_or(meter, columns, || EvalError::SameLabels)
}

/// As `merge`, with the error for those that have.
pub(crate) fn merge_or(
    meter: &Meter<'_>,
    columns: Vec<Column>,
    error: impl Fn() -> EvalError,
) -> Result<Vec<Column>, EvalError> {
    let mut merged: Vec<Column> = Vec::with_capacity(columns.len());
    let mut by_labels: Map<Labels, usize> = Map::default();
    for column in columns {
        meter.work(column.values.len() + 64)?;
        match by_labels.entry(column.labels.clone()) {
            Entry::Vacant(entry) => {
                entry.insert(merged.len());
                merged.push(column);
            }
            Entry::Occupied(entry) => {
                for (into, value) in merged[*entry.get()].values.iter_mut().zip(column.values) {
                    match (is_absent(*into), is_absent(value)) {
                        (true, _) => *into = value,
                        (false, true) => {}
                        (false, false) => return Err(error()),
                    }
                }
            }
        }
    }
    Ok(merged)
}

/// Refuses columns with equal labels, even where they have no values at the same step.
pub(crate) fn distinct(meter: &Meter<'_>, columns: Vec<Column>) -> Result<Vec<Column>, EvalError> {
    let mut seen: Map<&Labels, ()> = Map::default();
    for column in &columns {
        meter.work(64)?;
        if seen.insert(&column.labels, ()).is_some() {
            return Err(EvalError::SameLabels);
        }
    }
    Ok(columns)
}
