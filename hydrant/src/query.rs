//! `hydrant query`: PromQL over the metrics that the caches hold.
//!
//! What enters: a query, and a moment or a span of time. What leaves: the answer of the traffic controller, which reads and evaluates
//! the query, as a table or as sparklines ([`text`]), as JSON, as CSV ([`csv`]), and as a picture ([`svg`]).

use std::path::PathBuf;
use std::time::Duration;

use anyhow::anyhow;
use jiff::Timestamp;
use jiff::tz::TimeZone;
use promql::{Limits, Query, Value};

use self::answer::Answer;
use self::steps::{Begin, Steps, length, moment};
use crate::cli::{Failure, runtime};
use crate::client::{Controller, Output};
use crate::render::safe;

mod answer;
mod csv;
mod file;
mod number;
mod spark;
mod steps;
mod svg;
mod text;
mod ticks;

/// For an answer: a traffic controller gives up after 10 s.
const WITHIN: Duration = Duration::from_secs(15);
/// Characters of a line where there is no terminal.
const WIDTH: u16 = 80;
/// Characters of a line at most.
const WIDEST: u16 = 500;
/// Points of a series where no step is given: in a picture, and for programs.
const DRAWN: usize = 400;
const LISTED: usize = 250;

/// Arguments of `hydrant query`.
#[derive(Debug, clap::Args)]
#[command(group = clap::ArgGroup::new("span").args(["range", "start"]))]
pub(crate) struct Args {
    /// The query, in PromQL. Each selector names its sources: requests{source_id="my-app"}, or source_id=~"my-app|other"
    #[arg(value_name = "PROMQL")]
    query: String,
    /// The source of selectors that name none. May be given again
    #[arg(long = "source", value_name = "SOURCE")]
    sources: Vec<String>,
    /// Ask about this moment instead of now: seconds since 1970, a time such as 2026-11-21T14:00:00Z, or a duration ago such as 5m
    #[arg(long, value_name = "WHEN", value_parser = moment, conflicts_with_all = ["span", "end"])]
    time: Option<i64>,
    /// Ask about so long up to now, or up to --end: a duration such as 1h
    #[arg(long, value_name = "DURATION", value_parser = length)]
    range: Option<i64>,
    /// Ask about the time from here on, up to now or to --end
    #[arg(long, value_name = "WHEN", value_parser = moment)]
    start: Option<i64>,
    /// With --range or --start: the end
    #[arg(long, value_name = "WHEN", value_parser = moment, requires = "span")]
    end: Option<i64>,
    /// With --range or --start: how far the points are apart. Without it, as far as they have room
    #[arg(long, value_name = "DURATION", value_parser = length, requires = "span")]
    step: Option<i64>,
    /// How to show the answer: a table, with a sparkline for each series of a span; json, as the server has it; or csv, a sample a row
    #[arg(long, short, value_name = "FORM", default_value = "table")]
    output: Form,
    /// The same as --output json
    #[arg(long, conflicts_with = "output")]
    json: bool,
    /// With --range or --start: draw the series into this file too, as SVG
    #[arg(long, value_name = "FILE", requires = "span")]
    plot: Option<PathBuf>,
    #[command(flatten)]
    at: Controller,
}

/// How an answer is shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum Form {
    Table,
    Json,
    Csv,
}

/// Runs the command.
pub(crate) fn run(args: &Args) -> Result<(), Failure> {
    let mut output = Output::new();
    let form = if args.json { Form::Json } else { args.output };
    let width = width(&output);
    let points = match form {
        _ if args.plot.is_some() => DRAWN,
        Form::Table => usize::from(width),
        Form::Json | Form::Csv => LISTED,
    };
    let steps = args.steps(points).map_err(|why| Failure::Wrong(anyhow!(why)))?;
    let query = args.query()?;
    let answer = runtime()?.block_on(async {
        let connection = args.at.connect().await?;
        answer::ask(connection, &query, args.time, steps.as_ref()).await
    })?;
    for warning in answer.warnings() {
        output.notice(&warning);
    }
    if let (Some(path), Value::Matrix(series), Some(steps)) = (&args.plot, &answer.value, &steps) {
        let picture = svg::chart(&args.query, series, steps, &TimeZone::system());
        file::write(path, &picture).map_err(|error| Failure::Failed(anyhow!("{}: {error}", path.display())))?;
    }
    let shown = match form {
        Form::Json => answer.json(),
        Form::Csv => csv::csv(&answer.value, output.terminal),
        Form::Table => match table(&answer, steps.as_ref(), width, output.colour) {
            Some(table) => table,
            None => {
                output.notice("nothing matches at that time");
                return Ok(());
            }
        },
    };
    output.buffer().extend_from_slice(shown.as_bytes());
    output.flush();
    Ok(())
}

impl Args {
    /// The times to ask about; `None` for one moment.
    fn steps(&self, points: usize) -> Result<Option<Steps>, String> {
        let begin = match (self.range, self.start) {
            (Some(length), _) => Begin::Before(length),
            (None, Some(start)) => Begin::At(start),
            (None, None) => return Ok(None),
        };
        // Whole seconds, as the server has it where it is told no time.
        let end = self.end.unwrap_or_else(|| Timestamp::now().as_second().saturating_mul(1000));
        Steps::new(begin, end, self.step, points).map(Some)
    }

    /// The query, with the sources of selectors that name none.
    fn query(&self) -> Result<String, Failure> {
        if self.sources.is_empty() {
            return Ok(self.query.clone());
        }
        let query = Query::parse_of(&self.query, &self.sources, &Limits::default());
        query.map(|query| query.to_string()).map_err(|error| Failure::Failed(anyhow!(safe(&error.to_string()))))
    }
}

/// The answer for people; `None` if there is nothing in it.
fn table(answer: &Answer, steps: Option<&Steps>, width: u16, colour: bool) -> Option<String> {
    let zone = TimeZone::system();
    Some(match (&answer.value, steps) {
        (Value::Vector(elements), _) if elements.is_empty() => return None,
        (Value::Matrix(series), _) if series.is_empty() => return None,
        (Value::Matrix(series), Some(steps)) => text::sparks(series, steps, usize::from(width), &zone, colour),
        (value, _) => text::table(value, &zone, colour),
    })
}

/// Characters of a line.
fn width(output: &Output) -> u16 {
    let size = if output.terminal { crossterm::terminal::size().ok() } else { None };
    size.map_or(WIDTH, |(width, _)| width.clamp(10, WIDEST))
}
