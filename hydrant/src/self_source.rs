//! The pipeline as its own first source: its log lines, and every ten seconds its metrics, under the source `hydrant`.
//!
//! What enters: log lines from the subscriber's sink, and what each role's `/metrics` would say. What leaves: envelopes, put to the
//! agent in process. It never waits: lines that do not fit its queue are dropped, and the next line says how many.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use agent::Local;
use prost::Message;
use proto::v2;
use telemetry::{LogLine, LogSink, Telemetry};
use tokio::sync::mpsc;
use tokio::time::interval;
use tokio_util::sync::CancellationToken;

/// The source of everything that hydrant says about itself.
pub const SOURCE_ID: &str = "hydrant";

/// Lines waiting to become envelopes.
const LINES: usize = 1_024;

/// Between two looks at the metrics.
const METRICS_INTERVAL: Duration = Duration::from_secs(10);

/// Makes the sink for the log, and the receiver of its lines.
pub fn lines() -> (LogSink, Lines) {
    let (sender, lines) = mpsc::channel(LINES);
    let dropped = Arc::new(AtomicU64::new(0));
    let count = Arc::clone(&dropped);
    let sink: LogSink = Arc::new(move |line| {
        if sender.try_send(line).is_err() {
            count.fetch_add(1, Ordering::Relaxed);
        }
    });
    (sink, Lines { lines, dropped })
}

/// Log lines on their way.
#[derive(Debug)]
pub struct Lines {
    lines: mpsc::Receiver<LogLine>,
    dropped: Arc<AtomicU64>,
}

/// Feeds lines and metrics to the agent until `stop`.
pub async fn run(mut lines: Lines, roles: Vec<(&'static str, Telemetry)>, agent: Local, stop: CancellationToken) {
    let mut taken = Vec::new();
    let mut tick = interval(METRICS_INTERVAL);
    loop {
        tokio::select! {
            () = stop.cancelled() => break,
            count = lines.lines.recv_many(&mut taken, LINES) => {
                if count == 0 {
                    break;
                }
                send(&agent, log_envelopes(&mut taken, &lines.dropped));
            }
            _ = tick.tick() => {
                let now = SystemTime::now();
                send(&agent, roles.iter().flat_map(|(role, telemetry)| metric_envelopes(role, &telemetry.render(), now)).collect());
            }
        }
    }
    while let Ok(line) = lines.lines.try_recv() {
        taken.push(line);
    }
    send(&agent, log_envelopes(&mut taken, &lines.dropped));
}

fn send(agent: &Local, envelopes: Vec<v2::Envelope>) {
    if !envelopes.is_empty() {
        agent.send(v2::EnvelopeBatch { batch: envelopes }.encode_to_vec().into());
    }
}

fn log_envelopes(lines: &mut Vec<LogLine>, dropped: &AtomicU64) -> Vec<v2::Envelope> {
    let mut envelopes: Vec<v2::Envelope> = lines
        .drain(..)
        .map(|line| {
            let envelope = v2::Envelope::log(SOURCE_ID, line.text)
                .at(nanos(line.time))
                .tag("level", line.level.as_str().to_ascii_lowercase())
                .tag("module", line.target)
                .tag("origin", SOURCE_ID)
                .tag("source_type", "HYDRANT");
            if line.level <= tracing::Level::WARN { envelope.err() } else { envelope }
        })
        .collect();
    let lost = dropped.swap(0, Ordering::Relaxed);
    if lost > 0 {
        let text = format!("{lost} lines of hydrant's own log were not taken up: they came faster than they could be");
        envelopes.push(v2::Envelope::log(SOURCE_ID, text).at(nanos(SystemTime::now())).err().tag("origin", SOURCE_ID));
    }
    envelopes
}

pub(crate) fn nanos(time: SystemTime) -> i64 {
    time.duration_since(UNIX_EPOCH).map_or(0, |since| i64::try_from(since.as_nanos()).unwrap_or(i64::MAX))
}

/// Counters and gauges out of a Prometheus text page of our own; histograms are left to Prometheus.
fn metric_envelopes(role: &'static str, page: &str, now: SystemTime) -> Vec<v2::Envelope> {
    let mut kind = ("", "");
    let mut envelopes = Vec::new();
    for line in page.lines() {
        if let Some(of) = line.strip_prefix("# TYPE ") {
            kind = of.split_once(' ').unwrap_or_default();
        } else if !line.starts_with('#')
            && let Some((series, value)) = line.rsplit_once(' ')
        {
            let (name, labels) = series.split_once('{').unwrap_or((series, ""));
            let envelope = match kind {
                (of, "counter") if of == name => value.parse().ok().map(|total| {
                    let mut envelope = v2::Envelope::counter(SOURCE_ID, name, 0);
                    if let Some(v2::envelope::Message::Counter(counter)) = &mut envelope.message {
                        counter.total = total;
                    }
                    envelope
                }),
                (of, "gauge") if of == name => {
                    value.parse().ok().map(|value| v2::Envelope::gauge(SOURCE_ID, name, value, ""))
                }
                _ => None,
            };
            envelopes.extend(envelope.map(|envelope| {
                let tagged = envelope.at(nanos(now)).tag("origin", SOURCE_ID).tag("role", role);
                labels_of(labels).fold(tagged, |envelope, (key, value)| envelope.tag(key, value))
            }));
        }
    }
    envelopes
}

/// `key="value",…}` as pairs. Our own values come from closed lists and hold neither commas nor quotes.
pub(crate) fn labels_of(labels: &str) -> impl Iterator<Item = (&str, &str)> {
    let pairs = labels.trim_end_matches('}').split(',');
    pairs.filter_map(|pair| pair.split_once('=')).map(|(key, value)| (key, value.trim_matches('"')))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counters_and_gauges_become_envelopes_and_histograms_do_not() {
        let telemetry = Telemetry::default();
        telemetry
            .counter("test_envelopes_total", "Test.", &[("stage", "doppler"), ("reason", "oversize")])
            .increment(7);
        telemetry.gauge("test_depth", "Test.", &[]).set(2.5);
        telemetry.histogram("test_wait_seconds", "Test.", &[]).record(0.1);
        let envelopes = metric_envelopes("doppler", &telemetry.render(), UNIX_EPOCH + Duration::from_nanos(5));
        assert_eq!(envelopes.len(), 2, "{envelopes:?}");
        let counter = envelopes.iter().find_map(|envelope| match &envelope.message {
            Some(v2::envelope::Message::Counter(counter)) => Some((envelope, counter)),
            _ => None,
        });
        let (envelope, counter) = counter.expect("a counter");
        assert_eq!((counter.name.as_str(), counter.total, envelope.timestamp), ("test_envelopes_total", 7, 5));
        assert_eq!(envelope.tags.get("reason").map(String::as_str), Some("oversize"));
        assert_eq!(envelope.tags.get("role").map(String::as_str), Some("doppler"));
    }
}
