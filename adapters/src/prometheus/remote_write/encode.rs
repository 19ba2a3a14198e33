//! Values as an encoded and compressed `WriteRequest` (contract: syslog drains §8.2).
//!
//! Runs of values of one series enter; bodies leave. The bytes of the labels are those of the series, copied and never made anew;
//! `__name__` and `le` go between them, at places that were found when the series was made.

use std::collections::VecDeque;

use proto::raw::wire::{put_varint, varint_len};

use super::Request;
use crate::prometheus::exposition::put_float;
use crate::prometheus::labels::{Inserted, Labels, put_label};
use crate::prometheus::series::{BUCKETS, Family, QUANTILES, Type, Value};

/// A request is done when it is this long before compression. At most some 8 MiB and one series.
const UNCOMPRESSED: usize = 8 << 20;
/// Key of `WriteRequest.timeseries`, of `TimeSeries.samples`, of `Sample.value` and of `Sample.timestamp`.
const SERIES: u8 = 1 << 3 | 2;
const SAMPLE: u8 = 2 << 3 | 2;
const VALUE: u8 = 1 << 3 | 1;
const TIMESTAMP: u8 = 2 << 3;

/// A value on its way: when, the number, and all numbers of a distribution.
pub(super) type Point = (i64, f64, Option<Box<Value>>);

/// A request being made. Its buffers stay for the next.
#[derive(Debug)]
pub(super) struct Encoder {
    body: Vec<u8>,
    compressed: Vec<u8>,
    /// After each series: bytes and samples so far.
    ends: Vec<(usize, usize)>,
    samples: usize,
    run: Vec<Point>,
    /// The encoded `le` and `quantile` labels.
    bounds: Vec<Vec<u8>>,
    quantiles: Vec<Vec<u8>>,
    snappy: snap::raw::Encoder,
}

impl Default for Encoder {
    fn default() -> Self {
        let labels = |name, values: &mut dyn Iterator<Item = f64>| {
            let packed = values.map(|value| {
                let (mut text, mut packed) = (String::new(), Vec::new());
                put_float(&mut text, value);
                put_label(&mut packed, name, &text);
                packed
            });
            packed.collect()
        };
        Self {
            body: Vec::new(),
            compressed: Vec::new(),
            ends: Vec::new(),
            samples: 0,
            run: Vec::new(),
            bounds: labels("le", &mut BUCKETS.into_iter().chain([f64::INFINITY])),
            quantiles: labels("quantile", &mut QUANTILES.into_iter()),
            snappy: snap::raw::Encoder::new(),
        }
    }
}

impl Encoder {
    pub(super) fn start(&mut self) {
        self.body.clear();
        self.ends.clear();
        self.samples = 0;
    }

    pub(super) fn samples(&self) -> usize {
        self.samples
    }

    pub(super) fn is_empty(&self) -> bool {
        self.samples == 0
    }

    pub(super) fn is_full(&self, max_samples: usize) -> bool {
        self.samples >= max_samples || self.body.len() >= UNCOMPRESSED
    }

    /// Where the caller puts the values of a series, oldest first, for [`Encoder::put`].
    pub(super) fn run(&mut self) -> &mut Vec<Point> {
        self.run.clear();
        &mut self.run
    }

    /// Appends the values in [`Encoder::run`] as those of a series. Gives how many there were.
    pub(super) fn put(&mut self, family: &Family, labels: &Labels) -> usize {
        let (before, after) = labels.around_name();
        // Taken out while the body is written to.
        let (bounds, quantiles) = (std::mem::take(&mut self.bounds), std::mem::take(&mut self.quantiles));
        let (sum, count) = match family.of() {
            Type::Counter | Type::Gauge => {
                self.series([before, family.name_label(0), after, &[], &[]], Part::Only);
                (None, None)
            }
            Type::Histogram => {
                let (first, middle, last) = labels.around(Inserted::Le);
                for (i, bound) in bounds.iter().enumerate() {
                    self.series([first, family.name_label(1), middle, bound, last], Part::Bucket(i));
                }
                (Some(2), Some(3))
            }
            Type::Summary => {
                let (first, middle, last) = labels.around(Inserted::Quantile);
                for (label, quantile) in quantiles.iter().zip(QUANTILES) {
                    self.series([first, family.name_label(0), middle, label, last], Part::Quantile(quantile));
                }
                (Some(1), Some(2))
            }
        };
        for (suffix, part) in [(sum, Part::Sum), (count, Part::Count)] {
            if let Some(suffix) = suffix {
                self.series([before, family.name_label(suffix), after, &[], &[]], part);
            }
        }
        (self.bounds, self.quantiles) = (bounds, quantiles);
        self.run.len()
    }

    /// Appends one `TimeSeries`.
    fn series(&mut self, labels: [&[u8]; 5], part: Part) {
        let Self { body, run, .. } = self;
        let of_labels: usize = labels.iter().map(|piece| piece.len()).sum();
        let of_samples: usize = run.iter().map(|(at, ..)| 2 + sample_len(*at)).sum();
        let len = of_labels + of_samples;
        body.reserve(len + 12);
        body.push(SERIES);
        put_varint(body, len as u64);
        labels.iter().for_each(|piece| body.extend_from_slice(piece));
        for point in run.iter() {
            let mut sample = [0; 2 + 9 + 1];
            sample[0] = SAMPLE;
            sample[1] = sample_len(point.0) as u8;
            sample[2] = VALUE;
            sample[3..11].copy_from_slice(&part.of(point).to_le_bytes());
            sample[11] = TIMESTAMP;
            body.extend_from_slice(&sample);
            put_varint(body, point.0.cast_unsigned());
        }
        self.samples += self.run.len();
        self.ends.push((self.body.len(), self.samples));
    }

    /// Compresses what has been put. More than one body if one would be longer than `max_bytes` (and is of more than one series).
    pub(super) fn finish(&mut self, max_bytes: usize) -> VecDeque<Request> {
        let mut requests = VecDeque::new();
        // Ranges of `ends`, first ones last.
        let mut ranges = vec![(0, self.ends.len())];
        while let Some((from, to)) = ranges.pop().filter(|(from, to)| from < to) {
            let (start, before) = from.checked_sub(1).map_or((0, 0), |last| self.ends[last]);
            let (end, samples) = self.ends[to - 1];
            let input = &self.body[start..end];
            let longest = snap::raw::max_compress_len(input.len());
            if self.compressed.len() < longest {
                self.compressed.resize(longest, 0);
            }
            let compressed = self.snappy.compress(input, &mut self.compressed);
            let len = compressed.expect("it is far below 4 GiB and the output has room");
            if len > max_bytes && to - from > 1 {
                let middle = from + (to - from) / 2;
                ranges.extend([(middle, to), (from, middle)]);
                continue;
            }
            requests.push_back(Request { body: self.compressed[..len].to_vec(), samples: samples - before });
        }
        requests
    }
}

/// Which number of a value.
#[derive(Clone, Copy)]
enum Part {
    Only,
    Bucket(usize),
    Quantile(f64),
    Sum,
    Count,
}

impl Part {
    /// A value without a distribution, such as a stale marker, has one number for all.
    #[expect(clippy::cast_precision_loss, reason = "remote-write knows no other numbers")]
    fn of(self, (_, number, whole): &Point) -> f64 {
        match (self, whole.as_deref()) {
            (Self::Bucket(i), Some(Value::Histogram(histogram))) => histogram.cumulative()[i] as f64,
            (Self::Sum, Some(Value::Histogram(histogram))) => histogram.sum(),
            (Self::Count, Some(Value::Histogram(histogram))) => histogram.count() as f64,
            (Self::Quantile(quantile), Some(Value::Summary(summary))) => summary.quantile(quantile),
            (Self::Sum, Some(Value::Summary(summary))) => summary.sum(),
            (Self::Count, Some(Value::Summary(summary))) => summary.count() as f64,
            _ => *number,
        }
    }
}

/// Bytes of a `Sample`.
fn sample_len(at: i64) -> usize {
    1 + 8 + 1 + varint_len(at.cast_unsigned())
}
