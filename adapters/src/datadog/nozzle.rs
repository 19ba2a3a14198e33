//! Names and tags of datadog-firehose-nozzle (contract: syslog drains §7.4).
//!
//! What its dashboards ask for, with one difference that Datadog makes as well when it takes a name: what cannot stand in one is a `_`.
//! Tags are sorted and each is there once; the nozzle sends them in any order.

use smallvec::SmallVec;

use super::series::Of;
use super::text::{self, MAX_NAME};
use super::wanted::{Context, Wanted, of_envelope, settle};
use crate::read::{Envelope, Gauge};

/// Names that begin like this have no prefix.
const BOSH: &str = "bosh.healthmonitor";
/// Names that begin like this are sent with [`BOSH`] in place of it as well.
const FORWARDER: &str = "bosh-hm-forwarder";
/// Tags with one of these in them are left out: they differ each time.
const REMOVED: [&str; 2] = ["created_at", "user_data"];

/// A counter or a metric of a gauge.
pub(super) fn metric<'a>(context: &Context, envelope: &Envelope<'a>, name: &[u8]) -> Option<Wanted<'a>> {
    let name = String::from_utf8_lossy(name);
    let made = |name: &str| {
        let prefix = if name.starts_with(BOSH) { "" } else { &context.prefix };
        text::metric(prefix, name, MAX_NAME)
    };
    let mut names = SmallVec::from_iter([made(&name)?]);
    let origin = String::from_utf8_lossy(envelope.tag("origin"));
    let of_origin = (!origin.is_empty()).then(|| made(&format!("{origin}.{name}")));
    let alias = name.strip_prefix(FORWARDER).map(|rest| made(&format!("{BOSH}{rest}")));
    for name in [of_origin, alias].into_iter().flatten().flatten() {
        // One may be cut to what another is.
        if !names.contains(&name) {
            names.push(name);
        }
    }
    let mut tags = tags(context, envelope);
    settle(&mut tags);
    let host = context.host(envelope);
    Some(Wanted { names, tags, host, of: Of::Gauge, unit: "", source_id: envelope.source_id })
}

/// Every tag, and what is told of origin, source, instance, deployment and job besides.
pub(super) fn tags(context: &Context, envelope: &Envelope<'_>) -> Vec<String> {
    let env = context.env.as_deref().unwrap_or_default();
    let mut tags = of_envelope(envelope, false);
    let mut add = |key: &str, value: &[u8]| tags.extend(text::tag(key.as_bytes(), value));
    add("name", envelope.tag("origin"));
    add("instance_id", envelope.instance_id);
    add("source_id", envelope.source_id);
    add("container_id", envelope.tag("process_instance_id"));
    add("env", env.as_bytes());
    let deployment = String::from_utf8_lossy(envelope.tag("deployment"));
    if !deployment.is_empty() {
        let short = without_ids(&deployment, "-");
        if !env.is_empty() {
            add("deployment", format!("{short}_{env}").as_bytes());
        }
        add("deployment", short.as_bytes());
    }
    add("job", without_ids(&String::from_utf8_lossy(envelope.tag("job")), "-partition-").as_bytes());
    tags.extend_from_slice(&context.tags);
    tags.retain(|tag| !REMOVED.iter().any(|removed| tag.contains(removed)));
    tags
}

/// The five metrics of a container.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Container {
    found: u8,
    /// What the gauge itself says of it.
    pub(super) instance: Option<f64>,
}

const CONTAINER: [(&[u8], &str); 5] = [
    (b"cpu", "app.cpu.pct"),
    (b"disk", "app.disk.used"),
    (b"disk_quota", "app.disk.quota"),
    (b"memory", "app.memory.used"),
    (b"memory_quota", "app.memory.quota"),
];

impl Container {
    /// Looks for another of the five.
    pub(super) fn see(&mut self, gauge: &Gauge<'_>) {
        if let Some(at) = CONTAINER.iter().position(|(name, _)| *name == gauge.name) {
            self.found |= 1 << at;
        } else if gauge.name == b"instance_index" {
            self.instance = Some(gauge.value);
        }
    }

    /// All were there: no other metric of the gauge is sent then.
    pub(super) fn is_whole(self) -> bool {
        self.found == (1 << CONTAINER.len()) - 1
    }

    /// True for one of the five.
    pub(super) fn has(name: &[u8]) -> bool {
        CONTAINER.iter().any(|(of, _)| *of == name)
    }

    /// One of the five as a series, with the tags that name its app.
    pub(super) fn metric<'a>(self, context: &Context, envelope: &Envelope<'a>, name: &[u8]) -> Option<Wanted<'a>> {
        let (_, name) = CONTAINER.iter().find(|(of, _)| *of == name)?;
        let mut tags: Vec<String> = [
            ("app_name", envelope.tag("app_name")),
            ("org_name", envelope.tag("organization_name")),
            ("org_id", envelope.tag("organization_id")),
            ("space_name", envelope.tag("space_name")),
            ("space_id", envelope.tag("space_id")),
            ("guid", envelope.source_id),
            ("source_id", envelope.source_id),
            ("env", context.env.as_deref().unwrap_or_default().as_bytes()),
        ]
        .into_iter()
        .filter_map(|(key, value)| text::tag(key.as_bytes(), value))
        .collect();
        #[expect(clippy::cast_possible_truncation, reason = "a float is cast to the nearest integer in range")]
        let index = self.instance.map(|index| (index as i64).to_string());
        let instance = index.as_deref().map_or(envelope.instance_id, str::as_bytes);
        tags.extend(text::tag(b"instance", instance));
        tags.extend_from_slice(&context.tags);
        settle(&mut tags);
        let host = match context.host(envelope) {
            host if host.is_empty() => text::name(envelope.source_id).into_owned(),
            host => host,
        };
        let names = SmallVec::from_iter([text::metric(&context.prefix, name, MAX_NAME)?]);
        Some(Wanted { names, tags, host, of: Of::Gauge, unit: "", source_id: envelope.source_id })
    }
}

/// `text` without `before` and the 20 hexadecimal digits after it, wherever they stand.
fn without_ids(text: &str, before: &str) -> String {
    const DIGITS: usize = 20;
    let is_id = |rest: &str| {
        let digits = rest.as_bytes().get(..DIGITS);
        digits.is_some_and(|digits| digits.iter().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f')))
    };
    let mut kept = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find(before) {
        let (head, tail) = rest.split_at(at);
        kept.push_str(head);
        let after = &tail[before.len()..];
        if is_id(after) {
            rest = &after[DIGITS..];
        } else {
            kept.push_str(before);
            rest = after;
        }
    }
    kept.push_str(rest);
    kept
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_taken_out_of_names() {
        let id = "0123456789abcdef0123";
        for (text, before, expected) in [
            (format!("cf-{id}"), "-", "cf"),
            (format!("cf-{id}-{id}x"), "-", "cfx"),
            (format!("p-mysql-{id}"), "-", "p-mysql"),
            (format!("cf-{}", &id[1..]), "-", "cf-123456789abcdef0123"),
            (format!("cf-{}", id.to_uppercase()), "-", "cf-0123456789ABCDEF0123"),
            (format!("router-partition-{id}"), "-partition-", "router"),
            ("router-partition-é".to_owned(), "-partition-", "router-partition-é"),
            (String::new(), "-", ""),
        ] {
            assert_eq!(without_ids(&text, before), expected, "{text}");
        }
    }
}
