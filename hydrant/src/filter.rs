//! Which envelopes a reader wants to see, beside their sources: arguments of `tail` and `firehose`, and the decision. Pure.

use std::collections::HashMap;

use proto::logcache::v1::EnvelopeType;
use proto::v2;
use proto::v2::envelope::Message;
use proto::v2::selector::Message as Select;
use regex::Regex;

use crate::render::{self, Level};

/// Instances whose last level is remembered.
const REMEMBERED: usize = 4096;

/// A kind of envelope.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Kind {
    Log,
    Counter,
    Gauge,
    Timer,
    Event,
    All,
}

impl Kind {
    const EACH: [Self; 5] = [Self::Log, Self::Counter, Self::Gauge, Self::Timer, Self::Event];

    /// As requests for what is cached name it.
    pub(crate) fn wire(self) -> EnvelopeType {
        match self {
            Self::Log => EnvelopeType::Log,
            Self::Counter => EnvelopeType::Counter,
            Self::Gauge => EnvelopeType::Gauge,
            Self::Timer => EnvelopeType::Timer,
            Self::Event => EnvelopeType::Event,
            Self::All => EnvelopeType::Any,
        }
    }

    /// As subscriptions name it.
    pub(crate) fn selectors(kinds: &[Self]) -> Vec<v2::Selector> {
        let wanted = |kind: &Self| kinds.contains(kind) || kinds.contains(&Self::All);
        let selector = |kind: Self| match kind {
            Self::Counter => Select::Counter(v2::CounterSelector::default()),
            Self::Gauge => Select::Gauge(v2::GaugeSelector::default()),
            Self::Timer => Select::Timer(v2::TimerSelector {}),
            Self::Event => Select::Event(v2::EventSelector {}),
            Self::Log | Self::All => Select::Log(v2::LogSelector {}),
        };
        let wanted = Self::EACH.into_iter().filter(wanted);
        wanted.map(|kind| v2::Selector { source_id: String::new(), message: Some(selector(kind)) }).collect()
    }
}

/// What is shown of what comes.
#[derive(Clone, Debug, Default, clap::Args)]
#[command(next_help_heading = "What is shown")]
pub(crate) struct FilterArgs {
    /// Only what matches this regular expression; given again, what matches one of them
    #[arg(long, short, value_name = "REGEX", value_parser = regex)]
    include: Vec<Regex>,
    /// Nothing that matches this regular expression; may be given again
    #[arg(long, short, value_name = "REGEX", value_parser = regex)]
    exclude: Vec<Regex>,
    /// Mark what matches this regular expression; may be given again. What --include matches is marked too
    #[arg(long, value_name = "REGEX", value_parser = regex)]
    highlight: Vec<Regex>,
    /// Only lines of this level and above. It is read from JSON, logfmt, the usual prefixes, or a tag `level`. A line without one counts
    /// as info, on standard error as error; one that begins with a space belongs to the line before it
    #[arg(long, value_name = "LEVEL")]
    level: Option<Level>,
    /// Only this instance; may be given again
    #[arg(long = "instance", value_name = "ID")]
    instances: Vec<String>,
}

/// Reads a regular expression for the command line.
pub(crate) fn regex(text: &str) -> Result<Regex, String> {
    Regex::new(text).map_err(|error| error.to_string())
}

impl FilterArgs {
    /// What is marked in messages.
    pub(crate) fn highlight(&self) -> Vec<Regex> {
        self.highlight.iter().chain(&self.include).cloned().collect()
    }
}

/// Decides.
#[derive(Debug, Default)]
pub(crate) struct Filter {
    args: FilterArgs,
    /// The level of the last line of an instance, by source and instance.
    levels: HashMap<(String, String), Level>,
}

impl Filter {
    /// A filter as somebody asked for it.
    pub(crate) fn new(args: FilterArgs) -> Self {
        Self { args, levels: HashMap::new() }
    }

    /// Whether to show `envelope`. Envelopes come in the order in which they are shown.
    pub(crate) fn admits(&mut self, envelope: &v2::Envelope) -> bool {
        if !self.args.instances.is_empty() && !self.args.instances.contains(&envelope.instance_id) {
            return false;
        }
        // All levels are looked at before lines are left out for other reasons: the next one may go on.
        if let Some(least) = self.args.level
            && self.level(envelope) < least
        {
            return false;
        }
        if self.args.include.is_empty() && self.args.exclude.is_empty() {
            return true;
        }
        let text = match &envelope.message {
            Some(Message::Log(log)) => String::from_utf8_lossy(&log.payload),
            message => render::message_of(message.as_ref()).into(),
        };
        let matched = |regex: &Regex| regex.is_match(&text);
        (self.args.include.is_empty() || self.args.include.iter().any(matched))
            && !self.args.exclude.iter().any(matched)
    }

    fn level(&mut self, envelope: &v2::Envelope) -> Level {
        let Some(Message::Log(log)) = &envelope.message else { return Level::Info };
        let of = (envelope.source_id.clone(), envelope.instance_id.clone());
        if matches!(log.payload.first(), Some(b' ' | b'\t'))
            && let Some(level) = self.levels.get(&of)
        {
            return *level;
        }
        let is_err = log.r#type() == v2::log::Type::Err;
        let level = Level::of(envelope).unwrap_or(if is_err { Level::Error } else { Level::Info });
        if self.levels.len() >= REMEMBERED {
            self.levels.clear();
        }
        self.levels.insert(of, level);
        level
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(args: FilterArgs, envelopes: &[v2::Envelope]) -> Vec<usize> {
        let mut filter = Filter::new(args);
        (0..envelopes.len()).filter(|i| filter.admits(&envelopes[*i])).collect()
    }

    fn regexes(texts: &[&str]) -> Vec<Regex> {
        texts.iter().map(|text| regex(text).expect("a regex")).collect()
    }

    #[test]
    fn some_include_and_no_exclude_must_match() {
        let all = ["GET /a 200", "GET /b 500", "PUT /a 200", "HEAD /a"].map(|text| v2::Envelope::log("app", text));
        let args = |include: &[&str], exclude: &[&str]| FilterArgs {
            include: regexes(include),
            exclude: regexes(exclude),
            ..FilterArgs::default()
        };
        assert_eq!(shown(args(&[], &[]), &all), [0, 1, 2, 3]);
        assert_eq!(shown(args(&["^GET", "^PUT"], &[" 5..$"]), &all), [0, 2]);
        let metric = [v2::Envelope::counter("app", "requests", 3), v2::Envelope::gauge("app", "cpu", 1.0, "%")];
        assert_eq!(shown(args(&["requests total"], &[]), &metric), [0]);
        assert!(regex("(").expect_err("not closed").contains("unclosed"));
    }

    #[test]
    fn a_level_holds_for_the_lines_that_go_on() {
        let log = |text: &str| v2::Envelope::log("app", text.to_owned());
        let all = [
            log("INFO fine"),
            log("ERROR broke"),
            log("  at a.b"),
            log("  at c.d").instance("1"),
            log("plain"),
            log("trouble").err(),
            log("\tat e.f"),
            v2::Envelope::counter("app", "c", 1),
        ];
        let args = FilterArgs { level: Some(Level::Warn), ..FilterArgs::default() };
        assert_eq!(shown(args, &all), [1, 2, 5, 6]);
        let args = FilterArgs { instances: vec!["1".to_owned()], ..FilterArgs::default() };
        assert_eq!(shown(args, &all), [3]);
    }

    #[test]
    fn kinds_are_selectors() {
        assert_eq!(Kind::selectors(&[Kind::All]).len(), 5);
        assert_eq!(Kind::selectors(&[Kind::Log, Kind::Event]).len(), 2);
    }
}
