//! Set-up of the process's own log.
//!
//! What enters: `tracing` events. What leaves: lines on standard error, and, through a [`LogSink`], the same events as
//! [`LogLine`]s, so that `hydrant up` can make its own log a source. A sink is called on the thread that logged: it
//! must not wait, and what is logged while it runs does not reach it again.

use std::cell::Cell;
use std::fmt;
use std::io::IsTerminal;
use std::sync::Arc;
use std::time::SystemTime;

use tracing::field::{Field, Visit};
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::EnvFilter;
use tracing_subscriber::filter::ParseError;
use tracing_subscriber::fmt::MakeWriter;
use tracing_subscriber::layer::{Context, Layer, SubscriberExt};
use tracing_subscriber::util::SubscriberInitExt;

/// The `[log]` table.
#[derive(Clone, Debug, PartialEq, Eq, serde::Deserialize, serde::Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct LogConfig {
    /// What is logged: a level (`error`, `warn`, `info`, `debug`, `trace`, `off`), or levels per module such as
    /// `"info,hydrant_doppler=debug"`. `info`.
    pub filter: String,
    /// `text` for people, `json` (one object a line) for programs. `text`.
    pub format: LogFormat,
}

/// How a line of the log is written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Deserialize, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    /// Time, level, module, message, fields; in colour on a terminal.
    #[default]
    Text,
    /// One JSON object a line.
    Json,
}

/// Why the log could not be set up.
#[derive(Debug, thiserror::Error)]
pub enum LoggingError {
    /// The filter cannot be read.
    #[error(
        "log.filter {filter:?}: {source}; write a level such as \"info\", or levels per module such as \"info,hydrant_doppler=debug\""
    )]
    Filter {
        /// As configured.
        filter: String,
        /// What the filter's parser said.
        source: ParseError,
    },
    /// Something else set the process's subscriber first.
    #[error("the log is already set up: {0}")]
    AlreadySet(#[from] tracing_subscriber::util::TryInitError),
}

/// One event of the log, as a sink gets it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogLine {
    /// When it was logged.
    pub time: SystemTime,
    /// How grave it is.
    pub level: Level,
    /// The module that logged it.
    pub target: &'static str,
    /// The message, then the fields as ` name=value`, in the order written.
    pub text: String,
}

/// Takes lines. It must return at once: a full queue means the line is the sink's to drop and count.
pub type LogSink = Arc<dyn Fn(LogLine) + Send + Sync>;

impl Default for LogConfig {
    fn default() -> Self {
        Self { filter: "info".to_owned(), format: LogFormat::Text }
    }
}

/// Sets up the log of this process: standard error, and `sink` when there is one. To be called once, in `main`.
///
/// # Errors
///
/// The filter cannot be read, or the log is set up already.
pub fn init(config: &LogConfig, sink: Option<LogSink>) -> Result<(), LoggingError> {
    let colour = std::io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
    subscriber(config, colour, std::io::stderr, sink)?.try_init()?;
    Ok(())
}

/// What [`init`] sets up, on a writer of the caller's choice and not yet in force.
///
/// # Errors
///
/// The filter cannot be read.
pub fn subscriber<W>(
    config: &LogConfig,
    colour: bool,
    writer: W,
    sink: Option<LogSink>,
) -> Result<impl Subscriber + Send + Sync + 'static, LoggingError>
where
    W: for<'w> MakeWriter<'w> + Send + Sync + 'static,
{
    let filter = EnvFilter::builder()
        .parse(&config.filter)
        .map_err(|source| LoggingError::Filter { filter: config.filter.clone(), source })?;
    let (text, json) = match config.format {
        LogFormat::Text => (Some(tracing_subscriber::fmt::layer().with_ansi(colour).with_writer(writer)), None),
        LogFormat::Json => (None, Some(tracing_subscriber::fmt::layer().json().with_ansi(false).with_writer(writer))),
    };
    Ok(tracing_subscriber::registry().with(filter).with(text).with(json).with(sink.map(SinkLayer::new)))
}

/// A layer that hands each event to a [`LogSink`].
pub struct SinkLayer {
    sink: LogSink,
}

thread_local! {
    /// Set while this thread is inside a sink.
    static INSIDE: Cell<bool> = const { Cell::new(false) };
}

impl SinkLayer {
    /// A layer over `sink`.
    pub fn new(sink: LogSink) -> Self {
        Self { sink }
    }
}

impl fmt::Debug for SinkLayer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SinkLayer").finish_non_exhaustive()
    }
}

impl<S: Subscriber> Layer<S> for SinkLayer {
    fn on_event(&self, event: &Event<'_>, _context: Context<'_, S>) {
        let Some(_inside) = Inside::enter() else { return };
        let mut text = Text::default();
        event.record(&mut text);
        let metadata = event.metadata();
        (self.sink)(LogLine {
            time: SystemTime::now(),
            level: *metadata.level(),
            target: metadata.target(),
            text: text.finish(),
        });
    }
}

/// Holds `INSIDE`, also while a sink unwinds.
struct Inside;

impl Inside {
    /// `None` when this thread is in a sink already.
    fn enter() -> Option<Self> {
        INSIDE.with(|inside| if inside.replace(true) { None } else { Some(Self) })
    }
}

impl Drop for Inside {
    fn drop(&mut self) {
        INSIDE.with(|inside| inside.set(false));
    }
}

/// Collects an event: the message first, wherever it stands among the fields.
#[derive(Default)]
struct Text {
    message: String,
    fields: String,
}

impl Text {
    fn finish(mut self) -> String {
        let skip = usize::from(self.message.is_empty());
        self.message.push_str(self.fields.get(skip..).unwrap_or_default());
        self.message
    }

    fn put(&mut self, field: &Field, value: fmt::Arguments<'_>) {
        use fmt::Write as _;
        // Writing to a String cannot fail; a value whose formatting fails leaves what it wrote.
        let _ = if field.name() == "message" {
            self.message.write_fmt(value)
        } else {
            write!(self.fields, " {}={value}", field.name())
        };
    }
}

impl Visit for Text {
    fn record_str(&mut self, field: &Field, value: &str) {
        self.put(field, format_args!("{value:?}"));
    }

    fn record_error(&mut self, field: &Field, value: &(dyn std::error::Error + 'static)) {
        self.put(field, format_args!("{value}"));
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.put(field, format_args!("{value:?}"));
    }
}

#[cfg(test)]
mod tests;
