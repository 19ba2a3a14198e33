//! What a container uses, to gauges (contract: agents §10.2). Pure.

use super::names::Known;
use crate::gather::Gather;

/// What a container uses at one reading.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Use {
    /// Processor time since the last reading in percent, 100 being one processor; absent at the first one.
    pub(crate) cpu: Option<f64>,
    /// Bytes of its working set.
    pub(crate) memory: u64,
    /// Bytes that it may have.
    pub(crate) memory_quota: u64,
    /// Nanoseconds of processor time that it has had.
    pub(crate) absolute_usage: u64,
    /// Nanoseconds since its oldest process began.
    pub(crate) age: Option<u64>,
}

/// Characters of an id that stand for a container of which no more is known, as its runtime shows it.
const SHORT_ID: usize = 12;

/// Writes what the container `id` uses, at `now_ns` nanoseconds since the Unix epoch. A sandbox uses nothing worth telling.
///
/// The first gauge has exactly the five names that make it a v1 `ContainerMetric` (contract: agents §7.3). A cgroup does not count what is
/// on disk: both numbers of it are 0 bytes.
#[expect(clippy::cast_precision_loss, reason = "bytes and nanoseconds, whose last digits nobody reads past 2^53")]
pub(crate) fn put(gather: &mut Gather, id: &str, known: Known<'_>, used: &Use, now_ns: i64) {
    let short = &id[..id.len().min(SHORT_ID)];
    let (source_id, instance_id, pod) = match known {
        Known::Sandbox => return,
        Known::Container(pod) => (pod.source_id(), pod.instance_id(), Some(pod)),
        Known::Pod(pod) => (short.to_owned(), pod.instance_id(), Some(pod)),
        // As the log of a container outside of pods has it.
        Known::Nothing => (short.to_owned(), short, None),
    };
    let mut gauge = |readings: &[(&'static str, &'static str, f64)]| {
        let mut draft = gather.envelope(&source_id, instance_id, now_ns);
        for (key, value) in pod.iter().flat_map(|pod| pod.tags()).filter(|(_, value)| !value.is_empty()) {
            draft.tag(key, value);
        }
        draft.tag("container_id", id);
        draft.gauge(readings.iter().copied());
    };
    if let Some(cpu) = used.cpu {
        gauge(&[
            ("cpu", "percentage", cpu),
            ("memory", "bytes", used.memory as f64),
            ("disk", "bytes", 0.0),
            ("memory_quota", "bytes", used.memory_quota as f64),
            ("disk_quota", "bytes", 0.0),
        ]);
    }
    let usage = ("absolute_usage", "nanoseconds", used.absolute_usage as f64);
    match used.age {
        Some(age) => gauge(&[("container_age", "nanoseconds", age as f64), usage]),
        None => gauge(&[usage]),
    }
}

#[cfg(test)]
mod tests {
    use prost::Message as _;
    use proto::events;
    use proto::v1::{decode, to_v1};

    use super::*;
    use crate::pod::Pod;

    const USE: Use = Use {
        cpu: Some(150.5),
        memory: 300 << 20,
        memory_quota: 1 << 30,
        absolute_usage: 5_000_000_000,
        age: Some(60_000_000_000),
    };

    #[test]
    fn the_first_gauge_becomes_a_container_metric() {
        let mut gather = Gather::default();
        let pod = Pod { namespace: "shop", name: "cart-3", uid: "u", container: "cart" };
        put(&mut gather, "0123456789abcdef", Known::Container(pod), &USE, 7);
        let (batch, refused) = gather.take().unwrap();
        assert_eq!((batch.len(), refused.total()), (2, 0));
        let mut payloads = Vec::new();
        to_v1(batch.envelope(&batch.entries()[0]), &mut payloads);
        assert_eq!(payloads.len(), 1);
        decode(&payloads[0].bytes).unwrap();
        let v1 = events::Envelope::decode(payloads[0].bytes.clone()).unwrap();
        let metric = v1.container_metric.unwrap();
        assert_eq!((metric.application_id.as_str(), metric.instance_index), ("shop/cart", 0));
        assert_eq!(
            (metric.cpu_percentage.to_bits(), metric.memory_bytes, metric.disk_bytes),
            (150.5_f64.to_bits(), 300 << 20, 0)
        );
        assert_eq!((metric.memory_bytes_quota, metric.disk_bytes_quota), (Some(1 << 30), Some(0)));
        payloads.clear();
        to_v1(batch.envelope(&batch.entries()[1]), &mut payloads);
        assert_eq!(payloads.len(), 2, "a value metric for each of the second gauge");
    }

    #[test]
    fn what_is_not_known_is_left_out() {
        let mut gather = Gather::default();
        put(&mut gather, "0123456789abcdef", Known::Sandbox, &USE, 7);
        assert!(gather.is_empty());
        put(&mut gather, "0123456789abcdef", Known::Nothing, &Use { cpu: None, age: None, ..USE }, 7);
        let pod = Pod { namespace: "shop", name: "cart-3", uid: "u", container: "" };
        put(&mut gather, "0123456789abcdef", Known::Pod(pod), &Use { cpu: None, ..USE }, 7);
        let (batch, _) = gather.take().unwrap();
        let envelopes: Vec<proto::v2::Envelope> =
            batch.entries().iter().map(|entry| proto::v2::Envelope::decode(batch.envelope(entry)).unwrap()).collect();
        assert_eq!(
            (envelopes[0].source_id.as_str(), envelopes[0].instance_id.as_str()),
            ("0123456789ab", "0123456789ab")
        );
        assert_eq!(envelopes[0].tags.len(), 1);
        assert_eq!((envelopes[1].source_id.as_str(), envelopes[1].instance_id.as_str()), ("0123456789ab", "cart-3"));
        let mut keys: Vec<_> = envelopes[1].tags.keys().cloned().collect();
        keys.sort();
        assert_eq!(keys, ["container_id", "namespace", "pod", "pod_uid"]);
    }
}
