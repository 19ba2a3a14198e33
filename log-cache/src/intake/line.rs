//! One message of RFC 5424, taken apart where it lies.
//!
//! What enters: the bytes of a message. What leaves: references to its parts, structured data checked and still escaped. Pure; it allocates
//! nothing and reads every byte of the header at most twice.
//!
//! `syslog_loose`, which reads such lines too, is not used: it takes UTF-8 only, while a payload is any bytes; it calls every text a
//! message, while here what is no message must be told apart and counted; it does not tell whether there was one, and takes the spaces off
//! its front; and it allocates for each element.

use proto::reason::Reason;
use proto::rfc3339;

/// The longest parts (RFC 5424 §6).
const HOSTNAME: usize = 255;
const APP_NAME: usize = 48;
const PROCID: usize = 128;
const MSGID: usize = 32;
const SD_ID: usize = 32;

/// The highest PRIVAL.
const MAX_PRIORITY: u16 = 191;

/// A message in its parts. `-` is `None`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Line<'a> {
    pub(super) priority: u8,
    /// Nanoseconds since the Unix epoch.
    pub(super) timestamp: Option<i64>,
    pub(super) app_name: Option<&'a [u8]>,
    pub(super) process: Option<&'a [u8]>,
    elements: &'a [u8],
    /// What follows the structured data and a space; empty where there is nothing.
    pub(super) message: &'a [u8],
}

impl<'a> Line<'a> {
    /// Takes a message apart.
    ///
    /// # Errors
    /// [`Reason::DecodeError`]: it is not what RFC 5424 describes.
    pub(super) fn parse(line: &'a [u8]) -> Result<Self, Reason> {
        take_apart(line).ok_or(Reason::DecodeError)
    }

    /// The elements of its structured data, in order.
    pub(super) fn elements(&self) -> Elements<'a> {
        Elements(self.elements)
    }
}

fn take_apart(line: &[u8]) -> Option<Line<'_>> {
    let (priority, rest) = number(line.strip_prefix(b"<")?, b'>')?;
    let (_version, mut rest) = number(rest, b' ').filter(|(version, _)| *version > 0)?;
    let priority = u8::try_from(priority).ok().filter(|_| priority <= MAX_PRIORITY)?;
    let timestamp = match present(field(&mut rest, usize::MAX)?) {
        Some(text) => Some(rfc3339::parse(text)?),
        None => None,
    };
    field(&mut rest, HOSTNAME)?;
    let app_name = present(field(&mut rest, APP_NAME)?);
    let process = present(field(&mut rest, PROCID)?);
    field(&mut rest, MSGID)?;
    let (elements, rest) = structured_data(rest)?;
    let message = match rest {
        [] => rest,
        [b' ', message @ ..] => message,
        _ => return None,
    };
    Some(Line { priority, timestamp, app_name, process, elements, message })
}

/// A number of one to three digits without leading zeros, and what follows the `end` behind it.
fn number(text: &[u8], end: u8) -> Option<(u16, &[u8])> {
    let digits = text.iter().take(4).position(|byte| *byte == end)?;
    let (number, rest) = text.split_at(digits);
    if number.is_empty() || !number.iter().all(u8::is_ascii_digit) || (number[0] == b'0' && number.len() > 1) {
        return None;
    }
    Some((number.iter().fold(0, |sum, digit| sum * 10 + u16::from(digit - b'0')), &rest[1..]))
}

/// The next part of the header, and the space behind it.
fn field<'a>(rest: &mut &'a [u8], longest: usize) -> Option<&'a [u8]> {
    let end = rest.iter().position(|byte| !byte.is_ascii_graphic())?;
    let (field, after) = rest.split_at(end);
    *rest = after.strip_prefix(b" ")?;
    (1..=longest).contains(&field.len()).then_some(field)
}

fn present(field: &[u8]) -> Option<&[u8]> {
    (field != b"-").then_some(field)
}

/// The checked elements, and what follows them.
fn structured_data(text: &[u8]) -> Option<(&[u8], &[u8])> {
    if let Some(rest) = text.strip_prefix(b"-") {
        return Some((&[], rest));
    }
    let mut rest = text;
    while rest.first() == Some(&b'[') {
        let (element, after) = element(rest)?;
        if !element.params().reach_the_end() {
            return None;
        }
        rest = after;
    }
    let elements = &text[..text.len() - rest.len()];
    (!elements.is_empty()).then_some((elements, rest))
}

/// An element of structured data.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Element<'a> {
    pub(super) id: &'a [u8],
    params: &'a [u8],
}

impl<'a> Element<'a> {
    /// Its parameters, in order.
    pub(super) fn params(&self) -> Params<'a> {
        Params(self.params)
    }

    /// The value of a parameter, still escaped; the last where there are several of that name.
    pub(super) fn get(&self, name: &[u8]) -> Option<&'a [u8]> {
        self.params().filter(|param| param.name == name).last().map(|param| param.value)
    }
}

/// The elements of checked structured data.
pub(super) struct Elements<'a>(&'a [u8]);

impl<'a> Iterator for Elements<'a> {
    type Item = Element<'a>;

    fn next(&mut self) -> Option<Element<'a>> {
        let (element, rest) = element(self.0)?;
        self.0 = rest;
        Some(element)
    }
}

/// The parameters of an element.
pub(super) struct Params<'a>(&'a [u8]);

/// A parameter. Its value is still escaped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Param<'a> {
    pub(super) name: &'a [u8],
    pub(super) value: &'a [u8],
}

impl Params<'_> {
    /// True when all of them are well-formed.
    fn reach_the_end(mut self) -> bool {
        self.by_ref().for_each(drop);
        self.0.is_empty()
    }
}

impl<'a> Iterator for Params<'a> {
    type Item = Param<'a>;

    fn next(&mut self) -> Option<Param<'a>> {
        let rest = self.0.strip_prefix(b" ")?;
        let (name, rest) = sd_name(rest, usize::MAX)?;
        let rest = rest.strip_prefix(b"=\"")?;
        let end = value_end(rest)?;
        self.0 = &rest[end + 1..];
        Some(Param { name, value: &rest[..end] })
    }
}

/// The first element of `text`, its parameters delimited but not checked, and what follows it.
fn element(text: &[u8]) -> Option<(Element<'_>, &[u8])> {
    let (id, rest) = sd_name(text.strip_prefix(b"[")?, SD_ID)?;
    let mut at = 0;
    loop {
        match rest.get(at)? {
            b']' => return Some((Element { id, params: &rest[..at] }, &rest[at + 1..])),
            b'"' => at += 1 + value_end(&rest[at + 1..])? + 1,
            _ => at += 1,
        }
    }
}

/// A name of an element or a parameter (RFC 5424, SD-NAME), and what follows it. Names of parameters may be longer than there: the
/// original's agents write keys of tags as they are.
fn sd_name(text: &[u8], longest: usize) -> Option<(&[u8], &[u8])> {
    let is_part = |byte: &u8| byte.is_ascii_graphic() && !matches!(byte, b'=' | b']' | b'"');
    let len = text.iter().take_while(|byte| is_part(byte)).count();
    (1..=longest).contains(&len).then(|| text.split_at(len))
}

/// Where a value's closing quote is. Only `"`, `\` and `]` may be escaped, and must be.
fn value_end(text: &[u8]) -> Option<usize> {
    let mut at = 0;
    loop {
        match text.get(at)? {
            b'"' => return Some(at),
            b']' => return None,
            b'\\' if matches!(text.get(at + 1)?, b'"' | b'\\' | b']') => at += 2,
            b'\\' => return None,
            _ => at += 1,
        }
    }
}

/// Appends a value as it was before it was escaped.
pub(super) fn put_unescaped(into: &mut Vec<u8>, value: &[u8]) {
    let mut rest = value;
    while let Some(at) = rest.iter().position(|byte| *byte == b'\\') {
        into.extend_from_slice(&rest[..at]);
        // Checked: a backslash is never the last.
        into.extend(rest.get(at + 1));
        rest = rest.get(at + 2..).unwrap_or_default();
    }
    into.extend_from_slice(rest);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Option<Line<'_>> {
        Line::parse(text.as_bytes()).ok()
    }

    #[test]
    fn a_message_in_its_parts() {
        let line =
            parse("<14>1 2024-04-05T19:34:38Z h app [APP/0] ID47 [tags@1 a=\"1\" b=\"\\]\\\"\"][event t=\"\"] hello w")
                .unwrap();
        assert_eq!((line.priority, line.timestamp), (14, Some(1_712_345_678_000_000_000)));
        assert_eq!((line.app_name, line.process), (Some(&b"app"[..]), Some(&b"[APP/0]"[..])));
        assert_eq!(line.message, b"hello w");
        let elements: Vec<Element<'_>> = line.elements().collect();
        assert_eq!((elements.len(), elements[0].id, elements[1].id), (2, &b"tags@1"[..], &b"event"[..]));
        let mut value = Vec::new();
        put_unescaped(&mut value, elements[0].get(b"b").unwrap());
        assert_eq!(value, b"]\"");
        assert_eq!((elements[0].get(b"c"), elements[1].get(b"t")), (None, Some(&b""[..])));
    }

    #[test]
    fn nothing_may_stand_for_what_there_is_not() {
        let line = parse("<0>1 - - - - - -").unwrap();
        assert_eq!((line.timestamp, line.app_name, line.process, line.message), (None, None, None, &b""[..]));
        assert_eq!(line.elements().count(), 0);
        assert_eq!(parse("<191>999 - - - - - - ").unwrap().message, b"");
        assert_eq!(parse("<0>1 - - - - - -  x").unwrap().message, b" x");
    }

    #[test]
    fn what_is_no_message() {
        let long = |length: usize| "x".repeat(length);
        for text in [
            "",
            "<",
            "<14>",
            "<14>1",
            "1 - - - - - - x",
            "<192>1 - - - - - -",
            "<014>1 - - - - - -",
            "<1914>1 - - - - - -",
            "<>1 - - - - - -",
            "<14>0 - - - - - -",
            "<14> - - - - - -",
            "<14>1  - - - - - -",
            "<14>1 - - - - -",
            "<14>1 - - - - - -x",
            "<14>1 - - - - - ",
            "<14>1 - - a\u{7f} - - -",
            &format!("<14>1 - {} - - - -", long(256)),
            &format!("<14>1 - - {} - - -", long(49)),
            &format!("<14>1 - - - {} - -", long(129)),
            &format!("<14>1 - - - - {} -", long(33)),
            "<14>1 - - - - - []",
            "<14>1 - - - - - [a",
            "<14>1 - - - - - [a ]",
            "<14>1 - - - - - [a b]",
            "<14>1 - - - - - [a b=c]",
            "<14>1 - - - - - [a  b=\"c\"]",
            "<14>1 - - - - - [a b=\"c\" ]",
            "<14>1 - - - - - [a b=\"x]y\"]",
            "<14>1 - - - - - [a b=\"x\\ny\"]",
            "<14>1 - - - - - [a b=\"c\"x]",
            "<14>1 - - - - - [a b=\"c\\",
            &format!("<14>1 - - - - - [{}]", long(33)),
        ] {
            assert_eq!(Line::parse(text.as_bytes()), Err(Reason::DecodeError), "{text}");
        }
    }
}
