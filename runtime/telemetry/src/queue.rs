//! The numbers that every queue and every stage reports, under the same names in every role.
//!
//! What enters: a queue's own counts, looked at when somebody asks for `/metrics`, and a stage's counts per batch. The names and
//! the law they obey are those of the accounting: `offered = accepted + rejected`, `accepted = taken + evicted + depth`.

use metrics::{Counter, Gauge};

use crate::registry::Telemetry;

/// What went through a queue and what is in it, at one moment. All but `bytes` count envelopes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct QueueNumbers {
    /// Put to the queue.
    pub offered: u64,
    /// Put in.
    pub accepted: u64,
    /// Turned away.
    pub rejected: u64,
    /// Taken out by the reader.
    pub taken: u64,
    /// Made to leave for others, or left behind by a reader that went away.
    pub evicted: u64,
    /// In the queue now.
    pub envelopes: usize,
    /// Bytes that the queue keeps alive now.
    pub bytes: usize,
}

impl std::ops::AddAssign for QueueNumbers {
    fn add_assign(&mut self, other: Self) {
        self.offered += other.offered;
        self.accepted += other.accepted;
        self.rejected += other.rejected;
        self.taken += other.taken;
        self.evicted += other.evicted;
        self.envelopes += other.envelopes;
        self.bytes += other.bytes;
    }
}

/// The `hydrant_queue_*` families of one queue, or of all queues of one kind together.
#[derive(Clone, Debug)]
pub struct QueueMetrics {
    offered: Counter,
    accepted: Counter,
    rejected: Counter,
    taken: Counter,
    evicted: Counter,
    envelopes: Gauge,
    bytes: Gauge,
}

impl QueueMetrics {
    /// Registers the families for `queue`, a name out of a closed list such as `"agent"` or `"subscription"`.
    pub fn register(telemetry: &Telemetry, queue: &'static str) -> Self {
        let label = &[("queue", queue)];
        Self {
            offered: telemetry.counter("hydrant_queue_offered_total", "Envelopes put to a queue.", label),
            accepted: telemetry.counter("hydrant_queue_accepted_total", "Envelopes that a queue took in.", label),
            rejected: telemetry.counter("hydrant_queue_rejected_total", "Envelopes that a queue turned away.", label),
            taken: telemetry.counter("hydrant_queue_taken_total", "Envelopes that a queue's reader took out.", label),
            evicted: telemetry.counter(
                "hydrant_queue_evicted_total",
                "Envelopes that left a queue other than through its reader; why is among the dropped.",
                label,
            ),
            envelopes: telemetry.gauge("hydrant_queue_depth_envelopes", "Envelopes in a queue.", label),
            bytes: telemetry.gauge("hydrant_queue_depth_bytes", "Bytes that a queue keeps alive.", label),
        }
    }

    /// Reports the queue's numbers as they are `now`. Call it from [`Telemetry::before_render`].
    pub fn report(&self, now: QueueNumbers) {
        self.offered.absolute(now.offered);
        self.accepted.absolute(now.accepted);
        self.rejected.absolute(now.rejected);
        self.taken.absolute(now.taken);
        self.evicted.absolute(now.evicted);
        #[expect(clippy::cast_precision_loss, reason = "a depth is far below 2^52")]
        {
            self.envelopes.set(now.envelopes as f64);
            self.bytes.set(now.bytes as f64);
        }
    }
}

/// What one stage has counted, as `/metrics` would say.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct StageNumbers {
    /// Envelopes that reached it.
    pub received: u64,
    /// Envelopes that went on.
    pub delivered: u64,
    /// Envelopes that did not, by reason; reasons that never came up are left out.
    pub dropped: Vec<(String, u64)>,
}

impl StageNumbers {
    /// What `telemetry` has of `stage`. Renders the whole page: for people who look, not for every envelope.
    pub fn of(telemetry: &Telemetry, stage: &str) -> Self {
        let mut numbers = Self::default();
        let label = format!("stage=\"{stage}\"");
        for line in telemetry.render().lines() {
            let Some((series, value)) = line.rsplit_once(' ') else { continue };
            let Some((family, labels)) = series.trim_end_matches('}').split_once('{') else { continue };
            let Some(rest) = labels.strip_prefix(&label) else { continue };
            let Ok(value) = value.parse::<u64>() else { continue };
            match family {
                "hydrant_received_envelopes_total" => numbers.received = value,
                "hydrant_delivered_envelopes_total" => numbers.delivered = value,
                "hydrant_dropped_envelopes_total" if value > 0 => {
                    let reason = rest.trim_start_matches(",reason=").trim_matches('"');
                    numbers.dropped.push((reason.to_owned(), value));
                }
                _ => {}
            }
        }
        numbers
    }
}

/// What one stage received, delivered and dropped.
#[derive(Clone, Debug)]
pub struct StageMetrics {
    received: Counter,
    delivered: Counter,
    dropped: Vec<(&'static str, Counter)>,
}

impl StageMetrics {
    /// Registers the families for `stage`, with the reasons for which it may drop.
    pub fn register(telemetry: &Telemetry, stage: &'static str, reasons: &[&'static str]) -> Self {
        let label = &[("stage", stage)];
        let dropped = |reason: &'static str| {
            let labels = &[("stage", stage), ("reason", reason)];
            let help = "Envelopes that did not go on, by the stage that dropped them and why.";
            (reason, telemetry.counter("hydrant_dropped_envelopes_total", help, labels))
        };
        Self {
            received: telemetry.counter(
                "hydrant_received_envelopes_total",
                "Envelopes that reached a stage, those it refused included.",
                label,
            ),
            delivered: telemetry.counter(
                "hydrant_delivered_envelopes_total",
                "Envelopes that a stage handed to the next hop or to a consumer.",
                label,
            ),
            dropped: reasons.iter().copied().map(dropped).collect(),
        }
    }

    /// Counts envelopes that reached the stage.
    pub fn received(&self, envelopes: u64) {
        self.received.increment(envelopes);
    }

    /// Counts envelopes that went on.
    pub fn delivered(&self, envelopes: u64) {
        self.delivered.increment(envelopes);
    }

    /// Counts envelopes that did not.
    ///
    /// # Panics
    /// In debug builds, when `reason` was not registered: any test that meets it fails.
    pub fn dropped(&self, reason: &'static str, envelopes: u64) {
        let counter = self.dropped.iter().find(|(known, _)| *known == reason);
        debug_assert!(counter.is_some(), "reason {reason:?} is not registered for this stage");
        if let Some((_, counter)) = counter {
            counter.increment(envelopes);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_queue_reports_its_numbers_when_asked() {
        let telemetry = Telemetry::default();
        let queue = QueueMetrics::register(&telemetry, "test");
        telemetry.before_render(move || {
            queue.report(QueueNumbers {
                offered: 7,
                accepted: 6,
                rejected: 1,
                taken: 3,
                evicted: 2,
                envelopes: 1,
                bytes: 40,
            });
        });
        let text = telemetry.render();
        for line in [
            "hydrant_queue_offered_total{queue=\"test\"} 7",
            "hydrant_queue_accepted_total{queue=\"test\"} 6",
            "hydrant_queue_rejected_total{queue=\"test\"} 1",
            "hydrant_queue_taken_total{queue=\"test\"} 3",
            "hydrant_queue_evicted_total{queue=\"test\"} 2",
            "hydrant_queue_depth_envelopes{queue=\"test\"} 1",
            "hydrant_queue_depth_bytes{queue=\"test\"} 40",
        ] {
            assert!(text.contains(line), "{line} is missing from\n{text}");
        }
    }

    #[test]
    fn a_stage_counts_drops_by_reason() {
        let telemetry = Telemetry::default();
        let stage = StageMetrics::register(&telemetry, "test", &["oversize", "queue_full"]);
        stage.received(5);
        stage.delivered(3);
        stage.dropped("oversize", 2);
        let text = telemetry.render();
        assert!(text.contains("hydrant_received_envelopes_total{stage=\"test\"} 5"), "{text}");
        assert!(text.contains("hydrant_delivered_envelopes_total{stage=\"test\"} 3"), "{text}");
        assert!(text.contains("hydrant_dropped_envelopes_total{stage=\"test\",reason=\"oversize\"} 2"), "{text}");
        assert!(text.contains("hydrant_dropped_envelopes_total{stage=\"test\",reason=\"queue_full\"} 0"), "{text}");
        let dropped = vec![("oversize".to_owned(), 2)];
        assert_eq!(StageNumbers::of(&telemetry, "test"), StageNumbers { received: 5, delivered: 3, dropped });
        assert_eq!(StageNumbers::of(&telemetry, "tes"), StageNumbers::default());
    }
}
