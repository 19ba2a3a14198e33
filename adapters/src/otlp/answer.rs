//! What a collector's answer says of a request (OTLP specification 1: responses of OTLP/gRPC and OTLP/HTTP).
//!
//! An [`Answer`] enters; that all or part of it was taken leaves, or a refusal that says whether and when to send again. Pure. What the
//! collector says in words is cut, and no secret of ours is in it.

use std::borrow::Cow;
use std::io;
use std::time::Duration;

use base64::Engine;
use base64::alphabet::STANDARD;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use http::{HeaderMap, StatusCode};
use percent_encoding::percent_decode_str;
use proto::raw::wire::{Fields, Malformed, WireType};

use crate::push::attempt::Accepted;
use crate::syslog::client::{Answer, LONGEST_WAIT, Refusal, retry_after};

/// Characters of what a collector says that are shown.
const MAX_SAID: usize = 256;
/// Bytes of a header that holds a status.
const MAX_DETAILS: usize = 16 * 1024;
/// The details that ask for a wait.
const RETRY_INFO: &[u8] = b"google.rpc.RetryInfo";

/// How a collector is spoken to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Protocol {
    /// Over gRPC, not as POSTs.
    pub(crate) grpc: bool,
    /// As the original: nothing but `UNAVAILABLE` is sent again.
    pub(crate) original: bool,
}

/// The parts of `google.rpc.Status` that are looked at.
#[derive(Debug, Default)]
struct Status<'a> {
    message: &'a [u8],
    wait: Option<Duration>,
}

/// What the answer means. `secrets` are taken out of what it says.
///
/// # Errors
/// A [`Refusal`], or an answer that is none of the protocol's.
pub(crate) fn judge(protocol: Protocol, answer: &Answer, secrets: &[Vec<u8>]) -> io::Result<Accepted> {
    if protocol.grpc { grpc(protocol, answer, secrets) } else { http(answer, secrets) }
}

fn http(answer: &Answer, secrets: &[Vec<u8>]) -> io::Result<Accepted> {
    let status = answer.status;
    if status.is_success() {
        return Ok(partial(&answer.body, secrets));
    }
    let is_protobuf = answer.headers.get(http::header::CONTENT_TYPE).is_some_and(|kind| {
        kind.as_bytes().starts_with(b"application/x-protobuf") || kind.as_bytes().starts_with(b"application/protobuf")
    });
    let told = if is_protobuf { Status::read(&answer.body).unwrap_or_default() } else { Status::default() };
    let again = matches!(
        status,
        StatusCode::TOO_MANY_REQUESTS
            | StatusCode::BAD_GATEWAY
            | StatusCode::SERVICE_UNAVAILABLE
            | StatusCode::GATEWAY_TIMEOUT
    );
    let hint = match status {
        StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => "; look at token, user name and password, or otlp.headers",
        StatusCode::NOT_FOUND | StatusCode::METHOD_NOT_ALLOWED => {
            "; is that the collector's port for OTLP over HTTP, usually 4318?"
        }
        StatusCode::PAYLOAD_TOO_LARGE => "; set otlp.max_bytes to less",
        status if status.is_redirection() => ", and a drain follows no redirect; write the new address",
        _ => "",
    };
    let broken = status.is_redirection()
        || matches!(
            status,
            StatusCode::UNAUTHORIZED
                | StatusCode::FORBIDDEN
                | StatusCode::NOT_FOUND
                | StatusCode::METHOD_NOT_ALLOWED
                | StatusCode::GONE
        );
    let what = format!("{status}{}{hint}", shown(told.message, secrets));
    let after = retry_after(&answer.headers).or(told.wait);
    // Neither taken nor refused, a redirect is tried again.
    Err(io::Error::other(Refusal::new(what, !again && !status.is_redirection(), broken, after)))
}

fn grpc(protocol: Protocol, answer: &Answer, secrets: &[Vec<u8>]) -> io::Result<Accepted> {
    let at = |headers: &HeaderMap, name: &str| headers.get(name).map(|value| value.as_bytes().to_vec());
    // An answer without a message has its status at the front.
    let of = |name: &str| answer.trailers.as_ref().and_then(|end| at(end, name)).or_else(|| at(&answer.headers, name));
    let Some(code) = of("grpc-status").and_then(|text| String::from_utf8(text).ok()?.parse::<u32>().ok()) else {
        return Err(without_status(answer.status));
    };
    if code == 0 {
        // A message that is compressed, or was cut, is not looked into.
        let message = match answer.body.get(..5) {
            Some([0, a, b, c, d]) => answer.body.get(5..5 + u32::from_be_bytes([*a, *b, *c, *d]) as usize),
            _ => None,
        };
        return Ok(partial(message.unwrap_or_default(), secrets));
    }
    let details = of("grpc-status-details-bin").filter(|text| text.len() <= MAX_DETAILS).unwrap_or_default();
    let details = decoder().decode(details).unwrap_or_default();
    let told = Status::read(&details).unwrap_or_default();
    let message = of("grpc-message").unwrap_or_default();
    let message: Vec<u8> = percent_decode_str(&String::from_utf8_lossy(&message)).collect();
    // CANCELLED, DEADLINE_EXCEEDED, ABORTED, OUT_OF_RANGE, UNAVAILABLE, DATA_LOSS; RESOURCE_EXHAUSTED if it will be otherwise.
    let again = match code {
        14 => true,
        1 | 4 | 10 | 11 | 15 => !protocol.original,
        8 => !protocol.original && told.wait.is_some(),
        _ => false,
    };
    let hint = match code {
        7 | 16 => "; look at token, user name and password, or otlp.headers",
        5 | 12 => "; is that the collector's port for OTLP over gRPC, usually 4317, and does it take this signal?",
        8 if !again => "; if the request is too large, set otlp.max_bytes to less",
        _ => "",
    };
    let what = format!("{} ({code}){}{hint}", name(code), shown(&message, secrets));
    Err(io::Error::other(Refusal::new(what, !again, matches!(code, 5 | 7 | 12 | 16), told.wait)))
}

/// What answers so is no gRPC server, or a proxy before it (the mapping is gRPC's own).
fn without_status(status: StatusCode) -> io::Error {
    let text = format!("the destination does not speak gRPC: it answers {status} without a grpc-status");
    match status {
        StatusCode::TOO_MANY_REQUESTS
        | StatusCode::BAD_GATEWAY
        | StatusCode::SERVICE_UNAVAILABLE
        | StatusCode::GATEWAY_TIMEOUT => io::Error::other(Refusal::new(status.to_string(), false, false, None)),
        StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => {
            let what = format!("{status}; look at token, user name and password, or otlp.headers");
            io::Error::other(Refusal::new(what, true, true, None))
        }
        StatusCode::BAD_REQUEST | StatusCode::PAYLOAD_TOO_LARGE | StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE => {
            let what = format!(
                "{status}, before it came to the collector; if the request is too large, set otlp.max_bytes to less"
            );
            io::Error::other(Refusal::new(what, true, false, None))
        }
        _ => io::Error::new(io::ErrorKind::InvalidData, text),
    }
}

/// Reads `Export*ServiceResponse`, which is the same for all signals. What cannot be read says nothing.
fn partial(message: &[u8], secrets: &[Vec<u8>]) -> Accepted {
    let read = || -> Result<Accepted, Malformed> {
        let mut taken = Accepted::default();
        let mut fields = Fields::new(message);
        while !fields.is_done() {
            match fields.key()? {
                (1, WireType::Len) => {
                    let mut fields = Fields::new(fields.bytes()?);
                    while !fields.is_done() {
                        match fields.key()? {
                            (1, WireType::Varint) => {
                                taken.rejected = u64::try_from(fields.varint()?.cast_signed()).unwrap_or(0);
                            }
                            (2, WireType::Len) => taken.said = clean(fields.bytes()?, secrets),
                            (number, wire_type) => fields.skip(number, wire_type)?,
                        }
                    }
                }
                (number, wire_type) => fields.skip(number, wire_type)?,
            }
        }
        Ok(taken)
    };
    read().unwrap_or_default()
}

impl<'a> Status<'a> {
    fn read(message: &'a [u8]) -> Result<Self, Malformed> {
        let mut status = Self::default();
        let mut fields = Fields::new(message);
        while !fields.is_done() {
            match fields.key()? {
                (2, WireType::Len) => status.message = fields.bytes()?,
                (3, WireType::Len) => status.wait = wait(fields.bytes()?)?.or(status.wait),
                (number, wire_type) => fields.skip(number, wire_type)?,
            }
        }
        Ok(status)
    }
}

/// The wait that a detail asks for, if it is of that kind; at most a minute.
fn wait(any: &[u8]) -> Result<Option<Duration>, Malformed> {
    let (mut is_wait, mut value) = (false, &[][..]);
    let mut fields = Fields::new(any);
    while !fields.is_done() {
        match fields.key()? {
            (1, WireType::Len) => is_wait = fields.bytes()?.ends_with(RETRY_INFO),
            (2, WireType::Len) => value = fields.bytes()?,
            (number, wire_type) => fields.skip(number, wire_type)?,
        }
    }
    let (mut seconds, mut nanos) = (0, 0);
    let mut fields = Fields::new(if is_wait { value } else { &[] });
    while !fields.is_done() {
        match fields.key()? {
            (1, WireType::Len) => {
                let mut fields = Fields::new(fields.bytes()?);
                while !fields.is_done() {
                    match fields.key()? {
                        (1, WireType::Varint) => seconds = u64::try_from(fields.varint()?.cast_signed()).unwrap_or(0),
                        (2, WireType::Varint) => nanos = u32::try_from(fields.varint()?).unwrap_or(0),
                        (number, wire_type) => fields.skip(number, wire_type)?,
                    }
                }
            }
            (number, wire_type) => fields.skip(number, wire_type)?,
        }
    }
    let asked = Duration::from_secs(seconds.min(LONGEST_WAIT.as_secs())) + Duration::from_nanos(nanos.into());
    Ok(is_wait.then_some(asked.min(LONGEST_WAIT)))
}

/// Behind a status: what was said, if anything.
fn shown(said: &[u8], secrets: &[Vec<u8>]) -> String {
    if said.is_empty() { String::new() } else { format!(": {}", clean(said, secrets)) }
}

/// What was said, without our secrets and control characters, on one line that is not too long.
fn clean(said: &[u8], secrets: &[Vec<u8>]) -> String {
    let said = String::from_utf8_lossy(&said[..said.len().min(64 * 1024)]);
    let mut safe: Cow<'_, str> = said;
    for secret in secrets {
        if let Some(secret) = std::str::from_utf8(secret).ok().filter(|secret| safe.contains(*secret)) {
            safe = safe.replace(secret, "<REDACTED>").into();
        }
    }
    let mut line: String = safe.chars().map(|c| if c.is_control() { ' ' } else { c }).take(MAX_SAID).collect();
    if line.len() < safe.len() && line.chars().count() == MAX_SAID {
        line.push('…');
    }
    line
}

/// With or without padding: servers write either.
fn decoder() -> GeneralPurpose {
    let config = GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent);
    GeneralPurpose::new(&STANDARD, config)
}

fn name(code: u32) -> &'static str {
    const NAMES: [&str; 17] = [
        "OK",
        "CANCELLED",
        "UNKNOWN",
        "INVALID_ARGUMENT",
        "DEADLINE_EXCEEDED",
        "NOT_FOUND",
        "ALREADY_EXISTS",
        "PERMISSION_DENIED",
        "RESOURCE_EXHAUSTED",
        "FAILED_PRECONDITION",
        "ABORTED",
        "OUT_OF_RANGE",
        "UNIMPLEMENTED",
        "INTERNAL",
        "UNAVAILABLE",
        "DATA_LOSS",
        "UNAUTHENTICATED",
    ];
    usize::try_from(code).ok().and_then(|code| NAMES.get(code)).unwrap_or(&"a status that gRPC does not have")
}

#[cfg(test)]
mod tests {
    use base64::prelude::BASE64_STANDARD_NO_PAD;
    use bytes::Bytes;
    use http::HeaderValue;
    use proto::raw::wire::put_bytes;

    use super::super::wire::put_number;
    use super::*;

    const GRPC: Protocol = Protocol { grpc: true, original: false };
    const HTTP: Protocol = Protocol { grpc: false, original: false };

    fn answer(status: u16, headers: &[(&'static str, &str)], body: Vec<u8>) -> Answer {
        let pair = |(name, value): &(&'static str, &str)| {
            (http::HeaderName::from_static(name), HeaderValue::from_str(value).unwrap())
        };
        Answer {
            status: StatusCode::from_u16(status).unwrap(),
            headers: headers.iter().map(pair).collect(),
            trailers: None,
            body: Bytes::from(body),
        }
    }

    fn taken_in_part(rejected: u64, said: &str) -> Vec<u8> {
        let (mut inner, mut message) = (Vec::new(), Vec::new());
        put_number(&mut inner, 1, rejected);
        put_bytes(&mut inner, 2, said.as_bytes());
        put_bytes(&mut message, 1, &inner);
        message
    }

    fn status(seconds: u64, nanos: u64) -> Vec<u8> {
        let (mut duration, mut info, mut any, mut status) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
        put_number(&mut duration, 1, seconds);
        put_number(&mut duration, 2, nanos);
        put_bytes(&mut info, 1, &duration);
        put_bytes(&mut any, 1, b"type.googleapis.com/google.rpc.RetryInfo");
        put_bytes(&mut any, 2, &info);
        put_number(&mut status, 1, 8);
        put_bytes(&mut status, 2, b"slow\ndown");
        put_bytes(&mut status, 3, &any);
        status
    }

    fn refusal(protocol: Protocol, answer: &Answer) -> (String, bool, bool, Option<u64>) {
        let error = judge(protocol, answer, &[b"canary".to_vec()]).unwrap_err();
        let refusal = Refusal::of(&error).unwrap_or_else(|| panic!("{error}"));
        let wait = refusal.after.map(|wait| u64::try_from(wait.as_millis()).unwrap());
        (error.to_string(), refusal.is_ours(), refusal.needs_a_change(), wait)
    }

    #[test]
    fn what_is_sent_again_over_http_is_in_the_specification() {
        for code in 300..600 {
            let (_, for_good, ..) = refusal(HTTP, &answer(code, &[], Vec::new()));
            let again = matches!(code, 429 | 502 | 503 | 504) || code < 400;
            assert_eq!(for_good, !again, "{code}");
        }
        let asked = refusal(HTTP, &answer(429, &[("retry-after", "7")], Vec::new()));
        assert_eq!(asked.3, Some(7000));
        assert_eq!(refusal(HTTP, &answer(503, &[("retry-after", "3600")], Vec::new())).3, Some(60_000), "at most");
        let body = status(2, 0);
        let told = answer(400, &[("content-type", "application/x-protobuf")], body);
        assert!(refusal(HTTP, &told).0.contains("400 Bad Request: slow down"), "{:?}", refusal(HTTP, &told));
        assert!(refusal(HTTP, &answer(401, &[], Vec::new())).2 && refusal(HTTP, &answer(301, &[], Vec::new())).2);
    }

    #[test]
    fn what_is_sent_again_over_grpc_is_in_the_specification() {
        for code in 1..=17 {
            let given = answer(200, &[("grpc-status", &code.to_string())], Vec::new());
            let (text, for_good, ..) = refusal(GRPC, &given);
            assert_eq!(!for_good, matches!(code, 1 | 4 | 10 | 11 | 14 | 15), "{text}");
            let original = refusal(Protocol { original: true, ..GRPC }, &given);
            assert_eq!(!original.1, code == 14, "contract: agents §3.3");
        }
        for (details, wait) in [(status(1, 500_000_000), 1500), (status(3600, 0), 60_000), (status(u64::MAX, 0), 0)] {
            let text = BASE64_STANDARD_NO_PAD.encode(details);
            let given = answer(200, &[("grpc-status", "8"), ("grpc-status-details-bin", &text)], Vec::new());
            assert_eq!((refusal(GRPC, &given).1, refusal(GRPC, &given).3), (false, Some(wait)), "RetryInfo");
        }
        let said = answer(200, &[("grpc-status", "16"), ("grpc-message", "no%20canary%0Ahere")], Vec::new());
        let (text, for_good, broken, _) = refusal(GRPC, &said);
        assert!(for_good && broken && text.contains("UNAUTHENTICATED (16): no <REDACTED> here"), "{text}");
    }

    #[test]
    fn part_of_a_request_may_be_taken() {
        let said = format!("bad canary {}", "x".repeat(1000));
        let message = taken_in_part(3, &said);
        let framed = [&[0][..], &u32::try_from(message.len()).unwrap().to_be_bytes(), &message].concat();
        let over_grpc = answer(200, &[("grpc-status", "0")], framed.clone());
        for (protocol, given) in [(HTTP, answer(200, &[], message)), (GRPC, over_grpc)] {
            let taken = judge(protocol, &given, &[b"canary".to_vec()]).unwrap();
            assert_eq!(taken.rejected, 3);
            assert!(taken.said.starts_with("bad <REDACTED> x") && taken.said.chars().count() <= MAX_SAID + 1);
        }
        for nonsense in [vec![0xff; 40], framed[..9].to_vec(), Vec::new()] {
            assert_eq!(judge(HTTP, &answer(202, &[], nonsense.clone()), &[]).unwrap(), Accepted::default());
            assert_eq!(judge(GRPC, &answer(200, &[("grpc-status", "0")], nonsense), &[]).unwrap(), Accepted::default());
        }
        let less = taken_in_part(u64::MAX, "");
        assert_eq!(judge(HTTP, &answer(200, &[], less), &[]).unwrap().rejected, 0, "a negative number is none");
    }

    #[test]
    fn what_does_not_speak_grpc_is_told_apart() {
        let error = judge(GRPC, &answer(200, &[("content-type", "text/html")], Vec::new()), &[]).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::InvalidData);
        assert!(error.to_string().contains("does not speak gRPC: it answers 200 OK"), "{error}");
        let proxy = judge(GRPC, &answer(503, &[], Vec::new()), &[]).unwrap_err();
        assert!(!Refusal::of(&proxy).unwrap().is_ours());
    }
}
