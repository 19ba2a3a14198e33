//! What a metric is called: names of envelopes to names that Prometheus takes (contract: syslog drains §8.1).
//!
//! Names as their senders wrote them enter; metric names that match `[a-zA-Z_:][a-zA-Z0-9_:]*` and label names that match
//! `[a-zA-Z_][a-zA-Z0-9_]*` leave, at most [`MAX_NAME`] and [`MAX_LABEL`] bytes long. Never keeps anything.

use std::borrow::Cow;

/// Bytes of a metric's name before prefixes and suffixes; longer ones are cut.
pub const MAX_NAME: usize = 512;
/// Bytes of a label's name; longer ones are cut.
pub const MAX_LABEL: usize = 128;

/// How series are named.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Naming {
    /// Hydrant's own: names in snake case, counters end in `_total`, timers in `_duration_seconds`, all tags are labels.
    #[default]
    Plain,
    /// As the firehose_exporter names them, under the namespace `firehose` unless another is given.
    FirehoseExporter {
        /// Its default names, those of its releases before v7: `counter_event_<origin>_<name>_total`, `value_metric_<origin>_<name>`,
        /// `container_metric_cpu_percentage` and so on. Without: `<name>`, counters with `_total`.
        retro_compat: bool,
        /// Also gives each counter's last step, as `<name>_delta`.
        enable_delta: bool,
    },
}

/// What a name is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Purpose {
    /// The total of a counter.
    Counter,
    /// The last step of a counter.
    Delta,
    /// A gauge.
    Gauge,
    /// The durations of a timer, in seconds.
    Timer,
}

impl Naming {
    /// The namespace when none is configured; empty for none.
    pub fn default_namespace(self) -> &'static str {
        match self {
            Self::Plain => "",
            Self::FirehoseExporter { .. } => "firehose",
        }
    }

    /// True when each counter has a second series with its last step.
    pub fn has_delta(self) -> bool {
        matches!(self, Self::FirehoseExporter { enable_delta: true, .. })
    }

    /// The name of the series of a metric `name` of `origin` (the tag) below `namespace`. `None` for a metric without a name, or with
    /// nothing in it that can stand in one.
    pub fn metric(self, purpose: Purpose, namespace: &str, name: &str, origin: &str) -> Option<String> {
        let name = cut(name, MAX_NAME);
        if name.is_empty() {
            return None;
        }
        let made = match self {
            Self::Plain => plain(purpose, namespace, name)?,
            Self::FirehoseExporter { retro_compat, .. } => {
                let named = if retro_compat { retro(purpose, name, origin) } else { modern(purpose, name) };
                let below = if namespace.is_empty() { named } else { format!("{namespace}_{named}").into() };
                snake(&below, Snake::FirehoseExporter)
            }
        };
        Some(starting_well(made))
    }

    /// Labels that are repeated under another name, as (copy, of): `bosh_deployment` is `deployment`.
    pub fn copies(self) -> &'static [(&'static str, &'static str)] {
        match self {
            Self::Plain => &[],
            Self::FirehoseExporter { .. } => &COPIES,
        }
    }

    /// What `# HELP` says.
    pub fn help(self, purpose: Purpose, name: &str) -> &'static str {
        match (self, purpose, name) {
            (Self::FirehoseExporter { .. }, Purpose::Gauge, "cpu") => "CPU that a container used, from 0 to 100.",
            (Self::FirehoseExporter { .. }, Purpose::Gauge, "memory") => "Memory that a container used.",
            (Self::FirehoseExporter { .. }, Purpose::Gauge, "disk") => "Disk that a container used.",
            (Self::FirehoseExporter { .. }, Purpose::Gauge, "memory_quota") => "Memory that a container may use.",
            (Self::FirehoseExporter { .. }, Purpose::Gauge, "disk_quota") => "Disk that a container may use.",
            (_, Purpose::Counter, _) => "Counter envelopes: the total.",
            (_, Purpose::Delta, _) => "Counter envelopes: the last step.",
            (_, Purpose::Gauge, _) => "Gauge envelopes: the newest value.",
            (_, Purpose::Timer, _) => "Timer envelopes: from start to stop.",
        }
    }
}

/// Labels that firehose_exporter repeats under another name: (copy, of).
const COPIES: [(&str, &str); 6] = [
    ("bosh_deployment", "deployment"),
    ("bosh_job_name", "job"),
    ("bosh_job_id", "index"),
    ("bosh_job_ip", "ip"),
    ("application_id", "app_id"),
    ("application_name", "app_name"),
];

/// The container metrics, and what firehose_exporter has called them first.
const CONTAINER: [(&str, &str); 5] = [
    ("cpu", "container_metric_cpu_percentage"),
    ("memory", "container_metric_memory_bytes"),
    ("disk", "container_metric_disk_bytes"),
    ("memory_quota", "container_metric_memory_bytes_quota"),
    ("disk_quota", "container_metric_disk_bytes_quota"),
];

/// True for what firehose_exporter takes for a metric of a container: the name is one of five, or ends with `_` and one of them.
pub fn is_container_metric(name: &str) -> bool {
    CONTAINER
        .iter()
        .any(|(short, _)| name.strip_suffix(short).is_some_and(|rest| rest.is_empty() || rest.ends_with('_')))
}

fn plain(purpose: Purpose, namespace: &str, name: &str) -> Option<String> {
    let name = snake(name, Snake::Plain);
    if name.is_empty() {
        return None;
    }
    let mut made = snake(namespace, Snake::Plain);
    if !made.is_empty() {
        made.push('_');
    }
    made.push_str(&name);
    let suffix = match purpose {
        Purpose::Counter => "_total",
        Purpose::Delta => "_delta",
        Purpose::Gauge => "",
        Purpose::Timer => "_duration_seconds",
    };
    if !made.ends_with(suffix) {
        made.push_str(suffix);
    }
    Some(made)
}

fn modern(purpose: Purpose, name: &str) -> Cow<'_, str> {
    match purpose {
        Purpose::Counter if name.ends_with("_total") || name.ends_with("_delta") || is_container_metric(name) => {
            name.into()
        }
        Purpose::Counter => format!("{name}_total").into(),
        Purpose::Delta => format!("{name}_delta").into(),
        Purpose::Gauge => name.into(),
        Purpose::Timer => format!("{name}_duration_seconds").into(),
    }
}

fn retro<'a>(purpose: Purpose, name: &'a str, origin: &str) -> Cow<'a, str> {
    let container = || CONTAINER.iter().find(|(short, _)| *short == name).map_or(name, |(_, long)| long);
    match purpose {
        Purpose::Delta | Purpose::Timer => modern(purpose, name),
        Purpose::Counter | Purpose::Gauge if is_container_metric(name) => container().into(),
        Purpose::Counter if name.ends_with("_delta") => name.into(),
        Purpose::Counter => format!("counter_event_{origin}_{name}_total").into(),
        Purpose::Gauge => format!("value_metric_{origin}_{name}").into(),
    }
}

/// How a name becomes snake case.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Snake {
    /// Runs of what cannot stand in a name become one `_`, none at the ends. Digits belong to the word before them.
    Plain,
    /// Each character that cannot stand in a name becomes a `_`. Digits are words of their own.
    FirehoseExporter,
}

/// Lower case, with a `_` where a word of CamelCase begins.
fn snake(name: &str, form: Snake) -> String {
    #[derive(Clone, Copy, PartialEq)]
    enum Class {
        Upper,
        Lower,
        Digit,
        Other,
    }
    let class = |c: char| match c {
        'A'..='Z' => Class::Upper,
        'a'..='z' => Class::Lower,
        '0'..='9' => Class::Digit,
        _ => Class::Other,
    };
    let mut made = String::with_capacity(name.len() + 8);
    let mut before = Class::Other;
    let mut chars = name.chars().peekable();
    while let Some(c) = chars.next() {
        let this = class(c);
        let next = chars.peek().map_or(Class::Other, |c| class(*c));
        let digits_apart = form == Snake::FirehoseExporter;
        let begins = match (before, this) {
            (Class::Lower, Class::Upper) => true,
            // The last capital of a run begins the next word: `HTTPRequests`.
            (Class::Upper, Class::Upper) => next == Class::Lower,
            (Class::Digit, Class::Upper) => digits_apart || next == Class::Lower,
            (Class::Digit, Class::Lower) | (Class::Lower | Class::Upper, Class::Digit) => digits_apart,
            _ => false,
        };
        if begins {
            made.push('_');
        }
        match this {
            Class::Other if form == Snake::Plain && (made.is_empty() || made.ends_with('_')) => {}
            Class::Other => made.push('_'),
            _ => made.push(c.to_ascii_lowercase()),
        }
        before = this;
    }
    if form == Snake::Plain && made.ends_with('_') {
        made.pop();
    }
    made
}

/// No name begins with a digit.
fn starting_well(mut name: String) -> String {
    if name.starts_with(|first: char| first.is_ascii_digit()) {
        name.insert(0, '_');
    }
    name
}

/// The label that a tag becomes: what cannot stand in a name is a `_`, and a `_` goes before a digit at its start. `None` for a name
/// that is empty or begins with `__`, which Prometheus keeps for itself.
pub fn label(key: &str) -> Option<Cow<'_, str>> {
    let key = cut(key, MAX_LABEL);
    let fits = |c: char| c.is_ascii_alphanumeric() || c == '_';
    let digit_first = key.starts_with(|first: char| first.is_ascii_digit());
    let name: Cow<'_, str> = if !digit_first && key.chars().all(fits) {
        key.into()
    } else {
        let fitting = key.chars().map(|c| if fits(c) { c } else { '_' });
        digit_first.then_some('_').into_iter().chain(fitting).collect::<String>().into()
    };
    (!name.is_empty() && !name.starts_with("__")).then_some(name)
}

/// At most `max` bytes of `text`, whole characters.
pub(crate) fn cut(text: &str, max: usize) -> &str {
    let mut end = max.min(text.len());
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    &text[..end]
}

#[cfg(test)]
mod tests;
