//! Parameters of log-cache requests: how they are written, and what is said of those that are wrong.
//!
//! Pure. What enters: an escaped path and `key=value` pairs. What leaves: requests for dopplers, or the error text that clients of the
//! original know (contract `log-cache.md` §2). Unknown keys are ignored.

use std::fmt::Debug;
use std::num::IntErrorKind;

use percent_encoding::percent_decode_str;
use proto::logcache::v1;
use proto::logcache::v1::EnvelopeType;

use super::MAX_SOURCE_ID;
use super::error::Refusal;

/// Appends the pairs of a query or of a form.
///
/// # Errors
/// A broken escape, or a semicolon where only `&` separates.
pub(super) fn parse(text: &str, into: &mut Vec<(String, String)>) -> Result<(), Refusal> {
    for pair in text.split('&').filter(|pair| !pair.is_empty()) {
        if pair.contains(';') {
            return Err(Refusal::Parameter("invalid semicolon separator in query".to_owned()));
        }
        let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
        into.push((unescape(&key.replace('+', " "))?, unescape(&value.replace('+', " "))?));
    }
    Ok(())
}

/// The request of `/api/v1/read/{source_id}`.
///
/// # Errors
/// The first parameter that cannot be used.
pub(super) fn read(escaped_id: &str, params: &[(String, String)]) -> Result<v1::ReadRequest, Refusal> {
    let source_id = unescape(escaped_id)?;
    if source_id.len() > MAX_SOURCE_ID {
        return Err(Refusal::Parameter(format!("source_id is longer than {MAX_SOURCE_ID} bytes")));
    }
    let mut request = v1::ReadRequest { source_id, ..v1::ReadRequest::default() };
    for (key, values) in grouped(params) {
        match key {
            "start_time" | "startTime" => request.start_time = integer("start_time", &values)?,
            "end_time" | "endTime" => request.end_time = integer("end_time", &values)?,
            "limit" => request.limit = integer("limit", &values)?,
            "descending" => request.descending = boolean("descending", &values)?,
            "name_filter" | "nameFilter" => single("name_filter", &values)?.clone_into(&mut request.name_filter),
            "text" => single("text", &values)?.clone_into(&mut request.text),
            "text_regex" => single("text_regex", &values)?.clone_into(&mut request.text_regex),
            "envelope_types" | "envelopeTypes" => {
                for value in values {
                    request.envelope_types.push(envelope_type(value)?);
                }
            }
            _ => {}
        }
    }
    Ok(request)
}

/// The request of `/api/v1/meta`.
///
/// # Errors
/// As [`read`].
pub(super) fn meta(params: &[(String, String)]) -> Result<v1::MetaRequest, Refusal> {
    let mut request = v1::MetaRequest::default();
    for (key, values) in grouped(params) {
        match key {
            "local_only" | "localOnly" => request.local_only = boolean("local_only", &values)?,
            "details" => request.details = boolean("details", &values)?,
            "after" => single("after", &values)?.clone_into(&mut request.after),
            "limit" => {
                let limit = integer("limit", &values)?;
                request.limit = u32::try_from(limit)
                    .map_err(|_| unparsable("limit", "ParseUint", &limit.to_string(), "value out of range"))?;
            }
            _ => {}
        }
    }
    Ok(request)
}

/// Values by key, in order of first appearance.
fn grouped(params: &[(String, String)]) -> Vec<(&str, Vec<&str>)> {
    let mut groups: Vec<(&str, Vec<&str>)> = Vec::new();
    for (key, value) in params {
        match groups.iter_mut().find(|(known, _)| known == key) {
            Some((_, values)) => values.push(value),
            None => groups.push((key, vec![value])),
        }
    }
    groups
}

fn single<'a>(field: &str, values: &[&'a str]) -> Result<&'a str, Refusal> {
    match values {
        [value] => Ok(value),
        _ => Err(Refusal::Parameter(format!("too many values for field \"{field}\": {}", values.join(", ")))),
    }
}

fn integer(field: &str, values: &[&str]) -> Result<i64, Refusal> {
    let value = single(field, values)?;
    value.parse().map_err(|error: std::num::ParseIntError| {
        let what = match error.kind() {
            IntErrorKind::PosOverflow | IntErrorKind::NegOverflow => "value out of range",
            _ => "invalid syntax",
        };
        unparsable(field, "ParseInt", &value, what)
    })
}

fn boolean(field: &str, values: &[&str]) -> Result<bool, Refusal> {
    let value = single(field, values)?;
    match value {
        "1" | "t" | "T" | "true" | "TRUE" | "True" => Ok(true),
        "0" | "f" | "F" | "false" | "FALSE" | "False" => Ok(false),
        _ => Err(unparsable(field, "ParseBool", &value, "invalid syntax")),
    }
}

fn unparsable(field: &str, function: &str, value: &impl Debug, what: &str) -> Refusal {
    Refusal::Parameter(format!("parsing field \"{field}\": strconv.{function}: parsing {value:?}: {what}"))
}

/// By its upper-case name or by its number.
fn envelope_type(value: &str) -> Result<i32, Refusal> {
    let by_number = || value.parse().ok().and_then(|number: i32| EnvelopeType::try_from(number).ok());
    let known = EnvelopeType::from_str_name(value).or_else(by_number);
    known
        .map(i32::from)
        .ok_or_else(|| Refusal::Parameter(format!("parsing list \"envelope_types\": {value:?} is not a valid value")))
}

/// Undoes percent escapes, once.
pub(crate) fn unescape(text: &str) -> Result<String, Refusal> {
    for (at, _) in text.match_indices('%') {
        let escape = text.as_bytes().get(at..(at + 3).min(text.len())).unwrap_or_default();
        if !(escape.len() == 3 && escape[1..].iter().all(u8::is_ascii_hexdigit)) {
            let escape: String = text[at..].chars().take(3).collect();
            return Err(Refusal::Parameter(format!("invalid URL escape {escape:?}")));
        }
    }
    let decoded = percent_decode_str(text).decode_utf8();
    decoded.map(Into::into).map_err(|_| Refusal::Parameter("text is not UTF-8".to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn params(text: &str) -> Result<Vec<(String, String)>, String> {
        let mut params = Vec::new();
        parse(text, &mut params).map(|()| params).map_err(|error| error.to_string())
    }

    fn request(text: &str) -> Result<v1::ReadRequest, String> {
        read("a%2Fb/c", &params(text)?).map_err(|error| error.to_string())
    }

    #[test]
    fn everything_that_can_be_said() {
        let text = "start_time=-5&endTime=%2B7&limit=3&envelope_types=LOG&envelope_types=5&descending=T&name_filter=a%2Bb+c&&x";
        let expected = v1::ReadRequest {
            source_id: "a/b/c".to_owned(),
            start_time: -5,
            end_time: 7,
            limit: 3,
            envelope_types: vec![1, 5],
            descending: true,
            name_filter: "a+b c".to_owned(),
            ..v1::ReadRequest::default()
        };
        assert_eq!(request(text), Ok(expected));
        assert_eq!(request("name_filter=").unwrap().name_filter, "");
        let beyond = request("text=a%20b&text_regex=%5Ea").unwrap();
        assert_eq!((beyond.text.as_str(), beyond.text_regex.as_str()), ("a b", "^a"));
    }

    #[test]
    fn escapes_are_undone_once() {
        assert_eq!(read("a%252Fb", &[]).unwrap().source_id, "a%2Fb");
        assert_eq!(read("a+b", &[]).unwrap().source_id, "a+b", "a plus is a space in a query only");
        assert_eq!(read("%C3%A4", &[]).unwrap().source_id, "ä");
    }

    #[test]
    fn what_is_wrong_is_said_in_known_words() {
        assert_eq!(params("limit=%zz").unwrap_err(), "invalid URL escape \"%zz\"");
        assert_eq!(params("limit=%4").unwrap_err(), "invalid URL escape \"%4\"");
        assert_eq!(params("a=1;b=2").unwrap_err(), "invalid semicolon separator in query");
        let too_many = "too many values for field \"limit\": 1, 2";
        assert_eq!(request("limit=1&limit=2").unwrap_err(), too_many);
        let syntax = "parsing field \"limit\": strconv.ParseInt: parsing \"\": invalid syntax";
        assert_eq!(request("limit=").unwrap_err(), syntax);
        assert!(request("start_time=-9223372036854775809").unwrap_err().ends_with("value out of range"));
        assert_eq!(
            request("envelope_types=LOG,EVENT").unwrap_err(),
            "parsing list \"envelope_types\": \"LOG,EVENT\" is not a valid value"
        );
        assert!(
            read("%ff", &[]).is_err() && read(&"x".repeat(257), &[]).is_err() && read(&"x".repeat(256), &[]).is_ok()
        );
    }
}
