//! The pipeline's own numbers under the names that an original Loggregator's have (contract: loggregator v2 §15.1), so that dashboards made
//! for that go on working. An original agent is not sent to but scraped (contract: agents §2.4): its numbers look as a scraper would have
//! made them.
//!
//! What enters: what a role's `/metrics` would say. What leaves, at every interval: one envelope per number, zeros included, to an agent.
//! Counters carry what has been added since the last envelope that an agent took; what none took is in the next one. What a traffic
//! controller's consumers lost goes the same way, under names of our own.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use agent::Local;
use anyhow::Context;
use prost::Message as _;
use proto::loss::Loss;
use proto::raw::{Batch, Outgoing, Selection};
use proto::reason::Reason;
use proto::v2;
use proto::v2::ingress_client::IngressClient;
use proto::v2::value::Data;
use serde::{Deserialize, Serialize};
use telemetry::Telemetry;
use tokio::time::{Instant, MissedTickBehavior, interval_at, sleep};
use tokio_util::sync::CancellationToken;
use tonic::transport::Channel;
use tracing::warn;
use traffic_controller::LossLedger;
use transport::{Address, ChannelOptions, Identity, Throttle, TlsFiles, reason};

use crate::self_source::{labels_of, nanos};

/// The `[self_metrics]` table.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct SelfMetricsConfig {
    /// The agent that doppler and traffic controller send their numbers to. Absent: none. `hydrant up` uses its own agent.
    pub agent: Option<Address>,
    /// The certificate to show to it, which must be called `metron`, and the authorities that its certificate must come from. Absent: plain
    /// text.
    pub tls: Option<TlsFiles>,
    /// How often a doppler does; `"5s"`.
    #[serde(with = "transport::duration_text")]
    pub doppler_interval: Duration,
    /// How often an agent puts its own among what it sends; `"15s"`.
    #[serde(with = "transport::duration_text")]
    pub agent_interval: Duration,
    /// How often a reverse log proxy does; `"1m"`.
    #[serde(with = "transport::duration_text")]
    pub reverse_log_proxy_interval: Duration,
}

impl Default for SelfMetricsConfig {
    fn default() -> Self {
        Self {
            agent: None,
            tls: None,
            doppler_interval: Duration::from_secs(5),
            agent_interval: Duration::from_secs(15),
            reverse_log_proxy_interval: Duration::from_secs(60),
        }
    }
}

/// Whose numbers, and which.
#[derive(Debug)]
pub(crate) struct Classic {
    source_id: &'static str,
    origin: &'static str,
    form: Form,
    numbers: &'static [Number],
}

/// How the original's numbers become envelopes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Form {
    /// It sends them: what was added since, tags in the deprecated form.
    Sent,
    /// They are scraped: totals, tags as tags.
    Scraped,
}

/// One number under its classic name, and the families that it is the sum of.
#[derive(Debug)]
struct Number {
    name: &'static str,
    /// A gauge's unit; a counter has none.
    unit: Option<&'static str>,
    tags: &'static [(&'static str, &'static str)],
    family: &'static str,
    /// A label of the family and the values of it that count; without one all series do.
    of: Option<(&'static str, &'static [&'static str])>,
    /// A family whose growth the family's growth is divided by.
    per: Option<&'static str>,
}

const VERSION: (&str, &str) = ("metric_version", "2.0");

pub(crate) const DOPPLER: Classic = Classic {
    source_id: "doppler",
    origin: "loggregator.doppler",
    form: Form::Sent,
    numbers: &[
        counter("ingress", &[VERSION], "hydrant_received_envelopes_total", Some(("stage", &["doppler"]))),
        counter("egress", &[VERSION], "hydrant_delivered_envelopes_total", Some(("stage", &["doppler"]))),
        counter(
            "dropped",
            &[("direction", "ingress"), VERSION],
            "hydrant_dropped_envelopes_total",
            Some(("reason", &["decode_error", "oversize", "too_many", "convert_error"])),
        ),
        counter(
            "dropped",
            &[("direction", "egress"), VERSION],
            "hydrant_dropped_envelopes_total",
            Some(("reason", &["queue_full", "peer_lost", "shutdown_deadline"])),
        ),
        gauge("subscriptions", "subscriptions", "hydrant_subscriptions"),
    ],
};

pub(crate) const REVERSE_LOG_PROXY: Classic = Classic {
    source_id: "reverse_log_proxy",
    origin: "loggregator.rlp",
    form: Form::Sent,
    numbers: &[
        counter("ingress", &[("protocol", "grpc"), VERSION], "hydrant_queue_offered_total", RLP),
        counter("egress", &[VERSION], "hydrant_queue_taken_total", RLP),
        counter("dropped", &[("direction", "egress"), VERSION], "hydrant_queue_evicted_total", RLP),
        counter("rejected_streams", &[VERSION], "hydrant_rlp_rejected_streams_total", None),
        gauge("subscriptions", "total", "hydrant_rlp_subscriptions"),
        counter("log_router_connects", &[], "hydrant_doppler_connects_total", None),
        counter("log_router_disconnects", &[], "hydrant_doppler_disconnects_total", None),
    ],
};

pub(crate) const AGENT: Classic = Classic {
    source_id: "metron",
    origin: "loggregator.metron",
    form: Form::Scraped,
    numbers: &[
        counter("ingress", &[VERSION], "hydrant_source_envelopes_total", NOT_DROPSONDE),
        counter("ingress", &[VERSION_1], "hydrant_source_envelopes_total", DROPSONDE),
        counter("egress", &[VERSION], "hydrant_delivered_envelopes_total", Some(("stage", &["agent"]))),
        counter(
            "dropped",
            &[("direction", "ingress"), VERSION],
            "hydrant_dropped_envelopes_total",
            Some(("reason", &["queue_full", "rate_limited", "cardinality", "decode_error", "oversize", "too_many"])),
        ),
        counter(
            "dropped",
            &[("direction", "egress"), VERSION],
            "hydrant_dropped_envelopes_total",
            Some(("reason", &["shutdown_deadline"])),
        ),
        counter("dropped", &[("direction", "all"), VERSION_1], "hydrant_source_refused_total", DROPSONDE),
        counter("origin_mappings", &[("unit", "bytes/minute"), VERSION], "hydrant_origin_mappings_total", None),
        Number {
            per: Some("hydrant_received_envelopes_total"),
            ..gauge_of(
                "average_envelopes",
                "bytes/minute",
                &[("loggregator", "v2"), VERSION],
                "hydrant_received_bytes_total",
            )
        },
        gauge("doppler_connections", "", "hydrant_links"),
        gauge("doppler_v2_streams", "", "hydrant_links"),
    ],
};

const VERSION_1: (&str, &str) = ("metric_version", "1.0");
const DROPSONDE: Option<(&str, &[&str])> = Some(("source", &["dropsonde"]));
const NOT_DROPSONDE: Option<(&str, &[&str])> = Some(("source", SOURCES));
/// What an agent's fronts are called, but for dropsonde's.
const SOURCES: &[&str] = &["hydrant", "grpc", "statsd", "nats", "syslog", "files", "scrape", "host", "containers"];

const RLP: Option<(&str, &[&str])> = Some(("queue", &["rlp"]));

const fn counter(
    name: &'static str,
    tags: &'static [(&'static str, &'static str)],
    family: &'static str,
    of: Option<(&'static str, &'static [&'static str])>,
) -> Number {
    Number { name, unit: None, tags, family, of, per: None }
}

const fn gauge(name: &'static str, unit: &'static str, family: &'static str) -> Number {
    gauge_of(name, unit, &[VERSION], family)
}

const fn gauge_of(
    name: &'static str,
    unit: &'static str,
    tags: &'static [(&'static str, &'static str)],
    family: &'static str,
) -> Number {
    Number { name, unit: Some(unit), tags, family, of: None, per: None }
}

/// A number as a page has it, and what it is divided by.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
struct Reading {
    value: f64,
    per: f64,
}

impl Number {
    /// What a Prometheus text page of our own says of it.
    fn reading(&self, page: &str) -> Reading {
        Reading { value: sum(page, self.family, self.of), per: self.per.map_or(0.0, |family| sum(page, family, None)) }
    }

    fn envelope(&self, form: Form, now: Reading, before: Reading) -> v2::Envelope {
        match (self.unit, form) {
            // Whole, and far below 2^53.
            (None, Form::Sent) => v2::Envelope::counter("", self.name, (now.value - before.value).max(0.0) as u64),
            (None, Form::Scraped) => {
                let message = v2::Counter { name: self.name.to_owned(), delta: 0, total: now.value as u64 };
                v2::Envelope { message: Some(v2::envelope::Message::Counter(message)), ..v2::Envelope::default() }
            }
            (Some(unit), _) if self.per.is_some() => {
                let (grown, by) = (now.value - before.value, now.per - before.per);
                v2::Envelope::gauge("", self.name, if by > 0.0 { grown / by } else { 0.0 }, unit)
            }
            (Some(unit), _) => v2::Envelope::gauge("", self.name, now.value, unit),
        }
    }
}

/// The sum of the series of `family` that count.
fn sum(page: &str, family: &str, of: Option<(&str, &[&str])>) -> f64 {
    let series = page.lines().filter_map(|line| {
        let (series, value) = line.strip_prefix(family)?.rsplit_once(' ')?;
        let counts = match of {
            // What goes on is another family's name.
            _ if !(series.is_empty() || series.starts_with('{')) => false,
            None => true,
            Some((label, values)) => {
                labels_of(series.trim_start_matches('{')).any(|(key, value)| key == label && values.contains(&value))
            }
        };
        if counts { value.parse::<f64>().ok() } else { None }
    });
    series.sum()
}

/// Where the envelopes go.
#[derive(Clone)]
pub(crate) enum Sink {
    /// The agent in this process.
    Local(Box<Local>),
    /// One behind a connection.
    Agent(Channel),
}

impl Sink {
    /// The agent that a configuration names; `None` where it names none.
    ///
    /// # Errors
    /// A certificate file cannot be used.
    pub(crate) fn of(config: &SelfMetricsConfig) -> anyhow::Result<Option<Self>> {
        let Some(agent) = &config.agent else { return Ok(None) };
        let options = match &config.tls {
            None => ChannelOptions::default(),
            Some(files) => ChannelOptions::tls(Identity::load(files).context("self_metrics.tls")?, "metron"),
        };
        Ok(Some(Self::Agent(transport::channel(agent, &options))))
    }

    /// Whether the agent has taken them.
    async fn send(&self, batch: Vec<v2::Envelope>) -> bool {
        static AWAY: Throttle = Throttle::every(Duration::from_secs(60));
        let batch = v2::EnvelopeBatch { batch }.encode_to_vec().into();
        match self {
            Self::Local(agent) => {
                agent.send(batch);
                true
            }
            Self::Agent(channel) => {
                let batch = Outgoing::from(Selection::from(Batch::index(batch).0));
                let sent = IngressClient::new(channel.clone()).send(batch).await;
                if let Err(status) = &sent
                    && let Some(suppressed) = AWAY.pass()
                {
                    warn!(error = reason(status), suppressed, "The agent does not take this process's own metrics");
                }
                sent.is_ok()
            }
        }
    }
}

/// Sends the numbers of a role at every interval until `stop`.
pub(crate) async fn run(classic: Classic, telemetry: Telemetry, sink: Sink, every: Duration, stop: CancellationToken) {
    let mut told = vec![Reading::default(); classic.numbers.len()];
    // A scraper comes after its first interval.
    let first = if classic.form == Form::Scraped { every } else { Duration::ZERO };
    let mut tick = interval_at(Instant::now() + first, every);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    while stop.run_until_cancelled(tick.tick()).await.is_some() {
        let page = telemetry.render();
        let values: Vec<Reading> = classic.numbers.iter().map(|number| number.reading(&page)).collect();
        let batch = envelopes(&classic, &values, &told);
        if stop.run_until_cancelled(sink.send(batch)).await == Some(true) {
            told = values;
        }
    }
}

/// Between two tellings of losses.
const TELL_LOSSES: Duration = Duration::from_secs(10);
/// Losses told one by one at a time; the rest is summed up. As many wait while no agent takes them.
const TOLD: usize = 1_000;

/// Tells what a traffic controller's rings dropped, as counters of the source `hydrant`, and at once whom it has cut, until `stop`.
pub(crate) async fn tell_losses(ledger: LossLedger, sink: Sink, stop: CancellationToken) {
    let mut waiting: Vec<(String, Loss)> = Vec::new();
    loop {
        let due = async {
            tokio::select! {
                () = sleep(TELL_LOSSES) => waiting.extend(ledger.take()),
                () = ledger.event() => {}
            }
        };
        if stop.run_until_cancelled(due).await.is_none() {
            return;
        }
        sum_up(&mut waiting);
        let now = nanos(SystemTime::now());
        let told = waiting.iter().map(|(consumer, loss)| loss.ledger("traffic_controller", consumer, now));
        // An event is told once, whether an agent takes it or not: it is in the log too.
        let told: Vec<_> = told.chain(ledger.take_events()).collect();
        if !told.is_empty() && stop.run_until_cancelled(sink.send(told)).await == Some(true) {
            waiting.clear();
        }
    }
}

/// Keeps the details of [`TOLD`] losses; the others become one, of nobody in particular.
fn sum_up(losses: &mut Vec<(String, Loss)>) {
    if losses.len() > TOLD {
        let envelopes = losses.drain(TOLD..).map(|(_, loss)| loss.envelopes).sum();
        losses.push((String::new(), Loss { envelopes, ..Loss::unknown(Reason::QueueFull) }));
    }
}

fn envelopes(classic: &Classic, values: &[Reading], told: &[Reading]) -> Vec<v2::Envelope> {
    let now = nanos(SystemTime::now().max(UNIX_EPOCH));
    let numbers = classic.numbers.iter().zip(values.iter().zip(told));
    let envelope = |(number, (value, told)): (&Number, (&Reading, &Reading))| {
        let mut envelope = number.envelope(classic.form, *value, *told).at(now);
        classic.source_id.clone_into(&mut envelope.source_id);
        let tags = number.tags.iter().copied().chain([("origin", classic.origin)]);
        let text = |text: &str| v2::Value { data: Some(Data::Text(text.to_owned())) };
        match classic.form {
            Form::Sent => {
                envelope.deprecated_tags = tags.map(|(key, value)| (key.to_owned(), text(value))).collect();
            }
            Form::Scraped => {
                envelope.tags = tags.map(|(key, value)| (key.to_owned(), value.to_owned())).collect();
            }
        }
        envelope
    };
    numbers.map(envelope).collect()
}

#[cfg(test)]
mod tests {
    use proto::v2::envelope::Message;

    use super::*;

    const PAGE: &str = "\
# TYPE hydrant_dropped_envelopes_total counter
hydrant_dropped_envelopes_total{stage=\"doppler\",reason=\"queue_full\"} 5
hydrant_dropped_envelopes_total{stage=\"doppler\",reason=\"peer_lost\"} 2
hydrant_dropped_envelopes_total{stage=\"doppler\",reason=\"oversize\"} 1
hydrant_subscriptions 3
hydrant_subscriptions_else 9
hydrant_received_envelopes_total{stage=\"doppler\"} 100
hydrant_received_envelopes_total{stage=\"cache\"} 7
";

    #[test]
    fn numbers_are_sums_of_the_series_that_they_name() {
        let values: Vec<f64> = DOPPLER.numbers.iter().map(|number| number.reading(PAGE).value).collect();
        assert_eq!(values, [100.0, 0.0, 1.0, 7.0, 3.0]);
    }

    #[test]
    fn losses_beyond_a_thousand_are_summed_up_to_the_envelope() {
        let loss = |i: usize| (format!("#{i}"), Loss { envelopes: i as u64, ..Loss::unknown(Reason::QueueFull) });
        let total: u64 = (0..TOLD as u64 + 3).sum();
        let mut losses: Vec<_> = (0..TOLD + 3).map(loss).collect();
        // Once more changes nothing: what has been summed up is summed up with what comes.
        for _ in 0..2 {
            sum_up(&mut losses);
            assert_eq!(losses.len(), TOLD + 1);
            assert_eq!(losses.iter().map(|(_, loss)| loss.envelopes).sum::<u64>(), total);
            assert_eq!(losses.last().unwrap().0, "");
        }
        losses.truncate(5);
        sum_up(&mut losses);
        assert_eq!(losses.len(), 5);
    }

    #[test]
    fn counters_are_what_was_added_since_and_zeros_are_sent_too() {
        let [now, before] = [[100.0, 40.0, 1.0, 7.0, 3.0], [60.0, 40.0, 0.0, 7.0, 9.0]]
            .map(|values| values.map(|value| Reading { value, per: 0.0 }));
        let all = envelopes(&DOPPLER, &now, &before);
        let found: Vec<_> = all
            .iter()
            .map(|envelope| match envelope.message.as_ref().unwrap() {
                Message::Counter(counter) => (counter.name.as_str(), counter.delta, counter.total),
                Message::Gauge(gauge) => {
                    let (name, value) = gauge.metrics.iter().next().unwrap();
                    assert_eq!((value.unit.as_str(), value.value), ("subscriptions", 3.0));
                    (name.as_str(), 0, 0)
                }
                other => panic!("{other:?}"),
            })
            .collect();
        let expected =
            [("ingress", 40, 0), ("egress", 0, 0), ("dropped", 1, 0), ("dropped", 0, 0), ("subscriptions", 0, 0)];
        assert_eq!(found, expected);
        let text = |text: &str| Some(v2::Value { data: Some(Data::Text(text.to_owned())) });
        let dropped = &all[2];
        assert_eq!((dropped.source_id.as_str(), dropped.instance_id.as_str()), ("doppler", ""));
        for (key, value) in [("origin", "loggregator.doppler"), ("direction", "ingress"), ("metric_version", "2.0")] {
            assert_eq!(dropped.deprecated_tags.get(key).cloned(), text(value), "{key}");
        }
        assert!(dropped.tags.is_empty());
    }

    #[test]
    fn an_agents_numbers_are_as_a_scraper_makes_them() {
        let page = "\
hydrant_source_envelopes_total{source=\"grpc\"} 40
hydrant_source_envelopes_total{source=\"dropsonde\"} 2
hydrant_received_envelopes_total{stage=\"agent\"} 50
hydrant_received_bytes_total{stage=\"agent\"} 9000
";
        let now: Vec<Reading> = AGENT.numbers.iter().map(|number| number.reading(page)).collect();
        let mut before = vec![Reading::default(); now.len()];
        before[7] = Reading { value: 8_000.0, per: 45.0 };
        let all = envelopes(&AGENT, &now, &before);
        let Some(Message::Counter(ingress)) = &all[0].message else { panic!("{:?}", all[0]) };
        assert_eq!((ingress.name.as_str(), ingress.delta, ingress.total), ("ingress", 0, 40));
        assert_eq!(all[1].tags["metric_version"], "1.0");
        assert_eq!(all[1].tags["origin"], "loggregator.metron");
        assert!(all.iter().all(|envelope| envelope.deprecated_tags.is_empty() && envelope.source_id == "metron"));
        let Some(Message::Gauge(average)) = &all[7].message else { panic!("{:?}", all[7]) };
        assert_eq!(average.metrics["average_envelopes"].value, 200.0);
        assert_eq!(average.metrics["average_envelopes"].unit, "bytes/minute");
    }
}
