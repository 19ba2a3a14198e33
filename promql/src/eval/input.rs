//! The samples that were fetched, made ready: what a selector gives at each step, and the windows of range vectors.

use std::borrow::Cow;

use super::column::{Column, present};
use super::meter::{Held, Meter};
use super::{Eval, EvalError};
use crate::labels::Labels;
use crate::select::{LOOKBACK, subquery_line};
use crate::span::Line;
use crate::tree::{Node, Query, SOURCE, Selector, Shift, Subquery};
use crate::value::{Sample, Series};

/// For each selector its series: only what matches, sorted by labels, each once; samples in order of time.
pub(super) struct Input<'a> {
    query: &'a Query,
    series: Vec<Vec<Series>>,
}

/// A range vector: series, and which window of them a step looks at.
pub(super) struct Ranged<'a> {
    pub(super) series: Vec<(Labels, Cow<'a, [Sample]>)>,
    /// In milliseconds.
    pub(super) range: i64,
    pub(super) shift: Shift,
}

impl<'a> Input<'a> {
    pub(super) fn new(query: &'a Query, data: Vec<Vec<Series>>, meter: &Meter<'_>) -> Result<Self, EvalError> {
        let mut data = data.into_iter();
        let prepared = query.selectors.iter().map(|selector| prepare(selector, data.next().unwrap_or_default(), meter));
        Ok(Self { query, series: prepared.collect::<Result<_, _>>()? })
    }
}

impl Eval<'_> {
    /// The latest sample of each series at each step, or the times of these samples, in seconds.
    pub(super) fn selector(&self, i: usize, line: Line, times: bool) -> Result<Vec<Column>, EvalError> {
        let shift = self.input.query.selectors[i].shift;
        let mut columns = Vec::new();
        for series in &self.input.series[i] {
            let samples = &series.samples;
            // Samples before this one are not after the time of the step.
            let mut next = samples.partition_point(|sample| sample.at <= shift.apply(line.start, self.span));
            let mut column = Column::new(&self.meter, series.labels.clone(), line.count)?;
            let (first, mut found) = (next, 0);
            for (at, value) in line.times().zip(&mut column.values) {
                let at = shift.apply(at, self.span);
                while samples.get(next).is_some_and(|sample| sample.at <= at) {
                    next += 1;
                }
                let Some(sample) = next.checked_sub(1).map(|last| samples[last]) else { continue };
                if sample.at >= at.saturating_sub(LOOKBACK) {
                    *value = if times { sample.at as f64 / 1000.0 } else { sample.value };
                    found += 1;
                }
            }
            self.meter.work(line.count + next - first)?;
            self.meter.samples(found)?;
            if found > 0 {
                columns.push(column);
            }
        }
        Ok(columns)
    }

    /// The series of a range vector, for the windows of all steps.
    pub(super) fn ranged(&self, node: &Node, line: Line) -> Result<Ranged<'_>, EvalError> {
        match node.bare() {
            Node::Selector(i, _) => {
                let selector = &self.input.query.selectors[*i];
                let series = self.input.series[*i].iter();
                let series = series.map(|series| (series.labels.clone(), Cow::Borrowed(series.samples.as_slice())));
                Ok(Ranged {
                    series: series.collect(),
                    range: selector.range.unwrap_or(LOOKBACK),
                    shift: selector.shift,
                })
            }
            Node::Subquery(subquery) => self.subquery(subquery, line),
            // The grammar lets nothing else be a range vector.
            _ => Ok(Ranged { series: Vec::new(), range: 0, shift: Shift::default() }),
        }
    }

    /// Evaluates a subquery at the steps in all windows.
    fn subquery(&self, subquery: &Subquery, outer: Line) -> Result<Ranged<'_>, EvalError> {
        let limit = self.meter.limits().samples;
        let line = subquery_line(subquery, outer, self.span).filter(|line| line.count <= limit);
        let line = line.ok_or(EvalError::Samples { limit })?;
        let mark = self.meter.mark();
        let columns = self.vector(&subquery.node, line)?;
        let (mut series, mut held) = (Vec::with_capacity(columns.len()), Held::default());
        for column in columns {
            let count = column.present();
            let bytes = count * size_of::<Sample>() + column.labels.bytes();
            self.meter.bytes(bytes)?;
            self.meter.work(line.count)?;
            held = Held { samples: held.samples + count, bytes: held.bytes + bytes };
            let mut samples = Vec::with_capacity(count);
            let values = line.times().zip(column.values);
            samples.extend(values.filter_map(|(at, value)| Some(Sample { at, value: present(value)? })));
            series.push((column.labels, Cow::Owned(samples)));
        }
        self.meter.settle(mark, held)?;
        Ok(Ranged { series, range: subquery.range, shift: subquery.shift })
    }
}

/// The series of one selector, whatever they were fetched with.
fn prepare(selector: &Selector, fetched: Vec<Series>, meter: &Meter<'_>) -> Result<Vec<Series>, EvalError> {
    let mut series = Vec::with_capacity(fetched.len());
    for one in fetched {
        meter.work(64 * (1 + selector.matchers.len()))?;
        if !one.samples.is_empty() && admits(selector, &one.labels) {
            series.push(one);
        }
    }
    series.sort_by(|a, b| a.labels.cmp(&b.labels));
    let mut prepared: Vec<Series> = Vec::with_capacity(series.len());
    for mut series in series {
        match prepared.last_mut() {
            // Two caches may each hold a part.
            Some(last) if last.labels == series.labels => last.samples.append(&mut series.samples),
            _ => prepared.push(series),
        }
    }
    for series in &mut prepared {
        meter.work(series.samples.len())?;
        if !series.samples.is_sorted_by_key(|sample| sample.at) {
            series.samples.sort_by_key(|sample| sample.at);
        }
        for sample in &mut series.samples {
            // One of them would read as absent.
            if sample.value.is_nan() {
                sample.value = f64::NAN;
            }
        }
    }
    Ok(prepared)
}

/// Whether a series is one that the selector selects.
fn admits(selector: &Selector, labels: &Labels) -> bool {
    let source = labels.get(SOURCE).unwrap_or_default();
    selector.sources.binary_search_by(|other| other.as_str().cmp(source)).is_ok()
        && selector.matchers.iter().all(|matcher| matcher.matches(labels.get(matcher.label())))
}
