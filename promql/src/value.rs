//! What goes into an evaluation and what comes out of it.

use crate::labels::Labels;

/// A value at a time, in milliseconds since the Unix epoch.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Sample {
    /// Milliseconds since the Unix epoch.
    pub at: i64,
    /// The value, which may be NaN or infinite.
    pub value: f64,
}

/// The samples of one series, in order of time. Several may have the same time: all count.
#[derive(Clone, Debug, PartialEq)]
pub struct Series {
    /// What tells this series from others: on the way in with `__name__`, on the way out without.
    pub labels: Labels,
    /// On the way in in any order; the order of samples of one time is kept.
    pub samples: Vec<Sample>,
}

/// One element of an instant vector.
#[derive(Clone, Debug, PartialEq)]
pub struct Element {
    /// Without `__name__`.
    pub labels: Labels,
    /// At the time of the query.
    pub sample: Sample,
}

/// The answer to a query. Two elements may have the same labels, where only their metrics' names told them apart.
#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    /// A number.
    Scalar(Sample),
    /// A text, at the time of the query in milliseconds.
    Text(i64, String),
    /// What an instant query for a vector gives, in the order in which functions such as `sort` left it.
    Vector(Vec<Element>),
    /// What a range query gives, or an instant query for a range vector; sorted by labels.
    Matrix(Vec<Series>),
}
