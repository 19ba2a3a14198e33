//! A process's own numbers as envelopes under an original Loggregator's names.

use proto::v2;
use proto::v2::envelope::Message;
use proto::v2::selector::Message as Select;

use crate::harness::{Process, Producer, next, subscribe};

/// Nobody else's: known before anybody listens there.
const AGENT: &str = "127.0.9.9:34581";

#[tokio::test(flavor = "multi_thread")]
async fn a_doppler_sends_its_numbers_to_an_agent_and_loses_none_while_there_is_none() {
    let mine = Process::start(
        "doppler",
        &format!("self_metrics.agent = \"{AGENT}\"\nself_metrics.doppler_interval = \"200ms\"\n"),
    )
    .await;
    let mut producer = Producer::connect(mine.addr("grpc")).await;
    producer.send((0..300).map(|i| v2::Envelope::log("app", i.to_string())).collect()).await;
    producer.settled().await;

    // Only now is there an agent.
    let other = Process::start("doppler", "").await;
    let selectors = [Select::Counter(v2::CounterSelector::default()), Select::Gauge(v2::GaugeSelector::default())];
    let mut seen = subscribe(other.addr("grpc"), &selectors).await;
    let dopplers = format!("[[agent.dopplers]]\naddresses = [\"{}\"]\n", other.addr("grpc"));
    let variables = [
        ("HYDRANT_AGENT__GRPC__LISTEN", AGENT.to_owned()),
        ("HYDRANT_SELF_METRICS__AGENT_INTERVAL", "200ms".to_owned()),
    ];
    let _agent = Process::start_with("agent", &dopplers, &variables).await;

    let (mut ingress, mut subscriptions, mut sent, mut agents) = (0, None, 300, 0);
    while ingress < 500 || subscriptions.is_none() || agents == 0 {
        for envelope in next(&mut seen).await.unwrap() {
            if envelope.source_id == "metron" {
                // The agent's own.
                assert_eq!(envelope.tags["origin"], "loggregator.metron");
                agents += 1;
                continue;
            }
            assert_eq!(envelope.source_id, "doppler");
            assert_eq!(envelope.tags["origin"], "loggregator.doppler");
            assert_eq!(envelope.tags["metric_version"], "2.0");
            match envelope.message.unwrap() {
                Message::Counter(counter) if counter.name == "ingress" => ingress += counter.delta,
                Message::Counter(counter) if counter.name == "dropped" => {
                    assert!(["ingress", "egress"].contains(&envelope.tags["direction"].as_str()));
                }
                Message::Counter(counter) => assert_eq!(counter.name, "egress"),
                Message::Gauge(gauge) => subscriptions = Some(gauge.metrics["subscriptions"].value),
                other => panic!("{other:?}"),
            }
        }
        assert!(ingress <= sent, "{ingress} told of {sent}");
        if ingress == sent && sent == 300 {
            sent = 500;
            producer.send((0..200).map(|i| v2::Envelope::log("app", i.to_string())).collect()).await;
        }
    }
    assert_eq!((ingress, subscriptions), (500, Some(0.0)));
}
