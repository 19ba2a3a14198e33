//! Lines as Etsy's and DogStatsD's clients write them. Pure: a line becomes a [`Line`] that borrows from it.
//!
//! ```text
//! <name>:<value>[:<value>...]|<c|g|ms|h|d|s>[|@<rate>][|#<tag>,...][|T<seconds>][|c:<container>]...
//! ```
//!
//! What follows the type may stand in any order; a section that is not known is not looked at.

use memchr::memchr;
use proto::raw::wire;

use super::{LineError, MAX_NAME, MAX_ORIGIN, MAX_TAG, MAX_TAGS};

/// One line, understood.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Line<'a> {
    /// The whole name.
    pub name: &'a str,
    /// One value or more, with colons between them.
    pub values: &'a str,
    /// What they mean.
    pub kind: Type,
    /// The share of what happened that was sent, above 0.
    pub rate: f64,
    /// The tags as they were written, with commas between them.
    pub tags: &'a str,
    /// When it was, in nanoseconds since the Unix epoch, where the line says so.
    pub timestamp: Option<i64>,
    /// The container that it comes from, where the line says so.
    pub container: &'a str,
}

/// What a value means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Type {
    /// `c`: so many more.
    Counter,
    /// `g`: a level, or with a sign a step from the last one.
    Gauge,
    /// `ms`: a duration in milliseconds.
    Timer,
    /// `h`: a value to be summed up.
    Histogram,
    /// `d`: the same, of several machines.
    Distribution,
    /// `s`: a member of a set.
    Set,
}

impl<'a> Line<'a> {
    /// Reads a line. One pass, no allocation.
    ///
    /// # Errors
    /// It has not the form, or something in it is over a limit.
    pub fn parse(line: &'a [u8]) -> Result<Self, LineError> {
        let line = std::str::from_utf8(line).map_err(|_| LineError::NotText)?;
        let (name, rest) = split_at(line, b':').ok_or(LineError::Form)?;
        let (values, rest) = split_at(rest, b'|').ok_or(LineError::Form)?;
        if name.is_empty() || name.contains('|') || values.is_empty() {
            return Err(LineError::Form);
        }
        if name.len() > MAX_ORIGIN + 1 + MAX_NAME {
            return Err(LineError::LongName);
        }
        let (kind, mut rest) = split_at(rest, b'|').map_or((rest, None), |(kind, rest)| (kind, Some(rest)));
        let mut read =
            Self { name, values, kind: Type::of(kind)?, rate: 1.0, tags: "", timestamp: None, container: "" };
        while let Some(sections) = rest {
            let (section, more) =
                split_at(sections, b'|').map_or((sections, None), |(section, more)| (section, Some(more)));
            read.section(section)?;
            rest = more;
        }
        Ok(read)
    }

    fn section(&mut self, section: &'a str) -> Result<(), LineError> {
        match section.as_bytes() {
            [b'@', ..] => {
                let rate = section[1..].parse().map_err(|_| LineError::Rate)?;
                if !(f64::MIN_POSITIVE..=1e9).contains(&rate) {
                    return Err(LineError::Rate);
                }
                self.rate = rate;
            }
            [b'#', ..] => self.tags = check_tags(&section[1..])?,
            [b'T', ..] => self.timestamp = Some(seconds(&section[1..]).ok_or(LineError::Time)?),
            [b'c', b':', ..] => self.container = container(&section[2..])?,
            _ => {}
        }
        Ok(())
    }
}

impl Type {
    fn of(text: &str) -> Result<Self, LineError> {
        Ok(match text {
            "c" => Self::Counter,
            "g" => Self::Gauge,
            "ms" => Self::Timer,
            "h" => Self::Histogram,
            "d" => Self::Distribution,
            "s" => Self::Set,
            _ => return Err(LineError::Type),
        })
    }
}

/// What stands before and after the first `at`.
pub(super) fn split_at(text: &str, at: u8) -> Option<(&str, &str)> {
    debug_assert!(at.is_ascii());
    let i = memchr(at, text.as_bytes())?;
    Some((&text[..i], &text[i + 1..]))
}

/// Seconds since the Unix epoch, one at least, as nanoseconds.
pub(super) fn seconds(text: &str) -> Option<i64> {
    text.parse::<i64>().ok().filter(|seconds| *seconds > 0)?.checked_mul(1_000_000_000)
}

/// A container's id, without the prefix that says it is one.
pub(super) fn container(text: &str) -> Result<&str, LineError> {
    let id = text.strip_prefix("ci-").unwrap_or(text);
    if id.len() > MAX_TAG / 2 { Err(LineError::LongTag) } else { Ok(id) }
}

/// The list, if each tag in it is within the limits.
pub(super) fn check_tags(list: &str) -> Result<&str, LineError> {
    for (i, (key, value)) in tags(list).enumerate() {
        if i == MAX_TAGS {
            return Err(LineError::ManyTags);
        }
        if wire::bytes_len(key.len()) + wire::bytes_len(value.len()) > MAX_TAG {
            return Err(LineError::LongTag);
        }
    }
    Ok(list)
}

/// The tags of a list: key and value, which is empty where there is none. Of two with one key the last counts.
pub(super) fn tags(list: &str) -> impl Iterator<Item = (&str, &str)> {
    list.split(',').filter(|tag| !tag.is_empty()).map(|tag| split_at(tag, b':').unwrap_or((tag, "")))
}

/// The source and the name that a metric goes by: the source that a tag or `configured` gives and the whole name, else what stands before
/// the first dot and what stands after it.
///
/// # Errors
/// There is no source, or it or the name is too long.
pub(super) fn place<'a>(
    name: &'a str,
    tags: &'a str,
    configured: Option<&'a str>,
) -> Result<(&'a str, &'a str), LineError> {
    let (source, name) = match source_tag(tags).or(configured) {
        Some(source) => (source, name),
        None => match split_at(name, b'.') {
            Some((origin, rest)) if !origin.is_empty() && !rest.is_empty() => (origin, rest),
            _ => return Err(LineError::NoOrigin),
        },
    };
    if source.len() > MAX_ORIGIN {
        return Err(LineError::LongOrigin);
    }
    if name.len() > MAX_NAME {
        return Err(LineError::LongName);
    }
    Ok((source, name))
}

/// The source that a tag gives.
fn source_tag(list: &str) -> Option<&str> {
    if !list.contains("source_id:") {
        return None;
    }
    tags(list).filter(|(key, value)| *key == "source_id" && !value.is_empty()).last().map(|(_, value)| value)
}

/// The instance that a tag gives; empty without one.
pub(super) fn instance_tag(list: &str) -> &str {
    tags(list).filter(|(key, _)| *key == "instance_id").last().map_or("", |(_, value)| value)
}
