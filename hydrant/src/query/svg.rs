//! Series over time as a picture of its own: SVG with axes and a legend, without scripts and without anything from elsewhere. Pure.

use std::fmt::Write;

use jiff::tz::TimeZone;
use promql::{Sample, Series};

use super::number::brief;
use super::steps::Steps;
use super::ticks;
use crate::render::safe;

/// Series that are drawn; the picture says how many are left out.
const MOST: usize = 40;
/// Characters of a title or of a name in the legend.
const LONGEST: usize = 140;

const WIDTH: f64 = 960.0;
const LEFT: f64 = 72.0;
const RIGHT: f64 = 944.0;
const TOP: f64 = 44.0;
const BOTTOM: f64 = 364.0;
/// Between the lines of the legend.
const LEADING: f64 = 18.0;

/// Colours that can be told apart on light and on dark, also by those who see few of them.
const COLOURS: [&str; 10] =
    ["#2f7ed8", "#d9822b", "#2a9d6f", "#c2528b", "#8064c8", "#a8851c", "#1f9db0", "#c9513f", "#6b7f2a", "#7d8794"];

const STYLE: &str = "\
:root{color-scheme:light dark}\
.ground{fill:#fff}.ink{fill:#1b1e21}.soft{fill:#5d646b}.grid{stroke:#e4e4df}\
@media(prefers-color-scheme:dark){.ground{fill:#0f1214}.ink{fill:#dde2e5}.soft{fill:#949ea6}.grid{stroke:#252c31}}\
text{font:12px system-ui,sans-serif}.title{font-weight:600}\
.series{fill:none;stroke-width:1.5;stroke-linejoin:round}";

/// Draws `series` under a title.
pub(super) fn chart(title: &str, series: &[Series], steps: &Steps, zone: &TimeZone) -> String {
    let drawn = &series[..series.len().min(MOST)];
    let left_out = series.len() - drawn.len();
    let legend = drawn.len() + usize::from(left_out > 0 || series.is_empty());
    let height = BOTTOM + 44.0 + legend as f64 * LEADING;
    let axes = Axes::of(drawn, steps);
    let mut out = String::new();
    let title = escaped(title);
    write!(
        out,
        "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{WIDTH}\" height=\"{height}\" viewBox=\"0 0 {WIDTH} {height}\" role=\"img\">\
         <title>{title}</title><style>{STYLE}</style><rect class=\"ground\" width=\"100%\" height=\"100%\"/>\n\
         <text class=\"title ink\" x=\"16\" y=\"26\">{title}</text>\n"
    )
    .expect(MEMORY);
    axes.draw(&mut out, steps, zone);
    for (place, one) in drawn.iter().enumerate() {
        let colour = COLOURS[place % COLOURS.len()];
        axes.series(&mut out, &one.samples, steps, colour);
        let y = BOTTOM + 44.0 + place as f64 * LEADING;
        let name = escaped(&one.labels.to_string());
        let last = one.samples.last().map(|sample| brief(sample.value)).unwrap_or_default();
        writeln!(
            out,
            "<rect x=\"{LEFT}\" y=\"{}\" width=\"14\" height=\"3\" fill=\"{colour}\"/>\
             <text class=\"ink\" x=\"{}\" y=\"{y}\">{name}  <tspan class=\"soft\">{last}</tspan></text>",
            y - 5.0,
            LEFT + 22.0
        )
        .expect(MEMORY);
    }
    if left_out > 0 || series.is_empty() {
        let y = BOTTOM + 44.0 + drawn.len() as f64 * LEADING;
        let text = if series.is_empty() {
            "nothing matches".to_owned()
        } else {
            format!("and {left_out} series more, not drawn")
        };
        writeln!(out, "<text class=\"soft\" x=\"{LEFT}\" y=\"{y}\">{text}</text>").expect(MEMORY);
    }
    out.push_str("</svg>\n");
    out
}

const MEMORY: &str = "memory takes everything";

/// The values between which is drawn.
struct Axes {
    low: f64,
    high: f64,
}

impl Axes {
    /// From zero, unless all values are far from it.
    fn of(series: &[Series], steps: &Steps) -> Self {
        let within = series.iter().flat_map(|one| &one.samples).filter(|sample| steps.place(sample.at).is_some());
        let values = within.map(|sample| sample.value).filter(|value| value.is_finite());
        let (low, high) =
            values.fold((f64::INFINITY, f64::NEG_INFINITY), |(low, high), value| (low.min(value), high.max(value)));
        if low > high {
            return Self { low: 0.0, high: 1.0 };
        }
        let low = if low > 0.0 && low < 0.7 * high { 0.0 } else { low };
        let high = if high < 0.0 && high > 0.7 * low { 0.0 } else { high };
        if high > low {
            return Self { low, high };
        }
        let room = if low == 0.0 { 1.0 } else { low.abs() * 0.1 };
        Self { low: low - room, high: high + room }
    }

    fn y(&self, value: f64) -> f64 {
        // Halves: the difference of the greatest numbers is none.
        let share = (value / 2.0 - self.low / 2.0) / (self.high / 2.0 - self.low / 2.0);
        BOTTOM - share * (BOTTOM - TOP)
    }

    fn draw(&self, out: &mut String, steps: &Steps, zone: &TimeZone) {
        for value in ticks::values(self.low, self.high, 5) {
            let y = self.y(value);
            writeln!(
                out,
                "<line class=\"grid\" x1=\"{LEFT}\" x2=\"{RIGHT}\" y1=\"{y:.1}\" y2=\"{y:.1}\"/>\
                 <text class=\"soft\" x=\"{}\" y=\"{:.1}\" text-anchor=\"end\">{}</text>",
                LEFT - 8.0,
                y + 4.0,
                brief(value)
            )
            .expect(MEMORY);
        }
        for (at, text) in ticks::times(steps, 8, zone) {
            let x = x(at, steps);
            writeln!(
                out,
                "<line class=\"grid\" x1=\"{x:.1}\" x2=\"{x:.1}\" y1=\"{TOP}\" y2=\"{BOTTOM}\"/>\
                 <text class=\"soft\" x=\"{x:.1}\" y=\"{}\" text-anchor=\"middle\">{text}</text>",
                BOTTOM + 18.0
            )
            .expect(MEMORY);
        }
    }

    /// A line through samples whose steps follow each other, broken where one is missing or no number; a dot for one that is alone.
    fn series(&self, out: &mut String, samples: &[Sample], steps: &Steps, colour: &str) {
        let mut path = String::new();
        let mut dots = String::new();
        let numbers = samples.iter().filter(|sample| sample.value.is_finite());
        let points: Vec<(usize, &Sample)> =
            numbers.filter_map(|sample| Some((steps.place(sample.at)?, sample))).collect();
        for part in points.chunk_by(|(place, _), (next, _)| *next <= place + 1) {
            for (i, (_, sample)) in part.iter().enumerate() {
                let (x, y) = (x(sample.at, steps), self.y(sample.value));
                if part.len() == 1 {
                    write!(dots, "<circle cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"2\" fill=\"{colour}\"/>").expect(MEMORY);
                } else {
                    write!(path, "{}{x:.1} {y:.1}", if i == 0 { "M" } else { "L" }).expect(MEMORY);
                }
            }
        }
        if !path.is_empty() {
            writeln!(out, "<path class=\"series\" stroke=\"{colour}\" d=\"{path}\"/>").expect(MEMORY);
        }
        if !dots.is_empty() {
            writeln!(out, "{dots}").expect(MEMORY);
        }
    }
}

fn x(at: i64, steps: &Steps) -> f64 {
    let length = steps.end.saturating_sub(steps.start).max(1) as f64;
    LEFT + at.saturating_sub(steps.start) as f64 / length * (RIGHT - LEFT)
}

/// Somebody's text in markup: shortened, and nothing but text.
fn escaped(text: &str) -> String {
    let mut safe = safe(text);
    if let Some((end, _)) = safe.char_indices().nth(LONGEST) {
        safe.truncate(end);
        safe.push('…');
    }
    let mut escaped = String::with_capacity(safe.len());
    for char in safe.chars() {
        match char {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '"' => escaped.push_str("&quot;"),
            '\'' => escaped.push_str("&#39;"),
            // XML has no place for them.
            '\u{fffe}' | '\u{ffff}' => escaped.push('\u{fffd}'),
            _ => escaped.push(char),
        }
    }
    escaped
}

#[cfg(test)]
mod tests {
    use promql::Labels;

    use super::*;

    fn series(label: &str, values: &[(i64, f64)]) -> Series {
        let sample = |(second, value): &(i64, f64)| Sample { at: second * 1000, value: *value };
        Series { labels: Labels::new([("id", label)]), samples: values.iter().map(sample).collect() }
    }

    const STEPS: Steps = Steps { start: 0, end: 10_000, step: 1_000 };

    #[test]
    fn lines_break_where_a_step_is_missing() {
        let one = series("0", &[(0, 1.0), (1, 2.0), (4, 3.0), (5, f64::NAN), (6, 4.0), (7, 4.0), (8, f64::INFINITY)]);
        let picture = chart("sum(x)", &[one], &STEPS, &TimeZone::UTC);
        let path = picture.split(" d=\"").nth(1).unwrap().split('"').next().unwrap();
        assert_eq!((path.matches('M').count(), path.matches('L').count()), (2, 2), "{path}");
        assert_eq!(picture.matches("<circle").count(), 1, "the one at 4 s is alone");
        assert!(picture.contains(">sum(x)</text>") && picture.contains("id=&quot;0&quot;"), "{picture}");
        assert!(picture.contains(">00:00:05</text>") && picture.ends_with("</svg>\n"), "{picture}");
    }

    #[test]
    fn what_others_write_stays_text() {
        let harm = "\"/><script>alert('1')</script>\u{202e}\u{0}\u{ffff}&";
        let picture = chart(harm, &[series(harm, &[(0, 1.0)])], &STEPS, &TimeZone::UTC);
        assert!(!picture.contains("<script") && !picture.contains("href"), "{picture}");
        assert!(
            picture.contains("&lt;script&gt;alert(&#39;1&#39;)&lt;/script&gt;\\u{202e}\\x00\u{fffd}&amp;"),
            "{picture}"
        );
        assert!(!picture.chars().any(|char| char.is_control() && char != '\n'));
        assert!(chart(&"x".repeat(1000), &[], &STEPS, &TimeZone::UTC).len() < 4_000);
    }

    #[test]
    fn it_is_bounded_whatever_the_values() {
        let many: Vec<Series> = (0..100).map(|i| series(&i.to_string(), &[(0, 1.0), (1, 2.0)])).collect();
        let picture = chart("x", &many, &STEPS, &TimeZone::UTC);
        assert_eq!(picture.matches("<path").count(), MOST);
        assert!(picture.contains("and 60 series more, not drawn"));
        for values in [vec![(0, f64::MIN), (1, f64::MAX)], vec![(0, 0.0)], vec![(0, -5.0)], vec![(0, f64::NAN)], vec![]]
        {
            let picture = chart("x", &[series("0", &values)], &STEPS, &TimeZone::UTC);
            assert!(!picture.contains("NaN\"") && !picture.contains("inf"), "{values:?}: {picture}");
        }
        let point = Steps { start: 5, end: 5, step: 1_000 };
        assert!(!chart("x", &[series("0", &[(0, 1.0)])], &point, &TimeZone::UTC).contains("NaN"));
    }
}
