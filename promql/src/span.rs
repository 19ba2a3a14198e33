//! When a query is evaluated: at one time, or at steps over a range.

use crate::limits::Limits;

/// The times at which a query is evaluated, in milliseconds since the Unix epoch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Span {
    line: Line,
    /// The end as it was asked for, which `end()` stands for; the last step may lie before it.
    end: i64,
    range: bool,
}

/// Why a range cannot be evaluated.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SpanError {
    /// The step is zero or negative.
    #[error("zero or negative query resolution step widths are not accepted. Try a positive integer")]
    Step,
    /// The range has too many steps.
    #[error(
        "exceeded maximum resolution of {limit} points per timeseries. Try decreasing the query resolution (?step=XX)"
    )]
    Points {
        /// How many there may be.
        limit: usize,
    },
}

impl Span {
    /// One time.
    pub fn instant(at: i64) -> Self {
        Self { line: Line { start: at, step: 1, count: 1 }, end: at, range: false }
    }

    /// Every `step` milliseconds from `start` up to `end`, which is reached if a step falls on it. An end before the start is a range
    /// without steps.
    ///
    /// # Errors
    ///
    /// A step that is not positive; more steps than [`Limits::points`].
    pub fn range(start: i64, end: i64, step: i64, limits: &Limits) -> Result<Self, SpanError> {
        if step <= 0 {
            return Err(SpanError::Step);
        }
        let line = Line::between(start, end, step);
        match line {
            Some(line) if line.count <= limits.points => Ok(Self { line, end, range: true }),
            _ => Err(SpanError::Points { limit: limits.points }),
        }
    }

    /// Where it begins.
    pub fn start(&self) -> i64 {
        self.line.start
    }

    /// Where it ends, as it was asked for.
    pub fn end(&self) -> i64 {
        self.end
    }

    /// Whether the answer is a matrix of steps.
    pub fn is_range(&self) -> bool {
        self.range
    }

    pub(crate) fn line(&self) -> Line {
        self.line
    }
}

/// Steps in time: those of the query, or those of a subquery.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Line {
    pub(crate) start: i64,
    pub(crate) step: i64,
    pub(crate) count: usize,
}

impl Line {
    /// The steps in `[start, end]`; `None` if there are more than can be counted. `step` is positive.
    pub(crate) fn between(start: i64, end: i64, step: i64) -> Option<Self> {
        let steps = (i128::from(end) - i128::from(start)).div_euclid(i128::from(step)) + 1;
        Some(Self { start, step, count: usize::try_from(steps.max(0)).ok()? })
    }

    /// The time of a step below `count`.
    pub(crate) fn at(&self, i: usize) -> i64 {
        // From one end of time to the other a step times its number can be more than 63 bits; both are far less than 127.
        let at = i128::from(self.start) + i128::from(self.step) * i as i128;
        i64::try_from(at).unwrap_or(i64::MAX)
    }

    /// The first time alone, as what does not change from step to step is evaluated.
    pub(crate) fn first(&self) -> Self {
        Self { count: self.count.min(1), ..*self }
    }

    pub(crate) fn last(&self) -> i64 {
        self.at(self.count.saturating_sub(1))
    }

    pub(crate) fn times(&self) -> impl Iterator<Item = i64> {
        let line = *self;
        (0..line.count).map(move |i| line.at(i))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn range(start: i64, end: i64, step: i64) -> Result<usize, SpanError> {
        Span::range(start, end, step, &Limits::default()).map(|span| span.line.count)
    }

    #[test]
    fn steps_are_counted_and_bounded() {
        assert_eq!(range(0, 10, 5), Ok(3));
        assert_eq!(range(0, 9, 5), Ok(2));
        assert_eq!(range(7, 7, 5), Ok(1));
        assert_eq!(range(8, 7, 5), Ok(0));
        assert_eq!(range(i64::MAX, i64::MIN, 1), Ok(0));
        assert_eq!(range(0, 10_999, 1), Ok(11_000));
        assert_eq!(range(0, 11_000, 1), Err(SpanError::Points { limit: 11_000 }));
        assert_eq!(range(i64::MIN, i64::MAX, 1), Err(SpanError::Points { limit: 11_000 }));
        assert_eq!(range(i64::MIN, i64::MAX, i64::MAX), Ok(3));
        assert_eq!([range(0, 1, 0), range(0, 1, -1), range(0, 1, i64::MIN)], [const { Err(SpanError::Step) }; 3]);
    }

    #[test]
    fn times_never_overflow() {
        let span = Span::range(i64::MIN, i64::MAX, i64::MAX, &Limits::default()).unwrap();
        assert_eq!(span.line().times().collect::<Vec<_>>(), [i64::MIN, -1, i64::MAX - 1]);
    }
}
