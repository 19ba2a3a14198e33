//! What functions make of the samples in one window.

use std::ops::Range;

use super::EvalError;
use super::rank::quantile;
use crate::function::Over;
use crate::value::Sample;

/// A window that moves forward over samples.
pub(super) struct Slide<'a> {
    samples: &'a [Sample],
    window: Range<usize>,
    started: bool,
}

impl<'a> Slide<'a> {
    pub(super) fn new(samples: &'a [Sample]) -> Self {
        Self { samples, window: 0..0, started: false }
    }

    /// Moves to the samples in the closed range; neither end may be before that of the last move.
    pub(super) fn to(&mut self, from: i64, to: i64) -> Range<usize> {
        if !self.started {
            self.started = true;
            let begin = self.samples.partition_point(|sample| sample.at < from);
            self.window = begin..begin;
        }
        let Range { start, end } = &mut self.window;
        while self.samples.get(*start).is_some_and(|sample| sample.at < from) {
            *start += 1;
        }
        *end = (*end).max(*start);
        while self.samples.get(*end).is_some_and(|sample| sample.at <= to) {
            *end += 1;
        }
        self.window.clone()
    }
}

/// How often the value falls, or changes, up to each sample: so that windows without resets need no scan.
#[derive(Default)]
pub(super) struct Jumps(Vec<u32>);

impl Jumps {
    /// Counts what the function asks for, over all samples of a series.
    pub(super) fn count(&mut self, over: Over, samples: &[Sample]) {
        let jumps: fn(f64, f64) -> bool = match over {
            Over::Rate | Over::Increase | Over::Resets => |before, after| after < before,
            Over::Changes => |before, after| after != before && !(after.is_nan() && before.is_nan()),
            _ => return,
        };
        self.0.clear();
        let (mut count, mut before) = (0, None);
        self.0.extend(samples.iter().map(|sample| {
            count += u32::from(before.is_some_and(|before| jumps(before, sample.value)));
            before = Some(sample.value);
            count
        }));
    }

    /// How many there are between the samples of a window, which is not empty.
    pub(super) fn within(&self, window: Range<usize>) -> u32 {
        match (self.0.get(window.start), self.0.get(window.end - 1)) {
            (Some(first), Some(last)) => last - first,
            _ => 0,
        }
    }
}

/// What a function knows beside the samples. Times are in milliseconds.
pub(super) struct Frame {
    /// The time of the step.
    pub(super) at: i64,
    /// The end of the window, and its length.
    pub(super) to: i64,
    pub(super) range: i64,
    /// The scalar arguments, in their order.
    pub(super) parameters: [f64; 2],
    pub(super) jumps: u32,
}

/// Calls a function with a window that is not empty; `None` where that is too little.
pub(super) fn compute(
    over: Over,
    window: &[Sample],
    frame: &Frame,
    scratch: &mut Vec<f64>,
) -> Result<Option<f64>, EvalError> {
    let (first, last) = (window[0], window[window.len() - 1]);
    let values = || window.iter().map(|sample| sample.value);
    let [one, two] = frame.parameters;
    Ok(match over {
        Over::Avg => Some(average(values())),
        Over::Changes | Over::Resets => Some(f64::from(frame.jumps)),
        Over::Count => Some(window.len() as f64),
        Over::Delta => extrapolated(window, frame, false, false),
        Over::Increase => extrapolated(window, frame, true, false),
        Over::Rate => extrapolated(window, frame, true, true),
        Over::Deriv if window.len() < 2 => None,
        Over::Deriv => Some(regression(window, first.at).0),
        Over::PredictLinear if window.len() < 2 => None,
        Over::PredictLinear => {
            let (slope, intercept) = regression(window, frame.at);
            Some(slope * one + intercept)
        }
        Over::First => Some(first.value),
        Over::Last => Some(last.value),
        Over::HoltWinters => smoothed(window, one, two)?,
        Over::Idelta => instant(window, false),
        Over::Irate => instant(window, true),
        Over::Mad => {
            scratch.clear();
            scratch.extend(values());
            let median = quantile(0.5, scratch);
            scratch.iter_mut().for_each(|value| *value = (*value - median).abs());
            Some(quantile(0.5, scratch))
        }
        Over::Max => values().reduce(|most, value| if value > most || most.is_nan() { value } else { most }),
        Over::Min => values().reduce(|least, value| if value < least || least.is_nan() { value } else { least }),
        Over::Present => Some(1.0),
        Over::Quantile => {
            scratch.clear();
            scratch.extend(values());
            Some(quantile(one, scratch))
        }
        Over::Stddev => Some(variance(values()).sqrt()),
        Over::Stdvar => Some(variance(values())),
        Over::Sum => {
            let mut sum = Sum::default();
            values().for_each(|value| sum.add(value));
            Some(sum.total())
        }
    })
}

/// A sum that carries what floats lose (Kahan and Neumaier).
#[derive(Clone, Copy, Default)]
pub(super) struct Sum {
    sum: f64,
    lost: f64,
}

impl Sum {
    pub(super) fn add(&mut self, value: f64) {
        let sum = self.sum + value;
        self.lost += if self.sum.abs() >= value.abs() { (self.sum - sum) + value } else { (value - sum) + self.sum };
        self.sum = sum;
    }

    /// Infinite sums lose nothing that can be told.
    fn total(self) -> f64 {
        if self.sum.is_infinite() { self.sum } else { self.carried() }
    }

    fn carried(self) -> f64 {
        self.sum + self.lost
    }
}

/// The mean, which does not overflow where the sum would.
fn average(values: impl Iterator<Item = f64>) -> f64 {
    let (mut mean, mut count) = (Sum::default(), 0.0);
    for value in values {
        count += 1.0;
        let stays = !value.is_nan() && (!value.is_infinite() || (mean.sum > 0.0) == (value > 0.0));
        if mean.sum.is_infinite() && stays {
            continue;
        }
        mean.add(value / count - mean.sum / count);
    }
    mean.total()
}

/// The population variance (Welford).
fn variance(values: impl Iterator<Item = f64>) -> f64 {
    let (mut mean, mut squares, mut count) = (Sum::default(), Sum::default(), 0.0);
    for value in values {
        count += 1.0;
        let delta = value - mean.carried();
        mean.add(delta / count);
        squares.add(delta * (value - mean.carried()));
    }
    squares.carried() / count
}

/// How much the value grows over the whole window, in which the samples lie somewhere; of a counter, with its resets. Up to a border
/// that is not much farther than samples are from each other it is taken to go on, else for half that distance; a counter does not go
/// below zero. Samples of one time alone tell nothing.
fn extrapolated(window: &[Sample], frame: &Frame, counter: bool, per_second: bool) -> Option<f64> {
    let (first, last) = (window[0], window[window.len() - 1]);
    let covered = seconds(last.at.abs_diff(first.at));
    if window.len() < 2 || covered == 0.0 {
        return None;
    }
    let mut growth = last.value - first.value;
    if counter && frame.jumps > 0 {
        let falls = window.windows(2).filter(|pair| pair[1].value < pair[0].value);
        growth = falls.fold(growth, |growth, pair| growth + pair[0].value);
    }
    let from = frame.to.saturating_sub(frame.range);
    let mut before = seconds(first.at.abs_diff(from));
    let after = seconds(frame.to.abs_diff(last.at));
    let between = covered / (window.len() - 1) as f64;
    if counter && growth > 0.0 && first.value >= 0.0 {
        before = before.min(covered * (first.value / growth));
    }
    let reach = |gap: f64| if gap < between * 1.1 { gap } else { between / 2.0 };
    let mut factor = (covered + reach(before) + reach(after)) / covered;
    if per_second {
        factor /= frame.range as f64 / 1000.0;
    }
    Some(growth * factor)
}

/// The difference of the last two samples; of a counter, per second and with its reset.
fn instant(window: &[Sample], counter: bool) -> Option<f64> {
    let [.., before, last] = window else { return None };
    let apart = last.at.abs_diff(before.at);
    if apart == 0 {
        return None;
    }
    let growth = if counter && last.value < before.value { last.value } else { last.value - before.value };
    Some(if counter { growth / seconds(apart) } else { growth })
}

/// The least-squares line: its slope per second, and its value at a time.
fn regression(window: &[Sample], at: i64) -> (f64, f64) {
    let first = window[0].value;
    if window.iter().all(|sample| sample.value == first) {
        return if first.is_infinite() { (f64::NAN, f64::NAN) } else { (0.0, first) };
    }
    let n = window.len() as f64;
    let [mut x_sum, mut y_sum, mut xy_sum, mut xx_sum] = [Sum::default(); 4];
    for sample in window {
        let x = sample.at.saturating_sub(at) as f64 / 1000.0;
        x_sum.add(x);
        y_sum.add(sample.value);
        xy_sum.add(x * sample.value);
        xx_sum.add(x * x);
    }
    let [x, y, xy, xx] = [x_sum, y_sum, xy_sum, xx_sum].map(Sum::carried);
    let slope = (xy - x * y / n) / (xx - x * x / n);
    (slope, y / n - slope * x / n)
}

/// Double exponential smoothing.
fn smoothed(window: &[Sample], smoothing: f64, trend: f64) -> Result<Option<f64>, EvalError> {
    for (name, factor) in [("smoothing", smoothing), ("trend", trend)] {
        if factor <= 0.0 || factor >= 1.0 {
            let short = if name == "smoothing" { "sf" } else { "tf" };
            let text = format!("invalid {name} factor. Expected: 0 < {short} < 1, got: {factor:.6}");
            return Err(EvalError::Parameter(text));
        }
    }
    let [first, second, ..] = window else { return Ok(None) };
    let (mut before, mut level, mut slope) = (0.0, first.value, second.value - first.value);
    for (i, sample) in window.iter().enumerate().skip(1) {
        if i > 1 {
            slope = trend * (level - before) + (1.0 - trend) * slope;
        }
        let next = smoothing * sample.value + (1.0 - smoothing) * (level + slope);
        (before, level) = (level, next);
    }
    Ok(Some(level))
}

fn seconds(millis: u64) -> f64 {
    millis as f64 / 1000.0
}
