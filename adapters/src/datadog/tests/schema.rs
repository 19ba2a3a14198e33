//! What Datadog's documentation says of bodies (contract: syslog drains §7.1, §7.2), written down as checks.
//!
//! Built from the published pages on submitting metrics and sending logs: required fields, types, enums, limits. There is no machine-read
//! schema in it; what it does not say is not checked, but no field that it does not name is let through.

use serde_json::{Map, Value};

use crate::datadog::{Request, Target};

/// Fails unless an object is what its intake takes at that time.
type Check = fn(&Map<String, Value>, i64);

/// Fails unless the body of a request is what its intake takes. Gives the number of objects in it.
pub(super) fn check(request: &Request, text: &str, now: i64) -> usize {
    let body: Value = serde_json::from_str(text).unwrap_or_else(|error| panic!("{error}: {text}"));
    assert_eq!(request.headers[0], ("content-type", "application/json".to_owned()));
    let (objects, check): (_, Check) = match (request.target, request.path) {
        (Target::Series, "/api/v1/series") => (&body["series"], series_v1),
        (Target::Series, "/api/v2/series") => (&body["series"], series_v2),
        (Target::Logs, "/api/v2/logs") => (&body, log),
        other => panic!("{other:?}"),
    };
    if request.target == Target::Series {
        fields(body.as_object().unwrap(), &["series"], &[]);
    }
    let objects = objects.as_array().unwrap();
    assert!(!objects.is_empty());
    objects.iter().for_each(|object| check(object.as_object().unwrap(), now));
    objects.len()
}

fn fields(object: &Map<String, Value>, required: &[&str], optional: &[&str]) {
    for field in required {
        assert!(object.contains_key(*field), "{field} is missing from {object:?}");
    }
    for field in object.keys() {
        assert!(required.contains(&field.as_str()) || optional.contains(&field.as_str()), "{field} in {object:?}");
    }
}

fn series_v2(series: &Map<String, Value>, now: i64) {
    fields(series, &["metric", "points"], &["type", "interval", "resources", "tags", "unit", "source_type_name"]);
    common(series);
    let of = series["type"].as_u64().unwrap();
    assert!(of <= 3, "{of}");
    assert_eq!(series.contains_key("interval"), of == 1 || of == 2, "{series:?}");
    for point in series["points"].as_array().unwrap() {
        let point = point.as_object().unwrap();
        fields(point, &["timestamp", "value"], &[]);
        a_point(&point["timestamp"], &point["value"], now);
    }
    for resource in series.get("resources").map(|all| all.as_array().unwrap().as_slice()).unwrap_or_default() {
        let resource = resource.as_object().unwrap();
        fields(resource, &["type", "name"], &[]);
        assert_eq!(resource["type"], "host");
        not_empty(&resource["name"]);
    }
    if let Some(unit) = series.get("unit") {
        not_empty(unit);
    }
}

fn series_v1(series: &Map<String, Value>, now: i64) {
    fields(series, &["metric", "points"], &["type", "interval", "host", "tags"]);
    common(series);
    let of = series["type"].as_str().unwrap();
    assert!(["count", "rate", "gauge"].contains(&of), "{of}");
    assert_eq!(series.contains_key("interval"), of != "gauge", "{series:?}");
    for point in series["points"].as_array().unwrap() {
        let [at, value] = point.as_array().unwrap().as_slice() else { panic!("{point}") };
        a_point(at, value, now);
    }
    if let Some(host) = series.get("host") {
        not_empty(host);
    }
}

/// What both forms of a series have alike.
fn common(series: &Map<String, Value>) {
    let name = series["metric"].as_str().unwrap();
    assert!(name.len() <= 200 && name.starts_with(|first: char| first.is_ascii_alphabetic()), "{name}");
    assert!(name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_' || byte == b'.'), "{name}");
    assert!(!series["points"].as_array().unwrap().is_empty());
    if let Some(interval) = series.get("interval") {
        assert!(interval.as_u64().unwrap() > 0);
    }
    if let Some(tags) = series.get("tags") {
        tags.as_array().unwrap().iter().for_each(|tag| a_tag(tag.as_str().unwrap()));
    }
}

/// Whole seconds, at most an hour old and ten minutes ahead; a finite number.
fn a_point(at: &Value, value: &Value, now: i64) {
    let age = now - at.as_i64().unwrap() * 1_000_000_000;
    assert!((-600 * 1_000_000_000..=3600 * 1_000_000_000).contains(&age), "{age}");
    assert!(value.as_f64().unwrap().is_finite());
}

fn a_tag(tag: &str) {
    assert!(tag.contains(':') && tag.chars().count() <= 200 && !tag.contains([',', '\n', '\0']), "{tag}");
}

fn not_empty(text: &Value) {
    assert!(!text.as_str().unwrap().is_empty());
}

fn log(entry: &Map<String, Value>, now: i64) {
    fields(entry, &["message"], &["ddsource", "ddtags", "hostname", "service", "status", "timestamp"]);
    assert!(entry["message"].as_str().unwrap().len() <= 1_000_000);
    for field in ["ddsource", "hostname", "service"] {
        if let Some(text) = entry.get(field) {
            not_empty(text);
        }
    }
    if let Some(tags) = entry.get("ddtags") {
        tags.as_str().unwrap().split(',').for_each(a_tag);
    }
    assert!(["info", "error"].contains(&entry["status"].as_str().unwrap()));
    let age = now - entry["timestamp"].as_i64().unwrap() * 1_000_000;
    // Milliseconds are rounded down.
    assert!(age < 18 * 3600 * 1_000_000_000 + 1_000_000, "{age}");
}
