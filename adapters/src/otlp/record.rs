//! One envelope as a log record, a point or a span, and the resource that it is of.
//!
//! The parts of an envelope enter, an encoded message leaves. Never keeps anything.

use percent_encoding::percent_decode;
use proto::raw::wire::put_bytes;
use smallvec::SmallVec;

use super::wire::{put_any, put_attribute, put_fixed64, put_head, put_list, put_number, put_text};
use crate::read::{Envelope, Event, Log, Timer};

/// The attribute by which collectors tell services apart, and its value where nothing is known.
const SERVICE: &str = "service.name";
const UNKNOWN: &[u8] = b"unknown_service";
const INSTANCE: &str = "service.instance.id";

/// `SpanKind`.
const INTERNAL: u64 = 1;
const SERVER: u64 = 2;

/// The identifiers of a trace, decoded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Ids {
    pub(super) trace: [u8; 16],
    pub(super) span: [u8; 8],
}

/// What an envelope says about a trace.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Trace {
    /// Nothing, or only half.
    None,
    Ids(Ids),
    /// Identifiers that are none: not hexadecimal, of the wrong length, or zero.
    Bad,
}

impl Trace {
    pub(super) fn of(envelope: &Envelope<'_>) -> Self {
        let (trace, span) = (envelope.tag("trace_id"), envelope.tag("span_id"));
        if trace.is_empty() || span.is_empty() {
            return Self::None;
        }
        match (id(trace), id(span)) {
            (Some(trace), Some(span)) => Self::Ids(Ids { trace, span }),
            _ => Self::Bad,
        }
    }
}

/// An identifier from its hexadecimal digits. All zeros are none.
pub(super) fn id<const N: usize>(text: &[u8]) -> Option<[u8; N]> {
    let digit = |byte: u8| char::from(byte).to_digit(16);
    let mut id = [0; N];
    if text.len() != 2 * N {
        return None;
    }
    for (byte, pair) in id.iter_mut().zip(text.chunks_exact(2)) {
        *byte = u8::try_from(digit(pair[0])? << 4 | digit(pair[1])?).ok()?;
    }
    (id != [0; N]).then_some(id)
}

/// Appends a `LogRecord` of a log.
pub(super) fn log(into: &mut Vec<u8>, envelope: &Envelope<'_>, log: Log<'_>, now: i64, preset: bool) {
    let (number, text) = match (log.is_err, preset) {
        (false, true) => (9, "SEVERITY_NUMBER_INFO"),
        (true, true) => (17, "SEVERITY_NUMBER_ERROR"),
        (false, false) => (9, "INFO"),
        (true, false) => (17, "ERROR"),
    };
    put_fixed64(into, 1, envelope.timestamp.cast_unsigned());
    put_number(into, 2, number);
    put_text(into, 3, text.as_bytes());
    put_any(into, 5, log.payload);
    end(into, envelope, now, preset);
}

/// Appends a `LogRecord` of an event.
pub(super) fn event(into: &mut Vec<u8>, envelope: &Envelope<'_>, event: Event<'_>, now: i64, preset: bool) {
    put_fixed64(into, 1, envelope.timestamp.cast_unsigned());
    put_list(into, 5, &[("title", event.title), ("body", event.body)]);
    end(into, envelope, now, preset);
}

/// What log records of both kinds end with.
fn end(into: &mut Vec<u8>, envelope: &Envelope<'_>, now: i64, preset: bool) {
    let trace = if preset { Trace::None } else { Trace::of(envelope) };
    // What is no identifier stays an attribute.
    attributes(into, 6, envelope, |key| is_id(key) && (preset || matches!(trace, Trace::Ids(_))));
    if let Trace::Ids(ids) = trace {
        put_bytes(into, 9, &ids.trace);
        put_bytes(into, 10, &ids.span);
    }
    put_fixed64(into, 11, now.cast_unsigned());
}

/// Appends a `NumberDataPoint`, of an integer or of a double.
pub(super) fn point(into: &mut Vec<u8>, start: Option<i64>, time: i64, value: Result<u64, f64>, attributes: &[u8]) {
    if let Some(start) = start {
        put_fixed64(into, 2, start.cast_unsigned());
    }
    put_fixed64(into, 3, time.cast_unsigned());
    match value {
        Ok(integer) => put_fixed64(into, 6, integer),
        Err(double) => put_fixed64(into, 4, double.to_bits()),
    }
    into.extend_from_slice(attributes);
}

/// Appends a `Span`.
pub(super) fn span(into: &mut Vec<u8>, envelope: &Envelope<'_>, timer: Timer<'_>, ids: Ids, preset: bool) {
    put_bytes(into, 1, &ids.trace);
    put_bytes(into, 2, &ids.span);
    let parent = if preset { None } else { id::<8>(envelope.tag("parent_span_id")) };
    if let Some(parent) = parent {
        put_bytes(into, 4, &parent);
    }
    let path = path(envelope.tag("uri"));
    put_text(into, 5, path.as_deref().unwrap_or(timer.name));
    put_number(into, 6, if envelope.tag("peer_type") == b"Server" { SERVER } else { INTERNAL });
    put_fixed64(into, 7, timer.start.cast_unsigned());
    put_fixed64(into, 8, timer.stop.cast_unsigned());
    attributes(into, 9, envelope, |key| is_id(key) || parent.is_some() && key == b"parent_span_id");
    // A status that is not set.
    put_head(into, 15, 0);
}

/// The path of a URI, decoded; `None` if it has none.
fn path(uri: &[u8]) -> Option<Vec<u8>> {
    let uri = &uri[..uri.iter().position(|byte| matches!(byte, b'?' | b'#')).unwrap_or(uri.len())];
    let path = if uri.starts_with(b"/") {
        uri
    } else {
        let (scheme, rest) = uri.split_at(uri.windows(3).position(|part| part == b"://")?);
        let is_scheme = scheme.first().is_some_and(u8::is_ascii_alphabetic)
            && scheme.iter().all(|byte| byte.is_ascii_alphanumeric() || b"+-.".contains(byte));
        if !is_scheme {
            return None;
        }
        let rest = &rest[3..];
        &rest[rest.iter().position(|byte| *byte == b'/')?..]
    };
    Some(percent_decode(path).collect())
}

/// Appends instance, source and tags as attributes, but for the keys that `skip` knows. The last of a key counts.
pub(super) fn attributes(into: &mut Vec<u8>, number: u32, envelope: &Envelope<'_>, skip: impl Fn(&[u8]) -> bool) {
    put_attribute(into, number, b"instance_id", envelope.instance_id);
    put_attribute(into, number, b"source_id", envelope.source_id);
    let skipped = |key: &[u8]| matches!(key, b"instance_id" | b"source_id" | b"__v1_type") || skip(key);
    let tags: SmallVec<[(&[u8], &[u8]); 16]> = envelope.tags().collect();
    for (i, (key, value)) in tags.iter().enumerate() {
        if !skipped(key) && !tags[i + 1..].iter().any(|(later, _)| later == key) {
            put_attribute(into, number, key, value);
        }
    }
}

/// The tags that a span has in fields of its own.
pub(super) fn is_id(key: &[u8]) -> bool {
    matches!(key, b"trace_id" | b"span_id")
}

/// What a service is called, of an envelope.
pub(super) fn service<'a>(envelope: &Envelope<'a>) -> &'a [u8] {
    [envelope.tag("app_name"), envelope.source_id].into_iter().find(|name| !name.is_empty()).unwrap_or(UNKNOWN)
}

/// A `Resource` message: what the configuration says, and of the envelope what it does not say.
pub(super) fn resource(configured: &[(String, String)], envelope: Option<&Envelope<'_>>) -> Vec<u8> {
    let mut resource = Vec::new();
    let is_ours = |key: &str| !configured.iter().any(|(known, _)| known == key);
    if let Some(envelope) = envelope {
        if is_ours(SERVICE) {
            put_attribute(&mut resource, 1, SERVICE.as_bytes(), service(envelope));
        }
        if is_ours(INSTANCE) && !envelope.instance_id.is_empty() {
            put_attribute(&mut resource, 1, INSTANCE.as_bytes(), envelope.instance_id);
        }
    }
    for (key, value) in configured {
        put_attribute(&mut resource, 1, key.as_bytes(), value.as_bytes());
    }
    resource
}
