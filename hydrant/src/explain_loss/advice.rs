//! What a loss asks for, in plain words. Pure.

/// What to do about a loss at `stage` for `reason`.
pub(crate) fn advice(stage: &str, reason: &str) -> &'static str {
    match (stage, reason) {
        ("agent", "queue_full") => "dopplers are away or slow; a larger agent.egress.ring_bytes lasts longer",
        ("agent", "kernel_rcvbuf") => "raise agent.statsd.receive_buffer_bytes and net.core.rmem_max",
        ("drain", "queue_full" | "expired" | "retry_exhausted") => {
            "its destination is away or slow; `hydrant drain ls` says why, and --disk rides out longer outages"
        }
        ("drain", "rejected_permanent") => "its receiver will never take these; `hydrant drain ls` has the answer",
        ("traffic_controller", "queue_full" | "slow_consumer") => {
            "a consumer does not keep up; share the firehose among several with --shard, or ask for less"
        }
        (_, "queue_full") => {
            "a consumer is slower than what it asks for; add consumers with its shard, ask for less, or raise doppler.egress.ring_bytes"
        }
        (_, "slow_consumer") => "a consumer did not read and was cut; let it read faster, or ask for less",
        (_, "peer_lost") => "a consumer left with envelopes still in its ring; no harm if it meant to",
        (_, "decode_error" | "oversize" | "too_many") => {
            "a producer sends what is no envelope, or too large a one; the log names it, and docs/wire.md the limits"
        }
        (_, "convert_error") => "envelopes that the receiver's format cannot express, such as events for a v1 client",
        (_, "shutdown_deadline") => "a stop took longer than flush_timeout, or the next hop was away; raise it",
        (_, "unauthorised") => "a sender may not send this; its token or certificate decides",
        (_, "rate_limited") => "a source is over its limit",
        (_, "expired" | "retry_exhausted") => "the next hop was away for too long",
        (_, "disk_full" | "disk_corrupt") => "look at the disk of this process",
        (_, "cardinality") => "too many distinct series; drop a tag, or raise the limit of the drain",
        _ => "see docs/metrics.md, \"Reasons\"",
    }
}

#[cfg(test)]
mod tests {
    use proto::reason::Reason;

    use super::*;

    #[test]
    fn what_is_dropped_anywhere_has_an_advice_of_its_own() {
        let general = advice("doppler", "?");
        let rare = ["unknown_source", "memory_pressure", "no_route", "rejected_permanent", "kernel_rcvbuf"];
        for reason in Reason::ALL.map(Reason::as_str).into_iter().filter(|reason| !rare.contains(reason)) {
            assert_ne!(advice("doppler", reason), general, "{reason}");
        }
        assert_ne!(advice("drain", "rejected_permanent"), general);
    }
}
