//! The set operators: elements of one vector by whether the other has an element with matching labels.

use super::binary::signature;
use super::column::{ABSENT, Column, Map, is_absent, merge};
use super::{Eval, EvalError};
use crate::labels::Labels;
use crate::operator::Operator;
use crate::span::Line;
use crate::tree::LabelList;

/// At which steps there is an element, by the labels that match.
type Presence = Map<Labels, Vec<bool>>;

impl Eval<'_> {
    pub(super) fn set(
        &self,
        operator: Operator,
        list: &LabelList,
        left: Vec<Column>,
        right: Vec<Column>,
        line: Line,
    ) -> Result<Vec<Column>, EvalError> {
        let columns = match operator {
            Operator::And => self.masked(left, list, &self.presence(&right, list, line)?, true)?,
            Operator::Unless => self.masked(left, list, &self.presence(&right, list, line)?, false)?,
            _ => {
                let presence = self.presence(&left, list, line)?;
                let mut columns = left;
                columns.extend(self.masked(right, list, &presence, false)?);
                columns
            }
        };
        merge(&self.meter, columns)
    }

    fn presence(&self, columns: &[Column], list: &LabelList, line: Line) -> Result<Presence, EvalError> {
        let mut presence = Presence::default();
        for column in columns {
            self.meter.work(line.count + 64)?;
            let labels = signature(&column.labels, list);
            if !presence.contains_key(&labels) {
                self.meter.bytes(labels.bytes() + line.count)?;
            }
            let rows = presence.entry(labels).or_insert_with(|| vec![false; line.count]);
            rows.iter_mut().zip(&column.values).for_each(|(row, value)| *row |= !is_absent(*value));
        }
        Ok(presence)
    }

    /// Keeps elements where the presence of a match is as wanted.
    fn masked(
        &self,
        columns: Vec<Column>,
        list: &LabelList,
        presence: &Presence,
        wanted: bool,
    ) -> Result<Vec<Column>, EvalError> {
        let mut kept = Vec::with_capacity(columns.len());
        for mut column in columns {
            self.meter.work(column.values.len() + 64)?;
            match presence.get(&signature(&column.labels, list)) {
                Some(rows) => {
                    let gone = column.values.iter_mut().zip(rows).filter(|(_, there)| **there != wanted);
                    gone.for_each(|(value, _)| *value = ABSENT);
                }
                None if wanted => continue,
                None => {}
            }
            kept.push(column);
        }
        Ok(kept)
    }
}
