//! What a series holds: a number, or a distribution of numbers.
//!
//! Observations enter, in seconds or bytes; counts and sums leave. Sizes are fixed: a histogram takes 112 bytes, a summary at most 1.2 KiB.

/// The upper bounds of every histogram but for its last bucket, in seconds: the defaults of Prometheus' own clients.
pub const BUCKETS: [f64; 11] = [0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0];
/// The quantiles of every summary (contract: syslog drains §8.1).
pub const QUANTILES: [f64; 4] = [0.2, 0.5, 0.75, 0.95];

/// The type of a family of series.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Type {
    /// Only ever grows, or starts again.
    Counter,
    /// Any number.
    Gauge,
    /// Counts by bucket.
    Histogram,
    /// Quantiles.
    Summary,
}

impl Type {
    /// The type as `# TYPE` spells it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Counter => "counter",
            Self::Gauge => "gauge",
            Self::Histogram => "histogram",
            Self::Summary => "summary",
        }
    }

    /// How many series Prometheus sees for one of this type.
    pub fn width(self) -> usize {
        match self {
            Self::Counter | Self::Gauge => 1,
            Self::Histogram => BUCKETS.len() + 3,
            Self::Summary => QUANTILES.len() + 2,
        }
    }

    /// What a family of this type appends to its name for some of its samples.
    pub(crate) fn suffixes(self) -> &'static [&'static str] {
        match self {
            Self::Counter | Self::Gauge => &[""],
            Self::Histogram => &["", "_bucket", "_sum", "_count"],
            Self::Summary => &["", "_sum", "_count"],
        }
    }
}

/// The newest value of a series.
#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    /// A total.
    Counter(u64),
    /// A number.
    Gauge(f64),
    /// Counts by bucket.
    Histogram(Box<Histogram>),
    /// Quantiles.
    Summary(Box<Summary>),
}

impl Value {
    pub(crate) fn new(of: Type) -> Self {
        match of {
            Type::Counter => Self::Counter(0),
            Type::Gauge => Self::Gauge(0.0),
            Type::Histogram => Self::Histogram(Box::default()),
            Type::Summary => Self::Summary(Box::default()),
        }
    }

    /// Adds one to a counter, or an observation to a distribution.
    pub(crate) fn observe(&mut self, observation: f64) {
        match self {
            Self::Counter(total) => *total = total.wrapping_add(1),
            Self::Gauge(value) => *value = observation,
            Self::Histogram(histogram) => histogram.observe(observation),
            Self::Summary(summary) => summary.observe(observation),
        }
    }
}

/// Counts of observations by [`BUCKETS`].
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Histogram {
    counts: [u64; BUCKETS.len() + 1],
    sum: f64,
}

impl Histogram {
    fn observe(&mut self, observation: f64) {
        let bucket = BUCKETS.partition_point(|bound| *bound < observation);
        self.counts[bucket] += 1;
        self.sum += observation;
    }

    /// For each bound, then for all: how many observations were at most that.
    pub fn cumulative(&self) -> [u64; BUCKETS.len() + 1] {
        let mut counts = self.counts;
        for i in 1..counts.len() {
            counts[i] += counts[i - 1];
        }
        counts
    }

    /// The sum of all observations.
    pub fn sum(&self) -> f64 {
        self.sum
    }

    /// The number of observations.
    pub fn count(&self) -> u64 {
        self.counts.iter().sum()
    }
}

/// Bins of a [`Summary`]: the last holds everything from 2^36 on.
const BINS: usize = 36 * PER_DOUBLING as usize + 2;
/// Bins per power of two: a quantile is off by at most 9 %.
const PER_DOUBLING: f64 = 4.0;

/// The distribution of what was observed since the series began, in bins that grow by a factor of 2^(1/4).
///
/// A quantile is off by at most 9 % for observations from 1 to 2^36; those below 1 count as 0.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Summary {
    /// As many as observations needed; the first counts what is below 1.
    bins: Vec<u64>,
    count: u64,
    sum: f64,
}

impl Summary {
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "a float is cast to the nearest integer in range"
    )]
    fn observe(&mut self, observation: f64) {
        let bin = if observation < 1.0 { 0 } else { 1 + (observation.log2() * PER_DOUBLING) as usize };
        let bin = bin.min(BINS - 1);
        if self.bins.len() <= bin {
            self.bins.resize(bin + 1, 0);
        }
        self.bins[bin] += 1;
        self.count += 1;
        self.sum += observation;
    }

    /// The observation below which the fraction `quantile` of all lies; NaN when there is none.
    #[expect(
        clippy::cast_precision_loss,
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "counts are far below 2^52"
    )]
    pub fn quantile(&self, quantile: f64) -> f64 {
        let wanted = ((quantile * self.count as f64).ceil() as u64).max(1);
        let mut seen = 0;
        for (bin, count) in self.bins.iter().enumerate() {
            seen += count;
            if seen >= wanted {
                // The middle of the bin.
                return if bin == 0 { 0.0 } else { ((bin as f64 - 0.5) / PER_DOUBLING).exp2() };
            }
        }
        f64::NAN
    }

    /// The sum of all observations.
    pub fn sum(&self) -> f64 {
        self.sum
    }

    /// The number of observations.
    pub fn count(&self) -> u64 {
        self.count
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bucket_holds_what_is_at_most_its_bound() {
        let mut histogram = Histogram::default();
        [0.005, 0.0625, 10.0, 11.0, 0.0].iter().for_each(|seconds| histogram.observe(*seconds));
        assert_eq!(histogram.cumulative(), [2, 2, 2, 2, 3, 3, 3, 3, 3, 3, 4, 5]);
        assert_eq!((histogram.count(), histogram.sum()), (5, 0.005 + 0.0625 + 10.0 + 11.0));
    }

    #[test]
    fn quantiles_are_off_by_at_most_nine_percent() {
        let mut summary = Summary::default();
        assert!(summary.quantile(0.5).is_nan());
        (1..=10_000).for_each(|bytes| summary.observe(f64::from(bytes)));
        for quantile in QUANTILES {
            let (exact, got) = (quantile * 10_000.0, summary.quantile(quantile));
            assert!((got / exact - 1.0).abs() <= 0.09, "{quantile}: {got}");
        }
        assert_eq!((summary.count(), summary.sum()), (10_000, 50_005_000.0));
        summary.observe(1e300);
        assert_eq!(summary.bins.len(), BINS);
        let mut small = Summary::default();
        small.observe(0.0);
        assert_eq!(small.quantile(0.95), 0.0);
    }
}
