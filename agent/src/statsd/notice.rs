//! DogStatsD's events and service checks. Pure: a line becomes an envelope at once.
//!
//! ```text
//! _e{<title bytes>,<text bytes>}:<title>|<text>[|d:<seconds>][|h:<host>][|k:<key>][|p:<priority>][|s:<source>][|t:<alert>][|#<tag>,...]
//! _sc|<name>|<status>[|d:<seconds>][|h:<host>][|#<tag>,...][|m:<message>]
//! ```
//!
//! An event becomes an event with its title and text; a service check a gauge of its name with its status, 0 for OK to 3 for unknown.

use super::line::{check_tags, container, instance_tag, place, seconds, split_at, tags};
use super::{LineError, MAX_TAG};
use crate::gather::{Draft, Gather};

/// The source of what names none.
pub(super) const NOBODY: &str = "statsd";

/// Bytes of a title and a text together.
const MAX_EVENT: usize = 64 * 1024;

/// What may follow an event's text or a check's status.
#[derive(Default)]
struct Sections<'a> {
    timestamp: Option<i64>,
    tags: &'a str,
    /// Tags of their own, by their keys; `message` is a check's.
    named: [(&'static str, &'a str); 7],
    count: usize,
}

/// True if the line is an event or a service check.
pub(super) fn is_notice(line: &[u8]) -> bool {
    line.starts_with(b"_e{") || line.starts_with(b"_sc|")
}

/// Reads an event or a service check into `gather`; at `now_ns` unless it says when.
///
/// # Errors
/// It has not the form, or something in it is over a limit.
pub(super) fn put(line: &[u8], configured: Option<&str>, now_ns: i64, gather: &mut Gather) -> Result<(), LineError> {
    let line = std::str::from_utf8(line).map_err(|_| LineError::NotText)?;
    match line.strip_prefix("_e{") {
        Some(event) => put_event(event, configured, now_ns, gather),
        None => put_check(line.strip_prefix("_sc|").unwrap_or_default(), configured, now_ns, gather),
    }
}

fn put_event(event: &str, configured: Option<&str>, now_ns: i64, gather: &mut Gather) -> Result<(), LineError> {
    let (lengths, rest) = event.split_once("}:").ok_or(LineError::Event)?;
    let (title, text) = split_at(lengths, b',').ok_or(LineError::Event)?;
    let length = |text: &str| text.parse::<usize>().ok().filter(|length| *length <= MAX_EVENT).ok_or(LineError::Event);
    let (title, text) = (length(title)?, length(text)?);
    // Lengths are in bytes; that they end between characters is what `get` looks at.
    let (title, rest) = (rest.get(..title).ok_or(LineError::Event)?, &rest[title..]);
    let rest = rest.strip_prefix('|').ok_or(LineError::Event)?;
    let (text, rest) = (rest.get(..text).ok_or(LineError::Event)?, &rest[text..]);
    if title.is_empty() || !(rest.is_empty() || rest.starts_with('|')) {
        return Err(LineError::Event);
    }
    let sections = Sections::read(rest.strip_prefix('|'))?;
    let source = place("", sections.tags, configured.or(Some(NOBODY)))?.0;
    let draft = sections.draft(source, now_ns, gather);
    if title.contains("\\n") || text.contains("\\n") {
        draft.event(&title.replace("\\n", "\n"), &text.replace("\\n", "\n"));
    } else {
        draft.event(title, text);
    }
    Ok(())
}

fn put_check(check: &str, configured: Option<&str>, now_ns: i64, gather: &mut Gather) -> Result<(), LineError> {
    let (name, rest) = split_at(check, b'|').ok_or(LineError::Check)?;
    let (status, rest) = split_at(rest, b'|').map_or((rest, None), |(status, rest)| (status, Some(rest)));
    let status = match status {
        "0" => 0.0,
        "1" => 1.0,
        "2" => 2.0,
        "3" => 3.0,
        _ => return Err(LineError::Check),
    };
    if name.is_empty() {
        return Err(LineError::Check);
    }
    let sections = Sections::read(rest)?;
    let (source, name) =
        place(name, sections.tags, configured).or_else(|_| place(name, sections.tags, Some(NOBODY)))?;
    sections.draft(source, now_ns, gather).gauge([(name, "", status)]);
    Ok(())
}

impl<'a> Sections<'a> {
    fn read(rest: Option<&'a str>) -> Result<Self, LineError> {
        let mut read = Self::default();
        let mut rest = rest;
        while let Some(sections) = rest {
            // A message is the last, and may have bars in it.
            if let Some(message) = sections.strip_prefix("m:") {
                read.name("message", cut(message));
                return Ok(read);
            }
            let (section, more) =
                split_at(sections, b'|').map_or((sections, None), |(section, more)| (section, Some(more)));
            rest = more;
            let Some((key, value)) = split_at(section, b':').filter(|_| !section.starts_with('#')) else {
                if let Some(tags) = section.strip_prefix('#') {
                    read.tags = check_tags(tags)?;
                }
                continue;
            };
            match key {
                "d" => read.timestamp = Some(seconds(value).ok_or(LineError::Time)?),
                "h" => read.name("host", cut(value)),
                "k" => read.name("aggregation_key", cut(value)),
                "p" => read.name("priority", cut(value)),
                "s" => read.name("source_type_name", cut(value)),
                "t" => read.name("alert_type", cut(value)),
                "c" => read.name("container_id", container(value)?),
                _ => {}
            }
        }
        Ok(read)
    }

    /// Each key once: what comes again stands in place of what came before.
    fn name(&mut self, key: &'static str, value: &'a str) {
        let known = self.named[..self.count].iter().position(|(known, _)| *known == key);
        let at = known.unwrap_or(self.count);
        self.named[at] = (key, value);
        self.count = self.count.max(at + 1);
    }

    fn draft<'g>(&self, source: &str, now_ns: i64, gather: &'g mut Gather) -> Draft<'g> {
        let mut draft = gather.envelope(source, instance_tag(self.tags), self.timestamp.unwrap_or(now_ns));
        for (key, value) in &self.named[..self.count] {
            draft.tag(key, value);
        }
        put_tags(self.tags, source, &mut draft);
        draft
    }
}

/// Adds the tags of a list, but for those that became the source and the instance, and the source as `origin` unless a tag is.
pub(super) fn put_tags(list: &str, source: &str, draft: &mut Draft<'_>) {
    draft.tag("origin", source);
    for (key, value) in tags(list) {
        if key != "source_id" && key != "instance_id" {
            draft.tag(key, value);
        }
    }
}

/// What fits into a tag.
fn cut(text: &str) -> &str {
    let room = MAX_TAG - 32;
    let end = (0..=room.min(text.len())).rev().find(|at| text.is_char_boundary(*at)).unwrap_or(0);
    &text[..end]
}
