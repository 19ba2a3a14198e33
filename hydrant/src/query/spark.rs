//! A series as a line of blocks, and what stands under it. Pure.

use jiff::tz::TimeZone;
use promql::Sample;

use super::steps::Steps;
use super::ticks;

/// From the least to the most.
const BLOCKS: [char; 8] = ['▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];
/// Where there is no sample.
const GAP: char = '·';
/// Where there is one that is no number.
const NO_NUMBER: char = '?';

/// The last, the least and the greatest value; of those that are numbers, if any is.
pub(super) fn figures(samples: &[Sample]) -> Option<[f64; 3]> {
    let last = samples.last()?.value;
    let least = samples.iter().map(|sample| sample.value).fold(f64::NAN, f64::min);
    let most = samples.iter().map(|sample| sample.value).fold(f64::NAN, f64::max);
    Some([last, least, most])
}

/// A block for each step. Where there are more steps than `width`, a block stands for several and shows their mean.
pub(super) fn line(samples: &[Sample], steps: &Steps, width: usize) -> String {
    let mut cells = vec![(0.0_f64, 0_u32); steps.count().min(width)];
    for sample in samples {
        if let Some((sum, count)) = column(sample.at, steps, width).and_then(|column| cells.get_mut(column)) {
            *sum += sample.value;
            *count += 1;
        }
    }
    let value = |(sum, count): (f64, u32)| sum / f64::from(count);
    let numbers =
        cells.iter().filter(|(_, count)| *count > 0).map(|cell| value(*cell)).filter(|value| value.is_finite());
    let (low, high) =
        numbers.fold((f64::INFINITY, f64::NEG_INFINITY), |(low, high), value| (low.min(value), high.max(value)));
    let block = |value: f64| match value {
        value if value.is_nan() => NO_NUMBER,
        f64::INFINITY => BLOCKS[7],
        f64::NEG_INFINITY => BLOCKS[0],
        // One that does not change stands in the middle, unless it is nothing.
        value if low >= high => BLOCKS[if value == 0.0 { 0 } else { 3 }],
        value => {
            let height = (value / 2.0 - low / 2.0) / (high / 2.0 - low / 2.0);
            BLOCKS[((height * 8.0) as usize).min(7)]
        }
    };
    cells.into_iter().map(|cell| if cell.1 == 0 { GAP } else { block(value(cell)) }).collect()
}

/// The times under lines of blocks.
pub(super) fn axis(steps: &Steps, width: usize, zone: &TimeZone) -> String {
    let wide = steps.count().min(width);
    let mut axis = String::new();
    let mut end = 0;
    for (at, text) in ticks::times(steps, u32::try_from(wide / 12).unwrap_or(1).clamp(1, 12), zone) {
        let Some(place) = column(at, steps, width) else { continue };
        let length = text.chars().count() + 1;
        if place < end || place + length > width {
            continue;
        }
        axis.push_str(&" ".repeat(place - end));
        axis.push('└');
        axis.push_str(&text);
        // A space at least before the next.
        axis.push(' ');
        end = place + length + 1;
    }
    axis.truncate(axis.trim_end().len());
    axis
}

/// The column of the block that shows a time.
fn column(at: i64, steps: &Steps, width: usize) -> Option<usize> {
    let (place, count) = (steps.place(at)?, steps.count());
    Some(if count > width { place * width / count } else { place })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn samples(values: &[(i64, f64)]) -> Vec<Sample> {
        values.iter().map(|(second, value)| Sample { at: second * 1000, value: *value }).collect()
    }

    fn steps(seconds: i64) -> Steps {
        Steps { start: 0, end: seconds * 1000, step: 1000 }
    }

    #[test]
    fn heights_are_between_the_least_and_the_most() {
        let rising: Vec<_> = (0..8).map(|i| (i, i as f64)).collect();
        assert_eq!(line(&samples(&rising), &steps(7), 80), "▁▂▃▄▅▆▇█");
        assert_eq!(line(&samples(&rising), &steps(9), 80), "▁▂▃▄▅▆▇█··");
        assert_eq!(line(&samples(&[(0, 5.0), (3, 5.0)]), &steps(3), 80), "▄··▄");
        assert_eq!(line(&samples(&[(1, 0.0), (2, 0.0)]), &steps(3), 80), "·▁▁·");
        let odd = [(0, f64::NAN), (1, f64::INFINITY), (2, -1.0), (3, 1.0), (4, f64::NEG_INFINITY), (99, 7.0)];
        assert_eq!(line(&samples(&odd), &steps(4), 80), "?█▁█▁");
        assert_eq!(line(&samples(&[(0, f64::MIN), (1, f64::MAX)]), &steps(1), 80), "▁█");
    }

    #[test]
    fn several_steps_share_a_block_where_there_is_no_room() {
        let values: Vec<_> = (0..8).map(|i| (i, if i < 4 { 0.0 } else { (i % 2) as f64 * 2.0 })).collect();
        assert_eq!(line(&samples(&values), &steps(7), 4), "▁▁██");
        assert_eq!(line(&[], &steps(7), 3), "···");
    }

    #[test]
    fn figures_leave_out_what_is_no_number() {
        assert_eq!(figures(&samples(&[(0, 3.0), (1, f64::NAN), (2, 1.0)])), Some([1.0, 1.0, 3.0]));
        assert!(figures(&samples(&[(0, f64::NAN)])).is_some_and(|[_, least, _]| least.is_nan()));
        assert_eq!(figures(&[]), None);
    }

    #[test]
    fn times_stand_under_their_blocks() {
        let steps = Steps { start: 0, end: 3_600_000, step: 60_000 };
        assert_eq!(
            axis(&steps, 80, &TimeZone::UTC),
            "└00:00         └00:15         └00:30         └00:45         └01:00"
        );
        assert_eq!(axis(&steps, 5, &TimeZone::UTC), "");
        let first = axis(&Steps { start: 600_000, ..steps }, 80, &TimeZone::UTC);
        assert_eq!(first.find('└'), Some(5), "{first}");
    }
}
