//! `/apps/{guid}/recentlogs` and `/apps/{guid}/containermetrics`, for clients that still ask (contract: traffic controller v1 §5): answered
//! from the caches, in the legacy framing.
//!
//! What enters: who asks for which app. What leaves: v1 envelopes, newest first, in one multipart body; or why there are none. Which
//! envelopes become which is decided here, without a socket ([`recent_logs`], [`container_metrics`], [`multipart`]).

use std::collections::BTreeMap;

use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use http::header::CONTENT_TYPE;
use http::{HeaderValue, StatusCode};
use percent_encoding::percent_decode_str;
use prost::Message as _;
use proto::events;
use proto::logcache::v1::{EnvelopeType, ReadRequest};
use proto::v1::{EventType, Payload, to_v1};
use tokio::time::Instant;

use crate::recent::{Cache, DEADLINE, Envelopes, Refusal};

/// Lines without a `limit`, and the most there are with one.
const DEFAULT_LIMIT: i64 = 1000;

/// Gauges that are looked through for the latest of each instance.
const GAUGES: i64 = 1000;

/// What is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Past {
    /// The latest lines, as many as this.
    Logs(i64),
    /// The latest container metric of each instance.
    Metrics,
}

impl Past {
    /// The latest lines, with the limit of a query.
    pub(super) fn logs(query: Option<&str>) -> Self {
        let pairs = query.unwrap_or_default().split('&').filter_map(|pair| pair.split_once('='));
        let limit = pairs.filter(|(key, _)| *key == "limit").map(|(_, value)| percent_decode_str(value)).next();
        let limit = limit.and_then(|value| value.decode_utf8().ok()?.parse().ok());
        let limit = limit.filter(|limit| *limit >= 0).unwrap_or(DEFAULT_LIMIT);
        Self::Logs(limit.min(DEFAULT_LIMIT))
    }
}

/// The answer for `guid`, which the caller may read.
pub(super) async fn answer(cache: &Cache, guid: String, past: Past) -> Response {
    let parts = match past {
        Past::Logs(0) => Ok(Vec::new()),
        Past::Logs(limit) => newest(cache, guid, EnvelopeType::Log, limit).await.map(|all| recent_logs(all.iter())),
        Past::Metrics => {
            newest(cache, guid, EnvelopeType::Gauge, GAUGES).await.map(|all| container_metrics(all.iter()))
        }
    };
    match parts {
        Ok(parts) => {
            let boundary = boundary();
            let content_type = format!("multipart/x-protobuf; boundary={boundary}");
            let content_type = HeaderValue::try_from(content_type).expect("the boundary is hexadecimal");
            ([(CONTENT_TYPE, content_type)], multipart(&parts, &boundary)).into_response()
        }
        Err(refusal) => (StatusCode::INTERNAL_SERVER_ERROR, format!("{refusal}\n")).into_response(),
    }
}

/// Newest first. An answer that would be too large is asked for again with fewer, within the time of one.
async fn newest(cache: &Cache, source_id: String, kind: EnvelopeType, limit: i64) -> Result<Envelopes<'_>, Refusal> {
    let deadline = Instant::now() + DEADLINE;
    let mut request = ReadRequest {
        source_id,
        start_time: i64::MIN,
        limit,
        envelope_types: vec![kind.into()],
        descending: true,
        ..ReadRequest::default()
    };
    loop {
        match cache.page(&request, deadline).await {
            Err(refusal) if refusal.is_too_large() && request.limit > 1 => request.limit = request.limit * 3 / 4,
            answer => return answer,
        }
    }
}

/// Each log message, in the order given.
fn recent_logs<'a>(envelopes: impl Iterator<Item = &'a [u8]>) -> Vec<Bytes> {
    let logs = payloads(envelopes).filter(|payload| payload.event_type == EventType::LogMessage);
    logs.map(|payload| payload.bytes).collect()
}

/// The first container metric of each instance, by instance.
fn container_metrics<'a>(envelopes: impl Iterator<Item = &'a [u8]>) -> Vec<Bytes> {
    let mut first: BTreeMap<i32, Bytes> = BTreeMap::new();
    for payload in payloads(envelopes).filter(|payload| payload.event_type == EventType::ContainerMetric) {
        let metric = events::Envelope::decode(payload.bytes.clone()).ok().and_then(|decoded| decoded.container_metric);
        if let Some(metric) = metric {
            first.entry(metric.instance_index).or_insert(payload.bytes);
        }
    }
    first.into_values().collect()
}

fn payloads<'a>(envelopes: impl Iterator<Item = &'a [u8]>) -> impl Iterator<Item = Payload> {
    envelopes.flat_map(|envelope| {
        let mut payloads = Vec::new();
        // What has no v1 form is not in it.
        let _converted = to_v1(envelope, &mut payloads);
        payloads
    })
}

/// Parts without headers, one after another.
fn multipart(parts: &[Bytes], boundary: &str) -> Vec<u8> {
    let mut body = Vec::with_capacity(parts.iter().map(|part| part.len() + boundary.len() + 8).sum::<usize>() + 80);
    for (i, part) in parts.iter().enumerate() {
        body.extend_from_slice(if i == 0 { b"--" } else { b"\r\n--" });
        body.extend_from_slice(boundary.as_bytes());
        body.extend_from_slice(b"\r\n\r\n");
        body.extend_from_slice(part);
    }
    body.extend_from_slice(b"\r\n--");
    body.extend_from_slice(boundary.as_bytes());
    body.extend_from_slice(b"--\r\n");
    body
}

/// Random, and so long that no log has it by chance.
fn boundary() -> String {
    let mut bytes = [0; 30];
    aws_lc_rs::rand::fill(&mut bytes).expect("the operating system has random bytes");
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use proto::v2;

    use super::*;

    fn encoded(envelopes: impl IntoIterator<Item = v2::Envelope>) -> Vec<Vec<u8>> {
        envelopes.into_iter().map(|envelope| envelope.encode_to_vec()).collect()
    }

    #[test]
    fn a_limit_that_is_none_is_a_thousand() {
        for (query, limit) in [
            (None, 1000),
            (Some("limit=7"), 7),
            (Some("limit=-1"), 1000),
            (Some("limit=x"), 1000),
            (Some("limit=5000"), 1000),
        ] {
            assert_eq!(Past::logs(query), Past::Logs(limit), "{query:?}");
        }
    }

    #[test]
    fn an_error_is_no_log_and_each_instance_has_its_latest_metric() {
        let error = v2::Envelope::log("a", "x").tag("__v1_type", "Error");
        let logs = encoded([v2::Envelope::log("a", "1"), error, v2::Envelope::log("a", "2")]);
        assert_eq!(recent_logs(logs.iter().map(Vec::as_slice)).len(), 2);

        let gauge = |instance: &str, cpu: f64| {
            let mut envelope = v2::Envelope::gauge("a", "cpu", cpu, "percentage").instance(instance);
            if let Some(v2::envelope::Message::Gauge(gauge)) = &mut envelope.message {
                for name in ["memory", "disk", "memory_quota", "disk_quota"] {
                    gauge.metrics.insert(name.to_owned(), v2::GaugeValue { unit: "bytes".to_owned(), value: 1.0 });
                }
            }
            envelope
        };
        let other = v2::Envelope::gauge("a", "temperature", 1.0, "C");
        let gauges = encoded([gauge("1", 5.0), other, gauge("0", 4.0), gauge("1", 3.0)]);
        let metrics = container_metrics(gauges.iter().map(Vec::as_slice));
        let decoded =
            metrics.iter().map(|part| events::Envelope::decode(part.clone()).unwrap().container_metric.unwrap());
        let shown: Vec<_> = decoded.map(|metric| (metric.instance_index, metric.cpu_percentage)).collect();
        assert_eq!(shown, [(0, 4.0), (1, 5.0)]);
    }

    #[test]
    fn parts_have_no_headers() {
        let parts = [Bytes::from_static(b"one"), Bytes::from_static(b"\r\n")];
        assert_eq!(multipart(&parts, "b"), b"--b\r\n\r\none\r\n--b\r\n\r\n\r\n\r\n--b--\r\n");
        assert_eq!(multipart(&[], "b"), b"\r\n--b--\r\n");
    }
}
