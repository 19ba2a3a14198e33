//! A series of one flush as JSON objects (contract: syslog drains §7.1).
//!
//! What has happened to a series enters; one object for each of its names leaves, with one point. Tags and host are copied as they were
//! rendered when the series was made.

use super::{Of, Series};
use crate::datadog::body::Bodies;
use crate::datadog::options::Api;
use crate::datadog::text::{put_integer, put_number};

/// What an object has besides names, tags and host, at most: all fields, two numbers and a suffix.
const AROUND: usize = 256;
const SECOND: i64 = 1_000_000_000;
/// In seconds: points that are older, or further ahead, are not taken.
const OLDEST: i64 = 3_600;
const NEWEST: i64 = 600;

/// How objects look.
#[derive(Clone, Copy, Debug)]
pub(super) struct Form {
    pub(super) api: Api,
    /// In seconds, of counts.
    pub(super) interval: u64,
}

/// A number, and the type of metric that it is.
#[derive(Clone, Copy, Debug)]
enum Number {
    Count(u64),
    Gauge(f64),
}

impl Series {
    /// How many series it is for Datadog.
    pub(super) fn width(&self) -> usize {
        self.names.len() * if self.of == Of::Timer { 4 } else { 1 }
    }

    /// The bytes of an object, at most.
    pub(super) fn longest_object(&self) -> usize {
        let name = self.names.iter().map(|name| name.len()).max().unwrap_or_default();
        AROUND + name + self.tags.len() + self.host.len()
    }

    /// Writes the objects, the first of which has the envelopes, and begins anew. Gives the number of points.
    pub(super) fn flush(&mut self, now: i64, form: Form, bodies: &mut Bodies) -> u64 {
        let second = now.div_euclid(SECOND);
        // One second less: `now` is somewhere in its second.
        let (oldest, newest) = (second.saturating_sub(OLDEST - 1), second.saturating_add(NEWEST));
        let at = match self.of {
            Of::Gauge => self.at.div_euclid(SECOND),
            Of::Counter | Of::Timer => second.max(self.sent.saturating_add(1)),
        };
        let at = at.clamp(oldest, newest);
        #[expect(clippy::cast_precision_loss, reason = "Datadog knows no other numbers")]
        let numbers: &[(&str, Number)] = match self.of {
            Of::Counter => &[("", Number::Count(self.count))],
            Of::Gauge => &[("", Number::Gauge(self.value))],
            Of::Timer => &[
                (".count", Number::Count(self.count)),
                (".sum", Number::Gauge(self.value)),
                (".avg", Number::Gauge(self.value / self.count as f64)),
                (".max", Number::Gauge(self.max)),
            ],
        };
        let mut points = 0;
        let mut envelopes = std::mem::take(&mut self.envelopes);
        for name in &self.names {
            for (suffix, number) in numbers {
                // It fits: that was seen to when the series was admitted.
                let envelopes = std::mem::take(&mut envelopes);
                bodies.push(envelopes, |into| self.put(into, form, (name, suffix), at, *number));
                points += 1;
            }
        }
        self.sent = at;
        self.count = 0;
        self.is_active = false;
        points
    }

    fn put(&self, into: &mut Vec<u8>, form: Form, (name, suffix): (&str, &str), at: i64, number: Number) {
        into.extend_from_slice(b"{\"metric\":\"");
        into.extend_from_slice(name.as_bytes());
        into.extend_from_slice(suffix.as_bytes());
        into.push(b'"');
        let is_count = matches!(number, Number::Count(_));
        into.extend_from_slice(match (form.api, is_count) {
            (Api::V1, true) => b",\"type\":\"count\"",
            (Api::V1, false) => b",\"type\":\"gauge\"",
            (Api::V2, true) => b",\"type\":1",
            (Api::V2, false) => b",\"type\":3",
        });
        if is_count {
            into.extend_from_slice(b",\"interval\":");
            put_integer(into, form.interval);
        }
        let [before, between, after]: [&[u8]; 3] = match form.api {
            Api::V1 => [b",\"points\":[[", b",", b"]]"],
            Api::V2 => [b",\"points\":[{\"timestamp\":", b",\"value\":", b"}]"],
        };
        into.extend_from_slice(before);
        put_integer(into, at);
        into.extend_from_slice(between);
        match number {
            Number::Count(count) => put_integer(into, count),
            Number::Gauge(value) => put_number(into, value),
        }
        into.extend_from_slice(after);
        if !self.host.is_empty() {
            let [before, after]: [&[u8]; 2] = match form.api {
                Api::V1 => [b",\"host\":", b""],
                Api::V2 => [b",\"resources\":[{\"type\":\"host\",\"name\":", b"}]"],
            };
            into.extend_from_slice(before);
            into.extend_from_slice(&self.host);
            into.extend_from_slice(after);
        }
        into.extend_from_slice(b",\"tags\":");
        into.extend_from_slice(&self.tags);
        if form.api == Api::V2 && !is_count && !self.unit.is_empty() {
            into.extend_from_slice(b",\"unit\":\"");
            into.extend_from_slice(self.unit.as_bytes());
            into.push(b'"');
        }
        into.push(b'}');
    }
}
