//! One message to a log envelope. Pure.
//!
//! The source is the program's name, else the host, else the address that the message came from; the instance is the host. Facility,
//! severity, host, program, process and message id become tags, structured data a tag `ID.NAME` for each of its values. A severity of
//! error or worse is a line of standard error. A message without a time is from now; one without a zone is of this machine's, one
//! without a year of the year that brings it nearest to now.

use std::borrow::Cow;
use std::cell::Cell;
use std::net::IpAddr;

use chrono::{DateTime, Datelike as _, FixedOffset, NaiveDate, TimeDelta};
use proto::raw::Limits;
use syslog_loose::{Message, ProcId, Protocol, SyslogSeverity, Variant, parse_message_with_year_tz};

use crate::gather::{Draft, Gather};

/// Values of structured data that become tags.
const MAX_DATA: usize = 100;

/// Bytes of a tag's value.
const MAX_VALUE: usize = 512;

/// Bytes of a message's header, with its structured data.
const MAX_HEAD: usize = 16 * 1024;

/// Brackets that may close structured data.
const MAX_BRACKETS: usize = 64;

/// The longest time zone of syslog is less than a day.
const MAX_OFFSET: i32 = 24 * 3_600 - 1;

/// When a message arrived, and where.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Clock {
    /// Nanoseconds since the Unix epoch.
    pub now_ns: i64,
    /// Seconds that this machine's time is ahead of UTC.
    pub offset_seconds: i32,
}

/// Makes envelopes of messages.
#[derive(Clone, Debug)]
pub struct Maker {
    source_id: Option<String>,
    /// A structured-data tag's key, kept for its capacity.
    key: String,
}

impl Maker {
    /// One that gives every message this source, or the one that it names.
    pub fn new(source_id: Option<String>) -> Self {
        Self { source_id, key: String::new() }
    }

    /// Gathers the log that a message becomes. False if it resembles none and was taken as it stands; a blank one becomes nothing.
    pub fn put(&mut self, bytes: &[u8], from: IpAddr, clock: Clock, gather: &mut Gather) -> bool {
        let bytes = bytes.trim_ascii();
        if bytes.is_empty() {
            return true;
        }
        let text = with_zone(String::from_utf8_lossy(bytes), clock.offset_seconds);
        let message = parse(head(&text), clock);
        let unparsed = message.facility.is_none();
        let payload = payload(bytes, &text, message.msg);
        let address;
        let host = known(message.hostname);
        let source = match (&self.source_id, known(message.appname), host) {
            (Some(source), ..) => source.as_str(),
            (None, Some(name), _) | (None, None, Some(name)) => name,
            (None, None, None) => {
                address = from.to_string();
                &address
            }
        };
        let time = message.timestamp.map_or(clock.now_ns, |time| nanos(&time));
        let source = cut(source, Limits::default().source_id_bytes);
        let mut draft = gather.envelope(source, cut(host.unwrap_or_default(), MAX_VALUE), time);
        draft.tag("origin", "syslog").tag("source_type", "SYSLOG");
        if unparsed {
            draft.tag("syslog_unparsed", "true");
        }
        tag(&mut draft, "host", host);
        tag(&mut draft, "app_name", known(message.appname));
        tag(&mut draft, "msg_id", known(message.msgid));
        match message.procid {
            Some(ProcId::PID(id)) => drop(draft.tag("proc_id", &id.to_string())),
            Some(ProcId::Name(name)) => tag(&mut draft, "proc_id", known(Some(name))),
            None => {}
        }
        tag(&mut draft, "facility", message.facility.map(syslog_loose::SyslogFacility::as_str));
        tag(&mut draft, "severity", message.severity.map(SyslogSeverity::as_str));
        self.put_data(&mut draft, &message);
        let err = message.severity.is_some_and(|severity| severity as u8 <= SyslogSeverity::SEV_ERR as u8);
        draft.log(payload, err);
        !unparsed
    }

    fn put_data(&mut self, draft: &mut Draft<'_>, message: &Message<&str>) {
        let mut count = 0_usize;
        for element in &message.structured_data {
            for (name, value) in &element.params {
                count += 1;
                if count > MAX_DATA {
                    continue;
                }
                self.key.clear();
                self.key.extend([cut(element.id, 128), ".", cut(name, 128)]);
                draft.tag(&self.key, cut(&unescaped(value), MAX_VALUE));
            }
        }
        if count > MAX_DATA {
            draft.tag("structured_data_cut", &(count - MAX_DATA).to_string());
        }
    }
}

/// The message with this machine's zone behind a time of ISO 8601 that has none, as some senders of RFC 3164 write it.
fn with_zone(text: Cow<'_, str>, offset_seconds: i32) -> Cow<'_, str> {
    const FORM: &[u8] = b"0000-00-00T00:00:00";
    let Some(start) = text.find('>').map(|at| at + 1).filter(|start| *start <= 5 && text.starts_with('<')) else {
        return text;
    };
    let bytes = &text.as_bytes()[start..];
    let fits = |(byte, form): (&u8, &u8)| if *form == b'0' { byte.is_ascii_digit() } else { byte == form };
    if bytes.get(FORM.len()) != Some(&b' ') || !bytes.iter().zip(FORM).all(fits) {
        return text;
    }
    let (time, rest) = text.split_at(start + FORM.len());
    let minutes = offset_seconds.abs() / 60;
    let sign = if offset_seconds < 0 { '-' } else { '+' };
    Cow::Owned(format!("{time}{sign}{:02}:{:02}{rest}", minutes / 60, minutes % 60))
}

/// As much of a message as a header may take: what follows is text in any case. The parser may look at all that is left again behind each
/// bracket of structured data that is none, so their number is bounded too.
fn head(text: &str) -> &str {
    let head = cut(text, MAX_HEAD);
    memchr::memchr_iter(b']', head.as_bytes()).nth(MAX_BRACKETS).map_or(head, |end| &head[..=end])
}

/// Reads the start of a message; what was said is a part of it, and of the message with all that follows.
fn parse(text: &str, clock: Clock) -> Message<&str> {
    let offset = FixedOffset::east_opt(clock.offset_seconds.clamp(-MAX_OFFSET, MAX_OFFSET));
    let now = offset.map(|offset| DateTime::from_timestamp_nanos(clock.now_ns).with_timezone(&offset));
    let asked_for_year = Cell::new(false);
    let year = |(month, day, hour, minute, second)| {
        asked_for_year.set(true);
        let Some(now) = now else { return 1970 };
        // The year before, this one or the next: whichever brings the message nearest to now.
        let distance = |year: i32| {
            let time = NaiveDate::from_ymd_opt(year, month, day)?.and_hms_opt(hour, minute, second)?;
            Some((time - now.naive_local()).num_seconds().abs())
        };
        let years = [now.year(), now.year() - 1, now.year() + 1];
        years.into_iter().min_by_key(|year| distance(*year).unwrap_or(i64::MAX)).unwrap_or(now.year())
    };
    let mut message = parse_message_with_year_tz(text, year, offset, Variant::Either);
    if message.facility.is_none()
        && let Some((facility, severity, rest)) = priority(text)
    {
        // A priority and text of the sender's own.
        (message.facility, message.severity, message.msg) = (facility, severity, rest);
        message.protocol = Protocol::RFC3164;
    }
    // Of a time with a year and no zone the parser says that it is UTC's.
    let begins_with_month =
        || text.trim_start_matches(|char| char != '>').chars().nth(1).is_some_and(char::is_alphabetic);
    if !asked_for_year.get() && message.protocol == Protocol::RFC3164 && begins_with_month() {
        let offset = TimeDelta::seconds(clock.offset_seconds.into());
        message.timestamp = message.timestamp.map(|time| time.checked_sub_signed(offset).unwrap_or(time));
    }
    message
}

type Priority<'a> = (Option<syslog_loose::SyslogFacility>, Option<SyslogSeverity>, &'a str);

/// A priority before text that is otherwise no message.
fn priority(text: &str) -> Option<Priority<'_>> {
    let (number, rest) = text.strip_prefix('<')?.split_once('>')?;
    let number: u8 = number.parse().ok().filter(|number| *number < 192)?;
    let (facility, severity) = syslog_loose::decompose_pri(number);
    Some((facility, severity, rest.trim_start()))
}

/// The bytes of what was said, with what is no UTF-8 in them kept where the header had none of that.
fn payload<'a>(bytes: &'a [u8], text: &'a str, said: &'a str) -> &'a [u8] {
    // What was said begins within the text, and goes on to its end.
    let header = (said.as_ptr() as usize).wrapping_sub(text.as_ptr() as usize).min(text.len());
    let payload = match bytes.split_at_checked(header) {
        Some((raw, rest)) if raw == &text.as_bytes()[..header] => rest,
        _ => &text.as_bytes()[header..],
    };
    // RFC 5424 §6.4: a mark that the text is UTF-8, and no part of it.
    payload.strip_prefix(b"\xef\xbb\xbf").unwrap_or(payload)
}

/// What is there and is more than a dash.
fn known(field: Option<&str>) -> Option<&str> {
    field.filter(|field| !field.is_empty() && *field != "-")
}

fn tag(draft: &mut Draft<'_>, key: &str, value: Option<&str>) {
    if let Some(value) = value {
        draft.tag(key, cut(value, MAX_VALUE));
    }
}

/// As much of a text as fits.
fn cut(text: &str, room: usize) -> &str {
    if text.len() <= room {
        return text;
    }
    let end = (0..=room).rev().find(|at| text.is_char_boundary(*at)).unwrap_or(0);
    &text[..end]
}

/// A value of structured data without its escapes (RFC 5424 §6.3.3).
fn unescaped(value: &str) -> Cow<'_, str> {
    if !value.contains('\\') {
        return Cow::Borrowed(value);
    }
    let mut text = String::with_capacity(value.len());
    let mut rest = value.chars();
    while let Some(char) = rest.next() {
        match char {
            '\\' => match rest.next() {
                Some(escaped @ ('"' | '\\' | ']')) => text.push(escaped),
                // Not an escape: both stand for themselves.
                Some(other) => text.extend(['\\', other]),
                None => text.push('\\'),
            },
            other => text.push(other),
        }
    }
    Cow::Owned(text)
}

/// A time beyond what 64 bits hold is the last that they do.
fn nanos(time: &DateTime<FixedOffset>) -> i64 {
    let last = if time.timestamp() < 0 { i64::MIN } else { i64::MAX };
    time.timestamp_nanos_opt().unwrap_or(last)
}
