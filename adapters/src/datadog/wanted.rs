//! What a series or log is called, and whose it is: names, tags and host.
//!
//! The parts of an envelope enter whose series or source is not known yet; text leaves that is safe in every request.
//! [`nozzle`](super::nozzle) has its own rules.

use smallvec::SmallVec;

use super::options::{Options, Preset};
use super::text::{self, MAX_NAME};
use super::{nozzle, series};
use crate::read::{Envelope, Timer, is_unbounded, known_method};

/// Tags of an envelope that are sent on; those after them in order of their keys are left out.
const MAX_TAGS: usize = 60;
/// What [`series::Of::Timer`] appends to a name at most.
const LONGEST_SUFFIX: usize = ".count".len();

/// What does not change while an encoder lives.
#[derive(Debug)]
pub(super) struct Context {
    pub(super) preset: Preset,
    pub(super) prefix: String,
    /// Of every series and log, safe.
    pub(super) tags: Vec<String>,
    pub(super) env: Option<String>,
    pub(super) service: Option<String>,
    pub(super) source: String,
    host: Option<String>,
}

/// A series to be.
#[derive(Debug)]
pub(super) struct Wanted<'a> {
    /// Under each of which it is sent.
    pub(super) names: SmallVec<[Box<str>; 1]>,
    pub(super) tags: Vec<String>,
    pub(super) host: String,
    pub(super) of: series::Of,
    /// As Datadog calls it; may be empty.
    pub(super) unit: &'static str,
    pub(super) source_id: &'a [u8],
}

impl Context {
    pub(super) fn new(options: &Options) -> Self {
        let given = |text: &Option<String>| text.clone().filter(|text| !text.is_empty());
        Self {
            preset: options.preset,
            prefix: options.prefix.clone(),
            tags: options.tags.iter().filter_map(|tag| text::whole_tag(tag)).collect(),
            env: given(&options.env),
            service: given(&options.service),
            source: options.source.clone(),
            host: given(&options.host),
        }
    }

    /// The host of what `envelope` says; empty if it names none.
    pub(super) fn host(&self, envelope: &Envelope<'_>) -> String {
        if let Some(host) = &self.host {
            return host.clone();
        }
        let (index, origin) = (envelope.tag("index"), envelope.tag("origin"));
        let host = if index.is_empty() && self.preset == Preset::Nozzle { origin } else { index };
        text::name(host).into_owned()
    }

    /// A counter. `None` if it has no name.
    pub(super) fn counter<'a>(&self, envelope: &Envelope<'a>, name: &[u8]) -> Option<Wanted<'a>> {
        match self.preset {
            Preset::Plain => self.plain(envelope, name, series::Of::Counter, ""),
            Preset::Nozzle => nozzle::metric(self, envelope, name),
        }
    }

    /// A metric of a gauge. `None` if it has no name.
    pub(super) fn gauge<'a>(&self, envelope: &Envelope<'a>, name: &[u8], unit: &[u8]) -> Option<Wanted<'a>> {
        match self.preset {
            Preset::Plain => self.plain(envelope, name, series::Of::Gauge, known_unit(unit)),
            Preset::Nozzle => nozzle::metric(self, envelope, name),
        }
    }

    /// A timer. `None` if it has no name.
    pub(super) fn timer<'a>(&self, envelope: &Envelope<'a>, timer: Timer<'_>) -> Option<Wanted<'a>> {
        let mut name = String::from_utf8_lossy(timer.name).into_owned();
        if !name.is_empty() {
            name.push_str(".duration");
        }
        self.plain(envelope, name.as_bytes(), series::Of::Timer, "second")
    }

    fn plain<'a>(
        &self,
        envelope: &Envelope<'a>,
        name: &[u8],
        of: series::Of,
        unit: &'static str,
    ) -> Option<Wanted<'a>> {
        let max = if of == series::Of::Timer { MAX_NAME - LONGEST_SUFFIX } else { MAX_NAME };
        let name = text::metric(&self.prefix, &String::from_utf8_lossy(name), max)?;
        let mut tags = self.plain_tags(envelope, of == series::Of::Timer);
        if let Some(service) = &self.service {
            replace(&mut tags, "service", service.as_bytes());
        }
        settle(&mut tags);
        let names = SmallVec::from_iter([name]);
        Some(Wanted { names, tags, host: self.host(envelope), of, unit, source_id: envelope.source_id })
    }

    /// The tags of a log, sorted.
    pub(super) fn log_tags(&self, envelope: &Envelope<'_>) -> Vec<String> {
        let mut tags = match self.preset {
            Preset::Plain => self.plain_tags(envelope, false),
            Preset::Nozzle => nozzle::tags(self, envelope),
        };
        settle(&mut tags);
        tags
    }

    /// Those of the envelope, and ours in place of others of their keys.
    fn plain_tags(&self, envelope: &Envelope<'_>, of_timer: bool) -> Vec<String> {
        let mut tags = of_envelope(envelope, of_timer);
        replace(&mut tags, "source_id", envelope.source_id);
        replace(&mut tags, "instance_id", envelope.instance_id);
        if let Some(env) = &self.env {
            replace(&mut tags, "env", env.as_bytes());
        }
        tags.extend_from_slice(&self.tags);
        tags
    }
}

/// The tags of an envelope in order of their keys; the last of a key counts. `of_timer`: without those that never repeat.
pub(super) fn of_envelope(envelope: &Envelope<'_>, of_timer: bool) -> Vec<String> {
    let mut sorted: Vec<_> = envelope.tags().filter(|(key, _)| !of_timer || !is_unbounded(key)).collect();
    // Stable: of one key, the last stays last.
    sorted.sort_by_key(|(key, _)| *key);
    let last = sorted.iter().enumerate().filter(|(i, (key, _))| sorted.get(i + 1).is_none_or(|(next, _)| next != key));
    let made = last.filter_map(|(_, (key, value))| match *key {
        b"method" if of_timer => text::tag(key, known_method(value)),
        _ => text::tag(key, value),
    });
    made.take(MAX_TAGS).collect()
}

/// In place of the tags of that key, if there is a value.
fn replace(tags: &mut Vec<String>, key: &str, value: &[u8]) {
    if let Some(tag) = text::tag(key.as_bytes(), value) {
        tags.retain(|tag| tag.strip_prefix(key).is_none_or(|rest| !rest.starts_with(':')));
        tags.push(tag);
    }
}

/// Sorted, each once.
pub(super) fn settle(tags: &mut Vec<String>) {
    tags.sort_unstable();
    tags.dedup();
}

/// Units that envelopes name, as Datadog calls them; empty for others, which it would not know.
fn known_unit(unit: &[u8]) -> &'static str {
    match unit {
        b"bytes" | b"B" => "byte",
        b"percentage" | b"%" => "percent",
        b"seconds" | b"s" => "second",
        b"ms" => "millisecond",
        b"us" => "microsecond",
        b"ns" | b"nanos" => "nanosecond",
        _ => "",
    }
}
