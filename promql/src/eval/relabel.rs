//! `label_replace` and `label_join`: labels made of labels.

use super::column::{Column, merge};
use super::{Eval, EvalError};
use crate::labels::Labels;
use crate::span::Line;
use crate::tree::{Call, Node};

impl Eval<'_> {
    /// `label_replace(v, to, template, from, pattern)`.
    pub(super) fn label_replace(&self, call: &Call, line: Line) -> Result<Vec<Column>, EvalError> {
        let (to, template, from) = (text(call, 1), text(call, 2), text(call, 3));
        let references = template.matches('$').count();
        self.relabelled(call, line, |labels| {
            let value = labels.get(from).unwrap_or_default();
            let pattern = call.pattern.as_ref();
            let Some(groups) = pattern.and_then(|pattern| pattern.captures(value)) else { return Ok(None) };
            self.room(template.len().saturating_add(references.saturating_mul(value.len())))?;
            let mut replaced = String::new();
            groups.expand(template, &mut replaced);
            Ok(Some(labels.with(to, &replaced)))
        })
    }

    /// `label_join(v, to, separator, from…)`.
    pub(super) fn label_join(&self, call: &Call, line: Line) -> Result<Vec<Column>, EvalError> {
        let (to, separator) = (text(call, 1), text(call, 2));
        let from: Vec<&str> = (3..call.args.len()).map(|i| text(call, i)).collect();
        self.relabelled(call, line, |labels| {
            let values = || from.iter().map(|from| labels.get(from).unwrap_or_default());
            self.room(values().map(|value| value.len() + separator.len()).sum())?;
            let joined = values().collect::<Vec<_>>().join(separator);
            Ok(Some(labels.with(to, &joined)))
        })
    }

    /// Gives every series of the first argument the labels that `relabel` makes; `None` leaves them.
    fn relabelled(
        &self,
        call: &Call,
        line: Line,
        relabel: impl Fn(&Labels) -> Result<Option<Labels>, EvalError>,
    ) -> Result<Vec<Column>, EvalError> {
        let to = text(call, 1);
        let mut columns = self.vector(&call.args[0], line)?;
        for column in &mut columns {
            self.meter.work(1024)?;
            if let Some(labels) = relabel(&column.labels)? {
                self.meter.bytes(labels.bytes() + labels.get(to).map_or(0, str::len))?;
                column.labels = labels;
            }
        }
        merge(&self.meter, columns)
    }

    /// Whether there is memory for a text that is about to be made.
    fn room(&self, bytes: usize) -> Result<(), EvalError> {
        self.meter.work(bytes / 8)?;
        if bytes > self.meter.left() { self.meter.bytes(bytes) } else { Ok(()) }
    }
}

/// An argument that is a text, as the grammar has made sure.
fn text(call: &Call, i: usize) -> &str {
    match call.args.get(i).map(Node::bare) {
        Some(Node::Text(text)) => text,
        _ => "",
    }
}
