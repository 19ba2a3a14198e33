//! The pipeline's own numbers under the names that an original Loggregator's have (contract: loggregator v2 §15.1), so that dashboards made
//! for that go on working.
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
use tokio::time::{MissedTickBehavior, interval, sleep};
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
            reverse_log_proxy_interval: Duration::from_secs(60),
        }
    }
}

/// Whose numbers, and which.
#[derive(Debug)]
pub(crate) struct Classic {
    source_id: &'static str,
    origin: &'static str,
    numbers: &'static [Number],
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
}

const VERSION: (&str, &str) = ("metric_version", "2.0");

pub(crate) const DOPPLER: Classic = Classic {
    source_id: "doppler",
    origin: "loggregator.doppler",
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

const RLP: Option<(&str, &[&str])> = Some(("queue", &["rlp"]));

const fn counter(
    name: &'static str,
    tags: &'static [(&'static str, &'static str)],
    family: &'static str,
    of: Option<(&'static str, &'static [&'static str])>,
) -> Number {
    Number { name, unit: None, tags, family, of }
}

const fn gauge(name: &'static str, unit: &'static str, family: &'static str) -> Number {
    Number { name, unit: Some(unit), tags: &[VERSION], family, of: None }
}

impl Number {
    /// Its value on a Prometheus text page of our own.
    fn value(&self, page: &str) -> f64 {
        let series = page.lines().filter_map(|line| {
            let (series, value) = line.strip_prefix(self.family)?.rsplit_once(' ')?;
            let counts = match self.of {
                // What goes on is another family's name.
                _ if !(series.is_empty() || series.starts_with('{')) => false,
                None => true,
                Some((label, values)) => labels_of(series.trim_start_matches('{'))
                    .any(|(key, value)| key == label && values.contains(&value)),
            };
            if counts { value.parse::<f64>().ok() } else { None }
        });
        series.sum()
    }

    fn envelope(&self, value: f64, before: f64) -> v2::Envelope {
        match self.unit {
            // Whole, and far below 2^53.
            None => v2::Envelope::counter("", self.name, (value - before).max(0.0) as u64),
            Some(unit) => v2::Envelope::gauge("", self.name, value, unit),
        }
    }
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
    let mut told = vec![0.0; classic.numbers.len()];
    let mut tick = interval(every);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    while stop.run_until_cancelled(tick.tick()).await.is_some() {
        let page = telemetry.render();
        let values: Vec<f64> = classic.numbers.iter().map(|number| number.value(&page)).collect();
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

fn envelopes(classic: &Classic, values: &[f64], told: &[f64]) -> Vec<v2::Envelope> {
    let now = nanos(SystemTime::now().max(UNIX_EPOCH));
    let numbers = classic.numbers.iter().zip(values.iter().zip(told));
    let envelope = |(number, (value, told)): (&Number, (&f64, &f64))| {
        let mut envelope = number.envelope(*value, *told).at(now);
        classic.source_id.clone_into(&mut envelope.source_id);
        let tags = number.tags.iter().copied().chain([("origin", classic.origin)]);
        let text = |text: &str| v2::Value { data: Some(Data::Text(text.to_owned())) };
        envelope.deprecated_tags = tags.map(|(key, value)| (key.to_owned(), text(value))).collect();
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
        let values: Vec<f64> = DOPPLER.numbers.iter().map(|number| number.value(PAGE)).collect();
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
        let all = envelopes(&DOPPLER, &[100.0, 40.0, 1.0, 7.0, 3.0], &[60.0, 40.0, 0.0, 7.0, 9.0]);
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
}
