//! An envelope as a line for people, or as JSON for programs. Pure.
//!
//! Other people's logs are shown, not obeyed: control characters, escape sequences and characters that reorder text are written out.

use std::fmt::Write;
use std::str::FromStr;

use jiff::Timestamp;
use jiff::civil::Date;
use jiff::tz::TimeZone;
use proto::loss::MARKER;
use proto::v2;
use proto::v2::envelope::Message;
use regex::Regex;

use self::line::Line;
use self::palette::{ALARM, DIM, INFO, PLAIN, Paint, RED, WARN};
use self::structured::Structured;
use self::template::{Field, Template};

pub mod level;
mod line;
pub(crate) mod palette;
mod safe;
mod structured;
mod template;

pub use self::level::Level;
pub use self::safe::{put_safely, safe};

/// Names are set in a column that grows to so many characters.
const NAMES: usize = 28;

/// Times of a line and of its envelope that differ by less say the same: two seconds, in nanoseconds.
const SAME_TIME: u64 = 2_000_000_000;

/// How envelopes are shown.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Form {
    /// Time, source and instance, then the line.
    #[default]
    Text,
    /// The payload of log lines and nothing else, byte for byte.
    Raw,
    /// One JSON object a line, as the HTTP endpoints have it.
    Json,
    /// As somebody wants it.
    Template(Template),
}

impl FromStr for Form {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "text" => Ok(Self::Text),
            "raw" => Ok(Self::Raw),
            "json" => Ok(Self::Json),
            _ => match text.strip_prefix("template=") {
                Some(text) => Template::parse(text).map(Self::Template).map_err(|error| error.to_string()),
                None => Err("write text, raw, json or template='{time} {source} {message}'".to_owned()),
            },
        }
    }
}

/// Shows envelopes, one after the other.
#[derive(Debug)]
pub struct Printer {
    /// How.
    pub form: Form,
    /// Whose clock.
    pub zone: TimeZone,
    /// Whether to use colour.
    pub colour: bool,
    /// Whether it is for eyes: names in a column, the date only when it changes, values of several lines on several lines.
    pub eyes: bool,
    /// What is marked in messages, where there is colour.
    pub highlight: Vec<Regex>,
    day: Option<Date>,
    names: usize,
}

impl Printer {
    /// A printer of `form` that uses neither colour nor columns.
    pub fn new(form: Form, zone: TimeZone) -> Self {
        Self { form, zone, colour: false, eyes: false, highlight: Vec::new(), day: None, names: 0 }
    }

    /// Appends `envelope`, with its line end; nothing if it has nothing to show in this form.
    pub fn put(&mut self, into: &mut Vec<u8>, envelope: &v2::Envelope) {
        match &self.form {
            Form::Raw => {
                if let Some(Message::Log(log)) = &envelope.message {
                    into.extend_from_slice(&log.payload);
                    if !log.payload.ends_with(b"\n") {
                        into.push(b'\n');
                    }
                }
            }
            Form::Json => {
                // Writing to a vector fails for nobody.
                if proto::json::to_writer(&mut *into, &proto::json::Json(envelope)).is_ok() {
                    into.push(b'\n');
                }
            }
            Form::Template(template) => {
                let mut line = String::with_capacity(128);
                template.fill(&mut line, |field| self.field(field, envelope));
                into.extend_from_slice(line.as_bytes());
                into.push(b'\n');
            }
            Form::Text => self.text(into, envelope),
        }
    }

    /// Appends a remark of our own between the lines, if the form is one for people.
    pub fn note(&mut self, into: &mut Vec<u8>, text: &str) -> bool {
        if self.form != Form::Text {
            return false;
        }
        let mut line = Line::default();
        line.put(WARN, &format!("-- {text} --"));
        self.end(into, line);
        true
    }

    fn end(&self, into: &mut Vec<u8>, line: Line) {
        let mut text = String::with_capacity(160);
        match self.colour {
            true => line.paint(&mut text, &self.highlight),
            false => text.push_str(&line.plain()),
        }
        into.extend_from_slice(text.as_bytes());
        into.push(b'\n');
    }

    fn text(&mut self, into: &mut Vec<u8>, envelope: &v2::Envelope) {
        let time = zoned(envelope.timestamp, &self.zone);
        let mut line = Line::default();
        if self.eyes {
            if self.day.replace(time.date()) != Some(time.date()) {
                let mut day = Line::default();
                day.own(DIM, &time.strftime("-- %A, %-d %B %Y --").to_string());
                self.end(into, day);
            }
            line.own(DIM, &time.strftime("%H:%M:%S%.3f").to_string());
        } else {
            line.own(DIM, &time.strftime("%Y-%m-%d %H:%M:%S%.3f").to_string());
        }
        line.own(PLAIN, " ");
        if let Some(Message::Event(event)) = &envelope.message
            && event.title == MARKER
        {
            line.put(WARN, &format!("-- {} --", event.body));
            return self.end(into, line);
        }
        self.name(&mut line, envelope);
        let is_err = matches!(&envelope.message, Some(Message::Log(log)) if log.r#type() == v2::log::Type::Err);
        if is_err {
            line.own(ALARM, "!");
            line.own(PLAIN, " ");
        } else if self.eyes {
            line.own(PLAIN, "  ");
        }
        line.message_begins();
        match &envelope.message {
            Some(Message::Log(log)) => {
                let text = String::from_utf8_lossy(log.payload.strip_suffix(b"\n").unwrap_or(&log.payload));
                match structured::parse(&text) {
                    Some(fields) => self.structured(&mut line, fields, envelope.timestamp),
                    None => line.put(if is_err { RED } else { PLAIN }, &text),
                }
            }
            message => line.own(PLAIN, &message_of(message.as_ref())),
        }
        self.end(into, line);
    }

    /// Source and instance, and the space after them.
    fn name(&mut self, line: &mut Line, envelope: &v2::Envelope) {
        let begins = line.width();
        let source = if envelope.source_id.is_empty() { "-" } else { &envelope.source_id };
        line.put(palette::of(source), source);
        if !envelope.instance_id.is_empty() {
            let instance = &envelope.instance_id;
            line.own(PLAIN, "/");
            line.put(palette::of(&format!("{source}/{instance}")), instance);
        }
        if self.eyes {
            self.names = self.names.max((line.width() - begins).min(NAMES));
            line.pad(begins + self.names);
        }
        line.own(PLAIN, " ");
    }

    /// A line of JSON: level, message, then the rest. Its time only where it is another one than the envelope's.
    fn structured(&self, line: &mut Line, mut fields: Structured, timestamp: i64) {
        if let Some((key, text, moment)) = fields.time.take()
            && moment.is_none_or(|moment| moment.abs_diff(timestamp) >= SAME_TIME)
        {
            fields.pairs.insert(0, (key, text));
        }
        let mut space = "";
        if let Some(level) = fields.level {
            line.own(paint_of(level), level.as_str());
            space = if self.eyes && level.as_str().len() == 4 { "  " } else { " " };
        }
        if !fields.message.is_empty() {
            line.own(PLAIN, space);
            line.put(PLAIN, &fields.message);
            space = " ";
        }
        let (long, short): (Vec<_>, Vec<_>) =
            fields.pairs.into_iter().partition(|(_, value)| self.eyes && value.trim_end().contains('\n'));
        for (key, value) in short {
            line.own(PLAIN, space);
            line.put(DIM, &key);
            line.own(DIM, "=");
            match needs_quotes(&value) {
                true => line.put(PLAIN, &format!("{value:?}")),
                false => line.put(PLAIN, &value),
            }
            space = " ";
        }
        for (key, value) in long {
            line.own(PLAIN, "\n    ");
            line.put(DIM, &key);
            line.own(DIM, ":");
            for part in value.lines() {
                line.own(PLAIN, "\n      ");
                line.put(PLAIN, part);
            }
        }
    }

    fn field(&self, field: &Field, envelope: &v2::Envelope) -> String {
        match field {
            Field::Time => zoned(envelope.timestamp, &self.zone).strftime("%Y-%m-%dT%H:%M:%S%.3f%:z").to_string(),
            Field::Source => envelope.source_id.clone(),
            Field::Instance => envelope.instance_id.clone(),
            Field::Type => kind_of(envelope).to_owned(),
            Field::Level => Level::of(envelope).map_or("", Level::as_str).to_owned(),
            Field::Message => message_of(envelope.message.as_ref()),
            Field::Tag(name) => envelope.tags.get(name).cloned().unwrap_or_default(),
        }
    }
}

fn paint_of(level: Level) -> Paint {
    match level {
        Level::Trace | Level::Debug => DIM,
        Level::Info => INFO,
        Level::Warn => WARN,
        Level::Error | Level::Fatal => ALARM,
    }
}

fn needs_quotes(value: &str) -> bool {
    let alone = value.starts_with(['{', '[']);
    value.is_empty() || !alone && value.contains(|char: char| char.is_whitespace() || char == '"' || char == '=')
}

/// The kind of an envelope, as `--type` names it; for a log line `out` or `err`.
fn kind_of(envelope: &v2::Envelope) -> &'static str {
    match &envelope.message {
        Some(Message::Log(log)) if log.r#type() == v2::log::Type::Err => "err",
        Some(Message::Log(_)) => "out",
        Some(Message::Counter(_)) => "counter",
        Some(Message::Gauge(_)) => "gauge",
        Some(Message::Timer(_)) => "timer",
        Some(Message::Event(_)) => "event",
        None => "",
    }
}

/// What an envelope says, made safe.
pub(crate) fn message_of(message: Option<&Message>) -> String {
    let mut line = String::new();
    put_message(&mut line, message);
    line
}

fn put_message(line: &mut String, message: Option<&Message>) {
    match message {
        Some(Message::Log(log)) => {
            let payload = log.payload.strip_suffix(b"\n").unwrap_or(&log.payload);
            put_safely(line, &String::from_utf8_lossy(payload));
        }
        Some(Message::Counter(counter)) => {
            put_safely(line, &counter.name);
            let _infallible = write!(line, " total={} delta={}", counter.total, counter.delta);
        }
        Some(Message::Gauge(gauge)) => {
            let mut metrics: Vec<_> = gauge.metrics.iter().collect();
            metrics.sort_by_key(|(name, _)| name.as_str());
            for (i, (name, metric)) in metrics.into_iter().enumerate() {
                line.push_str(if i == 0 { "" } else { ", " });
                put_safely(line, name);
                let _infallible = write!(line, "={}", metric.value);
                if !metric.unit.is_empty() {
                    line.push(' ');
                    put_safely(line, &metric.unit);
                }
            }
        }
        Some(Message::Timer(timer)) => {
            put_safely(line, &timer.name);
            let took =
                std::time::Duration::from_nanos(u64::try_from(timer.stop.saturating_sub(timer.start)).unwrap_or(0));
            let _infallible = write!(line, " took {took:?}");
        }
        Some(Message::Event(event)) => {
            put_safely(line, &event.title);
            line.push_str(": ");
            put_safely(line, &event.body);
        }
        None => line.push_str("(empty envelope)"),
    }
}

fn zoned(nanos: i64, zone: &TimeZone) -> jiff::Zoned {
    // Every i64 of nanoseconds is a time that a calendar has.
    Timestamp::from_nanosecond(i128::from(nanos)).unwrap_or(Timestamp::UNIX_EPOCH).to_zoned(zone.clone())
}

#[cfg(test)]
mod tests;
