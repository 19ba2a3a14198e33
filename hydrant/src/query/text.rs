//! An answer for people: a table, or series as sparklines. Pure.

use jiff::tz::TimeZone;
use promql::{Sample, Series, Value};

use super::number::{brief, exact};
use super::steps::Steps;
use super::{spark, ticks};
use crate::render::palette::{DIM, RESET};
use crate::table::{Side, Table};

/// A value at one time: a number alone, or a row for each series; the samples of a window each have their time.
pub(super) fn table(value: &Value, zone: &TimeZone, colour: bool) -> String {
    match value {
        Value::Scalar(sample) => format!("{}\n", exact(sample.value)),
        Value::Vector(elements) => {
            let mut table = Table::new([("SERIES", Side::Left), ("VALUE", Side::Right)]);
            for element in elements {
                table.row([element.labels.to_string(), exact(element.sample.value)]);
            }
            table.text(colour)
        }
        Value::Matrix(series) => {
            let mut table = Table::new([("SERIES", Side::Left), ("TIME", Side::Left), ("VALUE", Side::Right)]);
            for one in series {
                for (i, Sample { at, value }) in one.samples.iter().enumerate() {
                    let name = if i == 0 { one.labels.to_string() } else { String::new() };
                    table.row([name, ticks::time(*at, zone, "%Y-%m-%d %H:%M:%S%.3f"), exact(*value)]);
                }
            }
            table.text(colour)
        }
        // Nobody sends one.
        Value::Text(_, text) => format!("{text:?}\n"),
    }
}

/// Series over time: figures, and under them a line of blocks no longer than `width`.
pub(super) fn sparks(series: &[Series], steps: &Steps, width: usize, zone: &TimeZone, colour: bool) -> String {
    let right = Side::Right;
    let mut table = Table::new([("SERIES", Side::Left), ("LAST", right), ("MIN", right), ("MAX", right)]);
    for one in series {
        let [last, least, most] = spark::figures(&one.samples).map_or_else(Default::default, |all| all.map(brief));
        table.row([one.labels.to_string(), last, least, most]);
    }
    let (dim, reset) = if colour { (DIM, RESET) } else { ("", "") };
    let table = table.text(colour);
    let mut rows = table.lines();
    let mut text = format!("{}\n", rows.next().unwrap_or_default());
    for (row, one) in rows.zip(series) {
        text.push_str(&format!("{row}\n{}\n", spark::line(&one.samples, steps, width)));
    }
    let axis = spark::axis(steps, width, zone);
    if !axis.is_empty() {
        text.push_str(&format!("{dim}{axis}{reset}\n"));
    }
    let time = |at| ticks::time(at, zone, "%Y-%m-%d %H:%M:%S");
    let step = humantime::format_duration(std::time::Duration::from_millis(steps.step.unsigned_abs()));
    text.push_str(&format!("{dim}{} to {}, every {step}{reset}\n", time(steps.start), time(steps.end)));
    text
}

#[cfg(test)]
mod tests {
    use promql::{Element, Labels};

    use super::*;

    fn sample(at: i64, value: f64) -> Sample {
        Sample { at, value }
    }

    #[test]
    fn a_moment_is_a_number_or_a_table() {
        let zone = TimeZone::UTC;
        assert_eq!(table(&Value::Scalar(sample(0, 0.5)), &zone, false), "0.5\n");
        let element = |id: &str, value| Element { labels: Labels::new([("id", id)]), sample: sample(0, value) };
        let vector = Value::Vector(vec![element("0", 12.5), element("\u{202e}\u{1b}", 1000.0)]);
        let expected = "SERIES                     VALUE\n\
                        {id=\"0\"}                    12.5\n\
                        {id=\"\\u{202e}\\u{1b}\"}   1000\n";
        let shown = table(&vector, &zone, false);
        assert_eq!(shown.split_whitespace().collect::<Vec<_>>(), expected.split_whitespace().collect::<Vec<_>>());
        let series = Series { labels: Labels::empty(), samples: vec![sample(0, 1.0), sample(1_500, 2.0)] };
        let expected = "SERIES  TIME                     VALUE\n\
                        {}      1970-01-01 00:00:00.000      1\n\
                        \x20       1970-01-01 00:00:01.500      2\n";
        assert_eq!(table(&Value::Matrix(vec![series]), &zone, false), expected);
    }

    #[test]
    fn a_span_is_figures_and_blocks() {
        let steps = Steps { start: 0, end: 4_000, step: 1_000 };
        let one = Series {
            labels: Labels::new([("id", "0")]),
            samples: vec![sample(0, 1.0), sample(1_000, 2.0), sample(4_000, 1.5)],
        };
        let expected = "SERIES    LAST  MIN  MAX\n\
                        {id=\"0\"}   1.5    1    2\n\
                        ▁█··▅\n\n\
                        1970-01-01 00:00:00 to 1970-01-01 00:00:04, every 1s\n";
        let shown = sparks(&[one], &steps, 80, &TimeZone::UTC, false);
        assert_eq!(shown.replace("└00:00:00", ""), expected);
    }
}
