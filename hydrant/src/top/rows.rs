//! What stands in the panes of `hydrant top`: rows of cells that can be sorted by any column. Pure.

use std::cmp::Ordering;
use std::collections::BTreeMap;

use crate::overview::change::{Change, sum};
use crate::render::safe;
use crate::table::Side;
use crate::units;

/// What can be looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Pane {
    Sources,
    Consumers,
    Drains,
    Stages,
}

/// How a cell stands out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Tone {
    Plain,
    /// In the colour of its name.
    Name,
    Dim,
    Alarm,
}

/// One cell.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Cell {
    pub(crate) text: String,
    pub(crate) tone: Tone,
    /// What it is sorted by, the largest first; text is sorted by itself.
    value: Option<f64>,
}

/// One row; the first cell names it.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Row {
    /// What tells it from all others, for as long as it is there.
    pub(crate) key: String,
    pub(crate) cells: Vec<Cell>,
}

impl Pane {
    /// In the order in which they are shown.
    pub(crate) const ALL: [Self; 4] = [Self::Sources, Self::Consumers, Self::Drains, Self::Stages];

    /// Its name.
    pub(crate) fn title(self) -> &'static str {
        match self {
            Self::Sources => "Sources",
            Self::Consumers => "Consumers",
            Self::Drains => "Drains",
            Self::Stages => "Stages",
        }
    }

    /// Its columns.
    pub(crate) fn head(self) -> &'static [(&'static str, Side)] {
        const LEFT: Side = Side::Left;
        const RIGHT: Side = Side::Right;
        match self {
            Self::Sources => &[
                ("SOURCE", LEFT),
                ("LINES/S", RIGHT),
                ("BYTES/S", RIGHT),
                ("LOST", RIGHT),
                ("HELD", RIGHT),
                ("NEWEST", RIGHT),
            ],
            Self::Consumers => &[
                ("CONSUMER", LEFT),
                ("WAITING", RIGHT),
                ("BYTES", RIGHT),
                ("TAKEN/S", RIGHT),
                ("LOST/S", RIGHT),
                ("LOST", RIGHT),
                ("AT", LEFT),
            ],
            Self::Drains => &[
                ("DRAIN", LEFT),
                ("STATE", LEFT),
                ("OUT/S", RIGHT),
                ("WAITING", RIGHT),
                ("LOST", RIGHT),
                ("TO, AND THE LAST ERROR", LEFT),
            ],
            Self::Stages => &[
                ("STAGE", LEFT),
                ("IN/S", RIGHT),
                ("OUT/S", RIGHT),
                ("LOST/S", RIGHT),
                ("LOST", RIGHT),
                ("ADDRESS", LEFT),
            ],
        }
    }

    /// The column that it is sorted by to begin with.
    pub(crate) fn usual_sort(self) -> usize {
        match self {
            Self::Sources | Self::Consumers | Self::Drains => 1,
            Self::Stages => 0,
        }
    }

    /// Its rows, sorted by a column.
    pub(crate) fn rows(self, change: &Change, lost: Option<&BTreeMap<String, u64>>, sort: usize) -> Vec<Row> {
        let mut rows: Vec<Row> = match self {
            Self::Sources => change.sources.iter().map(|source| source_row(source, change.time, lost)).collect(),
            Self::Consumers => change.consumers.iter().map(consumer_row).collect(),
            Self::Drains => change.drains.iter().map(drain_row).collect(),
            Self::Stages => change.stages.iter().map(stage_row).chain(change.missing.iter().map(missing_row)).collect(),
        };
        rows.sort_by(|a, b| {
            let order = match (a.cells.get(sort), b.cells.get(sort)) {
                (Some(a), Some(b)) => compare(a, b),
                _ => Ordering::Equal,
            };
            order.then_with(|| a.key.cmp(&b.key))
        });
        rows
    }
}

fn compare(a: &Cell, b: &Cell) -> Ordering {
    match (a.value, b.value) {
        (Some(a), Some(b)) => b.total_cmp(&a),
        _ => a.text.cmp(&b.text),
    }
}

fn text(text: &str, tone: Tone) -> Cell {
    Cell { text: safe(text), tone, value: None }
}

fn number(text: String, value: f64) -> Cell {
    let tone = if value == 0.0 { Tone::Dim } else { Tone::Plain };
    Cell { text, tone, value: Some(value) }
}

fn count(value: u64) -> Cell {
    number(units::count(value as f64), value as f64)
}

fn rate(value: f64) -> Cell {
    number(units::count(value), value)
}

/// A number that is better 0.
fn loss(value: f64) -> Cell {
    let cell = rate(value);
    Cell { tone: if value > 0.0 { Tone::Alarm } else { cell.tone }, ..cell }
}

fn source_row(source: &crate::overview::change::Source, now: i64, lost: Option<&BTreeMap<String, u64>>) -> Row {
    let info = &source.info;
    let lost = match lost {
        Some(lost) => loss(lost.get(&info.source_id).copied().unwrap_or(0) as f64),
        None => number("?".to_owned(), 0.0),
    };
    let newest = match info.held {
        0 => Cell { text: "-".to_owned(), tone: Tone::Dim, value: Some(f64::MIN) },
        _ => Cell {
            text: units::age(now.saturating_sub(info.newest_timestamp)),
            tone: Tone::Plain,
            value: Some(info.newest_timestamp as f64),
        },
    };
    let cells = vec![
        text(&info.source_id, Tone::Name),
        rate(source.lines),
        number(units::bytes(source.bytes), source.bytes),
        lost,
        count(info.held),
        newest,
    ];
    Row { key: info.source_id.clone(), cells }
}

fn consumer_row(one: &crate::overview::change::Consumer) -> Row {
    let info = &one.info;
    let at = format!("{} {}", info.stage.replace('_', " "), info.address);
    let cells = vec![
        text(&info.name, Tone::Name),
        count(info.waiting_envelopes),
        number(units::bytes(info.waiting_bytes as f64), info.waiting_bytes as f64),
        rate(one.taken),
        loss(one.lost),
        count(info.dropped),
        text(&at, Tone::Dim),
    ];
    Row { key: format!("{} {at}", info.name), cells }
}

fn drain_row(drain: &crate::overview::change::Drain) -> Row {
    let info = &drain.info;
    let (tone, rank) = match info.state.as_str() {
        "ok" => (Tone::Plain, 0.0),
        "degraded" => (Tone::Plain, 1.0),
        "failing" => (Tone::Alarm, 2.0),
        _ => (Tone::Alarm, 3.0),
    };
    let to = match (info.state.as_str(), info.last_error.as_str()) {
        ("ok", _) | (_, "") => info.url.clone(),
        (_, error) => format!("{}: {error}", info.url),
    };
    let cells = vec![
        text(&info.name, Tone::Name),
        Cell { value: Some(rank), ..text(&info.state, tone) },
        rate(drain.delivered),
        count(info.waiting_envelopes),
        loss(sum(&info.dropped) as f64),
        text(&to, Tone::Dim),
    ];
    Row { key: format!("{} {}", info.name, info.address), cells }
}

fn stage_row(stage: &crate::overview::change::Stage) -> Row {
    let info = &stage.info;
    let cells = vec![
        text(&info.stage.replace('_', " "), Tone::Plain),
        rate(stage.received),
        rate(stage.delivered),
        loss(stage.lost),
        count(sum(&info.dropped)),
        text(&info.address, Tone::Dim),
    ];
    Row { key: format!("{} {}", info.stage, info.address), cells }
}

fn missing_row(address: &String) -> Row {
    let none = || text("-", Tone::Dim);
    let cells = vec![text("away", Tone::Alarm), none(), none(), none(), none(), text(address, Tone::Alarm)];
    Row { key: format!("~ {address}"), cells }
}
