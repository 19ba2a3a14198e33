//! Functions of range vectors: a window slides over the samples of each series.

use super::column::{Column, distinct};
use super::input::Ranged;
use super::window::{Frame, Jumps, Slide, compute};
use super::{Eval, EvalError};
use crate::function::Over;
use crate::span::Line;
use crate::tree::Call;

impl Eval<'_> {
    /// Calls a function with the window of each series at each step.
    pub(super) fn over(&self, over: Over, call: &Call, line: Line) -> Result<Vec<Column>, EvalError> {
        let (ranged_first, ranged_second) = (0, 1);
        let place = if over == Over::Quantile { ranged_second } else { ranged_first };
        let others = call.args.iter().enumerate().filter(|(i, _)| *i != place);
        let others = others.map(|(_, node)| self.scalar(node, line)).collect::<Result<Vec<_>, _>>()?;
        let Ranged { series, range, shift } = self.ranged(&call.args[place], line)?;
        let mut columns = Vec::new();
        let (mut jumps, mut scratch) = (Jumps::default(), Vec::new());
        for (labels, samples) in series {
            let labels = if over.keeps_name() { labels } else { labels.without_name() };
            let mut column = Column::new(&self.meter, labels, line.count)?;
            self.meter.work(samples.len())?;
            jumps.count(over, &samples);
            let mut slide = Slide::new(&samples);
            let mut found = 0;
            for row in 0..line.count {
                let at = line.at(row);
                let to = shift.apply(at, self.span);
                let window = slide.to(to.saturating_sub(range), to);
                if window.is_empty() {
                    continue;
                }
                let samples = &samples[window.clone()];
                self.meter.peek(samples.len())?;
                self.meter.work(if over.scans() { samples.len() + 8 } else { 8 })?;
                let frame = Frame {
                    at,
                    to,
                    range,
                    parameters: [0, 1].map(|i| others.get(i).map_or(f64::NAN, |values| values[row])),
                    jumps: jumps.within(window),
                };
                if let Some(value) = compute(over, samples, &frame, &mut scratch)? {
                    column.values[row] = value;
                    found += 1;
                }
            }
            self.meter.samples(found)?;
            if found > 0 {
                columns.push(column);
            }
        }
        distinct(&self.meter, columns)
    }

    /// At which steps no series has a sample in its window.
    pub(super) fn without_samples(&self, call: &Call, line: Line) -> Result<Vec<bool>, EvalError> {
        let Ranged { series, range, shift } = self.ranged(&call.args[0], line)?;
        let mut empty = vec![true; line.count];
        for (_, samples) in series {
            self.meter.work(samples.len() + line.count)?;
            let mut slide = Slide::new(&samples);
            for (at, empty) in line.times().zip(&mut empty) {
                let to = shift.apply(at, self.span);
                *empty &= slide.to(to.saturating_sub(range), to).is_empty();
            }
        }
        Ok(empty)
    }
}

impl Over {
    /// Whether the cost of one window grows with its samples.
    fn scans(self) -> bool {
        !matches!(
            self,
            Self::Changes
                | Self::Count
                | Self::Delta
                | Self::First
                | Self::Idelta
                | Self::Irate
                | Self::Last
                | Self::Present
                | Self::Resets
        )
    }
}
