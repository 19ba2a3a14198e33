//! Tests of `drain`.

use std::num::NonZeroUsize;

use diode::fair::{Bounds, Writer};
use prost::Message;
use proto::raw::{Batch, Limits};
use proto::v2;
use telemetry::Telemetry;

use super::*;
use crate::metrics::Metrics;
use crate::retry::Schedule;
use crate::subscribe::Queued;
use crate::syslog::config::Options;
use crate::syslog::encode::Style;

struct Bench {
    ring: Writer<Queued>,
    losses: Arc<Losses>,
    telemetry: Telemetry,
    drain: Drain,
}

/// A drain to a port where nobody listens.
fn bench(schedule: Schedule) -> Bench {
    let size = |n| NonZeroUsize::new(n).unwrap();
    let (ring, reader) = diode::fair::channel(Bounds { envelopes: size(100), bytes: size(1 << 20) });
    let losses = Arc::new(Losses::new(true, String::new()));
    let telemetry = Telemetry::default();
    let metrics = Metrics::register(&telemetry).drain(&telemetry, "test");
    let parts = Parts {
        name: "test".to_owned(),
        url: "syslog://127.0.0.1:1".to_owned(),
        destination: "syslog://127.0.0.1:1".parse().unwrap(),
        trust: None,
        policy: None,
        inlet: Inlet::ring(reader),
        encoder: Encoder::new(&Options::default(), "h", true, Style::default()),
        resend: true,
        retry: Retry::new(schedule, 1),
        losses: Arc::clone(&losses),
        metrics,
    };
    let drain = Drain::new(parts, until());
    Bench { ring, losses, telemetry, drain }
}

fn until() -> Until {
    let (soft, hard, replaced) = (CancellationToken::new(), CancellationToken::new(), CancellationToken::new());
    Until { soft, hard, replaced }
}

fn put(ring: &Writer<Queued>, payloads: &[&'static str]) {
    let batch = payloads.iter().map(|payload| v2::Envelope::log("app", *payload)).collect();
    let bytes = v2::EnvelopeBatch { batch }.encode_to_vec();
    let selection = Batch::check(bytes.into(), &Limits::default()).0.into();
    ring.push(Queued { selection, since: Instant::now(), sent_as: None }, |_, _| panic!("it fits")).unwrap();
}

fn dropped(telemetry: &Telemetry, reason: &str, count: u64) {
    let line = format!("hydrant_dropped_envelopes_total{{stage=\"drain\",reason=\"{reason}\"}} {count}");
    let text = telemetry.render();
    assert!(text.contains(&line), "{line} is missing from\n{text}");
}

#[tokio::test(start_paused = true)]
async fn what_waited_too_long_is_dropped_unsent_and_recorded() {
    let Bench { ring, losses, telemetry, drain } = bench(Schedule::Jittered);
    put(&ring, &["one", "2 messages lost for application app in …"]);
    tokio::time::advance(Duration::from_secs(901)).await;
    ring.close();
    assert_eq!(drain.run().await.drained, Drained::default());
    dropped(&telemetry, "expired", 2);
    let lost = losses.due(Instant::now());
    assert_eq!(lost[0].by_reason, [(Reason::Expired, 1)], "a notice that is lost causes none");
}

/// Whether a connection is refused or the paused clock runs out first: each attempt fails.
#[tokio::test(start_paused = true)]
async fn the_original_schedule_gives_up_one_envelope_after_22_attempts() {
    let Bench { ring, losses, telemetry, drain } = bench(Schedule::Original);
    put(&ring, &["one", "two", "three"]);
    ring.close();
    let begun = Instant::now();
    assert_eq!(drain.run().await.drained, Drained::default());
    assert!(begun.elapsed() >= Duration::from_millis(3 * 121_384), "three full schedules");
    dropped(&telemetry, "retry_exhausted", 3);
    assert_eq!(losses.due(Instant::now())[0].by_reason, [(Reason::RetryExhausted, 3)]);
}

#[tokio::test(start_paused = true)]
async fn an_envelope_in_hand_expires_while_attempts_fail() {
    let Bench { ring, telemetry, drain, .. } = bench(Schedule::Jittered);
    put(&ring, &["one"]);
    ring.close();
    let begun = Instant::now();
    drain.run().await;
    let waited = begun.elapsed();
    assert!(waited >= Duration::from_secs(900) && waited < Duration::from_secs(930), "{waited:?}");
    dropped(&telemetry, "expired", 1);
}
