//! What a log costs on its way into a request to a collector: reading it and writing its log record. Beside it the way over messages: the
//! envelope decoded, and the message types of OTLP filled and encoded.

use std::hint::black_box;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use hydrant_adapters::otlp::{Compression, Encoder, OtlpConfig};
use opentelemetry_proto::tonic::collector::logs::v1::ExportLogsServiceRequest;
use opentelemetry_proto::tonic::common::v1::{AnyValue, InstrumentationScope, KeyValue, any_value::Value};
use opentelemetry_proto::tonic::logs::v1::{LogRecord, ResourceLogs, ScopeLogs};
use opentelemetry_proto::tonic::resource::v1::Resource;
use prost::Message;
use proto::v2;
use ten_tags::envelope;

#[path = "envelopes/ten_tags.rs"]
mod ten_tags;

const NOW: i64 = 1_700_000_000_123_456_789;
/// Logs in a request.
const LOGS: u64 = 1000;

fn pair(key: impl Into<String>, value: impl Into<String>) -> KeyValue {
    let value = Some(AnyValue { value: Some(Value::StringValue(value.into())) });
    KeyValue { key: key.into(), value, ..KeyValue::default() }
}

/// The same request by way of messages.
fn by_messages(envelopes: &[Vec<u8>]) -> Vec<u8> {
    let record = |bytes: &Vec<u8>| {
        let envelope = v2::Envelope::decode(&bytes[..]).ok()?;
        let Some(v2::envelope::Message::Log(log)) = envelope.message else { return None };
        let mut attributes = vec![pair("instance_id", envelope.instance_id), pair("source_id", envelope.source_id)];
        attributes.extend(envelope.tags.into_iter().map(|(key, value)| pair(key, value)));
        Some(LogRecord {
            time_unix_nano: envelope.timestamp.cast_unsigned(),
            observed_time_unix_nano: NOW.cast_unsigned(),
            severity_number: 9,
            severity_text: "INFO".to_owned(),
            body: Some(AnyValue {
                value: Some(Value::StringValue(String::from_utf8_lossy(&log.payload).into_owned())),
            }),
            attributes,
            ..LogRecord::default()
        })
    };
    let log_records = envelopes.iter().filter_map(record).collect();
    let scope = InstrumentationScope { name: "hydrant".to_owned(), version: "0".to_owned(), ..Default::default() };
    let attributes = vec![pair("service.name", "c0ffee00"), pair("service.instance.id", "0")];
    let resource = Resource { attributes, ..Default::default() };
    let scope_logs = vec![ScopeLogs { scope: Some(scope), log_records, ..Default::default() }];
    let resource_logs = vec![ResourceLogs { resource: Some(resource), scope_logs, ..Default::default() }];
    ExportLogsServiceRequest { resource_logs }.encode_to_vec()
}

fn encode(criterion: &mut Criterion) {
    let envelopes: Vec<Vec<u8>> = (0..LOGS).map(|_| envelope().encode_to_vec()).collect();
    let mut group = criterion.benchmark_group("otlp");
    group.throughput(Throughput::Elements(LOGS));
    for (name, compression) in [("logs", Compression::None), ("logs_gzip", Compression::Gzip)] {
        let config = OtlpConfig { compression: Some(compression), ..OtlpConfig::default() };
        let mut encoder = Encoder::new(&config, true);
        group.bench_function(name, |bencher| {
            bencher.iter(|| {
                envelopes.iter().for_each(|envelope| {
                    encoder.put(black_box(envelope), NOW);
                });
                encoder.flush(NOW)
            });
        });
    }
    group.bench_function("logs_by_messages", |bencher| bencher.iter(|| by_messages(black_box(&envelopes))));
    group.finish();
}

criterion_group!(benches, encode);
criterion_main!(benches);
